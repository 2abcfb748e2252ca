mod among;

use std::sync::Arc;

use super::*;
use crate::engine::fixture;
use crate::experiment::id::ExperimentId;
use crate::policy::fixed::Fixed;

fn serving(probabilities: &[f64]) -> Serving {
    let experiment = fixture::experiment(Arc::new(Fixed), &vec![1.0; probabilities.len()]);
    fixture::serving(experiment, probabilities.to_vec())
}

fn sequence(counter: u64) -> SequenceKey {
    SequenceKey {
        origin: 9,
        worker: 1,
        counter,
    }
}

#[test]
fn inversion_never_draws_an_arm_of_probability_zero() {
    assert_eq!(invert(&[0.0, 1.0, 0.0], 0.0), Some(1));
    assert_eq!(invert(&[0.0, 1.0, 0.0], 0.999_999_999_999), Some(1));
    assert_eq!(invert(&[0.5, 0.5], 0.5), Some(1));
    assert_eq!(invert(&[0.3, 0.3, 0.4 - 1e-12], 1.0 - 1e-16), Some(2));
    assert_eq!(invert(&[0.0, 0.0], 0.5), None);
}

/// Σ(1[A = a] − p) is a martingale with variance Σp(1 − p): drawn and logged probabilities agree.
#[test]
fn the_propensity_is_the_probability_of_the_draw() {
    let keys = DrawKeys::derive(&[1; 32]);
    let allocations = [
        vec![0.5, 0.5, 0.0],
        vec![0.98, 0.01, 0.01],
        vec![0.005, 0.3, 0.695],
    ];
    let servings: Vec<Serving> = allocations.iter().map(|p| serving(p)).collect();
    for sticky in [false, true] {
        let mut excess = [0.0; 3];
        let mut variance = [0.0; 3];
        for counter in 0..150_000_u64 {
            let serving = &servings[counter as usize % 3];
            let unit = sticky.then(|| keys.unit_hash(ExperimentId(1), "", &counter.to_le_bytes()));
            let draw = decide(
                serving,
                unit,
                sequence(counter),
                &keys,
                &mut Workspace::default(),
            );
            let probabilities = &serving.allocation.probabilities;
            assert_eq!(draw.propensity, probabilities[draw.arm]);
            assert_eq!(draw.reason, Reason::Sampled);
            for (arm, probability) in probabilities.iter().enumerate() {
                excess[arm] += f64::from(u8::from(draw.arm == arm)) - probability;
                variance[arm] += probability * (1.0 - probability);
            }
        }
        for (excess, variance) in excess.iter().zip(&variance) {
            let deviations = excess.abs() / f64::sqrt(*variance);
            assert!(deviations <= 4.5, "{deviations}, sticky: {sticky}");
        }
    }
}

#[test]
fn the_same_key_draws_the_same_arm() {
    let keys = DrawKeys::derive(&[1; 32]);
    let serving = serving(&[0.25; 4]);
    for counter in 0..100 {
        let again = || {
            decide(
                &serving,
                None,
                sequence(counter),
                &keys,
                &mut Workspace::default(),
            )
        };
        assert_eq!(again(), again());
        let unit = keys.unit_hash(ExperimentId(1), "", b"alice");
        let sticky = |counter| {
            decide(
                &serving,
                Some(unit),
                sequence(counter),
                &keys,
                &mut Workspace::default(),
            )
            .arm
        };
        assert_eq!(sticky(counter), sticky(0));
    }
}

/// The journal leaves arms of probability 0 out of a decision's own probabilities.
#[test]
fn arms_of_probability_zero_may_be_left_out() {
    let keys = DrawKeys::derive(&[1; 32]);
    let all = [0.0, 0.1, 0.0, 0.2, 0.7, 0.0];
    let kept: Vec<usize> = (0..all.len()).filter(|arm| all[*arm] > 0.0).collect();
    let some: Vec<f64> = kept.iter().map(|arm| all[*arm]).collect();
    for counter in 0..10_000_u64 {
        let hash = keys.unit_hash(ExperimentId(1), "", &counter.to_le_bytes());
        for unit in [None, Some(hash)] {
            let draw = |probabilities: &[f64], arms: &[usize]| {
                let ids = arms.iter().map(|arm| ArmId(*arm as u32));
                draw_from(probabilities, ids, unit, sequence(counter), &keys)
                    .map(|(arm, propensity)| (arms[arm], propensity))
            };
            assert_eq!(draw(&some, &kept), draw(&all, &[0, 1, 2, 3, 4, 5]));
        }
    }
}

#[test]
fn the_baseline_serves_a_pause_and_when_no_arm_can_be_drawn() {
    let keys = DrawKeys::derive(&[1; 32]);
    let nothing = serving(&[0.0, 0.0]);
    let draw = decide(
        &nothing,
        None,
        sequence(0),
        &keys,
        &mut Workspace::default(),
    );
    let baseline = |reason| Draw {
        arm: 0,
        propensity: 1.0,
        reason,
    };
    assert_eq!(draw, baseline(Reason::Fallback));
    let mut paused = serving(&[0.0, 1.0]);
    paused.paused = true;
    let unit = keys.unit_hash(ExperimentId(1), "", b"alice");
    let draw = decide(
        &paused,
        Some(unit),
        sequence(0),
        &keys,
        &mut Workspace::default(),
    );
    assert_eq!(draw, baseline(Reason::Paused));
}

#[test]
fn one_arm_has_propensity_one() {
    let keys = DrawKeys::derive(&[1; 32]);
    let draw = decide(
        &serving(&[0.0, 1.0]),
        None,
        sequence(5),
        &keys,
        &mut Workspace::default(),
    );
    assert_eq!((draw.arm, draw.propensity), (1, 1.0));
}
