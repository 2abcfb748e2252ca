use super::*;
use crate::simulate::environment;
use crate::simulate::fixture::experiment;
use crate::simulate::world::uniform;

const BINARY: &str = "kind = \"binary\"";

fn plan(policy: &str, reward: &str, world: &str) -> Plan {
    let experiment = experiment(policy, reward, &["a", "b"]);
    let experiments = [Arc::clone(&experiment)];
    let environment =
        environment::parse("env.toml", world, &experiments, &|_| unreachable!()).unwrap();
    Plan {
        world: World::new(&environment, &experiment, None).unwrap(),
        experiment,
        horizon: 2_000,
        publish: Publish::ByGrowth,
    }
}

fn world(rest: &str) -> String {
    format!("kind = \"bernoulli\"\nmeans = {{ a = 0.4, b = 0.6 }}\n{rest}")
}

fn trial(plan: &Plan, seed: u64) -> Trial {
    run(plan, seed, &[plan.horizon], &|_| {})
}

/// What the state holds after the whole horizon.
fn tallies(plan: &Plan, seed: u64, rounds: u64) -> Vec<Tally> {
    let mut run = Run::new(plan, seed);
    for round in 0..rounds {
        run.round(round);
    }
    run.tallies()
}

#[test]
fn a_seed_is_played_the_same_way_every_time_and_others_are_not() {
    let plan = plan("[policy.thompson]", BINARY, &world(""));
    assert_eq!(trial(&plan, 5), trial(&plan, 5));
    assert_ne!(trial(&plan, 5), trial(&plan, 6));
}

#[test]
fn the_regret_of_a_fixed_split_is_its_share_of_the_gap() {
    let plan = plan("[policy.fixed]", BINARY, &world(""));
    let trial = trial(&plan, 0);
    let regret = trial.drawn[0] as f64 * (0.6 - 0.4);
    assert!((trial.regret[0] - regret).abs() < 1e-9);
    assert!((trial.drawn[0] as f64 - 1_000.0).abs() < 4.0 * 500_f64.sqrt());
}

#[test]
fn the_state_learns_exactly_what_the_table_pays() {
    let plan = plan("[policy.epsilon_greedy]", BINARY, &world(""));
    let mut run = Run::new(&plan, 9);
    let (mut paid, mut before) = ([0.0; 2], vec![0; 2]);
    for round in 0..plan.horizon {
        run.round(round);
        for arm in 0..2 {
            if run.trial.drawn[arm] > before[arm] {
                paid[arm] += f64::from(u8::from(uniform(9, arm as u64, round) < [0.4, 0.6][arm]));
            }
        }
        before.clone_from(&run.trial.drawn);
    }
    for (arm, tally) in run.tallies().iter().enumerate() {
        assert_eq!(tally.decisions, run.trial.drawn[arm]);
        assert_eq!(tally.learned.count(), run.trial.drawn[arm]);
        assert_eq!(tally.learned.sum(), paid[arm]);
    }
    assert_eq!(run.trial.reward, paid[0] + paid[1]);
}

#[test]
fn a_reward_is_seen_by_the_decision_after_its_delay() {
    for delay in [0, 3] {
        let plan = plan(
            "[policy.fixed]",
            BINARY,
            &world(&format!("delay = {delay}")),
        );
        let learned = |rounds| -> u64 {
            let tallies = tallies(&plan, 0, rounds);
            tallies.iter().map(|tally| tally.learned.count()).sum()
        };
        // After the rounds 0 to t the rewards of the rounds 0 to t − delay are there for the decision of round t + 1.
        for rounds in [1, 3, 4, 5, 100] {
            assert_eq!(learned(rounds), rounds.saturating_sub(delay), "{rounds}");
        }
    }
}

#[test]
fn slow_outcomes_bias_what_is_known_until_they_are_in() {
    let plan = plan(
        "[policy.fixed]",
        BINARY,
        &world("delay_if_rewarded = 2\ndelay_otherwise = 5000"),
    );
    for tally in tallies(&plan, 0, 1_000) {
        assert!(tally.learned.count() > 100);
        assert_eq!(tally.learned.mean(), Some(1.0));
    }
}

#[test]
fn rewards_after_the_window_are_late() {
    let reward = "kind = \"binary\"\nwindow = \"10s\"";
    let in_time = plan("[policy.fixed]", reward, &world("delay = 10"));
    assert_eq!(trial(&in_time, 0).late, 0);
    let late = trial(&plan("[policy.fixed]", reward, &world("delay = 11")), 0);
    assert_eq!((late.posted, late.late), (1_989, 1_989));
    let shorter = plan(
        "[policy.fixed]",
        reward,
        &world("delay = 11\nround = \"100ms\""),
    );
    assert_eq!(trial(&shorter, 0).late, 0);
}

#[test]
fn what_is_never_posted_counts_as_the_default_when_the_window_closes() {
    let reward = "kind = \"binary\"\nwindow = \"100s\"\ndefault = 0";
    let plan = plan("[policy.fixed]", reward, &world("post = \"rewarded\""));
    let tallies = tallies(&plan, 0, 2_000);
    let credited: u64 = tallies.iter().map(|tally| tally.learned.count()).sum();
    // All but the last window's and its bucket's.
    assert!((1_895..=1_900).contains(&credited), "{credited}");
    let mean = tallies[0].learned.mean().unwrap();
    assert!((mean - 0.4).abs() < 0.07, "{mean}");
    assert_eq!(tallies[0].rewards.mean(), Some(1.0));
}

#[test]
fn a_bandit_learns_from_credits_at_the_close() {
    let reward = "kind = \"binary\"\nwindow = \"100s\"\ndefault = 0";
    let plan = plan("[policy.thompson]", reward, &world("post = \"rewarded\""));
    let drawn = trial(&plan, 0).drawn;
    assert!(drawn[1] > 2 * drawn[0], "{drawn:?}");
}

#[test]
fn thompson_earns_more_than_an_even_split() {
    let regret = |policy: &str| -> f64 {
        let plan = plan(policy, BINARY, &world(""));
        (0..10).map(|seed| trial(&plan, seed).regret[0]).sum()
    };
    assert!(regret("[policy.thompson]") < 0.3 * regret("[policy.fixed]"));
}

#[test]
fn a_unit_that_keeps_its_arm_holds_the_allocation() {
    let policy = "[policy.thompson]\n[unit]\nheader = \"x-user\"\nreallocate = \"500s\"";
    let plan = plan(policy, BINARY, &world(""));
    let mut run = Run::new(&plan, 0);
    let mut versions = Vec::new();
    for round in 0..plan.horizon {
        run.round(round);
        versions.push(run.serving.allocation.version);
    }
    versions.dedup();
    assert_eq!(versions, [1, 2, 3, 4]);
}

#[test]
fn sums_of_rewards_are_posted_with_an_id() {
    let reward = "kind = \"real\"\naggregate = \"sum\"";
    let plan = plan(
        "[policy.fixed]",
        reward,
        "kind = \"gaussian\"\nmeans = { a = 1, b = 2 }",
    );
    let learned: u64 = tallies(&plan, 0, 500)
        .iter()
        .map(|tally| tally.learned.count())
        .sum();
    assert_eq!(learned, 500);
}

/// A classification file of two numbers and a text: `a` is right below the diagonal, `b` above it.
fn rows() -> String {
    let mut text = "Width,height,colour,y\n".to_owned();
    for round in 0..400 {
        let (width, height) = (uniform(1, 0, round), uniform(2, 0, round));
        let label = if height > width { "b" } else { "a" };
        text.push_str(&format!("{width},{height},red,{label}\n"));
    }
    text
}

const FEATURES: &str = "[context.width]\njson = \"/w\"\ntype = \"number\"\n\
                        [context.height]\njson = \"/h\"\ntype = \"number\"\n\
                        [context.colour]\njson = \"/c\"\ntype = \"category\"\nvalues = [\"red\", \"blue\"]\n";

#[test]
fn every_policy_runs_and_those_that_look_at_rows_learn_from_them() {
    for kind in crate::policy::KINDS {
        let policy = format!(
            "{}\n{}",
            kind.example,
            if kind.context { FEATURES } else { "" }
        );
        let experiment = experiment(&policy, BINARY, &["a", "b"]);
        let experiments = [Arc::clone(&experiment)];
        let open = |_: &str| Ok(rows());
        let text = "kind = \"dataset\"\nfile = \"rows.csv\"\ndelay = 3";
        let environment = environment::parse("env.toml", text, &experiments, &open).unwrap();
        assert!(
            environment.warnings.is_empty(),
            "{:?}",
            environment.warnings
        );
        let world = World::new(&environment, &experiment, None).unwrap();
        let plan = Plan {
            horizon: world.rows().unwrap(),
            publish: Publish::Every(5),
            experiment,
            world,
        };
        let regret: f64 = (0..3).map(|seed| trial(&plan, seed).regret[0]).sum::<f64>() / 1_200.0;
        // Half of the rows are either arm's.
        if kind.context {
            assert!(regret < 0.3, "{}: {regret}", kind.name);
        } else {
            assert!((regret - 0.5).abs() < 0.1, "{}: {regret}", kind.name);
        }
    }
}

#[test]
fn progress_adds_up_to_the_horizon() {
    let plan = plan("[policy.fixed]", BINARY, &world(""));
    let done = std::cell::Cell::new(0);
    let trial = run(&plan, 0, &[1, 500, 2_000], &|more| {
        done.set(done.get() + more);
    });
    assert_eq!(done.get(), 2_000);
    assert_eq!(trial.regret.len(), 3);
    assert!(trial.regret.is_sorted());
}
