//! A client's connection: TLS where it is asked for, HTTP/2 where the client starts it, and else one HTTP/1.1 request after the
//! other (RFC 9112 §9).

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use http::StatusCode;
use tokio::net::TcpStream;

use super::body::Source;
use super::client::Client;
use super::handle::handle;
use super::headers::Origin;
use super::problem::Problem;
use super::stream::{Rewound, Stream};
use super::streams;
use super::wire::{Buffer, Wire, WireError};
use super::worker::{Peer, Role, Slot, Worker};
use crate::http1::head::{HeadError, Limits, Request};

/// How an HTTP/2 connection starts (RFC 9113 §3.4): these bytes are enough to tell.
const PREFACE: &[u8] = b"PRI * HTTP/2.0";

/// After an answer that the rest of a request is not read for, so many milliseconds and bytes of it are dropped, so that the answer is not lost in a
/// reset (RFC 9112 §9.6).
const LINGER: u64 = 1_000;
const LINGER_BYTES: usize = 8 << 20;

/// Room that is kept for reuse.
pub(super) const KEPT: usize = 64;

/// Serves a connection to its end.
pub(super) async fn serve(
    worker: Rc<Worker>,
    stream: TcpStream,
    (address, role): (SocketAddr, Role),
    _slot: Slot,
) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let Some((stream, is_http2)) = secure(&worker, stream).await else {
        return;
    };
    let peer = Peer {
        address,
        role,
        origin: Origin::new(address, worker.shared.tls.is_some()),
    };
    if is_http2 {
        streams::serve(worker, Rewound::new(Vec::new(), stream), peer).await;
        return;
    }
    let wire = Wire::new(stream, &worker.timers);
    let buffer = Buffer::new(&worker.buffers);
    let session = Session {
        worker: Rc::clone(&worker),
        peer: peer.clone(),
        wire,
        buffer,
    };
    if let Some(rewound) = session.run().await {
        streams::serve(worker, rewound, peer).await;
    }
}

/// Shakes hands, where this is a TLS listener. Whether the client wants HTTP/2.
async fn secure(worker: &Worker, stream: TcpStream) -> Option<(Stream, bool)> {
    let Some(tls) = &worker.shared.tls else {
        return Some((Stream::Tcp(stream), false));
    };
    let patience = Duration::from_millis(worker.shared.settings.limits.header_timeout);
    let shaken = tokio::time::timeout(patience, tls.acceptor().accept(stream)).await;
    match shaken.ok()? {
        Ok(stream) => {
            let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            Some((Stream::Client(Box::new(stream)), is_http2))
        }
        Err(error) => {
            tracing::debug!(%error, "a TLS handshake failed");
            None
        }
    }
}

/// Keeps room for reuse, as far as there is not enough of it already.
fn keep<T>(kept: &RefCell<Vec<T>>, room: T) {
    let mut kept = kept.borrow_mut();
    if kept.len() < KEPT {
        kept.push(room);
    }
}

/// An HTTP/1.1 connection.
struct Session {
    worker: Rc<Worker>,
    peer: Peer,
    wire: Wire,
    buffer: Buffer,
}

/// Why there is no request.
enum NoRequest {
    /// The client has left, or says nothing.
    End,
    /// It starts HTTP/2.
    Http2,
    /// It is told why.
    Refused(Problem),
}

impl From<WireError> for NoRequest {
    fn from(_: WireError) -> Self {
        Self::End
    }
}

impl Session {
    /// One request after the other. The connection, where it turns out to be HTTP/2.
    async fn run(mut self) -> Option<Rewound> {
        let mut is_first = true;
        loop {
            self.buffer.release();
            let mut request = self.worker.requests.borrow_mut().pop().unwrap_or_default();
            match self.next(&mut request, is_first).await {
                Ok(()) => {}
                Err(NoRequest::End) => {
                    self.close().await;
                    return None;
                }
                Err(NoRequest::Http2) => {
                    let read = self.buffer.data().to_vec();
                    return Some(Rewound::new(read, self.wire.into_stream()));
                }
                Err(NoRequest::Refused(problem)) => {
                    self.refuse(problem).await;
                    return None;
                }
            }
            is_first = false;
            // Its place first: else it would be made elsewhere and moved.
            let place = Box::new_uninit();
            let answer = Box::into_pin(Box::write(place, self.answer(&request)));
            let goes_on = answer.await;
            keep(&self.worker.requests, request);
            if !goes_on {
                return None;
            }
        }
    }

    /// Waits for the next request's head.
    async fn next(&mut self, request: &mut Request, is_first: bool) -> Result<(), NoRequest> {
        let limits = &self.worker.shared.settings.limits;
        let bounds = Limits {
            fields: limits.headers,
            bytes: limits.header_bytes,
        };
        if self.buffer.is_empty() {
            let patience = if is_first {
                limits.header_timeout
            } else {
                limits.keep_alive_timeout
            };
            self.wire.wait(&mut self.buffer, patience).await?;
        }
        let started = self.worker.timers.now();
        // A head that comes in drips is not parsed at each drip: when it may be whole, and when it has doubled.
        let (mut parsed, mut seen) = (0, 0);
        loop {
            let data = self.buffer.data();
            if is_first && data.starts_with(PREFACE) {
                return Err(NoRequest::Http2);
            }
            // A part of that start is no bad request yet.
            let may_be_http2 = is_first && PREFACE.starts_with(data);
            let may_be_whole = data.len() >= 2 * parsed
                || memchr::memmem::find(&data[seen..], b"\r\n\r\n").is_some();
            if !may_be_http2 && may_be_whole && !data.is_empty() {
                parsed = data.len();
                if let Some(length) = request.parse(data, bounds).map_err(refusal)? {
                    self.buffer.consume(length);
                    return Ok(());
                }
            }
            seen = data.len().saturating_sub(3);
            let waited = self.worker.timers.now().saturating_sub(started);
            let patience = limits.header_timeout.saturating_sub(waited);
            let largest = bounds.bytes + 1;
            match self.wire.fill(&mut self.buffer, largest, patience).await {
                Ok(0) if self.buffer.is_full(largest) => {
                    return Err(refusal(HeadError::TooLong));
                }
                Ok(0) => return Err(NoRequest::End),
                Ok(_) => {}
                Err(WireError::Silent) if !self.buffer.is_empty() => {
                    let detail = format!(
                        "the request's head did not arrive within {} ms",
                        limits.header_timeout
                    );
                    let problem =
                        Problem::new(StatusCode::REQUEST_TIMEOUT, "Request timeout", detail);
                    return Err(NoRequest::Refused(problem.and_close()));
                }
                Err(_) => return Err(NoRequest::End),
            }
        }
    }

    /// Answers a request. Whether the connection goes on.
    async fn answer(&mut self, request: &Request) -> bool {
        let limits = &self.worker.shared.settings.limits;
        let keeps_alive = request.keeps_alive() && !self.worker.timers.is_draining();
        let mut out = self.worker.outs.borrow_mut().pop().unwrap_or_default();
        let (goes_on, whole, is_cut) = {
            let mut client = Client::wire(
                &self.wire,
                &mut out,
                (request.is_http_10, keeps_alive),
                request.method_bytes() == b"HEAD",
                limits.progress_timeout,
            );
            let room = limits.header_bytes;
            let source = Source::wire(&self.wire, &mut self.buffer, request.framing, room)
                .awaited(request.expects_continue());
            let whole = handle(&self.worker, &self.peer, request, source, &mut client).await;
            let goes_on = client.has_ended && client.keeps_alive();
            (goes_on, whole, client.has_begun && !client.has_ended)
        };
        keep(&self.worker.outs, out);
        // Behind a response that broke off there must be no orderly end, which could be taken for its own.
        if !whole && !is_cut {
            self.linger().await;
        } else if !goes_on && !is_cut {
            self.close().await;
        }
        goes_on && whole
    }

    /// Says over TLS that this is an end and no cut (RFC 9112 §9.8). TCP says so when the connection is dropped.
    async fn close(&self) {
        if self.wire.is_tls()
            && let Err(error) = self.wire.shutdown(LINGER).await
        {
            tracing::debug!(?error, "a client has left before it was told of the end");
        }
    }

    /// Tells the client why it is not served, and ends the connection.
    async fn refuse(&mut self, problem: Problem) {
        let mut out = Vec::new();
        let patience = self.worker.shared.settings.limits.progress_timeout;
        let mut client = Client::wire(&self.wire, &mut out, (false, false), false, patience);
        if client.answer(problem.into_response()).await.is_ok() {
            self.linger().await;
        }
    }

    /// Ends our side, and drops what the client still sends.
    async fn linger(&mut self) {
        if self.wire.shutdown(LINGER).await.is_err() {
            return;
        }
        let started = self.worker.timers.now();
        let mut dropped = 0;
        while dropped < LINGER_BYTES {
            self.buffer.consume(usize::MAX / 2);
            let waited = self.worker.timers.now().saturating_sub(started);
            let patience = LINGER.saturating_sub(waited);
            match self
                .wire
                .fill(&mut self.buffer, super::wire::LARGEST, patience)
                .await
            {
                Ok(length @ 1..) if waited < LINGER => dropped += length,
                _ => return,
            }
        }
    }
}

/// What a client is told of a head that is not taken.
fn refusal(error: HeadError) -> NoRequest {
    let (status, title) = match error {
        HeadError::TooManyFields | HeadError::TooLong => (
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "Request header fields too large",
        ),
        HeadError::TargetTooLong => (StatusCode::URI_TOO_LONG, "URI too long"),
        HeadError::Version => (
            StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            "HTTP version not supported",
        ),
        _ => (StatusCode::BAD_REQUEST, "Bad request"),
    };
    NoRequest::Refused(Problem::new(status, title, error.to_string()).and_close())
}
