use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::engine::fixture;
use crate::policy::Memory;
use crate::policy::epsilon_greedy::EpsilonGreedy;
use crate::policy::fixed::Fixed;
use crate::policy::posterior::posterior;
use crate::policy::thompson::Thompson;
use crate::stats::moments::Moments;

const THOMPSON: Thompson = Thompson {
    prior: None,
    memory: Memory::Forever,
};

fn rules(policy: &dyn Policy) -> Rules<'_> {
    Rules {
        policy,
        reward: RewardKind::Binary,
        goal: Goal::Maximize,
        floor: 0.0,
        warm_up: 0,
    }
}

fn arm(weight: f64, successes: u64, failures: u64) -> Candidate {
    let mut moments = Moments::default();
    moments.add(1.0, successes);
    moments.add(0.0, failures);
    Candidate {
        evidence: ArmEvidence::of(weight, moments),
        enabled: true,
    }
}

/// P(best) as an experiment's page shows it.
fn shown(arms: &[Candidate], allotment: &Allotment) -> Vec<f64> {
    probability_best(arms, &allotment.posteriors, Goal::Maximize)
}

fn sum(values: &[f64]) -> f64 {
    values.iter().sum()
}

#[test]
fn weights_are_shares_exactly() {
    let shares = |weights: &[f64]| {
        let arms: Vec<Candidate> = weights.iter().map(|weight| arm(*weight, 3, 4)).collect();
        allocate(&rules(&Fixed), &arms).probabilities
    };
    assert_eq!(shares(&[99.5, 0.5]), vec![0.995, 0.005]);
    assert_eq!(shares(&[1.0, 0.0, 3.0]), vec![0.25, 0.0, 0.75]);
    assert_eq!(shares(&[50.0, 50.0]), vec![0.5, 0.5]);
    assert_eq!(shares(&[0.0, 7.0]), vec![0.0, 1.0]);
    assert_eq!(shares(&[f64::MAX, f64::MAX]), vec![0.5, 0.5]);
    assert_eq!(shares(&[0.0, 0.0]), vec![0.0, 0.0]);
    assert_eq!(shares(&[]), Vec::<f64>::new());
}

#[test]
fn an_arm_that_cannot_be_drawn_leaves_the_comparison_too() {
    let mut arms = [arm(1.0, 90, 10), arm(1.0, 50, 50), arm(1.0, 45, 55)];
    let all = allocate(&rules(&THOMPSON), &arms);
    assert!(all.probabilities[0] > 0.999);
    arms[0].enabled = false;
    let rest = allocate(&rules(&THOMPSON), &arms);
    assert_eq!(rest.probabilities[0], 0.0);
    assert_eq!(shown(&arms, &rest)[0], 0.0);
    assert_eq!(rest.probability_best, Some(shown(&arms, &rest)));
    assert!((sum(&rest.probabilities) - 1.0).abs() < 1e-9);
    // Recomputed over the rest, not the old shares renormalised.
    let pair = allocate(&rules(&THOMPSON), &arms[1..]);
    assert_eq!(rest.probabilities[1..], pair.probabilities[..]);
    assert_eq!(rest.posteriors.len(), 3);

    // Weight 0 takes an arm out under every policy.
    arms[1].evidence.weight = 0.0;
    let one = allocate(&rules(&THOMPSON), &arms);
    assert_eq!(one.probabilities, vec![0.0, 0.0, 1.0]);
    arms[2].enabled = false;
    let none = allocate(&rules(&THOMPSON), &arms);
    assert_eq!(none.probabilities, vec![0.0; 3]);
    assert_eq!(shown(&arms, &none), vec![0.0; 3]);
}

#[test]
fn one_arm_is_drawn_with_probability_exactly_one() {
    for floor in [0.0, 0.01, 0.3, 1.0] {
        let rules = Rules {
            floor,
            ..rules(&THOMPSON)
        };
        let arms = [arm(0.0, 1, 1), arm(0.1, 5, 9)];
        let only = allocate(&rules, &arms);
        assert_eq!(only.probabilities, vec![0.0, 1.0]);
        assert_eq!(shown(&arms, &only), vec![0.0, 1.0]);
    }
}

#[test]
fn the_floor_is_mixed_in_additively() {
    let rules = Rules {
        floor: 0.02,
        ..rules(&THOMPSON)
    };
    let arms = [arm(1.0, 900, 100), arm(1.0, 100, 900), arm(1.0, 500, 500)];
    let allotment = allocate(&rules, &arms);
    let best = shown(&arms, &allotment);
    for (probability, best) in allotment.probabilities.iter().zip(&best) {
        assert!((probability - (0.02 + 0.94 * best)).abs() < 1e-15);
        assert!(*probability >= 0.02);
    }
    // Two arms left: the floor is for each of those.
    let mut fewer = arms.clone();
    fewer[0].enabled = false;
    let allotment = allocate(&rules, &fewer);
    assert_eq!(allotment.probabilities[1], 0.02);
    assert!((allotment.probabilities[2] - 0.98).abs() < 1e-15);
}

#[test]
fn a_floor_beyond_an_equal_share_is_an_equal_share() {
    let rules = Rules {
        floor: 0.9,
        ..rules(&THOMPSON)
    };
    let allotment = allocate(&rules, &[arm(1.0, 9, 1), arm(1.0, 1, 9)]);
    assert_eq!(allotment.probabilities, vec![0.5, 0.5]);
}

#[test]
fn cold_arms_get_their_weights_share_and_the_rest_follows_the_policy() {
    let rules = Rules {
        warm_up: 100,
        ..rules(&THOMPSON)
    };
    let cold = allocate(&rules, &[arm(3.0, 9, 0), arm(1.0, 0, 99)]);
    assert_eq!(cold.probabilities, vec![0.75, 0.25]);

    let arms = [arm(1.0, 90, 10), arm(1.0, 10, 90), arm(2.0, 0, 99)];
    let mixed = allocate(&rules, &arms);
    assert_eq!(mixed.probabilities[2], 0.5);
    assert!((mixed.probabilities[0] - 0.5).abs() < 1e-9);
    // P(best) is about all arms, whatever is drawn.
    assert_eq!(mixed.probability_best, None);
    assert!(shown(&arms, &mixed)[2] < 1e-6);

    let warm = allocate(&rules, &[arm(1.0, 90, 10), arm(2.0, 1, 99)]);
    assert!(warm.probabilities[0] > 0.999_999);
}

#[test]
fn probability_best_is_computed_for_those_who_ask() {
    let arms = [arm(1.0, 30, 70), arm(1.0, 45, 55)];
    let thompson = allocate(&rules(&THOMPSON), &arms);
    for policy in [
        &Fixed as &dyn Policy,
        &EpsilonGreedy::constant(0.1) as &dyn Policy,
    ] {
        let allotment = allocate(&rules(policy), &arms);
        assert_eq!(allotment.probability_best, None);
        assert_eq!(shown(&arms, &allotment), thompson.probabilities);
        assert_eq!(allotment.posteriors, thompson.posteriors);
    }
    assert_eq!(thompson.probability_best, Some(thompson.probabilities));
}

/// A policy whose author made a mistake.
#[derive(Debug)]
struct Faulty(Vec<f64>);

impl Policy for Faulty {
    fn kind(&self) -> &'static str {
        "faulty"
    }

    fn distribution(&self, _: &Evidence<'_>) -> Vec<f64> {
        self.0.clone()
    }

    fn posterior(&self, arm: &ArmEvidence, reward: RewardKind) -> Posterior {
        posterior(arm, None, reward)
    }
}

#[test]
fn what_is_drawn_from_is_a_distribution_whatever_a_policy_says() {
    let arms = [arm(1.0, 1, 1), arm(1.0, 1, 1), arm(1.0, 1, 1)];
    for (said, expected) in [
        (vec![f64::NAN, 1.0, -1.0], vec![0.0, 1.0, 0.0]),
        (vec![2.0, 2.0], vec![0.5, 0.5, 0.0]),
        (vec![0.0; 3], vec![1.0 / 3.0; 3]),
        (vec![f64::INFINITY, 0.0, 0.0, 9.0], vec![1.0 / 3.0; 3]),
    ] {
        let allotment = allocate(&rules(&Faulty(said)), &arms);
        assert_eq!(allotment.probabilities, expected);
    }
}

#[test]
fn an_experiment_has_states_for_its_arms() {
    let experiment = fixture::experiment(Arc::new(THOMPSON), &[1.0, 1.0, 0.0]);
    let mut tallies = vec![Tally::default(); 3];
    tallies[1].learned.add(1.0, 10);
    tallies[1].decisions = 12;
    let now = Timestamp::default();
    let (allotment, states) = arm_states(&experiment, &tallies, &[Admission::FULL; 3], now);
    let probabilities = allotment.probabilities;
    assert!(probabilities[1] > 0.9);
    assert_eq!(probabilities[2], 0.0);
    assert_eq!(states[1].tally.decisions, 12);
    assert_eq!(states[1].probability_best, probabilities[1]);
    assert_eq!(
        states.iter().map(|state| state.enabled).collect::<Vec<_>>(),
        [true, true, false]
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn an_allocation_is_a_distribution_over_the_eligible_with_its_floor(
        arms in prop::collection::vec(
            (0.0..5.0_f64, 0_u64..1000, 0_u64..1000, any::<bool>(), 0_u8..4), 1..8),
        floor in 0.0..0.12_f64,
        warm_up in 0_u64..500,
        policy in 0..3_usize,
    ) {
        let policies: [&dyn Policy; 3] = [&Fixed, &EpsilonGreedy::constant(0.1), &THOMPSON];
        let candidates: Vec<Candidate> = arms
            .iter()
            .map(|(weight, successes, failures, enabled, zero)| {
                let weight = if *zero == 0 { 0.0 } else { *weight };
                Candidate { enabled: *enabled, ..arm(weight, *successes, *failures) }
            })
            .collect();
        let rules = Rules { floor, warm_up, ..rules(policies[policy]) };
        let allotment = allocate(&rules, &candidates);
        prop_assert_eq!(&allotment.probabilities, &allocate(&rules, &candidates).probabilities);
        let eligible = candidates.iter().filter(|candidate| candidate.eligible()).count();
        let whole = if eligible == 0 { 0.0 } else { 1.0 };
        prop_assert!((sum(&allotment.probabilities) - whole).abs() < 1e-9);
        prop_assert!((sum(&shown(&candidates, &allotment)) - whole).abs() < 1e-9);
        for (candidate, probability) in candidates.iter().zip(&allotment.probabilities) {
            if candidate.eligible() {
                prop_assert!(*probability >= floor);
            } else {
                prop_assert_eq!(*probability, 0.0);
            }
        }
    }
}
