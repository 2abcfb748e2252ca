use super::*;
use crate::stats::linear::tests::{Row, rows};

const RULE: LaplaceRule = LaplaceRule {
    lambda: 1.0,
    standardize: true,
};

fn learned(rows: &[Row]) -> Laplace {
    let mut state = Laplace::new(rows[0].x.len());
    for row in rows {
        state.learn(&row.x, row.reward > 0.0, RULE);
    }
    state
}

#[test]
fn a_step_ends_where_the_gradient_vanishes() {
    let rule = LaplaceRule {
        lambda: 0.7,
        standardize: false,
    };
    let mut state = Laplace::new(3);
    for (x, success) in [
        ([1.0, 2.0, -1.0], true),
        ([1.0, -0.5, 3.0], false),
        ([1.0, 30.0, 0.1], false),
    ] {
        let before = state.clone();
        state.learn(&x, success, rule);
        let y = if success { 1.0 } else { -1.0 };
        let mean = |state: &Laplace, i: usize| {
            state.features[i].leaning / (rule.lambda + state.features[i].precision)
        };
        let score: f64 = (0..3).map(|i| mean(&state, i) * x[i]).sum();
        for (i, value) in x.iter().enumerate() {
            let q = rule.lambda + before.features[i].precision;
            let gradient =
                q * (mean(&state, i) - mean(&before, i)) - y * value * logistic(-y * score);
            assert!(gradient.abs() < 1e-12, "{gradient}");
            let p = logistic(score);
            let gained = state.features[i].precision - before.features[i].precision;
            assert!((gained - value * value * p * (1.0 - p)).abs() < 1e-12);
        }
    }
}

#[test]
fn the_root_is_found_at_any_scale() {
    for mean in [
        0.0, 1.0, -1.0, 30.0, -30.0, 1e3, -1e3, 1e6, -1e6, 1e12, -1e12,
    ] {
        for variance in [0.0, 1e-12, 1e-3, 1.0, 50.0, 1e4, 1e9, 1e18] {
            let score = stationary_score(mean, variance);
            let residual = score - mean - variance * logistic(-score);
            // A root's residual is its rounding times the function's slope.
            let slope = 1.0 + variance * logistic(-score) * logistic(score);
            let bound = 1e-14 * slope * score.abs().max(1.0) + 1e-14 * mean.abs();
            assert!(residual.abs() <= bound, "{mean} {variance}: {residual}");
        }
    }
}

#[test]
fn it_learns_which_way_a_feature_points() {
    let rows = rows(3, 400, 1.0);
    let state = learned(&rows);
    let right = rows
        .iter()
        .filter(|row| (state.score(&row.x, RULE).0 > 0.0) == (row.reward > 0.0))
        .count();
    assert!(right > 300, "{right} of 400");
}

#[test]
fn units_of_the_features_do_not_matter() {
    let plain = rows(3, 200, 1.0);
    let mut scaled = plain.clone();
    for row in &mut scaled {
        row.x[1] = 1000.0 * row.x[1] + 5e4;
        row.x[2] *= 1e-4;
    }
    let (a, b) = (learned(&plain), learned(&scaled));
    for (plain, scaled) in plain.iter().zip(&scaled) {
        let ((mean, variance), (other_mean, other_variance)) =
            (a.score(&plain.x, RULE), b.score(&scaled.x, RULE));
        assert!((mean - other_mean).abs() < 1e-6);
        assert!((variance - other_variance).abs() < 1e-6);
    }
}

#[test]
fn merged_halves_are_near_the_whole() {
    let rows = rows(3, 2000, 1.0);
    let whole = learned(&rows);
    let even: Vec<Row> = rows.iter().step_by(2).cloned().collect();
    let odd: Vec<Row> = rows.iter().skip(1).step_by(2).cloned().collect();
    let mut merged = learned(&even);
    merged.merge(&learned(&odd));
    assert_eq!(merged.weight(), whole.weight());
    for row in &rows[..100] {
        let ((mean, variance), (merged_mean, merged_variance)) =
            (whole.score(&row.x, RULE), merged.score(&row.x, RULE));
        assert!(
            (mean - merged_mean).abs() < 0.1 * mean.abs().max(2.0),
            "{mean} {merged_mean}"
        );
        assert!((variance / merged_variance - 1.0).abs() < 0.2);
    }
}

#[test]
fn hostile_features_leave_a_finite_state() {
    for (first, second) in [(1e9, -1e9), (0.0, 0.0), (1e-300, 1e9), (1e9, 1e9)] {
        let mut state = Laplace::new(3);
        for step in 0..200 {
            let x = [1.0, if step % 3 == 0 { first } else { second }, first];
            state.learn(&x, step % 2 == 0, RULE);
            state.learn(
                &x,
                true,
                LaplaceRule {
                    lambda: 1e-6,
                    standardize: true,
                },
            );
        }
        let (mean, variance) = state.score(&[1.0, 1e9, -1e9], RULE);
        assert!(mean.is_finite() && variance >= 0.0 && variance.is_finite());
        let copy = Laplace::from_parts(state.weight(), state.features().to_vec());
        assert_eq!(copy, Some(state));
    }
}

#[test]
fn parts_that_are_no_state_are_refused() {
    let feature = |precision, leaning| Feature {
        precision,
        leaning,
        ..Feature::default()
    };
    assert!(Laplace::from_parts(1.0, vec![feature(1.0, 1.0)]).is_some());
    assert!(Laplace::from_parts(1.0, vec![feature(-1.0, 1.0)]).is_none());
    assert!(Laplace::from_parts(1.0, vec![feature(1.0, f64::NAN)]).is_none());
    assert!(Laplace::from_parts(f64::INFINITY, vec![]).is_none());
}
