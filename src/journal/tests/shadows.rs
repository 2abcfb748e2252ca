//! Lines of shadows: a fixture's worth of them, round trips, what is refused. The fixture holds these very events, so they are
//! added to, never changed.

use serde_json::{Value, json};

use super::super::decode::decode;
use super::*;
use crate::engine::event::PolicyAdopted;
use crate::experiment::decision::{Ending, Label, Outcome, Shadowed};
use crate::experiment::id::{ArmId, ExperimentId};
use crate::experiment::shadow::ShadowTerms;

fn adopted(learn: bool) -> PolicyAdopted {
    PolicyAdopted {
        shadow: Some(ShadowTerms { learn }),
        ..samples::policy()
    }
}

fn shadowed(arm: u32, outcome: Outcome) -> Event {
    let arm = ArmId(arm);
    Event::Shadowed(Box::new(Shadowed { arm, outcome }))
}

pub(super) fn usual() -> Event {
    shadowed(0xb, samples::outcome(1))
}

fn odd() -> Vec<Event> {
    let failed = Outcome {
        ending: Ending::Failed,
        status: None,
        prediction: None,
        latency_micros: 0,
        ..samples::outcome(1)
    };
    let mut unnamed = samples::outcome(2);
    unnamed.decision.experiment = ExperimentId(0xffff_ffff);
    vec![
        shadowed(
            0xb,
            Outcome {
                status: Some(503),
                ..failed.clone()
            },
        ),
        shadowed(0xb, failed),
        shadowed(
            0xb,
            Outcome {
                prediction: Some(Label::Boolean(false)),
                ..samples::outcome(2)
            },
        ),
        shadowed(
            0xb,
            Outcome {
                prediction: Some(Label::Text("five \"stars\"\n".into())),
                ..samples::outcome(2)
            },
        ),
        // An arm and an experiment that no policy record has named.
        shadowed(0xffff_ffff, samples::outcome(2)),
        shadowed(0xb, unnamed),
    ]
}

/// The events, in the groups in which the fixture has them.
pub(super) fn groups() -> Vec<Vec<Event>> {
    vec![
        vec![Event::PolicyAdopted(Box::new(adopted(false)))],
        vec![
            Event::Decided(samples::logged(1)),
            Event::Ended(samples::outcome(1)),
            usual(),
            Event::Rewarded(Box::new(samples::rewarded(1))),
        ],
        odd(),
        vec![Event::PolicyAdopted(Box::new(adopted(true)))],
    ]
}

/// The line of an event, after its policy's.
pub(super) fn line(event: &Event) -> String {
    let mut encoder = encoder();
    encoder.encode(
        &Event::PolicyAdopted(Box::new(adopted(false))),
        &mut Vec::new(),
    );
    let mut lines = Vec::new();
    encoder.encode(event, &mut lines);
    String::from_utf8(lines).unwrap()
}

#[test]
fn every_sample_survives_the_round_trip_on_one_line() {
    for event in groups().concat() {
        let text = line(&event);
        assert_eq!(decode(text.as_bytes()).unwrap(), event, "{text}");
        assert!(text.ends_with("}\n") && text.lines().count() == 1, "{text}");
    }
}

#[test]
fn the_arm_is_the_one_that_shadowed_and_the_id_is_the_decisions() {
    let json: Value = serde_json::from_str(&line(&usual())).unwrap();
    let outcome: Value = serde_json::from_str(&line(&Event::Ended(samples::outcome(1)))).unwrap();
    assert_eq!(json["id"], outcome["id"]);
    assert_eq!(
        (&outcome["arm"], &json["arm"]),
        (&json!("minilm-l6"), &json!("minilm-l3"))
    );
    assert_eq!(
        (&json["arm_id"], &json["v"]),
        (&json!("0000000b"), &json!(1))
    );
}

#[test]
fn what_is_no_shadow_is_refused() {
    let good = line(&usual());
    for (from, to) in [
        ("\"arm_id\":\"0000000b\",", ""),
        ("\"arm_id\":\"0000000b\"", "\"arm_id\":\"b\""),
        ("\"ending\":\"answered\"", "\"ending\":\"well\""),
        ("\"latency_micros\":12345", "\"latency_micros\":-1"),
        ("\"prediction\":5.0", "\"prediction\":[5]"),
        ("\"id\":\"E", "\"id\":\"A"),
    ] {
        assert!(good.contains(from), "{from}: {good}");
        assert!(
            decode(good.replacen(from, to, 1).as_bytes()).is_err(),
            "{to}"
        );
    }
    let policy = line(&Event::PolicyAdopted(Box::new(adopted(true))));
    let bad = policy.replacen("\"shadow\":{\"learn\":true}", "\"shadow\":{\"learn\":1}", 1);
    assert_ne!(policy, bad);
    assert!(decode(bad.as_bytes()).is_err());
}
