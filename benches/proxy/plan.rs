//! What a load generator is told to do and what it tells when it is done: JSON on its command line and on its standard output.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// How requests follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) enum Mode {
    /// So many requests; each connection sends its next one when it has the answer.
    Count(u64),
    /// The same, for so many seconds after the warm-up.
    Closed(f64),
    /// Poisson arrivals, whatever becomes of earlier requests; latencies count from the instant at which a request was due.
    Open { rate: f64, seconds: f64 },
    /// One request on each connection, then silence until standard input ends.
    Idle,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Load {
    Small,
    Big,
    Events,
    /// Of a hundred: 80 small, 8 rewards for them, 6 big, 4 chunked uploads of 16 KiB, 2 short event streams.
    Mixed,
}

/// One run of the generator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) address: SocketAddr,
    pub(crate) connections: usize,
    pub(crate) load: Load,
    pub(crate) mode: Mode,
    /// Seconds before anything is measured.
    pub(crate) warm: f64,
    /// Processes whose CPU time is read at both ends of the measured window.
    pub(crate) watch: Vec<u32>,
}

/// Quantiles in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Quantiles {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl Quantiles {
    /// Of nanoseconds, which it sorts.
    pub(crate) fn of(nanoseconds: &mut [u64]) -> Self {
        if nanoseconds.is_empty() {
            return Self::default();
        }
        nanoseconds.sort_unstable();
        let at = |share: usize| nanoseconds[(nanoseconds.len() - 1) * share / 100] as f64 / 1e3;
        Self {
            p50: at(50),
            p99: at(99),
        }
    }
}

/// What a run measured.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) requests: u64,
    pub(crate) errors: u64,
    /// Idle connections that the other end closed.
    pub(crate) reconnects: u64,
    pub(crate) seconds: f64,
    /// Of whole requests; of event streams: of each event, from its stamp.
    pub(crate) latency: Quantiles,
    /// From a request for events to the first of them.
    pub(crate) first: Quantiles,
    /// CPU time of the watched processes, in microseconds.
    pub(crate) cpu: f64,
    /// The first thing that went wrong.
    pub(crate) complaint: Option<String>,
}

impl Outcome {
    /// Microseconds of the watched processes for each request.
    pub(crate) fn cpu_per_request(&self) -> f64 {
        self.cpu / self.requests.max(1) as f64
    }

    pub(crate) fn rate(&self) -> f64 {
        self.requests as f64 / self.seconds
    }
}
