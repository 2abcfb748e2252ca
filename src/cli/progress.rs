//! A progress bar on standard error, if that is a terminal; else nothing.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Stopwatch;

/// How often it is drawn.
const REDRAW: Duration = Duration::from_millis(100);

/// Characters of it.
const WIDTH: usize = 30;

/// The bar. Several threads may advance it.
pub(super) struct Bar {
    done: AtomicU64,
    watch: Stopwatch,
    /// When it was drawn last; `None`: nobody would see it.
    drawn: Option<Mutex<Duration>>,
}

impl Bar {
    pub(super) fn new() -> Self {
        Self {
            done: AtomicU64::new(0),
            watch: Stopwatch::start(),
            drawn: std::io::stderr()
                .is_terminal()
                .then(|| Mutex::new(Duration::ZERO)),
        }
    }

    /// So much more of `total` is done.
    pub(super) fn advance(&self, more: u64, total: u64) {
        let done = self.done.fetch_add(more, Ordering::Relaxed) + more;
        self.draw(done, total, "");
    }

    /// So much of `total` is done in all. `doing` says what is being done, or how much was.
    pub(super) fn show(&self, done: u64, total: u64, doing: &str) {
        self.draw(done, total, doing);
    }

    fn draw(&self, done: u64, total: u64, doing: &str) {
        // Who finds another thread drawing has nothing to add.
        let Some(Ok(mut drawn)) = self.drawn.as_ref().map(Mutex::try_lock) else {
            return;
        };
        let elapsed = self.watch.elapsed();
        if elapsed < *drawn + REDRAW || done == 0 {
            return;
        }
        *drawn = elapsed;
        write(&line(done, total, elapsed, doing));
    }

    pub(super) fn clear(&self) {
        if self.drawn.is_some() {
            write("\r\x1b[K");
        }
    }
}

fn line(done: u64, total: u64, elapsed: Duration, doing: &str) -> String {
    let part = (done as f64 / total.max(1) as f64).min(1.0);
    let filled = (part * WIDTH as f64) as usize;
    let left = elapsed.as_secs_f64() * (1.0 / part - 1.0);
    let separator = if doing.is_empty() { "" } else { ", " };
    format!(
        "\r[{:<WIDTH$}] {:3.0} %, {left:.0} s left{separator}{doing}\x1b[K",
        "#".repeat(filled),
        100.0 * part
    )
}

/// Bytes for people: `1.2 GiB`.
pub(super) fn bytes(number: u64) -> String {
    let mut size = number as f64;
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if size < 1024.0 {
            break;
        }
        size /= 1024.0;
        unit = next;
    }
    if unit == "B" {
        format!("{number} B")
    } else {
        format!("{size:.1} {unit}")
    }
}

fn write(text: &str) {
    // A closed standard error has no reader to disappoint.
    drop(std::io::stderr().write_all(text.as_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_far_it_is_and_how_long_it_will_take() {
        let text = line(1, 4, Duration::from_secs(3), "3.0 MiB read");
        assert_eq!(
            text,
            "\r[#######                       ]  25 %, 9 s left, 3.0 MiB read\x1b[K"
        );
        assert!(line(9, 4, Duration::from_secs(3), "").contains("100 %, 0 s left\x1b"));
    }

    #[test]
    fn bytes_have_units() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(3 << 20), "3.0 MiB");
        assert_eq!(bytes(5 << 50), "5120.0 TiB");
    }
}
