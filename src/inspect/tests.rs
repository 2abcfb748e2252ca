//! Journals in memory, inspected.

mod remaining;
mod report;

use std::sync::Arc;

use serde_json::Value;

use super::*;
use crate::engine::decide::draw_from;
use crate::engine::event::{Event, PolicyAdopted};
use crate::experiment::context::{Context, Value as Found};
use crate::experiment::decision::{LoggedContext, LoggedDecision};
use crate::experiment::id::{Name, PolicyVersion, SequenceKey, UnitHash};
use crate::experiment::reward::{Aggregate, Goal, Learn, RewardKind, RewardRule};
use crate::journal::memory::MemoryStorage;
use crate::journal::{Directory, Encoder, Options, Writer, writer::Position};
use crate::policy::Statistics;

const SECRET: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n\
    units 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const OTHER_KEY: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\n\
    units 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const EXPERIMENT: ExperimentId = ExperimentId(0x00c0_ffee);
const ARMS: [ArmId; 3] = [ArmId(10), ArmId(11), ArmId(12)];
const SHARES: [f64; 3] = [0.25, 0.0, 0.75];

fn secret() -> Secret {
    Secret::parse(SECRET).unwrap()
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(1_795_500_000_000 + millis)
}

fn sequence(counter: u64) -> SequenceKey {
    SequenceKey {
        origin: 77,
        worker: 1,
        counter,
    }
}

/// A policy file whose version is `version` and whose arms are in this order.
fn policy(version: u8, order: [usize; 3]) -> Event {
    let names = ["a", "b", "c"].map(name);
    let arm = |index: usize| (ARMS[index], names[index].clone(), String::new());
    Event::PolicyAdopted(Box::new(PolicyAdopted {
        metric: None,
        at: at(0),
        name: name("stars"),
        experiment: EXPERIMENT,
        version: PolicyVersion([version; 6]),
        epoch: 3,
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
        shadow: None,
        context: None,
        statistics: Statistics::SCALAR,
        arms: order.into_iter().map(arm).collect(),
        text: Arc::from(""),
    }))
}

fn allocation(version: u64, shares: [f64; 3]) -> Event {
    Event::Allocated {
        at: at(version),
        experiment: EXPERIMENT,
        epoch: 3,
        version,
        probabilities: ARMS.into_iter().zip(shares).collect(),
    }
}

/// What a server would have drawn under policy file 1.
fn drawn(counter: u64, unit: Option<UnitHash>) -> LoggedDecision {
    let keys = secret().draw_keys();
    let draw = draw_from(&SHARES, ARMS.into_iter(), unit, sequence(counter), &keys);
    let (arm, propensity) = draw.unwrap();
    LoggedDecision {
        decision: Decision {
            sequence: sequence(counter),
            at: at(1_000 + counter),
            experiment: EXPERIMENT,
            epoch: 3,
            arm: ARMS[arm],
            policy_version: PolicyVersion([1; 6]),
            propensity,
            reason: Reason::Sampled,
        },
        unit,
        allocation_version: 5,
        instead_of: None,
        key: None,
        context: None,
    }
}

fn unit(key: u64) -> UnitHash {
    let keys = secret().draw_keys();
    keys.unit_hash(EXPERIMENT, "", &key.to_le_bytes())
}

/// A journal that begins as all of these do, with other allocations and another experiment's around the one that counts.
fn journal(events: &[Event]) -> MemoryStorage {
    let storage = MemoryStorage::default();
    let encoder = Encoder::new(secret().decision_keys(), Directory::default());
    let options = Options {
        segment_bytes: 2_000,
        ..Options::default()
    };
    let mut writer = Writer::new(storage.clone(), encoder, Position::default(), options);
    let foreign = Event::Allocated {
        at: at(5),
        experiment: ExperimentId(9),
        epoch: 3,
        version: 5,
        probabilities: vec![(ARMS[1], 1.0)],
    };
    let start = Event::Started {
        at: at(0),
        origin: 77,
    };
    let before = [
        start,
        policy(1, [0, 1, 2]),
        policy(2, [2, 1, 0]),
        allocation(4, [0.0, 1.0, 0.0]),
        foreign,
        allocation(5, SHARES),
        allocation(6, [0.0, 1.0, 0.0]),
    ];
    for event in before.iter().chain(events) {
        writer.append(event).unwrap();
        writer.commit().unwrap();
    }
    storage
}

fn id_of(decision: &Decision) -> String {
    secret().decision_keys().encode(decision).to_string()
}

fn look(id: &str, storage: &MemoryStorage) -> Inspection {
    inspect(id, &secret(), storage, &mut |_| ()).unwrap()
}

/// The inspection of a decision that is alone in its journal.
fn alone(logged: &LoggedDecision) -> Inspection {
    let storage = journal(&[Event::Decided(logged.clone())]);
    look(&id_of(&logged.decision), &storage)
}

fn codes(inspection: &Inspection) -> Vec<&'static str> {
    inspection.problems.iter().map(Problem::code).collect()
}

#[test]
fn sampled_and_sticky_draws_come_out_the_same() {
    let all: Vec<LoggedDecision> = (0..40)
        .map(|counter| drawn(counter, (counter % 2 == 1).then(|| unit(counter))))
        .collect();
    let events: Vec<Event> = all.iter().cloned().map(Event::Decided).collect();
    let storage = journal(&events);
    let before = storage.contents();
    for logged in &all {
        let inspection = look(&id_of(&logged.decision), &storage);
        assert_eq!(inspection.problems, []);
        assert_eq!(inspection.evidence.record.as_ref(), Some(logged));
        let Redraw::Drawn {
            source,
            chance,
            drawn,
            ..
        } = inspection.redraw
        else {
            panic!("{:?}", inspection.redraw);
        };
        let decision = logged.decision;
        assert_eq!(drawn, Some((decision.arm, decision.propensity)));
        assert_eq!(source, Source::Allocation);
        assert_eq!(matches!(chance, Chance::Unit(_)), logged.unit.is_some());
    }
    let arms = |logged: &LoggedDecision| logged.decision.arm;
    assert!(all.iter().any(|logged| arms(logged) == ARMS[0]));
    assert!(all.iter().any(|logged| arms(logged) == ARMS[2]));
    assert_eq!(storage.contents(), before);
}

/// An allocation may be older than the policy file in force, and a uniform number counts along that file's arms.
#[test]
fn arms_are_in_the_policy_files_order() {
    let mut differ = 0;
    for counter in 0..40 {
        let mut logged = drawn(counter, None);
        let order = [2, 1, 0].map(|index: usize| (ARMS[index], SHARES[index]));
        let shares = order.map(|(_, share)| share);
        let arms = order.into_iter().map(|(arm, _)| arm);
        let keys = secret().draw_keys();
        let draw = draw_from(&shares, arms, None, sequence(counter), &keys);
        let (index, propensity) = draw.unwrap();
        differ += usize::from(logged.decision.arm != order[index].0);
        logged.decision.arm = order[index].0;
        logged.decision.propensity = propensity;
        logged.decision.policy_version = PolicyVersion([2; 6]);
        assert_eq!(alone(&logged).problems, []);
    }
    assert!(differ > 0);
}

#[test]
fn what_was_not_drawn_is_not_drawn_again() {
    let original = drawn(1, None);
    for reason in [
        Reason::Forced,
        Reason::Holdout,
        Reason::Paused,
        Reason::Fallback,
    ] {
        let mut logged = drawn(2, None);
        logged.decision.reason = reason;
        logged.decision.propensity = 1.0;
        logged.instead_of = (reason == Reason::Fallback).then(|| sequence(1));
        let storage = journal(&[
            Event::Decided(original.clone()),
            Event::Decided(logged.clone()),
        ]);
        let inspection = look(&id_of(&logged.decision), &storage);
        assert_eq!(inspection.problems, []);
        assert_eq!(inspection.redraw, Redraw::NotDrawn);
        let text = render(&inspection, false);
        let why = why_not_drawn(reason, true).unwrap();
        assert!(text.contains(why), "{text}");
        if reason == Reason::Fallback {
            let failed = id_of(&original.decision);
            assert!(text.contains(&format!("instead of   {failed}\n")), "{text}");
            let failed = render(&look(&failed, &storage), false);
            let answered = format!("answered by  {}\n", id_of(&logged.decision));
            assert!(failed.contains(&answered), "{failed}");
        }
    }
    assert_eq!(why_not_drawn(Reason::Sampled, true), None);
}

#[test]
fn a_contextual_decision_is_drawn_from_its_own_probabilities() {
    let own = [(ARMS[0], 0.125), (ARMS[2], 0.875)];
    for (counter, unit) in [
        (1, None),
        (2, None),
        (3, None),
        (4, Some(unit(4))),
        (5, Some(unit(5))),
    ] {
        let mut logged = drawn(counter, unit);
        let keys = secret().draw_keys();
        let arms = own.iter().map(|(arm, _)| *arm);
        let draw = draw_from(&[0.125, 0.875], arms, unit, sequence(counter), &keys);
        let (index, propensity) = draw.unwrap();
        logged.decision.arm = own[index].0;
        logged.decision.propensity = propensity;
        logged.context = Some(Box::new(LoggedContext {
            context: Context {
                names: Arc::from([Box::from("category"), Box::from("length")]),
                values: Box::from([Found::Text("a\x1b[2J".into()), Found::Number(12.0)]),
            },
            probabilities: own.to_vec(),
        }));
        let mut inspection = alone(&drawn(counter, unit));
        inspection.decision = logged.decision;
        inspection.evidence.record = Some(logged);
        inspection.problems.clear();
        inspection.redraw = redraw::again(&inspection.evidence, &keys);
        let mut inspection = inspection.judged();
        assert_eq!(inspection.problems, []);
        let text = render(&inspection, true);
        assert!(
            text.contains("category \"a\\u{1b}[2J\" · length 12.0"),
            "{text}"
        );
        let json: Value = serde_json::from_str(&to_json(&inspection)).unwrap();
        assert_eq!(json["record"]["context"]["length"], 12.0);
        assert_eq!(json["draw"]["source"], "context");
        // Changed ones do not give the propensity that the id says.
        let record = inspection.evidence.record.as_mut().unwrap();
        for own in &mut record.context.as_mut().unwrap().probabilities {
            own.1 *= 0.5;
        }
        inspection.redraw = redraw::again(&inspection.evidence, &keys);
        assert_ne!(codes(&inspection.judged()), [""; 0]);
    }
}

#[test]
fn a_forged_id_is_told_and_what_it_was_made_of_is_shown() {
    let logged = drawn(1, None);
    let storage = journal(&[Event::Decided(logged.clone())]);
    let mut other = logged.decision;
    other.arm = ARMS[1];
    other.propensity = 1.0;
    let (good, bad) = (id_of(&logged.decision), id_of(&other));
    // The fields of one with the signature of the other.
    let forged = format!("{}{}", &bad[..64], &good[64..]);
    let inspection = look(&forged, &storage);
    assert_eq!(inspection.signature, Signature::Forged);
    assert_eq!(codes(&inspection), ["forged", "record_differs"]);
    assert_eq!(
        inspection.problems[1].to_string(),
        "the id and the journal differ in arm, propensity"
    );
    // Genuine, and never journalled so: the secret is known to someone else.
    let inspection = look(&bad, &storage);
    assert_eq!(codes(&inspection), ["record_differs"]);
}

#[test]
fn an_unknown_key_is_told_and_the_draw_is_made_all_the_same() {
    let logged = drawn(1, None);
    let storage = journal(&[Event::Decided(logged.clone())]);
    let keys = Secret::parse(OTHER_KEY).unwrap().decision_keys();
    let id = keys.encode(&logged.decision);
    let inspection = look(id.as_str(), &storage);
    assert_eq!(inspection.signature, Signature::UnknownKey);
    assert_eq!(codes(&inspection), ["unknown_key"]);
    assert!(matches!(inspection.redraw, Redraw::Drawn { .. }));
    // A new key above the old one: the journal's spelling of the id differs, the decision is the same.
    let rotated = format!("{}\n{SECRET}", OTHER_KEY.lines().next().unwrap());
    let secret = Secret::parse(&rotated).unwrap();
    let inspection = inspect(&id_of(&logged.decision), &secret, &storage, &mut |_| ()).unwrap();
    assert_eq!(inspection.problems, []);
}

#[test]
fn what_is_no_id_is_an_error() {
    let storage = journal(&[]);
    for text in ["", "x", &"?".repeat(80), &"A".repeat(80)] {
        let error = inspect(text, &secret(), &storage, &mut |_| ()).unwrap_err();
        assert!(matches!(error, InspectError::Id(_)), "{text}: {error}");
        assert!(error.to_string().starts_with("not a decision id: "));
    }
}

#[test]
fn a_decision_that_is_not_in_the_journal_is_told_with_a_reason() {
    let id = id_of(&drawn(1, None).decision);
    let message = |storage: &MemoryStorage| {
        let inspection = look(&id, storage);
        assert_eq!(codes(&inspection), ["not_in_journal"]);
        assert!(render(&inspection, false).contains("not there"));
        inspection.problems[0].to_string()
    };
    let storage = journal(&[Event::Decided(drawn(2, None))]);
    let started = message(&storage);
    assert!(
        started.contains("pointsman_journal_dropped_total"),
        "{started}"
    );
    assert!(!started.contains("damaged"), "{started}");
    assert!(message(&MemoryStorage::default()).contains("has been deleted"));
    // One flipped bit in the group of decision 1.
    let storage = journal(&[
        Event::Decided(drawn(1, None)),
        Event::Decided(drawn(2, None)),
    ]);
    let part = &id.as_bytes()[40..64];
    for (segment, mut bytes) in (1..).zip(storage.contents()) {
        if let Some(place) = memchr::memmem::find(&bytes, part) {
            bytes[place] ^= 1;
            storage.put(segment, &bytes);
        }
    }
    assert!(message(&storage).contains("damaged"));
}

#[test]
fn a_changed_allocation_is_found() {
    let logged = drawn(1, None);
    let other = if logged.decision.arm == ARMS[0] { 2 } else { 0 };
    let inspect_with = |shares: [f64; 3]| {
        // The version that counts, again: the last one before the decision is the one.
        let storage = journal(&[allocation(5, shares), Event::Decided(logged.clone())]);
        look(&id_of(&logged.decision), &storage)
    };
    assert_eq!(inspect_with(SHARES).problems, []);
    let mut all = [0.0; 3];
    all[other] = 1.0;
    let inspection = inspect_with(all);
    assert_eq!(codes(&inspection), ["arm_differs"]);
    let text = inspection.problems[0].to_string();
    let names = ["a", "b", "c"];
    assert!(
        text.contains(&format!("the draw gives {}", names[other])),
        "{text}"
    );
    all[other] = 0.0;
    all[2 - other] = 1.0;
    let inspection = inspect_with(all);
    assert_eq!(codes(&inspection), ["propensity_differs"]);
    assert_eq!(codes(&inspect_with([0.0; 3])), ["nothing_drawn"]);
    // One after the decision does not count, nor one of another version.
    let storage = journal(&[Event::Decided(logged.clone()), allocation(5, all)]);
    assert_eq!(look(&id_of(&logged.decision), &storage).problems, []);
    let mut without = logged.clone();
    without.allocation_version = 50;
    let inspection = alone(&without);
    assert_eq!(codes(&inspection), ["no_allocation"]);
    assert_eq!(inspection.redraw, Redraw::Impossible);
}

/// A sticky draw with the root of another installation.
#[test]
fn another_root_of_the_draws_is_found() {
    let other = format!(
        "{}\nunits {}",
        SECRET.lines().next().unwrap(),
        "c".repeat(64)
    );
    let other = Secret::parse(&other).unwrap();
    let differing = (0..40).filter(|counter| {
        let logged = drawn(*counter, Some(unit(*counter)));
        let storage = journal(&[Event::Decided(logged.clone())]);
        let id = id_of(&logged.decision);
        let inspection = inspect(&id, &other, &storage, &mut |_| ()).unwrap();
        codes(&inspection) == ["arm_differs"]
    });
    assert!(differing.count() > 5);
}
