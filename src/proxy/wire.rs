//! A connection that speaks HTTP/1.1: a stream whose two directions are used at the same time by one task, and the buffer that is read into.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::stream::Stream;
use super::timer::{Elapsed, Timer, Timers};

/// Size of a buffer at first: heads and small bodies fit.
pub const FIRST: usize = 16 << 10;

/// Size to which a buffer grows when a read fills it.
pub const LARGEST: usize = 64 << 10;

/// Buffers that a worker keeps for reuse, of the first size and of the largest.
const KEPT: usize = 128;
const KEPT_LARGEST: usize = 32;

/// Why a connection is of no more use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireError {
    /// The peer did nothing for too long.
    Silent,
    /// The connection broke.
    Broken,
    /// It broke before a byte of what was to be written was taken.
    Unsent,
}

impl From<Elapsed> for WireError {
    fn from(_: Elapsed) -> Self {
        Self::Silent
    }
}

impl From<io::Error> for WireError {
    fn from(_: io::Error) -> Self {
        Self::Broken
    }
}

/// Buffers that are not in use, of the two usual sizes: new ones would have to be cleared each time.
#[derive(Debug, Default)]
pub struct Buffers {
    first: RefCell<Vec<Vec<u8>>>,
    largest: RefCell<Vec<Vec<u8>>>,
}

impl Buffers {
    fn take(&self, size: usize) -> Vec<u8> {
        let kept = if size == FIRST {
            self.first.borrow_mut().pop()
        } else {
            self.largest.borrow_mut().pop()
        };
        kept.unwrap_or_else(|| vec![0; size])
    }

    fn keep(&self, bytes: Vec<u8>) {
        let (kept, most) = match bytes.len() {
            FIRST => (&self.first, KEPT),
            LARGEST => (&self.largest, KEPT_LARGEST),
            _ => return,
        };
        let mut kept = kept.borrow_mut();
        if kept.len() < most {
            kept.push(bytes);
        }
    }
}

/// What was read and not yet used. An empty one holds no memory once it was released.
#[derive(Debug)]
pub struct Buffer {
    /// All of it initialised; what counts is between `start` and `end`.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// A read has filled it: there is more to come than fits.
    is_short: bool,
    buffers: Rc<Buffers>,
}

impl Buffer {
    /// An empty one.
    pub fn new(buffers: &Rc<Buffers>) -> Self {
        Self {
            bytes: Vec::new(),
            start: 0,
            end: 0,
            is_short: false,
            buffers: Rc::clone(buffers),
        }
    }

    /// What is in it.
    pub fn data(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether it has `largest` bytes and so no room for more.
    pub fn is_full(&self, largest: usize) -> bool {
        self.data().len() >= largest
    }

    /// Drops the first `length` bytes.
    pub fn consume(&mut self, length: usize) {
        self.start = (self.start + length).min(self.end);
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Gives the memory back if nothing is in it.
    pub fn release(&mut self) {
        if self.is_empty() && !self.bytes.is_empty() {
            self.buffers.keep(std::mem::take(&mut self.bytes));
            self.is_short = false;
        }
    }

    /// Room to read into; grows up to `largest` in all. Empty when the buffer is as large and full.
    fn room(&mut self, largest: usize) -> &mut [u8] {
        if self.is_short && self.is_empty() && self.bytes.len() < LARGEST && LARGEST <= largest {
            self.grow(LARGEST);
        }
        if self.end == self.bytes.len() {
            if self.bytes.is_empty() {
                self.bytes = self.buffers.take(FIRST);
            } else if self.start > 0 {
                self.bytes.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            } else if self.bytes.len() < largest {
                self.grow((self.bytes.len() * 4).min(largest));
            }
        }
        &mut self.bytes[self.end..]
    }
}

impl Buffer {
    fn grow(&mut self, size: usize) {
        if size == LARGEST {
            let mut larger = self.buffers.take(LARGEST);
            larger[..self.end].copy_from_slice(&self.bytes[..self.end]);
            let old = std::mem::replace(&mut self.bytes, larger);
            self.buffers.keep(old);
        } else {
            self.bytes.resize(size, 0);
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.consume(usize::MAX / 2);
        self.release();
    }
}

/// One connection. Both directions borrow it for the moment of a poll only, so one task may read while another future of it writes.
#[derive(Debug)]
pub struct Wire {
    stream: RefCell<Stream>,
    reading: Timer,
    writing: Timer,
}

impl Wire {
    /// Over `stream`, with time-outs of `timers`.
    pub fn new(stream: Stream, timers: &Rc<Timers>) -> Self {
        Self {
            stream: RefCell::new(stream),
            reading: Timer::new(timers),
            writing: Timer::new(timers),
        }
    }

    /// The stream, for another protocol.
    pub fn into_stream(self) -> Stream {
        self.stream.into_inner()
    }

    /// The timer of the reading side, for waits that are none for bytes.
    pub fn timer(&self) -> &Timer {
        &self.reading
    }

    /// Whether this is TLS.
    pub fn is_tls(&self) -> bool {
        !matches!(&*self.stream.borrow(), Stream::Tcp(_))
    }

    /// Reads once. 0: the peer has ended its side, or `buffer` has `largest` bytes and is full.
    pub fn poll_fill(
        &self,
        context: &mut Context<'_>,
        buffer: &mut Buffer,
        largest: usize,
    ) -> Poll<io::Result<usize>> {
        let mut room = ReadBuf::new(buffer.room(largest));
        let mut stream = self.stream.borrow_mut();
        ready!(Pin::new(&mut *stream).poll_read(context, &mut room))?;
        let length = room.filled().len();
        buffer.is_short = room.remaining() == 0;
        buffer.end += length;
        Poll::Ready(Ok(length))
    }

    /// Reads once, waiting at most `patience` milliseconds.
    ///
    /// # Errors
    ///
    /// See [`WireError`].
    pub async fn fill(
        &self,
        buffer: &mut Buffer,
        largest: usize,
        patience: u64,
    ) -> Result<usize, WireError> {
        let filled = poll_fn(|context| self.poll_fill(context, buffer, largest));
        Ok(self.reading.within(patience, filled).await??)
    }

    /// Waits for the first bytes of the next message (or the end), without holding memory for them where the stream allows that; not much
    /// longer than until the worker drains.
    ///
    /// # Errors
    ///
    /// See [`WireError`].
    pub async fn wait(&self, buffer: &mut Buffer, patience: u64) -> Result<(), WireError> {
        let readable = poll_fn(|context| {
            if let Stream::Tcp(stream) = &*self.stream.borrow() {
                return stream.poll_read_ready(context);
            }
            // Records may be waiting inside the TLS state: reading tells.
            let filled = ready!(self.poll_fill(context, buffer, FIRST))?;
            Poll::Ready(if filled == 0 {
                Err(io::ErrorKind::UnexpectedEof.into())
            } else {
                Ok(())
            })
        });
        Ok(self.reading.while_idle(patience, readable).await??)
    }

    /// Whether the peer of an idle connection has neither sent anything nor left.
    pub fn is_quiet(&self) -> bool {
        !self.stream.borrow_mut().has_more() && self.socket_is_quiet()
    }

    /// Whether nothing waits in the socket. The kernel is asked: the runtime hears of what happened only when it next waits.
    pub fn socket_is_quiet(&self) -> bool {
        let mut byte = [0];
        let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
        let stream = self.stream.borrow();
        matches!(rustix::net::recv(stream.socket(), &mut byte[..], flags), Err(error) if error == rustix::io::Errno::AGAIN)
    }

    /// Writes all of `parts`, at most four; each step may take `patience` milliseconds.
    ///
    /// # Errors
    ///
    /// See [`WireError`].
    pub async fn write(&self, parts: &[&[u8]], patience: u64) -> Result<(), WireError> {
        let mut written = 0;
        let total: usize = parts.iter().map(|part| part.len()).sum();
        while written < total {
            let step = poll_fn(|context| {
                let mut slices = [IoSlice::new(&[]); 4];
                let count = rest(parts, written, &mut slices);
                let mut stream = self.stream.borrow_mut();
                let stream = Pin::new(&mut *stream);
                match &slices[..count] {
                    [only] => stream.poll_write(context, only),
                    several => stream.poll_write_vectored(context, several),
                }
            });
            let length = self.writing.within(patience, step).await?;
            match length {
                Ok(length @ 1..) => written += length,
                // TLS may have sent some records of what it reports as a failure.
                _ if written == 0 && !self.is_tls() => return Err(WireError::Unsent),
                _ => return Err(WireError::Broken),
            }
        }
        if self.is_tls() {
            let flush =
                poll_fn(|context| Pin::new(&mut *self.stream.borrow_mut()).poll_flush(context));
            self.writing.within(patience, flush).await??;
        }
        Ok(())
    }

    /// Ends our side.
    ///
    /// # Errors
    ///
    /// See [`WireError`].
    pub async fn shutdown(&self, patience: u64) -> Result<(), WireError> {
        let end =
            poll_fn(|context| Pin::new(&mut *self.stream.borrow_mut()).poll_shutdown(context));
        Ok(self.writing.within(patience, end).await??)
    }

    /// Has the connection reset when it is dropped, so that nobody takes what was sent for a whole message.
    pub fn reset_on_drop(&self) {
        let stream = self.stream.borrow();
        if let Err(error) = stream.socket().set_zero_linger() {
            tracing::debug!(%error, "a connection could not be told to reset");
        }
    }
}

/// What is left of `parts` behind `written` bytes, as slices; their number.
fn rest<'a>(parts: &[&'a [u8]], written: usize, slices: &mut [IoSlice<'a>; 4]) -> usize {
    let (mut skip, mut count) = (written, 0);
    for part in parts {
        if skip >= part.len() {
            skip -= part.len();
        } else if count < slices.len() {
            slices[count] = IoSlice::new(&part[skip..]);
            (skip, count) = (0, count + 1);
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_grows_moves_and_gives_back() {
        let buffers = Rc::new(Buffers::default());
        let mut buffer = Buffer::new(&buffers);
        assert_eq!(buffer.room(LARGEST).len(), FIRST);
        buffer.end = FIRST;
        buffer.consume(10);
        assert_eq!(buffer.room(LARGEST).len(), 10);
        buffer.end = FIRST;
        assert_eq!(buffer.room(LARGEST).len(), LARGEST - FIRST);
        assert_eq!(buffer.data().len(), FIRST);
        buffer.consume(FIRST);
        buffer.release();
        assert_eq!(buffers.largest.borrow().len(), 1);
        assert_eq!(buffers.first.borrow().len(), 1);
        assert_eq!(buffer.room(LARGEST).len(), FIRST);
        drop(buffer);
        assert_eq!(buffers.first.borrow().len(), 1);
    }

    #[test]
    fn what_fills_a_buffer_gets_a_larger_one_when_it_was_used() {
        let buffers = Rc::new(Buffers::default());
        let mut buffer = Buffer::new(&buffers);
        assert_eq!(buffer.room(LARGEST).len(), FIRST);
        (buffer.end, buffer.is_short) = (FIRST, true);
        buffer.consume(FIRST);
        assert_eq!(buffer.room(FIRST).len(), FIRST, "nobody asks for more");
        assert_eq!(buffer.room(LARGEST).len(), LARGEST);
        buffer.release();
        assert_eq!(buffer.room(LARGEST).len(), FIRST);
        assert_eq!(buffers.largest.borrow().len(), 1);
    }

    #[test]
    fn parts_are_written_from_where_the_last_write_ended() {
        let parts: [&[u8]; 3] = [b"abc", b"", b"de"];
        for written in 0..=5 {
            let mut slices = [IoSlice::new(&[]); 4];
            let count = rest(&parts, written, &mut slices);
            let left: Vec<u8> = slices[..count]
                .iter()
                .flat_map(|slice| slice.to_vec())
                .collect();
            assert_eq!(left, &b"abcde"[written..]);
        }
    }
}
