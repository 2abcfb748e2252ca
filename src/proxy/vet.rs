//! Refuses requests that two parsers could read differently, before anything else looks at them.
//!
//! The parser ([`crate::http1`]) has refused malformed messages; what is here is what a whole message may still hide
//! (RFC 9112 §3.2, RFC 9110 §7.2). Not here: limits of size and time, which are the connection's.

use super::problem::Problem;
use crate::http1::field::Known;
use crate::http1::head::Request;
use crate::http1::tokens;
use http::StatusCode;

/// Fields that `Connection` may name: each field is looked for among them.
const MAX_NAMED: usize = 32;

/// Refuses what cannot be forwarded faithfully.
pub fn request(request: &Request) -> Result<(), Problem> {
    if request.method_bytes() == b"CONNECT" {
        let detail = "CONNECT is not proxied: this is a reverse proxy";
        return Err(
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed", detail).and_close(),
        );
    }
    let named = request.fields.of(Known::Connection);
    let named: usize = named.map(|value| tokens::list(value).count()).sum();
    if named > MAX_NAMED {
        return Err(Problem::bad_request("connection names too many fields").and_close());
    }
    host(request)?;
    path(request.path_bytes())
}

fn host(request: &Request) -> Result<(), Problem> {
    let bad = |detail: &str| Err(Problem::bad_request(detail).and_close());
    let mut hosts = request.fields.of(Known::Host);
    match (hosts.next(), hosts.next()) {
        (None, _) if !request.is_http_10 => bad("the host header is missing"),
        (None, _) => Ok(()),
        (Some(_), Some(_)) => bad("there is more than one host header"),
        (Some(host), None) if !is_host(host) => {
            bad("the host header is not a host with an optional port")
        }
        (Some(host), None) => match request.authority() {
            Some(authority) if !authority.as_bytes().eq_ignore_ascii_case(host) => {
                bad("the host header differs from the request target's authority")
            }
            _ => Ok(()),
        },
    }
}

/// The bytes that a host may have.
const IN_HOST: [bool; 256] = {
    let (mut allowed, mut byte) = ([false; 256], 0);
    while byte < 256 {
        allowed[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let (marks, mut index) = (b"-._~%!$&'()*+;=:", 0);
    while index < marks.len() {
        allowed[marks[index] as usize] = true;
        index += 1;
    }
    allowed
};

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
    let name = |byte: &u8| IN_HOST[usize::from(*byte)];
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
fn path(bytes: &[u8]) -> Result<(), Problem> {
    // The common path has none of them, and is scanned once.
    if memchr::memchr3(b'%', b'.', b'\\', bytes).is_none() {
        return Ok(());
    }
    let Ok(path) = std::str::from_utf8(bytes) else {
        return Err(Problem::bad_request("the path is not ASCII"));
    };
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
            assert!(path(good.as_bytes()).is_ok(), "{good}");
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
            assert!(path(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn ambiguous_hosts_and_targets_are_refused() {
        let refused = |text: &str| {
            let limits = crate::http1::head::Limits {
                fields: 10,
                bytes: 1_000,
            };
            let mut parsed = Request::default();
            match parsed.parse(text.as_bytes(), limits) {
                Ok(Some(_)) => request(&parsed).is_err(),
                _ => true,
            }
        };
        assert!(!refused("GET /x HTTP/1.1\r\nhost: a\r\n\r\n"));
        assert!(!refused("GET http://a/x HTTP/1.1\r\nhost: A\r\n\r\n"));
        assert!(!refused("GET /x HTTP/1.0\r\n\r\n"));
        for text in [
            "GET /x HTTP/1.1\r\n\r\n",
            "GET /x HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n",
            "GET http://b/x HTTP/1.1\r\nhost: a\r\n\r\n",
            "CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n",
            "GET /a/../b HTTP/1.1\r\nhost: a\r\n\r\n",
        ] {
            assert!(refused(text), "{text}");
        }
    }
}
