//! `pointsman inspect`: one decision, checked against the journal.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, ValueEnum};

use super::journal::{self, JournalArguments};
use super::progress::Bar;
use crate::inspect;
use crate::secret;

/// `pointsman inspect`.
#[derive(Debug, Args)]
pub(super) struct InspectArguments {
    /// The decision's id, as in `x-pointsman-decision`.
    // An id may begin with what looks like a flag, when it is no id of ours.
    #[arg(value_name = "DECISION_ID", allow_hyphen_values = true)]
    id: String,
    #[command(flatten)]
    journal: JournalArguments,
    /// The form of the report.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Inspects a decision: exit 1 if anything about it does not hold.
pub(super) fn run(arguments: &InspectArguments) -> Result<ExitCode> {
    let Some(opened) = journal::open(&arguments.journal)? else {
        return Ok(ExitCode::FAILURE);
    };
    let settings = &opened.settings;
    let secret = secret::load(&settings.auth.secret_path(&settings.data.dir))?;
    let bar = Bar::new();
    let id = arguments.id.trim();
    let inspected = inspect::inspect(id, &secret, &opened.storage, &mut |step| {
        let looking = format!("looking for {}", step.looking_for);
        bar.show(step.done, step.segments, &looking);
    });
    bar.clear();
    let inspection = inspected?;
    let report = match arguments.format {
        Format::Text => {
            let color = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            inspect::render(&inspection, color)
        }
        Format::Json => inspect::to_json(&inspection) + "\n",
    };
    write!(std::io::stdout().lock(), "{report}")?;
    Ok(if inspection.holds() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
