//! A recorded run is cut at every byte and flipped at every byte. What was acknowledged in a group that is still whole counts once, nothing
//! else does, and the damage is told.
//!
//! The run has four segments, three experiments, two epochs, three aggregates, defaults, failures, corrections and contexts. Every bit of it:
//!
//! ```sh
//! cargo test --release --no-default-features --lib every_bit -- --ignored --nocapture
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use super::super::reader::write_commit;
use super::*;
use crate::clock::Timestamp;
use crate::engine::attribute::{Claim, Judgement, Posted, Tentative};
use crate::engine::event::{PolicyAdopted, Rewarded, Verdict};
use crate::engine::fold::{Limits, State};
use crate::engine::replay::Replay;
use crate::engine::snapshot::Tally;
use crate::experiment::context::{ContextRule, Encoding, Feature, Source, Value};
use crate::experiment::decision::{Decision, Ending, LoggedContext, LoggedDecision, Outcome};
use crate::experiment::id::{ArmId, ExperimentId, Name, PolicyVersion, SequenceKey};
use crate::experiment::reward::{Aggregate, Learn, RewardKind, RewardRule};
use crate::policy::{Memory, Regression, Statistics};

const MINUTE: u64 = 60_000;
const SEGMENTS: usize = 4;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(1_795_500_000_000 + millis)
}

fn features() -> ContextRule {
    ContextRule::new(vec![Feature {
        name: "prime".into(),
        source: Source::Header("x-prime".into()),
        encoding: Encoding::Boolean,
    }])
}

/// Clicks, revenue and stars: the first counts, all are added up, the last counts and is learned with its context.
fn policy(which: usize, epoch: u16) -> PolicyAdopted {
    let called = ["clicks", "revenue", "stars"][which];
    let name = Name::new(called).unwrap();
    let base = samples::policy();
    let mut reward = RewardRule {
        window: MINUTE,
        ..base.reward
    };
    let (mut context, mut statistics) = (None, Statistics::SCALAR);
    match which {
        0 => reward.default = Some(0.0),
        1 => {
            (reward.kind, reward.aggregate) = (RewardKind::Real, Aggregate::Sum);
            (reward.learn, reward.on_failure) = (Learn::Close, Some(-1.0));
        }
        _ => {
            (reward.kind, reward.aggregate) = (RewardKind::Real, Aggregate::Last);
            reward.default = Some(0.5);
            context = Some(Arc::new(features()));
            statistics = Statistics {
                memory: Memory::HalfLife(10 * MINUTE),
                importance: Some(0.5),
                regression: Some(Regression::Linear),
            };
        }
    }
    PolicyAdopted {
        at: at(0),
        experiment: ExperimentId::of(&name),
        version: PolicyVersion([epoch as u8; 6]),
        epoch,
        declared_epoch: epoch,
        reward_meaning: called.to_owned(),
        reward,
        context,
        statistics,
        arms: ["a", "b"]
            .map(|arm| Name::new(arm).unwrap())
            .map(|arm| (ArmId::of(&name, &arm, ""), arm, String::new()))
            .to_vec(),
        text: Arc::from(format!("[match]\npath = \"/{called}\"\n")),
        name,
        ..base
    }
}

/// Judges and journals as the ledger does, in groups of a few events.
#[derive(Default)]
struct Recording {
    state: Option<State>,
    groups: Vec<Vec<Event>>,
    decided: u64,
}

impl Recording {
    fn record(&mut self, event: Event) {
        let state = self
            .state
            .get_or_insert_with(|| State::new(Limits::default()));
        state.apply(&event);
        self.groups.last_mut().unwrap().push(event);
    }

    fn decide(&mut self, which: usize, epoch: u16, now: u64) -> Decision {
        self.decided += 1;
        let policy = policy(which, epoch);
        let decision = Decision {
            sequence: SequenceKey {
                origin: 7,
                worker: 0,
                counter: self.decided,
            },
            at: at(now),
            experiment: policy.experiment,
            epoch,
            arm: policy.arms[self.decided as usize % 2].0,
            policy_version: policy.version,
            ..samples::decision(1)
        };
        let context = (which == 2).then(|| {
            let prime = Value::Boolean(self.decided.is_multiple_of(3));
            Box::new(LoggedContext {
                context: features().context(vec![prime].into()),
                probabilities: vec![(policy.arms[0].0, 0.25), (policy.arms[1].0, 0.75)],
            })
        });
        self.record(Event::Decided(LoggedDecision {
            decision,
            context,
            ..samples::logged(1)
        }));
        decision
    }

    fn reward(&mut self, decision: Decision, now: u64, id: &str, value: f64) {
        let claim = Claim {
            decision,
            received: at(now),
            at: None,
            metric: None,
            id: Some(id.into()),
            posted: Posted::Reward(value),
        };
        let state = self.state.as_ref().unwrap();
        match state.judge(&mut Tentative::default(), claim, at(now)) {
            Judgement::Judged(rewarded) => self.record(Event::Rewarded(rewarded)),
            other => panic!("{other:?}"),
        }
    }

    fn fail(&mut self, decision: Decision, now: u64) {
        self.record(Event::Ended(Outcome {
            decision,
            at: at(now),
            ending: Ending::Failed,
            prediction: None,
            ..samples::outcome(1)
        }));
    }
}

fn record() -> Vec<Vec<Event>> {
    let mut run = Recording::default();
    run.groups.push(Vec::new());
    run.record(Event::Started {
        at: at(0),
        origin: 7,
    });
    run.groups.push(Vec::new());
    (0..3).for_each(|which| run.record(Event::PolicyAdopted(Box::new(policy(which, 1)))));
    for round in 0..5_u64 {
        let now = round * 30_000;
        let epoch = 1 + u16::from(round > 2);
        if round == 3 {
            run.groups.push(Vec::new());
            run.record(Event::PolicyAdopted(Box::new(policy(0, 2))));
        }
        run.groups.push(Vec::new());
        let clicks = run.decide(0, epoch, now);
        let revenue = run.decide(1, 1, now + 1);
        let failed = run.decide(1, 1, now + 2);
        let stars = run.decide(2, 1, now + 3);
        run.decide(
            [0, 2][round as usize % 2],
            [epoch, 1][round as usize % 2],
            now + 4,
        );
        run.fail(failed, now + 9);
        run.groups.push(Vec::new());
        run.reward(clicks, now + 10, "a", 1.0);
        run.reward(clicks, now + 11, "b", 0.0);
        run.reward(revenue, now + 12, "a", 2.5);
        run.reward(stars, now + 13, "a", 4.0);
        run.groups.push(Vec::new());
        run.reward(revenue, now + 14, "b", 0.1);
        run.reward(revenue, now + 15, "a", 2.5);
        run.reward(stars, now + 16, "b", 5.0);
        run.reward(failed, now + 17, "a", 9.0);
    }
    run.groups
}

/// Where a group stands.
struct Placed {
    segment: usize,
    bytes: Range<usize>,
    events: Vec<Event>,
}

/// The recorded run on its disk.
struct Journal {
    segments: Vec<Vec<u8>>,
    groups: Vec<Placed>,
    /// Which groups were whole, of all that was checked in full.
    outcomes: BTreeSet<Vec<bool>>,
    positions: u64,
}

impl Journal {
    fn new() -> Self {
        let (mut encoder, recorded) = (encoder(), record());
        let mut segments = vec![Vec::new(); SEGMENTS];
        let mut groups = Vec::new();
        let each = recorded.len().div_ceil(SEGMENTS);
        for (index, events) in recorded.into_iter().enumerate() {
            let bytes = &mut segments[index / each];
            let start = bytes.len();
            for event in &events {
                encoder.encode(event, bytes);
            }
            write_commit(bytes, start, events.len() as u64, index as u64 + 1);
            groups.push(Placed {
                segment: index / each,
                bytes: start..bytes.len(),
                events,
            });
        }
        Self {
            segments,
            groups,
            outcomes: BTreeSet::new(),
            positions: 0,
        }
    }

    fn disk(&self, change: impl FnOnce(&mut Vec<Vec<u8>>)) -> MemoryStorage {
        let mut segments = self.segments.clone();
        change(&mut segments);
        let storage = MemoryStorage::default();
        for (number, bytes) in (1..).zip(&segments) {
            storage.put(number, bytes);
        }
        storage
    }

    /// Recovers, and compares with the groups that are whole. Gives what recovery reports.
    fn check(
        &mut self,
        storage: &MemoryStorage,
        whole: impl Fn(&Placed) -> bool,
        what: &str,
    ) -> Recovered {
        self.positions += 1;
        let (events, found) = recovered(storage);
        let whole: Vec<bool> = self.groups.iter().map(whole).collect();
        let kept = || self.groups.iter().zip(&whole).filter(|(_, whole)| **whole);
        let expected = kept().flat_map(|(group, _)| &group.events);
        assert!(
            events.iter().eq(expected),
            "{what}: other events than those of {whole:?}"
        );
        let count = kept().count();
        let last = whole
            .iter()
            .rposition(|whole| *whole)
            .map_or(0, |last| last + 1);
        let first = whole.iter().position(|whole| *whole).unwrap_or(0);
        let missing = last.saturating_sub(first + count) as u64;
        assert_eq!(found.report.missing_groups, missing, "{what}");
        assert_eq!(found.report.groups, count as u64, "{what}");
        if self.outcomes.insert(whole) {
            check_state(&events, what);
            check_going_on(storage, &events, &found);
        }
        found
    }

    fn cut(&mut self, segment: usize, length: usize) {
        let what = format!("segment {segment} cut at {length}, and the end of the journal");
        let storage = self.disk(|segments| {
            segments.truncate(segment + 1);
            segments[segment].truncate(length);
        });
        let there = |group: &Placed| {
            group.segment < segment || group.segment == segment && group.bytes.end <= length
        };
        let found = self.check(&storage, there, &what);
        let good = self.good(segment, length);
        assert_eq!(found.report.cut_bytes as usize, length - good, "{what}");
        assert!(found.report.damaged.is_empty(), "{what}");
    }

    fn cut_within(&mut self, segment: usize, length: usize) {
        let what = format!("segment {segment} cut at {length}");
        let storage = self.disk(|segments| segments[segment].truncate(length));
        let there = |group: &Placed| group.segment != segment || group.bytes.end <= length;
        let found = self.check(&storage, there, &what);
        let torn = length > self.good(segment, length);
        assert_eq!(found.report.damaged.len(), usize::from(torn), "{what}");
        assert_eq!(storage.quarantined().len(), usize::from(torn), "{what}");
    }

    fn flip(&mut self, segment: usize, position: usize, bit: usize) {
        let what = format!("bit {bit} of byte {position} of segment {segment} flipped");
        let storage = self.disk(|segments| segments[segment][position] ^= 1 << bit);
        let there = |group: &Placed| group.segment != segment || !group.bytes.contains(&position);
        let found = self.check(&storage, there, &what);
        assert!(!found.report.is_clean(), "{what}");
        // What is cut at the end may have been torn, or damaged after it was acknowledged: a copy is kept where that cannot be told.
        assert!(
            found.report.cut_bytes > 0 || storage.quarantined().len() == 1,
            "{what}"
        );
    }

    /// The end of the last whole group of a segment that is cut.
    fn good(&self, segment: usize, length: usize) -> usize {
        let here = self
            .groups
            .iter()
            .filter(|group| group.segment == segment && group.bytes.end <= length);
        here.map(|group| group.bytes.end).max().unwrap_or(0)
    }
}

fn fold(events: &[Event]) -> State {
    let mut replay = Replay::new(Limits::default(), at(100 * MINUTE));
    for event in events {
        replay.push(event);
    }
    replay.finish()
}

/// Every accepted reward counts once, by a plain count of the events.
fn check_state(events: &[Event], what: &str) {
    let state = fold(events);
    let mut latest: BTreeMap<ExperimentId, &PolicyAdopted> = BTreeMap::new();
    let mut rewards: BTreeMap<ExperimentId, BTreeMap<SequenceKey, Vec<&Rewarded>>> =
        BTreeMap::new();
    for event in events {
        match event {
            Event::PolicyAdopted(adopted) => {
                let before = latest.insert(adopted.experiment, adopted);
                if before.is_none_or(|before| before.epoch != adopted.epoch) {
                    rewards.remove(&adopted.experiment);
                }
            }
            Event::Rewarded(rewarded) if rewarded.verdict == Verdict::Accepted => {
                let decision = &rewarded.decision;
                if latest
                    .get(&decision.experiment)
                    .is_some_and(|adopted| adopted.epoch == decision.epoch)
                {
                    let rewards = rewards.entry(decision.experiment).or_default();
                    rewards.entry(decision.sequence).or_default().push(rewarded);
                }
            }
            _ => {}
        }
    }
    for (experiment, adopted) in latest {
        let rewards = rewards.remove(&experiment).unwrap_or_default();
        let sum: f64 = rewards
            .values()
            .map(|items| match adopted.reward.aggregate {
                Aggregate::Sum => items.iter().map(|item| item.value).sum(),
                Aggregate::Last => items[items.len() - 1].value,
                _ => items[0].value,
            })
            .sum();
        let tallies: Vec<_> = state
            .tallies(experiment)
            .into_iter()
            .map(|(_, tally)| tally)
            .collect();
        let counted: u64 = tallies.iter().map(|tally| tally.rewards.count()).sum();
        assert_eq!(counted as usize, rewards.len(), "{what}");
        let added: f64 = tallies.iter().map(|tally| tally.rewards.sum()).sum();
        assert!((added - sum).abs() < 1e-6, "{what}: {added} for {sum}");
    }
}

/// What was repaired is read again as it was, and what is written then comes after it.
fn check_going_on(storage: &MemoryStorage, events: &[Event], found: &Recovered) {
    let again = Event::Decided(samples::logged(9));
    let mut writer = writer(storage, found.position.clone());
    writer.append(&again).unwrap();
    writer.commit().unwrap();
    let (after, _) = recovered(storage);
    assert_eq!(after.last(), Some(&again));
    assert_eq!(&after[..after.len() - 1], events);
    assert_eq!(fold(&after[..after.len() - 1]), fold(events));
}

/// Every `stride`-th position with `bits` bits each; how many journals were damaged and recovered.
fn damage_everything(stride: usize, bits: usize) -> u64 {
    let mut journal = Journal::new();
    let mut next = 0;
    for segment in 0..SEGMENTS {
        let length = journal.segments[segment].len();
        for position in 0..=length {
            next += 1;
            if next % stride > 0 {
                continue;
            }
            journal.cut(segment, position);
            if segment + 1 < SEGMENTS {
                journal.cut_within(segment, position);
            }
            for bit in (0..8).cycle().skip(position % 8).take(bits) {
                if position < length {
                    journal.flip(segment, position, bit);
                }
            }
        }
    }
    let (bytes, outcomes) = (journal.segments.concat().len(), journal.outcomes.len());
    println!(
        "{} damaged journals of {bytes} bytes recovered, to {outcomes} states",
        journal.positions
    );
    journal.positions
}

#[test]
fn the_recorded_run_has_everything_in_it() {
    let journal = Journal::new();
    let events: Vec<_> = journal
        .groups
        .iter()
        .flat_map(|group| group.events.clone())
        .collect();
    let verdicts: BTreeSet<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Rewarded(rewarded) => Some(rewarded.verdict.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(verdicts, BTreeSet::from(["accepted", "duplicate"]));
    let state = fold(&events);
    let of = |which| state.tallies(policy(which, 1).experiment);
    assert!(
        of(0)
            .iter()
            .chain(&of(2))
            .map(|(_, tally)| tally.defaults)
            .sum::<u64>()
            > 2
    );
    assert!(of(1).iter().map(|(_, tally)| tally.failures).sum::<u64>() > 2);
    assert!(
        of(2)
            .iter()
            .any(|(_, tally)| tally.detail != Tally::default().detail)
    );
    assert_eq!(state.standing(policy(0, 1).experiment).unwrap().epoch, 2);
}

#[test]
fn a_journal_damaged_at_any_byte_keeps_what_is_whole() {
    assert!(damage_everything(5, 1) > 10_000);
}

#[test]
#[ignore = "takes minutes: every byte cut, every bit flipped"]
fn every_bit() {
    damage_everything(1, 8);
}
