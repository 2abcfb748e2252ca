//! Which decisions have been rewarded: a bit each, in compressed bitmaps.
//!
//! The bitmaps are kept by stretches of decision time and dropped as a whole, so memory follows the rewards of
//! one window and not the number of outstanding decisions. The stretch depends on the decision's time alone: a change of the
//! window never separates a decision from its bit.

use std::collections::BTreeMap;

use roaring::RoaringTreemap;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::experiment::decision::Decision;

/// Length of a stretch of decision time, in milliseconds.
const STRETCH: u64 = 10 * 60 * 1000;

/// The rewarded decisions of an experiment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Claims {
    /// By stretch, origin and worker: the counters of the rewarded decisions.
    stretches: BTreeMap<(u64, u64, u16), RoaringTreemap>,
}

impl Claims {
    /// Whether the decision was rewarded.
    pub(super) fn contains(&self, decision: &Decision) -> bool {
        self.stretches
            .get(&key(decision))
            .is_some_and(|counters| counters.contains(decision.sequence.counter))
    }

    /// Marks the decision as rewarded; false if it was before.
    pub(super) fn insert(&mut self, decision: &Decision) -> bool {
        self.stretches
            .entry(key(decision))
            .or_default()
            .insert(decision.sequence.counter)
    }

    /// Forgets stretches that ended before `cutoff`.
    pub(super) fn forget_before(&mut self, cutoff: Timestamp) {
        let first = (cutoff.as_millis() / STRETCH, 0, 0);
        if self
            .stretches
            .first_key_value()
            .is_some_and(|(key, _)| *key < first)
        {
            self.stretches = self.stretches.split_off(&first);
        }
    }
}

fn key(decision: &Decision) -> (u64, u64, u16) {
    let sequence = decision.sequence;
    (
        decision.at.as_millis() / STRETCH,
        sequence.origin,
        sequence.worker,
    )
}
