//! Lines with contexts: a fixture's worth of them, round trips, what is shared, what is refused.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::super::decode::{Decoder, decode};
use super::*;
use crate::engine::attribute::{Claim, Judgement, Posted, Tentative};
use crate::engine::event::{PolicyAdopted, Rewarded, Verdict};
use crate::engine::fold::Limits;
use crate::engine::replay::Replay;
use crate::experiment::context::{Context, ContextRule, Encoding, Feature, Scale, Source, Value};
use crate::experiment::decision::{Decision, LoggedContext, LoggedDecision};
use crate::experiment::id::{ArmId, ExperimentId, Name, PolicyVersion};
use crate::policy::{Memory, Regression, Statistics};

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn arm(text: &str, version: &str) -> ArmId {
    ArmId::of(&name("reviews"), &name(text), version)
}

fn feature(name: &str, source: Source, encoding: Encoding) -> Feature {
    Feature {
        name: name.into(),
        source,
        encoding,
    }
}

/// A category, a length, a truth value.
fn three() -> ContextRule {
    let scale = Scale {
        center: 5.0,
        scale: 1.5,
        log: true,
        missing: 100.0,
    };
    ContextRule::new(vec![
        feature(
            "category",
            Source::Header("x-category".into()),
            Encoding::OneHot(vec!["clothing".into(), "movies \"&\" more".into()]),
        ),
        feature(
            "length",
            Source::Json("/text".into()),
            Encoding::Length(scale),
        ),
        feature("prime", Source::Cookie("prime".into()), Encoding::Boolean),
    ])
}

/// The other sources and encodings.
fn others() -> ContextRule {
    let scale = Scale {
        center: -0.0,
        scale: f64::MIN_POSITIVE,
        log: false,
        missing: 0.1 + 0.2,
    };
    ContextRule::new(vec![
        feature("page", Source::Query("p".into()), Encoding::Number(scale)),
        feature("size", Source::Body, Encoding::Length(scale)),
        feature("user_2", Source::Unit, Encoding::Hashed(16)),
    ])
}

pub(super) fn policy() -> PolicyAdopted {
    PolicyAdopted {
        name: name("reviews"),
        experiment: ExperimentId::of(&name("reviews")),
        version: PolicyVersion([7; 6]),
        context: Some(Arc::new(three())),
        statistics: Statistics {
            regression: Some(Regression::Linear),
            ..Statistics::SCALAR
        },
        arms: vec![
            (arm("minilm-l6", ""), name("minilm-l6"), String::new()),
            (arm("minilm-l3", "2"), name("minilm-l3"), "2".into()),
        ],
        text: Arc::from("[context.category]"),
        ..samples::policy()
    }
}

/// The same experiment, looking at other things.
fn changed_policy() -> PolicyAdopted {
    PolicyAdopted {
        version: PolicyVersion([8; 6]),
        context: Some(Arc::new(others())),
        statistics: Statistics {
            memory: Memory::HalfLife(86_400_000),
            importance: Some(0.1 + 0.2),
            regression: Some(Regression::Logistic { precision: 0.5 }),
        },
        ..policy()
    }
}

fn decision(counter: u64) -> Decision {
    Decision {
        experiment: policy().experiment,
        arm: arm("minilm-l6", ""),
        policy_version: PolicyVersion([7; 6]),
        ..samples::decision(counter)
    }
}

fn logged(decision: Decision, context: Context, probabilities: Vec<(ArmId, f64)>) -> Event {
    Event::Decided(LoggedDecision {
        decision,
        unit: None,
        allocation_version: 3,
        instead_of: None,
        key: None,
        context: Some(Box::new(LoggedContext {
            context,
            probabilities,
        })),
    })
}

fn usual() -> Context {
    three().context(
        vec![
            Value::Text("clothing".into()),
            Value::Number(120.0),
            Value::Boolean(true),
        ]
        .into(),
    )
}

pub(super) fn usual_decision() -> Event {
    let probabilities = vec![
        (arm("minilm-l6", ""), 0.1 + 0.2),
        (arm("minilm-l3", "2"), 1.0 - (0.1 + 0.2)),
    ];
    logged(decision(1), usual(), probabilities)
}

fn rewarded(decision: Decision, context: Option<Context>) -> Event {
    Event::Rewarded(Box::new(Rewarded {
        decision,
        label: None,
        context: context.map(Box::new),
        verdict: Verdict::Accepted,
        ..samples::rewarded(1)
    }))
}

pub(super) fn usual_reward() -> Event {
    rewarded(decision(1), Some(usual()))
}

fn odd_contexts() -> Vec<Event> {
    let texts = ["", "a \"b\" \\ \u{1F600}\n\u{0}\u{7f}\u{2028}", "★"];
    let mut events: Vec<Event> = (10..)
        .zip(texts)
        .map(|(counter, text)| {
            let values = vec![
                Value::Text(text.into()),
                Value::Number(-1.234_567_890_123_456_7e-300),
                Value::Boolean(false),
            ];
            logged(
                decision(counter),
                three().context(values.into()),
                Vec::new(),
            )
        })
        .collect();
    let partly = vec![Value::Missing, Value::Missing, Value::Boolean(true)];
    // An arm that no policy record has named, and probabilities at their ends.
    let probabilities = vec![
        (ArmId(0xffff_ffff), f64::MIN_POSITIVE),
        (decision(0).arm, 1.0),
    ];
    events.push(logged(
        decision(20),
        three().context(partly.into()),
        probabilities,
    ));
    events.push(logged(decision(21), three().nothing(), Vec::new()));
    events.push(rewarded(decision(20), None));
    events.push(rewarded(decision(21), Some(three().nothing())));
    // An experiment that no policy record has named.
    let unnamed = Decision {
        experiment: ExperimentId(0xffff_fffe),
        ..decision(22)
    };
    let probabilities = vec![(unnamed.arm, 0.5), (ArmId(1), 0.5)];
    events.push(logged(unnamed, usual(), probabilities));
    events
}

/// The events, in the groups in which the fixture has them; added to, never changed.
pub(super) fn groups() -> Vec<Vec<Event>> {
    let other = others().context(
        vec![
            Value::Number(-0.0),
            Value::Number(1e15),
            Value::Text("u-1".into()),
        ]
        .into(),
    );
    vec![
        vec![
            samples::groups()[0][0].clone(),
            Event::PolicyAdopted(Box::new(policy())),
        ],
        vec![usual_decision(), usual_reward()],
        odd_contexts(),
        vec![
            Event::PolicyAdopted(Box::new(changed_policy())),
            logged(decision(30), other, vec![(decision(30).arm, 1.0)]),
            // Made upon the context of the policy before.
            rewarded(decision(1), Some(usual())),
        ],
    ]
}

/// The line of an event, after this policy's.
pub(super) fn line(policy: PolicyAdopted, event: &Event) -> String {
    let mut encoder = encoder();
    encoder.encode(&Event::PolicyAdopted(Box::new(policy)), &mut Vec::new());
    let mut lines = Vec::new();
    encoder.encode(event, &mut lines);
    String::from_utf8(lines).unwrap()
}

fn context_of(event: &Event) -> &Context {
    match event {
        Event::Decided(logged) => &logged.context.as_ref().unwrap().context,
        Event::Rewarded(rewarded) => rewarded.context.as_ref().unwrap(),
        other => panic!("{other:?}"),
    }
}

fn encoded(rule: &ContextRule, context: &Context) -> Vec<u64> {
    let mut numbers = Vec::new();
    rule.encode(context, &mut numbers);
    numbers.into_iter().map(f64::to_bits).collect()
}

#[test]
fn a_line_is_read_the_same_by_itself_and_after_its_policy() {
    let mut decoder = Decoder::default();
    let mut encoder = encoder();
    for event in groups().concat() {
        let mut line = Vec::new();
        encoder.encode(&event, &mut line);
        assert_eq!(decoder.decode(&line).unwrap(), event);
        let alone = decode(&line).unwrap();
        match (&event, &alone) {
            (Event::Decided(wanted), Event::Decided(read)) => {
                let (wanted, read) = (wanted.context.as_ref(), read.context.as_ref());
                let (wanted, read) = (wanted.unwrap(), read.unwrap());
                assert_eq!(read.probabilities, wanted.probabilities);
                for rule in [three(), others()] {
                    assert_eq!(
                        encoded(&rule, &read.context),
                        encoded(&rule, &wanted.context)
                    );
                }
            }
            (Event::Rewarded(wanted), Event::Rewarded(read)) => {
                let encoded = |context: &Option<Box<Context>>| {
                    context.as_ref().map(|context| encoded(&three(), context))
                };
                assert_eq!(encoded(&read.context), encoded(&wanted.context));
            }
            _ => assert_eq!(alone, event),
        }
    }
}

#[test]
fn a_context_is_for_people_too() {
    let json: Json = serde_json::from_str(&line(policy(), &usual_decision())).unwrap();
    assert_eq!(
        json["context"],
        json!({"category": "clothing", "length": 120.0, "prime": true})
    );
    let versioned = format!("minilm-l3@{:08x}", arm("minilm-l3", "2").0);
    assert_eq!(
        json["probabilities"],
        json!({"minilm-l6": 0.1 + 0.2, versioned: 1.0 - (0.1 + 0.2)})
    );
    let json: Json = serde_json::from_str(&line(policy(), &usual_reward())).unwrap();
    assert_eq!(json["context"]["length"], 120.0);
    let nothing = logged(decision(1), three().nothing(), Vec::new());
    let json: Json = serde_json::from_str(&line(policy(), &nothing)).unwrap();
    assert_eq!(json["context"], json!({}));
    assert_eq!(json["probabilities"], Json::Null);
    let free: Json = serde_json::from_str(&line(policy(), &rewarded(decision(1), None))).unwrap();
    assert_eq!(free["context"], Json::Null);
}

#[test]
fn contexts_share_their_names() {
    let mut decoder = Decoder::default();
    let mut encoder = encoder();
    let mut read = |event: &Event| {
        let mut line = Vec::new();
        encoder.encode(event, &mut line);
        decoder.decode(&line).unwrap()
    };
    let Event::PolicyAdopted(told) = read(&Event::PolicyAdopted(Box::new(policy()))) else {
        panic!("no policy");
    };
    let names = told.context.unwrap().nothing().names;
    for event in [usual_decision(), usual_reward(), odd_contexts()[3].clone()] {
        assert!(Arc::ptr_eq(&context_of(&read(&event)).names, &names));
    }
    let unnamed = odd_contexts().pop().unwrap();
    let (first, second) = (read(&unnamed), read(&unnamed));
    assert!(Arc::ptr_eq(
        &context_of(&first).names,
        &context_of(&second).names
    ));
}

#[test]
fn a_recovered_state_finds_the_contexts() {
    let storage = MemoryStorage::default();
    let mut writer = writer(&storage, Position::default());
    for event in &groups()[..2].concat()[..3] {
        writer.append(event).unwrap();
    }
    writer.commit().unwrap();
    let now = decision(1).at.plus(1000);
    let mut replay = Replay::new(Limits::default(), now);
    for event in recovered(&storage).0 {
        replay.push(&event);
    }
    let claim = Claim {
        decision: decision(1),
        received: now,
        at: None,
        metric: None,
        id: None,
        posted: Posted::Reward(1.0),
    };
    let judgement = replay.finish().judge(&mut Tentative::default(), claim, now);
    let Judgement::Judged(rewarded) = judgement else {
        panic!("{judgement:?}");
    };
    assert_eq!(rewarded.verdict, Verdict::Accepted);
    assert_eq!(rewarded.context.as_deref(), Some(&usual()));
}

#[test]
fn values_and_probabilities_that_are_not_finite_do_not_spoil_the_line() {
    let values = vec![
        Value::Text("x".into()),
        Value::Number(f64::NAN),
        Value::Boolean(true),
    ];
    let probabilities = vec![(decision(1).arm, f64::INFINITY)];
    let event = logged(decision(1), three().context(values.into()), probabilities);
    let Event::Decided(read) = decode(line(policy(), &event).as_bytes()).unwrap() else {
        panic!("no decision");
    };
    let context = read.context.unwrap();
    assert_eq!(context.context.get("length"), None);
    assert_eq!(context.context.get("prime"), Some(&Value::Boolean(true)));
    assert!(context.probabilities[0].1.is_nan());
}

#[test]
fn what_is_no_context_is_refused() {
    let good = line(policy(), &usual_decision());
    for (from, to) in [
        ("\"clothing\"", "[1]"),
        ("\"clothing\"", "{}"),
        ("120.0", "1e999"),
        ("\"minilm-l6\":", "\"-\":"),
        ("\"minilm-l6\":", "\"minilm-l6@1\":"),
        ("\"minilm-l6\":", "\"@0000000g\":"),
        (":{\"minilm-l6\"", ":[{\"minilm-l6\""),
    ] {
        assert!(good.contains(from), "{from}: {good}");
        let bad = good.replacen(from, to, 1);
        assert!(decode(bad.as_bytes()).is_err(), "{bad}");
    }
    let good = line(policy(), &Event::PolicyAdopted(Box::new(changed_policy())));
    for (from, to) in [
        ("{\"hashed\":16}", "{\"hashed\":0}"),
        ("{\"hashed\":16}", "{\"hashed\":1100}"),
        ("{\"hashed\":16}", "{\"hashed\":18446744073709551615}"),
        ("{\"hashed\":16}", "{\"hashed\":-1}"),
        ("\"scale\":2.2250738585072014e-308", "\"scale\":0.0"),
        ("\"scale\":2.2250738585072014e-308", "\"scale\":-1.0"),
        ("\"source\":\"body\"", "\"source\":\"soul\""),
    ] {
        assert!(good.contains(from), "{from}: {good}");
        let bad = good.replacen(from, to, 1);
        assert!(decode(bad.as_bytes()).is_err(), "{bad}");
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Missing),
        any::<u64>()
            .prop_map(f64::from_bits)
            .prop_filter("what requests have is finite", |number| number.is_finite())
            .prop_map(Value::Number),
        any::<bool>().prop_map(Value::Boolean),
        any::<String>().prop_map(|text| Value::Text(text.into())),
    ]
}

proptest! {
    #[test]
    fn contexts_and_probabilities_survive_exactly(
        values in prop::collection::vec(any_value(), 3),
        bits in prop::collection::vec(any::<u64>(), 0..12),
        arms in prop::collection::vec(any::<u32>(), 12),
    ) {
        let context = three().context(values.into());
        let probabilities: Vec<(ArmId, f64)> = arms.into_iter().map(ArmId)
            .zip(bits.into_iter().map(f64::from_bits).filter(|number| number.is_finite()))
            .collect();
        let event = logged(decision(1), context.clone(), probabilities.clone());
        let mut decoder = Decoder::default();
        let mut encoder = encoder();
        for event in [Event::PolicyAdopted(Box::new(policy())), event, rewarded(decision(1), Some(context.clone()))] {
            let mut line = Vec::new();
            encoder.encode(&event, &mut line);
            prop_assert_eq!(memchr::memchr_iter(b'\n', &line).count(), 1);
            let read = decoder.decode(&line).unwrap();
            prop_assert_eq!(&read, &event);
            if let Event::Decided(logged) = &read {
                let read = &logged.context.as_ref().unwrap().probabilities;
                for ((_, read), (_, written)) in read.iter().zip(&probabilities) {
                    prop_assert_eq!(read.to_bits(), written.to_bits());
                }
                let alone = decode(&line).unwrap();
                prop_assert_eq!(encoded(&three(), context_of(&alone)), encoded(&three(), &context));
            }
        }
    }

    #[test]
    fn names_of_any_spelling_survive(names in prop::collection::btree_map(any::<String>(), any_value(), 0..5)) {
        let features = names.keys().map(|name| feature(name, Source::Body, Encoding::Hashed(8))).collect();
        let rule = ContextRule::new(features);
        let context = rule.context(names.into_values().collect());
        let event = logged(decision(1), context.clone(), Vec::new());
        let read = decode(line(policy(), &event).as_bytes()).unwrap();
        prop_assert_eq!(encoded(&rule, context_of(&read)), encoded(&rule, &context));
    }

    #[test]
    fn no_line_with_a_context_makes_it_panic(event in 0_usize..3, at in any::<prop::sample::Index>(), bytes in prop::collection::vec(any::<u8>(), 0..4)) {
        let events = [usual_decision(), usual_reward(), Event::PolicyAdopted(Box::new(changed_policy()))];
        let mut text = line(policy(), &events[event]).into_bytes();
        let at = at.index(text.len());
        let end = (at + bytes.len()).min(text.len());
        text.splice(at..end, bytes);
        let mut decoder = Decoder::default();
        let policy = line(policy(), &Event::PolicyAdopted(Box::new(policy())));
        decoder.decode(policy.as_bytes()).unwrap();
        let rule = match decoder.decode(&text) {
            Ok(Event::PolicyAdopted(policy)) => policy.context.as_deref().cloned(),
            Ok(Event::Decided(LoggedDecision { context: Some(logged), .. })) => {
                encoded(&three(), &logged.context);
                None
            }
            _ => None,
        };
        if let Some(rule) = rule {
            encoded(&rule, &usual());
        }
    }
}
