//! A classification file: rows of features, the last column the label.
//!
//! Comma-separated with double quotes (RFC 4180), read whole. Not here: what a row earns (`world`).

use std::ops::Range;
use std::sync::Arc;

use crate::document::Problem;

/// Most faulty lines that are shown of one file.
const MAX_PROBLEMS: usize = 20;

/// The rows of a classification file.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// The names of the features: the header's, as a policy file's `[context.NAME]` can write them (`Sepal length` is
    /// `sepal_length`), else `x0`, `x1`, …
    pub columns: Vec<String>,
    /// The features of each row, in the order of `columns`.
    pub rows: Vec<Vec<Cell>>,
    /// The distinct labels, in the order in which they first occur.
    pub labels: Vec<String>,
    /// Of each row, the index of its label.
    pub label_of: Vec<usize>,
}

/// One feature of one row.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// A finite number.
    Number(f64),
    /// Anything else.
    Text(Box<str>),
    /// Nothing.
    Missing,
}

impl Cell {
    fn of(text: &str) -> Self {
        match text.parse::<f64>() {
            _ if text.is_empty() => Self::Missing,
            Ok(number) if number.is_finite() => Self::Number(number),
            _ => Self::Text(text.into()),
        }
    }
}

impl Dataset {
    /// Reads the text of `file`; `header` says whether its first line names the columns, `None`: it does if no feature in
    /// it is a number.
    ///
    /// # Errors
    ///
    /// Every faulty line, at its place.
    pub fn parse(file: &str, text: &str, header: Option<bool>) -> Result<Self, Vec<Problem>> {
        let shared: Arc<str> = Arc::from(text);
        let problem = |span: Range<usize>, message: String, help: &str| {
            Problem::at(file, &shared, span, message).help(help)
        };
        let mut lines = Lines {
            text,
            position: text.len() - text.trim_start_matches('\u{feff}').len(),
        };
        let mut problems = Vec::new();
        let mut records = Vec::new();
        while let Some((span, record)) = lines.next_record() {
            match record {
                Some(record) => records.push((span, record)),
                None => problems.push(problem(
                    span,
                    "a quote is not closed, or something follows it".to_owned(),
                    "a quoted value begins and ends with \", and a quote within it is doubled",
                )),
            }
        }
        let Some((first_span, first)) = records.first().cloned() else {
            problems.push(Problem::of_file(file, "there is no row"));
            return Err(problems);
        };
        if first.len() < 2 {
            let help = "each line is the features and, last, the label, separated by commas";
            problems.push(problem(first_span, "there is no feature".to_owned(), help));
            return Err(problems);
        }
        let features = first.len() - 1;
        let looks_like_header = first[..features]
            .iter()
            .all(|cell| !matches!(Cell::of(cell), Cell::Number(_)));
        let has_header = header.unwrap_or(looks_like_header);
        let mut dataset = Self {
            columns: if has_header {
                first[..features]
                    .iter()
                    .map(|name| feature_name(name))
                    .collect()
            } else {
                (0..features).map(|index| format!("x{index}")).collect()
            },
            rows: Vec::new(),
            labels: Vec::new(),
            label_of: Vec::new(),
        };
        for (span, record) in records.into_iter().skip(usize::from(has_header)) {
            if record.len() == features + 1 {
                dataset.push(&record);
            } else {
                let (values, wanted) = (record.len(), features + 1);
                let message = format!("{values} values where the first line has {wanted}");
                problems.push(problem(span, message, "every line has as many values"));
            }
        }
        if dataset.rows.is_empty() && problems.is_empty() {
            problems.push(Problem::of_file(file, "there is no row after the header"));
        }
        if problems.is_empty() {
            return Ok(dataset);
        }
        let more = problems.len().saturating_sub(MAX_PROBLEMS);
        problems.truncate(MAX_PROBLEMS);
        if more > 0 {
            problems.push(Problem::of_file(file, format!("{more} more faulty lines")));
        }
        Err(problems)
    }

    fn push(&mut self, record: &[String]) {
        let (label, features) = match record.split_last() {
            Some((label, features)) => (canonical(label), features),
            None => return,
        };
        let known = self.labels.iter().position(|other| *other == label);
        self.label_of.push(known.unwrap_or(self.labels.len()));
        if known.is_none() {
            self.labels.push(label);
        }
        self.rows
            .push(features.iter().map(|cell| Cell::of(cell)).collect());
    }
}

/// A column's name as that of a feature: in lower case, and with `_` for what a feature's name cannot have.
fn feature_name(column: &str) -> String {
    column
        .chars()
        .map(|letter| match letter.to_ascii_lowercase() {
            letter @ ('a'..='z' | '0'..='9' | '-') => letter,
            _ => '_',
        })
        .collect()
}

/// A label as an arm can be called: `3.0` is `3`.
fn canonical(label: &str) -> String {
    let whole = label
        .strip_suffix(".0")
        .filter(|whole| whole.parse::<i64>().is_ok());
    whole.unwrap_or(label).to_owned()
}

/// The records of a text, one after the other.
struct Lines<'a> {
    text: &'a str,
    position: usize,
}

impl Lines<'_> {
    /// The next record that is not empty, and where it stands; `None` in place of a record with a broken quote.
    fn next_record(&mut self) -> Option<(Range<usize>, Option<Vec<String>>)> {
        loop {
            let rest = &self.text[self.position..];
            if rest.is_empty() {
                return None;
            }
            let start = self.position;
            let (record, length) = record(rest);
            self.position += length;
            let line = rest[..length].lines().next().unwrap_or_default();
            if record.is_some() && line.trim().is_empty() {
                continue;
            }
            return Some((start..start + line.len(), record));
        }
    }
}

/// The record at the start of a text, and its length with the end of its line.
fn record(text: &str) -> (Option<Vec<String>>, usize) {
    let line_end = text.find('\n').map_or(text.len(), |newline| newline + 1);
    if !text[..line_end].contains('"') {
        let cells = text[..line_end].trim_end().split(',');
        return (
            Some(cells.map(|cell| cell.trim().to_owned()).collect()),
            line_end,
        );
    }
    let mut cells = Vec::new();
    let mut position = 0;
    loop {
        let rest = &text[position..];
        if let Some(quoted) = rest.trim_start_matches([' ', '\t']).strip_prefix('"') {
            let opened = text.len() - quoted.len();
            let Some((cell, length)) = quoted_cell(quoted) else {
                return (None, line_end);
            };
            cells.push(cell);
            position = opened + length;
        } else {
            let length = rest.find([',', '\n']).unwrap_or(rest.len());
            cells.push(rest[..length].trim().to_owned());
            position += length;
        }
        let after = text[position..].trim_start_matches([' ', '\t', '\r']);
        position = text.len() - after.len();
        match after.chars().next() {
            Some(',') => position += 1,
            Some('\n') => return (Some(cells), position + 1),
            None => return (Some(cells), position),
            Some(_) => return (None, line_end.max(position)),
        }
    }
}

/// What stands before the closing quote, and the length of it all.
fn quoted_cell(text: &str) -> Option<(String, usize)> {
    let mut cell = String::new();
    let mut letters = text.char_indices().peekable();
    while let Some((index, letter)) = letters.next() {
        if letter != '"' {
            cell.push(letter);
        } else if letters.next_if(|(_, next)| *next == '"').is_some() {
            cell.push('"');
        } else {
            return Some((cell, index + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_recognised_and_labels_are_numbered() {
        let text =
            "Width (cm),colour,y\n1.5,red,2.0\n,\"dark, \"\"red\"\"\",cat\r\n\n-1e3,blue,2\n";
        let dataset = Dataset::parse("f.csv", text, None).unwrap();
        assert_eq!(dataset.columns, ["width__cm_", "colour"]);
        assert_eq!(dataset.labels, ["2", "cat"]);
        assert_eq!(dataset.label_of, [0, 1, 0]);
        assert_eq!(
            dataset.rows[1],
            [Cell::Missing, Cell::Text("dark, \"red\"".into())]
        );
        assert_eq!(dataset.rows[2][0], Cell::Number(-1000.0));
    }

    #[test]
    fn without_a_header_columns_are_numbered() {
        let dataset = Dataset::parse("f.csv", "1,2,a\n3,4,b", None).unwrap();
        assert_eq!(dataset.columns, ["x0", "x1"]);
        assert_eq!(dataset.rows.len(), 2);
        let texts = Dataset::parse("f.csv", "red,a\nblue,b\n", Some(false)).unwrap();
        assert_eq!(texts.labels, ["a", "b"]);
    }

    #[test]
    fn every_faulty_line_is_told_with_its_number() {
        let text = "a,b,y\n1,2,x\n1,2\n\"1,2,x\n3,4,5,6\n";
        let problems = Dataset::parse("f.csv", text, None).unwrap_err();
        let mut lines: Vec<_> = problems
            .iter()
            .filter_map(Problem::line_and_column)
            .map(|(line, _)| line)
            .collect();
        lines.sort_unstable();
        assert_eq!(lines, [3, 4, 5]);
    }

    #[test]
    fn files_without_rows_are_refused() {
        for text in ["", "\n\n", "a,b,y\n", "justone\n1\n"] {
            assert!(Dataset::parse("f.csv", text, None).is_err(), "{text:?}");
        }
    }
}
