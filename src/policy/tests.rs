//! What every registered policy must do; `formulas` has what each does by its own formula.

mod formulas;

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

/// The kinds that see no context.
fn scalar() -> impl Iterator<Item = &'static PolicyKind> {
    KINDS.iter().filter(|kind| !kind.context)
}

/// The kinds that see no context, each with some reward that it learns from.
fn learning_from(rewards: &[RewardKind]) -> Vec<(&'static PolicyKind, RewardKind)> {
    scalar()
        .flat_map(|kind| rewards.iter().map(move |reward| (kind, *reward)))
        .filter(|(kind, reward)| kind.rewards.contains(&reward.as_str()))
        .collect()
}

/// A policy of this kind with as little said as it allows, for any reward.
fn plain(kind: &PolicyKind, reward: RewardKind) -> Arc<dyn Policy> {
    let keys = match (kind.name, reward) {
        ("softmax", RewardKind::Real) => "temperature = 5",
        _ => "",
    };
    build(kind, keys, reward).unwrap()
}

const BOUNDED: RewardKind = RewardKind::Bounded {
    min: -2.0,
    max: 6.0,
};

/// An arm with `count` rewards of each of the `values`, every decision drawn with probability 1/2.
fn arm(values: &[f64], count: u64) -> ArmEvidence {
    let mut moments = Moments::default();
    for value in values {
        moments.add(*value, count);
    }
    ArmEvidence {
        importance: ImportanceSum {
            weights: 2.0 * moments.count() as f64,
            rewards: 2.0 * moments.sum(),
        },
        ..ArmEvidence::of(1.0, moments)
    }
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
        assert!(!kind.summary.ends_with('.') && kind.guide.ends_with('.'));
        assert!(kind.takes("floor"), "{}", kind.name);
        // What is remembered can only be asked for in both ways, and is then kept.
        assert_eq!(kind.takes("half_life"), kind.takes("sliding_window"));
        for (key, memory) in [
            ("half_life", Memory::HalfLife(3_600_000)),
            ("sliding_window", Memory::SlidingWindow(3_600_000)),
        ] {
            let built = build(kind, &format!("{key} = \"1h\""), RewardKind::Binary);
            let kept = built.map(|policy| policy.statistics().memory);
            assert_eq!(kept.ok(), kind.takes(key).then_some(memory));
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
        if kind.takes("half_life") {
            let both = "half_life = \"2h\"\nsliding_window = \"1d\"\n";
            let error = build(kind, both, RewardKind::Binary).unwrap_err();
            assert!(error.contains("not both"), "{error}");
        }
    }
}

#[test]
fn floors_by_default() {
    let floor = |name: &str, arms| PolicyKind::find(name).unwrap().default_floor(arms);
    for explorer in ["fixed", "epsilon_greedy", "softmax", "exp3"] {
        assert_eq!(floor(explorer, 2), 0.0);
    }
    assert_eq!(floor("ucb", 2), 0.01);
    assert_eq!(floor("top_two", 100), 0.001);
    assert_eq!(floor("thompson", 2), 0.01);
    assert_eq!(floor("thompson", 10), 0.01);
    assert_eq!(floor("thompson", 100), 0.001);
}

#[test]
fn arms_that_earned_the_same_get_the_same() {
    for (kind, reward) in learning_from(&[RewardKind::Binary, BOUNDED, RewardKind::Real]) {
        let policy = plain(kind, reward);
        for arms in [1, 2, 7, 100] {
            for evidence in [
                arm(&[], 0),
                arm(&[0.0, 1.0, 1.0], 50),
                arm(&[1.0], 1_000_000_000),
            ] {
                for goal in [Goal::Maximize, Goal::Minimize] {
                    let shares =
                        distribution(&*policy, &vec![evidence.clone(); arms], reward, goal);
                    let even = 1.0 / arms as f64;
                    assert!(
                        shares.iter().all(|share| (share - even).abs() < 1e-9),
                        "{} {shares:?}",
                        kind.name
                    );
                }
            }
        }
    }
}

#[test]
fn a_better_arm_gets_more_after_many_rewards() {
    for (reward, better, worse) in [
        (RewardKind::Binary, [1.0, 1.0, 0.0], [1.0, 0.0, 0.0]),
        (BOUNDED, [6.0, 4.0, -2.0], [3.0, -2.0, 1.0]),
        (RewardKind::Real, [100.0, 120.0, 90.0], [80.0, 100.0, 75.0]),
    ] {
        for (kind, reward) in learning_from(&[reward]) {
            // A fixed split follows no reward, and top-two gives the leader its half.
            let most = match kind.name {
                "fixed" => continue,
                "top_two" => 0.49,
                _ => 0.9,
            };
            let policy = plain(kind, reward);
            let arms = [arm(&worse, 500), arm(&better, 500), arm(&worse, 500)];
            let shares = distribution(&*policy, &arms, reward, Goal::Maximize);
            assert!(shares[1] > most, "{} {shares:?}", kind.name);
            let shares = distribution(&*policy, &arms, reward, Goal::Minimize);
            assert!(shares[1] < 0.1, "{} {shares:?}", kind.name);
        }
    }
}

#[test]
fn a_reward_more_never_takes_from_its_arm() {
    for (kind, reward) in learning_from(&[RewardKind::Binary]) {
        // Top-two turns away from a leader that pulls ahead of a close race.
        if kind.name == "top_two" {
            continue;
        }
        let policy = plain(kind, reward);
        let arms_with = |successes: u64| {
            let mut first = arm(&[0.0, 1.0], 20);
            first.earned.sum = successes as f64;
            first.earned.deviations = (successes * (40 - successes)) as f64 / 40.0;
            first.importance.rewards = 2.0 * successes as f64;
            [first, arm(&[0.0, 1.0], 20), arm(&[0.0, 1.0, 1.0], 10)]
        };
        let share =
            |successes| distribution(&*policy, &arms_with(successes), reward, Goal::Maximize)[0];
        let shares: Vec<f64> = (0..=40).map(share).collect();
        assert!(
            shares.windows(2).all(|pair| pair[1] >= pair[0] - 1e-12),
            "{} {shares:?}",
            kind.name
        );
    }
}

#[test]
fn less_is_better_is_more_is_better_of_the_mirrored_rewards() {
    let values = [[0.0, 1.0, 1.0], [1.0, 0.0, 0.0], [1.0, 1.0, 1.0]];
    for (kind, reward) in learning_from(&[RewardKind::Binary]) {
        let policy = plain(kind, reward);
        let arms = values.map(|values| arm(&values, 9));
        let mirrored = values.map(|values| arm(&values.map(|value| 1.0 - value), 9));
        let less = distribution(&*policy, &arms, reward, Goal::Minimize);
        let more = distribution(&*policy, &mirrored, reward, Goal::Maximize);
        for (a, b) in less.iter().zip(&more) {
            assert!((a - b).abs() < 1e-9, "{} {less:?} {more:?}", kind.name);
        }
    }
}

#[test]
fn a_permutation_of_the_arms_permutes_the_distribution() {
    for (kind, reward) in learning_from(&[RewardKind::Binary, RewardKind::Real]) {
        for unseen in [arm(&[], 0), arm(&[0.0, 0.0, 1.0], 3)] {
            let policy = plain(kind, reward);
            let mut arms = vec![
                arm(&[0.0, 1.0, 1.0], 10),
                arm(&[1.0, 0.0], 40),
                unseen,
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

/// Arms whose numbers are as bad as they come.
fn hostile(reward: RewardKind) -> Vec<ArmEvidence> {
    let billion = 1_000_000_000;
    let mut arms = match reward {
        RewardKind::Binary => vec![
            arm(&[1.0], billion),
            arm(&[0.0], billion),
            arm(&[0.0, 1.0], billion / 2),
        ],
        RewardKind::Bounded { min, max } => vec![
            arm(&[max], billion),
            arm(&[min], billion),
            arm(&[max], 1),
            arm(&[min, max], billion / 2),
        ],
        RewardKind::Real => vec![
            arm(&[1e9], billion),
            arm(&[-1e9], billion),
            arm(&[1e9, -1e9], billion / 2),
            arm(&[0.0], billion),
            arm(&[1e-9], 3),
            arm(&[7.0], 1),
        ],
    };
    arms.push(arm(&[], 0));
    // Decisions in flight only, very many, and what a discount leaves of a reward.
    let mut waiting = arm(&[], 0);
    waiting.waiting = billion;
    arms.push(waiting);
    for weight in [1e-300, 1e-12, 0.3] {
        let mut faded = arm(&[1.0], 1);
        faded.earned.count *= weight;
        faded.earned.sum *= weight;
        arms.push(faded);
    }
    // Weights as great as the fold lets them be.
    let mut rare = arm(&[1.0], 1);
    rare.importance.weights = 1e18;
    rare.importance.rewards = 1e18;
    arms.push(rare);
    arms
}

#[test]
fn hostile_numbers_give_a_distribution() {
    for (kind, reward) in learning_from(&[RewardKind::Binary, BOUNDED, RewardKind::Real]) {
        let policy = plain(kind, reward);
        let arms = hostile(reward);
        for goal in [Goal::Maximize, Goal::Minimize] {
            distribution(&*policy, &arms, reward, goal);
            for (index, alone) in arms.iter().enumerate() {
                assert_eq!(
                    distribution(&*policy, std::slice::from_ref(alone), reward, goal),
                    vec![1.0]
                );
                distribution(&*policy, &vec![alone.clone(); 100], reward, goal);
                distribution(&*policy, &arms[index..], reward, goal);
            }
        }
    }
}

#[test]
fn parameters_at_their_ends_give_a_distribution() {
    for (name, keys) in [
        ("epsilon_greedy", "epsilon = 0.0"),
        ("epsilon_greedy", "epsilon = 1.0"),
        ("epsilon_greedy", "decay = 1e-9"),
        ("epsilon_greedy", "decay = 1e9"),
        ("top_two", "beta = 1e-9"),
        ("top_two", "beta = 1.0"),
        ("softmax", "temperature = 1e-308"),
        ("softmax", "temperature = 1e9"),
        ("exp3", "horizon = 1"),
        ("exp3", "horizon = 1000000000"),
        ("ucb", "variant = \"kl\""),
    ] {
        let kind = PolicyKind::find(name).unwrap();
        for (kind, reward) in learning_from(&[RewardKind::Binary, BOUNDED, RewardKind::Real]) {
            if kind.name == name {
                let policy = build(kind, keys, reward);
                // Softmax has no default temperature for real rewards, and all of these give it one.
                let policy = policy.unwrap();
                let arms = hostile(reward);
                distribution(&*policy, &arms, reward, Goal::Maximize);
                distribution(&*policy, &arms[..2], reward, Goal::Minimize);
            }
        }
        assert!(!kind.rewards.is_empty());
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
