//! Pointsman beside itself: a thousand experiments beside one, and two workers beside one.

use anyhow::ensure;
use clap::Args;

use super::check;
use super::instructions;
use crate::bench::{Upstream, load, plan};
use crate::figures::{interval, median};
use crate::peers::{Kind, Peer, Start};
use crate::plan::{Load, Mode};
use crate::process::{Cores, cores};
use crate::report::{Cell, Report};

/// Many experiments beside one.
#[derive(Debug, Clone, Args)]
pub(crate) struct Experiments {
    /// How many, 1,000 at most.
    #[arg(long = "experiments", default_value_t = 1_000)]
    many: usize,
    /// Requests of the shorter run.
    #[arg(long, default_value_t = 2_000)]
    fewer: u64,
    /// Requests of the longer run.
    #[arg(long, default_value_t = 10_000)]
    more: u64,
}

/// Instructions of the worker thread are what a request costs; all threads also do what they do at intervals for every experiment, which
/// counts for more under valgrind, where a second holds fewer requests.
pub(crate) fn experiments(start: &Start, arguments: &Experiments) -> anyhow::Result<Report> {
    let mut report = Report::new(
        "User instructions per request (callgrind) by the number of experiments",
        &["experiments", "worker", "ratio", "all threads"],
    );
    let mut first = None;
    for experiments in [1, arguments.many.clamp(1, 1_000)] {
        let mut start = start.clone();
        start.experiments = experiments;
        let counted = instructions::count(&start, arguments.fewer, arguments.more)?;
        let first = *first.get_or_insert(counted.worker);
        report.rows.push(vec![
            Cell::Number(experiments as f64, 0),
            Cell::Number(counted.worker, 0),
            Cell::Number(counted.worker / first, 3),
            Cell::Number(counted.all, 0),
        ]);
    }
    Ok(report)
}

/// Two workers beside one.
#[derive(Debug, Clone, Args)]
pub(crate) struct Workers {
    /// Rounds, 100 at most.
    #[arg(long, default_value_t = 8)]
    rounds: usize,
    /// Seconds of a burst, 10 at most.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Measure with fewer than four cores, too, where it says nothing: the generator then takes what the second worker would need.
    #[arg(long)]
    anyway: bool,
}

/// Two cores for the proxy and the others for the rest.
fn two_cores() -> Cores {
    if cores() < 4 {
        return Cores::default();
    }
    Cores {
        proxy: Some("0,1".to_owned()),
        rest: Some(format!("2-{}", cores() - 1)),
    }
}

pub(crate) fn workers(start: &Start, arguments: &Workers) -> anyhow::Result<Report> {
    ensure!(
        cores() >= 4 || arguments.anyway,
        "two workers, the upstream and the load generator need four cores, and here are {}; --anyway measures all the same",
        cores()
    );
    let mut start = start.clone();
    start.cores = two_cores();
    let upstream = Upstream::start(&start.cores)?;
    let mut peers = Vec::new();
    for workers in [1, 2] {
        start.workers = workers;
        peers.push(Peer::start(Kind::Pointsman, &start, upstream.addresses)?);
    }
    let mut report = Report::new(
        "Requests a second with two workers and with one, saturated",
        &["one worker", "two workers", "ratio", "low", "high"],
    );
    let (mut rates, mut ratios) = ([Vec::new(), Vec::new()], Vec::new());
    for _ in 0..arguments.rounds.min(100) {
        for (peer, rates) in peers.iter().zip(&mut rates) {
            let mode = Mode::Closed(arguments.seconds.clamp(0.05, 10.0));
            let outcome = load(
                &start.cores,
                &plan(peer.address, Load::Small, mode, peer.family()),
            )?;
            check(&mut report, peer.kind.name(), &outcome);
            rates.push(outcome.rate());
        }
        ratios.extend(
            rates[1]
                .last()
                .zip(rates[0].last())
                .map(|(two, one)| two / one),
        );
    }
    let (low, high) = interval(&ratios);
    report.rows.push(vec![
        Cell::Number(median(&rates[0]), 0),
        Cell::Number(median(&rates[1]), 0),
        Cell::Number(median(&ratios), 2),
        Cell::Number(low, 2),
        Cell::Number(high, 2),
    ]);
    Ok(report)
}
