//! What holds for every model.

use super::epsilon_greedy_linear::EpsilonGreedyLinear;
use super::lin_thompson::LinThompson;
use super::lin_ucb::LinUcb;
use super::logistic_thompson::LogisticThompson;
use super::model::{Model, Scratch};
use super::ridge::{ArmStatistics, Objective, Ridge};
use super::square_cb::{SquareCb, weigh_gaps};
use crate::experiment::reward::{Goal, RewardKind};
use crate::policy::Memory;
use crate::stats::laplace::{Laplace, LaplaceRule};
use crate::stats::linear::Linear;
use crate::stats::linear::tests::numbers;

const RIDGE: Ridge = Ridge::new(1.0);
const BINARY: Objective = Objective {
    reward: RewardKind::Binary,
    goal: Goal::Maximize,
};
const RULE: LaplaceRule = LaplaceRule {
    lambda: 1.0,
    standardize: true,
};

/// Statistics of arms of which the one after the greatest feature's index does best.
struct World {
    linear: Vec<Linear>,
    laplace: Vec<Laplace>,
}

impl World {
    fn new(arms: usize, dimension: usize) -> Self {
        Self {
            linear: vec![Linear::new(dimension); arms],
            laplace: vec![Laplace::new(dimension); arms],
        }
    }

    fn learn(&mut self, arm: usize, x: &[f64], success: bool) {
        self.linear[arm].add(x, f64::from(u8::from(success)));
        self.laplace[arm].learn(x, success, RULE);
    }

    /// Arm i succeeds when feature i + 1 is positive.
    fn learned(arms: usize, count: usize) -> Self {
        let mut world = Self::new(arms, arms + 1);
        let mut next = numbers(17);
        for step in 0..count {
            let mut x = vec![1.0];
            x.extend((0..arms).map(|_| 10.0 * next() + 100.0));
            let arm = step % arms;
            world.learn(arm, &x, x[arm + 1] > 100.0);
        }
        world
    }

    fn models(&self, keep: &[usize], objective: Objective) -> Vec<Box<dyn Model>> {
        let arms: Vec<ArmStatistics<'_>> = keep
            .iter()
            .map(|arm| ArmStatistics {
                linear: &self.linear[*arm],
                lambda: None,
            })
            .collect();
        let laplace: Vec<&Laplace> = keep.iter().map(|arm| &self.laplace[*arm]).collect();
        vec![
            Box::new(
                LinThompson {
                    v: 0.3,
                    ridge: RIDGE,
                    memory: Memory::Forever,
                }
                .fit(&arms, objective),
            ),
            Box::new(
                LinUcb {
                    alpha: 0.3,
                    ridge: RIDGE,
                    memory: Memory::Forever,
                }
                .fit(&arms, objective),
            ),
            Box::new(
                EpsilonGreedyLinear {
                    epsilon: 0.1,
                    ridge: RIDGE,
                    memory: Memory::Forever,
                }
                .fit(&arms, objective),
            ),
            Box::new(
                SquareCb {
                    gamma_scale: 10.0,
                    gamma_exponent: 0.5,
                    ridge: RIDGE,
                    memory: Memory::Forever,
                }
                .fit(&arms, objective),
            ),
            Box::new(LogisticThompson { rule: RULE }.fit(&laplace, objective.goal)),
        ]
    }
}

fn answer(model: &dyn Model, x: &[f64]) -> Vec<f64> {
    let mut distribution = vec![f64::NAN; model.arms()];
    model.distribution(x, &mut Scratch::default(), &mut distribution);
    assert!(
        (distribution.iter().sum::<f64>() - 1.0).abs() < 1e-9,
        "{model:?} {distribution:?}"
    );
    assert!(
        distribution.iter().all(|part| *part >= 0.0),
        "{distribution:?}"
    );
    distribution
}

#[test]
fn every_model_learns_which_arm_suits_a_context() {
    let world = World::learned(3, 900);
    for model in world.models(&[0, 1, 2], BINARY) {
        for best in 0..3 {
            let mut x = [1.0, 95.0, 95.0, 95.0];
            x[best + 1] = 108.0;
            let distribution = answer(&*model, &x);
            assert!(distribution[best] > 0.6, "{model:?} {x:?} {distribution:?}");
        }
    }
}

#[test]
fn minimising_chooses_what_maximising_the_opposite_does() {
    let world = World::learned(3, 900);
    let mut opposite = World::new(3, 4);
    let mut next = numbers(17);
    for step in 0..900 {
        let mut x = vec![1.0];
        x.extend((0..3).map(|_| 10.0 * next() + 100.0));
        let arm = step % 3;
        opposite.learn(arm, &x, x[arm + 1] <= 100.0);
    }
    let minimize = Objective {
        goal: Goal::Minimize,
        ..BINARY
    };
    let all = [0, 1, 2];
    let pairs = world
        .models(&all, BINARY)
        .into_iter()
        .zip(opposite.models(&all, minimize));
    for (maximizing, minimizing) in pairs {
        for x in [
            [1.0, 95.0, 99.0, 101.0],
            [1.0, 110.0, 90.0, 90.0],
            [1.0, 101.0, 100.0, 100.5],
        ] {
            let (a, b) = (answer(&*maximizing, &x), answer(&*minimizing, &x));
            for (a, b) in a.iter().zip(&b) {
                assert!((a - b).abs() < 1e-9, "{maximizing:?} {a} {b}");
            }
        }
    }
}

#[test]
fn bounded_rewards_are_scaled_and_minimising_mirrors_them() {
    let (mut unit, mut wide) = (World::new(2, 3), World::new(2, 3));
    let mut next = numbers(23);
    for step in 0..200 {
        let x = [1.0, next(), next()];
        let reward = 0.5 + 0.3 * x[1 + step % 2] + 0.1 * next();
        unit.linear[step % 2].add(&x, reward);
        wide.linear[step % 2].add(&x, 40.0 - 60.0 * reward);
    }
    let scaled = Objective {
        reward: RewardKind::Bounded {
            min: -20.0,
            max: 40.0,
        },
        goal: Goal::Minimize,
    };
    let x = [1.0, 0.2, 0.1];
    let pairs = unit
        .models(&[0, 1], BINARY)
        .into_iter()
        .zip(wide.models(&[0, 1], scaled));
    for (unit, wide) in pairs.take(4) {
        let (a, b) = (answer(&*unit, &x), answer(&*wide, &x));
        assert!((a[0] - b[0]).abs() < 1e-9, "{a:?} {b:?}");
    }
}

#[test]
fn units_of_real_rewards_do_not_matter() {
    let (mut plain, mut moved) = (World::new(2, 3), World::new(2, 3));
    let mut next = numbers(29);
    for step in 0..200 {
        let x = [1.0, next(), next()];
        let reward = x[1 + step % 2] + next();
        plain.linear[step % 2].add(&x, reward);
        moved.linear[step % 2].add(&x, 5e4 - 1e3 * reward);
    }
    let real = |goal| Objective {
        reward: RewardKind::Real,
        goal,
    };
    let x = [1.0, 0.2, 0.1];
    let plain = plain.models(&[0, 1], real(Goal::Maximize));
    let moved = moved.models(&[0, 1], real(Goal::Minimize));
    for (plain, moved) in plain.into_iter().zip(moved).take(4) {
        let (a, b) = (answer(&*plain, &x), answer(&*moved, &x));
        assert!((a[0] - b[0]).abs() < 1e-8, "{a:?} {b:?}");
    }
}

#[test]
fn without_decisions_all_arms_share() {
    for arms in [1, 2, 7, 100] {
        let world = World::new(arms, 4);
        let all: Vec<usize> = (0..arms).collect();
        for model in world.models(&all, BINARY) {
            for part in answer(&*model, &[1.0, 3.0, -2.0, 1e9]) {
                assert!((part - 1.0 / arms as f64).abs() < 1e-12, "{model:?} {part}");
            }
        }
    }
}

#[test]
fn leaving_an_arm_out_is_never_having_had_it() {
    let world = World::learned(3, 300);
    let mut two = World::new(2, 4);
    two.linear.clone_from_slice(&world.linear[1..]);
    two.laplace.clone_from_slice(&world.laplace[1..]);
    let pairs = world
        .models(&[1, 2], BINARY)
        .into_iter()
        .zip(two.models(&[0, 1], BINARY));
    for (excluded, alone) in pairs {
        let x = [1.0, 108.0, 99.0, 101.0];
        assert_eq!(answer(&*excluded, &x), answer(&*alone, &x));
    }
}

#[test]
fn hostile_contexts_give_distributions() {
    let mut world = World::new(3, 4);
    let values = [0.0, 1e9, -1e9, 1e-300, 1.0, 1e9];
    for step in 0..300 {
        let pick = |shift: usize| values[(step * shift + step / 7) % values.len()];
        let x = [1.0, pick(1), pick(5), 3.0 * pick(1)];
        world.learn(step % 2, &x, step % 5 == 0);
    }
    for objective in [
        BINARY,
        Objective {
            reward: RewardKind::Real,
            goal: Goal::Minimize,
        },
    ] {
        for model in world.models(&[0, 1, 2], objective) {
            for value in [0.0, 1e9, -1e9, 1e300, f64::NAN, f64::INFINITY, 1e-310] {
                answer(&*model, &[1.0, value, -value, 0.5]);
            }
        }
    }
}

#[test]
fn a_single_decision_and_constant_features_are_enough() {
    let mut world = World::new(2, 4);
    world.learn(0, &[1.0, 5.0, 5.0, 0.1], true);
    for model in world.models(&[0, 1], BINARY) {
        answer(&*model, &[1.0, 5.0, 7.0, 0.1]);
    }
    (0..1000).for_each(|_| world.learn(1, &[1.0, 5.0, 5.0, 0.1], false));
    for model in world.models(&[0, 1], BINARY) {
        let distribution = answer(&*model, &[1.0, 5.0, 5.0, 0.1]);
        // What never varied says nothing: another value of it changes nothing.
        assert_eq!(distribution, answer(&*model, &[1.0, -9.0, 1e9, 0.0]));
    }
}

#[test]
fn scratch_of_a_larger_model_serves_a_smaller_one() {
    let (large, small) = (World::learned(8, 200), World::learned(2, 200));
    let mut scratch = Scratch::default();
    for model in large.models(&[0, 1, 2, 3, 4, 5, 6, 7], BINARY) {
        model.distribution(
            &[1.0, 100.0, 101.0, 99.0, 98.0, 105.0, 103.0, 97.0, 100.0],
            &mut scratch,
            &mut [0.0; 8],
        );
    }
    for model in small.models(&[0, 1], BINARY) {
        let x = [1.0, 101.0, 99.0];
        let mut distribution = [0.0; 2];
        model.distribution(&x, &mut scratch, &mut distribution);
        assert_eq!(distribution.to_vec(), answer(&*model, &x));
    }
}

#[test]
fn an_arms_own_prior_counts_for_it_alone() {
    let world = World::learned(2, 40);
    let arm = |index: usize, lambda| ArmStatistics {
        linear: &world.linear[index],
        lambda,
    };
    let fit = RIDGE.predictions(&[arm(0, Some(1e6)), arm(1, None)], BINARY);
    let plain = RIDGE.predictions(&[arm(0, None), arm(1, None)], BINARY);
    assert!(fit.coefficients(0).iter().all(|theta| theta.abs() < 1e-3));
    assert_eq!(fit.coefficients(1), plain.coefficients(1));
}

#[test]
fn gaps_weigh_as_the_formula_says() {
    let mut distribution = [0.0; 3];
    weigh_gaps(&[0.9, 0.4, 0.65], 20.0, &mut distribution);
    let (second, third) = (1.0 / 13.0, 1.0 / 8.0);
    assert_eq!(distribution, [1.0 - second - third, second, third]);
    weigh_gaps(&[5.0, -5.0, 5.0], 7.0, &mut distribution);
    assert_eq!(distribution, [0.45, 0.1, 0.45]);
    weigh_gaps(&[0.3, 0.1, 0.2], 0.0, &mut distribution);
    assert!(
        distribution
            .iter()
            .all(|part| (part - 1.0 / 3.0).abs() < 1e-15)
    );
}

#[test]
fn epsilon_is_shared_by_all_arms_and_the_rest_by_the_best() {
    let mut world = World::new(3, 2);
    for _ in 0..10 {
        world.learn(0, &[1.0, 0.0], true);
        world.learn(1, &[1.0, 0.0], true);
        world.learn(2, &[1.0, 0.0], false);
    }
    let model = &world.models(&[0, 1, 2], BINARY)[2];
    let distribution = answer(&**model, &[1.0, 0.0]);
    for (part, expected) in distribution
        .iter()
        .zip([0.45 + 0.1 / 3.0, 0.45 + 0.1 / 3.0, 0.1 / 3.0])
    {
        assert!((part - expected).abs() < 1e-15, "{distribution:?}");
    }
}
