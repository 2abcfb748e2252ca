use super::*;
use crate::experiment::reward::Goal;
use crate::policy::{Posterior, best};
use crate::stats::linear::tests::numbers;
use crate::stats::special::normal_cdf;

/// Density and distribution function at one point.
fn normal(z: f64) -> (f64, f64) {
    let (density, below) = normals(&[z; NODES]);
    (density[0], below[0])
}

fn fast(means: &[f64], deviations: &[f64]) -> Vec<f64> {
    let mut best = vec![f64::NAN; means.len()];
    probability_best(means, deviations, &mut Workspace::default(), &mut best);
    assert!((best.iter().sum::<f64>() - 1.0).abs() < 1e-12, "{best:?}");
    assert!(best.iter().all(|share| *share >= 0.0), "{best:?}");
    best
}

/// The same by the exact routine, which reaches 1e-9.
fn exact(means: &[f64], deviations: &[f64]) -> Vec<f64> {
    let posteriors: Vec<Posterior> = means
        .iter()
        .zip(deviations)
        .map(|(mean, deviation)| Posterior::StudentT {
            location: *mean,
            scale: *deviation,
            degrees: 1e12,
        })
        .collect();
    best::probability_best(&posteriors, Goal::Maximize)
}

fn difference(a: &[f64], b: &[f64]) -> f64 {
    let pairs = a.iter().zip(b);
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn the_normal_distribution_is_right_everywhere() {
    for step in -900..=900 {
        let z = f64::from(step) / 100.0;
        let (density, below) = normal(z);
        let exact = libm::exp(-0.5 * z * z) / libm::sqrt(2.0 * std::f64::consts::PI);
        assert!((density - exact).abs() < 1e-11 * exact.max(1e-3), "{z}");
        assert!((below - normal_cdf(z)).abs() < 1e-11, "{z}");
    }
    assert_eq!(normal(1e300), normal(9.0));
    assert_eq!(normal(-1e300), normal(-9.0));
}

#[test]
fn it_agrees_with_the_exact_routine_at_any_widths() {
    let mut next = numbers(3);
    for arms in [2, 3, 5, 10, 30, 100] {
        for spread in [0.1, 1.0, 3.0, 8.0] {
            for _ in 0..5 {
                let means: Vec<f64> = (0..arms).map(|_| 2.0 * next()).collect();
                let deviations: Vec<f64> = (0..arms).map(|_| libm::exp(spread * next())).collect();
                let error = difference(&fast(&means, &deviations), &exact(&means, &deviations));
                let bound = if arms <= 10 { 2e-8 } else { 1e-6 };
                assert!(error < bound, "{error:e} {means:?} {deviations:?}");
            }
        }
    }
}

#[test]
fn two_arms_have_the_closed_form() {
    let mut next = numbers(5);
    for _ in 0..1000 {
        let (gap, a, b) = (
            3.0 * next(),
            libm::exp(4.0 * next()),
            libm::exp(4.0 * next()),
        );
        let best = fast(&[gap, 0.0], &[a, b]);
        let expected = normal_cdf(gap / libm::sqrt(a * a + b * b));
        assert!(
            (best[0] - expected).abs() < 1e-8,
            "{gap} {a} {b} {best:?} {expected}"
        );
    }
}

#[test]
fn equal_arms_share_equally_and_one_arm_takes_all() {
    assert_eq!(fast(&[3.0], &[0.0]), [1.0]);
    assert_eq!(fast(&[3.0], &[2.0]), [1.0]);
    for arms in [2, 3, 10, 100] {
        for (mean, deviation) in [
            (0.0, 1.0),
            (1e9, 1e-9),
            (-1e9, 1e9),
            (5.0, 0.0),
            (0.0, 1e-320),
        ] {
            let best = fast(&vec![mean; arms], &vec![deviation; arms]);
            assert!(
                difference(&best, &vec![1.0 / arms as f64; arms]) < 1e-14,
                "{best:?}"
            );
        }
    }
}

#[test]
fn certain_arms_are_compared_and_ties_among_them_share() {
    assert_eq!(fast(&[1.0, 2.0, 2.0], &[0.0; 3]), [0.0, 0.5, 0.5]);
    // Sure of 0, against a normal around 0.5 with deviation 1: Φ(-0.5).
    let best = fast(&[0.0, 0.5], &[0.0, 1.0]);
    assert!((best[0] - normal_cdf(-0.5)).abs() < 1e-6, "{best:?}");
}

#[test]
fn hostile_numbers_give_a_distribution() {
    let hostile = [
        0.0,
        1.0,
        -1.0,
        1e300,
        -1e300,
        1e-300,
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
    ];
    for a in hostile {
        for b in hostile {
            for (c, d) in [(1.0, 1e-9), (1e300, 1e300), (0.0, 0.0), (1e-300, 5.0)] {
                fast(&[a, b, 0.5], &[c, d, 1.0]);
                fast(&[1.0, 0.0], &[a.abs(), b.abs()]);
            }
        }
    }
}

#[test]
fn a_hundred_arms_of_a_hundred_widths_take_a_bounded_number_of_panels() {
    let means = vec![0.0; 100];
    let deviations: Vec<f64> = (0..100)
        .map(|i| libm::pow(10.0, f64::from(i) * 0.06 - 6.0))
        .collect();
    assert!(difference(&fast(&means, &deviations), &exact(&means, &deviations)) < 1e-7);
}
