//! `pointsman init`: a commented start.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use super::inputs::{CONFIG, POLICIES};
use crate::config::reference;

const FIRST_POLICY: &str = include_str!("first-policy.toml");

/// Writes the two files; refuses to overwrite either.
pub(super) fn run(directory: &Path) -> Result<ExitCode> {
    let config = directory.join(CONFIG);
    let policies = directory.join(POLICIES);
    let policy = policies.join("first.toml");
    for path in [&config, &policy] {
        if path.exists() {
            bail!("{} is there already; nothing was written", path.display());
        }
    }
    fs::create_dir_all(&policies)
        .with_context(|| format!("could not make {}", policies.display()))?;
    write_new(&config, &reference::commented_settings())?;
    write_new(&policy, FIRST_POLICY)?;
    let mut output = std::io::stdout().lock();
    writeln!(
        output,
        "wrote {} and {}",
        config.display(),
        policy.display()
    )?;
    writeln!(
        output,
        "next: set the endpoints in {}, then `pointsman check` and `pointsman serve`",
        policy.display()
    )?;
    Ok(ExitCode::SUCCESS)
}

fn write_new(path: &Path, text: &str) -> Result<()> {
    let written = File::create_new(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| format!("could not write {}", path.display()))
}
