//! One event of every kind and shape. The fixture holds these very events, so they are added to, never changed.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::engine::event::{Event, PolicyAdopted, Rewarded, Verdict};
use crate::experiment::decision::{Decision, Ending, Label, LoggedDecision, Outcome, Reason};
use crate::experiment::id::{ArmId, ExperimentId, Name, PolicyVersion, SequenceKey, UnitHash};
use crate::experiment::reward::{
    Aggregate, Compare, Goal, LabelRule, Learn, RewardKind, RewardRule,
};
use crate::policy::Statistics;

const START: u64 = 1_795_500_000_000;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(START + millis)
}

pub(super) fn decision(counter: u64) -> Decision {
    Decision {
        sequence: SequenceKey {
            origin: 0xfeed_f00d_0000_0001,
            worker: 1,
            counter,
        },
        at: at(counter),
        experiment: ExperimentId(0x00c0_ffee),
        epoch: 1,
        arm: ArmId(0x0000_000a),
        policy_version: PolicyVersion([1, 2, 3, 0xa, 0xb, 0xc]),
        propensity: 0.1 + 0.2,
        reason: Reason::Sampled,
    }
}

pub(super) fn logged(counter: u64) -> LoggedDecision {
    LoggedDecision {
        decision: decision(counter),
        unit: Some(UnitHash(0x0123_4567_89ab_cdef)),
        allocation_version: 12,
        instead_of: None,
        key: None,
        context: None,
    }
}

pub(super) fn outcome(counter: u64) -> Outcome {
    Outcome {
        decision: decision(counter),
        at: at(counter + 12),
        ending: Ending::Answered,
        status: Some(200),
        latency_micros: 12_345,
        prediction: Some(Label::Number(5.0)),
    }
}

pub(super) fn rewarded(counter: u64) -> Rewarded {
    Rewarded {
        decision: decision(counter),
        received: at(counter + 60_000),
        at: None,
        metric: None,
        id: None,
        value: 1.0,
        label: Some(Label::Number(5.0)),
        context: None,
        verdict: Verdict::Accepted,
    }
}

pub(super) fn policy() -> PolicyAdopted {
    PolicyAdopted {
        metric: None,
        at: at(1),
        name: name("star-rating"),
        experiment: ExperimentId(0x00c0_ffee),
        version: PolicyVersion([1, 2, 3, 0xa, 0xb, 0xc]),
        epoch: 1,
        declared_epoch: 0,
        reward_meaning: "Binary First None None".into(),
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
        arms: vec![
            (ArmId(0xa), name("minilm-l6"), String::new()),
            (ArmId(0xb), name("minilm-l3"), "2026-11-01 \"rc\"".into()),
        ],
        text: Arc::from("# \"stars\"\r\n[match]\npath = \"/v1/stars\" # ★\u{2028}\u{7f}\0\t\\\n"),
    }
}

fn bounded_policy() -> PolicyAdopted {
    PolicyAdopted {
        metric: None,
        at: at(2),
        name: name("price"),
        experiment: ExperimentId(7),
        version: PolicyVersion([0; 6]),
        epoch: u16::MAX,
        declared_epoch: 3,
        reward_meaning: String::new(),
        reward: RewardRule {
            kind: RewardKind::Bounded {
                min: -1.5,
                max: 1e300,
            },
            window: u64::MAX,
            default: Some(0.0),
            aggregate: Aggregate::Mean,
            goal: Goal::Minimize,
            learn: Learn::Close,
            on_failure: Some(-1.5),
        },
        label: Some(LabelRule {
            prediction: "/predicted~1label".into(),
            compare: Compare::Within(1.0),
        }),
        shadow: None,
        context: None,
        statistics: Statistics::SCALAR,
        arms: vec![(ArmId(1), name("a"), String::new())],
        text: Arc::from(""),
    }
}

/// A reward with every optional field, and odd ones.
fn odd_rewards() -> Vec<Event> {
    let full = Rewarded {
        at: Some(at(7)),
        metric: Some(name("revenue")),
        id: Some("a \"b\" \\ \u{1F600}\n".into()),
        value: -1.234_567_890_123_456_7e-300,
        label: Some(Label::Text("five \"stars\"\n".into())),
        context: None,
        verdict: Verdict::Late,
        ..rewarded(3)
    };
    let mut events = vec![Event::Rewarded(Box::new(full))];
    for verdict in Verdict::ALL {
        let rewarded = Rewarded {
            context: None,
            verdict,
            label: Some(Label::Boolean(true)),
            ..rewarded(4)
        };
        events.push(Event::Rewarded(Box::new(rewarded)));
    }
    events
}

fn odd_decisions() -> Vec<Event> {
    let mut events = Vec::new();
    for (counter, reason) in (100..).zip(Reason::ALL) {
        let mut logged = logged(counter);
        logged.decision.reason = reason;
        logged.decision.propensity = 1.0;
        logged.unit = None;
        logged.allocation_version = u64::MAX;
        logged.instead_of = (reason == Reason::Fallback).then_some(SequenceKey {
            origin: u64::MAX,
            worker: u16::MAX,
            counter: (1 << 48) - 1,
        });
        events.push(Event::Decided(logged));
    }
    // An experiment that no policy record has named.
    let mut unnamed = logged(200);
    unnamed.decision.experiment = ExperimentId(0xffff_ffff);
    unnamed.decision.propensity = f64::MIN_POSITIVE;
    events.push(Event::Decided(unnamed));
    events
}

fn odd_outcomes() -> Vec<Event> {
    let predictions = [
        None,
        Some(Label::Text("5".into())),
        Some(Label::Boolean(false)),
    ];
    let endings = [Ending::Failed, Ending::Aborted, Ending::Answered];
    predictions
        .into_iter()
        .zip(endings)
        .map(|(prediction, ending)| {
            Event::Ended(Outcome {
                ending,
                prediction,
                status: None,
                latency_micros: 0,
                ..outcome(5)
            })
        })
        .collect()
}

/// The events, in the groups in which the fixture has them.
pub(super) fn groups() -> Vec<Vec<Event>> {
    let allocation = Event::Allocated {
        at: at(3),
        experiment: ExperimentId(0x00c0_ffee),
        epoch: 1,
        version: 12,
        probabilities: vec![(ArmId(0xa), 0.1 + 0.2), (ArmId(0xb), 1.0 - (0.1 + 0.2))],
    };
    vec![
        vec![Event::Started {
            at: at(0),
            origin: 0xfeed_f00d_0000_0001,
        }],
        vec![
            Event::PolicyAdopted(Box::new(policy())),
            Event::PolicyAdopted(Box::new(bounded_policy())),
            allocation,
        ],
        vec![
            Event::Decided(logged(1)),
            Event::Decided(logged(2)),
            Event::Ended(outcome(1)),
        ],
        vec![Event::Rewarded(Box::new(rewarded(1)))],
        odd_decisions(),
        odd_outcomes(),
        odd_rewards(),
        vec![
            Event::PolicyRetired {
                at: at(9),
                experiment: ExperimentId(7),
            },
            Event::PolicyRetired {
                at: at(10),
                experiment: ExperimentId(0xffff_ffff),
            },
        ],
    ]
}
