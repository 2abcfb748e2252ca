//! Contextual policies: a decision (which every request pays), an update and a fit (which the learner pays).
//!
//! `cargo bench --no-default-features --bench contextual`

use divan::Bencher;
use pointsman::experiment::reward::{Goal, RewardKind};
use pointsman::policy::Memory;
use pointsman::policy::contextual::epsilon_greedy_linear::EpsilonGreedyLinear;
use pointsman::policy::contextual::lin_thompson::LinThompson;
use pointsman::policy::contextual::lin_ucb::LinUcb;
use pointsman::policy::contextual::logistic_thompson::LogisticThompson;
use pointsman::policy::contextual::model::{Model, Scratch};
use pointsman::policy::contextual::ridge::{ArmStatistics, Objective, Ridge};
use pointsman::policy::contextual::square_cb::SquareCb;
use pointsman::stats::laplace::{Laplace, LaplaceRule};
use pointsman::stats::linear::Linear;

const RIDGE: Ridge = Ridge::new(1.0);
const RULE: LaplaceRule = LaplaceRule {
    lambda: 1.0,
    standardize: true,
};
const BINARY: Objective = Objective {
    reward: RewardKind::Binary,
    goal: Goal::Maximize,
};
/// (arms, features).
const SIZES: [(usize, usize); 5] = [(2, 10), (10, 10), (10, 32), (10, 128), (100, 10)];

fn main() {
    divan::main();
}

/// Features in [-1, 1), different at every step, with an intercept.
fn context(step: usize, features: usize) -> Vec<f64> {
    let feature = |i: usize| (step * 7919 + i * 104_729 + step * i * 31) % 2000;
    std::iter::once(1.0)
        .chain((0..features).map(|i| feature(i) as f64 / 1000.0 - 1.0))
        .collect()
}

/// What `arms` have learned from 200 decisions each; all means are alike, so that none is out of the race.
fn learned(arms: usize, features: usize) -> (Vec<Linear>, Vec<Laplace>) {
    let mut linear = vec![Linear::new(features + 1); arms];
    let mut laplace = vec![Laplace::new(features + 1); arms];
    for step in 0..200 * arms {
        let x = context(step, features);
        let success = (step / arms * 7 + step).is_multiple_of(3);
        linear[step % arms].add(&x, f64::from(u8::from(success)));
        laplace[step % arms].learn(&x, success, RULE);
    }
    (linear, laplace)
}

fn statistics(linear: &[Linear]) -> Vec<ArmStatistics<'_>> {
    let arms = linear.iter();
    arms.map(|linear| ArmStatistics {
        linear,
        lambda: None,
    })
    .collect()
}

fn decide(bencher: Bencher<'_, '_>, (arms, features): (usize, usize), model: &dyn Model) {
    let contexts: Vec<Vec<f64>> = (0..256).map(|step| context(step, features)).collect();
    let mut scratch = Scratch::default();
    let mut distribution = vec![0.0; arms];
    let mut step = 0;
    bencher.bench_local(|| {
        step = (step + 1) % contexts.len();
        model.distribution(&contexts[step], &mut scratch, &mut distribution);
        distribution[0]
    });
}

#[divan::bench(args = SIZES)]
fn lin_thompson(bencher: Bencher<'_, '_>, size: (usize, usize)) {
    let (linear, _) = learned(size.0, size.1);
    let policy = LinThompson {
        v: 0.25,
        ridge: RIDGE,
        memory: Memory::Forever,
    };
    decide(bencher, size, &policy.fit(&statistics(&linear), BINARY));
}

#[divan::bench(args = SIZES)]
fn lin_ucb(bencher: Bencher<'_, '_>, size: (usize, usize)) {
    let (linear, _) = learned(size.0, size.1);
    let policy = LinUcb {
        alpha: 1.0,
        ridge: RIDGE,
        memory: Memory::Forever,
    };
    decide(bencher, size, &policy.fit(&statistics(&linear), BINARY));
}

#[divan::bench(args = SIZES)]
fn square_cb(bencher: Bencher<'_, '_>, size: (usize, usize)) {
    let (linear, _) = learned(size.0, size.1);
    let policy = SquareCb {
        gamma_scale: 10.0,
        gamma_exponent: 0.5,
        ridge: RIDGE,
        memory: Memory::Forever,
    };
    decide(bencher, size, &policy.fit(&statistics(&linear), BINARY));
}

#[divan::bench(args = SIZES)]
fn epsilon_greedy_linear(bencher: Bencher<'_, '_>, size: (usize, usize)) {
    let (linear, _) = learned(size.0, size.1);
    let policy = EpsilonGreedyLinear {
        epsilon: 0.1,
        ridge: RIDGE,
        memory: Memory::Forever,
    };
    decide(bencher, size, &policy.fit(&statistics(&linear), BINARY));
}

#[divan::bench(args = SIZES)]
fn logistic_thompson(bencher: Bencher<'_, '_>, size: (usize, usize)) {
    let (_, laplace) = learned(size.0, size.1);
    let arms: Vec<&Laplace> = laplace.iter().collect();
    let model = LogisticThompson { rule: RULE }.fit(&arms, Goal::Maximize);
    decide(bencher, size, &model);
}

#[divan::bench(args = [10, 32, 128])]
fn update_linear(bencher: Bencher<'_, '_>, features: usize) {
    let mut linear = Linear::new(features + 1);
    let contexts: Vec<Vec<f64>> = (0..256).map(|step| context(step, features)).collect();
    let mut step = 0;
    bencher.bench_local(|| {
        step = (step + 1) % contexts.len();
        linear.add(&contexts[step], 1.0);
    });
}

#[divan::bench(args = [10, 32, 128])]
fn update_logistic(bencher: Bencher<'_, '_>, features: usize) {
    let mut laplace = Laplace::new(features + 1);
    let contexts: Vec<Vec<f64>> = (0..256).map(|step| context(step, features)).collect();
    let mut step = 0;
    bencher.bench_local(|| {
        step = (step + 1) % contexts.len();
        laplace.learn(&contexts[step], step % 3 == 0, RULE);
    });
}

#[divan::bench(args = SIZES)]
fn fit_with_uncertainty(bencher: Bencher<'_, '_>, (arms, features): (usize, usize)) {
    let (linear, _) = learned(arms, features);
    let policy = LinUcb {
        alpha: 1.0,
        ridge: RIDGE,
        memory: Memory::Forever,
    };
    bencher.bench_local(|| policy.fit(&statistics(&linear), BINARY));
}
