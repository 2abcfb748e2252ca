//! A verification for people.

use super::{Torn, Verification};

/// Width of the column of names.
const NAMES: usize = 12;

/// Green and red, in ANSI's codes.
const GOOD: &str = "32";
const BAD: &str = "1;31";

/// The verification as lines of text; `color` adds ANSI escapes.
pub fn render(found: &Verification, color: bool) -> String {
    let mut text = String::new();
    let mut line = |code: &str, name: &str, said: &str| {
        let name = format!("{name:<NAMES$}");
        let name = if color {
            format!("\x1b[{code}m{name}\x1b[0m")
        } else {
            name
        };
        text.push_str(&format!("{name} {said}\n"));
    };
    line("34", "journal", &journal(found));
    if let Some((first, last)) = found.span {
        let back = found.stepped_back.map_or_else(String::new, |back| {
            format!(" · the clock was set back by up to {} s", back / 1000)
        });
        line("34", "time", &format!("{first} to {last}{back}"));
    }
    for (index, row) in records(found).iter().enumerate() {
        line("34", if index == 0 { "records" } else { "" }, row);
    }
    if let Some(decisions) = std::num::NonZeroU64::new(found.decisions()) {
        let each = found.bytes as f64 / decisions.get() as f64;
        let said =
            format!("{each:.1} bytes of journal for each decision, with all that belongs to it");
        line("34", "size", &said);
    }
    if found.compared + found.uncompared > 0 {
        line("34", "propensities", &propensities(found));
    }
    if found.checkpoints > 0 {
        let said = format!("{} that a start can go on from", found.checkpoints);
        line("34", "checkpoints", &said);
    }
    if let Some(Torn { segment, range }) = &found.torn {
        let said = format!(
            "{segment} ends with {} bytes, from byte {} on, that no commit line closes: a group that is being \
             written, or one that a crash has cut, of which nothing was acknowledged",
            thousands(range.end - range.start),
            range.start
        );
        line("33", "torn", &said);
    }
    for problem in &found.problems {
        let place = problem
            .offset
            .map_or_else(String::new, |offset| format!(", byte {offset}"));
        let said = format!("{}{place}: {}", problem.segment, problem.message);
        line(BAD, "not ok", &said);
    }
    for (kind, count) in &found.counts {
        if *count > super::TOLD as u64 {
            let said = format!(
                "… and {} more of kind `{}`",
                thousands(count - super::TOLD as u64),
                kind.as_str()
            );
            line(BAD, "not ok", &said);
        }
    }
    if found.holds() {
        line(
            GOOD,
            "ok",
            "every checksum fits, no group is missing, and all that the lines say can be true together",
        );
    }
    text
}

fn journal(found: &Verification) -> String {
    let repeated = if found.repeated == 0 {
        String::new()
    } else {
        format!(" ({} of them written twice)", thousands(found.repeated))
    };
    let numbers = found.numbers.map_or_else(String::new, |(first, last)| {
        format!(", numbers {first} to {last}")
    });
    format!(
        "{} · {} · {}{numbers}{repeated}",
        count(found.segments, "segment"),
        count(found.bytes, "byte"),
        count(found.groups, "group"),
    )
}

/// A table of the types of records.
fn records(found: &Verification) -> Vec<String> {
    let mut rows = vec![["type", "lines", "bytes", "each"].map(str::to_owned)];
    rows.extend(found.records.iter().map(|(kind, lines)| {
        [
            kind.clone(),
            thousands(lines.count),
            thousands(lines.bytes),
            format!("{:.1}", lines.bytes as f64 / lines.count.max(1) as f64),
        ]
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2), width(3)];
    rows.iter()
        .map(|[kind, lines, bytes, each]| {
            format!(
                "{kind:<0$}  {lines:>1$}  {bytes:>2$}  {each:>3$}",
                widths[0], widths[1], widths[2], widths[3]
            )
        })
        .collect()
}

fn propensities(found: &Verification) -> String {
    let rest = if found.uncompared == 0 {
        String::new()
    } else {
        format!(
            "; of {} what they were drawn from is not in the journal any more",
            thousands(found.uncompared)
        )
    };
    format!(
        "{} compared with what was drawn from{rest}",
        thousands(found.compared)
    )
}

/// `1 group`, `1,234 groups`
fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", thousands(number))
}

/// `1,234,567`
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
