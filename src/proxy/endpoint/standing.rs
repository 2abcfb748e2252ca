//! Whether an endpoint may get requests, and how many: what probes and answers have said together.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::ejection::{Ejection, Ejections, Verdict};
use super::probe_state::{ProbeState, ProbeStatus};
use crate::experiment::upstream::{EjectionRule, HealthRule};

/// The weight of an endpoint that has become available this moment.
const LEAST_WEIGHT: f64 = 0.1;

/// Where an endpoint stands.
#[derive(Debug, Default)]
pub struct Standing {
    ejection: Ejection,
    probes: ProbeState,
    /// When probes last made it available; 0 if they never had to.
    passed_at: AtomicU64,
}

impl Standing {
    /// Whether it may get requests. Two loads.
    pub fn is_available(&self, now: u64) -> bool {
        self.ejection.until() <= now && self.probes.is_available()
    }

    /// Takes in what a request says of it. Until when it is out, if this has ejected it: the arm may have lost its last endpoint.
    ///
    /// `ejections` are those of its arm. An endpoint that is out already is not ejected again, and one for which there is no place
    /// goes on serving.
    pub fn record(
        &self,
        verdict: Verdict,
        now: u64,
        rule: &EjectionRule,
        ejections: &Ejections,
    ) -> Option<u64> {
        self.ejection.record(verdict, now, rule, ejections)
    }

    /// Takes in the result of a probe. Whether probes let it serve now, if that has changed.
    pub fn probed(&self, passed: bool, now: u64, rule: &HealthRule) -> Option<bool> {
        let changed = self.probes.record(passed, rule);
        if changed == Some(true) {
            self.passed_at.store(now.max(1), Ordering::Relaxed);
        }
        changed
    }

    /// What probes say of it.
    pub fn probe_status(&self) -> ProbeStatus {
        self.probes.status()
    }

    /// Until when it is out because of its answers, if it is.
    pub fn ejected_until(&self, now: u64) -> Option<u64> {
        let until = self.ejection.until();
        (now < until).then_some(until)
    }

    /// How much of its share it gets at `now`: see [`slow_start_weight`].
    pub fn weight(&self, now: u64, slow_start: u64) -> f64 {
        let passed = self.passed_at.load(Ordering::Relaxed);
        let returned = self.ejection.until();
        // The end of an ejection that is still to come is nothing to have returned from.
        let returned = if returned <= now { returned } else { 0 };
        match passed.max(returned) {
            0 => 1.0,
            since => slow_start_weight(now.saturating_sub(since), slow_start),
        }
    }
}

/// The weight in (0, 1] of an endpoint that has been available for so many milliseconds: it grows evenly from 0.1 to 1 within `slow_start`.
pub fn slow_start_weight(available_for: u64, slow_start: u64) -> f64 {
    if available_for >= slow_start {
        return 1.0;
    }
    LEAST_WEIGHT + (1.0 - LEAST_WEIGHT) * available_for as f64 / slow_start as f64
}

/// Whether an arm has an endpoint that is available, as it was last noted: so that a change is told once, by whoever notes it.
#[derive(Debug)]
pub struct Reach(AtomicBool);

impl Default for Reach {
    fn default() -> Self {
        Self(AtomicBool::new(true))
    }
}

impl Reach {
    /// What was last noted.
    pub fn is_available(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Notes how it is. Whether that is news.
    pub fn note(&self, available: bool) -> bool {
        self.is_available() != available && self.0.swap(available, Ordering::AcqRel) != available
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::upstream::Probe;

    const EJECTION: EjectionRule = EjectionRule {
        consecutive_failures: 2,
        success_rate: None,
        minimum_requests: 0,
        interval: 10_000,
        base: 1_000,
        max: 8_000,
        max_share: 1.0,
    };
    const HEALTH: HealthRule = HealthRule {
        probe: Probe::Grpc {
            service: String::new(),
        },
        interval: 1_000,
        timeout: 100,
        healthy: 1,
        unhealthy: 1,
    };

    #[test]
    fn probes_and_answers_must_both_let_it_serve() {
        let standing = Standing::default();
        let ejections = Ejections::new(1, &EJECTION);
        assert!(standing.is_available(0));
        assert_eq!(standing.weight(0, 1_000), 1.0);
        let fail = |now| standing.record(Verdict::Failure, now, &EJECTION, &ejections);
        assert_eq!(fail(5), None);
        assert_eq!(fail(10), Some(1_010));
        assert_eq!(standing.ejected_until(10), Some(1_010));
        assert!(!standing.is_available(1_009) && standing.is_available(1_010));
        assert_eq!(standing.ejected_until(1_010), None);
        assert_eq!(standing.probed(false, 500, &HEALTH), Some(false));
        assert!(!standing.is_available(1_010));
        assert_eq!(standing.probed(true, 2_000, &HEALTH), Some(true));
        assert_eq!(standing.probed(true, 3_000, &HEALTH), None);
        assert!(standing.is_available(2_000));
    }

    #[test]
    fn what_returns_starts_slowly() {
        let standing = Standing::default();
        let ejections = Ejections::new(1, &EJECTION);
        standing.record(Verdict::Failure, 0, &EJECTION, &ejections);
        standing.record(Verdict::Failure, 0, &EJECTION, &ejections);
        assert_eq!(standing.weight(1_000, 2_000), 0.1);
        assert!((standing.weight(2_000, 2_000) - 0.55).abs() < 1e-12);
        assert_eq!(standing.weight(3_000, 2_000), 1.0);
        assert_eq!(standing.weight(1_000, 0), 1.0);
        standing.probed(false, 5_000, &HEALTH);
        standing.probed(true, 6_000, &HEALTH);
        assert_eq!(standing.weight(6_000, 2_000), 0.1);
        let mut last = 0.0;
        for time in 0..2_100 {
            let weight = standing.weight(6_000 + time, 2_000);
            assert!(weight >= last && weight > 0.0 && weight <= 1.0);
            last = weight;
        }
    }

    #[test]
    fn a_change_is_told_once() {
        let reach = Reach::default();
        assert!(!reach.note(true));
        let told: usize = std::thread::scope(|scope| {
            let noting: Vec<_> = (0..4).map(|_| scope.spawn(|| reach.note(false))).collect();
            let told = noting.into_iter().map(|thread| thread.join().unwrap());
            told.map(usize::from).sum()
        });
        assert_eq!(told, 1);
        assert!(!reach.is_available() && reach.note(true) && reach.is_available());
    }
}
