//! Labels that have overtaken their prediction.

use std::collections::{HashMap, VecDeque};

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
    /// In the order of receipt, which is that of expiry.
    deadlines: VecDeque<(Timestamp, SequenceKey)>,
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
        self.deadlines.push_back((deadline, sequence));
        self.by_decision
            .entry(sequence)
            .or_default()
            .push((place, claim));
        self.count += 1;
    }

    /// The labels that waited for the outcome of this decision.
    pub(super) fn take(&mut self, sequence: SequenceKey) -> Vec<(Place, Claim)> {
        let claims = self.by_decision.remove(&sequence).unwrap_or_default();
        self.count -= claims.len();
        claims
    }

    /// The labels whose time is up, and with them all for the same decisions.
    pub(super) fn take_expired(&mut self, now: Timestamp) -> Vec<(Place, Claim)> {
        let mut expired = Vec::new();
        while let Some((deadline, sequence)) = self.deadlines.front().copied() {
            if deadline > now {
                break;
            }
            self.deadlines.pop_front();
            expired.extend(self.take(sequence));
        }
        expired
    }
}
