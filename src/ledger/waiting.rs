//! Labels that have overtaken their prediction.

use std::collections::{BTreeSet, HashMap};

use super::batches::Place;
use crate::clock::Timestamp;
use crate::engine::attribute::Claim;
use crate::experiment::id::SequenceKey;

/// Labels that may wait; beyond it they are `unscored` at once.
pub(super) const MAX_WAITING: usize = 100_000;

/// The waiting labels, by the decision whose prediction they need.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    by_decision: HashMap<SequenceKey, Vec<(Place, Claim)>>,
    /// Not simply in the order of receipt: the clock may be set back.
    deadlines: BTreeSet<(Timestamp, SequenceKey)>,
    count: usize,
}

impl Waiting {
    /// Whether no more may wait.
    pub(super) fn is_full(&self) -> bool {
        self.count >= MAX_WAITING
    }

    /// Keeps a label until its outcome or the deadline comes.
    pub(super) fn push(&mut self, place: Place, claim: Claim, deadline: Timestamp) {
        let sequence = claim.decision.sequence;
        self.deadlines.insert((deadline, sequence));
        self.by_decision
            .entry(sequence)
            .or_default()
            .push((place, claim));
        self.count += 1;
    }

    /// The labels that waited for the outcome of this decision.
    pub(super) fn take(&mut self, sequence: SequenceKey) -> Vec<(Place, Claim)> {
        // As a rule nothing waits, and nothing is hashed.
        if self.count == 0 {
            return Vec::new();
        }
        let claims = self.by_decision.remove(&sequence).unwrap_or_default();
        self.count -= claims.len();
        claims
    }

    /// The labels whose time is up, and with them all for the same decisions. None waits longer than `most` milliseconds from `now`: one that
    /// would was received before the clock was set back, and nobody knows how long it has waited.
    pub(super) fn take_expired(&mut self, now: Timestamp, most: u64) -> Vec<(Place, Claim)> {
        let mut expired = Vec::new();
        while let Some(next) = self.next_expired(now, most) {
            self.deadlines.remove(&next);
            expired.extend(self.take(next.1));
        }
        expired
    }

    fn next_expired(&self, now: Timestamp, most: u64) -> Option<(Timestamp, SequenceKey)> {
        let first = self.deadlines.first().filter(|next| next.0 <= now);
        let last = || self.deadlines.last().filter(|next| next.0 > now.plus(most));
        first.or_else(last).copied()
    }
}
