//! Journals in memory, verified.

use std::sync::Arc;

use serde_json::Value;

use super::*;
use crate::decision_id::Keys;
use crate::engine::event::{Event, PolicyAdopted, Rewarded, Verdict};
use crate::experiment::decision::{Decision, LoggedDecision, Reason};
use crate::experiment::id::{ArmId, ExperimentId, Name, PolicyVersion, SequenceKey};
use crate::experiment::reward::{Aggregate, Goal, Learn, RewardKind, RewardRule};
use crate::journal::memory::MemoryStorage;
use crate::journal::reader::write_commit;
use crate::journal::{Directory, Encoder};
use crate::policy::Statistics;

const ORIGIN: u64 = 0xfeed;
const EXPERIMENT: ExperimentId = ExperimentId(0x00c0_ffee);
const ARMS: [ArmId; 2] = [ArmId(10), ArmId(11)];
const VERSION: PolicyVersion = PolicyVersion([1, 2, 3, 4, 5, 6]);

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(1_795_500_000_000 + millis)
}

fn started() -> Event {
    Event::Started {
        at: at(0),
        origin: ORIGIN,
    }
}

fn policy(epoch: u16) -> Event {
    let name = |text| Name::new(text).unwrap();
    Event::PolicyAdopted(Box::new(PolicyAdopted {
        metric: None,
        at: at(1),
        name: name("stars"),
        experiment: EXPERIMENT,
        version: VERSION,
        epoch,
        declared_epoch: 0,
        reward_meaning: String::new(),
        reward: RewardRule {
            kind: RewardKind::Binary,
            window: 86_400_000,
            default: None,
            aggregate: Aggregate::First,
            goal: Goal::Maximize,
            learn: Learn::Arrival,
            on_failure: None,
        },
        label: None,
        context: None,
        shadow: None,
        statistics: Statistics::SCALAR,
        arms: vec![
            (ARMS[0], name("a"), String::new()),
            (ARMS[1], name("b"), String::new()),
        ],
        text: Arc::from(""),
    }))
}

fn allocation(version: u64, first: f64) -> Event {
    Event::Allocated {
        at: at(2),
        experiment: EXPERIMENT,
        epoch: 1,
        version,
        probabilities: vec![(ARMS[0], first), (ARMS[1], 1.0 - first)],
    }
}

fn decision(counter: u64, propensity: f64) -> Decision {
    Decision {
        sequence: SequenceKey {
            origin: ORIGIN,
            worker: 0,
            counter,
        },
        at: at(10 + counter),
        experiment: EXPERIMENT,
        epoch: 1,
        arm: ARMS[0],
        policy_version: VERSION,
        propensity,
        reason: Reason::Sampled,
    }
}

fn decided(decision: Decision, allocation_version: u64) -> Event {
    Event::Decided(LoggedDecision {
        decision,
        unit: None,
        allocation_version,
        key: None,
        instead_of: None,
        context: None,
    })
}

fn rewarded(counter: u64, value: f64) -> Event {
    Event::Rewarded(Box::new(Rewarded {
        decision: decision(counter, 0.3),
        received: at(100),
        at: None,
        metric: None,
        id: None,
        value,
        label: None,
        context: None,
        verdict: Verdict::Accepted,
    }))
}

/// Events as groups of one segment; the numbers go on from `first`.
fn segment(first: u64, groups: &[&[Event]]) -> Vec<u8> {
    let mut encoder = Encoder::new(Keys::derive(&[7; 32], &[]), Directory::default());
    let mut names = Vec::new();
    encoder.encode(&policy(1), &mut names);
    let mut bytes = Vec::new();
    for (number, group) in (first..).zip(groups) {
        let start = bytes.len();
        for event in *group {
            encoder.encode(event, &mut bytes);
        }
        write_commit(&mut bytes, start, group.len() as u64, number);
    }
    bytes
}

fn opening() -> Vec<Event> {
    vec![started(), policy(1), allocation(1, 0.3)]
}

/// Four groups in two segments.
fn sound() -> MemoryStorage {
    let storage = MemoryStorage::default();
    let opening = opening();
    storage.put(
        1,
        &segment(
            1,
            &[&opening, &[decided(decision(1, 0.3), 1), rewarded(1, 1.0)]],
        ),
    );
    storage.put(
        2,
        &segment(
            3,
            &[
                &[allocation(2, 0.5), decided(decision(2, 0.5), 2)],
                &[decided(decision(3, 0.5), 2), rewarded(3, 0.0)],
            ],
        ),
    );
    storage
}

fn verified(storage: &MemoryStorage) -> Verification {
    verify(storage, &[], &mut |_| ()).unwrap()
}

/// The one problem of a journal whose second group holds these events.
fn problem_of(events: &[Event]) -> Problem {
    let storage = MemoryStorage::default();
    let opening = opening();
    let first = segment(1, &[&opening]).len() as u64;
    storage.put(1, &segment(1, &[&opening, events]));
    let found = verified(&storage);
    assert_eq!(found.problems.len(), 1, "{:?}", found.problems);
    let problem = found.problems[0].clone();
    assert!(problem.offset >= Some(first), "{problem:?}");
    problem
}

#[test]
fn a_sound_journal_holds() {
    let found = verified(&sound());
    assert!(found.holds(), "{:?}", found.problems);
    assert_eq!((found.segments, found.groups, found.repeated), (2, 4, 0));
    assert_eq!(found.numbers, Some((1, 4)));
    assert_eq!(found.decisions(), 3);
    assert_eq!((found.compared, found.uncompared), (3, 0));
    assert_eq!(found.span, Some((at(0), at(100))));
    assert_eq!(found.records["reward"].count, 2);
    assert!(render(&found, false).contains("\nok "));
}

#[test]
fn a_repeated_group_counts_once() {
    let storage = sound();
    let segments = storage.contents();
    let second = segment(3, &[&[allocation(2, 0.5), decided(decision(2, 0.5), 2)]]);
    storage.put(3, &segments[1][second.len()..]);
    let found = verified(&storage);
    assert!(found.holds(), "{:?}", found.problems);
    assert_eq!((found.groups, found.repeated, found.decisions()), (4, 1, 3));
}

#[test]
fn every_flipped_bit_is_told_with_its_place() {
    let whole = sound();
    let contents = whole.contents();
    let lines = contents[0].len();
    for bit in (0..lines * 8).step_by(7) {
        let storage = sound();
        let mut bytes = contents[0].clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        storage.put(1, &bytes);
        let found = verified(&storage);
        assert!(!found.holds(), "bit {bit}");
        let told = &found.problems[0];
        let place = told.offset.unwrap() as usize;
        assert_eq!(told.segment, "segment 1");
        assert!(place <= bit / 8, "bit {bit}: {told:?}");
    }
}

#[test]
fn damage_says_which_groups_were_in_it() {
    let storage = MemoryStorage::default();
    let opening = opening();
    let mut bytes = segment(
        1,
        &[
            &opening,
            &[decided(decision(1, 0.3), 1)],
            &[rewarded(1, 1.0)],
        ],
    );
    let place = segment(1, &[&opening]).len();
    bytes[place + 9] ^= 1;
    storage.put(1, &bytes);
    let found = verified(&storage);
    assert_eq!(found.problems.len(), 1, "{:?}", found.problems);
    assert_eq!(found.problems[0].kind, Kind::Damaged);
    assert_eq!(found.problems[0].offset, Some(place as u64));
    let message = &found.problems[0].message;
    assert!(message.ends_with("; group 2 is lost"), "{message}");
}

#[test]
fn a_cut_is_torn_at_the_end_and_a_problem_elsewhere() {
    let contents = sound().contents();
    let storage = sound();
    storage.put(2, &contents[1][..contents[1].len() - 5]);
    let found = verified(&storage);
    assert!(found.holds(), "{:?}", found.problems);
    let torn = found.torn.clone().unwrap();
    assert_eq!(torn.segment, "segment 2");
    assert_eq!(torn.range.end, contents[1].len() as u64 - 5);
    assert!(render(&found, false).contains("\ntorn "));

    let storage = sound();
    storage.put(1, &contents[0][..contents[0].len() - 5]);
    let found = verified(&storage);
    assert_eq!(found.problems.len(), 1, "{:?}", found.problems);
    assert_eq!(found.problems[0].kind, Kind::Unclosed);
    assert_eq!(found.problems[0].segment, "segment 1");
    assert!(found.problems[0].message.contains("group 2 is lost"));
    assert_eq!(found.torn, None);
}

#[test]
fn missing_groups_are_told_where_the_next_one_is() {
    let storage = MemoryStorage::default();
    let opening = opening();
    storage.put(1, &segment(1, &[&opening]));
    storage.put(4, &segment(7, &[&[decided(decision(1, 0.9), 8)]]));
    let found = verified(&storage);
    assert_eq!(found.problems.len(), 1, "{:?}", found.problems);
    let problem = &found.problems[0];
    assert_eq!(problem.kind, Kind::MissingGroups);
    assert_eq!(
        (problem.segment.as_str(), problem.offset),
        ("segment 4", Some(0))
    );
    assert!(problem.message.starts_with("groups 2 to 6 are missing"));
    // What it was drawn from was in the part that is gone.
    assert_eq!(found.uncompared, 1);
}

/// Retention deletes the oldest segments; what remains is sound.
#[test]
fn a_journal_may_begin_with_any_group() {
    let storage = sound();
    let second = storage.contents()[1].clone();
    let storage = MemoryStorage::default();
    storage.put(2, &second);
    let found = verified(&storage);
    assert!(found.holds(), "{:?}", found.problems);
    assert_eq!(found.numbers, Some((3, 4)));
}

#[test]
fn a_forged_propensity_is_told() {
    let problem = problem_of(&[decided(decision(1, 0.300_000_000_000_000_04), 1)]);
    assert_eq!(problem.kind, Kind::Propensity);
    let message = &problem.message;
    assert!(
        message.contains("allocation 1 gave the arm 0.3"),
        "{message}"
    );
    let forced = Decision {
        reason: Reason::Forced,
        ..decision(1, 0.5)
    };
    assert_eq!(problem_of(&[decided(forced, 1)]).kind, Kind::Propensity);
}

#[test]
fn a_line_that_differs_from_its_id_is_told() {
    let storage = MemoryStorage::default();
    let opening = opening();
    let bytes = segment(1, &[&opening, &[decided(decision(1, 0.3), 1)]]);
    let start = segment(1, &[&opening]).len();
    let text = String::from_utf8(bytes[start..].to_vec()).unwrap();
    let line = text.lines().next().unwrap();
    for (genuine, forged, field) in [
        ("\"arm\":\"a\"", "\"arm\":\"b\"", "arm"),
        ("\"propensity\":0.3", "\"propensity\":0.9", "propensity"),
        ("\"epoch\":1", "\"epoch\":2", "epoch"),
        (":00.011Z", ":00.012Z", "at"),
    ] {
        assert!(line.contains(genuine), "{line}");
        let mut forgery = bytes[..start].to_vec();
        forgery.extend_from_slice(line.replace(genuine, forged).as_bytes());
        forgery.push(b'\n');
        write_commit(&mut forgery, start, 1, 2);
        storage.put(1, &forgery);
        let found = verified(&storage);
        assert_eq!(found.problems.len(), 1, "{:?}", found.problems);
        assert_eq!(found.problems[0].kind, Kind::FieldsDiffer);
        assert_eq!(found.problems[0].offset, Some(start as u64));
        let message = &found.problems[0].message;
        assert!(message.contains(&format!(" in {field}:")), "{message}");
    }
}

#[test]
fn what_cannot_be_true_together_is_told() {
    let twice = [decided(decision(1, 0.3), 1), decided(decision(1, 0.3), 1)];
    assert_eq!(problem_of(&twice).kind, Kind::DuplicateDecision);
    let rewards = [rewarded(1, 1.0), rewarded(1, 1.0)];
    assert_eq!(problem_of(&rewards).kind, Kind::DuplicateReward);
    assert_eq!(problem_of(&[rewarded(1, 0.5)]).kind, Kind::RewardValue);
    assert_eq!(
        problem_of(&[allocation(3, 0.5)]).kind,
        Kind::AllocationVersion
    );
    assert_eq!(
        problem_of(&[allocation(1, 0.5)]).kind,
        Kind::AllocationVersion
    );
    assert_eq!(problem_of(&[policy(0)]).kind, Kind::Epoch);
    let probabilities = Event::Allocated {
        at: at(2),
        experiment: EXPERIMENT,
        epoch: 1,
        version: 2,
        probabilities: vec![(ARMS[0], 0.5), (ARMS[1], 0.6)],
    };
    assert_eq!(problem_of(&[probabilities]).kind, Kind::Probabilities);
    let other_policy = Decision {
        policy_version: PolicyVersion([9; 6]),
        ..decision(1, 0.3)
    };
    assert_eq!(
        problem_of(&[decided(other_policy, 1)]).kind,
        Kind::UnknownPolicy
    );
    let mut stranger = decision(1, 0.3);
    stranger.sequence.origin = 5;
    assert_eq!(problem_of(&[decided(stranger, 1)]).kind, Kind::UnknownStart);
}

/// A journal whose second group is this line.
fn problems_of_line(line: &str, count: u64) -> Vec<Problem> {
    let storage = MemoryStorage::default();
    let opening = opening();
    let mut bytes = segment(1, &[&opening]);
    let start = bytes.len();
    bytes.extend_from_slice(line.as_bytes());
    bytes.push(b'\n');
    write_commit(&mut bytes, start, count, 2);
    storage.put(1, &bytes);
    verified(&storage).problems
}

#[test]
fn unreadable_and_newer_lines_are_told() {
    let kinds = |line, count| -> Vec<Kind> {
        let problems = problems_of_line(line, count);
        problems.iter().map(|problem| problem.kind).collect()
    };
    assert_eq!(
        kinds("{\"type\":\"decision\",\"v\":1}", 1),
        [Kind::UnreadableLine]
    );
    assert_eq!(kinds("nonsense", 1), [Kind::UnreadableLine]);
    assert_eq!(
        kinds("{\"type\":\"start\",\"v\":2}", 1),
        [Kind::NewerRecord]
    );
    assert_eq!(
        kinds("{\"type\":\"sunrise\",\"v\":1}", 1),
        [Kind::NewerRecord]
    );
    let start = "{\"type\":\"start\",\"v\":1,\"at\":\"2026-11-24T06:00:00.000Z\",\"origin\":\"feedf00d00000001\"}";
    assert_eq!(kinds(start, 1), []);
    assert_eq!(kinds(start, 2), [Kind::LineCount]);
}

#[test]
fn many_problems_of_a_kind_are_counted_and_some_told() {
    let storage = MemoryStorage::default();
    let opening = opening();
    let twice = decided(decision(1, 0.3), 1);
    let many = vec![twice; TOLD + 8];
    storage.put(1, &segment(1, &[&opening, &many]));
    let found = verified(&storage);
    assert_eq!(found.problems.len(), TOLD);
    assert_eq!(found.counts[&Kind::DuplicateDecision], TOLD as u64 + 7);
    assert!(render(&found, false).contains("… and 7 more of kind `duplicate_decision`"));
}

#[test]
fn quarantine_is_told_and_the_report_for_programs_has_it_all() {
    let files = [("000000000001-42.damaged".to_owned(), 17)];
    let found = verify(&sound(), &files, &mut |_| ()).unwrap();
    let report: Value = serde_json::from_str(&to_json(&found)).unwrap();
    assert_eq!(report["ok"], false);
    assert_eq!(report["groups"], 4);
    assert_eq!(report["last_group"], "4");
    assert_eq!(report["records"]["decision"]["count"], 3);
    assert_eq!(report["problems"][0]["code"], "quarantined");
    assert_eq!(
        report["problems"][0]["segment"],
        "quarantine/000000000001-42.damaged"
    );
    assert_eq!(report["torn"], Value::Null);
}
