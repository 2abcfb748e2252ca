//! What one arm has learned beyond counts and sums, where its policy asks for more ([`Statistics`]): the same credits by
//! bucket of decision time, and importance-weighted.
//!
//! Undiscounted and additive: discounts are applied when an allocation is computed ([`Learned::at`]), so a late
//! reward weighs by the age of its decision. Not here: which credits there are (`history`).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::policy::{Estimate, ImportanceSum, Memory, Regressed, Regression, Statistics};
use crate::stats::importance::Importance;
use crate::stats::laplace::{Laplace, LaplaceRule};
use crate::stats::linear::Linear;
use crate::stats::moments::Moments;

/// A value that is credited to an arm, some times over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Credit {
    /// When the decision was made.
    pub(super) at: Timestamp,
    /// The reward.
    pub(super) value: f64,
    /// How many times; negative ones are taken back.
    pub(super) times: i64,
}

/// Additive sums over an arm's credits, by bucket of decision time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Learned {
    /// With a memory that lasts as long as the epoch there is one bucket.
    buckets: BTreeMap<u64, Sums>,
    linear: BTreeMap<u64, Arc<Linear>>,
    logistic: Option<Arc<Laplace>>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Sums {
    moments: Moments,
    importance: Importance,
}

/// An arm's sums as they count at some time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Discounted {
    /// Count, sum and spread.
    pub earned: Estimate,
    /// Importance-weighted sums.
    pub importance: ImportanceSum,
}

impl Learned {
    /// Takes a credit, or takes one back.
    pub(super) fn credit(&mut self, memory: Memory, credit: Credit) {
        let sums = self.buckets.entry(memory.bucket(credit.at)).or_default();
        if credit.times >= 0 {
            sums.moments.add(credit.value, credit.times.unsigned_abs());
        }
        for _ in credit.times..0 {
            sums.moments.remove(credit.value);
        }
    }

    /// Takes a credit together with the features of its decision's context, or takes one back.
    pub(super) fn regress(&mut self, statistics: &Statistics, features: &[f64], credit: Credit) {
        match statistics.regression {
            Some(Regression::Linear) => {
                let bucket = statistics.memory.bucket(credit.at);
                let sums = self
                    .linear
                    .entry(bucket)
                    .or_insert_with(|| Arc::new(Linear::new(features.len())));
                let sums = Arc::make_mut(sums);
                if credit.times > 0 {
                    sums.add(features, credit.value);
                } else {
                    sums.remove(features, credit.value);
                }
            }
            // What a logistic regression has learned cannot be taken back.
            Some(Regression::Logistic { precision }) if credit.times > 0 => {
                let posterior = self
                    .logistic
                    .get_or_insert_with(|| Arc::new(Laplace::new(features.len())));
                let rule = LaplaceRule {
                    lambda: precision,
                    standardize: true,
                };
                Arc::make_mut(posterior).learn(features, credit.value > 0.5, rule);
            }
            Some(Regression::Logistic { .. }) | None => {}
        }
    }

    /// Takes many credits of one time.
    pub(super) fn merge(&mut self, memory: Memory, at: Timestamp, moments: &Moments) {
        let sums = self.buckets.entry(memory.bucket(at)).or_default();
        sums.moments.merge(moments);
    }

    /// Takes importance-weighted sums, which do not depend on time.
    pub(super) fn weigh(
        &mut self,
        memory: Memory,
        at: Timestamp,
        change: impl FnOnce(&mut Importance),
    ) {
        change(
            &mut self
                .buckets
                .entry(memory.bucket(at))
                .or_default()
                .importance,
        );
    }

    /// Whether there is something to be forgotten at `now`.
    pub(super) fn outlives(&self, memory: Memory, now: Timestamp) -> bool {
        let first = self.buckets.first_key_value();
        first.is_some_and(|(bucket, _)| *bucket < memory.oldest(now))
    }

    /// Forgets what no longer counts at `now`.
    pub(super) fn forget(&mut self, memory: Memory, now: Timestamp) {
        let oldest = memory.oldest(now);
        while let Some(first) = self.buckets.first_entry() {
            if *first.key() >= oldest {
                break;
            }
            first.remove();
        }
        self.linear = self.linear.split_off(&oldest);
    }

    /// What counts at `now`.
    pub fn at(&self, statistics: &Statistics, now: Timestamp) -> Discounted {
        let mut discounted = Discounted::default();
        for (bucket, sums) in &self.buckets {
            let weight = statistics.memory.weight(*bucket, now);
            discounted.earned.add(&sums.moments, weight);
            discounted.importance.weights += weight * sums.importance.weights();
            discounted.importance.rewards += weight * sums.importance.rewards();
        }
        discounted
    }

    /// What the contexts have taught, as it counts at `now`; from nothing, sums of vectors of `dimension` numbers.
    pub fn regressed(
        &self,
        statistics: &Statistics,
        dimension: usize,
        now: Timestamp,
    ) -> Option<Regressed> {
        let regressed = match statistics.regression? {
            Regression::Logistic { .. } => {
                let known = self.logistic.clone();
                Regressed::Logistic(known.unwrap_or_else(|| Arc::new(Laplace::new(dimension))))
            }
            Regression::Linear if statistics.memory.is_forever() => {
                let known = self.linear.values().next().cloned();
                Regressed::Linear(known.unwrap_or_else(|| Arc::new(Linear::new(dimension))))
            }
            Regression::Linear => {
                let mut sums = Linear::new(dimension);
                for (bucket, part) in &self.linear {
                    sums.merge_scaled(part, statistics.memory.weight(*bucket, now));
                }
                Regressed::Linear(Arc::new(sums))
            }
        };
        Some(regressed)
    }
}

#[cfg(test)]
impl Learned {
    /// The sums of both, bucket by bucket.
    pub(super) fn plus(&self, other: &Self) -> Self {
        let mut sum = self.clone();
        for (bucket, sums) in &other.buckets {
            let own = sum.buckets.entry(*bucket).or_default();
            own.moments.merge(&sums.moments);
            own.importance.merge(&sums.importance);
        }
        sum
    }
}
