//! One worker: a thread with its own runtime, its own listener on the shared port, its own upstream connections and its own counter.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use arc_swap::cache::Cache;
use http::StatusCode;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::connection::serve;
use super::headers::Origin;
use super::pass_through::PassThrough;
use super::problem::Problem;
use super::router::Router;
use super::timer::Timers;
use super::tls::ServerTls;
use super::upstream::Pool;
use super::wire::Buffers;
use crate::chance::DrawKeys;
use crate::clock::{Clock, Stopwatch, Timestamp};
use crate::config::settings::Settings;
use crate::decision_id::{DecisionId, Keys};
use crate::engine::contextual::Workspace;
use crate::engine::event::Event;
use crate::experiment::decision::LoggedDecision;
use crate::experiment::id::SequenceKey;
use crate::http1::head::{Request, Response};
use crate::learner::Published;
use crate::ledger::{Handle, Recorder};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::observe::Telemetry;

/// How far the process is into its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Ready.
    Serving,
    /// Told to stop, but still accepting: load balancers need time to notice.
    Unready,
    /// No new connections; those that are open finish their request.
    Draining,
    /// Open connections are cut.
    Cut,
}

/// What a listener is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Requests and the reserved paths.
    Everything,
    /// Requests only: `listen.api` has the reserved paths.
    Requests,
    /// The reserved paths only.
    Api,
}

/// What all workers share; nothing in it is written on the request path but atomics.
#[derive(Debug)]
pub struct Shared {
    /// The settings.
    pub settings: Settings,
    /// Keys of the decision ids.
    pub keys: Keys,
    /// Keys of the draws.
    pub draw_keys: DrawKeys,
    /// The random number of this process start.
    pub origin: u64,
    /// What serves.
    pub published: Arc<ArcSwap<Published<Router>>>,
    /// Takes rewards.
    pub ledger: Handle,
    /// Whether the journal can be written, among other things.
    pub telemetry: Arc<Telemetry>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Open client connections of all workers.
    pub connections: AtomicUsize,
    /// Requests in flight of all workers.
    pub in_flight: AtomicUsize,
    /// Bytes of bodies that all workers hold in memory.
    pub buffered: AtomicUsize,
    /// TLS to clients, if the listener speaks it.
    pub tls: Option<Arc<ServerTls>>,
    /// Where requests go that match no experiment; `None`: they are not found.
    pub default: Option<PassThrough>,
    /// When time-outs began to be counted.
    pub started: Stopwatch,
    /// The phase, watched by every connection.
    pub phase: watch::Receiver<Phase>,
}

/// Saves the atomic operations of a load as long as nothing new was published.
type PublishedCache = Cache<Arc<ArcSwap<Published<Router>>>, Arc<Published<Router>>>;

/// One worker's own state. It never leaves its thread.
pub struct Worker {
    /// What all workers share.
    pub shared: Arc<Shared>,
    /// Idle upstream connections.
    pub pool: Pool,
    /// Those of shadows, apart, so that a shadow costs no client its connection.
    pub shadows: Pool,
    /// Time-outs.
    pub timers: Rc<Timers>,
    /// Buffers that are not in use.
    pub buffers: Rc<Buffers>,
    /// Room for heads of requests that is not in use.
    pub(super) requests: RefCell<Vec<Request>>,
    /// Room for heads of responses that is not in use.
    pub(super) responses: RefCell<Vec<Response>>,
    /// Room for what is written that is not in use.
    pub(super) outs: RefCell<Vec<Vec<u8>>>,
    index: u16,
    counter: Cell<u64>,
    recorder: Recorder,
    /// Room for draws that look at a context.
    pub(super) workspace: RefCell<Workspace>,
    published: RefCell<PublishedCache>,
    unmatched: metrics::Counter,
    dropped: metrics::Counter,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Worker")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

impl Worker {
    /// `None` for an index beyond the number of workers that the ledger was started for.
    fn new(shared: Arc<Shared>, index: u16) -> Option<Self> {
        let timers = Rc::new(Timers::new(shared.started));
        let buffers = Rc::<Buffers>::default();
        Some(Self {
            pool: Pool::new(&timers, &buffers),
            shadows: Pool::new(&timers, &buffers),
            timers,
            buffers,
            requests: RefCell::default(),
            responses: RefCell::default(),
            outs: RefCell::default(),
            index,
            counter: Cell::new(0),
            recorder: shared.ledger.recorder(index)?,
            workspace: RefCell::default(),
            published: RefCell::new(Cache::new(Arc::clone(&shared.published))),
            unmatched: shared.metrics.counter("pointsman_unmatched_total", &[]),
            dropped: shared
                .metrics
                .counter("pointsman_journal_dropped_total", &[]),
            shared,
        })
    }

    /// What serves now. A request asks once.
    pub fn published(&self) -> Arc<Published<Router>> {
        Arc::clone(self.published.borrow_mut().load())
    }

    /// The next sequence key of this worker.
    pub fn next_sequence(&self) -> SequenceKey {
        let counter = self.counter.get();
        self.counter.set(counter + 1);
        SequenceKey {
            origin: self.shared.origin,
            worker: self.index,
            counter,
        }
    }

    /// The wall-clock time.
    pub fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    /// Offers an event to the journal; what its full queue cannot take is counted.
    pub fn record(&self, event: Event) {
        if !self.recorder.offer(event) {
            self.dropped.increment(1);
        }
    }

    /// As [`Self::record`], for a decision that `id` was signed for.
    pub fn record_signed(&self, decision: LoggedDecision, id: DecisionId) {
        if !self.recorder.offer_signed(decision, id) {
            self.dropped.increment(1);
        }
    }

    /// A key for a unit that has none: unique, and the same nowhere else.
    pub fn new_unit_key(&self) -> String {
        let sequence = self.next_sequence();
        format!(
            "{:016x}{:04x}{:012x}",
            sequence.origin, sequence.worker, sequence.counter
        )
    }

    /// The answer to a request that belongs to no experiment.
    pub fn unmatched(&self) -> Problem {
        self.unmatched.increment(1);
        Problem::new(
            StatusCode::NOT_FOUND,
            "Not found",
            "no experiment matches this request",
        )
    }
}

/// Connections that the kernel may hold until they are accepted.
pub const BACKLOG: i32 = 4096;

/// Binds `address` so that every worker can listen on it. It does not listen yet: nobody may connect before the state is recovered.
pub fn bind(address: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Runs worker `index` on its sockets until it is drained. Call on a thread of its own.
pub fn run(shared: Arc<Shared>, index: u16, sockets: Vec<(Socket, Role)>) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())?;
    runtime.block_on(async move {
        let worker = Worker::new(shared, index)
            .ok_or_else(|| std::io::Error::other("there is no journal queue for this worker"))?;
        let worker = Rc::new(worker);
        let upkeep = [
            tokio::task::spawn_local(sweep(Rc::clone(&worker))),
            tokio::task::spawn_local(tick(Rc::clone(&worker))),
            tokio::task::spawn_local(drain(Rc::clone(&worker))),
        ];
        let mut listeners = JoinSet::new();
        for (socket, role) in sockets {
            let (worker, listener) = (Rc::clone(&worker), TcpListener::from_std(socket.into())?);
            listeners.spawn_local(async move { accept(&worker, listener, role).await });
        }
        while listeners.join_next().await.is_some() {}
        upkeep.iter().for_each(tokio::task::JoinHandle::abort);
        Ok(())
    })
}

async fn sweep(worker: Rc<Worker>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(15));
    loop {
        ticks.tick().await;
        worker.pool.sweep();
        worker.shadows.sweep();
    }
}

async fn tick(worker: Rc<Worker>) {
    worker.timers.run().await;
}

/// Has idle connections end soon when the process drains.
async fn drain(worker: Rc<Worker>) {
    let mut phase = worker.shared.phase.clone();
    if phase
        .wait_for(|phase| *phase >= Phase::Draining)
        .await
        .is_ok()
    {
        worker.timers.drain();
    }
}

/// Accepts until the process drains, then waits for open connections, at most `drain_timeout`.
async fn accept(worker: &Rc<Worker>, listener: TcpListener, role: Role) {
    let mut phase = worker.shared.phase.clone();
    let mut connections = JoinSet::new();
    let limit = worker.shared.settings.limits.connections;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let slot = Slot::take(&worker.shared);
                    if slot.number < limit {
                        connections.spawn_local(serve(Rc::clone(worker), stream, (peer, role), slot));
                    }
                }
                // Out of descriptors, most likely: the queue keeps the client, a pause keeps the core.
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            _ = connections.join_next(), if !connections.is_empty() => {}
            _ = phase.wait_for(|phase| *phase >= Phase::Draining) => break,
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    let limit = Duration::from_millis(worker.shared.settings.shutdown.drain_timeout);
    let patience = async {
        tokio::select! {
            () = tokio::time::sleep(limit) => {}
            _ = phase.wait_for(|phase| *phase == Phase::Cut) => {}
        }
    };
    tokio::select! {
        () = all => {}
        () = patience => tracing::warn!(worker = worker.index, "open connections are cut"),
    }
}

/// Who is at the other end of a connection, and at which of our ends.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The client's address.
    pub address: SocketAddr,
    /// What the listener is for.
    pub role: Role,
    /// Who endpoints are told that the client is.
    pub origin: Origin,
}

/// A place among the open connections.
pub(super) struct Slot {
    shared: Arc<Shared>,
    number: usize,
}

impl Slot {
    fn take(shared: &Arc<Shared>) -> Self {
        let number = shared.connections.fetch_add(1, Ordering::Relaxed);
        Self {
            shared: Arc::clone(shared),
            number,
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.shared.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
