//! What shadows have predicted, and the labels that score them, until the window of their decision closes.
//!
//! A shadow's answer may come before or after the label of its decision. Each is kept with the other in mind, and a shadow's
//! score is a function of the two alone: so it does not matter which comes first. Several labels of one decision make one
//! score as several rewards make one, by the same rule.
//!
//! Ordered by decision time, so that what is oldest goes first: when its window has closed, or when there is more than
//! the set number of predictions and labels. Not here: what a score is added to (`history`).

use std::collections::BTreeMap;

use super::aggregate::{Entry, Item};
use super::event::Rewarded;
use crate::clock::Timestamp;
use crate::experiment::decision::{Decision, Label};
use crate::experiment::id::{ArmId, SequenceKey};
use crate::experiment::reward::{Aggregate, LabelRule, RewardRule};

/// Most labels that one decision's shadows are scored by: as many as rewards with an id.
const MAX_LABELS: usize = 64;

/// How predictions and labels make scores.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scoring<'a> {
    pub(super) label: &'a LabelRule,
    pub(super) reward: &'a RewardRule,
    /// Most predictions and labels that are remembered.
    pub(super) limit: usize,
}

/// A shadow's score that changed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rescored {
    /// The arm that shadowed.
    pub(super) arm: ArmId,
    /// Its score so far.
    pub(super) before: Option<f64>,
    /// Its score from now on.
    pub(super) after: Option<f64>,
}

/// The shadows of an experiment's decisions.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct Shadows {
    by_decision: BTreeMap<(Timestamp, SequenceKey), Seen>,
    /// Predictions and labels in there.
    count: usize,
}

/// What is known of one decision.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
struct Seen {
    predictions: Vec<Prediction>,
    /// In the order of the journal.
    labels: Vec<Truth>,
}

#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
struct Prediction {
    arm: ArmId,
    label: Label,
    score: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
struct Truth {
    /// Hash of the client's idempotency key.
    id: Option<u64>,
    /// The client's time, or else the time of receipt.
    at: Timestamp,
    label: Label,
}

impl Shadows {
    /// Takes what `arm` has predicted as a shadow of the decision; the first time counts.
    pub(super) fn predicted(
        &mut self,
        decision: &Decision,
        arm: ArmId,
        label: &Label,
        scoring: Scoring<'_>,
    ) -> Option<Rescored> {
        let seen = self.by_decision.entry(key(decision)).or_default();
        if seen.predictions.iter().any(|known| known.arm == arm) {
            return None;
        }
        let score = seen.score(label, scoring);
        seen.predictions.push(Prediction {
            arm,
            label: label.clone(),
            score,
        });
        self.count += 1;
        self.shrink(scoring.limit);
        score.map(|score| Rescored {
            arm,
            before: None,
            after: Some(score),
        })
    }

    /// Takes an accepted label; the scores that it changes.
    pub(super) fn labelled(
        &mut self,
        rewarded: &Rewarded,
        label: &Label,
        scoring: Scoring<'_>,
    ) -> Vec<Rescored> {
        let item = Item::of(rewarded);
        let truth = Truth {
            id: item.id,
            at: item.at,
            label: label.clone(),
        };
        let seen = self.by_decision.entry(key(&rewarded.decision)).or_default();
        let before = seen.labels.len();
        seen.take(truth, scoring.reward.aggregate);
        self.count = self.count + seen.labels.len() - before;
        let changed = seen.rescore(scoring);
        self.shrink(scoring.limit);
        changed
    }

    /// Forgets decisions made before `cutoff`.
    pub(super) fn forget_before(&mut self, cutoff: Timestamp) {
        while self
            .by_decision
            .first_key_value()
            .is_some_and(|(key, _)| key.0 < cutoff)
        {
            self.forget_first();
        }
    }

    fn shrink(&mut self, limit: usize) {
        while self.count > limit {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        let Some((_, seen)) = self.by_decision.pop_first() else {
            self.count = 0;
            return;
        };
        self.count -= seen.predictions.len() + seen.labels.len();
    }
}

impl Seen {
    /// Keeps a label as far as it can matter to the aggregate.
    fn take(&mut self, truth: Truth, aggregate: Aggregate) {
        let labels = &mut self.labels;
        let is_spare = match aggregate {
            Aggregate::First => !labels.is_empty(),
            // The order of the client's times, then that of arrival.
            Aggregate::Last => {
                let is_older = labels.first().is_some_and(|known| truth.at < known.at);
                if !is_older {
                    labels.clear();
                }
                is_older
            }
            Aggregate::Max => labels.iter().any(|known| known.label == truth.label),
            Aggregate::Sum | Aggregate::Mean => false,
        };
        if !is_spare && labels.len() < MAX_LABELS {
            labels.push(truth);
        }
    }

    /// The score of a prediction by the labels so far; `None` where there is none, or none that it can be compared with.
    fn score(&self, prediction: &Label, scoring: Scoring<'_>) -> Option<f64> {
        let (kind, aggregate) = (scoring.reward.kind, scoring.reward.aggregate);
        let mut entry = Entry::new(None);
        for truth in &self.labels {
            let Some(value) = scoring.label.score(kind, prediction, &truth.label) else {
                continue;
            };
            let item = Item {
                id: truth.id,
                at: truth.at,
                value,
            };
            // What would take the aggregate out of its range does not count, as with rewards.
            if let Ok(next) = entry.with(item, aggregate, kind) {
                entry = next;
            }
        }
        entry.value
    }

    fn rescore(&mut self, scoring: Scoring<'_>) -> Vec<Rescored> {
        let scores: Vec<_> = self
            .predictions
            .iter()
            .map(|prediction| self.score(&prediction.label, scoring))
            .collect();
        let mut changed = Vec::new();
        for (prediction, after) in self.predictions.iter_mut().zip(scores) {
            if prediction.score != after {
                changed.push(Rescored {
                    arm: prediction.arm,
                    before: prediction.score,
                    after,
                });
                prediction.score = after;
            }
        }
        changed
    }
}

fn key(decision: &Decision) -> (Timestamp, SequenceKey) {
    (decision.at, decision.sequence)
}
