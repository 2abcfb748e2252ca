//! `[match]`: which requests belong to an experiment, and which of two experiments comes first.

use std::cmp::Reverse;

use crate::document::Section;
use crate::experiment::{Matcher, PathRule};

const RESERVED: &[&str] = &["/-/", "/ofrep/"];

/// Reads and checks the section.
pub(super) fn read(section: &Section<'_>) -> Option<Matcher> {
    let path = section
        .string("path")
        .and_then(|path| path_rule(section, path));
    let methods = section.strings("methods");
    for (index, method) in methods.iter().enumerate() {
        if method.is_empty()
            || !method
                .bytes()
                .all(|byte| byte.is_ascii_uppercase() || byte == b'-')
        {
            section.reject_item(
                "methods",
                index,
                format!("`{method}` is not a method"),
                "methods are words in capitals, as in [\"GET\", \"POST\"]",
            );
        }
    }
    let host = section.string("host").map(str::to_ascii_lowercase);
    if host.as_ref().is_some_and(|host| {
        host.is_empty()
            || host.contains(['/', ' '])
            || (host.contains(':') && !host.starts_with('['))
    }) {
        section.reject(
            "host",
            "`host` is not a host name",
            "give the host without scheme, port and path, as in \"models.example.org\"",
        );
    }
    let mut headers = Vec::new();
    for (name, value) in section.string_map("headers") {
        if is_header_name(&name)
            && value
                .bytes()
                .all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte))
        {
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        } else {
            section.reject(
                "headers",
                format!("`{name}` is not a header with a plain value"),
                "names are letters, digits and hyphens; values are printable ASCII",
            );
        }
    }
    headers.sort();
    let mut methods: Vec<String> = methods.into_iter().map(str::to_owned).collect();
    methods.sort();
    methods.dedup();
    Some(Matcher {
        path: path?,
        methods,
        host,
        headers,
    })
}

/// Whether `name` is a field name (RFC 9110 §5.1).
pub(super) fn is_header_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

fn path_rule(section: &Section<'_>, path: &str) -> Option<PathRule> {
    let plain = path
        .strip_suffix("/*")
        .map_or(path, |prefix| if prefix.is_empty() { "/" } else { prefix });
    let wrong = if !path.starts_with('/') {
        Some("it starts with /")
    } else if path.contains(['?', '#', ' ']) || !path.is_ascii() {
        Some("it has no query, no fragment and no space, and what is not ASCII is percent-encoded")
    } else if plain.contains('*') {
        Some("a * stands only at the end, as in /v1/*")
    } else if plain
        .split('/')
        .any(|segment| matches!(segment, "." | ".."))
    {
        Some("it has no dot segments: such requests are refused")
    } else if ["%2e", "%2f", "%5c"]
        .iter()
        .any(|encoded| path.to_ascii_lowercase().contains(encoded))
    {
        Some("it has no encoded dots and separators (%2e, %2f, %5c): such requests are refused")
    } else {
        None
    };
    if let Some(help) = wrong {
        section.reject("path", format!("`{path}` cannot be matched"), help);
        return None;
    }
    if RESERVED.iter().any(|reserved| path.starts_with(reserved)) {
        section.reject(
            "path",
            format!("`{path}` is reserved"),
            "paths under /-/ and /ofrep/ are Pointsman's own",
        );
        return None;
    }
    Some(match path.strip_suffix('*') {
        Some(prefix) if path.ends_with("/*") => PathRule::Prefix(prefix.to_owned()),
        _ => PathRule::Exact(path.to_owned()),
    })
}

/// Sorts most specific first: exact path, longer prefix, host, more headers, methods.
pub(super) fn specificity(matcher: &Matcher) -> impl Ord + use<> {
    let (exact, length) = match &matcher.path {
        PathRule::Exact(path) => (true, path.len()),
        PathRule::Prefix(path) => (false, path.len()),
    };
    Reverse((
        exact,
        length,
        matcher.host.is_some(),
        matcher.headers.len(),
        !matcher.methods.is_empty(),
    ))
}

/// Whether some request belongs to both and neither is more specific.
pub(super) fn tie(a: &Matcher, b: &Matcher) -> bool {
    let same_shape = a.path == b.path
        && a.host == b.host
        && a.headers.len() == b.headers.len()
        && a.methods.is_empty() == b.methods.is_empty();
    let methods_meet =
        a.methods.is_empty() || a.methods.iter().any(|method| b.methods.contains(method));
    // Two values of one header exclude each other; different headers can both be there.
    let headers_meet = !a.headers.iter().any(|(name, value)| {
        b.headers
            .iter()
            .any(|(other, wanted)| other == name && wanted != value)
    });
    same_shape && methods_meet && headers_meet
}
