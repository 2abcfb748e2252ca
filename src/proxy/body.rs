//! Bodies: what is streamed through, and what is watched while it streams.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use super::exchange::Exchange;
use super::shadow::Copying;
use crate::clock::Stopwatch;
use crate::experiment::decision::Ending;

/// Any error of a body: the message's end is not what was announced.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a response to a client.
#[derive(Debug)]
pub enum Body {
    /// At hand.
    Full(Option<Bytes>),
    /// Streamed from an arm.
    Proxied(Box<Proxied>),
}

impl Body {
    /// A body that is at hand.
    pub fn full(bytes: Bytes) -> Self {
        Self::Full((!bytes.is_empty()).then_some(bytes))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Proxied(proxied) => proxied.poll(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_none(),
            Self::Proxied(proxied) => proxied.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Proxied(proxied) => proxied.incoming.size_hint(),
        }
    }
}

/// An arm's response on its way to the client. Its end, however it comes, ends the exchange.
#[derive(Debug)]
pub struct Proxied {
    incoming: Incoming,
    exchange: Exchange,
    idle_timeout: Duration,
    /// Made only when the arm is silent.
    silence: Option<Pin<Box<Sleep>>>,
}

impl Proxied {
    /// Wraps the body of a response.
    pub fn new(incoming: Incoming, mut exchange: Exchange, idle_timeout: Duration) -> Self {
        if incoming.is_end_stream() {
            exchange.finish(Ending::Answered);
        }
        Self {
            incoming,
            exchange,
            idle_timeout,
            silence: None,
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = match Pin::new(&mut self.incoming).poll_frame(context) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                let silence = self
                    .silence
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep(self.idle_timeout)));
                ready!(silence.as_mut().poll(context));
                self.exchange.finish(Ending::Failed);
                return Poll::Ready(Some(Err("the arm went silent within its response".into())));
            }
        };
        self.silence = None;
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.exchange.watch(data);
                }
                // The exchange ends before the client can see the last byte, so that a label cannot overtake it.
                if self.incoming.is_end_stream() {
                    self.exchange.finish(Ending::Answered);
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                self.exchange.finish(Ending::Failed);
                Some(Err(error.into()))
            }
            None => {
                self.exchange.finish(Ending::Answered);
                None
            }
        })
    }
}

/// How far a client's body has come.
#[derive(Debug, Default)]
pub struct Upload {
    broken: Cell<bool>,
    pieces: Cell<u64>,
    ended: Cell<Option<Stopwatch>>,
}

impl Upload {
    /// A body that is at hand, or that has no bytes.
    pub fn done() -> Self {
        let upload = Self::default();
        upload.end();
        upload
    }

    fn end(&self) {
        if self.ended.get().is_none() {
            self.ended.set(Some(Stopwatch::start()));
        }
    }

    /// Whether the client broke it off or framed it badly.
    pub fn is_broken(&self) -> bool {
        self.broken.get()
    }

    /// Pieces that have passed: as long as it grows, the client sends.
    pub fn pieces(&self) -> u64 {
        self.pieces.get()
    }

    /// Time since its end, if it has ended.
    pub fn since_end(&self) -> Option<Duration> {
        self.ended.get().map(|ended| ended.elapsed())
    }
}

/// The body of a request to an arm.
#[derive(Debug)]
pub enum RequestBody {
    /// Streamed from the client, and watched; and copied aside where it is shadowed.
    Streamed(Incoming, Rc<Upload>, Option<Box<Copying>>),
    /// Read whole, because the policy file asks for a value from it.
    Buffered(Option<Bytes>),
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Buffered(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Streamed(incoming, upload, copy) => {
                let frame = ready!(Pin::new(&mut *incoming).poll_frame(context));
                upload.pieces.set(upload.pieces.get() + 1);
                let ended = frame.is_none() || incoming.is_end_stream();
                Poll::Ready(match frame {
                    Some(Err(error)) => {
                        *copy = None;
                        upload.broken.set(true);
                        Some(Err(error.into()))
                    }
                    frame => {
                        if let Some(copying) = copy
                            && let Some(Ok(Some(data))) = frame
                                .as_ref()
                                .map(|frame| frame.as_ref().map(Frame::data_ref))
                        {
                            copying.push(data);
                        }
                        if ended {
                            upload.end();
                            if let Some(copying) = copy.take() {
                                copying.complete();
                            }
                        }
                        frame.map(|frame| frame.map_err(Into::into))
                    }
                })
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Buffered(bytes) => bytes.is_none(),
            Self::Streamed(incoming, ..) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Buffered(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Streamed(incoming, ..) => incoming.size_hint(),
        }
    }
}
