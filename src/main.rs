//! The `pointsman` binary: arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    pointsman::cli::run()
}
