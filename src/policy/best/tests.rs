use proptest::prelude::*;

use super::*;

fn beta(alpha: f64, beta: f64) -> Posterior {
    Posterior::Beta {
        alpha,
        beta,
        min: 0.0,
        max: 1.0,
    }
}

fn bell(location: f64, scale: f64, degrees: f64) -> Posterior {
    Posterior::StudentT {
        location,
        scale,
        degrees,
    }
}

fn assert_distribution(best: &[f64]) {
    assert!(
        best.iter().all(|share| (0.0..=1.0 + 1e-12).contains(share)),
        "{best:?}"
    );
    assert!((best.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{best:?}");
}

fn largest_difference(a: &[f64], b: &[f64]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f64::max)
}

#[test]
fn no_arms_and_one_arm() {
    assert_eq!(probability_best(&[], Goal::Maximize), Vec::<f64>::new());
    assert_eq!(
        probability_best(&[beta(1.0, 1.0)], Goal::Minimize),
        vec![1.0]
    );
}

#[test]
fn equal_arms_share_equally_at_any_count() {
    for arms in [2, 3, 10, 100] {
        for posterior in [
            beta(1e-3, 1e-3),
            beta(0.5, 2e3),
            beta(5e8, 5e8),
            beta(1.0, 1e9),
            bell(0.0, 1.0, 1.0),
            bell(1e9, 0.0, 1e9),
            bell(-3.0, 1e-9, 0.01),
        ] {
            let best = probability_best(&vec![posterior; arms], Goal::Maximize);
            let even = vec![1.0 / arms as f64; arms];
            assert!(
                largest_difference(&best, &even) < 1e-9,
                "{posterior:?} {best:?}"
            );
        }
    }
}

#[test]
fn two_bells_of_a_billion_rewards_have_the_normal_closed_form() {
    // Φ(d / √(s² + t²)); 1 / √2 has Φ = 0.7602499389065233.
    let best = probability_best(
        &[bell(0.5, 1e-9, 1e9), bell(0.5 + 1e-9, 1e-9, 1e9)],
        Goal::Maximize,
    );
    assert!((best[1] - 0.760_249_938_906_523_3).abs() < 1e-6, "{best:?}");
}

#[test]
fn two_betas_of_whole_shapes_have_the_closed_form() {
    // Miller 2015: Σ_{i < a₂} B(a₁ + i, b₁ + b₂) / ((b₂ + i) B(1 + i, b₂) B(a₁, b₁)), with small numbers.
    let ln_beta = crate::stats::special::ln_beta;
    let (a1, b1, a2, b2) = (7.0, 13.0, 5.0, 4.0);
    let second: f64 = (0..5)
        .map(f64::from)
        .map(|i| {
            (ln_beta(a1 + i, b1 + b2) - ln_beta(1.0 + i, b2) - ln_beta(a1, b1)).exp() / (b2 + i)
        })
        .sum();
    let best = probability_best(&[beta(a1, b1), beta(a2, b2)], Goal::Maximize);
    assert!((best[1] - second).abs() < 1e-12, "{best:?} {second}");
}

#[test]
fn shapes_far_below_one_and_the_heaviest_tails_agree_with_mpmath() {
    let betas = [beta(0.01, 0.02), beta(3.0, 5.0), beta(0.5, 20.0)];
    let expected = [
        0.337_084_449_818_794_1,
        0.660_145_058_298_250_4,
        0.002_770_491_882_955_492,
    ];
    let best = probability_best(&betas, Goal::Maximize);
    assert!(largest_difference(&best, &expected) < 1e-10, "{best:?}");
    let bells = [
        bell(0.0, 1.0, 0.05),
        bell(1.0, 2.0, 3.0),
        bell(-1.0, 0.3, 0.5),
    ];
    let expected = [
        0.461_514_631_340_706_5,
        0.400_404_333_429_893_5,
        0.138_081_035_229_4,
    ];
    let best = probability_best(&bells, Goal::Maximize);
    assert!(largest_difference(&best, &expected) < 1e-10, "{best:?}");
}

#[test]
fn bells_far_apart_with_heavy_tails_agree_with_mpmath() {
    // The second lies in the first one's tail: a panel that comes from far up must not leap over it.
    let leapt_over = [bell(59.429, 9.3013, 0.17868), bell(-997.548, 5.825, 4.933)];
    let expected = [0.835_512_571_112_059_1, 0.164_487_428_887_940_93];
    let best = probability_best(&leapt_over, Goal::Maximize);
    assert!(largest_difference(&best, &expected) < 1e-9, "{best:?}");
    // Above the second's location the map makes its density rise: it has not ended there.
    let rising = [
        bell(385.45, 21.62, 2.439),
        bell(-798.07, 0.005, 0.10923),
        bell(-466.15, 10.85, 7.675),
    ];
    let expected = [
        0.893_126_345_561_947_2,
        0.106_796_414_942_836_08,
        7.723_949_521_676_652e-5,
    ];
    let best = probability_best(&rising, Goal::Maximize);
    assert!(largest_difference(&best, &expected) < 1e-9, "{best:?}");
}

#[test]
fn betas_of_a_billion_rewards_have_their_limits() {
    // Beta(k, 1e9) is Gamma(k) / 1e9: P(Gamma(7) > Gamma(3)) = P(at least 3 heads of 9) = 1 − 46/512.
    let rare = probability_best(&[beta(3.0, 1e9), beta(7.0, 1e9)], Goal::Maximize);
    assert!((rare[1] - (1.0 - 46.0 / 512.0)).abs() < 1e-7, "{rare:?}");
    // In the middle they are normal.
    let middle = [beta(5e8, 5e8), beta(5e8 + 1e4, 5e8 - 1e4)];
    let best = probability_best(&middle, Goal::Maximize);
    let expected = crate::stats::special::normal_cdf(1e-5 / (0.5e-9_f64).sqrt());
    assert!((best[1] - expected).abs() < 1e-8, "{best:?} {expected}");
}

#[test]
fn less_is_better_mirrors() {
    let posteriors = [beta(3.0, 9.0), beta(40.0, 60.0), beta(0.3, 0.9)];
    let mirrored = [beta(9.0, 3.0), beta(60.0, 40.0), beta(0.9, 0.3)];
    let least = probability_best(&posteriors, Goal::Minimize);
    let most = probability_best(&mirrored, Goal::Maximize);
    assert!(largest_difference(&least, &most) < 1e-14);
    let bells = [bell(1.0, 2.0, 3.0), bell(0.0, 0.1, 30.0)];
    let mirrored = [bell(-1.0, 2.0, 3.0), bell(0.0, 0.1, 30.0)];
    let least = probability_best(&bells, Goal::Minimize);
    let most = probability_best(&mirrored, Goal::Maximize);
    assert!(largest_difference(&least, &most) < 1e-14);
}

#[test]
fn a_range_only_scales() {
    let scaled = |alpha, beta| Posterior::Beta {
        alpha,
        beta,
        min: -5.0,
        max: 17.0,
    };
    let unit = probability_best(&[beta(3.0, 9.0), beta(4.0, 6.0)], Goal::Maximize);
    let wide = probability_best(&[scaled(3.0, 9.0), scaled(4.0, 6.0)], Goal::Maximize);
    assert_eq!(unit, wide);
}

#[test]
fn a_mixture_of_families_is_compared_by_moments() {
    let best = probability_best(&[beta(5e3, 5e3), bell(0.5, 0.005, 1e9)], Goal::Maximize);
    assert!((best[0] - 0.5).abs() < 1e-3, "{best:?}");
}

#[test]
fn a_hundred_arms_of_all_widths_have_converged() {
    let of_betas: Vec<Posterior> = (0..100)
        .map(f64::from)
        .map(|arm| {
            let (count, mean) = (10_f64.powf(0.08 * arm), 0.3 + 0.1 * arm.sin());
            beta(1.0 + count * mean, 1.0 + count * (1.0 - mean))
        })
        .collect();
    let of_bells: Vec<Posterior> = (0..100)
        .map(f64::from)
        .map(|arm| bell(arm.sin(), 10_f64.powf(-0.03 * arm), 1.0 + arm))
        .collect();
    for posteriors in [of_betas, of_bells] {
        let best = probability_best(&posteriors, Goal::Maximize);
        assert_distribution(&best);
        let (finer, _) = integrate(&posteriors, Goal::Maximize, 0.5);
        let difference = largest_difference(&best, &finer);
        assert!(difference < 1e-9, "{difference:e}");
    }
}

#[test]
fn hostile_parameters_give_a_distribution() {
    let numbers = [
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        0.0,
        -1.0,
        1e-300,
        1e300,
        1.0,
    ];
    for a in numbers {
        for b in numbers {
            for goal in [Goal::Maximize, Goal::Minimize] {
                assert_distribution(&probability_best(&[beta(a, b), beta(2.0, 3.0)], goal));
                assert_distribution(&probability_best(
                    &[bell(a, b, 1.0), bell(0.0, 1.0, 5.0), bell(1.0, a, b)],
                    goal,
                ));
            }
        }
    }
}

/// Posteriors as experiments have them, and stranger ones: any counts, any rates, priors down to 1e-3.
fn betas() -> impl Strategy<Value = Vec<Posterior>> {
    let arm = (0.0..9.0_f64, -6.0..0.0_f64, -3.0..0.0_f64).prop_map(|(digits, mean, prior)| {
        let (count, prior) = (10_f64.powf(digits).floor(), 10_f64.powf(prior));
        let successes = (count * 10_f64.powf(mean)).floor();
        beta(prior + successes, prior + (count - successes))
    });
    arms(arm)
}

/// Betas of similar counts, a few deviations from each other.
fn close_betas() -> impl Strategy<Value = Vec<Posterior>> {
    (0.0..9.0_f64, 0.0..1.0_f64).prop_flat_map(|(digits, middle)| {
        let arm = (-1.0..0.0_f64, -3.0..3.0_f64).prop_map(move |(fewer, deviation)| {
            let count = 10_f64.powf(digits + fewer).floor().max(1.0);
            let mean = (middle + deviation / count.sqrt()).clamp(0.0, 1.0);
            beta(0.5 + count * mean, 0.5 + count * (1.0 - mean))
        });
        arms(arm)
    })
}

/// Student t's of all widths and weights of the tails.
fn bells() -> impl Strategy<Value = Vec<Posterior>> {
    let arm =
        (-1e3..1e3_f64, -3.0..5.0_f64, -0.5..5.0_f64).prop_map(|(location, scale, degrees)| {
            bell(location, 10_f64.powf(scale), 10_f64.powf(degrees))
        });
    arms(arm)
}

/// Student t's of similar widths, a few deviations from each other.
fn close_bells() -> impl Strategy<Value = Vec<Posterior>> {
    let arm =
        (-3.0..3.0_f64, 0.0..1.0_f64, -1.0..5.0_f64).prop_map(|(location, scale, degrees)| {
            bell(location, 10_f64.powf(scale), 10_f64.powf(degrees))
        });
    arms(arm)
}

fn arms(arm: impl Strategy<Value = Posterior> + Clone) -> impl Strategy<Value = Vec<Posterior>> {
    prop_oneof![5 => 2..12_usize, 1 => 12..100_usize]
        .prop_flat_map(move |count| prop::collection::vec(arm.clone(), count))
}

fn any_posteriors() -> impl Strategy<Value = Vec<Posterior>> {
    prop_oneof![betas(), close_betas(), bells(), close_bells()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn narrower_panels_change_nothing(posteriors in any_posteriors()) {
        let (best, sum) = integrate(&posteriors, Goal::Maximize, 1.0);
        assert_distribution(&best);
        // The densities are normalised by closed forms, so this would show a panel that misses something.
        prop_assert!((sum - 1.0).abs() < 1e-9, "{:e}", sum - 1.0);
        let (narrower, _) = integrate(&posteriors, Goal::Maximize, 0.4);
        let difference = largest_difference(&best, &narrower);
        prop_assert!(difference < 1e-9, "{difference:e}");
    }

    #[test]
    fn a_permutation_of_the_arms_permutes_the_result(posteriors in any_posteriors()) {
        let best = probability_best(&posteriors, Goal::Maximize);
        let reversed: Vec<Posterior> = posteriors.iter().rev().copied().collect();
        let mut other = probability_best(&reversed, Goal::Maximize);
        other.reverse();
        prop_assert!(largest_difference(&best, &other) < 1e-9);
    }

    #[test]
    fn less_is_better_mirrors_any_posteriors(posteriors in any_posteriors()) {
        let mirrored: Vec<Posterior> = posteriors
            .iter()
            .map(|posterior| match *posterior {
                Posterior::Beta { alpha, beta, min, max } => Posterior::Beta { alpha: beta, beta: alpha, min, max },
                Posterior::StudentT { location, scale, degrees } => bell(-location, scale, degrees),
            })
            .collect();
        let least = probability_best(&posteriors, Goal::Minimize);
        prop_assert_eq!(least, probability_best(&mirrored, Goal::Maximize));
    }
}
