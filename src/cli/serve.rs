//! `pointsman serve`: check everything, then run.

use std::process::ExitCode;

use anyhow::Result;

use super::{Inherited, ServeArguments, inputs};
use crate::app::{self, Plan};
use crate::telemetry::logs;

/// Runs the server until it is told to stop. With a problem in the settings or policies nothing is started.
pub(super) fn run(arguments: ServeArguments, inherited: Inherited) -> Result<ExitCode> {
    let ServeArguments {
        config,
        policies,
        data,
        take_over,
    } = arguments;
    let inherited = inherited?;
    let flags = data.map(|data| ("data.dir".to_owned(), data.display().to_string()));
    match inputs::all(
        &config,
        flags.into_iter().collect(),
        std::slice::from_ref(&policies),
    ) {
        Ok((settings, loaded)) => {
            inputs::show(&loaded.warnings);
            logs::start();
            app::run(Plan {
                settings,
                policies,
                experiments: loaded.experiments,
                inherited,
                take_over,
            })?;
            Ok(ExitCode::SUCCESS)
        }
        Err(problems) => {
            inputs::show(&problems);
            super::tell(&format!(
                "{}; nothing was started",
                inputs::summary(&problems)
            ));
            Ok(ExitCode::FAILURE)
        }
    }
}
