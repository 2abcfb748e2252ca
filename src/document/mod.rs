//! Reading TOML that people write: every problem at once, each at its place in the text.
//!
//! A section of a file is described by one table of [`Field`]s. That table alone says which keys there are, what they may
//! hold, their defaults and what they mean: reading, the JSON Schema and the reference documentation all come from it, so
//! they cannot disagree. [`Section`] checks a TOML table against its fields when it is opened (unknown keys, types, ranges), and
//! its getters then give checked values. What concerns several keys is reported with [`Section::reject`].
//!
//! This is not a configuration: what the keys mean is `config`'s and each policy's business. It does no I/O.

mod problem;
mod section;

pub use problem::{Problem, Problems, render};
pub use section::{Document, Section};

/// What a key may hold.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Any text.
    Text,
    /// One of these texts.
    Choice(&'static [&'static str]),
    /// `true` or `false`.
    Boolean,
    /// A whole number in this range, both ends included.
    Integer(i64, i64),
    /// A finite number in this range; integers are taken, too.
    Number(Range),
    /// A text such as `"10m"`: a whole number with ms, s, m, h or d; at least one millisecond unless zero is allowed.
    Duration {
        /// Whether `"0s"` is.
        zero: bool,
    },
    /// A list of texts.
    Texts,
    /// A list of whole numbers in this range, both ends included.
    Integers(i64, i64),
    /// A table from any key to a text.
    TextMap,
    /// A table with these fields.
    Table(&'static [Field]),
    /// An array of tables with these fields.
    Tables(&'static [Field]),
    /// A text of this list, or a table with these fields.
    ChoiceOrTable(&'static [&'static str], &'static [Field]),
    /// A table from any key to a value of this kind.
    PerKey(&'static Kind),
    /// A value of this kind, or a table from any key to such values.
    OneOrPerKey(&'static Kind),
    /// A table whose keys somebody else checks.
    Open,
}

/// A range of numbers.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    /// Least.
    pub low: f64,
    /// Greatest.
    pub high: f64,
    /// Whether the least itself is allowed.
    pub low_included: bool,
    /// Whether the greatest itself is allowed.
    pub high_included: bool,
}

impl Range {
    /// Any finite number.
    pub const ANY: Self = Self::closed(f64::MIN, f64::MAX);
    /// Above zero.
    pub const POSITIVE: Self = Self {
        low: 0.0,
        high: f64::MAX,
        low_included: false,
        high_included: true,
    };
    /// Zero or above.
    pub const NOT_NEGATIVE: Self = Self::closed(0.0, f64::MAX);

    /// Both ends included.
    pub const fn closed(low: f64, high: f64) -> Self {
        Self {
            low,
            high,
            low_included: true,
            high_included: true,
        }
    }

    /// The least included, the greatest not.
    pub const fn half_open(low: f64, high: f64) -> Self {
        Self {
            low,
            high,
            low_included: true,
            high_included: false,
        }
    }

    /// Whether `value` is in it.
    pub fn contains(&self, value: f64) -> bool {
        let above = if self.low_included {
            value >= self.low
        } else {
            value > self.low
        };
        let below = if self.high_included {
            value <= self.high
        } else {
            value < self.high
        };
        above && below
    }

    /// In words.
    pub fn describe(&self) -> String {
        let low = match (self.low > f64::MIN, self.low_included) {
            (false, _) => None,
            (true, true) => Some(format!("at least {}", self.low)),
            (true, false) => Some(format!("above {}", self.low)),
        };
        let high = match (self.high < f64::MAX, self.high_included) {
            (false, _) => None,
            (true, true) => Some(format!("at most {}", self.high)),
            (true, false) => Some(format!("below {}", self.high)),
        };
        match (low, high) {
            (None, None) => "any number".to_owned(),
            (Some(bound), None) | (None, Some(bound)) => format!("a number {bound}"),
            (Some(low), Some(high)) => format!("a number {low} and {high}"),
        }
    }
}

/// One key of a section.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// The key.
    pub key: &'static str,
    /// What it may hold.
    pub kind: Kind,
    /// What holds when it is left out.
    pub default: Default,
    /// What it means, in a sentence or two for the reference.
    pub doc: &'static str,
}

/// What holds when a key is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Default {
    /// It may not be left out.
    Required,
    /// This value, as TOML.
    Is(&'static str),
    /// Something that depends on other keys, in words.
    Depends(&'static str),
    /// Nothing: the feature is off.
    Off,
}

impl Kind {
    /// What a value of this kind looks like, in words.
    pub fn describe(&self) -> String {
        match self {
            Self::Text => "a text".to_owned(),
            Self::Choice(words) => format!("one of {}", quoted(words)),
            Self::Boolean => "true or false".to_owned(),
            Self::Integer(low, i64::MAX) => format!("a whole number of at least {low}"),
            Self::Integer(low, high) => format!("a whole number from {low} to {high}"),
            Self::Number(range) => range.describe(),
            Self::Duration { zero: true } => {
                "a duration such as \"10m\" (ms, s, m, h, d)".to_owned()
            }
            Self::Duration { zero: false } => {
                "a duration above zero such as \"10m\" (ms, s, m, h, d)".to_owned()
            }
            Self::Texts => "a list of texts".to_owned(),
            Self::Integers(low, high) => {
                format!("a list of whole numbers from {low} to {high}")
            }
            Self::TextMap => "a table of texts, as in { key = \"value\" }".to_owned(),
            Self::Table(fields) => format!("a table with {}", quoted(&keys(fields))),
            Self::Tables(_) => "an array of tables".to_owned(),
            Self::ChoiceOrTable(words, fields) => {
                format!(
                    "one of {}, or a table with {}",
                    quoted(words),
                    quoted(&keys(fields))
                )
            }
            Self::PerKey(kind) => format!("a table from names to {}", kind.describe()),
            Self::OneOrPerKey(kind) => {
                format!("{}, or a table from names to such", kind.describe())
            }
            Self::Open => "a table".to_owned(),
        }
    }
}

/// The keys of some fields.
pub fn keys(fields: &[Field]) -> Vec<&'static str> {
    fields.iter().map(|field| field.key).collect()
}

/// `` `a`, `b` and `c` ``
pub fn quoted(words: &[&str]) -> String {
    match words {
        [] => "nothing".to_owned(),
        [word] => format!("`{word}`"),
        [first @ .., last] => {
            let first: Vec<String> = first.iter().map(|word| format!("`{word}`")).collect();
            format!("{} and `{last}`", first.join(", "))
        }
    }
}

/// The word of `known` that `word` was probably meant to be: the nearest by optimal string alignment (insert, delete, replace, swap
/// neighbours), if at most a third of it differs.
pub fn did_you_mean<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let nearest = known
        .iter()
        .map(|candidate| (distance(word, candidate), *candidate))
        .min()?;
    (nearest.0 <= 1 + nearest.1.len() / 4).then_some(nearest.1)
}

fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                let best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if swapped {
                    best.min(rows[i - 2][j - 2] + 1)
                } else {
                    best
                }
            };
        }
    }
    rows[a.len()][b.len()]
}

/// The milliseconds of `"250ms"`, `"10s"`, `"5m"`, `"24h"` or `"30d"`.
pub fn parse_duration(text: &str) -> Option<u64> {
    let digits = text.len()
        - text
            .trim_start_matches(|letter: char| letter.is_ascii_digit())
            .len();
    let (number, unit) = text.split_at(digits);
    let scale = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(parse_duration("24h"), Some(86_400_000));
        assert_eq!(parse_duration("250ms"), Some(250));
        for bad in [
            "",
            "h",
            "1",
            "-1s",
            "1.5h",
            "1 h",
            "1w",
            "99999999999999999999d",
        ] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn near_words_are_suggested_and_far_ones_are_not() {
        let known = ["weight", "endpoints", "name"];
        assert_eq!(did_you_mean("wieght", &known), Some("weight"));
        assert_eq!(did_you_mean("endpoint", &known), Some("endpoints"));
        assert_eq!(did_you_mean("colour", &known), None);
    }
}
