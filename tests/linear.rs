//! Linear and logistic regressions, and the policies made of them, against numbers that other tools computed (`data/linear.json`).
//!
//! λ = 1 and nothing is standardised there.

#![expect(
    clippy::unwrap_used,
    reason = "a vector that cannot be read fails its test"
)]

use pointsman::experiment::reward::{Goal, RewardKind};
use pointsman::policy::Memory;
use pointsman::policy::contextual::lin_thompson::LinThompson;
use pointsman::policy::contextual::lin_ucb::LinUcb;
use pointsman::policy::contextual::model::{Model, Scratch};
use pointsman::policy::contextual::ridge::{ArmStatistics, Objective, Ridge};
use pointsman::stats::cholesky::{Cholesky, dot, row};
use pointsman::stats::laplace::stationary_score;
use pointsman::stats::linear::Linear;
use serde_json::Value;

const FILE: &str = include_str!("data/linear.json");
const ARMS: usize = 4;
const DIMENSION: usize = 5;
const RIDGE: Ridge = Ridge {
    lambda: 1.0,
    standardize: false,
};
const REAL: Objective = Objective {
    reward: RewardKind::Real,
    goal: Goal::Maximize,
};

fn file() -> Value {
    serde_json::from_str(FILE).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    let list = value.as_array().unwrap();
    list.iter().map(|number| number.as_f64().unwrap()).collect()
}

fn table(value: &Value) -> Vec<Vec<f64>> {
    value.as_array().unwrap().iter().map(numbers).collect()
}

fn assert_close(actual: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(actual.len(), expected.len());
    for (actual, expected) in actual.iter().zip(expected) {
        let error = (actual - expected).abs();
        assert!(error <= tolerance, "{actual} instead of {expected}");
    }
}

/// Arm, features and reward of each decision.
fn decisions(file: &Value) -> Vec<(usize, Vec<f64>, f64)> {
    let read = |decision: &Value| {
        let arm = decision["arm"].as_u64().unwrap() as usize;
        let reward = decision["reward"].as_f64().unwrap();
        (arm, numbers(&decision["x"]), reward)
    };
    let decisions = file["decisions"].as_array().unwrap();
    decisions.iter().map(read).collect()
}

/// The arms' statistics after the first `count` decisions.
fn statistics(file: &Value, count: usize) -> Vec<Linear> {
    let mut arms = vec![Linear::new(DIMENSION); ARMS];
    for (arm, x, reward) in &decisions(file)[..count] {
        arms[*arm].add(x, *reward);
    }
    arms
}

fn as_arms(linear: &[Linear]) -> Vec<ArmStatistics<'_>> {
    let arms = linear.iter();
    arms.map(|linear| ArmStatistics {
        linear,
        lambda: None,
    })
    .collect()
}

#[test]
fn upper_confidence_bounds_and_thompson_probabilities() {
    let file = file();
    let mut scratch = Scratch::default();
    for case in file["cases"].as_array().unwrap() {
        let alpha = case["alpha"].as_f64().unwrap();
        let linear = statistics(&file, case["after"].as_u64().unwrap() as usize);
        let arms = as_arms(&linear);
        let bounds = LinUcb {
            alpha,
            ridge: RIDGE,
            memory: Memory::Forever,
        }
        .fit(&arms, REAL);
        let thompson = LinThompson {
            v: alpha,
            ridge: RIDGE,
            memory: Memory::Forever,
        }
        .fit(&arms, REAL);
        let expected = table(&case["bounds"])
            .into_iter()
            .zip(table(&case["p_best"]));
        for (x, (bound, best)) in table(&file["query"]).iter().zip(expected) {
            assert_close(bounds.bounds(x, &mut scratch), &bound, 1e-8);
            let mut distribution = [0.0; ARMS];
            thompson.distribution(x, &mut scratch, &mut distribution);
            assert_close(&distribution, &best, 1e-8);
            let greatest = bound.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            bounds.distribution(x, &mut scratch, &mut distribution);
            let one_hot = bound.iter().map(|b| f64::from(u8::from(*b == greatest)));
            assert_close(&distribution, &one_hot.collect::<Vec<f64>>(), 0.0);
        }
    }
}

#[test]
fn coefficients_and_inverses() {
    let file = file();
    let linear = statistics(&file, 300);
    let fit = RIDGE.predictions(&as_arms(&linear), REAL);
    for (arm, linear) in linear.iter().enumerate() {
        let theta = numbers(&file["theta"][arm]);
        assert_close(fit.coefficients(arm), &theta, 1e-8);
        let cholesky = Cholesky::of_ridge(linear.gram().to_vec(), DIMENSION, 1.0);
        let inverse = cholesky.inverse();
        for (i, line) in table(&file["inverse"][arm]).iter().enumerate() {
            assert_close(&inverse[row(i)..=row(i) + i], &line[..=i], 1e-8);
        }
    }
}

#[test]
fn discounted_coefficients() {
    let file = file();
    let discounted = &file["discounted"];
    let gamma = discounted["gamma"].as_f64().unwrap();
    let mut arms = vec![Linear::new(DIMENSION); ARMS];
    for (age, (arm, x, reward)) in decisions(&file).iter().rev().enumerate() {
        let mut one = Linear::new(DIMENSION);
        one.add(x, *reward);
        arms[*arm].merge_scaled(&one, libm::pow(gamma, age as f64));
    }
    let fit = RIDGE.predictions(&as_arms(&arms), REAL);
    for (arm, theta) in table(&discounted["theta"]).iter().enumerate() {
        assert_close(fit.coefficients(arm), theta, 1e-8);
    }
}

#[test]
fn normal_inverse_gamma_regression_of_the_second_arm() {
    let file = file();
    let expected = &file["normal_inverse_gamma"];
    let number = |key: &str| expected[key].as_f64().unwrap();
    let linear = &statistics(&file, 300)[1];
    let cholesky = Cholesky::of_ridge(linear.gram().to_vec(), DIMENSION, 1.0);
    let mut mu = linear.response().to_vec();
    cholesky.solve(&mut mu);
    assert_close(&mu, &numbers(&expected["mu"]), 1e-8);
    // The prior has shape 1 and scale 1.
    let shape = 1.0 + 0.5 * linear.weight();
    let scale = 1.0 + 0.5 * (linear.squares() - dot(&mu, linear.response()));
    let found = [shape, scale, 2.0 * shape];
    assert_close(&found, &[number("a"), number("b"), number("df")], 1e-8);
    let (locations, scales) = table(&file["query"])
        .iter()
        .map(|x| {
            let mut solved = x.clone();
            cholesky.solve(&mut solved);
            (dot(&mu, x), (scale / shape * dot(x, &solved)).sqrt())
        })
        .unzip::<f64, f64, Vec<f64>, Vec<f64>>();
    assert_close(&locations, &numbers(&expected["query_loc"]), 1e-8);
    assert_close(&scales, &numbers(&expected["query_scale"]), 1e-8);
}

/// The reference learns in batches, where the policy learns decision by decision. A batch's minimum is the point where every decision's step is
/// stationary given all others', so going round the decisions with the policy's own step finds it.
#[test]
fn logistic_batches() {
    let file = file();
    let all = decisions(&file);
    let rows = numbers(&file["logistic"]["rows"]);
    let outcomes = numbers(&file["logistic"]["outcomes"]);
    let mut rest = rows.iter().zip(&outcomes);
    let (mut m, mut q) = (vec![0.0; DIMENSION], vec![1.0; DIMENSION]);
    for batch in file["logistic"]["batches"].as_array().unwrap() {
        let count = batch["n"].as_u64().unwrap() as usize;
        let batch_rows: Vec<(&[f64], f64)> = rest
            .by_ref()
            .take(count)
            .map(|(row, outcome)| (all[*row as usize].1.as_slice(), *outcome))
            .collect();
        let mut pulls = vec![0.0; count];
        for _ in 0..500 {
            for ((x, outcome), pull) in batch_rows.iter().zip(&mut pulls) {
                for i in 0..DIMENSION {
                    m[i] -= *pull * x[i] / q[i];
                }
                let variance: f64 = x.iter().zip(&q).map(|(x, q)| x * x / q).sum();
                let score = stationary_score(outcome * dot(&m, x), variance);
                *pull = outcome / (1.0 + libm::exp(score));
                for i in 0..DIMENSION {
                    m[i] += *pull * x[i] / q[i];
                }
            }
        }
        for (x, _) in &batch_rows {
            let likely = 1.0 / (1.0 + libm::exp(-dot(&m, x)));
            for i in 0..DIMENSION {
                q[i] += x[i] * x[i] * likely * (1.0 - likely);
            }
        }
        assert_close(&m, &numbers(&batch["m"]), 1e-8);
        assert_close(&q, &numbers(&batch["q"]), 1e-8);
    }
}
