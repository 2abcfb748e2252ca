//! Makes each of our threads do its own arithmetic.
//!
//! candle spreads every product and every long sum over all cores. With several texts (or several
//! servers) in work at once, one text per core does more: the threads of one sum would only spin and
//! wait for each other. On two cores this halves the time of a pass over the reviews.

use std::cell::OnceCell;
use std::env;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result};
use rayon::{ThreadPool, ThreadPoolBuilder};

/// What candle reads, once and for all, when it does its first sum.
const VARIABLES: [&str; 2] = ["RAYON_NUM_THREADS", "CANDLE_NUM_THREADS"];

/// Sees to it that candle starts no threads of its own in this process.
///
/// candle can be told so only by its environment, and a running program cannot safely change that;
/// so the process replaces itself by the same program with the same arguments, once. Variables that
/// are set already are left alone. Call it before anything else is done.
///
/// # Errors
/// When the program cannot be started again.
pub fn one_per_sum() -> Result<()> {
    if VARIABLES.iter().any(|name| env::var_os(name).is_some()) {
        return Ok(());
    }
    let program = env::current_exe().context("cannot find the running program")?;
    let error = Command::new(program)
        .args(env::args_os().skip(1))
        .envs(VARIABLES.map(|name| (name, "1")))
        .exec();
    Err(error).context("cannot start the program again with one thread per sum")
}

thread_local! {
    /// A pool of which this thread is the only member, for as long as the thread lives: rayon lets
    /// no thread leave its pool.
    static ALONE: OnceCell<ThreadPool> = const { OnceCell::new() };
}

/// From now on, what candle spreads with rayon stays on this thread.
///
/// # Errors
/// When the thread belongs to another pool.
pub fn compute_alone() -> Result<()> {
    ALONE.with(|alone| {
        if alone.get().is_none() {
            let pool = ThreadPoolBuilder::new()
                .num_threads(1)
                .use_current_thread()
                .build()
                .context("cannot set up a thread for inference")?;
            // The cell is empty and belongs to this thread.
            alone.set(pool).ok();
        }
        Ok(())
    })
}

/// How many texts can be worked on at once.
pub fn cores() -> usize {
    thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
