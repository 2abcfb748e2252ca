//! What a case found, as a table or as JSON.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

/// A value in a table.
#[derive(Debug, Clone)]
pub(crate) enum Cell {
    Text(String),
    /// With so many decimals.
    Number(f64, usize),
}

impl Cell {
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number, _) if number.is_nan() => "-".to_owned(),
            Self::Number(number, decimals) => format!("{number:.decimals$}"),
        }
    }

    fn value(&self) -> Value {
        match self {
            Self::Text(text) => json!(text),
            Self::Number(number, _) => json!(number),
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// A table with remarks, and whether what was demanded holds.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) title: String,
    pub(crate) columns: &'static [&'static str],
    pub(crate) rows: Vec<Vec<Cell>>,
    pub(crate) notes: Vec<String>,
    pub(crate) passed: bool,
}

impl Report {
    pub(crate) fn new(title: impl Into<String>, columns: &'static [&'static str]) -> Self {
        Self {
            title: title.into(),
            columns,
            rows: Vec::new(),
            notes: Vec::new(),
            passed: true,
        }
    }

    /// Notes what must not be, and that the case has failed.
    pub(crate) fn fail(&mut self, why: String) {
        self.notes.push(why);
        self.passed = false;
    }

    pub(crate) fn write(&self, as_json: bool) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if as_json {
            return writeln!(out, "{}", self.json());
        }
        writeln!(out, "{}\n", self.title)?;
        let rows: Vec<Vec<String>> = self
            .rows
            .iter()
            .map(|row| row.iter().map(Cell::text).collect())
            .collect();
        let widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(index, column)| {
                let cells = rows.iter().map(|row| row[index].chars().count());
                cells.max().unwrap_or(0).max(column.chars().count())
            })
            .collect();
        let line = |cells: &mut dyn Iterator<Item = &str>| -> String {
            let padded: Vec<_> = cells
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:<width$}"))
                .collect();
            format!("| {} |", padded.join(" | "))
        };
        writeln!(out, "{}", line(&mut self.columns.iter().copied()))?;
        let rules: Vec<_> = widths.iter().map(|width| "-".repeat(*width)).collect();
        writeln!(out, "{}", line(&mut rules.iter().map(String::as_str)))?;
        for row in &rows {
            writeln!(out, "{}", line(&mut row.iter().map(String::as_str)))?;
        }
        for note in &self.notes {
            writeln!(out, "\n{note}")?;
        }
        Ok(())
    }

    fn json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                let cells = self.columns.iter().zip(row);
                let row: Map<_, _> = cells
                    .map(|(column, cell)| ((*column).to_owned(), cell.value()))
                    .collect();
                Value::Object(row)
            })
            .collect();
        json!({ "title": self.title, "rows": rows, "notes": self.notes, "passed": self.passed })
    }
}
