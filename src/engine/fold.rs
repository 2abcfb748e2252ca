//! State as a fold of what the journal accepted: the same code live, at recovery and offline.
//!
//! [`State::apply`] takes events in journal order and [`State::advance`] closes windows. What was accepted is never judged
//! anew here (see `attribute` for judging). Closing is a function of journalled times: an accepted reward was received before
//! its bucket closed, and what a bucket credits does not depend on when it is closed, so a recovered state equals the live one.
//!
//! Not here: allocations are remembered, not computed (`allocate`), and nothing is read or written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::event::{Event, PolicyAdopted, Rewarded, Verdict};
use super::history::History;
use super::orders::Orders;
use super::snapshot::Tally;
use crate::clock::Timestamp;
use crate::experiment::Experiment;
use crate::experiment::context::ContextRule;
use crate::experiment::decision::{Decision, Ending, LoggedDecision, Outcome, Reason, Shadowed};
use crate::experiment::id::{ArmId, ExperimentId, PolicyVersion};
use crate::policy::Statistics;

/// Bounds on what is remembered, per experiment, and how long a label waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most predictions that wait for their label. Shadows' predictions, and the labels that may score them, are counted apart.
    pub predictions: usize,
    /// Most contexts of decisions that may yet be credited.
    pub contexts: usize,
    /// Most named secondary outcomes that are remembered to tell duplicates.
    pub metrics: usize,
    /// Most keys by which clients may post rewards.
    pub keys: usize,
    /// How long after its decision a label waits for its prediction, in milliseconds.
    pub label_wait: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            predictions: 1_000_000,
            contexts: 500_000,
            metrics: 1_000_000,
            keys: 1_000_000,
            label_wait: 60_000,
        }
    }
}

/// What the journal's events amount to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    #[serde(skip)]
    pub(super) limits: Limits,
    pub(super) experiments: BTreeMap<ExperimentId, History>,
    /// The time up to which windows have been closed.
    pub(super) advanced: Timestamp,
    /// The starts of processes that wrote this journal.
    origins: BTreeSet<u64>,
    #[serde(skip)]
    changed: BTreeSet<ExperimentId>,
    #[serde(skip)]
    plans: Plans,
}

/// What to keep for an experiment whatever its policy records ask for.
pub type Plans = BTreeMap<ExperimentId, (Statistics, Option<Arc<ContextRule>>)>;

/// The last allocation that was journalled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Allocated {
    /// When.
    pub at: Timestamp,
    /// The epoch it was made in.
    pub epoch: u16,
    /// Raised by one at each change, through all epochs.
    pub version: u64,
    /// The probability of each arm.
    pub probabilities: Vec<(ArmId, f64)>,
}

/// Where an experiment stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// The current epoch.
    pub epoch: u16,
    /// The policy file last adopted.
    pub version: PolicyVersion,
    /// Whether its policy file is gone.
    pub retired: bool,
    /// What was last drawn from.
    pub allocation: Option<Allocated>,
    /// What an operator has ordered.
    pub orders: Orders,
}

/// 65,535 epochs were used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no epoch is left after 65535: give the experiment a new name to start afresh")]
pub struct EpochsUsedUp;

impl State {
    /// The state before anything happened.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            experiments: BTreeMap::new(),
            advanced: Timestamp::default(),
            origins: BTreeSet::new(),
            changed: BTreeSet::new(),
            plans: Plans::new(),
        }
    }

    /// A state from a checkpoint, to go on under these limits.
    #[must_use]
    pub fn resumed(self, limits: Limits) -> Self {
        Self {
            limits,
            changed: self.experiments.keys().copied().collect(),
            ..self
        }
    }

    /// How long after a decision something about it may still change what its arm has earned: the longest time of all
    /// experiments, in milliseconds.
    pub fn reach(&self) -> u64 {
        self.experiments
            .values()
            .map(History::reach)
            .max()
            .unwrap_or(0)
    }

    /// Experiments whose policy asks for sums over credits that were made before it did. To have them, the journal is folded again
    /// with these [`Replay::with_plans`](super::replay::Replay::with_plans); until then they start from nothing.
    pub fn incomplete(&self) -> Plans {
        self.experiments
            .iter()
            .filter(|(_, history)| history.incomplete)
            .map(|(id, history)| (*id, (history.statistics, history.context.clone())))
            .collect()
    }

    /// What to keep whatever the policy records to come ask for.
    pub(super) fn set_plans(&mut self, plans: Plans) {
        self.plans = plans;
    }

    /// What adopting this experiment would leave incomplete; `None` if nothing.
    pub fn incomplete_for(&self, experiment: &Experiment) -> Option<Plans> {
        let history = self.experiments.get(&experiment.id)?;
        if self.epoch_for(experiment).ok()? != history.epoch {
            return None;
        }
        let statistics = experiment.policy.statistics();
        let context = experiment.context.clone();
        let complete = statistics.is_scalar()
            || history.keeps(statistics, context.as_deref())
            || !history.has_decisions();
        (!complete).then(|| Plans::from([(experiment.id, (statistics, context))]))
    }

    /// What is known of these experiments but for all they have earned: what a fold of a journal starts from whose beginning is gone.
    #[must_use]
    pub fn emptied(&self, plans: &Plans) -> Self {
        let emptied = |(id, (statistics, context)): (&ExperimentId, &(_, Option<_>))| {
            let history = self.experiments.get(id)?;
            Some((*id, history.emptied(*statistics, context.clone())))
        };
        Self {
            experiments: plans.iter().filter_map(emptied).collect(),
            origins: self.origins.clone(),
            ..Self::new(self.limits)
        }
    }

    /// These experiments alone.
    #[must_use]
    pub fn only(&self, plans: &Plans) -> Self {
        let known = |id: &ExperimentId| Some((*id, self.experiments.get(id)?.clone()));
        Self {
            experiments: plans.keys().filter_map(known).collect(),
            ..Self::new(self.limits)
        }
    }

    /// As [`State::complete`], where the other fold has not seen the beginning: counts and sums stay, and what the policies
    /// ask for beyond them is the other's.
    pub fn complete_in_part(&mut self, plans: &Plans, mut other: Self) {
        for id in plans.keys() {
            if let (Some(own), Some(other)) =
                (self.experiments.get_mut(id), other.experiments.remove(id))
            {
                own.complete_in_part(other);
                self.changed.insert(*id);
            }
        }
    }

    /// Takes these experiments over from another fold of the same events.
    pub fn complete(&mut self, plans: &Plans, mut other: Self) {
        for id in plans.keys() {
            if let Some(history) = other.experiments.remove(id) {
                self.experiments.insert(*id, history);
                self.changed.insert(*id);
            }
        }
    }

    /// The epoch in which `experiment` would go on: the current one, unless rewards now mean something else or the file
    /// declares a
    /// higher number than it did.
    pub fn epoch_for(&self, experiment: &Experiment) -> Result<u16, EpochsUsedUp> {
        let declared = experiment.declared_epoch;
        let Some(history) = self.experiments.get(&experiment.id) else {
            return Ok(declared.max(1));
        };
        let same_meaning = history.meaning == experiment.reward_meaning();
        if same_meaning && declared <= history.declared {
            return Ok(history.epoch);
        }
        let next = history.epoch.checked_add(1).ok_or(EpochsUsedUp)?;
        Ok(next.max(declared))
    }

    /// Where an experiment stands; `None` if the journal never had it.
    pub fn standing(&self, experiment: ExperimentId) -> Option<Standing> {
        let history = self.experiments.get(&experiment)?;
        Some(Standing {
            epoch: history.epoch,
            version: history.version,
            retired: history.retired,
            allocation: history.allocation.clone(),
            orders: history.orders.clone(),
        })
    }

    /// The experiments whose policy file is in force.
    pub fn active(&self) -> impl Iterator<Item = ExperimentId> + '_ {
        self.experiments
            .iter()
            .filter(|(_, history)| !history.retired)
            .map(|(id, _)| *id)
    }

    /// What an arm has earned in the experiment's current epoch.
    pub fn tally(&self, experiment: ExperimentId, arm: ArmId) -> Tally {
        self.experiments
            .get(&experiment)
            .map(|history| history.tally(arm))
            .unwrap_or_default()
    }

    /// What all arms of an experiment have earned in its current epoch, those included that its file no longer names.
    pub fn tallies(&self, experiment: ExperimentId) -> Vec<(ArmId, Tally)> {
        self.experiments
            .get(&experiment)
            .map(|history| history.tallies().collect())
            .unwrap_or_default()
    }

    /// Whether everything about this decision is still remembered. An event about one that is not must not be journalled:
    /// it would count in a recovered state as it could no longer count in this one.
    pub fn remembers(&self, decision: &Decision) -> bool {
        self.experiments
            .get(&decision.experiment)
            .is_none_or(|history| history.remembered_until(decision) > self.advanced)
    }

    /// The experiments whose tallies may have changed since the last call.
    pub fn take_changed(&mut self) -> BTreeSet<ExperimentId> {
        std::mem::take(&mut self.changed)
    }

    /// Takes an event that the journal holds.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Started { origin, .. } => {
                self.origins.insert(*origin);
            }
            Event::PolicyAdopted(adopted) => self.adopt(adopted),
            Event::PolicyRetired { at, experiment } => self.retire(*experiment, *at),
            Event::Allocated {
                at,
                experiment,
                epoch,
                version,
                probabilities,
            } => {
                if let Some(history) = self.experiments.get_mut(experiment) {
                    history.allocation = Some(Allocated {
                        at: *at,
                        epoch: *epoch,
                        version: *version,
                        probabilities: probabilities.clone(),
                    });
                }
            }
            Event::Decided(logged) => self.decided(logged),
            Event::Ended(outcome) => self.ended(outcome),
            Event::Shadowed(shadowed) => self.shadowed(shadowed),
            Event::Rewarded(rewarded) => self.rewarded(rewarded),
            Event::Ordered(ordered) => self.ordered(ordered),
        }
    }

    pub(super) fn note_changed(&mut self, experiment: ExperimentId) {
        self.changed.insert(experiment);
    }

    /// The time up to which windows have been closed.
    pub fn advanced(&self) -> Timestamp {
        self.advanced
    }

    /// Closes the windows that have closed by `now`, and forgets what is no longer needed. Whether any window closed.
    pub fn advance(&mut self, now: Timestamp) -> bool {
        // A clock that steps back must not open again what has closed.
        self.advanced = self.advanced.max(now);
        let mut any = false;
        for (id, history) in &mut self.experiments {
            if history.close(self.advanced) {
                self.changed.insert(*id);
                any = true;
            }
        }
        any
    }

    fn adopt(&mut self, adopted: &PolicyAdopted) {
        let history = self
            .experiments
            .entry(adopted.experiment)
            .or_insert_with(|| History::new(adopted));
        if history.epoch != adopted.epoch {
            let allocation = history.allocation.take();
            let keys = std::mem::take(&mut history.keys);
            let orders = history.orders.of_next_epoch();
            *history = History::new(adopted);
            history.allocation = allocation;
            history.keys = keys;
            history.orders = orders;
        }
        history.adopt(adopted);
        let plan = self.plans.get(&adopted.experiment).cloned();
        let (statistics, context) =
            plan.unwrap_or_else(|| (adopted.statistics, adopted.context.clone()));
        history.keep(statistics, context);
        self.changed.insert(adopted.experiment);
    }

    /// While an experiment is retired its rewards do not count, so its outstanding decisions may not be credited by
    /// default either.
    fn retire(&mut self, experiment: ExperimentId, at: Timestamp) {
        self.advance(at.max(self.advanced));
        if let Some(history) = self.experiments.get_mut(&experiment) {
            history.waive(at);
            self.changed.insert(experiment);
        }
    }

    fn decided(&mut self, logged: &LoggedDecision) {
        let (advanced, limit) = (self.advanced, self.limits.contexts);
        let history = self.experiments.get_mut(&logged.decision.experiment);
        if let (Some(key), Some(history)) = (logged.key, history) {
            let (decision, limit) = (&logged.decision, self.limits.keys);
            history.keys.insert(decision, key, logged.instead_of, limit);
        }
        if let Some(history) = self.sampled(&logged.decision) {
            history.decided(logged, advanced, limit);
            self.changed.insert(logged.decision.experiment);
        }
    }

    fn ended(&mut self, outcome: &Outcome) {
        let (advanced, limit) = (self.advanced, self.limits.predictions);
        let decision = &outcome.decision;
        let own = self.is_own(decision);
        let Some(history) = self.sampled(decision) else {
            return;
        };
        if history.label.is_some() {
            let prediction = outcome.prediction.clone();
            history.predictions.insert(decision, prediction, limit);
        }
        if outcome.ending == Ending::Failed {
            history.failed(outcome, own, advanced);
            self.changed.insert(decision.experiment);
        }
    }

    fn shadowed(&mut self, shadowed: &Shadowed) {
        let limit = self.limits.predictions;
        let decision = &shadowed.outcome.decision;
        if let Some(history) = self.sampled(decision) {
            history.shadowed(shadowed, limit);
            self.changed.insert(decision.experiment);
        }
    }

    fn rewarded(&mut self, rewarded: &Rewarded) {
        if rewarded.verdict != Verdict::Accepted {
            return;
        }
        let (advanced, limits) = (self.advanced, self.limits);
        let decision = &rewarded.decision;
        let own = self.is_own(decision);
        let Some(history) = self.sampled(decision) else {
            return;
        };
        if let Some(metric) = &rewarded.metric {
            history.measured(metric, rewarded, limits.metrics);
        } else {
            history.rewarded(rewarded, own, advanced, limits.contexts);
            history.labelled(rewarded, limits.predictions);
        }
        self.changed.insert(decision.experiment);
    }

    /// Whether the decision was made by a process that wrote this journal, so that the journal may hold it.
    fn is_own(&self, decision: &Decision) -> bool {
        self.origins.contains(&decision.sequence.origin)
    }

    /// The history that a sampled decision of the current epoch counts in, unless its arm has begun anew since.
    fn sampled(&mut self, decision: &Decision) -> Option<&mut History> {
        self.experiments
            .get_mut(&decision.experiment)
            .filter(|history| decision.reason == Reason::Sampled && decision.epoch == history.epoch)
            .filter(|history| !history.orders.have_reset(decision))
    }
}

#[cfg(test)]
mod tests;
