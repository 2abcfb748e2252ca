//! One module for each thing that is measured. Each is bounded in time and in requests, and gives a table.

pub(crate) mod against;
pub(crate) mod idle;
pub(crate) mod instructions;
pub(crate) mod ours;
pub(crate) mod rate;
pub(crate) mod soak;

use crate::bench::Upstream;
use crate::install;
use crate::peers::{Kind, Peer, Start};
use crate::plan::Outcome;
use crate::report::Report;

/// An upstream with nginx, Pointsman and these others in front of it, in this order and each once; `installs` what of them is missing.
pub(crate) fn in_front(
    start: &Start,
    others: &[Kind],
    installs: bool,
) -> anyhow::Result<(Upstream, Vec<Peer>)> {
    let mut kinds = vec![Kind::Nginx, Kind::Pointsman];
    for kind in others {
        if !kinds.contains(kind) {
            kinds.push(*kind);
        }
    }
    if installs {
        install::peers(&kinds)?;
    }
    let upstream = Upstream::start(&start.cores)?;
    let peers = kinds.iter();
    let peers = peers.map(|kind| Peer::start(*kind, start, upstream.addresses));
    let peers = peers.collect::<anyhow::Result<Vec<_>>>()?;
    Ok((upstream, peers))
}

/// Notes errors of a run; a bench with errors has measured something else.
pub(crate) fn check(report: &mut Report, name: &str, outcome: &Outcome) {
    if outcome.errors > 0 {
        let complaint = outcome.complaint.as_deref().unwrap_or_default();
        report.fail(format!("{name}: {} errors: {complaint}", outcome.errors));
    }
}
