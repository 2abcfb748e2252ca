//! Rounds a second of the simulation on one core, for some policies and environments.
//!
//! By processor time where `/proc` tells it, so that other work on the machine counts for less: a core's second is not a second
//! of waiting for the core. Elsewhere by the clock.
//!
//! `cargo bench --no-default-features --bench simulate -- [POLICY…]`

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use pointsman::config::compile::{Source, compile};
use pointsman::config::settings;
use pointsman::experiment::Experiment;
use pointsman::simulate::Publish;
use pointsman::simulate::environment;
use pointsman::simulate::summary::{Effort, simulate};
use pointsman::simulate::trial::Plan;
use pointsman::simulate::world::World;

const POLICIES: &[(&str, &str)] = &[
    ("fixed", "[policy.fixed]"),
    ("epsilon_greedy", "[policy.epsilon_greedy]"),
    ("thompson", "[policy.thompson]"),
];

const HORIZON: u64 = 100_000;
/// So many that a step of the processor's time is less than three hundredths of a case.
const SEEDS: u64 = 10;

const ENVIRONMENTS: &[(&str, &str)] = &[
    ("no delay", ""),
    ("delay of 100 rounds", "delay = 100"),
    (
        "delay by arm and outcome",
        "delay_if_rewarded = { arm-0 = 10, arm-1 = 300 }\ndelay_otherwise = 1000",
    ),
];

#[expect(
    clippy::print_stdout,
    reason = "a bench is for being read on a terminal"
)]
fn main() {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    for (arms, means) in [
        (2, "0.5, 0.6"),
        (
            10,
            "0.4, 0.42, 0.5, 0.41, 0.38, 0.35, 0.44, 0.45, 0.46, 0.47",
        ),
    ] {
        for (policy, table) in POLICIES
            .iter()
            .filter(|(policy, _)| wanted.is_empty() || wanted.iter().any(|wanted| wanted == policy))
        {
            for reward in ["", "default = 0.0\n"] {
                let experiment = experiment(arms, table, reward);
                for (name, delay) in ENVIRONMENTS {
                    let rate = rate(&experiment, means, delay);
                    let credit = if reward.is_empty() {
                        ""
                    } else {
                        ", learned at close"
                    };
                    println!(
                        "{policy:>15}, {arms:>2} arms, {name}{credit}: {:.2} million/s",
                        rate / 1e6
                    );
                }
            }
        }
    }
}

fn experiment(arms: usize, policy: &str, reward: &str) -> Arc<Experiment> {
    let mut text = format!(
        "[match]\npath = \"/\"\n{policy}\n[reward]\nkind = \"binary\"\nwindow = \"1h\"\n{reward}"
    );
    for arm in 0..arms {
        text.push_str(&format!(
            "[[arm]]\nname = \"arm-{arm}\"\nendpoints = [\"http://127.0.0.1:1\"]\n"
        ));
    }
    let source = Source {
        file: "bench.toml".to_owned(),
        stem: "bench".to_owned(),
        text,
    };
    let settings = settings::parse("", "", &[]).expect("default settings");
    let loaded = compile(&[source], &settings).expect("a policy file");
    Arc::clone(&loaded.experiments[0])
}

fn rate(experiment: &Arc<Experiment>, means: &str, delay: &str) -> f64 {
    let table: Vec<String> = means
        .split(", ")
        .enumerate()
        .map(|(arm, mean)| format!("arm-{arm} = {mean}"))
        .collect();
    let text = format!(
        "kind = \"bernoulli\"\n{delay}\n[means]\n{}\n",
        table.join("\n")
    );
    let experiments = [Arc::clone(experiment)];
    let environment = environment::parse("bench", &text, &experiments, &|_| unreachable!())
        .expect("an environment");
    let plan = Plan {
        world: World::new(&environment, experiment, None).expect("the same arms"),
        experiment: Arc::clone(experiment),
        horizon: HORIZON,
        publish: Publish::ByGrowth,
    };
    let effort = Effort {
        seeds: SEEDS,
        threads: NonZeroUsize::MIN,
        progress: &|_| {},
    };
    let before = processor_time();
    let by_the_clock = simulate(&plan, &effort).decisions_per_second;
    let used = before
        .zip(processor_time())
        .and_then(|(before, after)| after.checked_sub(before))
        .filter(|used| !used.is_zero());
    used.map_or(by_the_clock, |used| {
        (HORIZON * SEEDS) as f64 / used.as_secs_f64()
    })
}

/// What this process has used of the processor, in steps of 10 ms: Linux counts user and system time in hundredths of a second.
fn processor_time() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in parentheses and may hold anything; of those after it these are the 12th and 13th.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis(10 * (user + system)))
}
