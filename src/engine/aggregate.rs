//! Several rewards of one decision, made into one.
//!
//! An [`Entry`] remembers, for one decision whose rewards are aggregated by `last`, `sum`, `mean` or `max`, what it
//! contributes now and which ids it has seen. The result is the same in whatever order distinct ids arrive, because sums
//! are kept in the fixed point of [`Moments`]. `first` needs no entry: a bit says that the decision was rewarded (see `claims`).

use std::hash::Hasher;

use siphasher::sip::SipHasher24;

use serde::{Deserialize, Serialize};

use super::closing::BucketKey;
use crate::clock::Timestamp;
use crate::experiment::reward::{Aggregate, RewardKind};
use crate::stats::moments::Moments;

/// Most rewards with an id that one decision may have.
const MAX_ITEMS: usize = 64;

/// One posted reward as the aggregate sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item {
    /// Hash of the client's idempotency key.
    pub(super) id: Option<u64>,
    /// The client's time, or else the time of receipt: the order of `last`.
    pub(super) at: Timestamp,
    /// The reward.
    pub(super) value: f64,
}

/// What the rewards of one decision amount to so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// The contribution now; `None`: only the failure of the arm was credited.
    pub(super) value: Option<f64>,
    /// Where the contribution waits for its window to close; `None`: it was learned at once.
    pub(super) place: Option<BucketKey>,
    /// Whether the arm's failure was credited in place of a reward: no posted reward counts any more.
    pub(super) settled: bool,
    latest: Timestamp,
    /// Σ of the items in fixed point.
    total: i128,
    count: u64,
    ids: Vec<u64>,
}

/// Why an item was not taken.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Refusal {
    /// Its id was seen before.
    Duplicate,
    /// It cannot be part of this aggregate; the text says why.
    Invalid(String),
}

impl Entry {
    /// An entry without any reward.
    pub(super) fn new(place: Option<BucketKey>) -> Self {
        Self {
            value: None,
            place,
            settled: false,
            latest: Timestamp::default(),
            total: 0,
            count: 0,
            ids: Vec::new(),
        }
    }

    /// Whether an item with this id could still be taken, whatever its value.
    pub(super) fn admits(&self, id: Option<u64>) -> Result<(), Refusal> {
        let Some(id) = id else {
            return Ok(());
        };
        if self.ids.contains(&id) {
            Err(Refusal::Duplicate)
        } else if self.ids.len() >= MAX_ITEMS {
            Err(Refusal::Invalid(format!(
                "a decision takes at most {MAX_ITEMS} rewards with distinct ids"
            )))
        } else {
            Ok(())
        }
    }

    /// This entry with `item` in it, if its id is new and the aggregate stays in the range of `kind`.
    pub(super) fn with(
        &self,
        item: Item,
        aggregate: Aggregate,
        kind: RewardKind,
    ) -> Result<Self, Refusal> {
        self.admits(item.id)?;
        let mut next = self.clone();
        next.ids.extend(item.id);
        next.total = next.total.saturating_add(quanta(item.value));
        next.count += 1;
        let value = match (aggregate, self.value) {
            (Aggregate::First, Some(first)) => first,
            (Aggregate::Last, Some(current)) if item.at < self.latest => current,
            (Aggregate::First | Aggregate::Last, _) => item.value,
            (Aggregate::Max, current) => current.map_or(item.value, |best| best.max(item.value)),
            (Aggregate::Sum, _) => Moments::from_parts(1, next.total, (0, 0)).sum(),
            (Aggregate::Mean, _) => {
                Moments::from_parts(1, next.total, (0, 0)).sum() / next.count as f64
            }
        };
        next.latest = self.latest.max(item.at);
        aggregate_range(aggregate, kind)
            .check(value)
            .map_err(|error| {
                Refusal::Invalid(if next.count > 1 {
                    format!("with this item the aggregate would be {value}: {error}")
                } else {
                    error.to_string()
                })
            })?;
        next.value = Some(value);
        Ok(next)
    }
}

/// The range that an item must lie in by itself, before it is known what it is added to.
///
/// The range of the policy file applies to the aggregate. Where the aggregate is one of the items, it applies to each.
pub(super) fn item_range(aggregate: Aggregate, kind: RewardKind) -> RewardKind {
    match (aggregate, kind) {
        (Aggregate::Sum, _) | (Aggregate::Mean, RewardKind::Bounded { .. }) => RewardKind::Real,
        _ => kind,
    }
}

/// The range of the aggregate. A mean of zeros and ones lies between them.
fn aggregate_range(aggregate: Aggregate, kind: RewardKind) -> RewardKind {
    match (aggregate, kind) {
        (Aggregate::Mean, RewardKind::Binary) => RewardKind::Bounded { min: 0.0, max: 1.0 },
        _ => kind,
    }
}

/// The value in the fixed point of [`Moments`].
fn quanta(value: f64) -> i128 {
    let mut one = Moments::default();
    one.add(value, 1);
    one.to_parts().1
}

/// A hash of an idempotency key within a decision, and of the metric it belongs to. Not persisted.
pub(super) fn id_hash(metric: &str, id: Option<&str>) -> u64 {
    let mut hasher = SipHasher24::new();
    hasher.write(&(metric.len() as u64).to_le_bytes());
    hasher.write(metric.as_bytes());
    hasher.write(&[u8::from(id.is_some())]);
    hasher.write(id.unwrap_or_default().as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(id: u64, value: f64) -> Item {
        Item {
            id: Some(id),
            at: Timestamp::from_millis(id),
            value,
        }
    }

    #[test]
    fn an_item_that_would_leave_the_range_is_refused_and_changes_nothing() {
        let kind = RewardKind::Bounded { min: 0.0, max: 5.0 };
        let entry = Entry::new(None)
            .with(item(1, 4.0), Aggregate::Sum, kind)
            .unwrap();
        let refusal = entry.with(item(2, 2.0), Aggregate::Sum, kind).unwrap_err();
        assert!(matches!(refusal, Refusal::Invalid(text) if text.contains('6')));
        let entry = entry.with(item(3, -3.0), Aggregate::Sum, kind).unwrap();
        assert_eq!(entry.value, Some(1.0));
    }

    #[test]
    fn the_mean_of_binary_items_may_be_a_fraction() {
        let entry = Entry::new(None)
            .with(item(1, 1.0), Aggregate::Mean, RewardKind::Binary)
            .and_then(|entry| entry.with(item(2, 0.0), Aggregate::Mean, RewardKind::Binary))
            .unwrap();
        assert_eq!(entry.value, Some(0.5));
    }

    #[test]
    fn an_older_item_does_not_displace_the_last() {
        let kind = RewardKind::Real;
        let entry = Entry::new(None)
            .with(item(9, 4.0), Aggregate::Last, kind)
            .and_then(|entry| entry.with(item(3, 7.0), Aggregate::Last, kind))
            .unwrap();
        assert_eq!(entry.value, Some(4.0));
    }

    #[test]
    fn a_decision_takes_64_ids() {
        let mut entry = Entry::new(None);
        for id in 0..64 {
            entry = entry
                .with(item(id, 1.0), Aggregate::Sum, RewardKind::Real)
                .unwrap();
        }
        assert_eq!(entry.value, Some(64.0));
        assert!(matches!(entry.admits(Some(64)), Err(Refusal::Invalid(_))));
        assert_eq!(entry.admits(Some(63)), Err(Refusal::Duplicate));
    }
}
