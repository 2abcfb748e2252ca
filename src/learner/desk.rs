//! What the learner works on: each experiment's tallies, what serves now, and what is due. No thread and no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::clock::{Stopwatch, Timestamp};
use crate::engine::allocate::{Admission, Allotment, arm_states};
use crate::engine::contextual::Contextual;
use crate::engine::event::Event;
use crate::engine::fold::Allocated;
use crate::engine::orders::Orders;
use crate::engine::snapshot::{Allocation, ArmState, Serving, Tally};
use crate::experiment::id::{ArmId, ExperimentId};
use crate::experiment::{Arm, Experiment};
use crate::ledger::{Change, Prospect};

use super::availability::Unavailable;

/// How often an allocation that ages is looked at within a bucket of its memory.
const LOOKS: u64 = 2;

/// And at most this often, in milliseconds.
const MIN_LOOK: u64 = 250;

/// The experiments, in the router's order.
#[derive(Debug, Default)]
pub(super) struct Desk {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    serving: Arc<Serving>,
    /// What was last journalled; its probabilities are the serving ones.
    allocated: Allocated,
    tallies: Vec<Tally>,
    revision: u64,
    /// What an operator has ordered.
    orders: Orders,
    /// Since when the tallies are ahead of what serves.
    dirty: Option<Stopwatch>,
    /// The arms without an available endpoint.
    unavailable: BTreeSet<ArmId>,
    /// An operator's order, or an arm that was lost or has come back: the allocation may not wait for its time.
    urgent: bool,
    /// When the allocation may differ without anything new: it was held back, or the past weighs less by then.
    next_look: Option<Timestamp>,
    /// Whether what serves is not yet published.
    unpublished: bool,
    /// Since when that is owed, if a commit caused it.
    owed: Option<Stopwatch>,
}

/// An experiment as it would serve next.
#[derive(Debug)]
pub(super) struct Draft {
    serving: Serving,
    allocated: Allocated,
    changed: bool,
    next_look: Option<Timestamp>,
}

/// What would take the place of a desk.
#[derive(Debug)]
pub(super) struct Replacement {
    pub(super) desk: Desk,
    pub(super) allocations: Vec<Event>,
}

/// From what a draft is made.
struct Basis<'a> {
    experiment: &'a Arc<Experiment>,
    epoch: u16,
    tallies: &'a [Tally],
    /// The last allocation, of whatever epoch.
    last: Option<&'a Allocated>,
    /// Whether the last allocation may be kept until its time.
    may_hold: bool,
    /// What serves now, if it is the same policy file's.
    current: Option<&'a Arc<Allocation>>,
    orders: &'a Orders,
    unavailable: &'a BTreeSet<ArmId>,
}

impl Desk {
    /// Whether there is something to do at `now` without anything new.
    pub(super) fn has_work(&self, now: Timestamp) -> bool {
        self.entries.iter().any(|entry| entry.is_due(now))
    }

    /// Takes new tallies in.
    pub(super) fn receive(&mut self, mut changes: BTreeMap<ExperimentId, Change>) {
        if changes.is_empty() {
            return;
        }
        for entry in &mut self.entries {
            let Some(change) = changes.remove(&entry.serving.experiment.id) else {
                continue;
            };
            if change.epoch != entry.serving.epoch || change.revision < entry.revision {
                continue;
            }
            let mut arms: BTreeMap<_, _> = change.arms.into_iter().collect();
            let tallies: Vec<_> = entry
                .serving
                .experiment
                .arms
                .iter()
                .map(|arm| arms.remove(&arm.id).unwrap_or_default())
                .collect();
            entry.revision = change.revision;
            if tallies != entry.tallies {
                entry.tallies = tallies;
                entry.dirty.get_or_insert(change.since);
            }
        }
    }

    /// Takes in which arms have no available endpoint. That is published at once; the allocation that follows from it is due.
    pub(super) fn hear(&mut self, unavailable: &Unavailable) {
        let none = BTreeSet::new();
        for entry in &mut self.entries {
            let told = unavailable
                .get(&entry.serving.experiment.id)
                .unwrap_or(&none);
            if *told == entry.unavailable {
                continue;
            }
            entry.unavailable.clone_from(told);
            let arms = &entry.serving.experiment.arms;
            let healthy: Vec<_> = arms.iter().map(|arm| !told.contains(&arm.id)).collect();
            entry.mark(&healthy);
        }
    }

    /// What is due at `now`: what may not wait, then the oldest first.
    pub(super) fn due(&self, now: Timestamp) -> Vec<usize> {
        let mut due: Vec<_> = (0..self.entries.len())
            .filter(|index| self.entries[*index].is_due(now))
            .collect();
        due.sort_by_key(|index| {
            let entry = &self.entries[*index];
            let waited = entry.dirty.map(|since| since.elapsed());
            std::cmp::Reverse((entry.urgent, waited))
        });
        due
    }

    /// How experiment `index` would serve next.
    pub(super) fn draft(&self, index: usize, now: Timestamp) -> Draft {
        let entry = &self.entries[index];
        let serving = &entry.serving;
        if !entry.has_learned() && !entry.urgent && entry.next_look.is_none_or(|next| now < next) {
            return entry.recount();
        }
        compute(
            &Basis {
                experiment: &serving.experiment,
                epoch: serving.epoch,
                tallies: &entry.tallies,
                last: Some(&entry.allocated),
                may_hold: !entry.urgent,
                current: Some(&serving.allocation),
                orders: &entry.orders,
                unavailable: &entry.unavailable,
            },
            now,
        )
    }

    /// Lets a draft serve, once its allocation is durable.
    pub(super) fn accept(&mut self, index: usize, draft: Draft) {
        let entry = &mut self.entries[index];
        entry.serving = Arc::new(draft.serving);
        entry.allocated = draft.allocated;
        entry.next_look = draft.next_look;
        entry.urgent = false;
        entry.unpublished = true;
        entry.owed = entry.dirty.take();
    }

    /// The experiments that are to be published, and the oldest commit that caused it.
    pub(super) fn take_unpublished(&mut self) -> (Vec<usize>, Option<Stopwatch>) {
        let mut changed = Vec::new();
        let mut oldest: Option<Stopwatch> = None;
        for (index, entry) in self.entries.iter_mut().enumerate() {
            if std::mem::take(&mut entry.unpublished) {
                changed.push(index);
                oldest = [oldest, entry.owed.take()]
                    .into_iter()
                    .flatten()
                    .max_by_key(Stopwatch::elapsed);
            }
        }
        (changed, oldest)
    }

    /// What serves.
    pub(super) fn serving(&self) -> Vec<Arc<Serving>> {
        self.entries
            .iter()
            .map(|entry| Arc::clone(&entry.serving))
            .collect()
    }

    /// Where an experiment is.
    pub(super) fn place(&self, experiment: ExperimentId) -> Option<usize> {
        let mut entries = self.entries.iter();
        entries.position(|entry| entry.serving.experiment.id == experiment)
    }

    /// The experiment at `index` as it serves.
    pub(super) fn at(&self, index: usize) -> &Arc<Serving> {
        &self.entries[index].serving
    }

    /// Takes in where the experiment at `index` stands after an order. A pause holds at once; what else has changed is due.
    pub(super) fn follow(&mut self, index: usize, prospect: Prospect) {
        let entry = &mut self.entries[index];
        let standing = prospect.standing;
        let orders = standing.map(|standing| standing.orders).unwrap_or_default();
        // Arms that were taken out, let in or begin anew; a pause moves nobody.
        entry.urgent |= entry.orders.say_other_of_arms(&orders);
        entry.tallies = prospect.tallies;
        entry.revision = prospect.revision;
        if orders.paused != entry.orders.paused {
            let serving = &entry.serving;
            entry.serving = Arc::new(Serving {
                experiment: Arc::clone(&serving.experiment),
                epoch: serving.epoch,
                allocation: Arc::clone(&serving.allocation),
                arms: serving.arms.clone(),
                paused: orders.paused,
            });
            entry.unpublished = true;
        }
        entry.orders = orders;
    }

    /// The desk for `experiments`, and the allocations to be journalled before it serves.
    pub(super) fn replacement(
        experiments: &[Arc<Experiment>],
        prospects: Vec<Prospect>,
        unavailable: &Unavailable,
        now: Timestamp,
    ) -> Replacement {
        let mut allocations = Vec::new();
        let mut entries = Vec::new();
        for (experiment, prospect) in experiments.iter().zip(prospects) {
            let standing = prospect.standing.as_ref();
            let orders = standing.map(|standing| standing.orders.clone());
            let orders = orders.unwrap_or_default();
            let unavailable = unavailable.get(&experiment.id).cloned();
            let unavailable = unavailable.unwrap_or_default();
            let draft = compute(
                &Basis {
                    experiment,
                    epoch: prospect.epoch,
                    tallies: &prospect.tallies,
                    last: standing.and_then(|standing| standing.allocation.as_ref()),
                    may_hold: standing
                        .is_some_and(|standing| standing.version == experiment.version),
                    current: None,
                    orders: &orders,
                    unavailable: &unavailable,
                },
                now,
            );
            allocations.extend(draft.event());
            entries.push(Entry {
                serving: Arc::new(draft.serving),
                allocated: draft.allocated,
                tallies: prospect.tallies,
                revision: prospect.revision,
                orders,
                unavailable,
                dirty: None,
                urgent: false,
                next_look: draft.next_look,
                unpublished: false,
                owed: None,
            });
        }
        let desk = Self { entries };
        Replacement { desk, allocations }
    }
}

impl Entry {
    /// Whether the policy would see anything else than what serves follows from.
    fn has_learned(&self) -> bool {
        let waits = self.serving.experiment.policy.counts_waiting();
        self.tallies
            .iter()
            .zip(&self.serving.arms)
            .any(|(new, arm)| {
                new.learned != arm.tally.learned || (waits && new.waiting != arm.tally.waiting)
            })
    }

    fn is_due(&self, now: Timestamp) -> bool {
        self.dirty.is_some() || self.urgent || self.next_look.is_some_and(|next| next <= now)
    }

    /// Says of each arm whether it has an available endpoint, and lets the allocation follow.
    fn mark(&mut self, healthy: &[bool]) {
        let serving = &self.serving;
        let marked = |(arm, healthy): (&ArmState, &bool)| ArmState {
            healthy: *healthy,
            ..arm.clone()
        };
        let arms: Vec<_> = serving.arms.iter().zip(healthy).map(marked).collect();
        let changed = |(new, old): (&ArmState, &ArmState)| new.healthy != old.healthy;
        if !arms.iter().zip(&serving.arms).any(changed) {
            return;
        }
        self.serving = Arc::new(Serving {
            experiment: Arc::clone(&serving.experiment),
            epoch: serving.epoch,
            allocation: Arc::clone(&serving.allocation),
            arms,
            paused: serving.paused,
        });
        self.urgent = true;
        self.unpublished = true;
    }

    /// The same allocation and beliefs with new counts: nothing was learned.
    fn recount(&self) -> Draft {
        let serving = &self.serving;
        let arms = serving
            .arms
            .iter()
            .zip(&self.tallies)
            .map(|(arm, tally)| ArmState {
                tally: tally.clone(),
                ..arm.clone()
            })
            .collect();
        Draft {
            serving: Serving {
                experiment: Arc::clone(&serving.experiment),
                epoch: serving.epoch,
                allocation: Arc::clone(&serving.allocation),
                arms,
                paused: serving.paused,
            },
            allocated: self.allocated.clone(),
            changed: false,
            next_look: self.next_look,
        }
    }
}

impl Draft {
    /// What is to be journalled before this serves, if its allocation is a new one.
    pub(super) fn event(&self) -> Option<Event> {
        self.changed.then(|| Event::Allocated {
            at: self.allocated.at,
            experiment: self.serving.experiment.id,
            epoch: self.allocated.epoch,
            version: self.allocated.version,
            probabilities: self.allocated.probabilities.clone(),
        })
    }
}

/// What would serve on this basis.
fn compute(basis: &Basis<'_>, now: Timestamp) -> Draft {
    let experiment = basis.experiment;
    let admissions: Vec<_> = experiment
        .arms
        .iter()
        .map(|arm| Admission {
            enabled: !basis.orders.disabled.contains(&arm.id),
            healthy: !basis.unavailable.contains(&arm.id),
        })
        .collect();
    let (allotment, arms) = arm_states(experiment, basis.tallies, &admissions, now);
    let Allotment {
        probabilities,
        contextual,
        ..
    } = allotment;
    let paused = basis.orders.paused;
    let last = basis.last.filter(|last| last.epoch == basis.epoch);
    let held_until = last
        .filter(|last| basis.may_hold && covers(experiment, last, &probabilities))
        .and_then(|last| hold(experiment, last))
        .filter(|until| now < *until);
    // What depends on the context is not in the journal, so it can only be held by who has it.
    let held = basis
        .current
        .filter(|current| current.contextual.is_some() == contextual.is_some());
    let held_until = held_until.filter(|_| contextual.is_none() || held.is_some());
    let unchanged =
        last.filter(|last| contextual.is_none() && in_order(experiment, last) == probabilities);
    let kept = unchanged.or(last.filter(|_| held_until.is_some()));
    let contextual = match held.filter(|_| held_until.is_some()) {
        Some(current) => current.contextual.clone(),
        None => contextual,
    };
    let allocated = kept.cloned().unwrap_or_else(|| Allocated {
        at: now,
        epoch: basis.epoch,
        version: basis.last.map_or(0, |last| last.version) + 1,
        probabilities: experiment
            .arms
            .iter()
            .map(|arm| arm.id)
            .zip(probabilities)
            .collect(),
    });
    Draft {
        changed: kept.is_none(),
        next_look: [
            held_until.filter(|_| unchanged.is_none()),
            ages(experiment, now),
        ]
        .into_iter()
        .flatten()
        .min(),
        serving: serving(experiment, &allocated, contextual, arms, paused),
        allocated,
    }
}

fn serving(
    experiment: &Arc<Experiment>,
    allocated: &Allocated,
    contextual: Option<Contextual>,
    arms: Vec<ArmState>,
    paused: bool,
) -> Serving {
    Serving {
        experiment: Arc::clone(experiment),
        epoch: allocated.epoch,
        allocation: Arc::new(Allocation {
            version: allocated.version,
            probabilities: in_order(experiment, allocated),
            contextual,
        }),
        arms,
        paused,
    }
}

/// How an experiment serves by what was journalled last, whatever its policy would say now. `None` if nothing was, for its epoch.
pub(super) fn as_journalled(
    experiment: &Arc<Experiment>,
    prospect: &Prospect,
    now: Timestamp,
) -> Option<Serving> {
    let standing = prospect.standing.as_ref()?;
    let last = standing.allocation.as_ref();
    let last =
        last.filter(|last| last.epoch == prospect.epoch && standing.version == experiment.version)?;
    let orders = &standing.orders;
    let admission = |arm: &Arm| Admission {
        enabled: !orders.disabled.contains(&arm.id),
        ..Admission::FULL
    };
    let admissions: Vec<_> = experiment.arms.iter().map(admission).collect();
    let (allotment, arms) = arm_states(experiment, &prospect.tallies, &admissions, now);
    let contextual = allotment.contextual;
    Some(serving(experiment, last, contextual, arms, orders.paused))
}

/// When the past weighs less, so that the allocation is worth a new look.
fn ages(experiment: &Experiment, now: Timestamp) -> Option<Timestamp> {
    let width = experiment.policy.statistics().memory.bucket_width();
    (width > 0).then(|| now.plus((width / LOOKS).max(MIN_LOOK)))
}

/// The probabilities of an allocation in the experiment's order of arms.
fn in_order(experiment: &Experiment, allocated: &Allocated) -> Vec<f64> {
    let probability = |arm: ArmId| {
        let found = allocated.probabilities.iter().find(|(id, _)| *id == arm);
        found.map_or(0.0, |(_, probability)| *probability)
    };
    experiment
        .arms
        .iter()
        .map(|arm| probability(arm.id))
        .collect()
}

/// Whether an allocation draws exactly the arms that have a probability now, so that it can still be drawn from.
fn covers(experiment: &Experiment, allocated: &Allocated, probabilities: &[f64]) -> bool {
    let drawn = |list: &[f64]| {
        list.iter()
            .filter(|probability| **probability > 0.0)
            .count()
    };
    let old = in_order(experiment, allocated);
    let all: Vec<_> = allocated
        .probabilities
        .iter()
        .map(|(_, probability)| *probability)
        .collect();
    drawn(&all) == drawn(&old)
        && old
            .iter()
            .zip(probabilities)
            .all(|(old, new)| (*old > 0.0) == (*new > 0.0))
}

/// Until when an allocation of sticky units is kept by a policy that learns.
fn hold(experiment: &Experiment, last: &Allocated) -> Option<Timestamp> {
    let unit = experiment.unit.as_ref()?;
    (experiment.policy.kind() != "fixed").then(|| last.at.plus(unit.reallocate))
}
