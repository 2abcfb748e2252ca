//! `pointsman check`: every error of every file, or a table of what would serve.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;

use super::inputs;
use crate::experiment::{Experiment, PathRule};

/// Checks the settings and the policies.
pub(super) fn run(config: &Path, paths: &[PathBuf]) -> Result<ExitCode> {
    let loaded = match inputs::all(config, Vec::new(), paths) {
        Ok((_, loaded)) => loaded,
        Err(problems) => {
            inputs::show(&problems);
            super::tell(&inputs::summary(&problems));
            return Ok(ExitCode::FAILURE);
        }
    };
    inputs::show(&loaded.warnings);
    let rows: Vec<[String; 5]> = loaded
        .experiments
        .iter()
        .map(|experiment| row(experiment))
        .collect();
    let mut output = std::io::stdout().lock();
    write!(
        output,
        "{}",
        table(["experiment", "path", "policy", "reward", "arms"], &rows)
    )?;
    let experiments = inputs::count(loaded.experiments.len(), "experiment");
    writeln!(
        output,
        "{experiments}, no errors, {}",
        inputs::count(loaded.warnings.len(), "warning")
    )?;
    Ok(ExitCode::SUCCESS)
}

fn row(experiment: &Experiment) -> [String; 5] {
    let path = match &experiment.matcher.path {
        PathRule::Exact(path) => path.clone(),
        PathRule::Prefix(prefix) => format!("{prefix}*"),
    };
    let arms: Vec<&str> = experiment
        .arms
        .iter()
        .map(|arm| arm.name.as_str())
        .collect();
    [
        experiment.name.to_string(),
        path,
        experiment.policy.kind().to_owned(),
        experiment.reward.kind.as_str().to_owned(),
        arms.join(", "),
    ]
}

/// Left-aligned columns as wide as their widest cell.
fn table(head: [&str; 5], rows: &[[String; 5]]) -> String {
    let head = head.map(str::to_owned);
    let all: Vec<&[String; 5]> = std::iter::once(&head).chain(rows).collect();
    let width = |column: usize| {
        all.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: [usize; 5] = std::array::from_fn(width);
    let mut text = String::new();
    for row in all {
        let cells: Vec<String> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}
