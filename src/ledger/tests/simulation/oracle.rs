//! What must hold, found from the journal's lines and the clients' answers by other means than the fold's.

use std::collections::BTreeSet;

use super::*;
use crate::engine::event::PolicyAdopted;
use crate::engine::replay::Replay;
use crate::journal::scan;
use crate::stats::moments::Moments;

/// What is counted once: a decision's reward, or one of several by its id, or a named outcome.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    sequence: SequenceKey,
    metric: Option<String>,
    id: Option<Box<str>>,
}

impl Key {
    pub(super) fn of(claim: &Claim) -> Self {
        Self {
            sequence: claim.decision.sequence,
            metric: claim.metric.as_ref().map(ToString::to_string),
            id: claim.id.clone(),
        }
    }

    fn of_event(rewarded: &Rewarded) -> Self {
        Self {
            sequence: rewarded.decision.sequence,
            metric: rewarded.metric.as_ref().map(ToString::to_string),
            id: rewarded.id.clone(),
        }
    }
}

/// What was told to clients and the learner.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    /// Whether windows are edited. What may be forgotten depends on the longest that was known, and so on when it is forgotten.
    pub(super) windows_change: bool,
    posted: BTreeSet<Key>,
    acknowledged: BTreeSet<Key>,
    /// Answered `duplicate`: counted already.
    promised: BTreeSet<Key>,
    ended: BTreeSet<SequenceKey>,
    allocated: BTreeMap<ExperimentId, u64>,
    asked: BTreeMap<ExperimentId, u64>,
}

impl Oracle {
    pub(super) fn new(windows_change: bool) -> Self {
        Self {
            windows_change,
            ..Self::default()
        }
    }

    pub(super) fn posted(&mut self, key: &Key) {
        self.posted.insert(key.clone());
    }

    pub(super) fn acknowledged(&mut self, key: &Key) {
        assert!(
            self.acknowledged.insert(key.clone()),
            "accepted twice: {key:?}"
        );
    }

    pub(super) fn promised(&mut self, key: &Key) {
        self.promised.insert(key.clone());
    }

    /// Whether the exchange ends for the first time.
    pub(super) fn ends(&mut self, sequence: SequenceKey) -> bool {
        self.ended.insert(sequence)
    }

    pub(super) fn next_allocation(&mut self, experiment: ExperimentId) -> u64 {
        let asked = self.asked.entry(experiment).or_default();
        *asked += 1;
        *asked
    }

    pub(super) fn allocated(&mut self, experiment: ExperimentId, version: u64) {
        self.allocated.insert(experiment, version);
    }

    /// Every acknowledged reward is in the journal, none is there twice, and none that nobody posted.
    pub(super) fn check_journal(&self, disk: &MemoryStorage) {
        let (mut accepted, mut failed) = (BTreeSet::new(), BTreeSet::new());
        let mut allocated = BTreeMap::new();
        for event in events(disk) {
            match event {
                Event::Rewarded(rewarded) if rewarded.verdict == Verdict::Accepted => {
                    let key = Key::of_event(&rewarded);
                    assert!(self.posted.contains(&key), "nobody posted {key:?}");
                    assert!(accepted.insert(key), "counted twice: {rewarded:?}");
                }
                Event::Ended(outcome) if outcome.ending == Ending::Failed => {
                    failed.insert(outcome.decision.sequence);
                }
                Event::Allocated {
                    experiment,
                    version,
                    ..
                } => {
                    allocated.insert(experiment, version);
                }
                _ => {}
            }
        }
        for key in &self.acknowledged {
            assert!(accepted.contains(key), "lost: {key:?}");
        }
        for key in &self.promised {
            // The failure of an arm may stand in place of its reward; where only the first counts, so may another client's.
            let counted = accepted.contains(key) || failed.contains(&key.sequence);
            assert!(counted, "told to be counted already, and is not: {key:?}");
        }
        for (experiment, version) in &self.allocated {
            assert!(
                allocated.get(experiment) >= Some(version),
                "drawn from and lost: {version}"
            );
        }
    }

    /// The live state is what would be recovered, at the same time.
    pub(super) fn check_live(
        &self,
        disk: &MemoryStorage,
        live: &State,
        unapplied: &[Event],
        now: Timestamp,
    ) {
        let journal = events(disk);
        // A commit may have failed whose bytes are there all the same: then some of what is unapplied is recovered too.
        let there = (0..=unapplied.len())
            .rev()
            .find(|there| journal.ends_with(&unapplied[..*there]));
        let mut live = live.clone();
        for event in &unapplied[..there.unwrap_or(0)] {
            live.apply(event);
        }
        let mut replay = Replay::new(Limits::default(), now);
        for event in &journal {
            replay.push(event);
        }
        if replay.is_hasty() {
            replay = Replay::new(Limits::default(), now).patient();
            for event in &journal {
                replay.push(event);
            }
        }
        let mut recovered = replay.finish();
        let until = recovered.advanced().max(live.advanced());
        for state in [&mut live, &mut recovered] {
            state.advance(until);
            state.take_changed();
        }
        for experiment in live.active().chain(recovered.active()) {
            assert_eq!(live.standing(experiment), recovered.standing(experiment));
            assert_eq!(live.tallies(experiment), recovered.tallies(experiment));
        }
        if self.windows_change {
            for state in [&mut live, &mut recovered] {
                state.advance(until.plus(100 * 24 * 3_600_000));
                state.take_changed();
            }
        }
        assert!(
            live == recovered,
            "live:\n{live:#?}\nrecovered:\n{recovered:#?}"
        );
    }

    /// What the arms of each experiment in force have earned, all windows being closed, is what a plain reading of the journal gives.
    /// Gives the number of default credits.
    pub(super) fn check_credits(disk: &MemoryStorage, state: &State) -> u64 {
        let mut models = BTreeMap::new();
        for event in events(disk) {
            Model::take(&mut models, &event);
        }
        let mut defaults = 0;
        for (experiment, model) in models {
            let tallies: BTreeMap<_, _> = state.tallies(experiment).into_iter().collect();
            defaults += model.check(&tallies);
        }
        defaults
    }
}

fn events(disk: &MemoryStorage) -> Vec<Event> {
    let mut events = Vec::new();
    scan(disk, |event| events.push(event)).expect("a readable journal");
    events
}

/// One experiment's current epoch, read plainly: every credit is computed anew from the decisions' own rewards.
#[derive(Debug)]
struct Model {
    adopted: PolicyAdopted,
    windows: BTreeMap<PolicyVersion, u64>,
    /// Whether outstanding decisions were ever given up.
    waived: bool,
    decided: BTreeMap<SequenceKey, ArmId>,
    failures: BTreeMap<ArmId, u64>,
    rewards: BTreeMap<SequenceKey, (ArmId, Vec<(Timestamp, f64)>)>,
    failed: BTreeMap<SequenceKey, (ArmId, f64)>,
}

impl Model {
    fn take(models: &mut BTreeMap<ExperimentId, Self>, event: &Event) {
        match event {
            Event::PolicyAdopted(adopted) => {
                let model = models
                    .entry(adopted.experiment)
                    .or_insert_with(|| Self::new(adopted));
                if model.adopted.epoch != adopted.epoch {
                    *model = Self::new(adopted);
                }
                model.windows.insert(adopted.version, adopted.reward.window);
            }
            Event::PolicyRetired { experiment, .. } => {
                if let Some(model) = models.get_mut(experiment) {
                    model.waived = true;
                }
            }
            Event::Decided(logged) => {
                if let Some(model) = Self::of(models, &logged.decision) {
                    let known = model
                        .decided
                        .insert(logged.decision.sequence, logged.decision.arm);
                    assert_eq!(known, None, "decided twice");
                }
            }
            Event::Ended(outcome) if outcome.ending == Ending::Failed => {
                if let Some(model) = Self::of(models, &outcome.decision) {
                    model.fail(outcome);
                }
            }
            Event::Rewarded(rewarded)
                if rewarded.verdict == Verdict::Accepted && rewarded.metric.is_none() =>
            {
                if let Some(model) = Self::of(models, &rewarded.decision) {
                    let arm = rewarded.decision.arm;
                    let (_, items) = model
                        .rewards
                        .entry(rewarded.decision.sequence)
                        .or_insert((arm, Vec::new()));
                    items.push((rewarded.received, rewarded.value));
                }
            }
            _ => {}
        }
    }

    fn of<'a>(
        models: &'a mut BTreeMap<ExperimentId, Self>,
        decision: &Decision,
    ) -> Option<&'a mut Self> {
        models.get_mut(&decision.experiment).filter(|model| {
            model.adopted.epoch == decision.epoch && decision.reason == Reason::Sampled
        })
    }

    fn new(adopted: &PolicyAdopted) -> Self {
        Self {
            adopted: adopted.clone(),
            windows: BTreeMap::new(),
            waived: false,
            decided: BTreeMap::new(),
            failures: BTreeMap::new(),
            rewards: BTreeMap::new(),
            failed: BTreeMap::new(),
        }
    }

    fn fail(&mut self, outcome: &Outcome) {
        let decision = &outcome.decision;
        *self.failures.entry(decision.arm).or_default() += 1;
        let window = self.windows[&decision.policy_version];
        let in_time = outcome.at <= decision.at.plus(window);
        if let Some(value) = self.adopted.reward.on_failure
            && in_time
            && !self.rewards.contains_key(&decision.sequence)
        {
            self.failed.insert(decision.sequence, (decision.arm, value));
        }
    }

    fn value(&self, items: &[(Timestamp, f64)]) -> f64 {
        let values = || items.iter().map(|(_, value)| *value);
        match self.adopted.reward.aggregate {
            Aggregate::First => {
                assert_eq!(items.len(), 1, "counted twice");
                items[0].1
            }
            Aggregate::Last => {
                items
                    .iter()
                    .fold(
                        items[0],
                        |last, item| if item.0 >= last.0 { *item } else { last },
                    )
                    .1
            }
            Aggregate::Sum => values().sum(),
            Aggregate::Mean => values().sum::<f64>() / items.len() as f64,
            Aggregate::Max => values().fold(f64::MIN, f64::max),
        }
    }

    fn check(&self, tallies: &BTreeMap<ArmId, Tally>) -> u64 {
        let arms: BTreeSet<_> = self.adopted.arms.iter().map(|(arm, ..)| *arm).collect();
        let mut credited = 0;
        for arm in arms {
            let tally = tallies.get(&arm).cloned().unwrap_or_default();
            let mut learned = Moments::default();
            for (_, items) in self.rewards.values().filter(|(of, _)| *of == arm) {
                learned.add(self.value(items), 1);
            }
            assert_eq!(tally.rewards, learned, "rewards of {self:?}");
            for (_, value) in self.failed.values().filter(|(of, _)| *of == arm) {
                learned.add(*value, 1);
            }
            let decided = self
                .decided
                .iter()
                .filter(|(_, of)| **of == arm)
                .map(|(sequence, _)| sequence);
            assert_eq!(tally.decisions, decided.clone().count() as u64);
            assert_eq!(
                tally.failures,
                self.failures.get(&arm).copied().unwrap_or(0)
            );
            let is_credited = |sequence: &SequenceKey| {
                self.rewards.contains_key(sequence) || self.failed.contains_key(sequence)
            };
            let uncredited = decided.filter(|sequence| !is_credited(sequence)).count() as u64;
            // Credits of decisions that never reached the journal: each stands in the way of at most one default.
            let rewarded = self
                .rewards
                .iter()
                .filter(|(_, (of, _))| *of == arm)
                .map(|(sequence, _)| sequence);
            let failed = self
                .failed
                .iter()
                .filter(|(_, (of, _))| *of == arm)
                .map(|(sequence, _)| sequence);
            let strangers = rewarded
                .chain(failed)
                .filter(|sequence| !self.decided.contains_key(sequence))
                .count() as u64;
            let Some(default) = self.adopted.reward.default else {
                assert_eq!((tally.learned, tally.defaults), (learned, 0));
                continue;
            };
            learned.add(default, tally.defaults);
            assert_eq!(tally.learned, learned, "credits of {self:?}");
            let fewest = if self.waived {
                0
            } else {
                uncredited.saturating_sub(strangers)
            };
            assert!(
                (fewest..=uncredited).contains(&tally.defaults),
                "{} defaults, not {fewest} to {uncredited}: {self:?}",
                tally.defaults
            );
            credited += tally.defaults;
        }
        credited
    }
}
