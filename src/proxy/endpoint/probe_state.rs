//! What probes say of an endpoint. One that was never probed is available, and so is one whose first probes fail, until enough of
//! them have failed in a row.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::experiment::upstream::HealthRule;

/// What probes have shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeStatus {
    /// No probe has ended yet.
    Unknown,
    /// Available.
    Passing,
    /// Not available.
    Failing,
}

impl ProbeStatus {
    /// The word for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Passing => "passing",
            Self::Failing => "failing",
        }
    }
}

/// Set while the endpoint is failing.
const FAILING: u32 = 1 << 31;

/// Set once a probe has ended.
const PROBED: u32 = 1 << 30;

/// Where an endpoint stands: two flags, and how many probes in a row have said the opposite.
#[derive(Debug, Default)]
pub(super) struct ProbeState(AtomicU32);

impl ProbeState {
    pub(super) fn is_available(&self) -> bool {
        self.0.load(Ordering::Relaxed) & FAILING == 0
    }

    pub(super) fn status(&self) -> ProbeStatus {
        match self.0.load(Ordering::Relaxed) {
            word if word & FAILING != 0 => ProbeStatus::Failing,
            word if word & PROBED != 0 => ProbeStatus::Passing,
            _ => ProbeStatus::Unknown,
        }
    }

    /// Takes in the result of a probe. Whether the endpoint is available now, if that has changed.
    pub(super) fn record(&self, passed: bool, rule: &HealthRule) -> Option<bool> {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let (next, changed) = next(word, passed, rule);
            let exchanged =
                self.0
                    .compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Relaxed);
            match exchanged {
                Ok(_) => return changed.then_some(passed),
                Err(other) => word = other,
            }
        }
    }
}

/// The state after a probe, and whether availability has changed.
fn next(word: u32, passed: bool, rule: &HealthRule) -> (u32, bool) {
    let failing = word & FAILING;
    if passed == (failing == 0) {
        return (failing | PROBED, false);
    }
    let needed = if passed { rule.healthy } else { rule.unhealthy };
    let opposite = (word & !(FAILING | PROBED)) + 1;
    if opposite >= needed.clamp(1, PROBED - 1) {
        ((failing ^ FAILING) | PROBED, true)
    } else {
        (failing | PROBED | opposite, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::upstream::Probe;

    const RULE: HealthRule = HealthRule {
        probe: Probe::Grpc {
            service: String::new(),
        },
        interval: 1000,
        timeout: 100,
        healthy: 2,
        unhealthy: 3,
    };

    fn told(state: &ProbeState, probes: &[bool]) -> Vec<Option<bool>> {
        let record = |passed: &bool| state.record(*passed, &RULE);
        probes.iter().map(record).collect()
    }

    #[test]
    fn an_endpoint_is_available_until_enough_probes_in_a_row_fail() {
        let state = ProbeState::default();
        assert_eq!(state.status(), ProbeStatus::Unknown);
        assert!(state.is_available());
        assert_eq!(told(&state, &[false, false]), [None, None]);
        assert!(state.is_available(), "not known to fail");
        assert_eq!(told(&state, &[true, false, false]), [None; 3]);
        assert_eq!(state.status(), ProbeStatus::Passing);
        assert_eq!(told(&state, &[false]), [Some(false)]);
        assert_eq!(state.status(), ProbeStatus::Failing);
        assert!(!state.is_available());
    }

    #[test]
    fn a_failing_endpoint_comes_back_after_enough_successes_in_a_row() {
        let state = ProbeState::default();
        told(&state, &[false, false, false]);
        assert_eq!(told(&state, &[true, false, true]), [None; 3]);
        assert!(!state.is_available());
        assert_eq!(told(&state, &[true]), [Some(true)]);
        assert!(state.is_available());
        assert_eq!(told(&state, &[true, true, false, false]), [None; 4]);
    }

    #[test]
    fn a_rule_of_zero_is_one_of_one() {
        let rule = HealthRule {
            healthy: 0,
            unhealthy: 0,
            ..RULE
        };
        let state = ProbeState::default();
        assert_eq!(state.record(false, &rule), Some(false));
        assert_eq!(state.record(true, &rule), Some(true));
    }
}
