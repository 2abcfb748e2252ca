//! Refuses requests that two parsers could read differently, before anything else looks at them.
//!
//! hyper refuses most malformed messages by itself; what is here is what it lets through (RFC 9112 §3.2 and §6.1,
//! RFC 9110 §7.2). Not here: limits of size and time, which are the listener's.

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{Method, StatusCode, Version};

use super::problem::Problem;

/// Longest method that is passed on.
const MAX_METHOD_LENGTH: usize = 32;

/// Refuses what cannot be forwarded faithfully.
pub fn request(parts: &Parts) -> Result<(), Problem> {
    method(parts)?;
    transfer_coding(parts)?;
    host(parts)?;
    path(parts.uri.path())
}

fn method(parts: &Parts) -> Result<(), Problem> {
    if parts.method == Method::CONNECT {
        let detail = "CONNECT is not proxied: this is a reverse proxy";
        return Err(
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed", detail).and_close(),
        );
    }
    if parts.method.as_str().len() > MAX_METHOD_LENGTH {
        return Err(Problem::new(
            StatusCode::NOT_IMPLEMENTED,
            "Not implemented",
            "the method is too long",
        )
        .and_close());
    }
    let target = parts
        .uri
        .path_and_query()
        .map(http::uri::PathAndQuery::as_str);
    if target.is_none_or(|target| !target.starts_with('/')) {
        return Err(Problem::bad_request("the request target must be a path").and_close());
    }
    Ok(())
}

/// Exactly one `chunked` and no length beside it.
fn transfer_coding(parts: &Parts) -> Result<(), Problem> {
    let mut codings = parts.headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else {
        return Ok(());
    };
    let single = codings.next().is_none()
        && coding
            .as_bytes()
            .trim_ascii()
            .eq_ignore_ascii_case(b"chunked");
    if !single {
        return Err(
            Problem::bad_request("transfer-encoding must be exactly one `chunked`").and_close(),
        );
    }
    if parts.headers.contains_key(CONTENT_LENGTH) {
        return Err(Problem::bad_request(
            "content-length and transfer-encoding exclude each other",
        )
        .and_close());
    }
    Ok(())
}

fn host(parts: &Parts) -> Result<(), Problem> {
    let bad = |detail: &str| Err(Problem::bad_request(detail).and_close());
    let mut hosts = parts.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if parts.version == Version::HTTP_11 => bad("the host header is missing"),
        (None, _) => Ok(()),
        (Some(_), Some(_)) => bad("there is more than one host header"),
        (Some(host), None) if !is_host(host.as_bytes()) => {
            bad("the host header is not a host with an optional port")
        }
        (Some(host), None) => match parts.uri.authority() {
            Some(authority)
                if !authority
                    .as_str()
                    .as_bytes()
                    .eq_ignore_ascii_case(host.as_bytes()) =>
            {
                bad("the host header differs from the request target's authority")
            }
            _ => Ok(()),
        },
    }
}

/// `host[:port]` of RFC 3986 §3.2.2, without user information.
fn is_host(text: &[u8]) -> bool {
    let (host, port) = match text.strip_prefix(b"[") {
        Some(rest) => {
            let Some(end) = rest.iter().position(|byte| *byte == b']') else {
                return false;
            };
            let literal = &rest[..end];
            let hexadecimal = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
            if literal.is_empty() || !literal.iter().all(hexadecimal) {
                return false;
            }
            (
                literal,
                rest[end + 1..]
                    .strip_prefix(b":")
                    .or(if rest.len() == end + 1 {
                        Some(b"")
                    } else {
                        None
                    }),
            )
        }
        None => match text.iter().position(|byte| *byte == b':') {
            Some(colon) => (&text[..colon], Some(&text[colon + 1..])),
            None => (text, Some(&b""[..])),
        },
    };
    let name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:".contains(byte);
    let number = |port: &[u8]| {
        port.len() <= 5 && port.iter().all(u8::is_ascii_digit) && {
            let value = port
                .iter()
                .fold(0_u32, |value, digit| value * 10 + u32::from(digit - b'0'));
            value <= 65_535
        }
    };
    !host.is_empty() && host.iter().all(name) && port.is_some_and(number)
}

/// No dot segments, encoded ones neither, and no encoded separators: two parties must not read the path differently.
fn path(path: &str) -> Result<(), Problem> {
    let bytes = path.as_bytes();
    // The common path has neither, and is scanned once.
    if !bytes.contains(&b'%') && !path.contains("/.") && !bytes.contains(&b'\\') {
        return Ok(());
    }
    let lower = path.to_ascii_lowercase();
    if lower.contains("%2f")
        || lower.contains("%5c")
        || lower.contains('\\')
        || lower.contains("%00")
    {
        return Err(Problem::bad_request(
            "the path has an encoded separator (%2f, %5c) or a NUL",
        ));
    }
    let dots = lower.replace("%2e", ".");
    if dots
        .split('/')
        .any(|segment| matches!(segment.split(';').next(), Some("." | "..")))
    {
        return Err(Problem::bad_request("the path has a dot segment"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for good in [
            "a",
            "a:80",
            "example.org:8080",
            "127.0.0.1:1",
            "[::1]",
            "[::1]:80",
            "a:",
        ] {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        for bad in [
            "", ":80", "a b", "a/b", "a,b", "u@a", "a\"", "a:b", "a:99999", "a\\b", "[::1",
            "[::1]x", "[]", "a:80:80",
        ] {
            assert!(!is_host(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn paths() {
        for good in [
            "/",
            "/a/b",
            "/a.b/..c",
            "/a%20b",
            "/.well-known/x",
            "/...",
            "/v1/m:predict",
        ] {
            assert!(path(good).is_ok(), "{good}");
        }
        for bad in [
            "/a/../b",
            "/..",
            "/./a",
            "/%2e%2E/a",
            "/a/.%2e",
            "/a%2fb",
            "/a%5Cb",
            "/..;x/a",
            "/a\\b",
        ] {
            assert!(path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ambiguous_framing_and_targets_are_refused() {
        let parts = |build: http::request::Builder| build.body(()).unwrap().into_parts().0;
        let post = || http::Request::post("/x").header("host", "a");
        assert!(request(&parts(post())).is_ok());
        assert!(request(&parts(post().header("transfer-encoding", "chunked"))).is_ok());
        for coding in ["chunked, chunked", "gzip, chunked", "identity", "chunked;x"] {
            assert!(
                request(&parts(post().header("transfer-encoding", coding))).is_err(),
                "{coding}"
            );
        }
        assert!(
            request(&parts(
                post()
                    .header("transfer-encoding", "chunked")
                    .header("content-length", "3")
            ))
            .is_err()
        );
        assert!(request(&parts(post().header("host", "b"))).is_err());
        assert!(request(&parts(http::Request::post("/x"))).is_err());
        assert!(request(&parts(http::Request::get("http://b/x").header("host", "a"))).is_err());
        assert!(
            request(&parts(
                http::Request::connect("a:80").header("host", "a:80")
            ))
            .is_err()
        );
        assert!(request(&parts(http::Request::options("*").header("host", "a"))).is_err());
    }
}
