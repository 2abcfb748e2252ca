//! Where the demo draws: a table that stays in place on a terminal, plain lines now and then elsewhere.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::Result;

use super::table;
use super::view::{Event, View};
use crate::clock::Stopwatch;
use crate::traffic::paint::Line;

/// How often there is a line where there is no terminal.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);
/// Columns where there is no terminal to ask.
const DEFAULT_COLUMNS: usize = 100;

/// Standard output as a place to draw on.
#[derive(Debug)]
pub(super) struct Screen {
    terminal: bool,
    colour: bool,
    /// Lines of the last frame, above the cursor.
    drawn: usize,
    events: usize,
    last_line: Option<Stopwatch>,
}

impl Screen {
    /// Standard output as it is.
    pub(super) fn new() -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let terminal = std::io::stdout().is_terminal() && !dumb;
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self {
            terminal,
            colour,
            drawn: 0,
            events: 0,
            last_line: None,
        }
    }

    /// Shows the state: draws over the last frame, or adds a line if it is time for one.
    ///
    /// # Errors
    /// When standard output is closed.
    pub(super) fn show(&mut self, view: &View) -> Result<()> {
        if self.terminal {
            return self.draw(&table::frame(view, columns()));
        }
        let mut out = std::io::stdout().lock();
        for Event { text, .. } in view.events.iter().skip(self.events) {
            writeln!(out, "  * {text}")?;
        }
        self.events = view.events.len();
        if self
            .last_line
            .is_none_or(|last| last.elapsed() >= PLAIN_INTERVAL)
        {
            writeln!(out, "{}", table::plain_line(view))?;
            self.last_line = Some(Stopwatch::start());
        }
        Ok(())
    }

    /// Leaves the last frame standing and prints `lines` below it.
    ///
    /// # Errors
    /// When standard output is closed.
    pub(super) fn print(&mut self, lines: &[Line]) -> Result<()> {
        self.drawn = 0;
        let mut out = std::io::stdout().lock();
        for line in lines {
            writeln!(out, "{}", line.render(usize::MAX, self.colour))?;
        }
        Ok(())
    }

    fn draw(&mut self, lines: &[Line]) -> Result<()> {
        let (columns, rows) = (columns(), rows());
        let mut frame = String::from("\x1b[?25l");
        if self.drawn > 0 {
            frame.extend(["\x1b[", &self.drawn.to_string(), "A"]);
        }
        // A frame taller than the terminal could not be drawn over.
        let shown = &lines[..lines.len().min(rows.saturating_sub(1))];
        for line in shown {
            frame.push_str("\r\x1b[2K");
            frame.push_str(&line.render(columns, self.colour));
            frame.push('\n');
        }
        frame.push_str("\x1b[J");
        self.drawn = shown.len();
        let mut out = std::io::stdout().lock();
        out.write_all(frame.as_bytes())?;
        out.flush()?;
        Ok(())
    }

    /// How wide lines may be.
    pub(super) fn columns(&self) -> usize {
        if self.terminal {
            columns()
        } else {
            DEFAULT_COLUMNS
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.terminal {
            // Give the cursor back, whatever happened.
            std::io::stdout().write_all(b"\x1b[?25h").ok();
            std::io::stdout().flush().ok();
        }
    }
}

fn columns() -> usize {
    size().map_or(DEFAULT_COLUMNS, |(columns, _)| columns)
}

fn rows() -> usize {
    size().map_or(usize::MAX, |(_, rows)| rows)
}

fn size() -> Option<(usize, usize)> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    (size.ws_col > 0 && size.ws_row > 0)
        .then(|| (usize::from(size.ws_col), usize::from(size.ws_row)))
}
