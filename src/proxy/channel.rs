//! A body that one task hands to hyper, which sends it on an HTTP/2 stream: one frame at a time, so that whoever fills it feels the peer's
//! flow control; and an end that must be said, so that a body that breaks off is seen to do so.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

use super::body::{Departure, Piece};
use super::client::append;
use super::wire::WireError;

/// What goes through.
#[derive(Debug)]
enum Part {
    Frame(Frame<Bytes>),
    End,
}

/// The end that fills. Dropped before the last piece, it breaks the body off.
#[derive(Debug)]
pub struct Channel(mpsc::Sender<Part>);

/// The end that hyper reads.
#[derive(Debug)]
pub struct ChannelBody {
    parts: mpsc::Receiver<Part>,
    ended: bool,
    departure: Option<Rc<Departure>>,
}

/// Both ends. `is_empty`: there will be no piece. `departure` is told when hyper drops the body before its end.
pub fn channel(is_empty: bool, departure: Option<Rc<Departure>>) -> (Channel, ChannelBody) {
    let (sender, parts) = mpsc::channel(1);
    let body = ChannelBody {
        parts,
        ended: is_empty,
        departure,
    };
    (Channel(sender), body)
}

impl Channel {
    /// Hands over a piece, waiting at most `patience` milliseconds until the peer takes it.
    ///
    /// # Errors
    ///
    /// See [`WireError`].
    pub async fn piece(&self, piece: &Piece<'_>, patience: u64) -> Result<(), WireError> {
        if !piece.data.is_empty() {
            let frame = Frame::data(Bytes::copy_from_slice(piece.data));
            self.send(Part::Frame(frame), patience).await?;
        }
        if piece.ended {
            if !piece.trailers.is_empty() {
                let mut map = HeaderMap::new();
                for (name, value) in &piece.trailers {
                    append(&mut map, name, value);
                }
                self.send(Part::Frame(Frame::trailers(map)), patience)
                    .await?;
            }
            // A body without bytes may have been taken for ended by its reader already.
            let _ended = self.send(Part::End, patience).await;
        }
        Ok(())
    }

    async fn send(&self, part: Part, patience: u64) -> Result<(), WireError> {
        let sent = self.0.send(part);
        match tokio::time::timeout(Duration::from_millis(patience), sent).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(WireError::Broken),
            Err(_) => Err(WireError::Silent),
        }
    }
}

impl Body for ChannelBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        Poll::Ready(match ready!(self.parts.poll_recv(context)) {
            Some(Part::Frame(frame)) => {
                self.ended = frame.is_trailers();
                Some(Ok(frame))
            }
            Some(Part::End) => {
                self.ended = true;
                None
            }
            None => {
                self.ended = true;
                Some(Err(std::io::ErrorKind::ConnectionAborted.into()))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        if self.ended {
            SizeHint::with_exact(0)
        } else {
            SizeHint::default()
        }
    }
}

impl Drop for ChannelBody {
    fn drop(&mut self) {
        if let (false, Some(departure)) = (self.ended, &self.departure) {
            departure.declare();
        }
    }
}
