//! The core's hot spots: a draw and its signed id, which every request pays, and P(best), which the learner pays when rewards arrive.
//!
//! `cargo bench --no-default-features --bench core`

use std::hint::black_box;
use std::sync::Arc;

use divan::Bencher;
use pointsman::chance::DrawKeys;
use pointsman::clock::Timestamp;
use pointsman::decision_id::Keys;
use pointsman::engine::contextual::Workspace;
use pointsman::engine::decide::decide;
use pointsman::engine::snapshot::{Allocation, Serving};
use pointsman::experiment::decision::{Decision, Reason};
use pointsman::experiment::id::{ArmId, ExperimentId, Name, PolicyVersion, SequenceKey, UnitHash};
use pointsman::experiment::reward::{Aggregate, Goal, Learn, RewardKind, RewardRule};
use pointsman::experiment::upstream::{HostRule, Protocol};
use pointsman::experiment::{Arm, Experiment, Matcher, PathRule, UpstreamRule};
use pointsman::policy::best::probability_best;
use pointsman::policy::{Posterior, fixed::Fixed};

fn main() {
    divan::main();
}

/// An experiment with equal shares for `count` arms.
fn serving(count: usize) -> Serving {
    let name = Name::new("bench").expect("a name");
    let arms: Vec<Arm> = (0..count)
        .map(|index| {
            let arm = Name::new(&format!("arm-{index}")).expect("a name");
            Arm {
                id: ArmId::of(&name, &arm, ""),
                name: arm,
                version: String::new(),
                endpoints: Vec::new(),
                weight: 1.0,
                prior: None,
                protocol: Protocol::Auto,
                host: HostRule::Keep,
                path: None,
                model: None,
            }
        })
        .collect();
    let experiment = Experiment {
        id: ExperimentId::of(&name),
        version: PolicyVersion::of(&name, ""),
        name,
        description: String::new(),
        file: String::new(),
        text: Arc::from(""),
        declared_epoch: 0,
        matcher: Matcher {
            path: PathRule::Exact("/".into()),
            methods: Vec::new(),
            host: None,
            headers: Vec::new(),
        },
        unit: None,
        reward: RewardRule {
            kind: RewardKind::Binary,
            window: 1,
            default: None,
            aggregate: Aggregate::First,
            goal: Goal::Maximize,
            learn: Learn::Arrival,
            on_failure: None,
        },
        reward_metric: None,
        reward_key: None,
        label: None,
        shadow: None,
        context: None,
        arms,
        baseline: 0,
        policy: Arc::new(Fixed),
        floor: 0.0,
        warm_up: 0,
        upstream: UpstreamRule::default(),
    };
    Serving {
        experiment: Arc::new(experiment),
        epoch: 0,
        allocation: Arc::new(Allocation {
            version: 1,
            probabilities: vec![1.0 / count as f64; count],
            contextual: None,
        }),
        arms: Vec::new(),
        paused: false,
    }
}

#[divan::bench(args = [2, 10, 100])]
fn draw(bencher: Bencher, arms: usize) {
    let mut workspace = Workspace::default();
    let (serving, keys) = (serving(arms), DrawKeys::derive(&[7; 32]));
    let mut counter = 0;
    bencher.bench_local(|| {
        counter += 1;
        let sequence = SequenceKey {
            origin: 1,
            worker: 0,
            counter,
        };
        decide(black_box(&serving), None, sequence, &keys, &mut workspace)
    });
}

#[divan::bench(args = [2, 10, 100])]
fn draw_sticky(bencher: Bencher, arms: usize) {
    let mut workspace = Workspace::default();
    let (serving, keys) = (serving(arms), DrawKeys::derive(&[7; 32]));
    let mut counter = 0_u64;
    bencher.bench_local(|| {
        counter += 1;
        let unit = UnitHash(counter.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let sequence = SequenceKey {
            origin: 1,
            worker: 0,
            counter,
        };
        decide(
            black_box(&serving),
            Some(unit),
            sequence,
            &keys,
            &mut workspace,
        )
    });
}

/// What a sticky draw pays before it: the keyed hash of a unit, here a user id.
#[divan::bench]
fn hash_unit(bencher: Bencher) {
    let (serving, keys) = (serving(2), DrawKeys::derive(&[7; 32]));
    let user = b"user-0123456789";
    bencher.bench_local(|| keys.unit_hash(serving.experiment.id, "", black_box(user)));
}

/// The decision id of one draw, signed.
#[divan::bench]
fn sign_token(bencher: Bencher) {
    let (serving, keys) = (serving(2), Keys::derive(&[7; 32], &[]));
    let mut decision = Decision {
        sequence: SequenceKey {
            origin: 1,
            worker: 0,
            counter: 0,
        },
        at: Timestamp::from_millis(1_795_500_000_123),
        experiment: serving.experiment.id,
        epoch: 0,
        arm: serving.experiment.arms[0].id,
        policy_version: serving.experiment.version,
        propensity: 0.5,
        reason: Reason::Sampled,
    };
    bencher.bench_local(|| {
        decision.sequence.counter += 1;
        keys.encode(black_box(&decision))
    });
}

/// Arms with 100 to 100,000 rewards and means around 0.3.
#[divan::bench(args = [2, 3, 10, 100])]
fn best_of_betas(bencher: Bencher, arms: usize) {
    let posteriors: Vec<Posterior> = (0..arms)
        .map(|index| {
            let count = 100.0 * 10_f64.powf(3.0 * index as f64 / arms as f64);
            let mean = 0.3 + 0.05 * (index as f64).sin();
            Posterior::Beta {
                alpha: 1.0 + count * mean,
                beta: 1.0 + count * (1.0 - mean),
                min: 0.0,
                max: 1.0,
            }
        })
        .collect();
    bencher.bench_local(|| probability_best(black_box(&posteriors), Goal::Maximize));
}

/// Arms with few rewards each: heavy tails of different scales.
#[divan::bench(args = [2, 3, 10, 100])]
fn best_of_student_ts(bencher: Bencher, arms: usize) {
    let posteriors: Vec<Posterior> = (0..arms)
        .map(|index| Posterior::StudentT {
            location: (index as f64).sin(),
            scale: 10_f64.powf(-2.0 * index as f64 / arms as f64),
            degrees: 2.0 + index as f64,
        })
        .collect();
    bencher.bench_local(|| probability_best(black_box(&posteriors), Goal::Maximize));
}
