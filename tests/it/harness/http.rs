//! An HTTP/1.1 client that shows exactly what came over the wire.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// A response.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn arm(&self) -> String {
        self.header("x-pointsman-arm")
            .unwrap_or_else(|| panic!("no arm in {self:?}"))
            .to_owned()
    }

    pub fn decision(&self) -> String {
        self.header("x-pointsman-decision")
            .unwrap_or_else(|| panic!("no decision in {self:?}"))
            .to_owned()
    }

    /// The statuses of a reward's answer.
    pub fn statuses(&self) -> Vec<String> {
        let json = self.json();
        let results = json["results"]
            .as_array()
            .unwrap_or_else(|| panic!("no results in {self:?}"));
        results
            .iter()
            .map(|result| result["status"].as_str().unwrap().to_owned())
            .collect()
    }
}

/// A keep-alive connection.
pub struct Client<S = TcpStream> {
    reader: BufReader<S>,
}

/// Connects. A hang is an error, not a wait for ever.
pub fn dial(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_mins(1)))?;
    Ok(stream)
}

impl Client {
    pub fn connect(address: SocketAddr) -> std::io::Result<Self> {
        dial(address).map(Self::over)
    }

    /// The connection, for another thread to write to.
    pub fn writer(&self) -> TcpStream {
        self.reader.get_ref().try_clone().unwrap()
    }

    /// Ends our side; what comes can still be read.
    pub fn end(&mut self) {
        self.reader.get_ref().shutdown(Shutdown::Write).unwrap();
    }
}

impl<S: Read + Write> Client<S> {
    /// Over a connection that is there.
    pub fn over(stream: S) -> Self {
        Self {
            reader: BufReader::new(stream),
        }
    }

    /// What the connection runs over.
    pub fn stream(&self) -> &S {
        self.reader.get_ref()
    }

    pub fn get(&mut self, path: &str) -> Option<Answer> {
        self.send("GET", path, &[], b"")
    }

    pub fn post(&mut self, path: &str, body: &str) -> Option<Answer> {
        self.send(
            "POST",
            path,
            &[("content-type", "application/json")],
            body.as_bytes(),
        )
    }

    pub fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Option<Answer> {
        let mut message = format!(
            "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {}\r\n",
            body.len()
        );
        for (name, value) in headers {
            message.push_str(&format!("{name}: {value}\r\n"));
        }
        message.push_str("\r\n");
        let mut bytes = message.into_bytes();
        bytes.extend_from_slice(body);
        self.raw(&bytes);
        self.receive(method == "HEAD")
    }

    /// Writes bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.try_raw(bytes).unwrap();
    }

    /// Like [`Self::raw`], where the peer may have left.
    pub fn try_raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let stream = self.reader.get_mut();
        stream.write_all(bytes)?;
        stream.flush()
    }

    /// Reads until the connection ends orderly.
    pub fn read_to_end(&mut self, rest: &mut Vec<u8>) -> std::io::Result<usize> {
        self.reader.read_to_end(rest)
    }

    /// Reads one response; `None` when the connection ended before its first byte.
    pub fn receive(&mut self, head_only: bool) -> Option<Answer> {
        let (status, headers) = self.receive_head()?;
        let mut answer = Answer {
            status,
            headers,
            body: Vec::new(),
        };
        if head_only || status == 204 || status == 304 {
            return Some(answer);
        }
        if answer.header("transfer-encoding").is_some() {
            while let Some(chunk) = self.receive_chunk() {
                answer.body.extend(chunk);
            }
        } else if let Some(length) = answer.header("content-length") {
            answer.body = vec![0; length.parse().unwrap()];
            self.reader.read_exact(&mut answer.body).unwrap();
        } else {
            self.reader.read_to_end(&mut answer.body).unwrap();
        }
        Some(answer)
    }

    pub fn receive_head(&mut self) -> Option<(u16, Vec<(String, String)>)> {
        let status = self.line()?.split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Some((status, headers));
            }
            let (name, value) = line.split_once(':').unwrap();
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// One chunk of a chunked body; `None` after the last.
    pub fn receive_chunk(&mut self) -> Option<Vec<u8>> {
        let size = usize::from_str_radix(
            self.line()
                .expect("a chunk size")
                .split(';')
                .next()
                .unwrap()
                .trim(),
            16,
        )
        .unwrap();
        let mut chunk = vec![0; size + 2];
        self.reader.read_exact(&mut chunk).unwrap();
        chunk.truncate(size);
        (size > 0).then_some(chunk)
    }

    /// Everything that still comes until the connection ends, in order or not.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        if let Err(error) = self.reader.read_to_end(&mut rest) {
            let waited = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
            assert!(!waited, "the connection does not end: {rest:?}");
        }
        rest
    }

    /// Reads exactly so many bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.reader.read_exact(&mut bytes).unwrap();
        bytes
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(line.trim_end().to_owned()),
        }
    }
}
