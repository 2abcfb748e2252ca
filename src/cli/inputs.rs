//! The files that every command reads.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use crate::config::load::{self, Loaded};
use crate::config::settings::{self, Settings};
use crate::document::{self, Problem};

/// The settings file unless a flag says otherwise.
pub(super) const CONFIG: &str = "pointsman.toml";
/// The policies folder unless a flag says otherwise.
pub(super) const POLICIES: &str = "policies";

/// Reads the settings: the file, the environment, then flags. The file at the default path may be missing.
pub(super) fn settings(
    config: &Path,
    flags: Vec<(String, String)>,
) -> Result<Settings, Vec<Problem>> {
    let file = config.display().to_string();
    let text = match std::fs::read_to_string(config) {
        Ok(text) => text,
        Err(error)
            if error.kind() == std::io::ErrorKind::NotFound && config == Path::new(CONFIG) =>
        {
            String::new()
        }
        Err(error) => {
            return Err(vec![Problem::of_file(
                file,
                format!("cannot be read: {error}"),
            )]);
        }
    };
    let environment = settings::from_environment(|name| std::env::var(name).ok());
    settings::parse(&file, &text, &[environment, flags].concat())
}

/// Settings and policies, or every problem of both.
pub(super) fn all(
    config: &Path,
    flags: Vec<(String, String)>,
    policies: &[PathBuf],
) -> Result<(Settings, Loaded), Vec<Problem>> {
    match settings(config, flags) {
        Ok(settings) => load::policies(policies, &settings).map(|loaded| (settings, loaded)),
        // The policies are checked against the defaults, so that their problems are told at the same time.
        Err(mut problems) => {
            if let Ok(mut defaults) = settings::parse("", "", &[]) {
                // Whether there is a token is not known: not to be told that there is none.
                "unread".clone_into(&mut defaults.auth.client_token);
                problems.extend(
                    load::policies(policies, &defaults)
                        .err()
                        .unwrap_or_default(),
                );
            }
            Err(problems)
        }
    }
}

/// Shows problems on standard error, in colour on a terminal.
pub(super) fn show(problems: &[Problem]) {
    let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    for problem in problems {
        super::tell(&format!("{}\n", document::render(problem, color)));
    }
}

/// `3 errors in 2 files`
pub(super) fn summary(problems: &[Problem]) -> String {
    let errors: Vec<&Problem> = problems.iter().filter(|problem| !problem.warning).collect();
    let mut files: Vec<&str> = errors.iter().map(|problem| problem.file.as_str()).collect();
    files.sort_unstable();
    files.dedup();
    format!(
        "{} in {}",
        count(errors.len(), "error"),
        count(files.len(), "file")
    )
}

/// `1 error`, `2 errors`
pub(super) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
