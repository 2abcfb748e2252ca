//! `pointsman.toml`: how the server runs. Every key may be left out; flags beat `POINTSMAN_*` variables, which beat the file.

mod fields;
mod read;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::engine::fold;
use crate::experiment::Endpoint;
use crate::experiment::upstream::UpstreamRule;
use crate::journal::Durability;

pub use fields::FIELDS;
pub use read::{from_environment, parse};

/// All settings, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `[listen]`
    pub listen: Listen,
    /// `[workers]`
    pub workers: Workers,
    /// `[data]`
    pub data: Data,
    /// `[auth]`
    pub auth: Auth,
    /// `[tls]`, if there is a certificate.
    pub tls: Option<Tls>,
    /// `[forwarding]`
    pub forwarding: Forwarding,
    /// `[default]`, if it has an `upstream`.
    pub default_upstream: Option<DefaultUpstream>,
    /// `[limits]`
    pub limits: Limits,
    /// `[reload]`
    pub reload: Reload,
    /// `[shutdown]`
    pub shutdown: Shutdown,
    /// `[take_over]`
    pub take_over: TakeOver,
}

/// Where the server listens.
#[derive(Debug, Clone)]
pub struct Listen {
    /// The data plane.
    pub proxy: SocketAddr,
    /// Metrics and the admin API.
    pub admin: SocketAddr,
    /// The reserved paths, if not on the data plane.
    pub api: Option<SocketAddr>,
}

/// Worker threads.
#[derive(Debug, Clone)]
pub struct Workers {
    /// 0: one per core.
    pub count: usize,
}

/// The data directory.
#[derive(Debug, Clone)]
pub struct Data {
    /// Journal, secret, lock.
    pub dir: PathBuf,
    /// Whether rewards wait for the disk.
    pub fsync: Durability,
    /// How far the journal reaches back, in milliseconds.
    pub retention: u64,
    /// Most bytes of the journal, as far as no window needs more; 0: no limit.
    pub retention_bytes: u64,
    /// When a segment is finished.
    pub segment_bytes: u64,
    /// Or at this age, in milliseconds.
    pub segment_age: u64,
    /// Least time between checkpoints, in milliseconds.
    pub checkpoint_every: u64,
}

/// Who may do what.
#[derive(Clone)]
pub struct Auth {
    /// The secret file, if not in the data directory.
    pub secret_file: Option<PathBuf>,
    /// What clients must send to reward and decide; empty: only this machine may.
    pub client_token: String,
    /// Whether anyone may reward and decide.
    pub open: bool,
    /// What guards the admin API; empty: nothing.
    pub admin_token: String,
}

impl std::fmt::Debug for Auth {
    /// Without the tokens: what is shown ends in logs.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Auth")
            .field("secret_file", &self.secret_file)
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}

impl Auth {
    /// The path of the secret file.
    pub fn secret_path(&self, data: &Path) -> PathBuf {
        self.secret_file
            .clone()
            .unwrap_or_else(|| data.join("secret"))
    }
}

/// TLS to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// PEM file of certificate and chain.
    pub certificate: PathBuf,
    /// PEM file of its key.
    pub key: PathBuf,
    /// PEM file of the authorities by which clients are verified; `None`: they are not asked.
    pub client_ca: Option<PathBuf>,
    /// With `client_ca`: whether a client must have a certificate.
    pub client_required: bool,
}

/// Where requests go that match no experiment.
#[derive(Debug, Clone, PartialEq)]
pub struct DefaultUpstream {
    /// The one endpoint.
    pub endpoint: Endpoint,
    /// How it is reached.
    pub rule: UpstreamRule,
}

/// What endpoints are told of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forwarding {
    /// What becomes of what the request says already.
    pub mode: ForwardingMode,
    /// Which headers say it.
    pub style: ForwardingStyle,
    /// Whether `Via` is added.
    pub via: bool,
}

/// What becomes of forwarding headers that a request has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardingMode {
    /// The client is added to them.
    Append,
    /// They are dropped first.
    Replace,
    /// They are passed on as they are, and nothing is added.
    Off,
}

/// Which headers tell of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardingStyle {
    /// `X-Forwarded-For`, `-Proto` and `-Host`.
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Forwarded,
    /// All of them.
    Both,
}

/// How a running process is replaced.
#[derive(Debug, Clone)]
pub struct TakeOver {
    /// The socket, if not in the data directory.
    pub socket: Option<PathBuf>,
}

impl TakeOver {
    /// The path of the socket.
    pub fn socket_path(&self, data: &Path) -> PathBuf {
        self.socket
            .clone()
            .unwrap_or_else(|| data.join("take-over.sock"))
    }
}

/// Bounds. Sizes in bytes, times in milliseconds.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Size of a policy file.
    pub policy_file: usize,
    /// Number of policy files.
    pub policy_files: usize,
    /// Arms of an experiment.
    pub arms: usize,
    /// Numbers that a context makes, the intercept included.
    pub features: usize,
    /// A unit's key.
    pub unit_key: usize,
    /// A request's body that is read because a value in it is asked for.
    pub buffered_body: usize,
    /// The copy of a response that a prediction is looked for in.
    pub label_response: usize,
    /// Predictions that are remembered until their label comes.
    pub predictions: usize,
    /// Contexts remembered, of each experiment.
    pub contexts: usize,
    /// Named secondary outcomes that are remembered to tell duplicates.
    pub metric_ids: usize,
    /// Clients' own keys of decisions, of each experiment.
    pub reward_keys: usize,
    /// How long a label waits for its prediction.
    pub label_wait: u64,
    /// The body of a post of rewards.
    pub reward_body: usize,
    /// Rewards in one post.
    pub reward_items: usize,
    /// Depth of JSON that clients send.
    pub json_depth: usize,
    /// Decisions and outcomes that wait for the journal, for each worker.
    pub journal_queue: usize,
    /// Open client connections.
    pub connections: usize,
    /// Requests in flight, of all workers.
    pub in_flight: usize,
    /// Bodies in memory, of all workers.
    pub buffered_bytes: usize,
    /// HTTP/2 streams of one client connection.
    pub streams: usize,
    /// Idle connections to one endpoint, for each worker.
    pub upstream_idle: usize,
    /// Headers of a request.
    pub headers: usize,
    /// Bytes of a request's head.
    pub header_bytes: usize,
    /// Headers of a response.
    pub response_headers: usize,
    /// Bytes of a response's head.
    pub response_header_bytes: usize,
    /// Time for a request's head.
    pub header_timeout: u64,
    /// Time for a request's body that is read whole.
    pub body_timeout: u64,
    /// How long a client's connection may be idle between requests.
    pub keep_alive_timeout: u64,
    /// How long a client may make no progress within a request or a response.
    pub progress_timeout: u64,
}

impl Limits {
    /// What the ledger may remember.
    pub fn remembered(&self) -> fold::Limits {
        let (predictions, label_wait) = (self.predictions, self.label_wait);
        fold::Limits {
            predictions,
            contexts: self.contexts,
            label_wait,
            metrics: self.metric_ids,
            keys: self.reward_keys,
        }
    }
}

/// How changed policies are noticed.
#[derive(Debug, Clone)]
pub struct Reload {
    /// How often the folder is read even if nothing was reported, in milliseconds.
    pub poll: u64,
}

/// How the server ends; milliseconds.
#[derive(Debug, Clone)]
pub struct Shutdown {
    /// From unready to no new connections.
    pub drain_delay: u64,
    /// How long open connections may take.
    pub drain_timeout: u64,
}
