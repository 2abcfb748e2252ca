//! Appends events in groups and commits them.
//!
//! A group is a run of lines and the commit line that closes it; groups are numbered without gaps and written one at a
//! time. A closed group never changes: if its commit fails, the segment is given up, and the next commit writes the very same
//! bytes, number included, to a new one. So recovery can tell a rewritten group from a new one, and only the last group
//! of a journal can be in doubt.
//! Not here: waiting, retrying in time, and telling clients. The owner calls [`Writer::commit`] again when it wants to.

use std::collections::VecDeque;
use std::io;

use super::encode::Encoder;
use super::reader::write_commit;
use super::storage::{Segment, Storage};
use crate::decision_id::DecisionId;
use crate::engine::event::Event;
use crate::experiment::decision::Decision;

/// A group is closed before it grows beyond this; a single longer line has a group of its own.
pub const GROUP_BYTES: usize = 1 << 20;

/// What may wait for a commit; beyond it appends are refused, so that a dead disk cannot fill the memory.
pub const MAX_PENDING_BYTES: usize = 16 << 20;

/// Whether a commit waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// A commit returns after the sync that covers it.
    #[default]
    Group,
    /// A commit returns after the write: a power cut may lose it, a crash of the process does not. For benchmarks and tests.
    None,
}

/// How a writer writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Whether a commit waits for the disk.
    pub durability: Durability,
    /// A new segment is begun when the live one has reached this many bytes.
    pub segment_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            durability: Durability::Group,
            segment_bytes: 64 << 20,
        }
    }
}

/// Where a writer goes on. Recovery gives it; the default is an empty journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The number of the next segment.
    pub segment: u64,
    /// The number of the next group.
    pub group: u64,
    /// The last group of the journal.
    pub last: Option<LastGroup>,
}

/// The last group of a journal. The process that wrote it may have been killed between writing and syncing, or after a failed sync:
/// then it can be read now and may be gone after a power cut. So it is written again, first of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastGroup {
    /// The segment that holds it.
    pub segment: u64,
    /// Where in the segment it begins.
    pub start: u64,
    /// Its lines and its commit line.
    pub bytes: Vec<u8>,
}

impl Default for Position {
    fn default() -> Self {
        Self {
            segment: 1,
            group: 1,
            last: None,
        }
    }
}

/// Too much waits for a commit; the event was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the journal cannot be written and {MAX_PENDING_BYTES} bytes are waiting for it")]
pub struct Backlogged;

/// The live segment.
#[derive(Debug)]
struct Live<F> {
    number: u64,
    file: F,
    /// Bytes that were acknowledged.
    length: u64,
    /// Whether the directory holds its name durably.
    named: bool,
}

/// The journal's one writer.
#[derive(Debug)]
pub struct Writer<S: Storage> {
    storage: S,
    encoder: Encoder,
    options: Options,
    next_segment: u64,
    next_group: u64,
    live: Option<Live<S::Segment>>,
    /// A segment of which only this many bytes are needed once another has taken over.
    abandoned: Option<(u64, u64)>,
    failing: bool,
    /// Closed groups, the first of which may have failed: never changed again.
    closed: VecDeque<Vec<u8>>,
    closed_bytes: usize,
    /// The lines of the open group.
    open: Vec<u8>,
    open_lines: u64,
    /// An empty buffer to be used again.
    spare: Vec<u8>,
}

impl<S: Storage> Writer<S> {
    /// A writer that goes on at `position`. Nothing is written before the first commit, which begins a new segment with
    /// a copy of the last group.
    pub fn new(storage: S, encoder: Encoder, position: Position, options: Options) -> Self {
        let mut writer = Self {
            storage,
            encoder,
            options,
            next_segment: position.segment,
            next_group: position.group,
            live: None,
            abandoned: None,
            failing: false,
            closed: VecDeque::new(),
            closed_bytes: 0,
            open: Vec::new(),
            open_lines: 0,
            spare: Vec::new(),
        };
        if let Some(last) = position.last {
            writer.abandoned = Some((last.segment, last.start));
            writer.closed_bytes = last.bytes.len();
            writer.closed.push_back(last.bytes);
        }
        writer
    }

    /// `id` was signed for this decision with the writer's keys: it is not signed again if it is appended soon.
    pub fn note_signed(&self, decision: &Decision, id: DecisionId) {
        self.encoder.note_signed(decision, id);
    }

    /// Adds an event to the open group. Nothing is written before [`Writer::commit`].
    ///
    /// # Errors
    ///
    /// [`Backlogged`] when [`MAX_PENDING_BYTES`] are waiting; the event was not taken.
    pub fn append(&mut self, event: &Event) -> Result<(), Backlogged> {
        if self.pending_bytes() >= MAX_PENDING_BYTES {
            return Err(Backlogged);
        }
        let start = self.open.len();
        self.encoder.encode(event, &mut self.open);
        if self.open.len() > GROUP_BYTES && self.open_lines > 0 {
            let line = self.open.split_off(start);
            self.close_group();
            self.open.extend_from_slice(&line);
        }
        self.open_lines += 1;
        Ok(())
    }

    /// Writes everything that was appended, group by group, each synced before the next is written. Without anything
    /// pending it does nothing.
    ///
    /// # Errors
    ///
    /// The disk's error. Nothing that was pending is lost or acknowledged: it stays pending, the segment is given up, and
    /// the next call writes the same groups to a new segment.
    pub fn commit(&mut self) -> io::Result<()> {
        loop {
            // While it fails, what is appended gathers in one group instead of one for every attempt.
            if self.closed.is_empty() {
                self.close_group();
            }
            let Some(group) = self.closed.pop_front() else {
                return Ok(());
            };
            if let Err(error) = self.write(&group) {
                self.closed.push_front(group);
                self.failing = true;
                self.give_up_segment();
                return Err(error);
            }
            self.failing = false;
            self.closed_bytes -= group.len();
            self.spare = group;
            self.spare.clear();
            self.drop_abandoned();
        }
    }

    /// Where it writes; to be read by who knows what has been committed.
    pub fn storage(&self) -> &S {
        &self.storage
    }

    /// Bytes that wait for a commit.
    pub fn pending_bytes(&self) -> usize {
        self.closed_bytes + self.open.len()
    }

    /// Whether the last commit failed. Rewards answer 503 while it did; decisions go on.
    pub fn is_failing(&self) -> bool {
        self.failing
    }

    /// Whether the live segment has as many bytes as it may have.
    pub fn is_full(&self) -> bool {
        let limit = self.options.segment_bytes;
        self.live.as_ref().is_some_and(|live| live.length >= limit)
    }

    /// Ends the live segment: the next commit begins another.
    pub fn finish_segment(&mut self) {
        self.live = None;
    }

    /// Segments below this are never written to again, unless the journal fails.
    pub fn unfinished(&self) -> u64 {
        self.live_segment().unwrap_or(self.next_segment)
    }

    /// The number of the live segment; `None` before the first commit and while the journal fails.
    pub fn live_segment(&self) -> Option<u64> {
        self.live.as_ref().map(|live| live.number)
    }

    /// The encoder: its directory holds the names of everything appended.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    fn close_group(&mut self) {
        if self.open_lines == 0 {
            return;
        }
        write_commit(&mut self.open, 0, self.open_lines, self.next_group);
        self.next_group += 1;
        self.open_lines = 0;
        self.closed_bytes += self.open.len();
        let empty = std::mem::take(&mut self.spare);
        let group = std::mem::replace(&mut self.open, empty);
        self.closed.push_back(group);
    }

    fn write(&mut self, group: &[u8]) -> io::Result<()> {
        let limit = self.options.segment_bytes;
        if self.live.as_ref().is_none_or(|live| live.length >= limit) {
            self.begin_segment()?;
        }
        let Some(live) = &mut self.live else {
            return Ok(());
        };
        live.file.append(group)?;
        if self.options.durability == Durability::Group {
            live.file.sync()?;
            if !live.named {
                self.storage.sync_directory()?;
                live.named = true;
            }
        }
        live.length += group.len() as u64;
        Ok(())
    }

    fn begin_segment(&mut self) -> io::Result<()> {
        let number = self.next_segment;
        // Spent even if this fails: a number whose file may exist is never used again.
        self.next_segment += 1;
        self.live = None;
        self.live = Some(Live {
            number,
            file: self.storage.create(number)?,
            length: 0,
            named: false,
        });
        Ok(())
    }

    /// Never writes to the live segment again. One in which nothing was acknowledged is removed, so that retries on a full
    /// disk do not leave a file each; failing that it stays, and recovery knows what to make of it.
    fn give_up_segment(&mut self) {
        if let Some(live) = self.live.take() {
            if live.length == 0 {
                self.storage.remove(live.number).ok();
            } else {
                self.abandoned = Some((live.number, live.length));
            }
        }
    }

    /// Another segment holds the group now, so what the abandoned one has from there on is not needed. If this fails, recovery
    /// skips the repeated group. Without syncs the old copy may be the only durable one, and stays.
    fn drop_abandoned(&mut self) {
        let Some((segment, length)) = self.abandoned.take() else {
            return;
        };
        match (self.options.durability, length) {
            (Durability::None, _) => {}
            (Durability::Group, 0) => {
                self.storage.remove(segment).ok();
            }
            (Durability::Group, _) => {
                self.storage.truncate(segment, length).ok();
            }
        }
    }
}
