//! Headers that belong to a connection, headers that are ours, and headers that every request should have.

use http::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};

use crate::experiment::id::SequenceKey;

/// The decision's id.
pub const DECISION: HeaderName = HeaderName::from_static("x-pointsman-decision");
/// The experiment's name.
pub const EXPERIMENT: HeaderName = HeaderName::from_static("x-pointsman-experiment");
/// The arm's name.
pub const ARM: HeaderName = HeaderName::from_static("x-pointsman-arm");
/// The policy file's version.
pub const POLICY_VERSION: HeaderName = HeaderName::from_static("x-pointsman-policy-version");
/// Why this arm, when it was not sampled.
pub const REASON: HeaderName = HeaderName::from_static("x-pointsman-reason");

/// In the copy of a request that another arm serves: the name of the arm that shadows.
pub const SHADOW: HeaderName = HeaderName::from_static("x-pointsman-shadow");

const OWN_PREFIX: &str = "x-pointsman-";
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Which way a message travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the arm.
    Request,
    /// From the arm to the client.
    Response,
}

/// Removes what is meant for one connection only (RFC 9110 §7.6.1: `Connection`, everything it names, and the classics), and
/// copies of our own headers, in one pass over the map.
///
/// A name in `Connection` cannot remove what frames or addresses the message. `TE: trailers` is kept in requests, because
/// an endpoint needs it before it sends trailers.
pub fn strip(headers: &mut HeaderMap, direction: Direction) {
    let mut doomed: Vec<HeaderName> = Vec::new();
    let mut keeps_trailers = false;
    for (name, value) in headers.iter() {
        if name == CONNECTION {
            for token in value.as_bytes().split(|byte| *byte == b',') {
                if let Ok(named) = HeaderName::from_bytes(token.trim_ascii()) {
                    // What frames or addresses the message, and `TE`, which is looked at below.
                    let protected = [HOST, CONTENT_LENGTH, TRANSFER_ENCODING, TE].contains(&named);
                    if !protected {
                        doomed.push(named);
                    }
                }
            }
            doomed.push(CONNECTION);
        } else if name == TE {
            let wanted = value
                .as_bytes()
                .split(|byte| *byte == b',')
                .any(|token| token.trim_ascii() == b"trailers");
            keeps_trailers |= wanted && direction == Direction::Request;
            doomed.push(TE);
        } else if is_hop_by_hop(name) || name.as_str().starts_with(OWN_PREFIX) {
            doomed.push(name.clone());
        }
    }
    for name in doomed {
        headers.remove(name);
    }
    if keeps_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// `Transfer-Encoding` is here because each side frames its own messages; the codec writes its own.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    name == TRANSFER_ENCODING
        || name == UPGRADE
        || name == KEEP_ALIVE
        || name == PROXY_CONNECTION
        || name == PROXY_AUTHENTICATE
        || name == PROXY_AUTHORIZATION
}

/// Gives a request an `x-request-id` and a `traceparent` (W3C Trace Context, level 1) where it has none. Both are made of the
/// decision's sequence key, which is unique.
pub fn identify(headers: &mut HeaderMap, sequence: SequenceKey) {
    if headers.contains_key(REQUEST_ID) && headers.contains_key(TRACEPARENT) {
        return;
    }
    let number = (u128::from(sequence.origin) << 64)
        | (u128::from(sequence.worker) << 48)
        | u128::from(sequence.counter & 0xffff_ffff_ffff);
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    for (position, byte) in number.to_be_bytes().into_iter().enumerate() {
        text[3 + 2 * position..5 + 2 * position].copy_from_slice(&hex(byte));
    }
    let parent = (number as u64) | 1 << 63;
    for (position, byte) in parent.to_be_bytes().into_iter().enumerate() {
        text[36 + 2 * position..38 + 2 * position].copy_from_slice(&hex(byte));
    }
    if let (false, Ok(value)) = (
        headers.contains_key(REQUEST_ID),
        HeaderValue::from_bytes(&text[3..35]),
    ) {
        headers.insert(REQUEST_ID, value);
    }
    if let (false, Ok(value)) = (
        headers.contains_key(TRACEPARENT),
        HeaderValue::from_bytes(&text),
    ) {
        headers.insert(TRACEPARENT, value);
    }
}

/// A name or a version as a header's value. They are plain ASCII, so the conversion always succeeds.
pub fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("-"))
}

fn hex(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [
        DIGITS[usize::from(byte >> 4)],
        DIGITS[usize::from(byte & 15)],
    ]
}

/// Asks the arm for a body that can be read without decompressing it.
pub fn ask_for_identity(headers: &mut HeaderMap) {
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        headers
    }

    #[test]
    fn connection_headers_and_forged_copies_of_ours_do_not_pass() {
        let mut headers = map(&[
            ("connection", "close, X-Secret, host, content-length"),
            ("x-secret", "1"),
            ("host", "a"),
            ("content-length", "3"),
            ("keep-alive", "timeout=5"),
            ("upgrade", "h2c"),
            ("te", "gzip, trailers"),
            ("x-pointsman-arm", "forged"),
            ("accept", "*/*"),
        ]);
        strip(&mut headers, Direction::Request);
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["accept", "content-length", "host", "te"]);
        assert_eq!(headers[TE], "trailers");
    }

    #[test]
    fn requests_get_an_id_and_a_trace_once() {
        let sequence = SequenceKey {
            origin: 0xabcd,
            worker: 1,
            counter: 2,
        };
        let mut headers = map(&[("x-request-id", "mine")]);
        identify(&mut headers, sequence);
        assert_eq!(headers["x-request-id"], "mine");
        assert_eq!(
            headers["traceparent"],
            "00-000000000000abcd0001000000000002-8001000000000002-00"
        );
        let before = headers.clone();
        identify(&mut headers, sequence);
        assert_eq!(headers, before);
    }
}
