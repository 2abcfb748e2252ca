//! What a client gets: a response's head, its body piece by piece, and its end, over HTTP/1.1 or an HTTP/2 stream.

use std::rc::Rc;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use tokio::sync::oneshot;

use super::body::{Departure, Piece};
use super::channel::{Channel, ChannelBody};
use super::headers::Head;
use super::wire::{Wire, WireError};
use crate::http1::Framing;
use crate::http1::chunked::Trailers;
use crate::http1::tokens::{chunk_line, push_decimal};

/// Pieces up to this size are copied behind what is to be written before them: writing one part costs the kernel less than several.
const GATHERED: usize = 4 << 10;

/// Bytes that are gathered before they are written.
const GATHER: usize = 16 << 10;

/// The first line of a response.
#[derive(Debug, Clone, Copy)]
pub struct Status<'a> {
    /// The code.
    pub code: u16,
    /// The phrase; where it is empty, HTTP's own is written.
    pub reason: &'a [u8],
}

/// How a message's body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// There is none, whatever the head says (a HEAD's answer, 204, 304).
    None,
    /// As many bytes as the head says.
    Length,
    /// In chunks.
    Chunked,
    /// Until the connection ends.
    UntilClose,
}

/// A client that waits for its response.
#[derive(Debug)]
pub struct Client<'c> {
    kind: Kind<'c>,
    /// Whether it asked for a head only.
    pub to_head: bool,
    /// How long it may take nothing, in milliseconds.
    pub patience: u64,
    /// Whether the response's head was handed over.
    pub has_begun: bool,
    /// Whether the last byte was handed over.
    pub has_ended: bool,
}

#[derive(Debug)]
enum Kind<'c> {
    Wire {
        wire: &'c Wire,
        out: &'c mut Vec<u8>,
        is_http_10: bool,
        keeps_alive: bool,
        form: Form,
    },
    Stream {
        head: Option<oneshot::Sender<Response<ChannelBody>>>,
        departure: Rc<Departure>,
        channel: Option<Channel>,
    },
    Nobody,
}

impl<'c> Client<'c> {
    /// A client over HTTP/1.1. `out` is room for what is to be written.
    pub fn wire(
        wire: &'c Wire,
        out: &'c mut Vec<u8>,
        (is_http_10, keeps_alive): (bool, bool),
        to_head: bool,
        patience: u64,
    ) -> Self {
        out.clear();
        Self {
            kind: Kind::Wire {
                wire,
                out,
                is_http_10,
                keeps_alive,
                form: Form::None,
            },
            to_head,
            patience,
            has_begun: false,
            has_ended: false,
        }
    }

    /// A client over an HTTP/2 stream.
    pub fn stream(
        head: oneshot::Sender<Response<ChannelBody>>,
        departure: Rc<Departure>,
        to_head: bool,
        patience: u64,
    ) -> Self {
        Self {
            kind: Kind::Stream {
                head: Some(head),
                departure,
                channel: None,
            },
            to_head,
            patience,
            has_begun: false,
            has_ended: false,
        }
    }

    /// Nobody: what is handed over is dropped.
    pub fn nobody(to_head: bool) -> Self {
        Self {
            kind: Kind::Nobody,
            to_head,
            patience: 0,
            has_begun: false,
            has_ended: false,
        }
    }

    /// Whether it speaks HTTP/2.
    pub fn is_stream(&self) -> bool {
        matches!(self.kind, Kind::Stream { .. })
    }

    /// Whether its connection may serve another request.
    pub fn keeps_alive(&self) -> bool {
        match &self.kind {
            Kind::Wire { keeps_alive, .. } => *keeps_alive,
            Kind::Stream { .. } | Kind::Nobody => true,
        }
    }

    /// Ends its connection behind this response.
    pub fn close_after(&mut self) {
        if let Kind::Wire { keeps_alive, .. } = &mut self.kind {
            *keeps_alive = false;
        }
    }

    /// Hands over the response's head: status, how the body comes, the length that the head states (where the body is not sent, too), and
    /// fields, none of which frames anything.
    pub fn begin(
        &mut self,
        status: Status<'_>,
        framing: Framing,
        stated_length: Option<u64>,
        fields: &impl Head,
    ) {
        self.has_begun = true;
        let bare = self.to_head || matches!(status.code, 204 | 304);
        match &mut self.kind {
            Kind::Nobody => {}
            Kind::Wire {
                wire,
                out,
                is_http_10,
                keeps_alive,
                form,
            } => {
                *form = match framing {
                    _ if bare => Form::None,
                    Framing::Length(_) => Form::Length,
                    _ if *is_http_10 => Form::UntilClose,
                    _ => Form::Chunked,
                };
                *keeps_alive &= *form != Form::UntilClose && !wire.timer().is_draining();
                status_line(out, status);
                fields.lines(out);
                match (*form, framing, stated_length) {
                    (Form::Chunked, ..) => field(out, b"transfer-encoding", b"chunked"),
                    (Form::Length, Framing::Length(length), _) | (Form::None, _, Some(length))
                        if status.code != 204 =>
                    {
                        out.extend_from_slice(b"content-length: ");
                        push_decimal(out, length);
                        out.extend_from_slice(b"\r\n");
                    }
                    _ => {}
                }
                match (*keeps_alive, *is_http_10) {
                    (false, _) => field(out, b"connection", b"close"),
                    (true, true) => field(out, b"connection", b"keep-alive"),
                    (true, false) => {}
                }
                out.extend_from_slice(b"\r\n");
            }
            Kind::Stream {
                head,
                departure,
                channel,
            } => {
                let mut map = HeaderMap::new();
                fields.each(&mut |name, value| append(&mut map, name, value));
                let length = match framing {
                    Framing::Length(length) if !bare => Some(length),
                    _ => stated_length.filter(|_| bare && status.code != 204),
                };
                if let Some(length) = length {
                    map.insert(http::header::CONTENT_LENGTH, HeaderValue::from(length));
                }
                let is_empty = bare || framing.is_empty();
                let (sender, body) = super::channel::channel(is_empty, Some(Rc::clone(departure)));
                let mut response = Response::new(body);
                *response.status_mut() =
                    StatusCode::from_u16(status.code).unwrap_or(StatusCode::BAD_GATEWAY);
                *response.headers_mut() = map;
                *channel = Some(sender);
                // A client that has left is told of by its departure.
                let left = head.take().is_some_and(|head| head.send(response).is_err());
                if left {
                    departure.declare();
                }
            }
        }
    }

    /// Hands over a piece of the body.
    ///
    /// # Errors
    ///
    /// The client is gone, or takes nothing.
    pub async fn piece(&mut self, piece: &Piece<'_>) -> Result<(), WireError> {
        self.has_ended = piece.ended;
        match &mut self.kind {
            Kind::Wire {
                wire, out, form, ..
            } => write_piece(wire, out, *form, piece, self.patience).await,
            Kind::Stream { channel, .. } => match channel {
                Some(channel) => channel.piece(piece, self.patience).await,
                None => Err(WireError::Broken),
            },
            Kind::Nobody => Ok(()),
        }
    }

    /// Writes what was gathered.
    ///
    /// # Errors
    ///
    /// The client is gone, or takes nothing.
    pub async fn flush(&mut self) -> Result<(), WireError> {
        if let Kind::Wire { wire, out, .. } = &mut self.kind {
            wire.write(&[out], self.patience).await?;
            out.clear();
        }
        Ok(())
    }

    /// Tells an HTTP/1.1 client something before the response (RFC 9110 §15.2). Others have no use for it.
    ///
    /// # Errors
    ///
    /// The client is gone, or takes nothing.
    pub async fn inform(
        &mut self,
        status: Status<'_>,
        fields: &impl Head,
    ) -> Result<(), WireError> {
        let Kind::Wire {
            wire,
            out,
            is_http_10: false,
            ..
        } = &mut self.kind
        else {
            return Ok(());
        };
        // Where this is given up in the middle of the write, nothing can follow.
        let had_begun = std::mem::replace(&mut self.has_begun, true);
        status_line(out, status);
        fields.lines(out);
        out.extend_from_slice(b"\r\n");
        let written = wire.write(&[out], self.patience).await;
        out.clear();
        if written.is_ok() {
            self.has_begun = had_begun;
        }
        written
    }

    /// Hands over the head that turns an HTTP/1.1 connection into another protocol's.
    ///
    /// # Errors
    ///
    /// The client is gone, or takes nothing.
    pub async fn switch(
        &mut self,
        status: Status<'_>,
        fields: &impl Head,
    ) -> Result<(), WireError> {
        (self.has_begun, self.has_ended) = (true, true);
        self.close_after();
        self.inform(status, fields).await
    }

    /// Hands over a whole response of our own.
    ///
    /// # Errors
    ///
    /// The client is gone, or takes nothing.
    pub async fn answer(&mut self, response: Response<Bytes>) -> Result<(), WireError> {
        let (parts, body) = response.into_parts();
        let closes = parts.headers.get(http::header::CONNECTION);
        if closes.is_some_and(|value| value == "close") {
            self.close_after();
        }
        let status = Status {
            code: parts.status.as_u16(),
            reason: b"",
        };
        let length = body.len() as u64;
        let fields = Own(&parts.headers);
        self.begin(status, Framing::Length(length), Some(length), &fields);
        let data = if self.to_head { &[][..] } else { &body };
        self.piece(&Piece::whole(data)).await
    }

    /// The response broke off: the client must see that (RFC 9112 §8).
    pub fn abort(&mut self) {
        match &mut self.kind {
            Kind::Wire {
                wire,
                keeps_alive,
                form,
                ..
            } => {
                *keeps_alive = false;
                // The end of the connection would be the end of the body. A reset may cost the client what it has not read yet, so that
                // elsewhere the missing end has to tell.
                if *form == Form::UntilClose {
                    wire.reset_on_drop();
                }
            }
            Kind::Stream { channel, .. } => *channel = None,
            Kind::Nobody => {}
        }
    }

    /// It has left: nothing more is handed over.
    pub fn leave(&mut self) {
        self.abort();
        self.close_after();
        self.has_begun = true;
    }
}

/// The fields of a response of our own.
struct Own<'a>(&'a HeaderMap);

impl Head for Own<'_> {
    fn lines(&self, out: &mut Vec<u8>) {
        self.each(&mut |name, value| field(out, name, value));
    }

    fn each(&self, put: &mut dyn FnMut(&[u8], &[u8])) {
        for (name, value) in self.0 {
            if name != http::header::CONNECTION && name != http::header::CONTENT_LENGTH {
                put(name.as_str().as_bytes(), value.as_bytes());
            }
        }
    }
}

/// Writes a piece in its form, with what `out` holds before it.
///
/// # Errors
///
/// See [`WireError`].
pub async fn write_piece(
    wire: &Wire,
    out: &mut Vec<u8>,
    form: Form,
    piece: &Piece<'_>,
    patience: u64,
) -> Result<(), WireError> {
    let data = if form == Form::None { &[] } else { piece.data };
    let mut line = [0; 18];
    let mut last = Vec::new();
    let (before, behind): (&[u8], &[u8]) = match form {
        Form::Chunked => {
            let before = if data.is_empty() {
                b""
            } else {
                chunk_line(data.len(), &mut line)
            };
            if piece.ended && !piece.trailers.is_empty() {
                last_chunk(&mut last, data.is_empty(), &piece.trailers);
                (before, &last)
            } else {
                (before, end_of_chunk(data.is_empty(), piece.ended))
            }
        }
        _ => (b"", b""),
    };
    if data.len() > GATHERED || out.len() >= GATHER {
        wire.write(&[out, before, data, behind], patience).await?;
        out.clear();
        return Ok(());
    }
    for part in [before, data, behind] {
        out.extend_from_slice(part);
    }
    if !piece.more {
        wire.write(&[out], patience).await?;
        out.clear();
    }
    Ok(())
}

/// What follows the data of a chunk, the last chunk included where the body has ended.
fn end_of_chunk(is_empty: bool, ended: bool) -> &'static [u8] {
    match (ended, is_empty) {
        (false, true) => b"",
        (false, false) => b"\r\n",
        (true, false) => b"\r\n0\r\n\r\n",
        (true, true) => b"0\r\n\r\n",
    }
}

/// The same with trailers (RFC 9112 §7.1.2).
fn last_chunk(out: &mut Vec<u8>, is_empty: bool, trailers: &Trailers) {
    out.extend_from_slice(if is_empty { b"0\r\n" } else { b"\r\n0\r\n" });
    for (name, value) in trailers {
        field(out, name, value);
    }
    out.extend_from_slice(b"\r\n");
}

fn status_line(out: &mut Vec<u8>, status: Status<'_>) {
    if status.code == 200 && (status.reason.is_empty() || status.reason == b"OK") {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        return;
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    push_decimal(out, status.code.into());
    out.push(b' ');
    if status.reason.is_empty() {
        let known = StatusCode::from_u16(status.code).ok();
        let reason = known.and_then(|code| code.canonical_reason());
        out.extend_from_slice(reason.unwrap_or_default().as_bytes());
    } else {
        out.extend_from_slice(status.reason);
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes one field's line.
pub fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Adds a field that was checked when it came in; HTTP/2 has the same rules.
pub fn append(map: &mut HeaderMap, name: &[u8], value: &[u8]) {
    if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
        map.append(name, value);
    }
}
