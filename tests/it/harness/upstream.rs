//! Upstreams of our own: they answer what the test says and remember what they got.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

/// A request as an upstream got it.
#[derive(Debug, Clone)]
pub struct Received {
    pub head: String,
    pub body: Vec<u8>,
}

impl Received {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

type Behave = dyn Fn(&Received, &mut TcpStream) -> bool + Send + Sync;

/// The requests that an upstream got.
pub type Log = Arc<Mutex<Vec<Received>>>;

/// A server on a port of its own. It lives as long as the test process.
pub struct Upstream {
    pub address: SocketAddr,
    received: Log,
}

impl Upstream {
    /// Answers every request with 200 and this JSON.
    pub fn json(body: &str) -> Self {
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        Self::raw(answer.as_bytes())
    }

    /// Answers every request with these bytes and keeps the connection.
    pub fn raw(answer: &[u8]) -> Self {
        let answer = answer.to_vec();
        Self::behaving(move |_, stream| stream.write_all(&answer).is_ok())
    }

    /// Answers with these bytes: those who ask with an `x-wait` when it is let, once for each that is sent, and all others at once.
    pub fn gated(answer: &[u8]) -> (Self, mpsc::Sender<()>) {
        let answer = answer.to_vec();
        let (release, gate) = mpsc::channel();
        let gate = Mutex::new(gate);
        let upstream = Self::behaving(move |request, stream| {
            if request.header("x-wait").is_some() {
                gate.lock().unwrap().recv().unwrap();
            }
            stream.write_all(&answer).is_ok()
        });
        (upstream, release)
    }

    /// Answers as soon as a request's head is there, and reads no body.
    pub fn answering_early(answer: &[u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answer = answer.to_vec();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let answer = answer.clone();
                thread::spawn(move || {
                    let mut reader = BufReader::new(stream);
                    while let Some(line) = read_line(&mut reader) {
                        if line == "\r\n" && reader.get_mut().write_all(&answer).is_err() {
                            break;
                        }
                    }
                });
            }
        });
        Self {
            address,
            received: Arc::default(),
        }
    }

    /// Does what `behave` does with each connection, which has so many before it.
    pub fn connections(behave: impl Fn(usize, TcpStream) + Send + Sync + 'static) -> Self {
        Self::connections_into(Log::default(), behave)
    }

    /// Like [`Self::connections`]; what `behave` puts into the log is what was received.
    pub fn connections_into(
        received: Log,
        behave: impl Fn(usize, TcpStream) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let behave = Arc::new(behave);
        thread::spawn(move || {
            for (number, stream) in listener.incoming().flatten().enumerate() {
                let behave = Arc::clone(&behave);
                thread::spawn(move || behave(number, stream));
            }
        });
        Self { address, received }
    }

    /// Does what `behave` does with each request; the connection is closed when it returns false.
    pub fn behaving(
        behave: impl Fn(&Received, &mut TcpStream) -> bool + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        let (behave, log): (Arc<Behave>, _) = (Arc::new(behave), Arc::clone(&received));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (behave, log) = (Arc::clone(&behave), Arc::clone(&log));
                thread::spawn(move || {
                    let mut reader = BufReader::new(stream);
                    while let Some(request) = read_request(&mut reader) {
                        log.lock().unwrap().push(request.clone());
                        if !behave(&request, reader.get_mut()) {
                            break;
                        }
                    }
                });
            }
        });
        Self { address, received }
    }

    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

fn read_line(reader: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    (reader.read_line(&mut line).ok()? > 0).then_some(line)
}

/// Reads one request.
pub fn read_request(reader: &mut impl BufRead) -> Option<Received> {
    let mut head = String::new();
    loop {
        let line = read_line(reader)?;
        if line == "\r\n" {
            break;
        }
        head.push_str(&line);
    }
    let mut request = Received {
        head,
        body: Vec::new(),
    };
    if let Some(length) = request.header("content-length") {
        request.body = vec![0; length.parse().ok()?];
        reader.read_exact(&mut request.body).ok()?;
    } else if request.header("transfer-encoding").is_some() {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let size = usize::from_str_radix(line.trim(), 16).ok()?;
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk).ok()?;
            request.body.extend_from_slice(&chunk[..size]);
            if size == 0 {
                break;
            }
        }
    }
    Some(request)
}
