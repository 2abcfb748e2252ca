//! As much of HTTP/1.1 as both ends of a measurement need: where a head ends, where a body ends, and bytes that a socket did not take at
//! once. Not a codec for strangers: it believes what it reads.

use std::io::{self, Read, Write};
use std::net::TcpStream;

/// A body of which more is to come.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Body {
    Length(u64),
    Chunks(Part, u64),
}

/// Where in a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Size,
    Data,
    DataEnd,
    /// True as long as the line is empty.
    Trailer(bool),
    Done,
}

impl Body {
    pub(crate) const fn chunks() -> Self {
        Self::Chunks(Part::Size, 0)
    }

    pub(crate) const fn finished(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunks(Part::Done, _))
    }

    /// Takes what belongs to the body, and gives how much that was; none where it is no body.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Option<usize> {
        let Self::Chunks(part, left) = self else {
            let Self::Length(left) = self else {
                return None;
            };
            let taken = (*left).min(bytes.len() as u64);
            *left -= taken;
            return Some(taken as usize);
        };
        let mut at = 0;
        while at < bytes.len() && *part != Part::Done {
            if *part == Part::Data {
                let taken = (*left).min((bytes.len() - at) as u64);
                *left -= taken;
                at += taken as usize;
                if *left == 0 {
                    *part = Part::DataEnd;
                }
                continue;
            }
            (*part, *left) = step(*part, *left, bytes[at])?;
            at += 1;
        }
        Some(at)
    }
}

/// One byte of what is between the data of chunks.
fn step(part: Part, left: u64, byte: u8) -> Option<(Part, u64)> {
    Some(match (part, byte) {
        (Part::Size | Part::DataEnd | Part::Trailer(true), b'\r') => (part, left),
        (Part::Size, b'\n') if left == 0 => (Part::Trailer(true), 0),
        (Part::Size, b'\n') => (Part::Data, left),
        (Part::Size, digit) => {
            let digit = char::from(digit).to_digit(16)?;
            (Part::Size, left.checked_mul(16)? + u64::from(digit))
        }
        (Part::DataEnd, b'\n') => (Part::Size, 0),
        (Part::Trailer(true), b'\n') => (Part::Done, 0),
        (Part::Trailer(_), b'\n') => (Part::Trailer(true), 0),
        (Part::Trailer(_), _) => (Part::Trailer(false), 0),
        _ => return None,
    })
}

/// Where the head ends, its empty line included.
pub(crate) fn head_end(bytes: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4)
}

/// The value of a header, its name without regard to case.
pub(crate) fn header<'a>(headers: &[httparse::Header<'a>], name: &str) -> Option<&'a [u8]> {
    let header = headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case(name))?;
    Some(header.value)
}

/// How the headers frame the body; without any word about it, it is empty.
pub(crate) fn body(headers: &[httparse::Header<'_>]) -> Option<Body> {
    let coding = header(headers, "transfer-encoding");
    if coding.is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked")) {
        return Some(Body::chunks());
    }
    let Some(length) = header(headers, "content-length") else {
        return Some(Body::Length(0));
    };
    Some(Body::Length(str::from_utf8(length).ok()?.parse().ok()?))
}

/// Bytes on their way to a socket.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    bytes: Vec<u8>,
    written: usize,
}

impl Outgoing {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.written = 0;
    }

    /// Writes as much as the socket takes; true once everything is written.
    pub(crate) fn flush(&mut self, mut stream: &TcpStream) -> io::Result<bool> {
        while self.written < self.bytes.len() {
            match stream.write(&self.bytes[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.clear();
        Ok(true)
    }
}

/// Reads once. None: nothing there yet. An end is an error.
pub(crate) fn read(mut stream: &TcpStream, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    match stream.read(buffer) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
