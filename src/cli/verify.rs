//! `pointsman verify`: the whole journal, checked.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use super::journal::{self, JournalArguments};
use super::progress::{self, Bar};
use crate::verify;

/// `pointsman verify`.
#[derive(Debug, Args)]
pub(super) struct VerifyArguments {
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

/// Verifies a journal: exit 1 if anything is wrong.
pub(super) fn run(arguments: &VerifyArguments) -> Result<ExitCode> {
    let Some(opened) = journal::open(&arguments.journal)? else {
        return Ok(ExitCode::FAILURE);
    };
    let quarantined = quarantined(&opened.directory.join("quarantine"))?;
    let bar = Bar::new();
    let verified = verify::verify(&opened.storage, &quarantined, &mut |step| {
        let read = format!("{} read", progress::bytes(step.bytes));
        bar.show(step.segments, step.of, &read);
    });
    bar.clear();
    let found = verified.with_context(|| format!("cannot list {}", opened.directory.display()))?;
    let report = match arguments.format {
        Format::Text => {
            let color = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            verify::render(&found, color)
        }
        Format::Json => verify::to_json(&found) + "\n",
    };
    write!(io::stdout().lock(), "{report}")?;
    Ok(if found.holds() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The names and sizes of the files that starts have put aside.
fn quarantined(directory: &Path) -> Result<Vec<(String, u64)>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot list {}", directory.display()));
        }
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        files.push((name, entry.metadata()?.len()));
    }
    files.sort();
    Ok(files)
}
