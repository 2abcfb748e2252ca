//! What waits for a window to close: decisions that may yet be credited by default, and rewards that are learned then.
//!
//! Decisions are counted in buckets of decision time, a sixty-fourth of the window wide, so memory grows with
//! buckets and arms and not with decisions. A bucket closes when the window of its last decision has closed: default
//! credits are then the decisions that the journal holds less those that were rewarded. What arrives for a closed bucket (a
//! decision whose flush was held up) is settled at once, so the sum does not depend on when the bucket closed.
//!
//! A reward for a decision that was dropped before it reached the journal stands in the way of one default credit,
//! because single decisions are not remembered here. Drops are counted, and none happens while the journal keeps up.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::experiment::id::ArmId;
use crate::stats::importance::Importance;
use crate::stats::moments::Moments;

/// Buckets in a window.
const BUCKETS: u64 = 64;

/// A closed window is remembered this much longer, in milliseconds.
pub(super) const LINGER: u64 = 10 * 60 * 1000;

/// A stretch of decision time under one length of window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct BucketKey {
    closes: Timestamp,
    window: u64,
}

impl BucketKey {
    /// The bucket of a decision made at `at` with this window, in milliseconds.
    pub(super) fn of(at: Timestamp, window: u64) -> Self {
        let width = (window / BUCKETS).max(1000);
        let end = (at.as_millis() / width + 1).saturating_mul(width);
        Self {
            closes: Timestamp::from_millis(end).plus(window),
            window,
        }
    }

    /// When the window of its last decision has closed.
    pub(super) fn closes(self) -> Timestamp {
        self.closes
    }

    /// When the last decision of the bucket may have been made.
    pub(super) fn decided(self) -> Timestamp {
        let end = self.closes.as_millis().saturating_sub(self.window);
        Timestamp::from_millis(end.saturating_sub(1))
    }
}

/// What one arm has outstanding in one bucket.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Outstanding {
    /// Decisions that the journal holds.
    pub(super) decided: u64,
    /// Of these, credited with a reward or a failure.
    pub(super) rewarded: u64,
    /// Rewards to be learned at the close.
    pub(super) pending: Moments,
    /// The same, importance-weighted; only where the policy asks for it.
    pub(super) pending_importance: Importance,
    /// What default credits for all unrewarded decisions come to, importance-weighted; likewise.
    pub(super) unrewarded: Importance,
    /// Credited by default when the bucket closed.
    defaults: u64,
    credited: Importance,
}

impl Outstanding {
    /// Decisions of which nothing has been learned yet: not credited so far, or credited with what is learned at the close.
    pub(super) fn waiting(&self) -> u64 {
        self.uncredited().saturating_add(self.pending.count())
    }

    /// Decisions that may yet be credited.
    fn uncredited(&self) -> u64 {
        self.decided.saturating_sub(self.rewarded)
    }
}

/// What an arm is credited with because a bucket closed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settled {
    /// The arm.
    pub(super) arm: ArmId,
    /// When its decisions were made, but for the width of the bucket.
    pub(super) decided: Timestamp,
    /// Change of its default credits.
    pub(super) defaults: i64,
    /// Rewards that it learns now.
    pub(super) learned: Moments,
    /// Both, importance-weighted.
    pub(super) importance: Importance,
    /// Decisions that no longer wait: learned now, or never.
    pub(super) expired: u64,
}

type Bucket = BTreeMap<ArmId, Outstanding>;

/// The buckets of an experiment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Closing {
    /// Ascending. A queue, because nearly everything that happens concerns the newest ones.
    open: VecDeque<(BucketKey, Bucket)>,
    closed: BTreeMap<BucketKey, Bucket>,
}

impl Closing {
    /// Where the open bucket is, or where it would be.
    fn place(&self, key: BucketKey) -> Result<usize, usize> {
        match self.open.back() {
            Some((newest, _)) if *newest == key => Ok(self.open.len() - 1),
            Some((newest, _)) if *newest > key => {
                self.open.binary_search_by_key(&key, |(other, _)| *other)
            }
            _ => Err(self.open.len()),
        }
    }

    /// Whether the bucket has closed, the last advance having been to `advanced`.
    pub(super) fn is_closed(&self, key: BucketKey, advanced: Timestamp) -> bool {
        // Only a bucket whose time has come can be among the closed ones, so most need no look-up.
        key.closes <= advanced && self.place(key).is_err()
    }

    /// Changes what `arm` has outstanding; gives what is to be credited at once, if the bucket has closed.
    pub(super) fn change(
        &mut self,
        key: BucketKey,
        arm: ArmId,
        advanced: Timestamp,
        change: impl FnOnce(&mut Outstanding),
    ) -> Option<Settled> {
        let place = self.place(key);
        if place.is_err() && key.closes <= advanced {
            let bucket = self.closed.entry(key).or_default();
            let outstanding = bucket.entry(arm).or_default();
            change(outstanding);
            return Some(Settled {
                expired: 0,
                ..settle(key, arm, outstanding)
            });
        }
        let place = place.unwrap_or_else(|place| {
            self.open.insert(place, (key, Bucket::new()));
            place
        });
        change(self.open[place].1.entry(arm).or_default());
        None
    }

    /// Closes the buckets whose time has come by `now`.
    pub(super) fn close(&mut self, now: Timestamp) -> Vec<Settled> {
        let mut settled = Vec::new();
        while self.open.front().is_some_and(|(key, _)| key.closes <= now) {
            let Some((key, mut bucket)) = self.open.pop_front() else {
                break;
            };
            settled.extend(
                bucket
                    .iter_mut()
                    .map(|(arm, outstanding)| settle(key, *arm, outstanding)),
            );
            self.closed.insert(key, bucket);
        }
        while let Some(first) = self.closed.first_entry() {
            if first.key().closes.plus(LINGER) > now {
                break;
            }
            first.remove();
        }
        settled
    }

    /// How many decisions of an arm wait.
    pub(super) fn waiting(&self, arm: ArmId) -> u64 {
        let buckets = self.open.iter().filter_map(|(_, bucket)| bucket.get(&arm));
        buckets.map(Outstanding::waiting).sum()
    }

    /// Forgets all that an arm has outstanding.
    pub(super) fn forget_arm(&mut self, arm: ArmId) {
        let open = self.open.iter_mut().map(|(_, bucket)| bucket);
        for bucket in open.chain(self.closed.values_mut()) {
            bucket.remove(&arm);
        }
    }

    /// Forgets outstanding decisions: they will not be credited by default.
    pub(super) fn waive(&mut self) {
        let buckets = self.open.iter_mut().map(|(_, bucket)| bucket);
        for outstanding in buckets.flat_map(BTreeMap::values_mut) {
            outstanding.decided = outstanding.rewarded;
            outstanding.unrewarded = Importance::default();
        }
    }
}

fn settle(key: BucketKey, arm: ArmId, outstanding: &mut Outstanding) -> Settled {
    let before = outstanding.defaults;
    let expired = outstanding.waiting();
    outstanding.defaults = outstanding.uncredited();
    let mut importance = std::mem::take(&mut outstanding.pending_importance);
    importance.merge(&outstanding.unrewarded);
    importance.subtract(&outstanding.credited);
    outstanding.credited = outstanding.unrewarded;
    Settled {
        arm,
        decided: key.decided(),
        defaults: outstanding.defaults as i64 - before as i64,
        learned: std::mem::take(&mut outstanding.pending),
        importance,
        expired,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARM: ArmId = ArmId(1);

    #[test]
    fn a_bucket_closes_when_the_window_of_its_last_decision_has() {
        let hour = 3_600_000;
        let at = Timestamp::from_millis(10 * hour + 1);
        let key = BucketKey::of(at, hour);
        assert!(key.closes > at.plus(hour));
        assert!(key.closes <= at.plus(hour + hour / 64));
        assert_eq!(
            BucketKey::of(Timestamp::from_millis(5), 10).closes,
            Timestamp::from_millis(1010)
        );
    }

    #[test]
    fn credits_are_the_same_whenever_the_bucket_closes() {
        let key = BucketKey::of(Timestamp::default(), 1000);
        let late = Timestamp::from_millis(5000);
        let credited = |closes_after: usize| {
            let mut closing = Closing::default();
            let mut total = 0;
            for step in 0..4 {
                let advanced = if step >= closes_after {
                    total += closing
                        .close(late)
                        .iter()
                        .map(|settled| settled.defaults)
                        .sum::<i64>();
                    late
                } else {
                    Timestamp::default()
                };
                let settled = closing.change(key, ARM, advanced, |outstanding| {
                    if step == 2 {
                        outstanding.rewarded += 1;
                    } else {
                        outstanding.decided += 1;
                    }
                });
                total += settled.map_or(0, |settled| settled.defaults);
            }
            total
                + closing
                    .close(late)
                    .iter()
                    .map(|settled| settled.defaults)
                    .sum::<i64>()
        };
        assert_eq!(credited(0), 2);
        assert_eq!(credited(1), 2);
        assert_eq!(credited(3), 2);
        assert_eq!(credited(9), 2);
    }
}
