//! What policy files change: where experiments would go on, and taking over what is new about them.
//!
//! Not here: reading policy files (`config`), and when they are read (`reload`).

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::restore::fold_again;
use super::super::{AdoptError, Adoption, Prospect, Reply, Unavailable, prospect};
use super::Keeper;
use crate::clock::Timestamp;
use crate::engine::event::{Event, PolicyAdopted};
use crate::engine::fold::{Plans, State};
use crate::experiment::Experiment;
use crate::journal::Storage;

impl<S: Storage> Keeper<S> {
    /// Where these experiments would go on.
    pub(super) fn prospects(
        &self,
        experiments: &[Arc<Experiment>],
    ) -> Result<Vec<Prospect>, AdoptError> {
        let plans: Plans = experiments
            .iter()
            .filter_map(|experiment| self.state.incomplete_for(experiment))
            .flatten()
            .collect();
        let again = self.fold_again(&plans);
        experiments
            .iter()
            .map(|experiment| {
                let refolded = again
                    .as_ref()
                    .filter(|_| plans.contains_key(&experiment.id));
                prospect(refolded.unwrap_or(&self.state), experiment, self.revision)
            })
            .collect()
    }

    /// Folds the journal again for policies that ask for what was not kept; `None` if none does, or if it cannot be read.
    ///
    /// Nothing else is journalled meanwhile: it takes about a second for a million events. What waits in the bounded queues stays there.
    fn fold_again(&self, plans: &Plans) -> Option<State> {
        if plans.is_empty() {
            return None;
        }
        tracing::info!(
            experiments = plans.len(),
            "folding the journal again: a changed policy learns from what was not kept"
        );
        let now = self.state.advanced();
        let storage = self.writer.storage();
        match fold_again(storage, &self.state, self.limits, now, plans) {
            Ok(state) => Some(state),
            Err(error) => {
                tracing::warn!(%error, "the journal cannot be folded again: the changed policies start from their priors");
                None
            }
        }
    }

    /// Makes up for what an adopted policy asks for and was not kept.
    fn complete(&mut self) {
        let plans = self.state.incomplete();
        if let Some(again) = self.fold_again(&plans) {
            self.state.complete(&plans, again);
        }
    }

    /// Writes what is new about the policies. Everything else is durable and applied when this begins.
    pub(super) fn adopt(&mut self, adoption: &Adoption, reply: Reply<Result<(), Unavailable>>) {
        if self.writer.is_failing() {
            reply.send(Err(Unavailable::Failing)).ok();
            return;
        }
        // Not before what has closed, even if the clock was set back: a replay closes at a retirement what had closed by then.
        let at = self.clock.now().max(self.state.advanced());
        let kept: BTreeSet<_> = adoption
            .experiments
            .iter()
            .map(|(experiment, _)| experiment.id)
            .collect();
        let retired = self
            .state
            .active()
            .filter(|experiment| !kept.contains(experiment))
            .map(|experiment| Event::PolicyRetired { at, experiment });
        let changed = adoption
            .experiments
            .iter()
            .filter(|(experiment, epoch)| {
                self.state.standing(experiment.id).is_none_or(|standing| {
                    standing.retired
                        || standing.epoch != *epoch
                        || standing.version != experiment.version
                })
            })
            .map(|(experiment, epoch)| adopted(experiment, *epoch, at));
        let events: Vec<_> = retired
            .chain(changed)
            .chain(adoption.allocations.iter().cloned())
            .collect();
        self.statements.adopt(&adoption.experiments);
        self.promise(events, reply);
        if self.commit() {
            self.complete();
        }
    }
}

fn adopted(experiment: &Experiment, epoch: u16, at: Timestamp) -> Event {
    Event::PolicyAdopted(Box::new(PolicyAdopted::of(experiment, epoch, at)))
}
