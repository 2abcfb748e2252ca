//! Heads: a start line and [fields](super::fields), kept as the text that came in and where its parts are.

use std::mem::MaybeUninit;

use super::field::Known;
use super::fields::{Fields, part};
use super::{Framing, request_framing, response_framing, tokens};

/// Bounds of a head.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Fields.
    pub fields: usize,
    /// Bytes, the empty line included.
    pub bytes: usize,
}

/// Longest method that is passed on.
const MAX_METHOD: usize = 32;

/// Fields that are parsed without an allocation.
const ON_STACK: usize = 100;

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// The start line.
    #[error("the first line is malformed")]
    StartLine,
    /// A version other than HTTP/1.0 and HTTP/1.1.
    #[error("the version is not HTTP/1.0 or HTTP/1.1")]
    Version,
    /// A name or a value has a byte that it must not have; or a line is folded.
    #[error("a field is malformed")]
    Field,
    /// A line ends with a lone line feed.
    #[error("a line ends without a carriage return")]
    LineEnd,
    /// More fields than the limit.
    #[error("there are too many fields")]
    TooManyFields,
    /// More bytes than the limit.
    #[error("the head is too long")]
    TooLong,
    /// The start line alone is longer than the limit.
    #[error("the request target is too long")]
    TargetTooLong,
    /// `Content-Length` is not one plain number.
    #[error("content-length must be one decimal number")]
    ContentLength,
    /// `Transfer-Encoding` is not exactly one `chunked`.
    #[error("transfer-encoding must be exactly one `chunked`")]
    Coding,
    /// HTTP/1.0 has no transfer codings.
    #[error("HTTP/1.0 has no transfer-encoding")]
    CodingInHttp10,
    /// Both.
    #[error("content-length and transfer-encoding exclude each other")]
    LengthAndCoding,
}

/// Where a part of the start line is.
#[derive(Debug, Clone, Copy, Default)]
struct Span {
    start: u32,
    end: u32,
}

impl Span {
    fn of(part: &str, text: &[u8]) -> Self {
        let start = part.as_ptr().addr() - text.as_ptr().addr();
        Self {
            start: start as u32,
            end: (start + part.len()) as u32,
        }
    }

    /// Nothing where a head that was refused in the meantime has left a shorter text.
    fn in_text(self, text: &[u8]) -> &[u8] {
        part(text, self.start, self.end.saturating_sub(self.start))
    }
}

/// A request's head.
#[derive(Debug, Clone)]
pub struct Request {
    /// Its fields.
    pub fields: Fields,
    /// How its body is delimited.
    pub framing: Framing,
    /// Whether it came as HTTP/1.0.
    pub is_http_10: bool,
    method: Span,
    target: Span,
    /// In the target: where the path starts and ends, behind the authority of the absolute form and before the query.
    path: Span,
    authority: Option<Span>,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            fields: Fields::default(),
            framing: Framing::Length(0),
            is_http_10: false,
            method: Span::default(),
            target: Span::default(),
            path: Span::default(),
            authority: None,
        }
    }
}

impl Request {
    /// Parses the head at the start of `input` into `self`, whose old content is lost. The length of the head, or `None` when
    /// more bytes are needed.
    ///
    /// # Errors
    ///
    /// See [`HeadError`].
    pub fn parse(&mut self, input: &[u8], limits: Limits) -> Result<Option<usize>, HeadError> {
        let mut stack = [const { MaybeUninit::uninit() }; ON_STACK];
        let mut parsed = httparse::Request::new(&mut []);
        let room: &mut Room<'_> = &mut stack[..limits.fields.min(ON_STACK)];
        let mut result = parsed.parse_with_uninit_headers(input, room);
        let mut heap;
        if result == Err(httparse::Error::TooManyHeaders) && limits.fields > ON_STACK {
            heap = vec![httparse::EMPTY_HEADER; limits.fields];
            parsed = httparse::Request::new(&mut heap);
            result = parsed.parse(input);
        }
        let Some(length) = outcome(result, input, limits)? else {
            return Ok(None);
        };
        let text = &input[..length];
        self.fields.take(text, parsed.headers)?;
        let (Some(method), Some(target)) = (parsed.method, parsed.path) else {
            return Err(HeadError::StartLine);
        };
        if method.len() > MAX_METHOD {
            return Err(HeadError::StartLine);
        }
        self.method = Span::of(method, text);
        self.target = Span::of(target, text);
        self.is_http_10 = parsed.version == Some(0);
        self.framing = request_framing(&self.fields, self.is_http_10)?;
        self.split_target()?;
        Ok(Some(length))
    }

    /// A head that came another way (HTTP/2): `method` and `target` are checked like those of a parsed one. The fields follow by [`Fields::push`].
    ///
    /// # Errors
    ///
    /// [`HeadError::StartLine`] where the target is no path.
    pub fn make(&mut self, method: &str, target: &str) -> Result<(), HeadError> {
        self.fields.clear();
        let text = &mut self.fields.text;
        text.extend_from_slice(method.as_bytes());
        text.extend_from_slice(target.as_bytes());
        let end = method.len() as u32;
        self.method = Span { start: 0, end };
        self.target = Span {
            start: end,
            end: text.len() as u32,
        };
        self.is_http_10 = false;
        self.framing = Framing::Length(0);
        if method.len() > MAX_METHOD {
            return Err(HeadError::StartLine);
        }
        self.split_target()
    }

    /// Finds the path (RFC 9112 §3.2: origin form, or absolute form, whose authority takes the place of `Host`).
    fn split_target(&mut self) -> Result<(), HeadError> {
        let target = self.target.in_text(&self.fields.text);
        let (offset, authority) = if target.first() == Some(&b'/') {
            (0, None)
        } else {
            let scheme = [&b"http://"[..], b"https://"].into_iter().find(|scheme| {
                target
                    .get(..scheme.len())
                    .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
            });
            let start = scheme.ok_or(HeadError::StartLine)?.len();
            let rest = &target[start..];
            let end = rest
                .iter()
                .position(|byte| matches!(byte, b'/' | b'?'))
                .unwrap_or(rest.len());
            (start + end, Some((start, start + end)))
        };
        if target.contains(&b'#') {
            return Err(HeadError::StartLine);
        }
        let path = &target[offset..];
        let end = path
            .iter()
            .position(|byte| *byte == b'?')
            .unwrap_or(path.len());
        let at = |position: usize| self.target.start + position as u32;
        self.path = Span {
            start: at(offset),
            end: at(offset + end),
        };
        self.authority = authority.map(|(start, end)| Span {
            start: at(start),
            end: at(end),
        });
        Ok(())
    }

    /// The method's bytes, as they came.
    pub fn method_bytes(&self) -> &[u8] {
        self.method.in_text(&self.fields.text)
    }

    /// The path's bytes, raw; `/` where an absolute form has none.
    pub fn path_bytes(&self) -> &[u8] {
        let path = self.path.in_text(&self.fields.text);
        if path.is_empty() { b"/" } else { path }
    }

    /// The query's bytes with its question mark; empty where there is none.
    pub fn query_bytes(&self) -> &[u8] {
        let rest = Span {
            start: self.path.end,
            end: self.target.end,
        };
        rest.in_text(&self.fields.text)
    }

    /// The method, as it came.
    pub fn method(&self) -> &str {
        self.text(self.method)
    }

    /// The path, raw; `/` where an absolute form has none.
    pub fn path(&self) -> &str {
        let path = self.text(self.path);
        if path.is_empty() { "/" } else { path }
    }

    /// The query without its question mark.
    pub fn query(&self) -> Option<&str> {
        let rest = Span {
            start: self.path.end,
            end: self.target.end,
        };
        self.text(rest).strip_prefix('?')
    }

    /// The authority of a target in absolute form.
    pub fn authority(&self) -> Option<&str> {
        self.authority.map(|span| self.text(span))
    }

    /// The value of `Host`.
    pub fn host(&self) -> Option<&[u8]> {
        self.fields.of(Known::Host).next()
    }

    fn text(&self, span: Span) -> &str {
        // The start line is UTF-8, or the parser has refused it.
        std::str::from_utf8(span.in_text(&self.fields.text)).unwrap_or_default()
    }

    /// Whether the client will send another request on this connection (RFC 9112 §9.3).
    pub fn keeps_alive(&self) -> bool {
        keeps_alive(&self.fields, self.is_http_10)
    }

    /// Whether the request asks to go on as a WebSocket (RFC 6455 §4.1).
    pub fn wants_websocket(&self) -> bool {
        let mut upgrades = self.fields.of(Known::Upgrade);
        !self.is_http_10
            && self.method_bytes() == b"GET"
            && self.framing.is_empty()
            && matches!((upgrades.next(), upgrades.next()), (Some(only), None) if only.eq_ignore_ascii_case(b"websocket"))
            && self
                .fields
                .of(Known::Connection)
                .any(|value| tokens::contains(value, b"upgrade"))
    }

    /// Whether the client waits for `100 Continue` before it sends its body.
    pub fn expects_continue(&self) -> bool {
        !self.is_http_10
            && !self.framing.is_empty()
            && self
                .fields
                .of(Known::Expect)
                .any(|value| value.eq_ignore_ascii_case(b"100-continue"))
    }
}

/// A response's head.
#[derive(Debug, Clone)]
pub struct Response {
    /// Its fields.
    pub fields: Fields,
    /// The status code, 100 to 599.
    pub status: u16,
    /// How its body is delimited.
    pub framing: Framing,
    /// Whether it came as HTTP/1.0.
    pub is_http_10: bool,
    reason: Span,
}

impl Default for Response {
    fn default() -> Self {
        Self {
            fields: Fields::default(),
            status: 200,
            framing: Framing::Length(0),
            is_http_10: false,
            reason: Span::default(),
        }
    }
}

impl Response {
    /// Parses the head at the start of `input` into `self`. `to_head`: it answers a HEAD. The length of the head, or `None`
    /// when more bytes are needed.
    ///
    /// # Errors
    ///
    /// See [`HeadError`].
    pub fn parse(
        &mut self,
        input: &[u8],
        to_head: bool,
        limits: Limits,
    ) -> Result<Option<usize>, HeadError> {
        let mut stack = [const { MaybeUninit::uninit() }; ON_STACK];
        let mut parsed = httparse::Response::new(&mut []);
        let room: &mut Room<'_> = &mut stack[..limits.fields.min(ON_STACK)];
        let mut result = httparse::ParserConfig::default().parse_response_with_uninit_headers(
            &mut parsed,
            input,
            room,
        );
        let mut heap;
        if result == Err(httparse::Error::TooManyHeaders) && limits.fields > ON_STACK {
            heap = vec![httparse::EMPTY_HEADER; limits.fields];
            parsed = httparse::Response::new(&mut heap);
            result = parsed.parse(input);
        }
        let Some(length) = outcome(result, input, limits)? else {
            return Ok(None);
        };
        let text = &input[..length];
        self.fields.take(text, parsed.headers)?;
        self.status = parsed.code.unwrap_or_default();
        if !(100..=599).contains(&self.status) {
            return Err(HeadError::StartLine);
        }
        self.reason = match parsed.reason {
            Some(reason) if !reason.is_empty() => Span::of(reason, text),
            _ => Span::default(),
        };
        self.is_http_10 = parsed.version == Some(0);
        self.framing = response_framing(&self.fields, self.status, self.is_http_10, to_head)?;
        Ok(Some(length))
    }

    /// A head that came another way (HTTP/2).
    pub fn make(&mut self, status: u16) {
        self.fields.clear();
        self.status = status;
        self.reason = Span::default();
        self.is_http_10 = false;
        self.framing = Framing::UntilClose;
    }

    /// The reason phrase; may be empty.
    pub fn reason(&self) -> &[u8] {
        self.reason.in_text(&self.fields.text)
    }

    /// Whether the endpoint keeps the connection open.
    pub fn keeps_alive(&self) -> bool {
        self.framing != Framing::UntilClose && keeps_alive(&self.fields, self.is_http_10)
    }
}

fn keeps_alive(fields: &Fields, is_http_10: bool) -> bool {
    let mut keeps = !is_http_10;
    for value in fields.of(Known::Connection) {
        if tokens::contains(value, b"close") {
            return false;
        }
        keeps |= tokens::contains(value, b"keep-alive");
    }
    keeps
}

/// Room for the fields that httparse finds: on the stack, unless there are more of them than nearly all heads have.
type Room<'b> = [MaybeUninit<httparse::Header<'b>>];

/// What httparse says of a head, in our words. `None`: it is not whole yet.
fn outcome(
    parsed: httparse::Result<usize>,
    input: &[u8],
    limits: Limits,
) -> Result<Option<usize>, HeadError> {
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) => Some(length),
        Ok(httparse::Status::Partial) => None,
        Err(httparse::Error::Version) => return Err(HeadError::Version),
        Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooManyFields),
        Err(httparse::Error::HeaderName | httparse::Error::HeaderValue) => {
            return Err(HeadError::Field);
        }
        Err(httparse::Error::NewLine) => return Err(HeadError::LineEnd),
        Err(httparse::Error::Status | httparse::Error::Token) => return Err(HeadError::StartLine),
    };
    match length {
        Some(length) if length <= limits.bytes => Ok(Some(length)),
        None if input.len() < limits.bytes => Ok(None),
        _ if memchr::memchr(b'\n', &input[..limits.bytes]).is_none() => {
            Err(HeadError::TargetTooLong)
        }
        _ => Err(HeadError::TooLong),
    }
}
