//! Each policy by its own formula, with numbers worked out apart from the code.

use super::*;
use crate::policy::epsilon_greedy::EpsilonGreedy;
use crate::policy::exp3::Exp3;
use crate::policy::softmax::Softmax;
use crate::policy::top_two::TopTwo;
use crate::policy::ucb::{Ucb, Variant};

const BINARY: RewardKind = RewardKind::Binary;

/// An arm with so many rewards of 1 and of 0.
fn binary(successes: u64, failures: u64) -> ArmEvidence {
    let mut moments = Moments::default();
    moments.add(1.0, successes);
    moments.add(0.0, failures);
    ArmEvidence::of(1.0, moments)
}

fn shares(policy: &dyn Policy, arms: &[ArmEvidence]) -> Vec<f64> {
    distribution(policy, arms, BINARY, Goal::Maximize)
}

#[track_caller]
fn assert_close(shares: &[f64], expected: &[f64]) {
    assert_eq!(shares.len(), expected.len());
    for (share, expected) in shares.iter().zip(expected) {
        assert!((share - expected).abs() < 1e-12, "{shares:?}");
    }
}

#[test]
fn epsilon_greedy_gives_epsilon_to_all_and_the_rest_to_the_best() {
    let arms = [binary(10, 10), binary(20, 10), binary(0, 0), binary(20, 10)];
    let policy = EpsilonGreedy::constant(0.2);
    assert_close(&shares(&policy, &arms), &[0.05, 0.45, 0.05, 0.45]);
}

#[test]
fn a_decaying_epsilon_falls_with_the_credited_decisions() {
    let policy = EpsilonGreedy {
        decay: Some(50.0),
        ..EpsilonGreedy::constant(0.5)
    };
    let explored = |successes, failures| {
        let arms = [binary(successes, failures), binary(0, 1)];
        2.0 * shares(&policy, &arms)[1]
    };
    assert_eq!(2.0 * shares(&policy, &[binary(0, 0), binary(1, 0)])[0], 0.5);
    assert!((explored(98, 1) - 0.5).abs() < 1e-12);
    assert!((explored(150, 49) - 0.25).abs() < 1e-12);
    assert!((explored(499_999, 0) - 1e-4).abs() < 1e-12);
    // Decisions that wait for their rewards do not count: nothing has been learned from them.
    let mut waiting = [binary(0, 0), binary(0, 1)];
    waiting[0].waiting = 1_000_000;
    assert_close(&shares(&policy, &waiting), &[0.75, 0.25]);
    // Discounted, it settles at what is left.
    let mut faded = [binary(60, 40), binary(40, 60)];
    for arm in &mut faded {
        arm.credited = 1_000_000;
    }
    assert_close(&shares(&policy, &faded), &[0.875, 0.125]);
}

#[test]
fn a_decay_alone_begins_with_everything() {
    let kind = PolicyKind::find("epsilon_greedy").unwrap();
    let policy = build(kind, "decay = 10", BINARY).unwrap();
    assert_close(
        &shares(&*policy, &[binary(9, 0), binary(0, 1)]),
        &[0.5, 0.5],
    );
    assert_close(
        &shares(&*policy, &[binary(19, 0), binary(0, 1)]),
        &[0.75, 0.25],
    );
    let both = build(kind, "decay = 10\nepsilon = 0.2", BINARY).unwrap();
    assert_close(&shares(&*both, &[binary(19, 0), binary(0, 1)]), &[0.9, 0.1]);
}

#[test]
fn two_arms_are_split_in_half_by_top_two_whatever_they_earn() {
    let policy = PolicyKind::find("top_two")
        .map(|kind| plain(kind, BINARY))
        .unwrap();
    for (successes, failures) in [(5, 5), (60, 40), (900, 100), (1_000_000_000, 0)] {
        let arms = [binary(successes, failures), binary(40, 60)];
        assert_close(&shares(&*policy, &arms), &[0.5, 0.5]);
    }
}

#[test]
fn top_two_is_thompson_sampling_at_a_beta_of_one_and_follows_its_formula() {
    let arms = [binary(30, 20), binary(33, 17), binary(20, 30), binary(5, 4)];
    let thompson = PolicyKind::find("thompson")
        .map(|kind| plain(kind, BINARY))
        .unwrap();
    let a = shares(&*thompson, &arms);
    let top_two = |beta| TopTwo {
        beta,
        prior: None,
        memory: Memory::Forever,
    };
    assert_close(&shares(&top_two(1.0), &arms), &a);
    for beta in [0.1, 0.5, 0.8] {
        let odds = |j: usize| a[j] / (1.0 - a[j]);
        let expected: Vec<f64> = (0..4)
            .map(|i| {
                let others: f64 = (0..4).filter(|j| *j != i).map(odds).sum();
                a[i] * (beta + (1.0 - beta) * others)
            })
            .collect();
        assert_close(&shares(&top_two(beta), &arms), &expected);
    }
}

#[test]
fn challengers_of_a_certain_leader_are_told_apart() {
    let policy = TopTwo {
        beta: 0.5,
        prior: None,
        memory: Memory::Forever,
    };
    let arms = [
        binary(900_000, 100_000),
        binary(60, 40),
        binary(50, 50),
        binary(1, 99),
    ];
    let chosen = shares(&policy, &arms);
    assert!((chosen[0] - 0.5).abs() < 1e-9, "{chosen:?}");
    assert!(chosen[1] > 5.0 * chosen[2], "{chosen:?}");
    assert!(chosen[3] < 1e-6, "{chosen:?}");
}

#[test]
fn ucb_tries_every_arm_first() {
    for variant in [Variant::Tuned, Variant::Kl] {
        let policy = Ucb {
            variant,
            memory: Memory::Forever,
        };
        let arms = [binary(9, 1), binary(0, 0), binary(10, 0), binary(0, 0)];
        assert_eq!(shares(&policy, &arms), [0.0, 0.5, 0.0, 0.5]);
    }
}

#[test]
fn ucb_tuned_follows_its_formula() {
    // Of t = 60 decisions, n = 40 and n = 20 (where V = 0.16 + √(2 ln 60 / 20) is beyond 1/4): √(ln 60 / n · 1/4).
    // At n = 10,000 and t = 20,000 V is 0.0099 + √(2 ln 20000 / 10000) = 0.0544.
    assert!((ucb::tuned(0.25, 60_f64.ln() / 40.0) - 0.159_967_6).abs() < 1e-6);
    assert!((ucb::tuned(0.16, 60_f64.ln() / 20.0) - 0.226_228_3).abs() < 1e-6);
    let budget = 20_000_f64.ln() / 10_000.0;
    let spread = 0.01 * 0.99 + (2.0 * budget).sqrt();
    assert!(spread < 0.25);
    assert!((ucb::tuned(0.01 * 0.99, budget) - (budget * spread).sqrt()).abs() < 1e-15);

    let policy = Ucb {
        variant: Variant::Tuned,
        memory: Memory::Forever,
    };
    // 0.5 + 0.160 against 0.2 + 0.226; then 0.5 + 0.061 against 0.4 + 0.388.
    assert_eq!(
        shares(&policy, &[binary(20, 20), binary(4, 16)]),
        [1.0, 0.0]
    );
    assert_eq!(
        shares(&policy, &[binary(200, 200), binary(4, 6)]),
        [0.0, 1.0]
    );
}

#[test]
fn kl_ucb_is_the_greatest_mean_within_the_divergence() {
    let divergence = |p: f64, q: f64| p * (p / q).ln() + (1.0 - p) * ((1.0 - p) / (1.0 - q)).ln();
    for (mean, budget) in [(0.5, 0.1), (0.01, 0.003), (0.9, 1.7), (0.3, 2e-8)] {
        let bound = ucb::divergent(mean, budget);
        assert!(bound > mean && bound < 1.0);
        assert!(
            (divergence(mean, bound) / budget - 1.0).abs() < 1e-6,
            "{mean} {budget}"
        );
    }
    // Without a success: −ln(1 − q) = budget.
    assert!((ucb::divergent(0.0, 0.2) - (1.0 - (-0.2_f64).exp())).abs() < 1e-12);
    assert_eq!(ucb::divergent(1.0, 0.2), 1.0);
    assert_eq!(ucb::divergent(0.4, f64::INFINITY), 1.0);
    assert!((ucb::divergent(0.4, 0.0) - 0.4).abs() < 1e-15);
}

#[test]
fn decisions_in_flight_lower_a_bound_and_leave_the_mean() {
    for variant in [Variant::Tuned, Variant::Kl] {
        let policy = Ucb {
            variant,
            memory: Memory::Forever,
        };
        assert!(policy.counts_waiting());
        let mut arms = [binary(60, 40), binary(50, 50)];
        assert_eq!(shares(&policy, &arms), [1.0, 0.0]);
        arms[0].waiting = 3000;
        assert_eq!(shares(&policy, &arms), [0.0, 1.0]);
        // Nothing known but what is in flight: the fewest first.
        let mut new = [binary(0, 0), binary(0, 0), binary(0, 0)];
        new[0].waiting = 7;
        new[1].waiting = 6;
        new[2].waiting = 6;
        assert_eq!(shares(&policy, &new), [0.0, 0.5, 0.5]);
        // A new arm is tried, and not on everybody until its first reward is back.
        let mut joined = [binary(5000, 5000), binary(0, 0)];
        assert_eq!(shares(&policy, &joined), [0.0, 1.0]);
        joined[1].waiting = 9000;
        assert_eq!(shares(&policy, &joined), [0.0, 1.0]);
        joined[1].waiting = 11_000;
        assert_eq!(shares(&policy, &joined), [1.0, 0.0]);
    }
}

#[test]
fn ucb_scales_bounded_rewards() {
    for variant in [Variant::Tuned, Variant::Kl] {
        let policy = Ucb {
            variant,
            memory: Memory::Forever,
        };
        // The same rewards in [0, 1] and in [−2, 6].
        for (first, second) in [(20, 20), (13, 2), (3, 300)] {
            let scaled = |successes: u64, failures: u64| {
                let mut moments = Moments::default();
                moments.add(6.0, successes);
                moments.add(-2.0, failures);
                ArmEvidence::of(1.0, moments)
            };
            let plain = shares(&policy, &[binary(first, second), binary(40, 30)]);
            let bounded = distribution(
                &policy,
                &[scaled(first, second), scaled(40, 30)],
                BOUNDED,
                Goal::Maximize,
            );
            assert_eq!(plain, bounded);
        }
    }
}

#[test]
fn softmax_follows_its_formula_in_the_rewards_units() {
    let policy = Softmax {
        temperature: 0.1,
        prior: None,
    };
    // Posterior means 0.5, 0.6, 0.3.
    let arms = [binary(4, 4), binary(5, 3), binary(2, 6)];
    let weights = [0.0_f64, 1.0, -2.0].map(f64::exp);
    let sum: f64 = weights.iter().sum();
    assert_close(&shares(&policy, &arms), &weights.map(|weight| weight / sum));
    // 0.05 of the range is the default, and real rewards have no range.
    let kind = PolicyKind::find("softmax").unwrap();
    let with = build(kind, "temperature = 0.4", BOUNDED).unwrap();
    let without = build(kind, "", BOUNDED).unwrap();
    let arms = [arm(&[5.0, 1.0], 4), arm(&[0.5, 0.25], 3)];
    assert_eq!(
        distribution(&*with, &arms, BOUNDED, Goal::Minimize),
        distribution(&*without, &arms, BOUNDED, Goal::Minimize)
    );
    let error = build(kind, "", RewardKind::Real).unwrap_err();
    assert!(error.contains("give `temperature`"), "{error}");
}

#[test]
fn softmax_neither_overflows_nor_loses_the_best_arm() {
    let arms = [
        arm(&[1e9], 1_000_000),
        arm(&[1e9 - 1.0], 1_000_000),
        arm(&[-1e9], 9),
    ];
    let policy = Softmax {
        temperature: 1e-3,
        prior: None,
    };
    let shares = distribution(&policy, &arms, RewardKind::Real, Goal::Maximize);
    assert_eq!(shares, [1.0, 0.0, 0.0]);
    let shares = distribution(&policy, &arms, RewardKind::Real, Goal::Minimize);
    assert_eq!(shares, [0.0, 0.0, 1.0]);
}

fn exp3_arm(weights: f64, rewards: f64) -> ArmEvidence {
    ArmEvidence {
        importance: ImportanceSum { weights, rewards },
        ..binary(1, 1)
    }
}

#[test]
fn exp3_weighs_exponentially_by_estimated_losses() {
    let policy = Exp3::tuned(10_000.0, 3);
    let rate = (2.0 * 3_f64.ln() / 30_000.0).sqrt();
    assert!((policy.rate - rate).abs() < 1e-15);
    assert_eq!(policy.statistics().importance, Some(policy.rate / 2.0));
    let arms = [
        exp3_arm(500.0, 300.0),
        exp3_arm(520.0, 260.0),
        exp3_arm(40.0, 40.0),
    ];
    let expected = |losses: [f64; 3]| {
        let weights = losses.map(|loss| (-rate * loss).exp());
        let sum: f64 = weights.iter().sum();
        weights.map(|weight| weight / sum)
    };
    assert_close(&shares(&policy, &arms), &expected([200.0, 260.0, 0.0]));
    let less = distribution(&policy, &arms, BINARY, Goal::Minimize);
    assert_close(&less, &expected([300.0, 260.0, 40.0]));
    // In [−2, 6] a loss is (6 w − w r) / 8, and a gain (w r + 2 w) / 8.
    let arms = [
        exp3_arm(400.0, 800.0),
        exp3_arm(160.0, -320.0),
        exp3_arm(0.0, 0.0),
    ];
    let more = distribution(&policy, &arms, BOUNDED, Goal::Maximize);
    assert_close(&more, &expected([200.0, 160.0, 0.0]));
    let less = distribution(&policy, &arms, BOUNDED, Goal::Minimize);
    assert_close(&less, &expected([200.0, 0.0, 0.0]));
}

#[test]
fn an_arm_without_credits_stands_at_the_least_loss_of_the_others_under_exp3() {
    let policy = Exp3::tuned(1000.0, 3);
    let new = binary(0, 0);
    let arms = [exp3_arm(900.0, 500.0), exp3_arm(900.0, 300.0), new.clone()];
    let shares = shares(&policy, &arms);
    assert_eq!(shares[0], shares[2]);
    assert!(shares[1] < shares[0]);
    // Its losses are large numbers; the share is none the less one.
    let old = [exp3_arm(1e18, 0.0), exp3_arm(1e18, 0.0), new];
    assert_close(
        &super::distribution(&policy, &old, BINARY, Goal::Maximize),
        &[1.0 / 3.0; 3],
    );
}

#[test]
fn small_chances_keep_their_digits_as_long_as_top_two_divides_by_them() {
    // P(z < −x) of a standard normal; the difference of two arms has variance 2.
    for (x, expected, tolerance) in [
        (5.5, 1.898_956_246_588_772e-8, 1e-5),
        (6.0, 9.865_876_450_376_946e-10, 1e-4),
        (6.7, 1.042_097_698_796_516_6e-11, 1e-2),
    ] {
        let arm = |location: f64| Posterior::StudentT {
            location,
            scale: 1.0,
            degrees: 1e12,
        };
        let gap = x * std::f64::consts::SQRT_2;
        let best = best::probability_best(&[arm(0.0), arm(gap)], Goal::Maximize);
        assert!((best[0] / expected - 1.0).abs() < tolerance, "{x} {best:?}");
    }
}
