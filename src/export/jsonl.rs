//! A JSON object for each row. Every field is there in every row, `null` where there is nothing, so that readers who look at the first rows
//! find the types of all.

use std::io::{self, Write};

use super::row::{COLUMNS, Cell, Row, write_context, write_label};
use super::{Sink, buffer::Buffer};
use crate::journal::scalar::{TimeWriter, write_decimal, write_hex, write_json};

pub(super) struct Jsonl<'a> {
    buffer: Buffer<'a>,
    time: TimeWriter,
    /// `,"name":` of each column.
    keys: Vec<Vec<u8>>,
}

impl<'a> Jsonl<'a> {
    pub(super) fn new(output: Box<dyn Write + Send + 'a>) -> Self {
        let key = |(name, _): &(&str, _)| format!(",\"{name}\":").into_bytes();
        let mut keys: Vec<Vec<u8>> = COLUMNS.iter().map(key).collect();
        if let Some(first) = keys.first_mut() {
            first[0] = b'{';
        }
        Self {
            buffer: Buffer::new(output),
            time: TimeWriter::new(),
            keys,
        }
    }
}

impl Sink for Jsonl<'_> {
    fn row(&mut self, row: &Row<'_>) -> io::Result<bool> {
        let line = self.buffer.lines();
        for (key, cell) in self.keys.iter().zip(row.cells()) {
            line.extend_from_slice(key);
            write_cell(line, &mut self.time, &cell);
        }
        line.extend_from_slice(b",\"context\":");
        match row.context() {
            Some(context) => {
                write_context(line, context, |_| true);
            }
            None => line.extend_from_slice(b"null"),
        }
        line.extend_from_slice(b"}\n");
        self.buffer.write_some()?;
        Ok(true)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.buffer.finish()
    }
}

fn write_cell(line: &mut Vec<u8>, time: &mut TimeWriter, cell: &Cell<'_>) {
    match *cell {
        Cell::Missing => line.extend_from_slice(b"null"),
        Cell::Text(text) => write_json(line, text),
        Cell::Number(number) => write_json(line, &number),
        Cell::Whole(number) => write_decimal(line, number),
        Cell::Json(json) => line.extend_from_slice(json),
        Cell::Label(label) => write_label(line, label),
        Cell::Hexadecimal(number, digits) => {
            line.push(b'"');
            write_hex(line, number, digits);
            line.push(b'"');
        }
        Cell::Version(number) => {
            line.push(b'"');
            write_decimal(line, number);
            line.push(b'"');
        }
        Cell::Time(at) => {
            line.push(b'"');
            time.write(line, at);
            line.push(b'"');
        }
    }
}
