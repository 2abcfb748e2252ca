//! The command line: arguments to functions, results to exit codes.
//!
//! Exit codes: 0 done, 1 the input is wrong or a check fails, 64 usage.

mod check;
mod export;
mod init;
mod inputs;
mod inspect;
mod journal;
mod progress;
mod schema;
mod serve;
mod simulate;
mod verify;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// The command line was wrong.
const USAGE: u8 = 64;

/// An experimentation proxy: splits traffic between model variants by A/B weights or bandits, and learns from rewards.
#[derive(Debug, Parser)]
#[command(name = "pointsman", version, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy.
    Serve(ServeArguments),
    /// Check settings and policy files; print every error with its place, and exit 1 if there is one.
    Check {
        /// The settings file.
        #[arg(long, default_value = inputs::CONFIG)]
        config: PathBuf,
        /// Policy files, or folders of them.
        #[arg(default_value = inputs::POLICIES)]
        paths: Vec<PathBuf>,
    },
    /// Write a commented pointsman.toml and a first policy file.
    Init {
        /// Where.
        #[arg(default_value = ".")]
        directory: PathBuf,
    },
    /// Run policy files against a made-up world with the real engine: regret, shares and rewards before anything is shipped.
    Simulate(simulate::SimulateArguments),
    /// Check a decision id, show what the journal has of it, and make its draw again; exit 1 if anything does not hold.
    Inspect(inspect::InspectArguments),
    /// Write decisions with what became of them as rows: for DuckDB, pandas, Vowpal Wabbit.
    Export(export::ExportArguments),
    /// Check the whole journal: every checksum, every line, and whether they can be true together; exit 1 if anything is wrong.
    Verify(verify::VerifyArguments),
    /// Print the JSON Schema of the policy file.
    Schema,
}

#[derive(Debug, Args)]
struct ServeArguments {
    /// The settings file; the default one may be missing.
    #[arg(long, default_value = inputs::CONFIG)]
    config: PathBuf,
    /// The folder of policy files, watched for changes.
    #[arg(long, default_value = inputs::POLICIES)]
    policies: PathBuf,
    /// The data directory; beats `data.dir`.
    #[arg(long)]
    data: Option<PathBuf>,
}

/// Runs the command that the process was given.
pub fn run() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let asked_for = !error.use_stderr();
            // Nowhere to say that there is nowhere to say anything.
            drop(error.print());
            return if asked_for {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(USAGE)
            };
        }
    };
    let done = match arguments.command {
        Command::Serve(serve) => serve::run(&serve.config, serve.policies, serve.data),
        Command::Check { config, paths } => check::run(&config, &paths),
        Command::Init { directory } => init::run(&directory),
        Command::Simulate(arguments) => simulate::run(&arguments),
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Export(arguments) => export::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Schema => schema::run(),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            tell(&format!("error: {}", in_words(&error)));
            ExitCode::FAILURE
        }
    }
}

/// An error with its causes, but for those that its own message already tells.
fn in_words(error: &anyhow::Error) -> String {
    let mut words = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !words.contains(&cause) {
            words.push_str(": ");
            words.push_str(&cause);
        }
    }
    words
}

/// A line for people on standard error.
fn tell(line: &str) {
    // A closed standard error has no reader to disappoint.
    drop(writeln!(io::stderr(), "{line}"));
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot lock data: {source}; is it mounted?")]
    struct Lock {
        source: io::Error,
    }

    #[test]
    fn a_cause_is_told_once() {
        let source = io::Error::other("read-only file system");
        let error = anyhow::Error::from(Lock { source });
        let told = "cannot lock data: read-only file system; is it mounted?";
        assert_eq!(in_words(&error), told);
        let error = Err::<(), _>(error).context("cannot start").unwrap_err();
        assert_eq!(in_words(&error), format!("cannot start: {told}"));
    }
}
