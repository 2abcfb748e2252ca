//! The arms' predictions, remembered until the true label comes.
//!
//! Ordered by decision time, so that what is oldest goes first: when its window has closed, or when there are more than
//! the set number. Not here: scoring, which is [`LabelRule::score`](crate::experiment::reward::LabelRule::score).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::experiment::decision::{Decision, Label};
use crate::experiment::id::SequenceKey;

/// What is known of a decision's prediction.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Prediction {
    /// The arm's answer.
    Known(Label),
    /// The exchange ended without one.
    Absent,
    /// Forgotten, or never to come.
    Lost,
    /// Not yet seen.
    Awaited,
}

/// The predictions of an experiment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Predictions {
    by_decision: BTreeMap<(Timestamp, SequenceKey), Option<Label>>,
    /// Predictions of decisions up to here have been pushed out by newer ones.
    lost_until: Option<(Timestamp, SequenceKey)>,
}

impl Predictions {
    /// Remembers what an exchange ended with; pushes the oldest out when there are more than `limit`.
    pub(super) fn insert(&mut self, decision: &Decision, prediction: Option<Label>, limit: usize) {
        self.by_decision.insert(key(decision), prediction);
        while self.by_decision.len() > limit {
            self.lost_until = self.by_decision.pop_first().map(|(key, _)| key);
        }
    }

    /// What is known of the decision's prediction.
    pub(super) fn get(&self, decision: &Decision) -> Prediction {
        let key = key(decision);
        match self.by_decision.get(&key) {
            Some(Some(label)) => Prediction::Known(label.clone()),
            Some(None) => Prediction::Absent,
            None if self.lost_until.is_some_and(|lost| key <= lost) => Prediction::Lost,
            None => Prediction::Awaited,
        }
    }

    /// Forgets decisions made before `cutoff`.
    pub(super) fn forget_before(&mut self, cutoff: Timestamp) {
        while let Some(first) = self.by_decision.first_entry() {
            if first.key().0 >= cutoff {
                break;
            }
            first.remove();
        }
    }
}

fn key(decision: &Decision) -> (Timestamp, SequenceKey) {
    (decision.at, decision.sequence)
}
