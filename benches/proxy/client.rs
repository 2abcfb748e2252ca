//! One connection of the load generator: sends a request, and follows the answer as far as it must to know where it ends and whether it is right.

use std::io;
use std::net::{SocketAddr, TcpStream};

use crate::http::{self, Body, Outgoing};
use crate::request::Kind;

/// What arrived with some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrived {
    Part,
    /// The whole answer, as it should be.
    Whole,
}

/// A connection and the request that it waits for.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    pub(crate) output: Outgoing,
    pub(crate) waits_to_write: bool,
    /// When the request was due, when it went out (nanoseconds), and its kind.
    pub(crate) request: Option<(u64, u64, Kind)>,
    /// The decision of an earlier answer that has had no reward yet; read only where rewards are posted.
    pub(crate) decision: Option<String>,
    /// Whether the first event of the answer has been seen.
    pub(crate) seen_event: bool,
    keeps_decisions: bool,
    head: Vec<u8>,
    body: Option<Body>,
    /// The body so far, of rewards only.
    text: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr, keeps_decisions: bool) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            output: Outgoing::default(),
            waits_to_write: false,
            request: None,
            decision: None,
            seen_event: false,
            keeps_decisions,
            head: Vec::new(),
            body: None,
            text: Vec::new(),
        })
    }

    /// Takes bytes of the answer; an error says what is wrong with it.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<Arrived, String> {
        let Some((.., kind)) = self.request else {
            return Err("bytes that nobody asked for".to_owned());
        };
        let mut rest = bytes;
        if self.body.is_none() {
            let before = self.head.len();
            self.head.extend_from_slice(bytes);
            let Some(end) = http::head_end(&self.head) else {
                return Ok(Arrived::Part);
            };
            self.body = Some(self.read_head(end)?);
            rest = &bytes[end - before..];
            self.head.clear();
        }
        let Some(body) = self.body.as_mut() else {
            return Ok(Arrived::Part);
        };
        let taken = body.take(rest).ok_or("a bad chunk")?;
        if taken < rest.len() {
            return Err("bytes after the answer".to_owned());
        }
        let finished = body.finished();
        if kind == Kind::Reward {
            self.text.extend_from_slice(rest);
        }
        if !finished {
            return Ok(Arrived::Part);
        }
        self.body = None;
        self.seen_event = false;
        let text = std::mem::take(&mut self.text);
        if kind == Kind::Reward && memchr::memmem::find(&text, b"\"accepted\"").is_none() {
            return Err(format!("a reward: {}", String::from_utf8_lossy(&text)));
        }
        Ok(Arrived::Whole)
    }

    /// Reads the head that ends there.
    fn read_head(&mut self, end: usize) -> Result<Body, String> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        let parsed = response.parse(&self.head[..end]);
        parsed.map_err(|error| format!("a head: {error}"))?;
        if response.code != Some(200) {
            return Err(format!("status {:?}", response.code));
        }
        if self.keeps_decisions
            && let Some(decision) = http::header(response.headers, "x-pointsman-decision")
        {
            self.decision = Some(String::from_utf8_lossy(decision).into_owned());
        }
        http::body(response.headers).ok_or_else(|| "a body without an end".to_owned())
    }
}

/// The stamps of the events in some bytes.
pub(crate) fn stamps(bytes: &[u8]) -> impl Iterator<Item = u64> {
    memchr::memmem::find_iter(bytes, b"data: ").filter_map(|at| {
        let rest = &bytes[at + 6..];
        let end = memchr::memchr(b'\n', rest)?;
        str::from_utf8(&rest[..end]).ok()?.parse().ok()
    })
}
