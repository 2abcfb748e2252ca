//! A problem in a text, and how it is shown.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Something wrong in a file, with what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, as it was given.
    pub file: String,
    /// What is wrong.
    pub message: String,
    /// What would be right, or what to do.
    pub help: Option<String>,
    /// A warning does not keep the file from being used.
    pub warning: bool,
    /// Where, if it is about a place in the text.
    place: Option<Place>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    text: Arc<str>,
    span: Range<usize>,
}

impl Problem {
    /// A problem at a place of a text.
    pub fn at(file: &str, text: &Arc<str>, span: Range<usize>, message: impl Into<String>) -> Self {
        let place = Some(Place {
            text: Arc::clone(text),
            span,
        });
        Self {
            file: file.to_owned(),
            message: message.into(),
            help: None,
            warning: false,
            place,
        }
    }

    /// A problem of a whole file or folder.
    pub fn of_file(file: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            message: message.into(),
            help: None,
            warning: false,
            place: None,
        }
    }

    /// Says what would be right.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Makes it a warning.
    #[must_use]
    pub fn as_warning(mut self) -> Self {
        self.warning = true;
        self
    }

    /// Line and column, both from 1; the column counts characters.
    pub fn line_and_column(&self) -> Option<(usize, usize)> {
        let place = self.place.as_ref()?;
        let start = floor_boundary(&place.text, place.span.start);
        let before = &place.text[..start];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Some((
            before.matches('\n').count() + 1,
            before[line_start..].chars().count() + 1,
        ))
    }
}

fn floor_boundary(text: &str, index: usize) -> usize {
    (0..=index.min(text.len()))
        .rev()
        .find(|index| text.is_char_boundary(*index))
        .unwrap_or(0)
}

impl fmt::Display for Problem {
    /// As in `file:line:column: error: message`, the source line with carets, and the help.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&render(self, false))
    }
}

/// Characters of a line that are shown before the place.
const CONTEXT: usize = 80;

/// Characters of a line that are shown from the place on.
const MAX_SHOWN: usize = 120;

/// Without control characters: what a file holds must not steer the terminal.
fn plain(text: &str) -> String {
    text.chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect()
}

/// Shows a problem as text that ends without a newline; `color` adds ANSI escapes.
pub fn render(problem: &Problem, color: bool) -> String {
    let paint = |code: &'static str| if color { code } else { "" };
    let (bold, reset, blue) = (paint("\x1b[1m"), paint("\x1b[0m"), paint("\x1b[34m"));
    let (word, hue) = if problem.warning {
        ("warning", paint("\x1b[33m"))
    } else {
        ("error", paint("\x1b[31m"))
    };
    let mut shown = match problem.line_and_column() {
        Some((line, column)) => format!("{bold}{}:{line}:{column}{reset}: ", problem.file),
        None => format!("{bold}{}{reset}: ", problem.file),
    };
    shown.push_str(&format!(
        "{hue}{word}{reset}: {bold}{}{reset}",
        plain(&problem.message)
    ));
    if let (Some(place), Some((line, _))) = (&problem.place, problem.line_and_column()) {
        let start = floor_boundary(&place.text, place.span.start);
        let end = floor_boundary(&place.text, place.span.end).max(start);
        let line_start = place.text[..start]
            .rfind('\n')
            .map_or(0, |newline| newline + 1);
        let line_end = place.text[start..]
            .find('\n')
            .map_or(place.text.len(), |newline| start + newline);
        // A long line is cut around the place.
        let before: Vec<char> = place.text[line_start..start].chars().collect();
        let cut = before.len().saturating_sub(CONTEXT);
        let source: String = place.text[line_start..line_end]
            .chars()
            .skip(cut)
            .take(CONTEXT + MAX_SHOWN)
            .collect();
        let indent = " ".repeat(before.len() - cut);
        let width = place.text[start..end.min(line_end)]
            .chars()
            .count()
            .clamp(1, MAX_SHOWN);
        let number = line.to_string();
        let margin = " ".repeat(number.len());
        let carets = "^".repeat(width);
        shown.push_str(&format!(
            "\n{blue}{margin} |{reset}\n{blue}{number} |{reset} {}",
            plain(source.trim_end())
        ));
        shown.push_str(&format!(
            "\n{blue}{margin} |{reset} {indent}{hue}{carets}{reset}"
        ));
    }
    if let Some(help) = &problem.help {
        shown.push_str(&format!("\n  {bold}help{reset}: {}", plain(help)));
    }
    shown
}

/// Problems as they are found.
#[derive(Debug, Default)]
pub struct Problems(std::cell::RefCell<Vec<Problem>>);

impl Problems {
    /// Adds one.
    pub fn push(&self, problem: Problem) {
        self.0.borrow_mut().push(problem);
    }

    /// Whether there is an error among them.
    pub fn has_errors(&self) -> bool {
        self.0.borrow().iter().any(|problem| !problem.warning)
    }

    /// All of them, by file and place.
    pub fn into_sorted(self) -> Vec<Problem> {
        let mut problems = self.0.into_inner();
        problems.sort_by_key(|problem| (problem.file.clone(), problem.line_and_column()));
        problems
    }
}
