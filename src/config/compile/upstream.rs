//! `[upstream]`, and what an `[[arm]]` says instead of it.

use std::path::PathBuf;

use super::sections::pointer;
use crate::config::matching;
use crate::document::{Section, did_you_mean};
use crate::experiment::upstream::{
    EjectionRule, Endpoint, HealthRule, HostRule, PathRewrite, Probe, Protocol, RetryRule, Scheme,
    TlsRule, UpstreamRule, split_authority,
};
use crate::experiment::{Arm, Matcher, PathRule};

/// A year: a longer time is a slip, and clocks need not bear it.
const MAX_TIME: u64 = 365 * 86_400_000;
/// Bytes of a gRPC service's name.
const MAX_SERVICE: usize = 255;
/// Headers that carry the message itself; a deadline must not replace them.
const FRAMING: &[&str] = &[
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Reads the section. What is wrong in it is reported, and has its default here.
pub(super) fn read(section: &Section<'_>, matcher: Option<&Matcher>) -> UpstreamRule {
    let plain = UpstreamRule::default();
    let count = |key, default| section.integer(key).map_or(default, |count| count as usize);
    UpstreamRule {
        connect_timeout: time(section, "connect_timeout", plain.connect_timeout),
        response_timeout: time(section, "response_timeout", plain.response_timeout),
        idle_timeout: time(section, "idle_timeout", plain.idle_timeout),
        total_timeout: section
            .has("total_timeout")
            .then(|| time(section, "total_timeout", MAX_TIME)),
        deadline_header: deadline_header(section),
        protocol: protocol(section).unwrap_or(plain.protocol),
        host: host(section).unwrap_or(plain.host),
        path: rewrite_path(section, matcher),
        model_field: model_field(section),
        max_in_flight: count("max_in_flight", plain.max_in_flight),
        max_pending: count("max_pending", plain.max_pending),
        slow_start: time(section, "slow_start", plain.slow_start),
        retry: section
            .section("retry")
            .map_or(plain.retry, |section| retry(&section)),
        health: section
            .section("health")
            .and_then(|section| health(&section)),
        ejection: section
            .section("ejection")
            .map_or(plain.ejection, |section| ejection(&section)),
        tls: section
            .section("tls")
            .map_or(plain.tls, |section| tls(&section)),
    }
}

/// What concerns the section and the arms together.
pub(super) fn check_arms(section: &Section<'_>, rule: &UpstreamRule, arms: &[Arm]) {
    if section.has("model_field") && arms.iter().all(|arm| arm.model.is_none()) {
        section.reject(
            "model_field",
            "no arm has a `model`, so nothing replaces the text at `model_field`",
            "give an [[arm]] its `model`, or leave `model_field` out",
        );
    }
    let mut endpoints = arms.iter().flat_map(|arm| &arm.endpoints);
    if section.has("tls") && !endpoints.any(|endpoint| endpoint.scheme == Scheme::Https) {
        section.reject(
            "tls",
            "no arm has an https:// endpoint, so [upstream.tls] is for nothing",
            "write endpoints as https://HOST:PORT, or leave [upstream.tls] out",
        );
    }
    let asks_grpc = rule
        .health
        .as_ref()
        .is_some_and(|health| matches!(health.probe, Probe::Grpc { .. }));
    if let Some(arm) = arms
        .iter()
        .find(|arm| asks_grpc && arm.protocol == Protocol::Http1)
    {
        section.reject(
            "health",
            format!(
                "`{}` speaks HTTP/1.1, over which no gRPC server can be asked for its health",
                arm.name
            ),
            "use protocol = \"http2\", or check a `path`",
        );
    }
}

/// A duration, at most a year.
fn time(section: &Section<'_>, key: &str, default: u64) -> u64 {
    let Some(time) = section.duration(key) else {
        return default;
    };
    if time > MAX_TIME {
        section.reject(
            key,
            format!("`{key}` is longer than a year"),
            "it is at most \"365d\"",
        );
    }
    time
}

pub(super) fn protocol(section: &Section<'_>) -> Option<Protocol> {
    match section.string("protocol")? {
        "auto" => Some(Protocol::Auto),
        "http1" => Some(Protocol::Http1),
        "http2" => Some(Protocol::Http2),
        _ => None,
    }
}

pub(super) fn host(section: &Section<'_>) -> Option<HostRule> {
    const WORDS: &[&str] = &["keep", "endpoint"];
    match section.string("host")? {
        "keep" => Some(HostRule::Keep),
        "endpoint" => Some(HostRule::Endpoint),
        text if split_authority(text).is_none() => {
            section.reject(
                "host",
                format!("`{text}` is not a host"),
                "it takes \"keep\", \"endpoint\", or a host without scheme and path, as in \"models.example.org\" or \"localhost:8080\"",
            );
            None
        }
        text => {
            if let Some(word) = did_you_mean(&text.to_ascii_lowercase(), WORDS) {
                section.warn(
                    "host",
                    format!("endpoints will see the host `{text}`"),
                    format!("did you mean \"{word}\"?"),
                );
            }
            Some(HostRule::Fixed(text.to_owned()))
        }
    }
}

pub(super) fn rewrite_path(
    section: &Section<'_>,
    matcher: Option<&Matcher>,
) -> Option<PathRewrite> {
    let table = section.section("rewrite_path")?;
    let side = |key| {
        let text = table.string(key)?;
        if let Some(help) = wrong_prefix(text) {
            table.reject(key, format!("`{text}` cannot be the start of a path"), help);
            return None;
        }
        Some(text.to_owned())
    };
    let (from, to) = (side("from"), side("to"));
    let rewrite = PathRewrite {
        from: from?,
        to: to?,
    };
    if matcher.is_some_and(|matcher| !reaches(&matcher.path, &rewrite.from)) {
        table.reject(
            "from",
            format!(
                "no request of this experiment has a path that starts with `{}`",
                rewrite.from
            ),
            "`from` starts as `path` in [match] does",
        );
    }
    Some(rewrite)
}

/// Whether some path that matches starts with `prefix`.
fn reaches(path: &PathRule, prefix: &str) -> bool {
    match path {
        PathRule::Exact(path) => path.starts_with(prefix),
        PathRule::Prefix(path) => path.starts_with(prefix) || prefix.starts_with(path.as_str()),
    }
}

/// What is wrong with the start of a path.
fn wrong_prefix(text: &str) -> Option<&'static str> {
    if !text.starts_with('/') || !text.ends_with('/') {
        return Some("it starts and ends with /, as in \"/v1/\" or \"/\"");
    }
    if text.contains("//") {
        return Some("it has no empty segments");
    }
    if text.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Some("it has no dot segments");
    }
    let lower = text.to_ascii_lowercase();
    if ["%2e", "%2f", "%5c"]
        .iter()
        .any(|encoded| lower.contains(encoded))
    {
        return Some("it has no encoded dots and separators (%2e, %2f, %5c)");
    }
    (!is_path(text)).then_some("it has letters, digits and -._~!$&'()*+,;=:@, and the rest percent-encoded; no query and no fragment")
}

/// Whether every byte may stand in a path (RFC 3986 §3.3).
fn is_path(text: &str) -> bool {
    let bytes = text.as_bytes();
    let escape =
        |rest: &[u8]| rest.len() > 2 && rest[1].is_ascii_hexdigit() && rest[2].is_ascii_hexdigit();
    bytes.iter().enumerate().all(|(index, byte)| match byte {
        b'%' => escape(&bytes[index..]),
        byte => byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(byte),
    })
}

fn deadline_header(section: &Section<'_>) -> Option<String> {
    let text = section.string("deadline_header")?;
    let name = text.to_ascii_lowercase();
    if !matching::is_header_name(text) {
        section.reject(
            "deadline_header",
            format!("`{text}` cannot be the name of a header"),
            "names are letters, digits and hyphens",
        );
        return None;
    }
    if FRAMING.contains(&name.as_str()) || name.starts_with("x-pointsman-") {
        section.reject(
            "deadline_header",
            format!("`{text}` has a meaning of its own"),
            "choose a header that means a deadline to the endpoints, as in \"x-deadline-ms\"",
        );
        return None;
    }
    Some(name)
}

fn model_field(section: &Section<'_>) -> Option<String> {
    let text = section.string("model_field")?;
    if text.is_empty() {
        section.reject(
            "model_field",
            "the empty JSON pointer is the body as a whole",
            "name a field, as in \"/model\"",
        );
        return None;
    }
    pointer(section, "model_field", text)
}

fn retry(section: &Section<'_>) -> RetryRule {
    let plain = RetryRule::default();
    let statuses = section
        .integers("statuses")
        .map_or(plain.statuses, |statuses| {
            statuses.into_iter().map(|status| status as u16).collect()
        });
    for (index, status) in statuses.iter().enumerate() {
        if statuses[..index].contains(status) {
            section.reject_item(
                "statuses",
                index,
                format!("{status} is given twice"),
                "leave one out",
            );
        }
    }
    RetryRule {
        attempts: number(section, "attempts", plain.attempts),
        idempotent: section.boolean("idempotent").unwrap_or(plain.idempotent),
        statuses,
        budget: section.number("budget").unwrap_or(plain.budget),
        budget_per_second: section
            .number("budget_per_second")
            .unwrap_or(plain.budget_per_second),
    }
}

fn number(section: &Section<'_>, key: &str, default: u32) -> u32 {
    section.integer(key).map_or(default, |number| number as u32)
}

fn health(section: &Section<'_>) -> Option<HealthRule> {
    let interval = time(section, "interval", 5_000);
    let timeout = time(section, "timeout", 1_000.min(interval));
    if timeout > interval {
        section.reject(
            "timeout",
            "a check's `timeout` is longer than the `interval` between checks",
            "shorten it, or check less often",
        );
    }
    Some(HealthRule {
        probe: probe(section)?,
        interval,
        timeout,
        healthy: number(section, "healthy", 2),
        unhealthy: number(section, "unhealthy", 3),
    })
}

fn probe(section: &Section<'_>) -> Option<Probe> {
    const HELP: &str =
        "give one of path = \"/healthz\" and grpc = \"\" (the name of a service, or nothing)";
    match (section.has("path"), section.has("grpc")) {
        (true, true) => {
            section.reject_key("grpc", "`path` and `grpc` exclude each other", HELP);
            None
        }
        (false, false) => {
            section.reject_section("a health check needs `path` or `grpc`", HELP);
            None
        }
        (true, false) => {
            let path = section.string("path")?;
            let (plain, query) = path.split_once('?').unwrap_or((path, ""));
            let query = query.replace(['?', '/'], "");
            if !path.starts_with('/') || !is_path(plain) || !is_path(&query) {
                section.reject(
                    "path",
                    format!("`{path}` cannot be asked for"),
                    "it starts with /, and what is not a letter, a digit or plain punctuation is percent-encoded, as in \"/healthz?full=1\"",
                );
                return None;
            }
            Some(Probe::Http {
                path: path.to_owned(),
            })
        }
        (false, true) => {
            let service = section.string("grpc")?;
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
            if service.len() > MAX_SERVICE || !service.bytes().all(plain) {
                section.reject(
                    "grpc",
                    format!("`{service}` cannot be the name of a service"),
                    format!("names are at most {MAX_SERVICE} letters, digits, dots, _ and -, as in \"inference.GRPCInferenceService\""),
                );
                return None;
            }
            Some(Probe::Grpc {
                service: service.to_owned(),
            })
        }
    }
}

fn ejection(section: &Section<'_>) -> EjectionRule {
    let plain = EjectionRule::default();
    if section.has("minimum_requests") && !section.has("success_rate") {
        section.reject_key(
            "minimum_requests",
            "`minimum_requests` says nothing without `success_rate`",
            "give `success_rate`, as in 0.5, or leave it out",
        );
    }
    let base = time(section, "base", plain.base);
    let max = time(section, "max", plain.max.max(base));
    if max < base {
        section.reject(
            "max",
            "the longest ejection, `max`, is shorter than the first, `base`",
            "raise `max`, or lower `base`",
        );
    }
    EjectionRule {
        consecutive_failures: number(section, "consecutive_failures", plain.consecutive_failures),
        success_rate: section.number("success_rate"),
        minimum_requests: number(section, "minimum_requests", plain.minimum_requests),
        interval: time(section, "interval", plain.interval),
        base,
        max,
        max_share: section.number("max_share").unwrap_or(plain.max_share),
    }
}

fn tls(section: &Section<'_>) -> TlsRule {
    let file = |key| {
        let text = section.string(key)?;
        if text.is_empty() {
            section.reject(
                key,
                format!("`{key}` is empty"),
                "name a PEM file, or leave it out",
            );
        }
        Some(PathBuf::from(text))
    };
    for (given, missing) in [("certificate", "key"), ("key", "certificate")] {
        if section.has(given) && !section.has(missing) {
            section.reject_key(
                given,
                format!("`{given}` needs `{missing}`"),
                "give both or none",
            );
        }
    }
    let verify = section.boolean("verify").unwrap_or(true);
    if !verify {
        section.warn(
            "verify",
            "certificates of endpoints are not verified",
            "anybody on the way can pose as them; `ca_file` makes a certificate of your own trusted",
        );
    }
    TlsRule {
        ca_file: file("ca_file"),
        server_name: server_name(section),
        verify,
        certificate: file("certificate"),
        key: file("key"),
    }
}

fn server_name(section: &Section<'_>) -> Option<String> {
    let text = section.string("server_name")?;
    // With a port put to it, it is a host exactly when it has none.
    if text.starts_with('[') || Endpoint::parse(&format!("https://{text}:1")).is_err() {
        section.reject(
            "server_name",
            format!("`{text}` is not the name of a server"),
            "it takes a host name without scheme and port, as in \"models.example.org\"",
        );
        return None;
    }
    Some(text.to_ascii_lowercase())
}
