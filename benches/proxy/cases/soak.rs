//! Millions of mixed requests: small ones, rewards for them, 64 KiB answers, chunked uploads, short event streams. No error may occur, and
//! memory must not grow.

use std::time::Duration;

use clap::Args;
use pointsman::clock::Stopwatch;

use super::check;
use crate::bench::{Loading, Upstream, plan};
use crate::figures::median;
use crate::peers::{Kind, Peer, Start};
use crate::plan::{Load, Mode, Outcome};
use crate::process::memory;
use crate::report::{Cell, Report};

/// Many requests of all kinds.
#[derive(Debug, Clone, Args)]
pub(crate) struct Soak {
    /// Requests, 100 million at most.
    #[arg(long, default_value_t = 10_000_000)]
    requests: u64,
    /// It is given up after so many minutes, 240 at most.
    #[arg(long, default_value_t = 120)]
    minutes: u64,
}

pub(crate) fn measure(start: &Start, arguments: &Soak) -> anyhow::Result<Report> {
    let upstream = Upstream::start(&start.cores)?;
    let mut peer = Peer::start(Kind::Pointsman, start, upstream.addresses)?;
    let family = peer.family();
    let requests = arguments.requests.clamp(1, 100_000_000);
    let mut plan = plan(
        peer.address,
        Load::Mixed,
        Mode::Count(requests),
        family.clone(),
    );
    plan.warm = 0.0;
    let longest = Duration::from_secs(arguments.minutes.min(240) * 60);
    let watch = Stopwatch::start();
    let mut loading = Loading::start(&start.cores, &plan)?;
    let mut resident = Vec::new();
    while !loading.has_ended() && !peer.running.has_ended() && watch.elapsed() < longest {
        std::thread::sleep(Duration::from_millis(500));
        resident.push(memory(&family).resident / 1024.0);
    }
    anyhow::ensure!(watch.elapsed() < longest, "it took too long");
    anyhow::ensure!(!peer.running.has_ended(), "the proxy ended");
    let (outcome, _) = loading.finish()?;
    let mut report = Report::new(
        "Mixed requests, and resident memory in MiB over the run",
        &[
            "requests",
            "errors",
            "minutes",
            "CPU µs/request",
            "first half median",
            "second half median",
            "first half most",
            "second half most",
            "at the end",
        ],
    );
    check(&mut report, "pointsman", &outcome);
    report.rows.push(row(&outcome, &resident));
    Ok(report)
}

fn row(outcome: &Outcome, resident: &[f64]) -> Vec<Cell> {
    let (first, second) = resident.split_at(resident.len() / 2);
    let most = |samples: &[f64]| samples.iter().copied().fold(0.0, f64::max);
    vec![
        Cell::Number(outcome.requests as f64, 0),
        Cell::Number(outcome.errors as f64, 0),
        Cell::Number(outcome.seconds / 60.0, 1),
        Cell::Number(outcome.cpu_per_request(), 1),
        Cell::Number(median(first), 1),
        Cell::Number(median(second), 1),
        Cell::Number(most(first), 1),
        Cell::Number(most(second), 1),
        Cell::Number(resident.last().copied().unwrap_or(0.0), 1),
    ]
}
