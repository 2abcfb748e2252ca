//! `pointsman simulate`: policy files against a world that is made up.

use std::fs;
use std::io::{IsTerminal, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use super::inputs;
use super::progress::Bar;
use crate::config::load;
use crate::config::settings;
use crate::document::Problem;
use crate::experiment::Experiment;
use crate::simulate::environment::{self, Environment};
use crate::simulate::summary::{Effort, Summary, simulate};
use crate::simulate::trial::Plan;
use crate::simulate::world::World;
use crate::simulate::{Publish, svg, text};

/// Rounds, unless a flag or the data set says otherwise.
const HORIZON: u64 = 10_000;

/// `pointsman simulate`.
#[derive(Debug, Args)]
pub(super) struct SimulateArguments {
    /// Policy files, to be compared in the same world.
    #[arg(required = true)]
    policies: Vec<PathBuf>,
    /// The environment file: what each arm earns, and when its rewards arrive.
    #[arg(long)]
    env: PathBuf,
    /// Rounds of each seed [default: 10000; for a data set, its rows].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    horizon: Option<u64>,
    /// How many times the world is played anew.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    seeds: u64,
    /// Rounds until a reward arrives; beats the environment's delays.
    #[arg(long)]
    delay: Option<u64>,
    /// Publish every so many rounds, in place of whenever some arm's count has grown by 1 % (and every round below 1,000 rewards).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    publish_every: Option<u64>,
    /// The form of the report.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Write the report to this file.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Seeds that are played at a time [default: one per core].
    #[arg(long)]
    threads: Option<NonZeroUsize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table for people.
    Text,
    /// For programs.
    Json,
    /// A plot of regret with bands.
    Svg,
}

/// Simulates each policy file and writes the report.
pub(super) fn run(arguments: &SimulateArguments) -> Result<ExitCode> {
    let (environment, experiments) = match read(arguments) {
        Ok(read) => read,
        Err(problems) => {
            inputs::show(&problems);
            super::tell(&inputs::summary(&problems));
            return Ok(ExitCode::FAILURE);
        }
    };
    inputs::show(&environment.warnings);
    let plans: Vec<Plan> = experiments
        .into_iter()
        .map(|experiment| plan(arguments, &environment, experiment))
        .collect::<Result<_>>()?;
    let summaries = simulate_all(arguments, &plans);
    let report = report(arguments, &plans, &summaries)?;
    match &arguments.out {
        Some(path) => fs::write(path, report)
            .with_context(|| format!("could not write {}", path.display()))?,
        None => write!(std::io::stdout().lock(), "{report}")?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The policy files, each by itself, and the environment; or every problem of all of them.
fn read(
    arguments: &SimulateArguments,
) -> Result<(Environment, Vec<Arc<Experiment>>), Vec<Problem>> {
    let mut defaults = settings::parse("", "", &[])?;
    // Nobody posts anything here, so a policy with `key` in [reward] needs no token.
    "none".clone_into(&mut defaults.auth.client_token);
    let mut problems = Vec::new();
    let mut experiments = Vec::new();
    for path in &arguments.policies {
        // Each by itself: variants of one experiment match the same requests, and that is no error here.
        match one_file(path).and_then(|()| load::policies(std::slice::from_ref(path), &defaults)) {
            Ok(loaded) => experiments.extend(loaded.experiments),
            Err(more) => problems.extend(more),
        }
    }
    let file = arguments.env.display().to_string();
    let parsed = fs::read_to_string(&arguments.env)
        .map_err(|error| vec![Problem::of_file(&file, format!("cannot be read: {error}"))])
        .and_then(|text| {
            let beside = arguments.env.parent().unwrap_or(Path::new(""));
            let open = |path: &str| fs::read_to_string(beside.join(path));
            environment::parse(&file, &text, &experiments, &open)
        });
    match parsed {
        Ok(environment) if problems.is_empty() => Ok((environment, experiments)),
        Ok(_) => Err(problems),
        Err(more) => {
            problems.extend(more);
            Err(problems)
        }
    }
}

fn one_file(path: &Path) -> Result<(), Vec<Problem>> {
    if path.is_dir() {
        let file = path.display().to_string();
        let problem = Problem::of_file(file, "is a folder, not a policy file");
        return Err(vec![
            problem.help("name the policy files that are to be compared"),
        ]);
    }
    Ok(())
}

fn plan(
    arguments: &SimulateArguments,
    environment: &Environment,
    experiment: Arc<Experiment>,
) -> Result<Plan> {
    let world = World::new(environment, &experiment, arguments.delay).with_context(|| {
        format!(
            "{} has an arm that {} has not",
            experiment.file,
            arguments.env.display()
        )
    })?;
    Ok(Plan {
        horizon: arguments.horizon.or(world.rows()).unwrap_or(HORIZON),
        publish: arguments
            .publish_every
            .map_or(Publish::ByGrowth, Publish::Every),
        experiment,
        world,
    })
}

fn simulate_all(arguments: &SimulateArguments, plans: &[Plan]) -> Vec<Summary> {
    let cores = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let rounds: u64 = plans
        .iter()
        .map(|plan| plan.horizon.saturating_mul(arguments.seeds))
        .sum();
    let bar = Bar::new();
    let effort = Effort {
        seeds: arguments.seeds,
        threads: arguments.threads.unwrap_or_else(cores),
        progress: &|more| bar.advance(more, rounds),
    };
    let summaries = plans.iter().map(|plan| simulate(plan, &effort)).collect();
    bar.clear();
    summaries
}

fn report(arguments: &SimulateArguments, plans: &[Plan], summaries: &[Summary]) -> Result<String> {
    Ok(match (arguments.format, summaries) {
        (Format::Text, _) => {
            let color = arguments.out.is_none()
                && std::io::stdout().is_terminal()
                && std::env::var_os("NO_COLOR").is_none();
            text::table(summaries, color)
        }
        (Format::Json, [one]) => format!("{}\n", serde_json::to_string_pretty(one)?),
        (Format::Json, several) => format!("{}\n", serde_json::to_string_pretty(several)?),
        (Format::Svg, _) => {
            let changes = plans.first().map(|plan| plan.world.changes());
            let title = format!(
                "Regret in {}: {} seeds",
                arguments.env.display(),
                arguments.seeds
            );
            let frame = svg::Frame {
                title: &title,
                changes: &changes.unwrap_or_default(),
            };
            svg::plot(summaries, &frame)
        }
    })
}
