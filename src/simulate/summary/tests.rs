use std::sync::Arc;

use super::*;
use crate::simulate::fixture::experiment;
use crate::simulate::world::World;
use crate::simulate::{Publish, environment};

fn plan(policy: &str, horizon: u64) -> Plan {
    let experiment = experiment(policy, "kind = \"binary\"", &["b", "a"]);
    let text = "kind = \"bernoulli\"\nmeans = { a = 0.4, b = 0.6 }";
    let experiments = [Arc::clone(&experiment)];
    let environment = environment::parse("env", text, &experiments, &|_| unreachable!()).unwrap();
    Plan {
        world: World::new(&environment, &experiment, None).unwrap(),
        experiment,
        horizon,
        publish: Publish::ByGrowth,
    }
}

fn effort(seeds: u64, threads: usize) -> Effort<'static> {
    Effort {
        seeds,
        threads: NonZeroUsize::new(threads).unwrap(),
        progress: &|_| {},
    }
}

#[test]
fn numbers_do_not_depend_on_the_threads() {
    let plan = plan("[policy.thompson]", 300);
    let without_speed = |threads| Summary {
        decisions_per_second: 0.0,
        ..simulate(&plan, &effort(7, threads))
    };
    assert_eq!(without_speed(1), without_speed(4));
}

#[test]
fn a_fixed_split_has_the_regret_that_it_must_have() {
    let plan = plan("[policy.fixed]", 1_000);
    let summary = simulate(&plan, &effort(200, 2));
    let Estimate { mean, se } = summary.regret.estimate;
    let se = se.unwrap();
    // Half of the rounds cost 0.2 each; the number of them is binomial.
    assert!((mean - 100.0).abs() < 4.0 * se, "{mean} ± {se}");
    let exact = 0.2 * (1_000.0_f64 * 0.25).sqrt() / 200_f64.sqrt();
    assert!((se / exact - 1.0).abs() < 0.2, "{se} {exact}");
    assert!(summary.regret.p10 < mean && mean < summary.regret.p90);
    assert!((summary.reward.mean - 0.5).abs() < 4.0 * summary.reward.se.unwrap());
    assert!((summary.share[0].1 - 0.5).abs() < 0.01);
}

#[test]
fn the_form_of_the_json_is_the_contracts() {
    let summary = simulate(&plan("[policy.fixed]", 1_000), &effort(3, 1));
    let json: serde_json::Value = serde_json::to_value(&summary).unwrap();
    let keys = |value: &serde_json::Value| -> Vec<String> {
        let mut keys: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
        keys.sort();
        keys
    };
    assert_eq!(
        keys(&json),
        [
            "curve",
            "decisions_per_second",
            "horizon",
            "policy",
            "regret",
            "reward",
            "seeds",
            "share"
        ]
    );
    assert_eq!(keys(&json["regret"]), ["mean", "p10", "p50", "p90", "se"]);
    assert_eq!(keys(&json["reward"]), ["mean", "se"]);
    assert_eq!(keys(&json["share"]), ["a", "b"]);
    assert_eq!(keys(&json["curve"][0]), ["mean", "se", "t"]);
    assert_eq!(json["policy"], "policies/fixture.toml");
    let curve = json["curve"].as_array().unwrap();
    assert_eq!(curve.len(), 100);
    assert_eq!(curve[0]["t"], 10);
    assert_eq!(curve[99]["t"], 1_000);
    assert_eq!(curve[99]["mean"], json["regret"]["mean"]);
}

#[test]
fn one_seed_has_no_standard_error() {
    let summary = simulate(&plan("[policy.fixed]", 7), &effort(1, 1));
    assert_eq!(summary.regret.estimate.se, None);
    let times: Vec<u64> = summary.curve.iter().map(|point| point.t).collect();
    assert_eq!(times, [1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn quantiles_lie_between_the_order_statistics() {
    assert_eq!(quantile(&[3.0, 1.0, 2.0], 0.5), 2.0);
    assert_eq!(quantile(&[1.0, 2.0], 0.25), 1.25);
    assert_eq!(quantile(&[4.0], 0.9), 4.0);
}
