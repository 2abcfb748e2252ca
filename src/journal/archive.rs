//! Sealing finished segments, and finding single lines in sealed ones again.
//!
//! Not here: when to seal (`ledger`), and the bytes of a sealed segment (`sealed`) and of its index (`index`).

use std::collections::BTreeMap;
use std::io;

use memchr::memmem::Finder;

use super::decode::Decoder;
use super::index::{Builder, HEAD, Head, Table, is_intact};
use super::reader::{Chunk, Chunks};
use super::scalar::parse_time;
use super::sealed::{Frame, seal, unseal_frame};
use super::storage::{Part, Storage};
use crate::clock::Timestamp;
use crate::decision_id::decode_unverified;
use crate::engine::event::Event;
use crate::experiment::context::Context;
use crate::experiment::decision::{Decision, Label};

/// Seals a segment that nobody writes to any more.
///
/// # Errors
///
/// The disk's. The segment can be read as before.
pub fn seal_segment<S: Storage>(storage: &S, segment: u64) -> io::Result<()> {
    let mut bytes = Vec::new();
    storage.read(segment, &mut bytes)?;
    let (sealed, frames) = seal(&bytes)?;
    let index = index_of(&bytes).build(&frames);
    storage.seal(segment, &sealed, &index)
}

/// What the index of a segment says of its intact groups.
fn index_of(bytes: &[u8]) -> Builder {
    let mut builder = Builder::default();
    let context = Finder::new(b",\"context\":{");
    let prediction = Finder::new(b",\"prediction\":");
    for chunk in Chunks::new(bytes) {
        let Chunk::Group(group) = chunk else { continue };
        let mut start = group.lines.start;
        for length in memchr::memchr_iter(b'\n', &bytes[group.lines.clone()]) {
            let end = group.lines.start + length;
            let line = &bytes[start..end];
            if let Some(at) = time_of(line) {
                builder.time(at);
            }
            let decided = line.starts_with(b"{\"type\":\"decision\"");
            let ended = line.starts_with(b"{\"type\":\"outcome\"");
            if (decided || ended)
                && let Some(decision) = decision_of(line)
            {
                builder.decision(decision.at);
                if decided && context.find(line).is_some() {
                    builder.line(Table::Contexts, decision.sequence, start);
                }
                if ended && prediction.find(line).is_some() {
                    builder.line(Table::Predictions, decision.sequence, start);
                }
            }
            start = end + 1;
        }
    }
    builder
}

/// The decision that a line is about.
fn decision_of(line: &[u8]) -> Option<Decision> {
    let id = text_field(line, b"\"id\":\"")?;
    decode_unverified(std::str::from_utf8(id).ok()?).ok()
}

/// When the record was made.
fn time_of(line: &[u8]) -> Option<Timestamp> {
    let text = text_field(line, b"\"at\":\"")?;
    parse_time("at", std::str::from_utf8(text).ok()?).ok()
}

/// The text after `key`, up to the quote.
fn text_field<'a>(line: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let rest = &line[memchr::memmem::find(line, key)? + key.len()..];
    Some(&rest[..memchr::memchr(b'"', rest)?])
}

/// Finds contexts and predictions in sealed segments.
#[derive(Debug, Default)]
pub struct Archive {
    /// The heads of the indexes; `None` of one that cannot be read.
    heads: BTreeMap<u64, Option<Head>>,
    /// The group that was read last: segment, frame, lines.
    last: Option<(u64, Frame, Vec<u8>)>,
}

impl Archive {
    /// Takes note of segments that were sealed or removed since. Returns how many there are.
    ///
    /// # Errors
    ///
    /// The disk's.
    pub fn refresh<S: Storage>(&mut self, storage: &S) -> io::Result<usize> {
        let mut heads = BTreeMap::new();
        for segment in storage.list()? {
            if storage.is_sealed(segment) {
                let known = self.heads.get(&segment).copied();
                let head = known.unwrap_or_else(|| head_of(storage, segment).ok());
                heads.insert(segment, head);
            }
        }
        self.heads = heads;
        Ok(self.heads.len())
    }

    /// The sealed segments with what is known of each, ascending.
    pub fn segments(&self) -> impl Iterator<Item = (u64, Option<Head>)> + '_ {
        self.heads.iter().map(|(segment, head)| (*segment, *head))
    }

    /// What a decision was made upon, if a sealed segment has it.
    ///
    /// # Errors
    ///
    /// The disk's, or damage.
    pub fn context<S: Storage>(
        &mut self,
        storage: &S,
        decision: &Decision,
    ) -> io::Result<Option<Context>> {
        self.find(storage, Table::Contexts, decision, |event| match event {
            Event::Decided(logged) if logged.decision.sequence == decision.sequence => {
                let logged = logged.context?;
                logged.found().is_some().then_some(logged.context)
            }
            _ => None,
        })
    }

    /// What the arm has predicted, if a sealed segment has it.
    ///
    /// # Errors
    ///
    /// The disk's, or damage.
    pub fn prediction<S: Storage>(
        &mut self,
        storage: &S,
        decision: &Decision,
    ) -> io::Result<Option<Label>> {
        self.find(storage, Table::Predictions, decision, |event| match event {
            Event::Ended(outcome) if outcome.decision.sequence == decision.sequence => {
                outcome.prediction
            }
            _ => None,
        })
    }

    fn find<S: Storage, T>(
        &mut self,
        storage: &S,
        table: Table,
        decision: &Decision,
        wanted: impl Fn(Event) -> Option<T>,
    ) -> io::Result<Option<T>> {
        let covering: Vec<(u64, Head)> = self
            .heads
            .iter()
            .filter_map(|(segment, head)| Some((*segment, (*head)?)))
            .filter(|(_, head)| head.covers(decision.at))
            .collect();
        for (segment, head) in covering {
            let read = |place, length| storage.read_part(segment, Part::Index, place, length);
            for start in head.find(table, decision.sequence, read)? {
                let frame = head.frame(start, read)?;
                let lines = self.lines(storage, segment, frame)?;
                let from = (u64::from(start) - frame.start) as usize;
                let line = lines.get(from..).unwrap_or_default();
                let line = &line[..memchr::memchr(b'\n', line).unwrap_or(line.len())];
                let event = Decoder::default().decode(line).map_err(io::Error::other)?;
                if let Some(found) = wanted(event) {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    /// The lines of a group.
    fn lines<S: Storage>(&mut self, storage: &S, segment: u64, frame: Frame) -> io::Result<&[u8]> {
        let known = matches!(&self.last, Some((of, at, _)) if (*of, *at) == (segment, frame));
        if !known {
            let sealed =
                storage.read_part(segment, Part::Lines, frame.sealed, frame.length as usize)?;
            self.last = Some((segment, frame, unseal_frame(&sealed)?));
        }
        Ok(self.last.as_ref().map_or(&[], |(_, _, lines)| lines))
    }
}

/// Whether the index of a sealed segment is as it was written.
///
/// # Errors
///
/// The disk's; [`io::ErrorKind::InvalidData`] if it is damaged.
pub fn check_index<S: Storage>(storage: &S, segment: u64) -> io::Result<()> {
    let head = head_of(storage, segment)?;
    let bytes = storage.read_part(segment, Part::Index, 0, head.length())?;
    if is_intact(&bytes) {
        Ok(())
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

fn head_of<S: Storage>(storage: &S, segment: u64) -> io::Result<Head> {
    let bytes = storage.read_part(segment, Part::Index, 0, HEAD)?;
    Head::read(&bytes).ok_or_else(|| io::ErrorKind::InvalidData.into())
}
