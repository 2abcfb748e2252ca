//! Requests made once and sent many times, and which of them is next.

use crate::plan::Load;

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Small,
    Big,
    Events,
    Few,
    Upload,
    Reward,
}

/// Bytes of each kind; small ones have a user id that is counted up in place.
#[derive(Debug)]
pub(crate) struct Requests {
    small: Vec<u8>,
    user: usize,
    big: Vec<u8>,
    events: Vec<u8>,
    few: Vec<u8>,
    upload: Vec<u8>,
}

/// 309 bytes of JSON: a review.
pub(crate) fn review() -> Vec<u8> {
    let text = "{\"features\":[\"Lovely dress, fits well and the colour is just as it is in the picture. It was a present for my sister, who has worn it three times since. The hem is a little longer than I thought it would be, but nothing that a pair of heels does not make good.\"],\"category\":\"clothing\"}";
    format!("{text:<309}").into_bytes()
}

fn head(path: &str, framing: &str) -> String {
    format!(
        "POST /bench/{path} HTTP/1.1\r\nhost: bench.local\r\nuser-agent: bench/1\r\naccept: */*\r\ncontent-type: application/json\r\nx-user-id: u00000000\r\n{framing}\r\n\r\n"
    )
}

fn request(path: &str, body: &[u8]) -> Vec<u8> {
    let head = head(path, &format!("content-length: {}", body.len()));
    [head.as_bytes(), body].concat()
}

/// Sixteen chunks of a kibibyte.
fn upload() -> Vec<u8> {
    let mut bytes = head("small", "transfer-encoding: chunked").into_bytes();
    for _ in 0..16 {
        bytes.extend_from_slice(b"400\r\n");
        bytes.extend_from_slice(&[b'y'; 1024]);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

impl Requests {
    pub(crate) fn new() -> Self {
        let review = review();
        let small = request("small", &review);
        let user = memchr::memmem::find(&small, b"u00000000").unwrap_or_default() + 1;
        Self {
            small,
            user,
            big: request("big", &review),
            events: request("events", &review),
            few: request("few", &review),
            upload: upload(),
        }
    }

    /// The kind of the request with this number.
    pub(crate) fn kind(load: Load, number: u64) -> Kind {
        match load {
            Load::Small => Kind::Small,
            Load::Big => Kind::Big,
            Load::Events => Kind::Events,
            // 37 and 100 have no divisor in common, so that the kinds are spread over the hundred.
            Load::Mixed => match number * 37 % 100 {
                0..80 => Kind::Small,
                80..88 => Kind::Reward,
                88..94 => Kind::Big,
                94..98 => Kind::Upload,
                _ => Kind::Few,
            },
        }
    }

    /// The bytes of the request with this number, for another user each time. A reward needs the decision.
    pub(crate) fn bytes(&mut self, kind: Kind, number: u64) -> &[u8] {
        match kind {
            Kind::Small | Kind::Reward => {
                let mut rest = number;
                for digit in self.small[self.user..self.user + 8].iter_mut().rev() {
                    *digit = b'0' + (rest % 10) as u8;
                    rest /= 10;
                }
                &self.small
            }
            Kind::Big => &self.big,
            Kind::Events => &self.events,
            Kind::Few => &self.few,
            Kind::Upload => &self.upload,
        }
    }
}

/// Posts a reward for a decision.
pub(crate) fn reward(decision: &str) -> Vec<u8> {
    let body = format!("{{\"decision_id\":\"{decision}\",\"reward\":1}}");
    format!(
        "POST /-/rewards HTTP/1.1\r\nhost: bench.local\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
