//! The model that stands behind every proxy here: two ports, one for each arm, that answer at once. A process of its own, so that its time
//! is not counted as the proxy's. `…/small` gives 200 bytes of JSON, `…/big` 64 KiB, `…/events` twenty server-sent events ten milliseconds
//! apart, `…/few` three of them a millisecond apart.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::http::{self, Body, Outgoing};
use crate::poll::{Interest, Poller, Ready, nanoseconds};

/// Token of standard input, whose end ends the process; the two after it are the listeners'.
const CONTROL: usize = 0;
const CONNECTIONS: usize = 3;

/// Server-sent events that a connection has yet to get.
#[derive(Debug, Clone, Copy)]
struct Events {
    left: u32,
    every: u64,
    next: u64,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    arm: usize,
    input: Vec<u8>,
    /// The request whose body is being read: its path's last segment.
    pending: Option<(Target, Body)>,
    output: Outgoing,
    events: Option<Events>,
    waits_to_write: bool,
}

#[derive(Debug, Clone, Copy)]
enum Target {
    Small,
    Big,
    Events,
    Few,
}

/// Answers made once, for both arms.
#[derive(Debug)]
struct Answers {
    small: [Vec<u8>; 2],
    big: [Vec<u8>; 2],
}

struct Upstream {
    poller: Poller,
    listeners: [TcpListener; 2],
    connections: Vec<Option<Connection>>,
    /// Tokens of connections that stream events.
    streaming: Vec<usize>,
    answers: Answers,
    buffer: Vec<u8>,
}

fn answer(arm: usize, kind: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ndate: Mon, 23 Nov 2026 18:00:00 GMT\r\nserver: upstream\r\ncontent-type: {kind}\r\nx-variant: {}\r\ncontent-length: {}\r\n\r\n",
        ["a", "b"][arm],
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn small(arm: usize) -> Vec<u8> {
    let text = format!(
        "{{\"predicted_label\":5,\"score\":0.9731,\"variant\":\"{}\",\"model\":\"sentiment-small-3\",\"tokens\":57,\"probabilities\":[0.01,0.01,0.0069,0.9731,0.0]}}",
        ["a", "b"][arm]
    );
    answer(arm, "application/json", format!("{text:<200}").as_bytes())
}

/// A port with room for many connections at once, which the standard library's listeners lack.
fn listen() -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Runs until standard input ends. Tells its two ports as a JSON array on standard output.
pub(crate) fn run() -> io::Result<()> {
    let listeners = [listen()?, listen()?];
    let poller = Poller::new()?;
    poller.add(io::stdin(), CONTROL)?;
    for (index, listener) in listeners.iter().enumerate() {
        poller.add(listener, index + 1)?;
    }
    let addresses: Vec<SocketAddr> = listeners
        .iter()
        .map(TcpListener::local_addr)
        .collect::<io::Result<_>>()?;
    writeln!(io::stdout(), "{}", serde_json::to_string(&addresses)?)?;
    let big = |arm| answer(arm, "application/octet-stream", &vec![b'x'; 65_536]);
    let mut upstream = Upstream {
        poller,
        listeners,
        connections: Vec::new(),
        streaming: Vec::new(),
        answers: Answers {
            small: [small(0), small(1)],
            big: [big(0), big(1)],
        },
        buffer: vec![0; 65_536],
    };
    let mut ready = Vec::new();
    while upstream.turn(&mut ready)? {}
    Ok(())
}

impl Upstream {
    /// Waits once and does what is due; false at the end of standard input.
    fn turn(&mut self, ready: &mut Vec<Ready>) -> io::Result<bool> {
        let longest = self.until_next_event();
        self.poller.wait(ready, longest)?;
        for ready in ready.iter() {
            match ready.token {
                CONTROL => return Ok(false),
                token if token < CONNECTIONS => self.accept(token - 1)?,
                token => {
                    if self.serve(*ready).is_err() {
                        self.drop_connection(token);
                    }
                }
            }
        }
        self.send_events();
        Ok(true)
    }

    fn until_next_event(&self) -> Duration {
        let next = self
            .streaming
            .iter()
            .filter_map(|token| {
                Some(
                    self.connections[*token - CONNECTIONS]
                        .as_ref()?
                        .events?
                        .next,
                )
            })
            .min();
        match next {
            Some(next) => Duration::from_nanos(next.saturating_sub(nanoseconds())),
            None => Duration::from_mins(1),
        }
    }

    fn accept(&mut self, arm: usize) -> io::Result<()> {
        while let Ok((stream, _)) = self.listeners[arm].accept() {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let free = self.connections.iter().position(Option::is_none);
            let slot = free.unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            self.poller.add(&stream, slot + CONNECTIONS)?;
            self.connections[slot] = Some(Connection {
                stream,
                arm,
                input: Vec::new(),
                pending: None,
                output: Outgoing::default(),
                events: None,
                waits_to_write: false,
            });
        }
        Ok(())
    }

    fn drop_connection(&mut self, token: usize) {
        self.connections[token - CONNECTIONS] = None;
        self.streaming.retain(|streaming| *streaming != token);
    }

    fn serve(&mut self, ready: Ready) -> io::Result<()> {
        let Some(connection) = self.connections[ready.token - CONNECTIONS].as_mut() else {
            return Ok(());
        };
        if ready.input {
            let Some(count) = http::read(&connection.stream, &mut self.buffer)? else {
                return Ok(());
            };
            connection.input.extend_from_slice(&self.buffer[..count]);
            connection.take_requests(&self.answers)?;
            if connection.events.is_some() && !self.streaming.contains(&ready.token) {
                self.streaming.push(ready.token);
            }
        }
        connection.flush(&self.poller, ready.token)
    }

    /// Sends the events that are due.
    fn send_events(&mut self) {
        let now = nanoseconds();
        for token in self.streaming.clone() {
            let slot = &mut self.connections[token - CONNECTIONS];
            let Some(connection) = slot.as_mut() else {
                continue;
            };
            connection.event(now);
            if connection.flush(&self.poller, token).is_err() {
                self.drop_connection(token);
            } else if connection.events.is_none() {
                self.streaming.retain(|streaming| *streaming != token);
            }
        }
    }
}

impl Connection {
    /// Reads requests from the input, and queues their answers.
    fn take_requests(&mut self, answers: &Answers) -> io::Result<()> {
        loop {
            if self.pending.is_none() {
                let Some(end) = http::head_end(&self.input) else {
                    return Ok(());
                };
                self.pending = Some(request(&self.input[..end])?);
                self.input.drain(..end);
            }
            let Some((target, body)) = self.pending.as_mut() else {
                return Ok(());
            };
            let taken = body.take(&self.input).ok_or(io::ErrorKind::InvalidData)?;
            let (finished, target) = (body.finished(), *target);
            self.input.drain(..taken);
            if !finished {
                return Ok(());
            }
            self.pending = None;
            self.answer(target, answers);
        }
    }

    fn answer(&mut self, target: Target, answers: &Answers) {
        let (left, every) = match target {
            Target::Small => return self.output.push(&answers.small[self.arm]),
            Target::Big => return self.output.push(&answers.big[self.arm]),
            Target::Events => (20, 10_000_000),
            Target::Few => (3, 1_000_000),
        };
        self.output.push(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n");
        let now = nanoseconds();
        self.events = Some(Events {
            left,
            every,
            next: now,
        });
        self.event(now);
    }

    /// Queues an event if it is due, stamped with now.
    fn event(&mut self, now: u64) {
        let Some(events) = self.events.as_mut() else {
            return;
        };
        if events.next > now {
            return;
        }
        let event = format!("data: {}\n\n", nanoseconds());
        self.output
            .push(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes());
        events.left -= 1;
        events.next += events.every;
        if events.left == 0 {
            self.output.push(b"0\r\n\r\n");
            self.events = None;
        }
    }

    fn flush(&mut self, poller: &Poller, token: usize) -> io::Result<()> {
        if self.output.is_empty() {
            return Ok(());
        }
        let waits = !self.output.flush(&self.stream)?;
        if waits != self.waits_to_write {
            self.waits_to_write = waits;
            let interest = if waits {
                Interest::Both
            } else {
                Interest::Input
            };
            poller.change(&self.stream, token, interest)?;
        }
        Ok(())
    }
}

/// What a head asks for, and how its body is framed.
fn request(head: &[u8]) -> io::Result<(Target, Body)> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    request.parse(head).map_err(io::Error::other)?;
    let target = match request
        .path
        .and_then(|path| path.rsplit('/').next())
        .unwrap_or_default()
    {
        "big" => Target::Big,
        "events" => Target::Events,
        "few" => Target::Few,
        _ => Target::Small,
    };
    let body = http::body(request.headers).ok_or(io::ErrorKind::InvalidData)?;
    Ok((target, body))
}
