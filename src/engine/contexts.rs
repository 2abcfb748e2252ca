//! The contexts of decisions that may yet be credited.
//!
//! Ordered by decision time, so that what is oldest goes first: when its window has closed, or when there are more than
//! the set number. Of a decision whose context was pushed out, counts and sums are learned, and nothing about its context.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::closing::BucketKey;
use crate::clock::Timestamp;
use crate::experiment::context::{Context, Value};
use crate::experiment::decision::Decision;
use crate::experiment::id::{ArmId, SequenceKey};

/// What has been learned about a context so far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) enum Lesson {
    /// Nothing.
    Open,
    /// A reward waits for the window to close.
    Pending(f64),
    /// The default was credited.
    Defaulted,
    /// A reward or a failure was credited.
    Learned,
}

/// A context that is remembered.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stored {
    pub(super) context: Box<Context>,
    pub(super) arm: ArmId,
    /// When its window closes.
    pub(super) key: BucketKey,
    pub(super) lesson: Lesson,
}

impl Stored {
    /// From now on the default is not credited.
    fn waive(&mut self) {
        if self.lesson == Lesson::Open {
            self.lesson = Lesson::Learned;
        }
    }
}

/// The contexts of an experiment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Persisted", into = "Persisted")]
pub(super) struct Contexts {
    by_decision: BTreeMap<(Timestamp, SequenceKey), Stored>,
}

/// Contexts as a checkpoint has them: those of one rule share the names of its features.
#[derive(Serialize, Deserialize)]
struct Persisted {
    names: Vec<Arc<[Box<str>]>>,
    rows: Vec<Row>,
}

/// When, which decision, place of its names, values, arm, bucket, what was learned.
type Row = (
    Timestamp,
    SequenceKey,
    u32,
    Box<[Value]>,
    ArmId,
    BucketKey,
    Lesson,
);

impl From<Contexts> for Persisted {
    fn from(contexts: Contexts) -> Self {
        let mut names: Vec<Arc<[Box<str>]>> = Vec::new();
        let mut place = |wanted: Arc<[Box<str>]>| {
            // From the back, because neighbours are of one rule.
            let known = names.iter().rposition(|known| *known == wanted);
            known.unwrap_or_else(|| {
                names.push(wanted);
                names.len() - 1
            }) as u32
        };
        let row = |((at, sequence), stored): ((Timestamp, SequenceKey), Stored)| {
            let Context { names, values } = *stored.context;
            let names = place(names);
            let Stored {
                arm, key, lesson, ..
            } = stored;
            (at, sequence, names, values, arm, key, lesson)
        };
        let rows = contexts.by_decision.into_iter().map(row).collect();
        Self { names, rows }
    }
}

impl From<Persisted> for Contexts {
    fn from(Persisted { names, rows }: Persisted) -> Self {
        let stored = |(at, sequence, place, values, arm, key, lesson): Row| {
            let names = Arc::clone(names.get(place as usize)?);
            let stored = Stored {
                context: Box::new(Context { names, values }),
                arm,
                key,
                lesson,
            };
            Some(((at, sequence), stored))
        };
        Self {
            by_decision: rows.into_iter().filter_map(stored).collect(),
        }
    }
}

impl Contexts {
    /// Remembers a context, unless it is remembered already; pushes the oldest other one out when there are more than `limit`.
    pub(super) fn insert(
        &mut self,
        decision: &Decision,
        key: BucketKey,
        context: &Context,
        limit: usize,
    ) {
        let own = (decision.at, decision.sequence);
        self.by_decision.entry(own).or_insert_with(|| Stored {
            context: Box::new(context.clone()),
            arm: decision.arm,
            key,
            lesson: Lesson::Open,
        });
        while self.by_decision.len() > limit.max(1) {
            // One that was fetched from the journal for its reward is old, and is about to be learned from.
            let oldest = self.by_decision.keys().find(|key| **key != own).copied();
            let Some(oldest) = oldest else { break };
            self.by_decision.remove(&oldest);
        }
    }

    /// The context of a decision, if it is remembered.
    pub(super) fn get(&self, decision: &Decision) -> Option<&Context> {
        let stored = self.by_decision.get(&(decision.at, decision.sequence))?;
        Some(&stored.context)
    }

    /// The same, to be changed.
    pub(super) fn get_mut(&mut self, decision: &Decision) -> Option<&mut Stored> {
        self.by_decision.get_mut(&(decision.at, decision.sequence))
    }

    /// Those whose window has closed by `now` and about which there is something left to be learned.
    pub(super) fn closing(
        &mut self,
        now: Timestamp,
    ) -> impl Iterator<Item = (Timestamp, &mut Stored)> {
        self.by_decision
            .iter_mut()
            .filter(move |(_, stored)| stored.key.closes() <= now)
            .filter(|(_, stored)| matches!(stored.lesson, Lesson::Open | Lesson::Pending(_)))
            .map(|((at, _), stored)| (*at, stored))
    }

    /// Gives up what was not credited yet.
    pub(super) fn waive(&mut self) {
        self.by_decision.values_mut().for_each(Stored::waive);
    }

    /// The same for one decision, that was made under a policy file which is gone by now.
    pub(super) fn waive_one(&mut self, decision: &Decision) {
        if let Some(stored) = self.get_mut(decision) {
            stored.waive();
        }
    }

    /// Forgets an arm's decisions made until then.
    pub(super) fn forget_arm(&mut self, arm: ArmId, until: Timestamp) {
        self.by_decision
            .retain(|(at, _), stored| stored.arm != arm || *at > until);
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
