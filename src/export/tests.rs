//! Journals in memory, exported: what becomes of a decision, and what is selected. `forms` has what rows look like.

mod forms;

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::*;
use crate::decision_id::Keys;
use crate::engine::event::{Event, PolicyAdopted, Rewarded, Verdict};
use crate::experiment::context::{Context, ContextRule, Encoding, Feature, Source};
use crate::experiment::context::{Scale, Value as Found};
use crate::experiment::decision::{Ending, Label, LoggedContext, LoggedDecision, Outcome};
use crate::experiment::id::{ArmId, PolicyVersion, SequenceKey, UnitHash};
use crate::experiment::reward::{Aggregate, Goal, Learn, RewardKind, RewardRule};
use crate::journal::memory::MemoryStorage;
use crate::journal::reader::write_commit;
use crate::journal::{Directory, Encoder};
use crate::policy::Statistics;

const HOUR: u64 = 3_600_000;
const START: u64 = 1_795_500_000_000;
const VERSION: PolicyVersion = PolicyVersion([1, 2, 3, 4, 5, 6]);

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(START + millis)
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn arms(experiment: &Name) -> [(ArmId, Name, String); 2] {
    ["a", "b"].map(|arm| {
        let arm = name(arm);
        (ArmId::of(experiment, &arm, ""), arm, String::new())
    })
}

fn rule() -> RewardRule {
    RewardRule {
        kind: RewardKind::Real,
        window: HOUR,
        default: None,
        aggregate: Aggregate::First,
        goal: Goal::Maximize,
        learn: Learn::Arrival,
        on_failure: None,
    }
}

fn features() -> Arc<ContextRule> {
    let feature = |name: &str, encoding| Feature {
        name: name.into(),
        source: Source::Header(name.into()),
        encoding,
    };
    let scale = Scale {
        center: 0.0,
        scale: 1.0,
        log: false,
        missing: 0.0,
    };
    Arc::new(ContextRule::new(vec![
        feature("category", Encoding::Hashed(4)),
        feature("length", Encoding::Length(scale)),
        feature("prime", Encoding::Boolean),
    ]))
}

fn policy(experiment: &str, reward: RewardRule, context: bool) -> PolicyAdopted {
    let experiment = name(experiment);
    PolicyAdopted {
        metric: None,
        at: at(0),
        experiment: ExperimentId::of(&experiment),
        version: VERSION,
        epoch: 1,
        declared_epoch: 0,
        reward_meaning: String::new(),
        reward,
        label: None,
        context: context.then(features),
        shadow: None,
        statistics: Statistics::SCALAR,
        arms: arms(&experiment).to_vec(),
        text: Arc::from(""),
        name: experiment,
    }
}

fn allocation(experiment: &str, version: u64, first: f64) -> Event {
    let experiment = name(experiment);
    let [a, b] = arms(&experiment);
    Event::Allocated {
        at: at(1),
        experiment: ExperimentId::of(&experiment),
        epoch: 1,
        version,
        probabilities: vec![(a.0, first), (b.0, 1.0 - first)],
    }
}

fn decision(experiment: &str, counter: u64, arm: usize, propensity: f64) -> LoggedDecision {
    let experiment = name(experiment);
    LoggedDecision {
        decision: Decision {
            sequence: SequenceKey {
                origin: 1,
                worker: 2,
                counter,
            },
            at: at(1000 * counter),
            experiment: ExperimentId::of(&experiment),
            epoch: 1,
            arm: arms(&experiment)[arm].0,
            policy_version: VERSION,
            propensity,
            reason: Reason::Sampled,
        },
        unit: None,
        allocation_version: 7,
        key: None,
        instead_of: None,
        context: None,
    }
}

fn rewarded(logged: &LoggedDecision, value: f64, id: u64) -> Event {
    Event::Rewarded(Box::new(Rewarded {
        decision: logged.decision,
        received: logged.decision.at.plus(10 + id),
        at: None,
        metric: None,
        id: Some(id.to_string().into()),
        value,
        label: None,
        context: None,
        verdict: Verdict::Accepted,
    }))
}

fn ended(logged: &LoggedDecision, ending: Ending) -> Event {
    Event::Ended(Outcome {
        decision: logged.decision,
        at: logged.decision.at.plus(5),
        ending,
        status: (ending == Ending::Answered).then_some(200),
        latency_micros: 1234,
        prediction: Some(Label::Number(5.0)),
    })
}

/// Each event in a group of its own.
fn journal(events: &[Event]) -> MemoryStorage {
    let mut encoder = Encoder::new(Keys::derive(&[7; 32], &[]), Directory::default());
    let mut bytes = Vec::new();
    for (number, event) in (1..).zip(events) {
        let start = bytes.len();
        encoder.encode(event, &mut bytes);
        write_commit(&mut bytes, start, 1, number);
    }
    let storage = MemoryStorage::default();
    storage.put(1, &bytes);
    storage
}

/// Outputs in memory, by experiment.
#[derive(Clone, Default)]
struct Outputs(Arc<Mutex<Written>>);

type Written = Vec<(String, Vec<u8>)>;

struct Output(Outputs, usize);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.0.lock().unwrap()[self.1].1.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Memory(Outputs, Format, bool);

impl Destination for Memory {
    fn open(&mut self, experiment: Option<&str>, shape: &Shape) -> io::Result<Box<dyn Sink>> {
        let mut outputs = self.0.0.lock().unwrap();
        outputs.push((experiment.unwrap_or_default().to_owned(), Vec::new()));
        let output = Output(self.0.clone(), outputs.len() - 1);
        drop(outputs);
        sink(self.1, shape, Box::new(output))
    }

    fn is_split(&self) -> bool {
        self.2
    }
}

/// Windows have closed long ago.
const NOW: u64 = 100 * HOUR;

fn exported(storage: &MemoryStorage, selection: &Selection, format: Format) -> (String, Summary) {
    let outputs = Outputs::default();
    let mut memory = Memory(outputs.clone(), format, false);
    let summary = export(storage, selection, at(NOW), &mut memory, &mut |_| ()).unwrap();
    let written = outputs.0.lock().unwrap();
    assert_eq!(written.len(), 1);
    (String::from_utf8(written[0].1.clone()).unwrap(), summary)
}

fn objects(storage: &MemoryStorage, selection: &Selection) -> Vec<Value> {
    let (text, summary) = exported(storage, selection, Format::Jsonl);
    assert_eq!(summary.rows, text.lines().count() as u64);
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn opening(reward: RewardRule) -> Vec<Event> {
    vec![
        Event::PolicyAdopted(Box::new(policy("stars", reward, false))),
        allocation("stars", 7, 0.3),
    ]
}

#[test]
fn a_row_has_the_decision_and_all_that_became_of_it() {
    let mut logged = decision("stars", 1, 0, 0.3);
    logged.unit = Some(UnitHash(0xabc));
    let mut labelled = match rewarded(&logged, 1.0, 1) {
        Event::Rewarded(rewarded) => *rewarded,
        _ => unreachable!(),
    };
    labelled.label = Some(Label::Text("five".into()));
    let mut events = opening(rule());
    // The reward may stand before its decision.
    events.push(Event::Rewarded(Box::new(labelled)));
    events.push(Event::Decided(logged.clone()));
    events.push(ended(&logged, Ending::Answered));
    let rows = objects(&journal(&events), &Selection::default());
    let id = Keys::derive(&[7; 32], &[]).encode(&logged.decision);
    let expected = json!({
        "decision_id": id.as_str(),
        "at": "2026-11-24T06:00:01.000Z",
        "experiment": "stars",
        "epoch": 1,
        "policy_version": "010203040506",
        "allocation_version": "7",
        "arm": "a",
        "arm_id": format!("{:08x}", logged.decision.arm.0),
        "propensity": 0.3,
        "reason": "sampled",
        "unit": "0000000000000abc",
        "instead_of": null,
        "ending": "answered",
        "status": 200,
        "latency_micros": 1234,
        "prediction": 5.0,
        "reward": 1.0,
        "rewards": 1,
        "on_failure": null,
        "default": null,
        "label": "five",
        "probabilities": {"a": 0.3, "b": 0.7},
        "context": null,
    });
    assert_eq!(rows, [expected]);
}

#[test]
fn rewards_are_aggregated_as_the_policy_file_says() {
    for (aggregate, value) in [
        (Aggregate::First, 2.0),
        (Aggregate::Last, 3.0),
        (Aggregate::Sum, 10.0),
        (Aggregate::Mean, 10.0 / 3.0),
        (Aggregate::Max, 5.0),
    ] {
        let logged = decision("stars", 1, 0, 0.3);
        let mut events = opening(RewardRule {
            aggregate,
            ..rule()
        });
        events.push(Event::Decided(logged.clone()));
        for (id, value) in [(1, 2.0), (2, 5.0), (3, 3.0)] {
            events.push(rewarded(&logged, value, id));
        }
        let rows = objects(&journal(&events), &Selection::default());
        assert_eq!(rows[0]["reward"], value, "{aggregate:?}");
        let counted = if aggregate == Aggregate::First { 1 } else { 3 };
        assert_eq!(rows[0]["rewards"], counted, "{aggregate:?}");
    }
}

/// Not judged again: what was not accepted does not count, nor do named metrics.
#[test]
fn only_what_was_accepted_counts() {
    let logged = decision("stars", 1, 0, 0.3);
    let mut events = opening(rule());
    events.push(Event::Decided(logged.clone()));
    for verdict in [Verdict::Duplicate, Verdict::Late, Verdict::Unscored] {
        let Event::Rewarded(mut other) = rewarded(&logged, 9.0, 1) else {
            unreachable!()
        };
        other.verdict = verdict;
        events.push(Event::Rewarded(other));
    }
    let Event::Rewarded(mut metric) = rewarded(&logged, 8.0, 2) else {
        unreachable!()
    };
    metric.metric = Some(name("revenue"));
    events.push(Event::Rewarded(metric));
    let rows = objects(&journal(&events), &Selection::default());
    assert_eq!(
        (&rows[0]["reward"], &rows[0]["rewards"]),
        (&Value::Null, &json!(0))
    );
}

#[test]
fn failures_and_closed_windows_are_credited_in_columns_of_their_own() {
    let rule = RewardRule {
        default: Some(0.25),
        on_failure: Some(-1.0),
        ..rule()
    };
    let all: Vec<_> = (1..=4)
        .map(|counter| decision("stars", counter, 0, 0.3))
        .collect();
    let mut late = decision("stars", 5, 0, 0.3);
    late.decision.at = at(NOW - HOUR / 2);
    let mut forced = decision("stars", 6, 0, 1.0);
    forced.decision.reason = Reason::Forced;
    let mut events = opening(rule);
    let logged = all.iter().chain([&late, &forced]);
    events.extend(logged.cloned().map(Event::Decided));
    events.push(rewarded(&all[0], 1.0, 1));
    events.push(ended(&all[1], Ending::Failed));
    events.push(rewarded(&all[2], 0.5, 1));
    events.push(ended(&all[2], Ending::Failed));
    let rows = objects(&journal(&events), &Selection::default());
    let credits: Vec<[Option<f64>; 3]> = rows
        .iter()
        .map(|row| ["reward", "on_failure", "default"].map(|field| row[field].as_f64()))
        .collect();
    assert_eq!(
        credits,
        [
            [Some(1.0), None, None],
            [None, Some(-1.0), None],
            [Some(0.5), None, None],
            [None, None, Some(0.25)],
            // Its window is open; and one that was not drawn is credited with nothing.
            [None, None, None],
            [None, None, None],
        ]
    );
    assert_eq!(rows[5]["probabilities"], Value::Null);
}

/// A policy file that is removed gives its outstanding decisions up, and so does a new epoch.
#[test]
fn no_default_is_credited_after_the_file_is_gone() {
    let rule = RewardRule {
        default: Some(0.25),
        ..rule()
    };
    let early = decision("stars", 1, 0, 0.3);
    let mut given_up = decision("stars", 2, 0, 0.3);
    given_up.decision.at = at(5 * HOUR);
    let mut events = opening(rule);
    events.push(Event::Decided(early));
    events.push(Event::Decided(given_up));
    let experiment = ExperimentId::of(&name("stars"));
    let retired = Event::PolicyRetired {
        at: at(5 * HOUR + 60_000),
        experiment,
    };
    let next = Event::PolicyAdopted(Box::new(PolicyAdopted {
        at: at(5 * HOUR + 60_000),
        epoch: 2,
        ..policy("stars", rule, false)
    }));
    for end in [retired, next] {
        let mut events = events.clone();
        events.push(end);
        let rows = objects(&journal(&events), &Selection::default());
        assert_eq!(rows[0]["default"], 0.25);
        assert_eq!(rows[1]["default"], Value::Null);
    }
}

fn contextual(counter: u64, category: &str, length: f64) -> LoggedDecision {
    let mut logged = decision("reviews", counter, 0, 0.4);
    let [a, b] = arms(&name("reviews"));
    logged.context = Some(Box::new(LoggedContext {
        context: features().context(
            vec![
                Found::Text(category.into()),
                Found::Number(length),
                if counter == 1 {
                    Found::Boolean(true)
                } else {
                    Found::Missing
                },
            ]
            .into(),
        ),
        probabilities: vec![(a.0, 0.4), (b.0, 0.6)],
    }));
    logged
}

/// Two experiments: one with a context, and one whose reward is a cost.
fn two() -> MemoryStorage {
    let cost = RewardRule {
        goal: Goal::Minimize,
        ..rule()
    };
    let reviews = [
        contextual(1, "a \"quoted\", word\n", 120.0),
        contextual(2, "plain", 3.5),
    ];
    let stars = decision("stars", 3, 1, 0.7);
    let waiting = decision("stars", 4, 1, 0.7);
    journal(&[
        Event::PolicyAdopted(Box::new(policy("reviews", rule(), true))),
        Event::PolicyAdopted(Box::new(policy("stars", cost, false))),
        allocation("stars", 7, 0.3),
        Event::Decided(reviews[0].clone()),
        Event::Decided(reviews[1].clone()),
        Event::Decided(stars.clone()),
        Event::Decided(waiting),
        rewarded(&reviews[0], 1.0, 1),
        rewarded(&reviews[1], 0.0, 1),
        rewarded(&stars, 2.5, 1),
    ])
}

#[test]
fn a_selection_selects() {
    let storage = two();
    let counts = |selection: &Selection| -> Vec<Value> {
        let rows = objects(&storage, selection);
        rows.iter().map(|row| row["at"].clone()).collect()
    };
    let only = Selection::of(vec![name("reviews")]);
    assert_eq!(counts(&only).len(), 2);
    let since = Selection {
        since: Some(at(2000)),
        until: Some(at(4000)),
        ..Selection::default()
    };
    assert_eq!(
        counts(&since),
        ["2026-11-24T06:00:02.000Z", "2026-11-24T06:00:03.000Z"]
    );
    let unknown = Selection::of(vec![name("star")]);
    let mut memory = Memory(Outputs::default(), Format::Jsonl, false);
    let error = export(&storage, &unknown, at(0), &mut memory, &mut |_| ()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the journal has no experiment `star`; it has reviews, stars"
    );
}

#[test]
fn each_experiment_may_have_its_own_output() {
    let outputs = Outputs::default();
    let mut memory = Memory(outputs.clone(), Format::Csv, true);
    let selection = Selection::default();
    export(&two(), &selection, at(NOW), &mut memory, &mut |_| ()).unwrap();
    let written = outputs.0.lock().unwrap();
    let lines = |index: usize| {
        let (name, bytes) = &written[index];
        let text = String::from_utf8(bytes.clone()).unwrap();
        (
            name.clone(),
            text.lines().next().unwrap().to_owned(),
            text.matches("\nE").count(),
        )
    };
    assert_eq!((lines(0).0.as_str(), lines(0).2), ("reviews", 2));
    assert!(lines(0).1.ends_with(",context.length,context.prime"));
    assert_eq!((lines(1).0.as_str(), lines(1).2), ("stars", 2));
    assert!(lines(1).1.ends_with(",context"));
}

/// The second pass stops where the first one did: of what comes later it is not known what becomes of it.
#[test]
fn what_is_written_meanwhile_is_left_out() {
    let whole = two().contents().remove(0);
    let text = std::str::from_utf8(&whole).unwrap();
    let mut ends = text.match_indices("\n{\"type\":\"decision\"");
    let half = ends.nth(1).unwrap().0 + 1;
    let storage = MemoryStorage::default();
    storage.put(1, &whole[..half]);
    let outputs = Outputs::default();
    let mut memory = Memory(outputs, Format::Jsonl, false);
    let mut passes = 0;
    let summary = export(
        &storage,
        &Selection::default(),
        at(NOW),
        &mut memory,
        &mut |step| {
            assert!(step.segments <= step.of);
            storage.put(1, &whole);
            passes += 1;
        },
    );
    assert_eq!((summary.unwrap().rows, passes), (1, 2));
}

#[test]
fn damage_is_counted_and_a_newer_record_ends_it() {
    let mut bytes = two().contents().remove(0);
    let place = bytes.len() / 2;
    bytes[place] ^= 1;
    let storage = MemoryStorage::default();
    storage.put(1, &bytes);
    let (_, summary) = exported(&storage, &Selection::default(), Format::Jsonl);
    assert!(summary.damaged > 0);
    assert!(summary.rows < 4);

    let mut bytes = Vec::new();
    bytes.extend_from_slice(b"{\"type\":\"sunrise\",\"v\":1}\n");
    write_commit(&mut bytes, 0, 1, 1);
    storage.put(1, &bytes);
    let mut memory = Memory(Outputs::default(), Format::Jsonl, false);
    let error = export(
        &storage,
        &Selection::default(),
        at(0),
        &mut memory,
        &mut |_| (),
    );
    assert!(
        matches!(error, Err(ExportError::Newer { offset: 0, .. })),
        "{error:?}"
    );
}
