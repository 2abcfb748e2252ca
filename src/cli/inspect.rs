//! `pointsman inspect`: one decision, checked against the journal.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use super::inputs;
use crate::inspect::{self, Step};
use crate::journal::FileStorage;
use crate::secret;

/// `pointsman inspect`.
#[derive(Debug, Args)]
pub(super) struct InspectArguments {
    /// The decision's id, as in `x-pointsman-decision`.
    // An id may begin with what looks like a flag, when it is no id of ours.
    #[arg(value_name = "DECISION_ID", allow_hyphen_values = true)]
    id: String,
    /// The settings file; the default one may be missing.
    #[arg(long, default_value = inputs::CONFIG)]
    config: PathBuf,
    /// The data directory, of a running server or of one that is stopped; beats `data.dir`.
    #[arg(long)]
    data: Option<PathBuf>,
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
    let data = arguments.data.as_ref();
    let flags = data.map(|data| ("data.dir".to_owned(), data.display().to_string()));
    let settings = match inputs::settings(&arguments.config, flags.into_iter().collect()) {
        Ok(settings) => settings,
        Err(problems) => {
            inputs::show(&problems);
            super::tell(&inputs::summary(&problems));
            return Ok(ExitCode::FAILURE);
        }
    };
    let data = &settings.data.dir;
    let journal = data.join("journal");
    if !journal.is_dir() {
        bail!(
            "there is no journal in {}: name the data directory with --data",
            data.display()
        );
    }
    let secret = secret::load(&settings.auth.secret_path(data))?;
    let storage = FileStorage::existing(journal);
    let mut progress = Progress::new();
    let inspected = inspect::inspect(arguments.id.trim(), &secret, &storage, &mut |step| {
        progress.show(step);
    });
    progress.clear();
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

/// A line on standard error, if that is a terminal.
struct Progress {
    seen: bool,
    shown: bool,
}

impl Progress {
    fn new() -> Self {
        Self {
            seen: std::io::stderr().is_terminal(),
            shown: false,
        }
    }

    fn show(&mut self, step: Step) {
        let Step {
            looking_for,
            done,
            segments,
        } = step;
        if self.seen && segments > 1 {
            self.shown = true;
            let width = segments.to_string().len();
            write(&format!(
                "\r{done:>width$} of {segments} segments read for {looking_for}\x1b[K"
            ));
        }
    }

    fn clear(&self) {
        if self.shown {
            write("\r\x1b[K");
        }
    }
}

fn write(text: &str) {
    // A closed standard error has no reader to disappoint.
    drop(std::io::stderr().write_all(text.as_bytes()));
}
