//! What the commands print: results on standard output, progress on standard error.
//!
//! Progress is a bar on a terminal and a plain line now and then elsewhere, so that a log file stays
//! readable.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::clock::Stopwatch;

/// How often progress is written where there is no terminal.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// Writes one line of a result to standard output.
///
/// # Errors
/// When standard output is closed, for example by `head`.
pub fn line(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout().lock(), "{text}")?;
    Ok(())
}

/// Writes one line about what is being done to standard error.
pub fn note(text: &str) {
    eprintln!("{text}");
}

/// What a [`Progress`] counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes, shown in megabytes.
    Bytes,
    /// Anything else.
    Items,
}

/// Progress of a long piece of work with a known end.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    what: String,
    total: u64,
    unit: Unit,
    plain: Mutex<Plain>,
}

#[derive(Debug)]
struct Plain {
    done: u64,
    last_line: Stopwatch,
}

impl Progress {
    /// Starts showing the progress of `what`, which ends at `total`.
    pub fn start(what: &str, total: u64, unit: Unit) -> Self {
        let bar = std::io::stderr()
            .is_terminal()
            .then(|| bar(what, total, unit));
        if bar.is_none() {
            note(&format!("{what} ..."));
        }
        let plain = Mutex::new(Plain {
            done: 0,
            last_line: Stopwatch::start(),
        });
        Self {
            bar,
            what: what.to_owned(),
            total,
            unit,
            plain,
        }
    }

    /// `amount` more is done.
    pub fn advance(&self, amount: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(amount);
            return;
        }
        if let Ok(mut plain) = self.plain.lock() {
            plain.done += amount;
            self.plain_line(&mut plain);
        }
    }

    /// `done` is done in all.
    pub fn set(&self, done: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            return;
        }
        if let Ok(mut plain) = self.plain.lock() {
            plain.done = done;
            self.plain_line(&mut plain);
        }
    }

    /// Shows `message` beside the bar (nothing where there is no terminal).
    pub fn message(&self, message: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(message.to_owned());
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn plain_line(&self, plain: &mut Plain) {
        if plain.last_line.elapsed() < PLAIN_INTERVAL {
            return;
        }
        plain.last_line = Stopwatch::start();
        let (done, total) = match self.unit {
            Unit::Bytes => (megabytes(plain.done), megabytes(self.total)),
            Unit::Items => (plain.done.to_string(), self.total.to_string()),
        };
        note(&format!("{}: {done} of {total}", self.what));
    }
}

/// `bytes` as decimal megabytes, for example `83.5 MB`.
pub fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn bar(what: &str, total: u64, unit: Unit) -> ProgressBar {
    let template = match unit {
        Unit::Bytes => "{prefix} {wide_bar} {decimal_bytes}/{decimal_total_bytes} {msg}",
        Unit::Items => "{prefix} {wide_bar} {pos}/{len} {eta} {msg}",
    };
    let bar = ProgressBar::new(total);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_prefix(what.to_owned());
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn megabytes_are_decimal() {
        assert_eq!(megabytes(83_506_285), "83.5 MB");
    }
}
