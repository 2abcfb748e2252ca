//! `star-rating`: fetch, train and serve the star-rating models of the Pointsman example.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use star_rating::traffic::{attached, client, compare, demo};
use star_rating::{console, fetch, predict, serve, train};

/// Real BERT star-rating models to put behind Pointsman.
#[derive(Debug, Parser)]
#[command(name = "star-rating", version, arg_required_else_help = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Download the encoders' weights and the reviews (171 MB, once)
    Fetch(fetch::Args),
    /// Train the variants' heads, tune encoder layers, or search for hyper-parameters
    Train(train::Args),
    /// Rate the held-out reviews with every variant and write a table
    Predict(predict::Args),
    /// Serve one variant over HTTP
    Serve(serve::Args),
    /// Replay reviews through Pointsman and post their true stars
    Client(client::Args),
    /// Run everything: the variants, Pointsman, the client, and a live table
    Demo(demo::Args),
    /// Compare policies over many seeds, with the variants' answers replayed from a table
    Compare(compare::Args),
    /// Become a program that ends with its parent
    #[command(hide = true)]
    Attached(attached::Args),
}

/// The exit code of a wrong command line.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let command = match CommandLine::try_parse() {
        Ok(line) => line.command,
        Err(error) => {
            // Help and version are errors to clap too. Nothing can be done if they cannot be printed.
            error.print().ok();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    let result = match command {
        Command::Fetch(args) => fetch::run(&args),
        Command::Train(args) => train::run(&args),
        Command::Predict(args) => predict::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Client(args) => client::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Attached(args) => attached::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            console::note(&format!("star-rating: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
