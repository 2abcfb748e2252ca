//! Connections to the arms: a pool for each worker, so that no lock and no other thread is on the path.
//!
//! This is the one seam to the HTTP client. It is hyper's connection-level client, because the pooling client of hyper-util
//! takes locks, rebuilds URIs and re-sends requests by its own judgement. Not here: health checks and retries of requests
//! that may have been seen.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{HOST, HeaderValue};
use http::{Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::body::{RequestBody, Upload};
use super::shadow::Slots;
use crate::experiment::Endpoint;
use crate::experiment::id::ExperimentId;

/// Idle connections that a worker keeps for one endpoint.
const MAX_IDLE: usize = 256;

/// What all workers know of one endpoint.
#[derive(Debug)]
pub struct EndpointState {
    /// Where it is.
    pub endpoint: Endpoint,
    /// Its authority, for requests that came without a host (HTTP/1.0 has none).
    host: HeaderValue,
    /// Requests in flight from all workers.
    in_flight: AtomicUsize,
    /// Index into the workers' pools.
    index: usize,
}

/// The registry of what outlives reloads: the same address is the same endpoint, across arms and reloads.
#[derive(Debug, Default)]
pub struct Endpoints {
    states: Mutex<HashMap<Endpoint, Arc<EndpointState>>>,
    shadows: Mutex<HashMap<ExperimentId, Arc<Slots>>>,
}

impl Endpoints {
    /// The state of `endpoint`, new or known. Called when policies are compiled, not by requests.
    pub fn state(&self, endpoint: &Endpoint) -> Arc<EndpointState> {
        let mut known = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let index = known.len();
        let state = known.entry(endpoint.clone()).or_insert_with(|| {
            // An endpoint's host is plain ASCII, so the conversion always succeeds.
            let host = HeaderValue::from_str(&endpoint.to_string())
                .unwrap_or(HeaderValue::from_static("localhost"));
            Arc::new(EndpointState {
                endpoint: endpoint.clone(),
                host,
                in_flight: AtomicUsize::new(0),
                index,
            })
        });
        Arc::clone(state)
    }

    /// The slots of an experiment's shadows, new or known. Called when policies are compiled.
    pub fn shadow_slots(&self, experiment: ExperimentId) -> Arc<Slots> {
        let mut known = self.shadows.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.entry(experiment).or_default())
    }
}

/// One request in flight at an endpoint, until it is dropped.
#[derive(Debug)]
pub struct InFlight(Arc<EndpointState>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The endpoint with the fewest requests in flight; among equals the first from `start` on, so that ties rotate.
pub fn least_requests(endpoints: &[Arc<EndpointState>], start: u64) -> Option<InFlight> {
    let count = endpoints.len();
    let offset = if count > 1 {
        (start % count as u64) as usize
    } else {
        0
    };
    let least = (0..count)
        .map(|step| &endpoints[(offset + step) % count])
        .min_by_key(|endpoint| endpoint.in_flight.load(Ordering::Relaxed))?;
    least.in_flight.fetch_add(1, Ordering::Relaxed);
    Some(InFlight(Arc::clone(least)))
}

/// Why an arm did not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ForwardError {
    /// No connection: nothing was sent.
    #[error("could not connect to the arm")]
    Connect,
    /// No connection in time: nothing was sent.
    #[error("could not connect to the arm in time")]
    ConnectTimeout,
    /// No response head in time.
    #[error("the arm did not answer in time")]
    ResponseTimeout,
    /// The client's body broke off: not the arm's fault.
    #[error("the request's body was malformed or cut short")]
    Client,
    /// The client stopped sending: not the arm's fault.
    #[error("the request's body did not arrive in time")]
    ClientTimeout,
    /// The connection broke, or what came was no HTTP response.
    #[error("the arm's response was cut or malformed")]
    Broken,
}

impl ForwardError {
    /// Whether it says something about the client, and nothing about the arm.
    pub fn is_the_clients(self) -> bool {
        matches!(self, Self::Client | Self::ClientTimeout)
    }
}

/// A failed attempt. The request comes back when not a byte of it was sent.
#[derive(Debug)]
pub struct Failed {
    /// Why.
    pub error: ForwardError,
    /// The request, untouched.
    pub unsent: Option<Request<RequestBody>>,
}

/// How long an attempt may take.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// To connect.
    pub connect: Duration,
    /// From the end of the request's body to the response's head; also the longest silence within the body.
    pub response: Duration,
}

type Sender = SendRequest<RequestBody>;

#[derive(Debug)]
struct Idle {
    sender: Sender,
    /// Unused since the last sweep.
    marked: bool,
}

/// A worker's idle connections, by endpoint.
#[derive(Debug, Default)]
pub struct Pool(RefCell<Vec<Vec<Idle>>>);

/// A connection that is in use; it goes back to the pool when its request and its response have ended well.
#[derive(Debug)]
pub struct Lease {
    sender: Sender,
    pool: Rc<Pool>,
    /// An arm may answer before it has read the whole request. Until the rest is sent, nobody else can use the connection.
    upload: Rc<Upload>,
    /// Kept so that the endpoint's count falls when the lease does.
    in_flight: InFlight,
}

impl Lease {
    /// The response has been read to its end: the connection may serve again.
    pub fn give_back(self) {
        if self.sender.is_closed() || self.upload.since_end().is_none() {
            return;
        }
        let mut pool = self.pool.0.borrow_mut();
        let index = self.in_flight.0.index;
        if pool.len() <= index {
            pool.resize_with(index + 1, Vec::new);
        }
        if pool[index].len() < MAX_IDLE {
            pool[index].push(Idle {
                sender: self.sender,
                marked: false,
            });
        }
    }
}

impl Pool {
    /// Sends `request` to an endpoint and waits for the response's head.
    ///
    /// A pooled connection that the endpoint closed in the meantime is replaced without the client noticing, as long as
    /// not a byte of the request was written to it.
    pub async fn send(
        self: &Rc<Self>,
        in_flight: InFlight,
        mut request: Request<RequestBody>,
        timeouts: Timeouts,
    ) -> Result<(Response<Incoming>, Lease), Failed> {
        if !request.headers().contains_key(HOST) {
            request.headers_mut().insert(HOST, in_flight.0.host.clone());
        }
        let upload = match request.body() {
            RequestBody::Streamed(body, upload, _) if !body.is_end_stream() => Rc::clone(upload),
            _ => Rc::new(Upload::done()),
        };
        loop {
            let (mut sender, pooled) = match self.take(in_flight.0.index).await {
                Some(sender) => (sender, true),
                None => match connect(&in_flight.0.endpoint, timeouts.connect).await {
                    Ok(sender) => (sender, false),
                    Err(error) => {
                        return Err(Failed {
                            error,
                            unsent: Some(request),
                        });
                    }
                },
            };
            let sent = tokio::select! {
                biased;
                sent = sender.try_send_request(request) => sent,
                error = patience(&upload, timeouts.response) => return Err(Failed { error, unsent: None }),
            };
            match sent {
                Ok(response) => {
                    return Ok((
                        response,
                        Lease {
                            sender,
                            pool: Rc::clone(self),
                            upload,
                            in_flight,
                        },
                    ));
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) if pooled => request = unsent,
                    unsent => {
                        return Err(Failed {
                            error: ForwardError::Broken,
                            unsent,
                        });
                    }
                },
            }
        }
    }

    /// An idle connection that is ready: the one used last.
    async fn take(&self, index: usize) -> Option<Sender> {
        loop {
            let mut idle = self.0.borrow_mut().get_mut(index)?.pop()?;
            if idle.sender.is_ready()
                || (!idle.sender.is_closed() && idle.sender.ready().await.is_ok())
            {
                return Some(idle.sender);
            }
        }
    }

    /// Closes connections that no request used since the last sweep.
    pub fn sweep(&self) {
        for idle in self.0.borrow_mut().iter_mut() {
            idle.retain_mut(|connection| !std::mem::replace(&mut connection.marked, true));
        }
    }
}

/// Waits until patience has run out, and says with whom: with the arm when the request's body has ended that long ago, with
/// the client when it has sent nothing for that long.
async fn patience(upload: &Upload, limit: Duration) -> ForwardError {
    let mut rest = limit;
    let mut pieces = upload.pieces();
    loop {
        tokio::time::sleep(rest).await;
        rest = match upload.since_end() {
            Some(waited) if waited >= limit => return ForwardError::ResponseTimeout,
            Some(waited) => limit.saturating_sub(waited),
            None if upload.pieces() == pieces => return ForwardError::ClientTimeout,
            None => limit,
        };
        pieces = upload.pieces();
    }
}

async fn connect(endpoint: &Endpoint, limit: Duration) -> Result<Sender, ForwardError> {
    let attempt = async {
        let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port))
            .await
            .ok()?;
        // Streams of small events must not wait for an acknowledgement.
        stream.set_nodelay(true).ok()?;
        let mut builder = http1::Builder::new();
        builder.max_headers(MAX_RESPONSE_HEADERS);
        builder.handshake(TokioIo::new(stream)).await.ok()
    };
    match timeout(limit, attempt).await {
        Ok(Some((sender, connection))) => {
            tokio::task::spawn_local(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "connection to an endpoint ended");
                }
            });
            Ok(sender)
        }
        Ok(None) => Err(ForwardError::Connect),
        Err(_) => Err(ForwardError::ConnectTimeout),
    }
}

/// More headers than this in a response are an error.
const MAX_RESPONSE_HEADERS: usize = 256;
