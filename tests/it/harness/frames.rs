//! An HTTP/2 endpoint that writes the frames that the test says (RFC 9113 §4.1), where a library would not.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use super::upstream::Upstream;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

pub const NO_ERROR: u32 = 0;
pub const INTERNAL_ERROR: u32 = 2;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// A connection of the proxy's.
pub struct Peer(TcpStream);

/// Does what `behave` does with each connection, which has so many before it. It lives as long as the test process.
pub fn upstream(behave: impl Fn(usize, &mut Peer) + Send + Sync + 'static) -> SocketAddr {
    let upstream = Upstream::connections(move |number, stream| {
        let mut peer = Peer(stream);
        if peer.begin().is_some() {
            behave(number, &mut peer);
        }
    });
    upstream.address
}

impl Peer {
    fn begin(&mut self) -> Option<()> {
        let mut preface = [0; PREFACE.len()];
        self.0.read_exact(&mut preface).ok()?;
        assert_eq!(preface, PREFACE);
        self.write(SETTINGS, 0, 0, &[]);
        Some(())
    }

    /// Writes a frame. That the other end has gone shows when the next one is read.
    fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.0.write_all(&frame).ok();
    }

    /// The next frame of a stream: its kind, its flags, the stream. What concerns the connection is answered.
    fn read(&mut self) -> Option<(u8, u8, u32)> {
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).ok()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let mut payload = vec![0; length as usize];
            self.0.read_exact(&mut payload).ok()?;
            let (kind, flags) = (head[3], head[4]);
            match kind {
                SETTINGS | PING if flags & ACK == 0 => {
                    let echoed = if kind == PING { &payload[..] } else { &[] };
                    self.write(kind, ACK, 0, echoed);
                }
                DATA | HEADERS | RST_STREAM => return Some((kind, flags, stream)),
                _ => {}
            }
        }
    }

    /// The stream of the next request whose head has come; `None` when the connection has ended.
    pub fn head(&mut self) -> Option<u32> {
        loop {
            if let (HEADERS, _, stream) = self.read()? {
                return Some(stream);
            }
        }
    }

    /// The stream of the next request that has come whole; `None` when the connection has ended.
    pub fn request(&mut self) -> Option<u32> {
        loop {
            let (kind, flags, stream) = self.read()?;
            if kind != RST_STREAM && flags & END_STREAM != 0 {
                return Some(stream);
            }
        }
    }

    /// Answers 200 without a body.
    pub fn answer(&mut self, stream: u32) {
        self.fields(stream, &[(":status", "200")], true);
    }

    /// Writes a head, or trailers.
    pub fn fields(&mut self, stream: u32, fields: &[(&str, &str)], ends: bool) {
        // As literals that no table remembers (RFC 7541 §6.2.2).
        let mut block = Vec::new();
        for (name, value) in fields {
            assert!(name.len() < 127 && value.len() < 127);
            block.extend([0, name.len() as u8]);
            block.extend(name.as_bytes());
            block.push(value.len() as u8);
            block.extend(value.as_bytes());
        }
        let flags = END_HEADERS | if ends { END_STREAM } else { 0 };
        self.write(HEADERS, flags, stream, &block);
    }

    /// Writes a part of a body that does not end with it.
    pub fn data(&mut self, stream: u32, data: &[u8]) {
        self.write(DATA, 0, stream, data);
    }

    /// Ends a stream.
    pub fn reset(&mut self, stream: u32, code: u32) {
        self.write(RST_STREAM, 0, stream, &code.to_be_bytes());
    }

    /// Ends the connection, once the streams up to `last` have ended.
    pub fn goodbye(&mut self, last: u32, code: u32) {
        let payload = [last.to_be_bytes(), code.to_be_bytes()].concat();
        self.write(GOAWAY, 0, 0, &payload);
    }

    /// Ends the connection without a word.
    pub fn end(&mut self) {
        self.0.shutdown(Shutdown::Both).ok();
    }

    /// Reads until the other end goes.
    pub fn linger(&mut self) {
        while self.read().is_some() {}
    }
}
