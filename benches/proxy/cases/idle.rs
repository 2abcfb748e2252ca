//! Memory of a client connection that is kept open and silent after one request.

use clap::Args;

use super::check;
use crate::bench::{Loading, Upstream, plan};
use crate::install;
use crate::peers::{Kind, Peer, Start};
use crate::plan::{Load, Mode};
use crate::process::memory;
use crate::report::{Cell, Report};

/// Opens connections and leaves them open.
#[derive(Debug, Clone, Args)]
pub(crate) struct Idle {
    /// Connections, 8,000 at most.
    #[arg(long, default_value_t = 2_000)]
    connections: usize,
    /// Other proxies besides.
    #[arg(long)]
    peer: Vec<Kind>,
    /// Install what is missing.
    #[arg(long)]
    install: bool,
}

pub(crate) fn measure(start: &Start, arguments: &Idle) -> anyhow::Result<Report> {
    let mut kinds = vec![Kind::Nginx, Kind::Pointsman];
    kinds.extend(&arguments.peer);
    if arguments.install {
        install::peers(&kinds)?;
    }
    let connections = arguments.connections.clamp(1, 8_000);
    let mut report = Report::new(
        format!("Memory of {connections} idle client connections"),
        &[
            "proxy",
            "KiB per connection (PSS)",
            "KiB per connection (RSS)",
            "PSS MiB before",
            "PSS MiB with them",
        ],
    );
    for kind in kinds {
        let row = one(start, kind, connections, &mut report)?;
        report.rows.push(row);
    }
    Ok(report)
}

fn one(
    start: &Start,
    kind: Kind,
    connections: usize,
    report: &mut Report,
) -> anyhow::Result<Vec<Cell>> {
    let upstream = Upstream::start(&start.cores)?;
    let peer = Peer::start(kind, start, upstream.addresses)?;
    let family = peer.family();
    let mut plan = plan(peer.address, Load::Small, Mode::Idle, Vec::new());
    // Once with few: what is made at first use is not a connection's.
    plan.connections = 64;
    drop(Loading::start(&start.cores, &plan)?.finish()?);
    std::thread::sleep(std::time::Duration::from_secs(1));
    let before = memory(&family);
    plan.connections = connections;
    let (outcome, open) = Loading::start(&start.cores, &plan)?.finish()?;
    check(report, kind.name(), &outcome);
    std::thread::sleep(std::time::Duration::from_secs(2));
    let after = memory(&family);
    drop(open);
    let each = |grown: f64| Cell::Number(grown / connections as f64, 1);
    Ok(vec![
        kind.name().into(),
        each(after.proportional - before.proportional),
        each(after.resident - before.resident),
        Cell::Number(before.proportional / 1024.0, 1),
        Cell::Number(after.proportional / 1024.0, 1),
    ])
}
