//! The keys that clients have chosen for their decisions, by which they may post rewards.
//!
//! A key names the decision that was made for the request that carried it; one that names several names none. Remembered are the
//! hashes of keys, as long as anything about their decisions is: for the window and ten minutes, in whole stretches of
//! decision time, so that what is remembered does not depend on when it is forgotten. Of more than the set number the oldest go
//! first, and are counted. Not here: the hashing, which is keyed (`chance`).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::attribute::{Claim, Tentative};
use super::fold::State;
use crate::clock::Timestamp;
use crate::experiment::decision::{Decision, LoggedDecision, Reason};
use crate::experiment::id::{ArmId, ExperimentId, KeyHash, Name, PolicyVersion, SequenceKey};

/// Length of a stretch of decision time, in milliseconds.
const STRETCH: u64 = 10 * 60 * 1000;

/// Which decision a reward is for, as it was posted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Subject {
    /// By its id.
    Decision(Decision),
    /// By the client's own key.
    Key(ExperimentId, KeyHash),
}

/// What a decision says beyond its time, sequence key and experiment.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Rest {
    epoch: u16,
    arm: ArmId,
    policy_version: PolicyVersion,
    propensity: f64,
    reason: Reason,
}

/// The keyed decisions of an experiment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct RewardKeys {
    by_key: BTreeMap<(KeyHash, Timestamp, SequenceKey), Rest>,
    by_time: BTreeSet<(Timestamp, SequenceKey, KeyHash)>,
    /// By stretch of decision time: the keys that were pushed out by newer ones.
    evicted: BTreeMap<u64, u64>,
    /// Of these, the ones that nobody was told of.
    #[serde(skip)]
    untold: u64,
}

impl RewardKeys {
    /// Remembers the key of a decision; pushes the oldest out when there are more than `limit`. A decision in place of another one
    /// takes its key over: there was one request, and its answer came under the second decision.
    pub(super) fn insert(
        &mut self,
        decision: &Decision,
        key: KeyHash,
        instead_of: Option<SequenceKey>,
        limit: usize,
    ) {
        if let Some(first) = instead_of {
            self.remove(key, first);
        }
        let rest = Rest {
            epoch: decision.epoch,
            arm: decision.arm,
            policy_version: decision.policy_version,
            propensity: decision.propensity,
            reason: decision.reason,
        };
        let (at, sequence) = (decision.at, decision.sequence);
        self.by_key.insert((key, at, sequence), rest);
        self.by_time.insert((at, sequence, key));
        while self.by_time.len() > limit
            && let Some((at, sequence, key)) = self.by_time.pop_first()
        {
            self.by_key.remove(&(key, at, sequence));
            *self.evicted.entry(stretch(at)).or_default() += 1;
            self.untold += 1;
        }
    }

    fn remove(&mut self, key: KeyHash, sequence: SequenceKey) {
        let mut places = self.places(key);
        let place = places.find(|(_, _, other)| *other == sequence).copied();
        drop(places);
        if let Some((key, at, sequence)) = place {
            self.by_key.remove(&(key, at, sequence));
            self.by_time.remove(&(at, sequence, key));
        }
    }

    fn places(
        &self,
        key: KeyHash,
    ) -> impl Iterator<Item = &(KeyHash, Timestamp, SequenceKey)> + '_ {
        self.of(key).map(|(place, _)| place)
    }

    fn of(
        &self,
        key: KeyHash,
    ) -> impl Iterator<Item = (&(KeyHash, Timestamp, SequenceKey), &Rest)> + '_ {
        let first = SequenceKey {
            origin: 0,
            worker: 0,
            counter: 0,
        };
        self.by_key
            .range((key, Timestamp::default(), first)..)
            .take_while(move |((other, ..), _)| *other == key)
    }

    /// The decisions that have this key.
    fn decisions(
        &self,
        experiment: ExperimentId,
        key: KeyHash,
    ) -> impl Iterator<Item = Decision> + '_ {
        self.of(key).map(move |((_, at, sequence), rest)| Decision {
            sequence: *sequence,
            at: *at,
            experiment,
            epoch: rest.epoch,
            arm: rest.arm,
            policy_version: rest.policy_version,
            propensity: rest.propensity,
            reason: rest.reason,
        })
    }

    /// Forgets stretches that ended before `cutoff`.
    pub(super) fn forget_before(&mut self, cutoff: Timestamp) {
        let first = stretch(cutoff);
        while let Some((at, sequence, key)) = self.by_time.first().copied()
            && stretch(at) < first
        {
            self.by_time.pop_first();
            self.by_key.remove(&(key, at, sequence));
        }
        if self
            .evicted
            .first_key_value()
            .is_some_and(|(stretch, _)| *stretch < first)
        {
            self.evicted = self.evicted.split_off(&first);
        }
    }

    /// How many keys were pushed out since the last call.
    pub(super) fn take_untold(&mut self) -> u64 {
        std::mem::take(&mut self.untold)
    }

    /// Why a key names no decision.
    fn unknown(&self, experiment: &Name, limit: usize) -> String {
        let mut why = format!(
            "experiment {experiment} has no decision with this key: none was made, its window has closed, or its record was lost before \
             it reached the journal"
        );
        if let Some((first, _)) = self.evicted.first_key_value() {
            let evicted: u64 = self.evicted.values().sum();
            let since = Timestamp::from_millis(first * STRETCH);
            why.push_str(&format!(
                "; or it was evicted: {evicted} keys of decisions since {since} were, because limits.reward_keys is {limit}"
            ));
        } else if self.by_time.is_empty() {
            why.push_str(
                "; it has no keys at all: does its policy file have `key` in [reward], and do requests carry that header?",
            );
        }
        why
    }
}

fn stretch(at: Timestamp) -> u64 {
    at.as_millis() / STRETCH
}

/// The keys of decisions that are not yet durable.
#[derive(Debug, Default)]
pub(super) struct FreshKeys {
    decisions: HashMap<(ExperimentId, KeyHash), Vec<Decision>>,
    /// Decisions whose key another one has taken over.
    replaced: HashSet<SequenceKey>,
}

impl FreshKeys {
    /// Takes note of a decision's key, if it has one.
    pub(super) fn note(&mut self, logged: &LoggedDecision) {
        let Some(key) = logged.key else {
            return;
        };
        self.replaced.extend(logged.instead_of);
        let named = (logged.decision.experiment, key);
        self.decisions
            .entry(named)
            .or_default()
            .push(logged.decision);
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.decisions.clear();
        self.replaced.clear();
    }
}

impl State {
    /// Finds the decision that a claim is for, and whether it is the reward.
    ///
    /// # Errors
    ///
    /// Why its key names no decision, or that it lacks its metric; the claim is invalid.
    pub fn resolve(&self, tentative: &Tentative, claim: Claim<Subject>) -> Result<Claim, String> {
        let decision = match claim.decision {
            Subject::Decision(decision) => decision,
            Subject::Key(experiment, key) => self.by_key(tentative, experiment, key)?,
        };
        self.meant(claim.of(decision))
    }

    /// What is posted as the metric that the policy file names is the reward.
    fn meant(&self, claim: Claim) -> Result<Claim, String> {
        let history = self.current(&claim.decision);
        let Some((history, wanted)) =
            history.and_then(|history| Some((history, history.metric.as_ref()?)))
        else {
            return Ok(claim);
        };
        match &claim.metric {
            None => Err(format!(
                "experiment {} learns from the metric {wanted}: say which metric this is, as in \"metric\": \"{wanted}\"",
                history.name
            )),
            Some(metric) if metric == wanted => Ok(Claim {
                metric: None,
                ..claim
            }),
            Some(_) => Ok(claim),
        }
    }

    fn by_key(
        &self,
        tentative: &Tentative,
        experiment: ExperimentId,
        key: KeyHash,
    ) -> Result<Decision, String> {
        let Some(history) = self.experiments.get(&experiment) else {
            return Err("there is no experiment of this name".to_owned());
        };
        let fresh = tentative.keys.decisions.get(&(experiment, key));
        let mut decisions = history
            .keys
            .decisions(experiment, key)
            .chain(fresh.into_iter().flatten().copied())
            .filter(|decision| !tentative.keys.replaced.contains(&decision.sequence));
        match (decisions.next(), decisions.next()) {
            (Some(decision), None) => Ok(decision),
            (None, _) => Err(history.keys.unknown(&history.name, self.limits.keys)),
            (Some(_), Some(_)) => Err(format!(
                "experiment {} has several decisions with this key, so it is not known which one is meant: post this reward by \"decision_id\", and give each request a key of its own",
                history.name
            )),
        }
    }

    /// The experiments that have pushed keys out since the last call, and how many.
    pub fn take_evicted(&mut self) -> Vec<(Name, u64)> {
        self.experiments
            .values_mut()
            .map(|history| (history.name.clone(), history.keys.take_untold()))
            .filter(|(_, evicted)| *evicted > 0)
            .collect()
    }
}
