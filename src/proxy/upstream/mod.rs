//! Connections to the arms' endpoints: what all workers know of an endpoint, and a pool for each worker, so that no lock and no other
//! thread is on the path.
//!
//! [`relay`] carries one request and its response over a connection. Not here: which endpoint, and whether a request is tried
//! again ([`super::forward`]).

mod over_http2;
mod registry;
pub mod relay;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub use registry::{ArmLoad, Endpoints};

use super::channel::ChannelBody;
use super::endpoint::{self, Choice, Complaints, Standing};
use super::stream::Stream;
use super::timer::Timers;
use super::tls::{ClientTls, negotiated_http2};
use super::wire::{Buffer, Buffers, Wire};
use crate::experiment::Endpoint;
use crate::experiment::upstream::{Protocol, Scheme};

/// Room for what is to be written that an idle connection keeps.
const KEPT_ROOM: usize = 4 << 10;

/// What all workers know of one endpoint.
#[derive(Debug)]
pub struct EndpointState {
    /// Where it is.
    pub endpoint: Endpoint,
    /// What is spoken with it.
    pub protocol: Protocol,
    /// How it is verified, where it is reached over TLS.
    tls: Option<Arc<ClientTls>>,
    /// Its authority.
    pub authority: String,
    /// Requests in flight from all workers.
    in_flight: AtomicUsize,
    /// Whether it may get requests.
    pub standing: Standing,
    /// When it was last probed.
    pub(super) probed: AtomicU64,
    /// Connections that are being opened.
    opening: AtomicUsize,
    /// Connections that could not be opened.
    complaints: Complaints,
    /// Index into the workers' pools.
    index: usize,
}

impl EndpointState {
    /// Says in the log why no connection could be made, but not each time: an endpoint that is down fails as often as it is asked.
    pub(super) fn complain(&self, now: u64, reason: &impl std::fmt::Display) {
        if let Some(failures) = self.complaints.next(now) {
            tracing::warn!(endpoint = %self.authority, %reason, failures, "could not connect to an endpoint");
        }
    }
}

/// One of a bounded number of places, until it is dropped.
#[derive(Debug)]
pub struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    /// A place among `limit`; 0: any number.
    pub fn take(taken: &'a AtomicUsize, limit: usize) -> Option<Self> {
        let before = taken.fetch_add(1, Ordering::Relaxed);
        let place = Self(taken);
        (limit == 0 || before < limit).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes of a bounded number, until it is dropped.
#[derive(Debug)]
pub struct Reserved<'a>(&'a AtomicUsize, usize);

impl<'a> Reserved<'a> {
    /// So many bytes of `limit`.
    pub fn take(taken: &'a AtomicUsize, bytes: usize, limit: usize) -> Option<Self> {
        let before = taken.fetch_add(bytes, Ordering::Relaxed);
        let reserved = Self(taken, bytes);
        (before + bytes <= limit).then_some(reserved)
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

/// One request in flight at an endpoint, until it is dropped.
#[derive(Debug)]
pub struct InFlight<'a> {
    /// Where.
    pub state: &'a EndpointState,
    _place: Place<'a>,
}

/// The available endpoint with the fewest requests in flight for its weight; ties rotate from `start`. `desperate`: if none is available,
/// any of them.
pub fn choose(
    endpoints: &[Arc<EndpointState>],
    start: u64,
    (now, slow_start): (u64, u64),
    desperate: bool,
) -> Option<InFlight<'_>> {
    let chosen = if let [only] = endpoints {
        only.standing.is_available(now).then_some(0)
    } else {
        let choices = endpoints.iter().map(|state| Choice {
            in_flight: state.in_flight.load(Ordering::Relaxed) as u32,
            available: state.standing.is_available(now),
            weight: state.standing.weight(now, slow_start),
        });
        endpoint::choose(choices, start as usize)
    };
    let any = (start % endpoints.len().max(1) as u64) as usize;
    let state = endpoints.get(chosen.or(desperate.then_some(any))?)?;
    let place = Place::take(&state.in_flight, 0)?;
    Some(InFlight {
        state,
        _place: place,
    })
}

/// Why an arm, or the default upstream, did not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ForwardError {
    /// It has no endpoint that could be tried.
    #[error("there is no endpoint that is available")]
    Unavailable,
    /// It has as much to do as it may.
    #[error("as many requests are in flight to these endpoints as may be")]
    Overloaded,
    /// No connection: nothing was sent.
    #[error("could not connect to an endpoint")]
    Connect,
    /// No connection in time: nothing was sent.
    #[error("could not connect to an endpoint in time")]
    ConnectTimeout,
    /// No response head in time.
    #[error("the endpoint did not answer in time")]
    ResponseTimeout,
    /// The whole exchange took too long.
    #[error("the exchange with the endpoint took too long")]
    TotalTimeout,
    /// The connection ended before a byte of the response.
    #[error("the endpoint closed the connection without an answer")]
    Closed,
    /// A connection that had been idle ended in place of an answer: most likely the endpoint had closed it before it saw the request.
    #[error("the endpoint closed an idle connection as it was used")]
    Stale,
    /// The endpoint turned the request away, and says that it has not processed it.
    #[error("the endpoint refused the request")]
    Refused,
    /// Like [`Self::Refused`], because the connection, which had served before, ends: nothing but its age is to blame.
    #[error("the endpoint was ending the connection")]
    Leaving,
    /// The connection broke, or what came was no HTTP response.
    #[error("the endpoint's response was cut or malformed")]
    Broken,
    /// A status after which the request is tried again.
    #[error("the endpoint answered {0}")]
    Status(u16),
    /// The client's body broke off: not the arm's fault.
    #[error("the request's body was malformed or cut short")]
    Client,
    /// The client stopped sending, or taking: not the arm's fault.
    #[error("the request's body did not arrive in time")]
    ClientTimeout,
    /// The client has left.
    #[error("the client has left")]
    Gone,
}

impl ForwardError {
    /// Whether it says something about the client, and nothing about the arm.
    pub fn is_the_clients(self) -> bool {
        matches!(self, Self::Client | Self::ClientTimeout | Self::Gone)
    }

    /// Whether the endpoint can have made nothing of the request: nothing has reached it, or it says so.
    pub fn sent_nothing(self) -> bool {
        matches!(
            self,
            Self::Unavailable
                | Self::Overloaded
                | Self::Connect
                | Self::ConnectTimeout
                | Self::Refused
                | Self::Leaving
        )
    }

    /// Whether it says that a connection was too old, and nothing about the endpoint.
    pub fn is_stale(self) -> bool {
        matches!(self, Self::Stale | Self::Leaving)
    }
}

/// An HTTP/1.1 connection to an endpoint.
#[derive(Debug)]
pub struct Connection {
    /// Its bytes.
    pub wire: Wire,
    /// What was read of it.
    pub buffer: Buffer,
    /// Room for what is to be written.
    pub out: Vec<u8>,
    /// Whether it has served a request before.
    pub is_reused: bool,
    /// Unused since the last sweep.
    marked: bool,
}

/// A way to an endpoint.
#[derive(Debug)]
pub enum Link {
    /// One exchange at a time.
    Wire(Box<Connection>),
    /// A stream of an HTTP/2 connection, and whether that has served a request before.
    Stream(SendRequest<ChannelBody>, bool),
}

impl Link {
    /// Whether the connection has served a request before.
    pub fn is_reused(&self) -> bool {
        match self {
            Self::Wire(connection) => connection.is_reused,
            Self::Stream(_, is_reused) => *is_reused,
        }
    }
}

/// How connections are opened and kept.
#[derive(Debug, Clone, Copy)]
pub struct Opening {
    /// Milliseconds to connect.
    pub timeout: u64,
    /// Connections to one endpoint that may be opening at a time.
    pub pending: usize,
    /// Idle connections kept for each endpoint.
    pub idle: usize,
}

#[derive(Debug, Default)]
#[expect(
    clippy::vec_box,
    reason = "a connection moves between here and its exchange at each request"
)]
struct Kept {
    idle: Vec<Box<Connection>>,
    stream: Option<SendRequest<ChannelBody>>,
    /// No stream was begun on it since the last sweep.
    is_unused: bool,
}

/// A worker's connections, by endpoint.
#[derive(Debug)]
pub struct Pool {
    kept: RefCell<Vec<Kept>>,
    timers: Rc<Timers>,
    buffers: Rc<Buffers>,
}

impl Pool {
    /// An empty one.
    pub fn new(timers: &Rc<Timers>, buffers: &Rc<Buffers>) -> Self {
        Self {
            kept: RefCell::default(),
            timers: Rc::clone(timers),
            buffers: Rc::clone(buffers),
        }
    }

    /// A connection to the endpoint: an idle one that it has not closed, or a new one.
    ///
    /// # Errors
    ///
    /// Those that say that nothing was sent.
    pub async fn acquire(
        &self,
        state: &EndpointState,
        opening: Opening,
    ) -> Result<Link, ForwardError> {
        if let Some(link) = self.take(state.index) {
            return Ok(link);
        }
        let Some(_place) = Place::take(&state.opening, opening.pending) else {
            return Err(ForwardError::Overloaded);
        };
        let opened = self.open(state, state.protocol);
        let link = match timeout(Duration::from_millis(opening.timeout), opened).await {
            Ok(Ok(link)) => link,
            Ok(Err(error)) => {
                state.complain(self.timers.now(), &error);
                return Err(ForwardError::Connect);
            }
            Err(_) => {
                let reason = format!("not within connect_timeout, {} ms", opening.timeout);
                state.complain(self.timers.now(), &reason);
                return Err(ForwardError::ConnectTimeout);
            }
        };
        if let Link::Stream(sender, _) = &link {
            let mut kept = self.kept.borrow_mut();
            let kept = place(&mut kept, state.index);
            (kept.stream, kept.is_unused) = (Some(sender.clone()), false);
        }
        Ok(link)
    }

    fn take(&self, index: usize) -> Option<Link> {
        let mut kept = self.kept.borrow_mut();
        let kept = kept.get_mut(index)?;
        if let Some(sender) = &kept.stream {
            if !sender.is_closed() {
                kept.is_unused = false;
                return Some(Link::Stream(sender.clone(), true));
            }
            kept.stream = None;
        }
        while let Some(connection) = kept.idle.pop() {
            if connection.wire.is_quiet() {
                return Some(Link::Wire(connection));
            }
        }
        None
    }

    /// A new connection that nobody else uses, speaking `protocol`.
    ///
    /// # Errors
    ///
    /// Those of the network.
    pub async fn open(&self, state: &EndpointState, protocol: Protocol) -> std::io::Result<Link> {
        let endpoint = &state.endpoint;
        let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?;
        stream.set_nodelay(true)?;
        let (stream, is_http2) = match endpoint.scheme {
            Scheme::Http => (Stream::Tcp(stream), protocol == Protocol::Http2),
            Scheme::Https => {
                let tls = state.tls.as_ref().ok_or(std::io::ErrorKind::Unsupported)?;
                let stream = tls.connect(stream, &endpoint.host).await?;
                let is_http2 = negotiated_http2(&stream);
                (Stream::Endpoint(Box::new(stream)), is_http2)
            }
        };
        if is_http2 {
            let sender = self.handshake(stream).await?;
            return Ok(Link::Stream(sender, false));
        }
        Ok(Link::Wire(Box::new(Connection {
            wire: Wire::new(stream, &self.timers),
            buffer: Buffer::new(&self.buffers),
            out: Vec::new(),
            is_reused: false,
            marked: false,
        })))
    }

    async fn handshake(&self, stream: Stream) -> std::io::Result<SendRequest<ChannelBody>> {
        let mut builder = http2::Builder::new(LocalExecutor);
        builder
            .timer(TokioTimer::new())
            .adaptive_window(true)
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10));
        let (sender, connection) = builder
            .handshake(TokioIo::new(stream))
            .await
            .map_err(std::io::Error::other)?;
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an HTTP/2 connection to an endpoint ended");
            }
        });
        Ok(sender)
    }

    /// Keeps a connection whose request and response have ended well.
    pub fn give_back(&self, state: &EndpointState, mut connection: Box<Connection>, limit: usize) {
        // What came unasked cannot be told from the next answer.
        if !connection.buffer.is_empty() {
            return;
        }
        connection.buffer.release();
        if connection.out.capacity() > KEPT_ROOM {
            connection.out = Vec::new();
        }
        connection.is_reused = true;
        connection.marked = false;
        let mut kept = self.kept.borrow_mut();
        let idle = &mut place(&mut kept, state.index).idle;
        if idle.len() < limit {
            idle.push(connection);
        }
    }

    /// Lets go of the HTTP/2 connection to an endpoint that is ending it.
    pub fn leave(&self, state: &EndpointState) {
        if let Some(kept) = self.kept.borrow_mut().get_mut(state.index) {
            kept.stream = None;
        }
    }

    /// Closes connections that no request used since the last sweep. Streams that are open are not cut.
    pub fn sweep(&self) {
        for kept in self.kept.borrow_mut().iter_mut() {
            if std::mem::replace(&mut kept.is_unused, true) {
                kept.stream = None;
            }
            kept.idle.retain_mut(|connection| {
                !std::mem::replace(&mut connection.marked, true) && connection.wire.is_quiet()
            });
        }
    }
}

fn place(kept: &mut Vec<Kept>, index: usize) -> &mut Kept {
    if kept.len() <= index {
        kept.resize_with(index + 1, Kept::default);
    }
    &mut kept[index]
}

/// Has hyper's futures run on the worker that they belong to.
#[derive(Debug, Clone, Copy)]
pub struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

#[cfg(test)]
mod tests {
    use hyper_util::rt::TokioExecutor;
    use tokio::net::TcpListener;
    use tokio::task::LocalSet;

    use super::*;
    use crate::clock::Stopwatch;
    use crate::experiment::upstream::UpstreamRule;

    /// Serves one HTTP/2 connection to its end.
    async fn serve(listener: TcpListener) {
        let (stream, _) = listener.accept().await.unwrap();
        let service = hyper::service::service_fn(|_| async {
            Ok::<_, std::io::Error>(http::Response::new(String::new()))
        });
        // That it ends is what matters; our goodbye may cross the other's.
        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service)
            .await
            .ok();
    }

    #[tokio::test]
    async fn an_http2_connection_that_nobody_uses_is_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint {
            scheme: Scheme::Http,
            host: "127.0.0.1".to_owned(),
            port: listener.local_addr().unwrap().port(),
        };
        let endpoints = Endpoints::default();
        let rule = UpstreamRule::default();
        let state = endpoints.state(&endpoint, Protocol::Http2, &rule).unwrap();
        let timers = Rc::new(Timers::new(Stopwatch::start()));
        let pool = Pool::new(&timers, &Rc::default());
        let opening = Opening {
            timeout: 10_000,
            pending: 1,
            idle: 1,
        };
        let used = async {
            for _ in 0..3 {
                let link = pool.acquire(&state, opening).await.unwrap();
                assert!(matches!(link, Link::Stream(..)));
                // Only one connection is accepted, so this is the same each time.
                pool.sweep();
            }
            assert!(pool.kept.borrow()[state.index].stream.is_some());
            pool.sweep();
            assert!(pool.kept.borrow()[state.index].stream.is_none());
        };
        let both = async { tokio::join!(serve(listener), used) };
        let all = LocalSet::new();
        tokio::time::timeout(Duration::from_secs(20), all.run_until(both))
            .await
            .unwrap();
    }
}
