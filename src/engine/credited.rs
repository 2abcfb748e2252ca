//! What single decisions were credited with, for who wants to know it decision by decision. The fold adds the same credits up and
//! forgets whose they were; the parts that decide are shared with it.
//!
//! Not here: which rewards count (`attribute`), and what a policy makes of them (`learned`).

use std::collections::{BTreeMap, HashMap};

use super::aggregate::{Entry, Item};
use super::closing::BucketKey;
use super::event::{PolicyAdopted, Rewarded};
use crate::clock::Timestamp;
use crate::experiment::decision::{Decision, Ending, Outcome, Reason};
use crate::experiment::id::{ExperimentId, PolicyVersion};
use crate::experiment::reward::RewardRule;

/// The reward rules of every epoch of every experiment, and when they were in force.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    epochs: HashMap<(ExperimentId, u16), Epoch>,
    current: HashMap<ExperimentId, u16>,
}

#[derive(Debug, Clone)]
struct Epoch {
    /// The last one.
    rule: RewardRule,
    versions: BTreeMap<PolicyVersion, RewardRule>,
    /// From when until when a policy file was in force; `None`: it still is.
    in_force: Vec<(Timestamp, Option<Timestamp>)>,
}

impl Epoch {
    fn end(&mut self, at: Timestamp) {
        if let Some((_, until @ None)) = self.in_force.last_mut() {
            *until = Some(at);
        }
    }
}

impl Rules {
    /// Takes note of a policy file that came into force. To be told in the journal's order.
    pub fn adopt(&mut self, adopted: &PolicyAdopted) {
        let experiment = adopted.experiment;
        let before = self.current.insert(experiment, adopted.epoch);
        if let Some(before) = before.filter(|before| *before != adopted.epoch)
            && let Some(epoch) = self.epochs.get_mut(&(experiment, before))
        {
            epoch.end(adopted.at);
        }
        let epoch = self
            .epochs
            .entry((experiment, adopted.epoch))
            .or_insert_with(|| Epoch {
                rule: adopted.reward,
                versions: BTreeMap::new(),
                in_force: Vec::new(),
            });
        epoch.rule = adopted.reward;
        epoch.versions.insert(adopted.version, adopted.reward);
        if epoch
            .in_force
            .last()
            .is_none_or(|(_, until)| until.is_some())
        {
            epoch.in_force.push((adopted.at, None));
        }
    }

    /// Takes note of a policy file that is gone.
    pub fn retire(&mut self, experiment: ExperimentId, at: Timestamp) {
        let current = self.current.get(&experiment);
        if let Some(epoch) = current.and_then(|epoch| self.epochs.get_mut(&(experiment, *epoch))) {
            epoch.end(at);
        }
    }

    /// The rule that held when the decision was made; `None` if no policy file of its epoch is known.
    pub fn of(&self, decision: &Decision) -> Option<&RewardRule> {
        let epoch = self.epochs.get(&(decision.experiment, decision.epoch))?;
        let own = epoch.versions.get(&decision.policy_version);
        Some(own.unwrap_or(&epoch.rule))
    }

    /// What the failure of its arm is worth to a decision that has no reward yet.
    pub fn failure_credit(&self, outcome: &Outcome) -> Option<f64> {
        let decision = &outcome.decision;
        let rule = self.of(decision)?;
        let failed = outcome.ending == Ending::Failed && decision.reason == Reason::Sampled;
        let in_time = outcome.at <= decision.at.plus(rule.window);
        rule.on_failure.filter(|_| failed && in_time)
    }

    /// What a decision that has neither a reward nor a failure's credit was credited with by `now`, because its window closed. Nothing,
    /// where the epoch ended or the policy file was removed before.
    pub fn default_credit(&self, decision: &Decision, now: Timestamp) -> Option<f64> {
        let epoch = self.epochs.get(&(decision.experiment, decision.epoch))?;
        let value = epoch.rule.default?;
        let window = self.of(decision)?.window;
        let closes = BucketKey::of(decision.at, window).closes();
        let mut stretches = epoch.in_force.iter().rev();
        let (_, until) = stretches
            .find(|(from, _)| *from <= decision.at)
            .or(epoch.in_force.first())?;
        let until = until.map_or(now, |until| until.min(now));
        (decision.reason == Reason::Sampled && closes <= until).then_some(value)
    }
}

/// The rewards of one decision that counted, made into one by `last`, `sum`, `mean` or `max`.
#[derive(Debug, Clone)]
pub struct Aggregated(Entry);

impl Default for Aggregated {
    fn default() -> Self {
        Self(Entry::new(None))
    }
}

impl Aggregated {
    /// Adds a reward that counted.
    pub fn add(&mut self, rewarded: &Rewarded, rule: &RewardRule) {
        let item = Item::of(rewarded);
        if let Ok(next) = self.0.with(item, rule.aggregate, rule.kind) {
            self.0 = next;
        }
    }

    /// What they amount to.
    pub fn value(&self) -> Option<f64> {
        self.0.value
    }
}
