//! A decision's line: what encoding it costs, without and with a context, and how long it is; and what reading it back costs.
//!
//! `cargo bench --no-default-features --bench journal`

use std::hint::black_box;
use std::io::Write;
use std::sync::Arc;

use divan::Bencher;
use divan::counter::BytesCount;
use pointsman::clock::Timestamp;
use pointsman::decision_id::Keys;
use pointsman::engine::event::{Event, PolicyAdopted};
use pointsman::experiment::context::{ContextRule, Encoding, Feature, Scale, Source, Value};
use pointsman::experiment::decision::{Decision, LoggedContext, LoggedDecision, Reason};
use pointsman::experiment::id::{ArmId, ExperimentId, Name, PolicyVersion, SequenceKey};
use pointsman::experiment::reward::{Aggregate, Goal, Learn, RewardKind, RewardRule};
use pointsman::journal::decode::Decoder;
use pointsman::journal::{Directory, Encoder};
use pointsman::policy::Statistics;

fn main() {
    for contextual in [false, true] {
        let (mut encoder, _, event) = prepared(contextual);
        let bytes = line(&mut encoder, &event).len();
        let told = format!("contextual: {contextual}, bytes of a decision's line: {bytes}");
        writeln!(std::io::stdout(), "{told}").ok();
    }
    divan::main();
}

/// A category, a length, a truth value.
fn rule() -> ContextRule {
    let feature = |name: &str, encoding| Feature {
        name: name.into(),
        source: Source::Header(name.into()),
        encoding,
    };
    let scale = Scale {
        center: 0.0,
        scale: 1.0,
        log: true,
        missing: 0.0,
    };
    ContextRule::new(vec![
        feature("category", Encoding::Hashed(16)),
        feature("length", Encoding::Length(scale)),
        feature("prime", Encoding::Boolean),
    ])
}

/// A policy with ten arms; with a context, each with a probability of its own.
fn policy() -> PolicyAdopted {
    let name = Name::new("star-rating").expect("a name");
    let arm = |index: u32| {
        let arm = Name::new(&format!("variant-{index}")).expect("a name");
        (ArmId::of(&name, &arm, ""), arm, String::new())
    };
    PolicyAdopted {
        metric: None,
        at: Timestamp::from_millis(1_795_500_000_000),
        experiment: ExperimentId::of(&name),
        version: PolicyVersion([1; 6]),
        epoch: 1,
        declared_epoch: 1,
        reward_meaning: String::new(),
        reward: RewardRule {
            kind: RewardKind::Binary,
            window: 3_600_000,
            default: None,
            aggregate: Aggregate::First,
            goal: Goal::Maximize,
            learn: Learn::Arrival,
            on_failure: None,
        },
        label: None,
        shadow: None,
        context: Some(Arc::new(rule())),
        statistics: Statistics::SCALAR,
        arms: (0..10).map(arm).collect(),
        text: Arc::from(""),
        name,
    }
}

fn prepared(contextual: bool) -> (Encoder, Decoder, Event) {
    let policy = policy();
    let arms: Vec<ArmId> = policy.arms.iter().map(|(arm, ..)| *arm).collect();
    let share = |index: usize| (index as f64 + 0.7).sqrt() / 22.0;
    let logged = || LoggedContext {
        context: policy.context.as_ref().expect("a rule").context(
            vec![
                Value::Text("clothing".into()),
                Value::Number(120.0),
                Value::Boolean(true),
            ]
            .into(),
        ),
        probabilities: (0..)
            .zip(&arms)
            .map(|(index, arm)| (*arm, share(index)))
            .collect(),
    };
    let event = Event::Decided(LoggedDecision {
        decision: Decision {
            sequence: SequenceKey {
                origin: 1 << 60,
                worker: 1,
                counter: 123_456,
            },
            at: policy.at,
            experiment: policy.experiment,
            epoch: 1,
            arm: arms[3],
            policy_version: policy.version,
            propensity: share(3),
            reason: Reason::Sampled,
        },
        unit: None,
        allocation_version: 12,
        instead_of: None,
        key: None,
        context: contextual.then(|| Box::new(logged())),
    });
    let (mut encoder, mut decoder) = (
        Encoder::new(Keys::derive(&[7; 32], &[]), Directory::default()),
        Decoder::default(),
    );
    let adopted = line(&mut encoder, &Event::PolicyAdopted(Box::new(policy)));
    decoder.decode(&adopted).expect("our own line");
    (encoder, decoder, event)
}

fn line(encoder: &mut Encoder, event: &Event) -> Vec<u8> {
    let mut line = Vec::new();
    encoder.encode(event, &mut line);
    line
}

#[divan::bench(args = [false, true])]
fn encode(bencher: Bencher, contextual: bool) {
    let (mut encoder, _, event) = prepared(contextual);
    let mut lines = line(&mut encoder, &event);
    bencher
        .counter(BytesCount::new(lines.len()))
        .bench_local(|| {
            lines.clear();
            encoder.encode(black_box(&event), &mut lines);
            lines.len()
        });
}

#[divan::bench(args = [false, true])]
fn decode(bencher: Bencher, contextual: bool) {
    let (mut encoder, mut decoder, event) = prepared(contextual);
    let line = line(&mut encoder, &event);
    bencher
        .counter(BytesCount::new(line.len()))
        .bench_local(|| decoder.decode(black_box(&line)));
}
