//! The fields of a head, in the order they came: the text and a table of where they are. What a name means is told once, when a field is taken in
//! ([`field`](super::field)).

use super::field::{Known, known};
use super::head::HeadError;

/// Where a field is in the text.
#[derive(Debug, Clone, Copy)]
struct Field {
    known: Known,
    name: u32,
    name_length: u32,
    value: u32,
    value_length: u32,
}

/// The fields of a head, in the order they came.
#[derive(Debug, Clone, Default)]
pub struct Fields {
    /// The whole head.
    pub(super) text: Vec<u8>,
    table: Vec<Field>,
    /// What is among them, so that most questions for one need no search.
    present: u32,
}

impl Fields {
    fn name(&self, field: &Field) -> &[u8] {
        part(&self.text, field.name, field.name_length)
    }

    fn value(&self, field: &Field) -> &[u8] {
        part(&self.text, field.value, field.value_length)
    }

    /// Every field: what it is to us, name and value.
    pub fn iter(&self) -> impl Iterator<Item = (Known, &[u8], &[u8])> {
        let all = self.table.iter();
        all.map(|field| (field.known, self.name(field), self.value(field)))
    }

    /// The values of the fields that are `known`.
    pub fn of(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        let table = if self.has(known) {
            &self.table[..]
        } else {
            &[]
        };
        let same = table.iter().filter(move |field| field.known == known);
        same.map(|field| self.value(field))
    }

    /// Whether there is a field that is `known`.
    pub fn has(&self, known: Known) -> bool {
        self.present & known.bit() != 0
    }

    /// The values of the fields called `name`, whatever its case.
    pub fn all<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let called = self.table.iter().filter(move |field| {
            field.name_length as usize == name.len() && self.name(field).eq_ignore_ascii_case(name)
        });
        called.map(|field| self.value(field))
    }

    /// The value of the first field called `name`, whatever its case.
    pub fn get<'a>(&'a self, name: &'a [u8]) -> Option<&'a [u8]> {
        self.all(name).next()
    }

    /// Writes the lines of the fields that `keep` wants, as they came. Neighbours are copied at once. A line with other white space than one blank
    /// behind its colon is written anew, so that it has the usual form.
    pub fn copy_lines(&self, out: &mut Vec<u8>, mut keep: impl FnMut(Known, &[u8]) -> bool) {
        let mut run = 0..0;
        for field in &self.table {
            let name = self.name(field);
            if !keep(field.known, name) {
                continue;
            }
            let line = field.name as usize..(field.value + field.value_length) as usize + 2;
            let behind_name = (field.name + field.name_length) as usize;
            let is_usual = field.value as usize == behind_name + 2
                && self.text.get(behind_name..behind_name + 2) == Some(b": ")
                && self.text.get(line.end - 2..line.end) == Some(b"\r\n");
            if is_usual && run.end == line.start {
                run.end = line.end;
                continue;
            }
            out.extend_from_slice(&self.text[run]);
            run = if is_usual { line } else { 0..0 };
            if !is_usual {
                for part in [name, b": ", self.value(field), b"\r\n"] {
                    out.extend_from_slice(part);
                }
            }
        }
        out.extend_from_slice(&self.text[run]);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Adds a field whose name and value were checked before.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        let start = self.text.len() as u32;
        self.text.extend_from_slice(name);
        self.text.extend_from_slice(value);
        let known = known(name);
        self.present |= known.bit();
        self.table.push(Field {
            known,
            name: start,
            name_length: name.len() as u32,
            value: start + name.len() as u32,
            value_length: value.len() as u32,
        });
    }

    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.table.clear();
        self.present = 0;
    }

    /// Takes over a head and what httparse found in it; what was there before is lost.
    ///
    /// Every line has to end with CR LF: httparse takes a lone LF, which other parsers read differently (RFC 9112 §2.2 allows to
    /// refuse it). The fields that it found leave nothing between them but these ends.
    pub(super) fn take(
        &mut self,
        text: &[u8],
        parsed: &[httparse::Header<'_>],
    ) -> Result<(), HeadError> {
        empty_lines_end_well(text)?;
        self.clear();
        self.text.extend_from_slice(text);
        let base = text.as_ptr().addr();
        let ends_well = |line_end: usize| text[..line_end].ends_with(b"\r\n");
        if !text.ends_with(b"\r\n\r\n") {
            return Err(HeadError::LineEnd);
        }
        for header in parsed {
            let name = header.name.as_bytes();
            let start = name.as_ptr().addr() - base;
            if !ends_well(start) {
                return Err(HeadError::LineEnd);
            }
            let known = known(name);
            self.present |= known.bit();
            self.table.push(Field {
                known,
                name: start as u32,
                name_length: name.len() as u32,
                value: if header.value.is_empty() {
                    0
                } else {
                    (header.value.as_ptr().addr() - base) as u32
                },
                value_length: header.value.len() as u32,
            });
        }
        Ok(())
    }
}

/// Nothing where it is not within the text.
pub(super) fn part(text: &[u8], start: u32, length: u32) -> &[u8] {
    let start = start as usize;
    text.get(start..start + length as usize).unwrap_or_default()
}

/// The empty lines that may come before the start line (RFC 9112 §2.2) end with CR LF, too.
fn empty_lines_end_well(text: &[u8]) -> Result<(), HeadError> {
    let mut rest = text;
    while let Some(next) = rest.strip_prefix(b"\r\n") {
        rest = next;
    }
    if rest.starts_with(b"\n") {
        return Err(HeadError::LineEnd);
    }
    Ok(())
}
