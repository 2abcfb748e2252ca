//! `pointsman schema`: the JSON Schema of the policy file, for editors.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

use crate::config::reference;

/// Prints the schema.
pub(super) fn run() -> Result<ExitCode> {
    writeln!(std::io::stdout().lock(), "{:#}", reference::schema())?;
    Ok(ExitCode::SUCCESS)
}
