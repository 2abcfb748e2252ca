//! Regret of the policies beside that of plain reference policies on the same reward tables, as a Markdown table.
//!
//! ```sh
//! cargo bench --no-default-features --bench regret -- t10k            # or t100k, switch; names of policies narrow it
//! cargo bench --no-default-features --bench regret -- t10k --defaults # default floor and default publishing
//! cargo bench --no-default-features --bench regret -- t10k --seeds 40
//! ```
//!
//! The references (tests/data/regret.json) were written in `NumPy`, independently of this project. A row holds if the mean is at most the reference's and
//! four combined standard errors, and the 90th percentile at most 1.25 times the reference's; the program exits 1 if one does not.

#![expect(clippy::print_stdout, reason = "what it measures is printed")]

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::Arc;

use pointsman::config::compile::{Source, compile};
use pointsman::config::settings;
use pointsman::experiment::Experiment;
use pointsman::simulate::Publish;
use pointsman::simulate::environment;
use pointsman::simulate::summary::{Effort, Summary, simulate};
use pointsman::simulate::trial::Plan;
use pointsman::simulate::world::World;
use serde_json::Value;

const REFERENCES: &str = include_str!("../tests/data/regret.json");

/// One reference: a policy in a world.
struct Row {
    set: String,
    policy: String,
    environment: String,
    means: Vec<f64>,
    delay: u64,
    horizon: u64,
    mean: f64,
    se: f64,
    p90: f64,
}

impl Row {
    fn read(value: &Value) -> Self {
        let text = |key: &str| value[key].as_str().expect("a text").to_owned();
        let number = |key: &str| value[key].as_f64().expect("a number");
        Self {
            set: text("set"),
            policy: text("policy"),
            environment: text("environment"),
            means: value["means"]
                .as_array()
                .expect("a list")
                .iter()
                .filter_map(Value::as_f64)
                .collect(),
            delay: number("delay") as u64,
            horizon: number("horizon") as u64,
            mean: number("mean"),
            se: number("se"),
            p90: number("p90"),
        }
    }

    /// Our table for the reference's policy, and the reward's kind; `None` where we have no such policy.
    fn policy_table(&self) -> Option<(String, &'static str)> {
        // A discount of γ a round is a half-life of ln 2 / −ln γ rounds, of a second each.
        let half_life = |discount: f64| {
            let rounds = std::f64::consts::LN_2 / -discount.ln();
            format!("half_life = \"{}ms\"", (1000.0 * rounds).round())
        };
        let table = match self.policy.as_str() {
            "TS" => "thompson]".to_owned(),
            "GaussNIG_TS" => return Some(("thompson]".to_owned(), "real")),
            "TTTS" => "top_two]".to_owned(),
            "eps10" => "epsilon_greedy]\nepsilon = 0.1".to_owned(),
            "eps05" => "epsilon_greedy]\nepsilon = 0.05".to_owned(),
            // The reference does not say how fast its ε falls.
            "eps_decay" => "epsilon_greedy]\ndecay = 200".to_owned(),
            "UCBtuned" | "UCB1inflight" => "ucb]\nvariant = \"tuned\"".to_owned(),
            "KLUCB" => "ucb]\nvariant = \"kl\"".to_owned(),
            "EXP3" => format!("exp3]\nhorizon = {}", self.horizon),
            "uniform" => "fixed]".to_owned(),
            "DTS_99" => format!("thompson]\n{}", half_life(0.99)),
            "DTS_999" => format!("thompson]\n{}", half_life(0.999)),
            "DTS_9995" => format!("thompson]\n{}", half_life(0.9995)),
            "SWTS_1000" => "thompson]\nsliding_window = \"1000s\"".to_owned(),
            "DUCB_999" => format!("ucb]\n{}", half_life(0.999)),
            "SWUCB_1000" => "ucb]\nsliding_window = \"1000s\"".to_owned(),
            _ => return None,
        };
        Some((table, "binary"))
    }

    fn experiment(&self, defaults: bool) -> Option<Result<Arc<Experiment>, String>> {
        let (table, kind) = self.policy_table()?;
        let floor = if defaults { "" } else { "floor = 0.0" };
        let window = self.delay.max(1);
        let mut text = format!(
            "[match]\npath = \"/\"\n[policy.{table}\n{floor}\n[reward]\nkind = \"{kind}\"\nwindow = \"{window}s\"\n"
        );
        for arm in 0..self.means.len() {
            text.push_str(&format!(
                "[[arm]]\nname = \"arm-{arm}\"\nendpoints = [\"http://127.0.0.1:1\"]\n"
            ));
        }
        let source = Source {
            file: self.policy.clone(),
            stem: "regret".to_owned(),
            text,
        };
        let settings = settings::parse("", "", &[]).expect("default settings");
        Some(
            compile(&[source], &settings)
                .map(|loaded| Arc::clone(&loaded.experiments[0]))
                .map_err(|problems| problems[0].message.clone()),
        )
    }

    fn world(&self, experiment: &Arc<Experiment>) -> World {
        let list = |means: &[f64]| {
            let entries: Vec<String> = means
                .iter()
                .enumerate()
                .map(|(arm, mean)| format!("arm-{arm} = {mean}"))
                .collect();
            format!("means = {{ {} }}", entries.join(", "))
        };
        let mut text = format!(
            "kind = \"bernoulli\"\ndelay = {}\n{}\n",
            self.delay,
            list(&self.means)
        );
        if self.set == "switch" {
            let mirrored: Vec<f64> = self.means.iter().rev().copied().collect();
            text.push_str(&format!("[[phase]]\nfrom = 10000\n{}\n", list(&mirrored)));
        }
        let experiments = [Arc::clone(experiment)];
        let environment = environment::parse("regret", &text, &experiments, &|_| unreachable!())
            .expect("an environment");
        World::new(&environment, experiment, None).expect("the same arms")
    }

    fn run(&self, experiment: Arc<Experiment>, options: &Options) -> Summary {
        let plan = Plan {
            world: self.world(&experiment),
            experiment,
            horizon: self.horizon,
            publish: if options.defaults {
                Publish::ByGrowth
            } else {
                Publish::Every(1)
            },
        };
        let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        simulate(
            &plan,
            &Effort {
                seeds: options.seeds,
                threads,
                progress: &|_| {},
            },
        )
    }
}

struct Options {
    seeds: u64,
    defaults: bool,
    /// Sets and policies that are asked for.
    words: Vec<String>,
}

impl Options {
    fn read() -> Self {
        let mut options = Self {
            seeds: 400,
            defaults: false,
            words: Vec::new(),
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--seeds" => {
                    let seeds = arguments.next().and_then(|seeds| seeds.parse().ok());
                    options.seeds = seeds.expect("a number after --seeds");
                }
                "--defaults" => options.defaults = true,
                "--bench" => {}
                word => options.words.push(word.to_owned()),
            }
        }
        options
    }

    fn wants(&self, row: &Row) -> bool {
        let sets = ["t10k", "t100k", "switch"];
        let (named, others): (Vec<&String>, Vec<&String>) = self
            .words
            .iter()
            .partition(|word| sets.contains(&word.as_str()));
        (named.is_empty() || named.contains(&&row.set))
            && (others.is_empty() || others.iter().any(|word| row.policy.starts_with(*word)))
    }
}

fn main() -> ExitCode {
    let options = Options::read();
    let references: Value = serde_json::from_str(REFERENCES).expect("JSON");
    let mut failed = 0;
    println!("| world | reference | delay | reference's regret (p90) | ours (p90) | best arm | |");
    println!("|---|---|---|---|---|---|---|");
    for row in references["rows"]
        .as_array()
        .expect("rows")
        .iter()
        .map(Row::read)
    {
        if !options.wants(&row) {
            continue;
        }
        let place = format!(
            "| {} {} | {} | {} | {:.1} ± {:.1} ({:.0})",
            row.set, row.environment, row.policy, row.delay, row.mean, row.se, row.p90
        );
        match row.experiment(options.defaults) {
            None => {}
            Some(Err(refusal)) => println!("{place} | | | refused: {refusal} |"),
            Some(Ok(experiment)) => {
                let summary = row.run(experiment, &options);
                let regret = summary.regret;
                let se = regret.estimate.se.unwrap_or(0.0);
                let bound = row.mean + 4.0 * row.se.hypot(se);
                let holds = regret.estimate.mean <= bound && regret.p90 <= 1.25 * row.p90;
                failed += usize::from(!holds && !options.defaults);
                let best = summary
                    .share
                    .iter()
                    .map(|(_, share)| *share)
                    .fold(0.0, f64::max);
                println!(
                    "{place} | {:.1} ± {se:.1} ({:.0}) | {:.0} % | {} |",
                    regret.estimate.mean,
                    regret.p90,
                    100.0 * best,
                    if holds { "holds" } else { "**more**" }
                );
            }
        }
    }
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
