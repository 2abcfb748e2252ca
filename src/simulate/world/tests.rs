use super::super::environment;
use super::*;
use crate::simulate::fixture::experiment;

fn world(text: &str, reward: &str, delay: Option<u64>) -> World {
    let experiment = experiment("[policy.fixed]", reward, &["a", "b", "c"]);
    let open = |_: &str| Ok("x,y\n1,b\n2,a\n3,c\n4,c\n".to_owned());
    let experiments = [Arc::clone(&experiment)];
    let environment = environment::parse("env.toml", text, &experiments, &open).unwrap();
    World::new(&environment, &experiment, delay).unwrap()
}

const BINARY: &str = "kind = \"binary\"";

#[test]
fn uniforms_are_golden() {
    // Computed in Python with unbounded integers.
    for (key, value) in [
        ((0, 0, 0), 0.883_310_808_213_642_6),
        ((0, 0, 1), 0.566_561_575_172_280_9),
        ((0, 1, 0), 0.766_301_757_339_086),
        ((1, 0, 0), 0.124_472_687_241_964_59),
        ((7, 3, 123_456), 0.972_381_984_312_593_7),
        ((16_777_215, 255, 4_294_967_295), 0.893_942_920_283_184_5),
    ] {
        assert_eq!(uniform(key.0, key.1, key.2), value);
    }
}

#[test]
fn arms_are_numbered_as_in_the_policy_file_and_rewards_follow_the_uniforms() {
    let text = "kind = \"bernoulli\"\nmeans = { c = 0.9, a = 0.2, b = 0.5 }";
    let world = world(text, BINARY, None);
    let mut history = world.history(3);
    for round in 0..500 {
        for (arm, mean) in [0.2, 0.5, 0.9].into_iter().enumerate() {
            let one = uniform(3, arm as u64, round) < mean;
            assert_eq!(history.reward(arm), f64::from(u8::from(one)));
        }
        assert!((history.regret(0) - 0.7).abs() < 1e-12);
        assert_eq!(history.regret(2), 0.0);
        history.advance();
    }
}

#[test]
fn phases_change_the_means_they_name() {
    let text = "kind = \"bernoulli\"\nmeans = { a = 0, b = 1, c = 0 }\n\
                [[phase]]\nfrom = 2\nmeans = { a = 1 }\n[[phase]]\nfrom = 4\nmeans = { b = 0 }";
    let world = world(text, BINARY, None);
    let mut history = world.history(0);
    let mut seen = Vec::new();
    for _ in 0..6 {
        seen.push((history.reward(0), history.reward(1), history.regret(1)));
        history.advance();
    }
    let (first, second, third) = ((0.0, 1.0, 0.0), (1.0, 1.0, 0.0), (1.0, 0.0, 1.0));
    assert_eq!(seen, [first, first, second, second, third, third]);
    assert_eq!(world.changes(), [2, 4]);
}

#[test]
fn regret_is_mirrored_where_less_is_better() {
    let text = "kind = \"bernoulli\"\nmeans = { a = 0.1, b = 0.4, c = 0.2 }";
    let world = world(text, "kind = \"binary\"\ngoal = \"minimize\"", None);
    let history = world.history(0);
    assert_eq!(history.regret(0), 0.0);
    assert!((history.regret(1) - 0.3).abs() < 1e-12);
}

#[test]
fn gaussian_rewards_have_their_mean_and_deviation() {
    let text = "kind = \"gaussian\"\nmeans = { a = 5, b = -1, c = 0 }\nsd = { a = 2, b = 0 }";
    let world = world(text, "kind = \"real\"", None);
    let mut history = world.history(1);
    let (mut sum, mut squares) = (0.0, 0.0);
    let count = 20_000;
    for _ in 0..count {
        let reward = history.reward(0);
        assert!(reward.is_finite());
        sum += reward;
        squares += (reward - 5.0).powi(2);
        assert_eq!(history.reward(1), -1.0);
        history.advance();
    }
    let count = f64::from(count);
    assert!((sum / count - 5.0).abs() < 4.0 * 2.0 / count.sqrt());
    assert!((squares / count / 4.0 - 1.0).abs() < 4.0 * (2.0 / count).sqrt());
}

#[test]
fn what_a_range_cuts_off_is_in_the_regret() {
    let text = "kind = \"gaussian\"\nmeans = { a = 9.5, b = 5, c = 0 }\nsd = 2.0";
    let world = world(text, "kind = \"bounded\"\nmin = 0\nmax = 10", None);
    let mut history = world.history(1);
    let mut sums = [0.0; 3];
    let count = 20_000;
    for _ in 0..count {
        for (arm, sum) in sums.iter_mut().enumerate() {
            let reward = history.reward(arm);
            assert!((0.0..=10.0).contains(&reward));
            *sum += reward;
        }
        history.advance();
    }
    let count = f64::from(count);
    for arm in 0..3 {
        let measured = (sums[0] - sums[arm]) / count;
        assert!(
            (history.regret(arm) - measured).abs() < 0.08,
            "arm {arm}: {} {measured}",
            history.regret(arm)
        );
    }
    // The mean of max(0, Z) scaled by 2 (the half-normal's): 2 / √(2π).
    let half = 2.0 / (2.0 * std::f64::consts::PI).sqrt();
    assert!((mean_within(0.0, 2.0, (0.0, 1e9)) - half).abs() < 1e-9);
}

#[test]
fn delays_are_by_arm_and_outcome_and_a_flag_beats_them() {
    let text = "kind = \"bernoulli\"\nmeans = { a = 0.1, b = 0.4, c = 0.2 }\n\
                delay_if_rewarded = { b = 7 }\ndelay_otherwise = 9";
    let own = world(text, BINARY, None);
    assert_eq!(own.delay(0, 1.0), Some(0));
    assert_eq!(own.delay(1, 1.0), Some(7));
    assert_eq!(own.delay(1, 0.0), Some(9));
    assert_eq!(own.delays(), [9, 7, 0]);
    let forced = world(text, BINARY, Some(3));
    assert_eq!(forced.delays(), [3]);
    assert_eq!(forced.delay(1, 0.0), Some(3));
    let silent = world(&format!("{text}\npost = \"rewarded\""), BINARY, None);
    assert_eq!(silent.delay(0, 0.0), None);
    assert_eq!(silent.delay(0, 1.0), Some(0));
}

#[test]
fn a_dataset_pays_the_arm_that_is_called_like_the_label() {
    let text = "kind = \"dataset\"\nfile = \"rows.csv\"\nreward = { right = 2, wrong = -1 }";
    let world = world(text, "kind = \"real\"", None);
    assert_eq!(world.rows(), Some(4));
    let mut orders = std::collections::BTreeSet::new();
    for seed in 0..20 {
        let mut history = world.history(seed);
        for pass in 0..3 {
            let mut seen = Vec::new();
            for _ in 0..4 {
                let (names, features) = history.features();
                assert_eq!(names, ["x"]);
                let Cell::Number(row) = features[0] else {
                    panic!("x is a number");
                };
                let right = [1, 0, 2, 2][row as usize - 1];
                for arm in 0..3 {
                    let (reward, regret) = if arm == right {
                        (2.0, 0.0)
                    } else {
                        (-1.0, 3.0)
                    };
                    assert_eq!((history.reward(arm), history.regret(arm)), (reward, regret));
                }
                seen.push(row as u64);
                history.advance();
            }
            orders.insert(seen.clone());
            seen.sort_unstable();
            assert_eq!(seen, [1, 2, 3, 4], "pass {pass} has every row once");
        }
    }
    assert!(orders.len() > 10, "passes have orders of their own");
}
