//! HTTP/1.1 messages as bytes (RFC 9112): heads, and how bodies are framed. Pure: nothing here reads, writes or waits.
//!
//! It is written for a proxy: a head stays the text that came in, with a table of where its fields are, so that forwarding copies
//! lines instead of building maps; and what two parsers could read differently is refused, never repaired. [`head`] takes heads
//! apart, [`field`] tells the names that matter, [`chunked`] decodes bodies without a length, [`tokens`] reads lists.
//!
//! Not here: HTTP/2 (its heads are turned into these, and back, at the edges), and what may be forwarded to whom, which is the proxy's.

pub mod chunked;
pub mod field;
pub mod fields;
pub mod head;
pub mod tokens;

use fields::Fields;
use head::HeadError;

/// How a message's body is delimited (RFC 9112 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// This many bytes; 0: no body.
    Length(u64),
    /// Chunks, and trailers.
    Chunked,
    /// The rest of the connection. Only responses.
    UntilClose,
}

impl Framing {
    /// Whether there is nothing to come.
    pub fn is_empty(self) -> bool {
        self == Self::Length(0)
    }
}

/// How a request's body is delimited (RFC 9112 §6.3, rules 3 to 7): exactly one `chunked`, or one length, or none of both.
///
/// # Errors
///
/// Everything else: a request with two readings must not be forwarded (§11.2).
pub fn request_framing(fields: &Fields, is_http_10: bool) -> Result<Framing, HeadError> {
    let length = content_length(fields)?;
    match (transfer_coding(fields), length) {
        (Coding::None, length) => Ok(Framing::Length(length.unwrap_or(0))),
        (Coding::Chunked, None) if !is_http_10 => Ok(Framing::Chunked),
        (Coding::Chunked, None) => Err(HeadError::CodingInHttp10),
        (Coding::Chunked | Coding::Other, Some(_)) => Err(HeadError::LengthAndCoding),
        (Coding::Other, None) => Err(HeadError::Coding),
    }
}

/// How a response's body is delimited (RFC 9112 §6.3). `to_head`: it answers a HEAD.
///
/// # Errors
///
/// Contradictory lengths, a length beside a coding, and codings other than one `chunked`.
pub fn response_framing(
    fields: &Fields,
    status: u16,
    is_http_10: bool,
    to_head: bool,
) -> Result<Framing, HeadError> {
    let length = content_length(fields)?;
    let coding = transfer_coding(fields);
    match (&coding, length) {
        (Coding::Other, _) => return Err(HeadError::Coding),
        (Coding::Chunked, Some(_)) => return Err(HeadError::LengthAndCoding),
        (Coding::Chunked, None) if is_http_10 => return Err(HeadError::CodingInHttp10),
        _ => {}
    }
    if to_head || matches!(status, 100..=199 | 204 | 304) {
        return Ok(Framing::Length(0));
    }
    Ok(match (coding, length) {
        (Coding::Chunked, _) => Framing::Chunked,
        (_, Some(length)) => Framing::Length(length),
        (_, None) => Framing::UntilClose,
    })
}

enum Coding {
    None,
    Chunked,
    Other,
}

fn transfer_coding(fields: &Fields) -> Coding {
    let mut codings = fields.of(field::Known::TransferEncoding);
    match (codings.next(), codings.next()) {
        (None, _) => Coding::None,
        (Some(only), None) if only.eq_ignore_ascii_case(b"chunked") => Coding::Chunked,
        _ => Coding::Other,
    }
}

/// The value of `Content-Length`: one field of digits. Even equal duplicates are refused, because another parser may take a list of them
/// for something else.
fn content_length(fields: &Fields) -> Result<Option<u64>, HeadError> {
    let mut lengths = fields.of(field::Known::ContentLength);
    match (lengths.next(), lengths.next()) {
        (None, _) => Ok(None),
        (Some(only), None) => tokens::decimal(only)
            .map(Some)
            .ok_or(HeadError::ContentLength),
        _ => Err(HeadError::ContentLength),
    }
}

#[cfg(test)]
mod tests;
