//! User instructions per request, counted by valgrind: the same whatever else the machine does, and so what CI holds against a budget. The
//! difference of a longer and a shorter run, so that start-up, connections and shutdown cancel out. Threads that work at intervals
//! (publishing, checkpoints, flushes) are in it, for longer than in life, because valgrind is slow.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use serde::Deserialize;

use crate::bench::{Upstream, load, plan};
use crate::install;
use crate::peers::{Kind, Peer, Start};
use crate::plan::{Load, Mode};
use crate::report::{Cell, Report};

/// Counts instructions.
#[derive(Debug, Clone, Args)]
pub(crate) struct Instructions {
    /// Requests of the shorter run.
    #[arg(long, default_value_t = 2_000)]
    pub(crate) fewer: u64,
    /// Requests of the longer run, 200,000 at most.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) more: u64,
    /// Experiments that are served.
    #[arg(long, default_value_t = 1)]
    pub(crate) experiments: usize,
    /// Only tell; do not hold it against the budget.
    #[arg(long)]
    pub(crate) no_budget: bool,
    /// Install valgrind with apt-get if it is missing.
    #[arg(long)]
    pub(crate) install: bool,
}

/// The committed budget.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Budget {
    instructions_per_request: f64,
    /// How far above it a measurement may be, as a share.
    tolerance: f64,
}

fn budget() -> anyhow::Result<Budget> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/proxy-budget.toml");
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    toml::from_str(&text).context("the budget")
}

/// Instructions, in all and of the worker thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counted {
    pub(crate) all: f64,
    pub(crate) worker: f64,
}

/// Instructions in a run of so many requests.
fn run(start: &Start, requests: u64) -> anyhow::Result<Counted> {
    let directory = tempfile::tempdir()?;
    let out = directory.path().join("callgrind");
    let mut start = start.clone();
    start.wrapper = [
        "valgrind".to_owned(),
        "--tool=callgrind".to_owned(),
        "--separate-threads=yes".to_owned(),
        format!("--callgrind-out-file={}", out.display()),
    ]
    .to_vec();
    let upstream = Upstream::start(&start.cores)?;
    let mut peer = Peer::start(Kind::Pointsman, &start, upstream.addresses)?;
    let mut plan = plan(peer.address, Load::Small, Mode::Count(requests), Vec::new());
    plan.connections = 8;
    let outcome = load(&start.cores, &plan)?;
    ensure!(
        outcome.errors == 0,
        "{} errors: {:?}",
        outcome.errors,
        outcome.complaint
    );
    peer.running.stop(Duration::from_mins(1));
    totals(directory.path())
}

/// Reads what callgrind wrote, one file for each thread. They have no names there: the worker is the one that accepts connections.
fn totals(directory: &Path) -> anyhow::Result<Counted> {
    let mut counted = Counted {
        all: 0.0,
        worker: 0.0,
    };
    for file in fs::read_dir(directory)? {
        let file = file?;
        let text = fs::read_to_string(file.path())?;
        let total = text
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix("totals: "))
            .and_then(|total| total.split_whitespace().next()?.parse().ok())
            .unwrap_or(0.0);
        counted.all += total;
        if text.lines().any(|line| line.ends_with(" accept4")) {
            counted.worker += total;
        }
    }
    ensure!(counted.all > 0.0, "valgrind counted nothing");
    Ok(counted)
}

/// The difference of two runs.
pub(crate) fn count(start: &Start, fewer: u64, more: u64) -> anyhow::Result<Counted> {
    ensure!(
        fewer < more && more <= 200_000,
        "--fewer must be less than --more, and that 200000 at most"
    );
    let (short, long) = (run(start, fewer)?, run(start, more)?);
    let requests = (more - fewer) as f64;
    Ok(Counted {
        all: (long.all - short.all) / requests,
        worker: (long.worker - short.worker) / requests,
    })
}

pub(crate) fn measure(mut start: Start, arguments: &Instructions) -> anyhow::Result<Report> {
    if arguments.install {
        install::package("valgrind", "valgrind")?;
    }
    start.experiments = arguments.experiments;
    let counted = count(&start, arguments.fewer, arguments.more)?;
    let mut report = Report::new(
        "User instructions per request (callgrind), all threads of `pointsman serve`: decision, signed id, journal, metrics",
        &["all threads", "worker", "budget", "allowed"],
    );
    let budget = budget()?;
    let allowed = budget.instructions_per_request * (1.0 + budget.tolerance);
    report.rows.push(vec![
        Cell::Number(counted.all, 0),
        Cell::Number(counted.worker, 0),
        Cell::Number(budget.instructions_per_request, 0),
        Cell::Number(allowed, 0),
    ]);
    if !arguments.no_budget && counted.all > allowed {
        report.fail(format!(
            "{:.0} instructions per request are more than the budget in benches/proxy-budget.toml allows: {allowed:.0}",
            counted.all
        ));
    }
    Ok(report)
}
