//! The `pointsman` binary: arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    // First, while there is one thread.
    pointsman::cli::run(pointsman::handover::inherited())
}
