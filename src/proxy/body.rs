//! Where a message's body comes from: a connection of ours or a peer's HTTP/2 stream, piece by piece, with nothing kept that is not
//! about to be written on.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::ready;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::sync::Notify;

use super::wire::{Buffer, FIRST, LARGEST, Wire, WireError};
use crate::http1::Framing;
use crate::http1::chunked::{Decoder, Step, Trailers};
use crate::http1::field::is_forbidden_trailer;

/// Why a body did not come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceError {
    /// It breaks the rules of its framing.
    Malformed,
    /// Its sender left in the middle of it.
    Cut,
    /// Its sender sent nothing for too long.
    Silent,
}

impl From<WireError> for SourceError {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Silent => Self::Silent,
            WireError::Broken | WireError::Unsent => Self::Cut,
        }
    }
}

/// A part of a body.
#[derive(Debug)]
pub struct Piece<'b> {
    /// Its bytes; may be empty at the end.
    pub data: &'b [u8],
    /// Whether it is the last.
    pub ended: bool,
    /// Whether another one is at hand already.
    pub more: bool,
    /// What follows the last one.
    pub trailers: Trailers,
}

impl<'b> Piece<'b> {
    /// A whole body.
    pub fn whole(data: &'b [u8]) -> Self {
        Self {
            data,
            ended: true,
            more: false,
            trailers: Trailers::new(),
        }
    }
}

/// Tells that the peer of an HTTP/2 stream has gone.
#[derive(Debug, Default)]
pub struct Departure {
    gone: Cell<bool>,
    notify: Notify,
}

impl Departure {
    /// It has gone.
    pub fn declare(&self) {
        self.gone.set(true);
        self.notify.notify_one();
    }

    async fn wait(&self) {
        while !self.gone.get() {
            self.notify.notified().await;
        }
    }
}

#[derive(Debug)]
enum Body {
    /// So many bytes of the connection are still to come.
    Length(u64),
    Chunked(Decoder),
    UntilClose,
    /// Read whole before.
    Memory(Bytes),
    /// An HTTP/2 stream.
    Frames(Incoming, Bytes),
}

#[derive(Debug)]
enum Transport<'c> {
    Wire {
        wire: &'c Wire,
        buffer: &'c mut Buffer,
    },
    Stream(Option<Rc<Departure>>),
}

/// A body on its way.
#[derive(Debug)]
pub struct Source<'c> {
    body: Body,
    transport: Transport<'c>,
    /// Bytes of the buffer (or of the memory) that were handed out and are still in it.
    taken: usize,
    /// The whole body is at hand and stays until [`Source::finish`], so that it can be sent again.
    held: Option<u64>,
    ended: bool,
    /// Whether a piece was handed out.
    touched: bool,
    trailers: Trailers,
    announced: Option<u64>,
}

impl<'c> Source<'c> {
    /// The body of an HTTP/1.1 message whose head has just been taken out of `buffer`. Trailers may have `room` bytes.
    pub fn wire(wire: &'c Wire, buffer: &'c mut Buffer, framing: Framing, room: usize) -> Self {
        let (body, announced) = match framing {
            Framing::Length(length) => (Body::Length(length), Some(length)),
            Framing::Chunked => (Body::Chunked(Decoder::new(room)), None),
            Framing::UntilClose => (Body::UntilClose, None),
        };
        let at_hand = buffer.data().len() as u64;
        Self {
            body,
            held: announced.filter(|length| *length <= at_hand),
            transport: Transport::Wire { wire, buffer },
            taken: 0,
            ended: announced == Some(0),
            touched: false,
            trailers: Trailers::new(),
            announced,
        }
    }

    /// The body of an HTTP/2 message; `length` is what its head says.
    pub fn stream(
        incoming: Incoming,
        length: Option<u64>,
        departure: Option<Rc<Departure>>,
    ) -> Self {
        let ended = incoming.is_end_stream();
        Self {
            held: ended.then_some(0),
            announced: if ended { Some(0) } else { length },
            body: if ended {
                Body::Memory(Bytes::new())
            } else {
                Body::Frames(incoming, Bytes::new())
            },
            transport: Transport::Stream(departure),
            taken: 0,
            ended,
            touched: false,
            trailers: Trailers::new(),
        }
    }

    /// A body that is at hand.
    pub fn memory(body: Bytes) -> Self {
        Self {
            announced: Some(body.len() as u64),
            held: None,
            ended: body.is_empty(),
            body: Body::Memory(body),
            transport: Transport::Stream(None),
            taken: 0,
            touched: false,
            trailers: Trailers::new(),
        }
    }

    /// The length that the body is said to have.
    pub fn announced(&self) -> Option<u64> {
        self.announced
    }

    /// How it is delimited, as far as a receiver can be told beforehand.
    pub fn framing(&self) -> Framing {
        match (self.announced, &self.body) {
            (Some(length), _) => Framing::Length(length),
            (None, Body::UntilClose) => Framing::UntilClose,
            _ => Framing::Chunked,
        }
    }

    /// Whether the last piece was handed out.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether all of it has been read from the connection.
    pub fn is_read(&self) -> bool {
        self.ended || matches!(self.body, Body::Memory(_))
    }

    /// Whether nothing of it was handed out that is not still at hand: it can be sent (again).
    pub fn can_rewind(&self) -> bool {
        !self.touched || self.held.is_some() || matches!(self.body, Body::Memory(_))
    }

    /// Starts again from the beginning, where [`Self::can_rewind`].
    pub fn rewind(&mut self) {
        if !std::mem::take(&mut self.touched) {
            return;
        }
        self.taken = 0;
        if let (Some(length), Body::Length(left)) = (self.held, &mut self.body) {
            *left = length;
        }
        self.ended = self.announced == Some(0);
    }

    /// Whether bytes are at hand, so that the next piece costs no waiting.
    pub fn is_at_hand(&self) -> bool {
        match (&self.body, &self.transport) {
            (Body::Memory(_), _) => true,
            (_, Transport::Wire { buffer, .. }) => buffer.data().len() > self.taken,
            (Body::Frames(_, current), _) => !current.is_empty(),
            _ => false,
        }
    }

    /// The next piece, waiting at most `patience` milliseconds for it.
    ///
    /// # Errors
    ///
    /// See [`SourceError`].
    pub async fn next(&mut self, patience: u64) -> Result<Piece<'_>, SourceError> {
        if self.ended {
            return Ok(Piece::whole(&[]));
        }
        self.touched = true;
        if matches!(self.body, Body::Frames(..)) {
            return self.next_frame(patience).await;
        }
        if !matches!(self.body, Body::Memory(_)) {
            return self.next_of_wire(patience).await;
        }
        let Body::Memory(bytes) = &self.body else {
            return Err(SourceError::Cut);
        };
        self.ended = true;
        Ok(Piece::whole(bytes))
    }

    async fn next_of_wire(&mut self, patience: u64) -> Result<Piece<'_>, SourceError> {
        let Transport::Wire { wire, buffer } = &mut self.transport else {
            return Err(SourceError::Cut);
        };
        if self.held.is_none() {
            buffer.consume(std::mem::take(&mut self.taken));
        }
        let (skip, length) = loop {
            let data = &buffer.data()[self.taken..];
            let step = match &mut self.body {
                Body::Length(left) => {
                    let length = (data.len() as u64).min(*left);
                    *left -= length;
                    self.ended = *left == 0;
                    (length > 0).then_some((0, length as usize))
                }
                Body::Chunked(decoder) => match decoder.step(data) {
                    Err(_) => return Err(SourceError::Malformed),
                    Ok(Step::More { skip }) => {
                        buffer.consume(skip);
                        None
                    }
                    Ok(Step::End { skip }) => {
                        (self.trailers, self.ended) = (decoder.take_trailers(), true);
                        Some((skip, 0))
                    }
                    Ok(Step::Data { skip, length }) => {
                        let end = decoder.end_at(&data[skip + length..]);
                        self.ended = end.is_some();
                        self.taken = end.unwrap_or(0);
                        Some((skip, length))
                    }
                },
                _ => (!data.is_empty()).then_some((0, data.len())),
            };
            if let Some(step) = step {
                break step;
            }
            let filled = wire.fill(buffer, LARGEST, patience).await?;
            if filled == 0 {
                if !matches!(self.body, Body::UntilClose) {
                    return Err(SourceError::Cut);
                }
                self.ended = true;
                break (0, 0);
            }
        };
        // What ends a chunked body was counted in already; a held body starts behind what was handed out of it.
        let start = skip + if self.held.is_some() { self.taken } else { 0 };
        self.taken += skip + length;
        let data = buffer.data();
        Ok(Piece {
            more: match &self.body {
                Body::Chunked(decoder) => !self.ended && decoder.has_more(&data[self.taken..]),
                _ => false,
            },
            data: &data[start..start + length],
            ended: self.ended,
            trailers: std::mem::take(&mut self.trailers),
        })
    }

    async fn next_frame(&mut self, patience: u64) -> Result<Piece<'_>, SourceError> {
        let Body::Frames(incoming, current) = &mut self.body else {
            return Err(SourceError::Cut);
        };
        let frame = poll_fn(|context| Pin::new(&mut *incoming).poll_frame(context));
        let frame = tokio::time::timeout(Duration::from_millis(patience), frame).await;
        *current = Bytes::new();
        match frame.map_err(|_| SourceError::Silent)? {
            None => self.ended = true,
            Some(Err(_)) => return Err(SourceError::Cut),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    *current = data;
                    self.ended = incoming.is_end_stream();
                }
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    let kept = trailers
                        .iter()
                        .filter(|(name, _)| !is_forbidden_trailer(name.as_str().as_bytes()));
                    self.trailers = kept
                        .map(|(name, value)| {
                            (name.as_str().as_bytes().into(), value.as_bytes().into())
                        })
                        .collect();
                    self.ended = true;
                }
            },
        }
        Ok(Piece {
            data: current,
            ended: self.ended,
            more: false,
            trailers: std::mem::take(&mut self.trailers),
        })
    }

    /// Waits until the sender has gone, behind the end of its body. What it sends meanwhile on an HTTP/1.1 connection (its next
    /// request) is kept; when there is no room for more, its leaving is not seen.
    pub async fn gone(&mut self) {
        match &mut self.transport {
            Transport::Stream(Some(departure)) => departure.wait().await,
            Transport::Stream(None) => std::future::pending().await,
            Transport::Wire { wire, buffer } => {
                // What was written on makes room, unless it may have to be sent again.
                if self.held.is_none() {
                    buffer.consume(std::mem::take(&mut self.taken));
                }
                let largest = self.taken + FIRST;
                poll_fn(|context| {
                    while !buffer.is_full(largest) {
                        let filled = ready!(wire.poll_fill(context, buffer, largest));
                        if !matches!(filled, Ok(1..)) {
                            return std::task::Poll::Ready(());
                        }
                    }
                    std::task::Poll::Pending
                })
                .await;
            }
        }
    }

    /// Reads all of it, at most `limit` bytes; afterwards it can be sent as often as needed.
    ///
    /// # Errors
    ///
    /// `None` within the result: it is longer.
    pub async fn read_whole(
        &mut self,
        limit: usize,
        patience: u64,
    ) -> Result<Option<Bytes>, SourceError> {
        if self.announced.is_some_and(|length| length > limit as u64) {
            return Ok(None);
        }
        let mut whole = Vec::with_capacity(self.announced.unwrap_or(0) as usize);
        while !self.ended {
            let piece = self.next(patience).await?;
            if whole.len() + piece.data.len() > limit {
                return Ok(None);
            }
            whole.extend_from_slice(piece.data);
        }
        self.settle();
        let whole = Bytes::from(whole);
        self.body = Body::Memory(whole.clone());
        self.announced = Some(whole.len() as u64);
        self.rewind();
        Ok(Some(whole))
    }

    /// Has another body sent in place of one that was read whole.
    pub fn replace(&mut self, body: Bytes) {
        self.announced = Some(body.len() as u64);
        self.ended = body.is_empty();
        self.body = Body::Memory(body);
        self.touched = false;
    }

    /// Drops from the buffer what was handed out.
    fn settle(&mut self) {
        if let Transport::Wire { buffer, .. } = &mut self.transport {
            buffer.consume(std::mem::take(&mut self.taken));
        }
        self.held = None;
    }

    /// The HTTP/1.1 connection, for another protocol; nothing of it where this is an HTTP/2 stream.
    pub fn into_wire(mut self) -> Option<(&'c Wire, &'c mut Buffer)> {
        self.settle();
        match self.transport {
            Transport::Wire { wire, buffer } => Some((wire, buffer)),
            Transport::Stream(_) => None,
        }
    }

    /// The exchange is over. Whether the body was read to its end, so that what follows it on the connection is the next message.
    pub fn finish(mut self) -> bool {
        if !matches!(self.body, Body::Memory(_)) {
            self.settle();
        }
        self.is_read()
    }
}
