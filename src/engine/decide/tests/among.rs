//! Draws among the arms that are available.

use super::*;
use crate::engine::contextual::Contextual;
use crate::policy::{Model, Scratch};

const ALL: [f64; 4] = [0.4, 0.3, 0.2, 0.1];

fn among(
    serving: &Serving,
    unit: Option<UnitHash>,
    counter: u64,
    mask: u8,
) -> (AmongDraw, Workspace) {
    let mut workspace = Workspace::default();
    let available = |arm: usize| mask >> arm & 1 == 1;
    let keys = DrawKeys::derive(&[1; 32]);
    let draw = decide_among(
        serving,
        unit,
        sequence(counter),
        &keys,
        &mut workspace,
        &available,
    );
    (draw, workspace)
}

fn plainly(serving: &Serving, unit: Option<UnitHash>, counter: u64) -> Draw {
    let keys = DrawKeys::derive(&[1; 32]);
    decide(
        serving,
        unit,
        sequence(counter),
        &keys,
        &mut Workspace::default(),
    )
}

fn unit(counter: u64) -> UnitHash {
    let keys = DrawKeys::derive(&[1; 32]);
    keys.unit_hash(ExperimentId(1), "", &counter.to_le_bytes())
}

/// For every set of arms: the others are never drawn, the rest is drawn as it is logged, and that is what is left of the allocation.
#[test]
fn what_is_left_is_drawn_as_it_is_logged() {
    let serving = serving(&ALL);
    let arms = &serving.experiment.arms;
    let allocation: Vec<_> = arms.iter().map(|arm| arm.id).zip(ALL).collect();
    for mask in 1..15_u8 {
        let left = |arm: usize| mask >> arm & 1 == 1;
        let sum: f64 = (0..4).filter(|arm| left(*arm)).map(|arm| ALL[arm]).sum();
        let mut excess = [0.0; 4];
        for counter in 0..20_000 {
            let unit = (counter % 2 == 0).then(|| unit(counter));
            let (AmongDraw { draw, own }, workspace) = among(&serving, unit, counter, mask);
            assert!(own && left(draw.arm) && draw.reason == Reason::Sampled);
            assert!((draw.propensity - ALL[draw.arm] / sum).abs() < 1e-15);
            let logged = own_probabilities(&serving, &workspace);
            assert_eq!(logged.len(), mask.count_ones() as usize);
            assert!(is_remainder(&logged, &allocation));
            let ids = logged.iter().map(|(arm, _)| *arm);
            let numbers: Vec<f64> = logged.iter().map(|(_, number)| *number).collect();
            let keys = DrawKeys::derive(&[1; 32]);
            let (again, propensity) =
                draw_from(&numbers, ids, unit, sequence(counter), &keys).unwrap();
            assert_eq!(logged[again].0, arms[draw.arm].id);
            assert_eq!(propensity.to_bits(), draw.propensity.to_bits());
            excess[draw.arm] += 1.0;
        }
        for (arm, drawn) in excess.iter().enumerate() {
            let expected = if left(arm) { ALL[arm] / sum } else { 0.0 };
            let error = (drawn / 20_000.0 - expected).abs();
            assert!(error < 0.02, "arm {arm} of {mask:04b}: {drawn}");
        }
    }
    assert!(!is_remainder(
        &[(arms[0].id, 0.6), (arms[1].id, 0.4)],
        &allocation
    ));
    assert!(!is_remainder(&[(ArmId(1), 1.0)], &allocation));
}

/// Units of the arms that are left stay where they are.
#[test]
fn only_units_of_the_lost_arm_move() {
    let serving = serving(&ALL);
    for counter in 0..2_000 {
        let unit = Some(unit(counter));
        let before = plainly(&serving, unit, counter).arm;
        let (after, _) = among(&serving, unit, counter, 0b1101);
        assert!(after.draw.arm == before || before == 1);
        assert_ne!(after.draw.arm, 1);
    }
}

/// Once the allocation is without them, arms that are not available change nothing.
#[test]
fn an_allocation_without_the_arm_is_drawn_from_as_it_is() {
    let without = serving(&[0.7, 0.0, 0.2, 0.1]);
    let all = serving(&ALL);
    for counter in 0..500 {
        for unit in [None, Some(unit(counter))] {
            for (serving, mask) in [(&without, 0b1101), (&without, 0b1111), (&all, 0b1111)] {
                let (drawn, _) = among(serving, unit, counter, mask);
                assert_eq!(drawn.draw, plainly(serving, unit, counter));
                assert!(!drawn.own);
            }
        }
    }
}

#[test]
fn the_baseline_serves_when_nothing_is_left() {
    let fallback = Draw {
        arm: 0,
        propensity: 1.0,
        reason: Reason::Fallback,
    };
    for (probabilities, mask) in [
        (ALL, 0b0000),
        ([0.0, 1.0, 0.0, 0.0], 0b1101),
        ([0.0; 4], 0b1111),
    ] {
        let (drawn, _) = among(&serving(&probabilities), None, 1, mask);
        let expected = AmongDraw {
            draw: fallback,
            own: false,
        };
        assert_eq!(drawn, expected);
    }
    let mut paused = serving(&ALL);
    paused.paused = true;
    let (drawn, _) = among(&paused, None, 1, 0b0001);
    assert_eq!((drawn.draw.reason, drawn.own), (Reason::Paused, false));
}

/// Gives the first arm the first feature and the second the rest.
#[derive(Debug)]
struct Halves;

impl Model for Halves {
    fn arms(&self) -> usize {
        2
    }

    fn dimension(&self) -> usize {
        1
    }

    fn distribution(&self, features: &[f64], _: &mut Scratch, distribution: &mut [f64]) {
        distribution.copy_from_slice(&[features[0], 1.0 - features[0]]);
    }
}

#[test]
fn a_contextual_decision_has_what_it_was_drawn_from_all_the_same() {
    let mut serving = serving(&[0.25; 4]);
    let base = vec![0.1, 0.1, 0.1, 0.1];
    let contextual = Contextual::new(Arc::new(Halves), vec![0, 2], base, 0.6, vec![0.5]);
    Arc::make_mut(&mut serving.allocation).contextual = Some(contextual);
    let keys = DrawKeys::derive(&[1; 32]);
    for counter in 0..1_000 {
        let mut workspace = Workspace::default();
        workspace.features.push(counter as f64 / 1_000.0);
        let plain = decide(&serving, None, sequence(counter), &keys, &mut workspace);
        let before = workspace.probabilities.clone();
        let all = decide_among(
            &serving,
            None,
            sequence(counter),
            &keys,
            &mut workspace,
            &|_| true,
        );
        assert_eq!((all.draw, all.own), (plain, true));
        assert_eq!(workspace.probabilities, before);
        let some = decide_among(
            &serving,
            None,
            sequence(counter),
            &keys,
            &mut workspace,
            &|arm| arm != 2,
        );
        assert!(some.own && some.draw.arm != 2);
        assert_eq!(workspace.probabilities[2], 0.0);
        let sum: f64 = workspace.probabilities.iter().sum();
        assert!((sum - 1.0).abs() < 1e-12);
        assert_eq!(some.draw.propensity, workspace.probabilities[some.draw.arm]);
        let ratio = before[0] / before[1];
        assert!((workspace.probabilities[0] / workspace.probabilities[1] - ratio).abs() < 1e-12);
    }
}
