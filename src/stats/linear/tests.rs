use super::*;
use crate::stats::cholesky::{Cholesky, row};

/// A decision.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) x: Vec<f64>,
    pub(crate) reward: f64,
}

/// Uniform numbers in [-1, 1) from a linear congruential generator (Knuth's MMIX constants).
pub(crate) fn numbers(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed;
    move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }
}

/// `count` decisions whose reward is a linear function of their features plus noise.
pub(crate) fn rows(dimension: usize, count: usize, scale: f64) -> Vec<Row> {
    let mut next = numbers(7);
    (0..count)
        .map(|_| {
            let mut x = vec![1.0; dimension];
            for value in &mut x[1..] {
                *value = scale * next();
            }
            let signal: f64 = x[1..]
                .iter()
                .enumerate()
                .map(|(i, v)| v / scale / (i + 1) as f64)
                .sum();
            Row {
                reward: signal + 0.3 * next(),
                x,
            }
        })
        .collect()
}

fn collect(rows: &[Row]) -> Linear {
    let mut linear = Linear::new(rows[0].x.len());
    for row in rows {
        linear.add(&row.x, row.reward);
    }
    linear
}

fn numbers_of(linear: &Linear) -> Vec<f64> {
    let mut all = linear.gram().to_vec();
    all.extend(linear.response());
    all.push(linear.squares());
    all
}

fn assert_close(a: &Linear, b: &Linear, tolerance: f64) {
    for (a, b) in numbers_of(a).iter().zip(numbers_of(b)) {
        assert!((a - b).abs() <= tolerance * a.abs().max(1.0), "{a} {b}");
    }
}

#[test]
fn sums_are_those_of_the_definition() {
    let mut linear = Linear::new(3);
    linear.add(&[1.0, 2.0, 3.0], 0.5);
    linear.add(&[1.0, -1.0, 4.0], 2.0);
    assert_eq!(linear.gram(), [2.0, 1.0, 5.0, 7.0, 2.0, 25.0]);
    assert_eq!(linear.response(), [2.5, -1.0, 9.5]);
    assert_eq!(linear.squares(), 4.25);
    assert_eq!((linear.weight(), linear.sum()), (2.0, 2.5));
}

#[test]
fn two_halves_add_up_to_the_whole() {
    let rows = rows(11, 10_000, 100.0);
    let whole = collect(&rows);
    let even: Vec<Row> = rows.iter().step_by(2).cloned().collect();
    let odd: Vec<Row> = rows.iter().skip(1).step_by(2).cloned().collect();
    let mut merged = collect(&even);
    merged.merge(&collect(&odd));
    assert_close(&merged, &whole, 1e-9);
    let solution = |linear: &Linear| {
        let mut theta = linear.response().to_vec();
        Cholesky::of_ridge(linear.gram().to_vec(), 11, 1.0).solve(&mut theta);
        theta
    };
    for (a, b) in solution(&merged).iter().zip(solution(&whole)) {
        assert!((a - b).abs() < 1e-9);
    }
}

#[test]
fn a_decision_is_taken_back_and_a_reward_replaced() {
    let rows = rows(5, 100, 1.0);
    let whole = collect(&rows);
    let mut changed = whole.clone();
    changed.add(&rows[3].x, 9.0);
    changed.correct(&rows[3].x, 9.0, -2.0);
    assert_close(
        &changed,
        &{
            let mut direct = whole.clone();
            direct.add(&rows[3].x, -2.0);
            direct
        },
        1e-12,
    );
    changed.remove(&rows[3].x, -2.0);
    assert_close(&changed, &whole, 1e-12);
    assert_eq!(changed.weight(), whole.weight());
}

#[test]
fn a_scaled_merge_discounts() {
    let rows = rows(4, 50, 1.0);
    let old = collect(&rows);
    let mut now = Linear::new(4);
    now.merge_scaled(&old, 0.25);
    assert_eq!(now.weight(), 12.5);
    assert_eq!(now.sum(), 0.25 * old.sum());
}

#[test]
fn parts_come_back_and_broken_ones_are_refused() {
    let linear = collect(&rows(4, 20, 1.0));
    let parts = (
        linear.gram().to_vec(),
        linear.response().to_vec(),
        linear.squares(),
    );
    assert_eq!(
        Linear::from_parts(parts.0.clone(), parts.1.clone(), parts.2),
        Some(linear)
    );
    assert_eq!(
        Linear::from_parts(parts.0[1..].to_vec(), parts.1.clone(), parts.2),
        None
    );
    assert_eq!(
        Linear::from_parts(parts.0.clone(), parts.1.clone(), f64::NAN),
        None
    );
    let mut infinite = parts.0;
    infinite[2] = f64::INFINITY;
    assert_eq!(Linear::from_parts(infinite, parts.1, parts.2), None);
}

/// Decisions whose A has eigenvalues that spread over six orders of magnitude in directions that no axis has: rows of a
/// Householder reflection of independent features with standard deviations from 1 to 1e-3.
fn ill_conditioned(dimension: usize, count: usize) -> Vec<Vec<f64>> {
    let mut next = numbers(11);
    let mut mirror: Vec<f64> = (1..dimension).map(|_| next()).collect();
    let length = mirror.iter().map(|value| value * value).sum::<f64>().sqrt();
    for value in &mut mirror {
        *value /= length;
    }
    (0..count)
        .map(|_| {
            let last = (dimension - 2) as f64;
            let plain: Vec<f64> = (0..dimension - 1)
                .map(|i| libm::pow(10.0, -3.0 * i as f64 / last) * next())
                .collect();
            let along: f64 = plain.iter().zip(&mirror).map(|(a, b)| a * b).sum();
            let reflected = plain.iter().zip(&mirror).map(|(a, b)| a - 2.0 * along * b);
            std::iter::once(1.0).chain(reflected).collect()
        })
        .collect()
}

/// Largest entry of A·A⁻¹ − I after `updates` updates with A = Σ x xᵀ + 1e-6 I.
fn inversion_error(dimension: usize, updates: usize) -> f64 {
    let contexts = ill_conditioned(dimension, 1000);
    let mut linear = Linear::new(dimension);
    for step in 0..updates {
        linear.add(&contexts[step % contexts.len()], 1.0);
    }
    let ridge = 1e-6;
    let inverse = Cholesky::of_ridge(linear.gram().to_vec(), dimension, ridge).inverse();
    let entry = |packed: &[f64], i: usize, j: usize| packed[row(i.max(j)) + i.min(j)];
    let mut worst: f64 = 0.0;
    for i in 0..dimension {
        for j in 0..dimension {
            let product: f64 = (0..dimension)
                .map(|k| {
                    let ridge = if i == k { ridge } else { 0.0 };
                    (entry(linear.gram(), i, k) + ridge) * entry(&inverse, k, j)
                })
                .sum();
            let identity = if i == j { 1.0 } else { 0.0 };
            worst = worst.max((product - identity).abs());
        }
    }
    worst
}

#[test]
fn the_inverse_stays_an_inverse() {
    let error = inversion_error(11, 100_000);
    assert!(error <= 1e-8, "{error:e}");
}

/// `cargo test --release --no-default-features --lib -- --ignored ten_million`: seconds there, minutes without optimisation.
#[test]
#[ignore = "ten million updates need an optimised build"]
fn the_inverse_stays_an_inverse_after_ten_million_updates() {
    for dimension in [11, 33, 129] {
        let error = inversion_error(dimension, 10_000_000);
        println!("{dimension} features: {error:e}");
        assert!(error <= 1e-8, "{error:e}");
    }
}
