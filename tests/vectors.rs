//! Numbers that other tools computed. Each file in `tests/data` names its source; cases are one a line.

#![expect(
    clippy::unwrap_used,
    reason = "a vector that cannot be read fails its test"
)]

use pointsman::experiment::reward::{Goal, RewardKind};
use pointsman::policy::best::probability_best;
use pointsman::policy::posterior::posterior;
use pointsman::policy::top_two::TopTwo;
use pointsman::policy::{ArmEvidence, ArmPrior, Evidence, Memory, Policy, Posterior};
use pointsman::stats::moments::Moments;
use pointsman::stats::sequence;
use serde_json::Value;

const BETAS: &str = include_str!("data/best_beta.json");
const BELLS: &str = include_str!("data/best_student_t.json");
const TOP_TWO: &str = include_str!("data/top_two.json");
const SEQUENCES: &str = include_str!("data/confidence_sequence.json");

fn cases(file: &str, list: &str) -> Vec<Value> {
    let file: Value = serde_json::from_str(file).unwrap();
    file[list].as_array().unwrap().clone()
}

fn numbers(value: &Value) -> Vec<f64> {
    let list = value.as_array().unwrap();
    list.iter().map(|number| number.as_f64().unwrap()).collect()
}

/// Checks P(best) of a case whose posteriors are made of the tuples at `parameters`.
fn check_best(case: &Value, parameters: &str, posterior: impl Fn(&[f64]) -> Posterior) {
    let tuples = case[parameters].as_array().unwrap();
    let posteriors: Vec<Posterior> = tuples
        .iter()
        .map(|tuple| posterior(&numbers(tuple)))
        .collect();
    let best = probability_best(&posteriors, Goal::Maximize);
    let expected = numbers(&case["p_best"]);
    let name = case["name"].as_str().unwrap();
    let error = best
        .iter()
        .zip(&expected)
        .map(|(best, expected)| (best - expected).abs())
        .fold(0.0, f64::max);
    assert_eq!(best.len(), expected.len(), "{name}");
    assert!(error <= 1e-9, "{name}: {best:?} instead of {expected:?}");
    assert!((best.iter().sum::<f64>() - 1.0).abs() <= 1e-9, "{name}");
}

#[test]
fn probability_best_of_betas() {
    for case in cases(BETAS, "cases") {
        check_best(&case, "alpha_beta", |pair| Posterior::Beta {
            alpha: pair[0],
            beta: pair[1],
            min: 0.0,
            max: 1.0,
        });
    }
}

#[test]
fn probability_best_of_normals_and_student_ts() {
    for case in cases(BELLS, "gaussian") {
        check_best(&case, "mean_sd", |pair| Posterior::StudentT {
            location: pair[0],
            scale: pair[1],
            degrees: 1e12,
        });
    }
    for case in cases(BELLS, "student_t") {
        check_best(&case, "loc_scale_df", |triple| Posterior::StudentT {
            location: triple[0],
            scale: triple[1],
            degrees: triple[2],
        });
    }
}

/// Checks top-two's probabilities of a case whose posteriors are made of the pairs at `parameters`.
fn check_top_two(
    case: &Value,
    parameters: &str,
    reward: RewardKind,
    posterior: impl Fn(&[f64]) -> Posterior,
) {
    let policy = TopTwo {
        beta: 0.5,
        prior: None,
        memory: Memory::Forever,
    };
    let pairs = case[parameters].as_array().unwrap();
    let posteriors: Vec<Posterior> = pairs.iter().map(|pair| posterior(&numbers(pair))).collect();
    let arms = vec![ArmEvidence::of(1.0, Moments::default()); posteriors.len()];
    let evidence = Evidence::new(&arms, &posteriors, reward, Goal::Maximize);
    let shares = policy.distribution(&evidence);
    let expected = numbers(&case["top_two"]);
    assert_eq!(shares.len(), expected.len());
    for (share, expected) in shares.iter().zip(&expected) {
        assert!((share - expected).abs() <= 1e-9, "{shares:?} in {case}");
    }
    assert!((shares.iter().sum::<f64>() - 1.0).abs() <= 1e-9, "{case}");
}

#[test]
fn top_two_splits_between_leader_and_challengers() {
    for case in cases(TOP_TWO, "betas") {
        check_top_two(&case, "alpha_beta", RewardKind::Binary, |pair| {
            Posterior::Beta {
                alpha: pair[0],
                beta: pair[1],
                min: 0.0,
                max: 1.0,
            }
        });
    }
    for case in cases(TOP_TWO, "gaussians") {
        check_top_two(&case, "mean_sd", RewardKind::Real, |pair| {
            Posterior::StudentT {
                location: pair[0],
                scale: pair[1],
                degrees: 1e12,
            }
        });
    }
}

#[test]
fn normal_inverse_gamma_updates() {
    for case in cases(BELLS, "nig_updates") {
        let mut moments = Moments::default();
        for reward in numbers(&case["data"]) {
            moments.add(reward, 1);
        }
        let prior = |key: &str| case["prior"][key].as_f64().unwrap();
        let arm = ArmEvidence {
            prior: Some(ArmPrior::NormalInverseGamma {
                mean: prior("mu"),
                strength: prior("kappa"),
                shape: prior("alpha"),
                scale: prior("beta"),
            }),
            ..ArmEvidence::of(1.0, moments)
        };
        let posterior = posterior(&arm, None, RewardKind::Real);
        let Posterior::StudentT {
            location,
            scale,
            degrees,
        } = posterior
        else {
            panic!("{posterior:?}");
        };
        let expected = |key: &str| case["marginal_t"][key].as_f64().unwrap();
        // Rewards are kept to 2^-32, so the last digits differ.
        assert!((location - expected("loc")).abs() < 1e-8, "{location}");
        assert!((scale - expected("scale")).abs() < 1e-8, "{scale}");
        assert!((degrees - expected("df")).abs() < 1e-9, "{degrees}");
        let interval = numbers(&case["ci95"]);
        assert!((posterior.quantile(0.025) - interval[0]).abs() < 1e-7);
        assert!((posterior.quantile(0.975) - interval[1]).abs() < 1e-7);
    }
}

#[test]
fn confidence_sequences() {
    for case in cases(SEQUENCES, "cases") {
        let number = |key: &str| case[key].as_f64().unwrap();
        let (low, high) = sequence::interval(
            RewardKind::Binary,
            number("n") as u64,
            number("successes"),
            number("alpha"),
        )
        .unwrap();
        let expected = numbers(&case["ci"]);
        assert!((low - expected[0]).abs() < 1e-6, "{low} in {case}");
        assert!((high - expected[1]).abs() < 1e-6, "{high} in {case}");
    }
}
