//! What every registered policy must do.

use super::*;
use crate::document::{Document, Problems};
use crate::experiment::reward::Goal;
use crate::stats::moments::Moments;

/// Builds a policy of the keys below its table's head.
fn build(kind: &PolicyKind, keys: &str, reward: RewardKind) -> Result<Arc<dyn Policy>, String> {
    let problems = Problems::default();
    let document = Document::parse("test.toml", keys, &problems);
    let policy = (kind.build)(
        &document.section(kind.fields, &problems),
        Setting { reward, arms: 2 },
    );
    let failed = problems.has_errors();
    let shown: Vec<String> = problems
        .into_sorted()
        .iter()
        .map(ToString::to_string)
        .collect();
    match policy {
        Some(policy) if !failed => Ok(policy),
        _ => Err(shown.join("\n")),
    }
}

/// The example's keys, and the policy they make.
fn example(kind: &PolicyKind) -> (&'static str, Arc<dyn Policy>) {
    let (head, keys) = kind.example.split_once('\n').unwrap();
    assert_eq!(head, format!("[policy.{}]", kind.name));
    (keys, build(kind, keys, RewardKind::Binary).unwrap())
}

/// A policy of this kind with nothing but defaults, for any reward.
fn plain(kind: &PolicyKind, reward: RewardKind) -> Arc<dyn Policy> {
    build(kind, "", reward).unwrap()
}

const BOUNDED: RewardKind = RewardKind::Bounded {
    min: -2.0,
    max: 6.0,
};

/// An arm with `count` rewards of each of the `values`.
fn arm(values: &[f64], count: u64) -> ArmEvidence {
    let mut moments = Moments::default();
    for value in values {
        moments.add(*value, count);
    }
    ArmEvidence::of(1.0, moments)
}

/// π of these arms, checked to be a distribution.
fn distribution(
    policy: &dyn Policy,
    arms: &[ArmEvidence],
    reward: RewardKind,
    goal: Goal,
) -> Vec<f64> {
    let posteriors: Vec<Posterior> = arms
        .iter()
        .map(|arm| policy.posterior(arm, reward))
        .collect();
    for posterior in &posteriors {
        assert!(posterior.mean().is_finite(), "{posterior:?}");
        assert!(!posterior.variance().is_nan(), "{posterior:?}");
    }
    let evidence = Evidence::new(arms, &posteriors, reward, goal);
    let result = policy.distribution(&evidence);
    assert_eq!(result, policy.distribution(&evidence));
    assert_eq!(result.len(), arms.len());
    assert!(result.iter().all(|share| *share >= 0.0), "{result:?}");
    assert!(
        (result.iter().sum::<f64>() - 1.0).abs() < 1e-9,
        "{} {result:?}",
        policy.kind()
    );
    result
}

#[test]
fn names_are_unique_and_examples_build() {
    for (index, kind) in KINDS.iter().enumerate() {
        assert!(KINDS[..index].iter().all(|other| other.name != kind.name));
        assert_eq!(PolicyKind::find(kind.name).unwrap().name, kind.name);
        assert!(!kind.summary.is_empty());
        assert!(!kind.rewards.is_empty());
        assert!(
            kind.rewards
                .iter()
                .all(|reward| ANY_REWARD.contains(reward))
        );
        for common in [FLOOR, WARM_UP] {
            assert!(
                kind.fields.iter().any(|field| field.key == common.key),
                "{}",
                kind.name
            );
        }
        assert_eq!(example(kind).1.kind(), kind.name);
    }
    assert!(PolicyKind::find("unheard_of").is_none());
}

#[test]
fn unknown_parameters_are_refused() {
    for kind in KINDS {
        let keys = format!("{}unheard_of = 1\n", example(kind).0);
        let error = build(kind, &keys, RewardKind::Binary).unwrap_err();
        assert!(error.contains("unknown key `unheard_of`"), "{error}");
        let error = build(kind, "floor = 1.0\nwarm_up = -1\n", RewardKind::Binary).unwrap_err();
        assert!(
            error.contains("floor") && error.contains("warm_up"),
            "{error}"
        );
    }
}

#[test]
fn floors_by_default() {
    let floor = |name: &str, arms| PolicyKind::find(name).unwrap().default_floor(arms);
    assert_eq!(floor("fixed", 2), 0.0);
    assert_eq!(floor("epsilon_greedy", 2), 0.0);
    assert_eq!(floor("thompson", 2), 0.01);
    assert_eq!(floor("thompson", 10), 0.01);
    assert_eq!(floor("thompson", 100), 0.001);
}

#[test]
fn arms_that_earned_the_same_get_the_same() {
    for kind in KINDS {
        for reward in [RewardKind::Binary, BOUNDED, RewardKind::Real] {
            let policy = plain(kind, reward);
            for arms in [1, 2, 7, 100] {
                for evidence in [
                    arm(&[], 0),
                    arm(&[0.0, 1.0, 1.0], 50),
                    arm(&[1.0], 1_000_000_000),
                ] {
                    let shares =
                        distribution(&*policy, &vec![evidence; arms], reward, Goal::Maximize);
                    let even = 1.0 / arms as f64;
                    assert!(
                        shares.iter().all(|share| (share - even).abs() < 1e-9),
                        "{shares:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_better_arm_gets_more_after_many_rewards() {
    for kind in KINDS.iter().filter(|kind| kind.name != "fixed") {
        for (reward, better, worse) in [
            (RewardKind::Binary, [1.0, 1.0, 0.0], [1.0, 0.0, 0.0]),
            (BOUNDED, [6.0, 4.0, -2.0], [3.0, -2.0, 1.0]),
            (RewardKind::Real, [100.0, 120.0, 90.0], [80.0, 100.0, 75.0]),
        ] {
            let policy = plain(kind, reward);
            let arms = [arm(&worse, 500), arm(&better, 500), arm(&worse, 500)];
            let shares = distribution(&*policy, &arms, reward, Goal::Maximize);
            assert!(shares[1] > 0.9, "{} {shares:?}", kind.name);
            let shares = distribution(&*policy, &arms, reward, Goal::Minimize);
            assert!(shares[1] < 0.1, "{} {shares:?}", kind.name);
        }
    }
}

#[test]
fn a_permutation_of_the_arms_permutes_the_distribution() {
    for kind in KINDS {
        for reward in [RewardKind::Binary, RewardKind::Real] {
            let policy = plain(kind, reward);
            let mut arms = vec![
                arm(&[0.0, 1.0, 1.0], 10),
                arm(&[1.0, 0.0], 40),
                arm(&[], 0),
                arm(&[1.0], 2),
            ];
            for (weight, arm) in (1..).map(f64::from).zip(&mut arms) {
                arm.weight = weight;
            }
            let shares = distribution(&*policy, &arms, reward, Goal::Maximize);
            arms.rotate_left(1);
            let mut rotated = distribution(&*policy, &arms, reward, Goal::Maximize);
            rotated.rotate_right(1);
            for (a, b) in shares.iter().zip(&rotated) {
                assert!(
                    (a - b).abs() < 1e-12,
                    "{} {shares:?} {rotated:?}",
                    kind.name
                );
            }
        }
    }
}

#[test]
fn hostile_numbers_give_a_distribution() {
    let billion = 1_000_000_000;
    for kind in KINDS {
        for (reward, arms) in [
            (
                RewardKind::Binary,
                vec![
                    arm(&[1.0], billion),
                    arm(&[0.0], billion),
                    arm(&[0.0, 1.0], billion / 2),
                    arm(&[], 0),
                ],
            ),
            (
                BOUNDED,
                vec![
                    arm(&[6.0], billion),
                    arm(&[-2.0], billion),
                    arm(&[6.0], 1),
                    arm(&[], 0),
                ],
            ),
            (
                RewardKind::Real,
                vec![
                    arm(&[1e9], billion),
                    arm(&[-1e9], billion),
                    arm(&[1e9, -1e9], billion / 2),
                    arm(&[0.0], billion),
                    arm(&[1e-9], 3),
                    arm(&[7.0], 1),
                    arm(&[], 0),
                ],
            ),
        ] {
            let policy = plain(kind, reward);
            for goal in [Goal::Maximize, Goal::Minimize] {
                distribution(&*policy, &arms, reward, goal);
                for alone in &arms {
                    assert_eq!(
                        distribution(&*policy, std::slice::from_ref(alone), reward, goal),
                        vec![1.0]
                    );
                    distribution(&*policy, &vec![alone.clone(); 100], reward, goal);
                }
            }
        }
    }
}

#[test]
fn priors_are_read_for_their_reward_and_an_arms_own_comes_first() {
    let kind = PolicyKind::find("thompson").unwrap();
    let beta = "prior = { alpha = 2, beta = 6.5 }";
    let normal = "prior = { mean = 5.0, strength = 10, shape = 3.0, scale = 4.0 }";
    let policy = build(kind, beta, BOUNDED).unwrap();
    let mut evidence = arm(&[6.0], 3);
    let expected = Posterior::Beta {
        alpha: 5.0,
        beta: 6.5,
        min: -2.0,
        max: 6.0,
    };
    assert_eq!(policy.posterior(&evidence, BOUNDED), expected);
    evidence.prior = Some(ArmPrior::Beta {
        alpha: 40.0,
        beta: 10.0,
    });
    let Posterior::Beta { alpha, beta: b, .. } = policy.posterior(&evidence, BOUNDED) else {
        panic!("not a Beta");
    };
    assert_eq!((alpha, b), (43.0, 10.0));
    let policy = build(kind, normal, RewardKind::Real).unwrap();
    assert_eq!(
        policy.posterior(&arm(&[], 0), RewardKind::Real),
        Posterior::StudentT {
            location: 5.0,
            scale: (4.0_f64 / 3.0 / 10.0).sqrt(),
            degrees: 6.0
        }
    );

    let error = build(kind, normal, RewardKind::Binary).unwrap_err();
    assert!(
        error.contains("`mean` is not part of the prior of a binary reward"),
        "{error}"
    );
    assert!(error.contains("`alpha` is missing"), "{error}");
    let error = build(
        kind,
        "prior = { alpha = 0.0, beta = -1 }",
        RewardKind::Binary,
    )
    .unwrap_err();
    assert!(error.contains("alpha") && error.contains("beta"), "{error}");
}

#[test]
fn epsilon_greedy_gives_epsilon_to_all_and_the_rest_to_the_best() {
    let policy = epsilon_greedy::EpsilonGreedy { epsilon: 0.2 };
    let arms = [
        arm(&[1.0, 0.0], 10),
        arm(&[1.0, 1.0, 0.0], 10),
        arm(&[], 0),
        arm(&[1.0, 1.0, 0.0], 10),
    ];
    let shares = distribution(&policy, &arms, RewardKind::Binary, Goal::Maximize);
    for (share, expected) in shares.iter().zip([0.05, 0.45, 0.05, 0.45]) {
        assert!((share - expected).abs() < 1e-15, "{shares:?}");
    }
}
