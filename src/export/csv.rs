//! Comma-separated values (RFC 4180, with line feeds alone): a header, then a line for each row. A feature of the context has a column
//! `context.NAME`; those that no policy file in the journal names are together in the column `context`, as JSON.

use std::io::{self, Write};

use super::buffer::Buffer;
use super::row::{COLUMNS, Cell, Row, write_context};
use super::shape::Places;
use super::{Shape, Sink};
use crate::experiment::context::Value;
use crate::experiment::decision::Label;
use crate::journal::scalar::{TimeWriter, write_decimal, write_hex, write_json};

pub(super) struct Csv<'a> {
    buffer: Buffer<'a>,
    time: TimeWriter,
    places: Places,
    /// A buffer.
    json: Vec<u8>,
}

impl<'a> Csv<'a> {
    pub(super) fn new(shape: &Shape, output: Box<dyn Write + Send + 'a>) -> Self {
        let mut buffer = Buffer::new(output);
        let header = buffer.lines();
        for (name, _) in COLUMNS {
            header.extend_from_slice(name.as_bytes());
            header.push(b',');
        }
        header.extend_from_slice(b"context");
        for (name, _) in shape.features() {
            header.push(b',');
            write_text(header, format!("context.{name}").as_bytes());
        }
        header.push(b'\n');
        Self {
            buffer,
            time: TimeWriter::new(),
            places: Places::new(shape),
            json: Vec::new(),
        }
    }
}

impl Sink for Csv<'_> {
    fn row(&mut self, row: &Row<'_>) -> io::Result<bool> {
        let line = self.buffer.lines();
        for cell in row.cells() {
            write_cell(line, &mut self.time, &cell);
            line.push(b',');
        }
        let context = row.context();
        let values = self.places.values(context);
        // The column `context` stands before these, and is mostly empty.
        let rest = line.len();
        for value in values {
            line.push(b',');
            write_value(line, value);
        }
        if let Some(context) = context {
            self.json.clear();
            if write_context(&mut self.json, context, |name| self.places.lacks(name)) {
                let tail = line.split_off(rest);
                write_text(line, &self.json);
                line.extend_from_slice(&tail);
            }
        }
        line.push(b'\n');
        self.buffer.write_some()?;
        Ok(true)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.buffer.finish()
    }
}

fn write_cell(line: &mut Vec<u8>, time: &mut TimeWriter, cell: &Cell<'_>) {
    match *cell {
        Cell::Missing => {}
        Cell::Text(text) => write_text(line, text.as_bytes()),
        Cell::Number(number) => write_json(line, &number),
        Cell::Whole(number) | Cell::Version(number) => write_decimal(line, number),
        Cell::Hexadecimal(number, digits) => write_hex(line, number, digits),
        Cell::Time(at) => time.write(line, at),
        Cell::Json(json) => write_text(line, json),
        Cell::Label(Label::Text(text)) => write_text(line, text.as_bytes()),
        Cell::Label(Label::Number(number)) => write_json(line, number),
        Cell::Label(Label::Boolean(truth)) => write_json(line, truth),
    }
}

fn write_value(line: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Missing => {}
        Value::Number(number) => write_json(line, number),
        Value::Boolean(truth) => write_json(line, truth),
        Value::Text(text) => write_text(line, text.as_bytes()),
    }
}

/// A text, in quotes if it needs them. An empty one has them, because nothing at all is a missing value.
fn write_text(line: &mut Vec<u8>, text: &[u8]) {
    let plain = |byte: &u8| !matches!(byte, b'"' | b',' | b'\n' | b'\r');
    let spaced = text.first() == Some(&b' ') || text.last() == Some(&b' ');
    if !text.is_empty() && !spaced && text.iter().all(plain) {
        line.extend_from_slice(text);
        return;
    }
    line.push(b'"');
    for byte in text {
        if *byte == b'"' {
            line.push(b'"');
        }
        line.push(*byte);
    }
    line.push(b'"');
}
