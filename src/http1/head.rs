//! Heads: a start line and fields, kept as the text that came in and a table of where things are.

use std::mem::MaybeUninit;

use super::field::{Known, known};
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

/// Where a field is in the text.
#[derive(Debug, Clone, Copy)]
struct Field {
    known: Known,
    name: u32,
    name_length: u32,
    value: u32,
    value_length: u32,
}

/// The fields of a head, in the order they came.
#[derive(Debug, Clone, Default)]
pub struct Fields {
    text: Vec<u8>,
    table: Vec<Field>,
    /// What is among them, so that most questions for one need no search.
    present: u32,
}

impl Fields {
    fn name(&self, field: &Field) -> &[u8] {
        part(&self.text, field.name, field.name_length)
    }

    fn value(&self, field: &Field) -> &[u8] {
        part(&self.text, field.value, field.value_length)
    }

    /// Every field: what it is to us, name and value.
    pub fn iter(&self) -> impl Iterator<Item = (Known, &[u8], &[u8])> {
        let part = |field| (Field::known(field), self.name(field), self.value(field));
        self.table.iter().map(part)
    }

    /// The values of the fields that are `known`.
    pub fn of(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        let table = if self.has(known) {
            &self.table[..]
        } else {
            &[]
        };
        let same = table.iter().filter(move |field| field.known == known);
        same.map(|field| self.value(field))
    }

    /// Whether there is a field that is `known`.
    pub fn has(&self, known: Known) -> bool {
        self.present & known.bit() != 0
    }

    /// The values of the fields called `name`, whatever its case.
    pub fn all<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let called = self.table.iter().filter(move |field| {
            field.name_length as usize == name.len() && self.name(field).eq_ignore_ascii_case(name)
        });
        called.map(|field| self.value(field))
    }

    /// The value of the first field called `name`, whatever its case.
    pub fn get<'a>(&'a self, name: &'a [u8]) -> Option<&'a [u8]> {
        self.all(name).next()
    }

    /// Writes the lines of the fields that `keep` wants, as they came. Neighbours are copied at once. A line with other white space than one blank
    /// behind its colon is written anew, so that it has the usual form.
    pub fn copy_lines(&self, out: &mut Vec<u8>, mut keep: impl FnMut(Known, &[u8]) -> bool) {
        let mut run = 0..0;
        for field in &self.table {
            let name = self.name(field);
            if !keep(field.known, name) {
                continue;
            }
            let line = field.name as usize..(field.value + field.value_length) as usize + 2;
            let behind_name = (field.name + field.name_length) as usize;
            let is_usual = field.value as usize == behind_name + 2
                && self.text.get(behind_name..behind_name + 2) == Some(b": ")
                && self.text.get(line.end - 2..line.end) == Some(b"\r\n");
            if is_usual && run.end == line.start {
                run.end = line.end;
                continue;
            }
            out.extend_from_slice(&self.text[run]);
            run = if is_usual { line } else { 0..0 };
            if !is_usual {
                for part in [name, b": ", self.value(field), b"\r\n"] {
                    out.extend_from_slice(part);
                }
            }
        }
        out.extend_from_slice(&self.text[run]);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Adds a field whose name and value were checked before.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        let start = self.text.len() as u32;
        self.text.extend_from_slice(name);
        self.text.extend_from_slice(value);
        let known = known(name);
        self.present |= known.bit();
        self.table.push(Field {
            known,
            name: start,
            name_length: name.len() as u32,
            value: start + name.len() as u32,
            value_length: value.len() as u32,
        });
    }

    fn clear(&mut self) {
        self.text.clear();
        self.table.clear();
        self.present = 0;
    }

    /// Takes over what httparse found in `text`, of which a copy is at `self.text`.
    ///
    /// Every line has to end with CR LF: httparse takes a lone LF, which other parsers read differently (RFC 9112 §2.2 allows to
    /// refuse it). The fields that it found leave nothing between them but these ends.
    fn take(&mut self, text: &[u8], parsed: &[httparse::Header<'_>]) -> Result<(), HeadError> {
        let base = text.as_ptr().addr();
        let ends_well = |line_end: usize| text[..line_end].ends_with(b"\r\n");
        if !text.ends_with(b"\r\n\r\n") {
            return Err(HeadError::LineEnd);
        }
        for header in parsed {
            let name = header.name.as_bytes();
            let start = name.as_ptr().addr() - base;
            if !ends_well(start) {
                return Err(HeadError::LineEnd);
            }
            let known = known(name);
            self.present |= known.bit();
            self.table.push(Field {
                known,
                name: start as u32,
                name_length: name.len() as u32,
                value: if header.value.is_empty() {
                    0
                } else {
                    (header.value.as_ptr().addr() - base) as u32
                },
                value_length: header.value.len() as u32,
            });
        }
        Ok(())
    }
}

impl Field {
    fn known(&self) -> Known {
        self.known
    }
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

fn part(text: &[u8], start: u32, length: u32) -> &[u8] {
    let start = start as usize;
    text.get(start..start + length as usize).unwrap_or_default()
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
        empty_lines_end_well(text)?;
        self.fields.clear();
        self.fields.text.extend_from_slice(text);
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
        empty_lines_end_well(text)?;
        self.fields.clear();
        self.fields.text.extend_from_slice(text);
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

/// The empty lines that may come before the start line (RFC 9112 §2.2) end with CR LF, too.
fn empty_lines_end_well(text: &[u8]) -> Result<(), HeadError> {
    let mut rest = text;
    while let Some(next) = rest.strip_prefix(b"\r\n") {
        rest = next;
    }
    if rest.starts_with(b"\n") {
        return Err(HeadError::LineEnd);
    }
    Ok(())
}
