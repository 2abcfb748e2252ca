//! The report as a table for people.

use super::number::{estimate, rate, thousands};
use super::summary::Summary;

/// The report of several policies in one world. `color` adds ANSI escapes.
pub fn table(summaries: &[Summary], color: bool) -> String {
    let Some(first) = summaries.first() else {
        return String::new();
    };
    let seeds = if first.seeds == 1 { "seed" } else { "seeds" };
    let mut text = format!(
        "{} rounds, {} {seeds}; ± is one standard error\n\n",
        thousands(first.horizon),
        thousands(first.seeds)
    );
    let mut rows = vec![
        ["policy", "regret", "reward", "decisions/s"]
            .map(str::to_owned)
            .to_vec(),
    ];
    rows.extend(summaries.iter().map(|summary| {
        vec![
            summary.policy.clone(),
            estimate(&summary.regret.estimate),
            estimate(&summary.reward),
            rate(summary.decisions_per_second),
        ]
    }));
    text.push_str(&columns(&rows, color));
    text.push('\n');
    let mut head = vec!["share of decisions".to_owned()];
    head.extend(names(summaries));
    let mut rows = vec![head];
    for (arm, _) in &first.share {
        let mut row = vec![arm.clone()];
        row.extend(summaries.iter().map(|summary| {
            let share = summary.share.iter().find(|(name, _)| name == arm);
            share.map_or(String::new(), |(_, share)| {
                format!("{:.2} %", 100.0 * share)
            })
        }));
        rows.push(row);
    }
    text.push_str(&columns(&rows, color));
    for summary in summaries.iter().filter(|summary| summary.late > 0.0) {
        text.push_str(&format!(
            "\nnote: {:.1} % of the rewards of {} came after its window and did not count: \
             a shorter delay, a longer [reward] window, or another `round` changes that\n",
            100.0 * summary.late,
            summary.policy
        ));
    }
    text
}

/// The files' stems, or the whole paths where two have the same stem.
pub(super) fn names(summaries: &[Summary]) -> Vec<String> {
    let stem = |summary: &Summary| -> String {
        let path = std::path::Path::new(&summary.policy);
        path.file_stem().map_or_else(
            || summary.policy.clone(),
            |stem| stem.to_string_lossy().into_owned(),
        )
    };
    let mut stems: Vec<String> = summaries.iter().map(stem).collect();
    let all = stems.clone();
    stems.sort_unstable();
    stems.dedup();
    if stems.len() == all.len() {
        all
    } else {
        summaries
            .iter()
            .map(|summary| summary.policy.clone())
            .collect()
    }
}

/// The first column to the left, the others to the right, all as wide as their widest cell; the first row is the head.
fn columns(rows: &[Vec<String>], color: bool) -> String {
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..rows.first().map_or(0, Vec::len)).map(width).collect();
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(column, (cell, width))| {
                if column == 0 {
                    format!("{cell:<width$}")
                } else {
                    format!("{cell:>width$}")
                }
            })
            .collect();
        let line = cells.join("  ");
        let (bold, reset) = if color && index == 0 {
            ("\x1b[1m", "\x1b[0m")
        } else {
            ("", "")
        };
        text.push_str(&format!("{bold}{}{reset}\n", line.trim_end()));
    }
    text
}
