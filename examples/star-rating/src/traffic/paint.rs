//! Lines of coloured text, cut to a width and with or without escape codes.

/// How a piece of text looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As the terminal has it.
    Plain,
    /// Of less interest.
    Dim,
    /// Of more interest.
    Bold,
    /// As it should be, or winning.
    Good,
    /// Worth a look.
    Warning,
}

impl Tone {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Dim => "\x1b[2m",
            Self::Bold => "\x1b[1m",
            Self::Good => "\x1b[32m",
            Self::Warning => "\x1b[33m",
        }
    }
}

/// One line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line(Vec<(Tone, String)>);

impl Line {
    /// A line of plain text.
    pub fn plain(text: &str) -> Self {
        Self::default().with(Tone::Plain, text)
    }

    /// This line with `text` at its end.
    #[must_use]
    pub fn with(mut self, tone: Tone, text: &str) -> Self {
        self.0.push((tone, text.to_owned()));
        self
    }

    /// The line as text of at most `columns` characters.
    pub fn render(&self, columns: usize, colour: bool) -> String {
        let mut left = columns;
        let mut out = String::new();
        for (tone, text) in &self.0 {
            let shown: String = text.chars().take(left).collect();
            left -= shown.chars().count();
            if colour && *tone != Tone::Plain && !shown.is_empty() {
                out.push_str(tone.code());
                out.push_str(&shown);
                out.push_str("\x1b[0m");
            } else {
                out.push_str(&shown);
            }
        }
        out
    }
}

/// The eighths of a block, from lowest to highest.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// `values` in `[0, 1]` as `width` blocks, oldest first: each block is the mean of its stretch of the values.
pub fn sparkline(values: &[f64], width: usize) -> String {
    let width = width.min(values.len());
    (0..width)
        .map(|column| {
            let (start, end) = (
                column * values.len() / width,
                (column + 1) * values.len() / width,
            );
            let stretch = &values[start..end];
            let mean = stretch.iter().sum::<f64>() / stretch.len() as f64;
            BLOCKS[((mean * 8.0) as usize).min(7)]
        })
        .collect()
}

/// A whole number with thousands apart: `12,345`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_by_characters_and_colours_take_no_room() {
        let line = Line::plain("ab").with(Tone::Good, "█▁cd");
        assert_eq!(line.render(4, false), "ab█▁");
        assert_eq!(line.render(4, true), "ab\x1b[32m█▁\x1b[0m");
        assert_eq!(line.render(2, true), "ab");
        assert_eq!(line.render(99, false), "ab█▁cd");
    }

    #[test]
    fn sparklines_average_what_does_not_fit() {
        assert_eq!(sparkline(&[], 5), "");
        assert_eq!(sparkline(&[0.0, 0.124, 0.125, 0.5, 1.0], 9), "▁▁▂▅█");
        assert_eq!(sparkline(&[0.0, 1.0, 1.0, 1.0], 2), "▅█");
        assert_eq!(sparkline(&[0.25; 7], 3), "▃▃▃");
    }

    #[test]
    fn thousands_are_apart() {
        let numbers = [0, 999, 1000, 12_345, 1_234_567].map(grouped);
        assert_eq!(numbers, ["0", "999", "1,000", "12,345", "1,234,567"]);
    }
}
