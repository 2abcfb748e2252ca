//! What every segment says by itself: which policy files are in force, and what is drawn from.
//!
//! Old segments are deleted, and with them the records of policies that have not changed for long. Who reads the journal needs them all the
//! same, to know what the rewards and propensities in the rest of it mean. So they are written again, before anything else, to each segment.
//! The fold does not mind: what is already so, becomes so.
//!
//! Not here: when a segment begins (`shelf`), and writing (`keeper`).

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::engine::event::{Event, PolicyAdopted};
use crate::engine::fold::{Allocated, Standing, State};
use crate::experiment::Experiment;
use crate::experiment::id::ExperimentId;

/// What is in force, and which of it the live segment does not have yet.
#[derive(Debug, Default)]
pub(super) struct Statements {
    in_force: Vec<(Arc<Experiment>, u16)>,
    policies: BTreeSet<ExperimentId>,
    allocations: BTreeSet<ExperimentId>,
}

impl Statements {
    /// These experiments are in force from now on, each in its epoch, in place of all others.
    pub(super) fn adopt(&mut self, experiments: &[(Arc<Experiment>, u16)]) {
        let known: BTreeSet<_> = self.ids().collect();
        self.in_force = experiments.to_vec();
        let all: BTreeSet<_> = self.ids().collect();
        self.policies.retain(|id| all.contains(id));
        self.allocations.retain(|id| all.contains(id));
        let new = || all.difference(&known);
        self.policies.extend(new());
        self.allocations.extend(new());
    }

    /// What is written from now on goes to another segment.
    pub(super) fn begin_segment(&mut self) {
        self.policies = self.ids().collect();
        self.allocations = self.ids().collect();
    }

    /// The segment gets this event.
    pub(super) fn note(&mut self, event: &Event) {
        match event {
            Event::PolicyAdopted(policy) => self.policies.remove(&policy.experiment),
            Event::Allocated { experiment, .. } => self.allocations.remove(experiment),
            _ => false,
        };
    }

    /// Whether the segment has it all.
    pub(super) fn are_complete(&self) -> bool {
        self.policies.is_empty() && self.allocations.is_empty()
    }

    /// What the segment lacks, as far as `state` has it.
    pub(super) fn missing(&self, state: &State, at: Timestamp) -> Vec<Event> {
        let mut events = Vec::new();
        for (experiment, epoch) in &self.in_force {
            let id = experiment.id;
            let stands = |standing: &Standing| {
                !standing.retired
                    && standing.epoch == *epoch
                    && standing.version == experiment.version
            };
            let Some(standing) = state.standing(id).filter(stands) else {
                continue;
            };
            if self.policies.contains(&id) {
                let policy = PolicyAdopted::of(experiment, *epoch, at);
                events.push(Event::PolicyAdopted(Box::new(policy)));
            }
            let allocation = standing
                .allocation
                .filter(|_| self.allocations.contains(&id));
            if let Some(allocation) = allocation.filter(|allocation| allocation.epoch == *epoch) {
                events.push(allocated(id, allocation));
            }
        }
        events
    }

    fn ids(&self) -> impl Iterator<Item = ExperimentId> + '_ {
        self.in_force.iter().map(|(experiment, _)| experiment.id)
    }
}

/// The allocation's record, as it was.
fn allocated(experiment: ExperimentId, allocation: Allocated) -> Event {
    Event::Allocated {
        at: allocation.at,
        experiment,
        epoch: allocation.epoch,
        version: allocation.version,
        probabilities: allocation.probabilities,
    }
}
