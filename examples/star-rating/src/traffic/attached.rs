//! `star-rating attached`: becomes another program that ends when its parent does.
//!
//! A program that is killed cannot stop its children. On Linux the kernel can, if the child asks for it before it becomes the
//! program; elsewhere this changes nothing.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Error, Result};

/// Options of `star-rating attached`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The program to become
    program: OsString,
    /// Its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Runs `star-rating attached`; does not come back unless it fails.
///
/// # Errors
/// When the program cannot be started.
pub fn run(args: &Args) -> Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .context("cannot tie this process to its parent")?;
    let failure = Command::new(&args.program).args(&args.arguments).exec();
    Err(Error::new(failure).context(format!(
        "cannot start {}",
        Path::new(&args.program).display()
    )))
}

/// A command that runs `program` and ends with the thread that starts it.
///
/// # Errors
/// When this program cannot find itself.
pub fn command(program: &Path) -> Result<Command> {
    let own = std::env::current_exe().context("cannot find this program's own path")?;
    let mut command = Command::new(own);
    command.arg("attached").arg(program);
    Ok(command)
}
