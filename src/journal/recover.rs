//! Walks all segments in order and gives each event once: at a start ([`recover`], which also repairs) and for commands
//! that only look ([`scan`], and [`search`] for those that look for a few lines among many).
//!
//! A group is read whole before any of its events is given, so it is folded whole or not at all. Replay never judges:
//! what an event means was decided when it was written.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use memchr::memchr_iter;
use serde::{Deserialize, Serialize};

use super::decode::{Decoder, RecordError};
use super::encode::Directory;
use super::reader::{Chunk, Chunks, Group};
use super::storage::Storage;
use super::writer::{LastGroup, Position};
use crate::engine::event::{Event, PolicyAdopted};
use crate::experiment::id::{ArmId, ExperimentId};

/// How many groups are remembered to recognise a repeated one. Only the last group before a failure is ever rewritten, so
/// this is generous.
pub(super) const REMEMBERED: usize = 64;

/// Why the journal cannot be used. Damage is not among it: damage is repaired and reported.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The disk's error.
    #[error("journal: cannot {doing}: {source}")]
    Io {
        /// What was being done, with the file's name.
        doing: String,
        /// The disk's error.
        source: io::Error,
    },
    /// A newer release has written here; reading on would fold to a wrong state.
    #[error("journal: {segment}, byte {offset}: {source}")]
    Newer {
        /// The segment's name.
        segment: String,
        /// Where the line begins.
        offset: usize,
        /// What it is.
        source: RecordError,
    },
}

/// Bytes that belong to no intact group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The segment's name.
    pub segment: String,
    /// Where in the segment.
    pub range: Range<usize>,
    /// What is wrong.
    pub why: String,
    /// Where a copy was put; `None` when only looking.
    pub copy: Option<PathBuf>,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Segments read.
    pub segments: u64,
    /// Groups folded.
    pub groups: u64,
    /// The number of the first of them; above 1 where the beginning of the journal was deleted.
    pub first_group: Option<u64>,
    /// Events folded; of a search those that were wanted.
    pub events: u64,
    /// Groups that were there before, rewritten after a failed commit: not folded again.
    pub repeated_groups: u64,
    /// Groups whose number is not above the last and that are no repeats: folded, and not to be expected.
    pub misnumbered_groups: u64,
    /// Groups whose numbers are left out between the first and the last: damaged, or in a segment that is gone.
    pub missing_groups: u64,
    /// Bytes after the last intact group of the last segment: cut (or, when only looking, to be cut).
    pub cut_bytes: u64,
    /// Damaged bytes elsewhere, and cut bytes that held a commit line: copied to quarantine when repairing.
    pub damaged: Vec<Damage>,
}

impl Report {
    /// Whether nothing was torn or damaged.
    pub fn is_clean(&self) -> bool {
        self.cut_bytes == 0
            && self.damaged.is_empty()
            && self.misnumbered_groups == 0
            && self.missing_groups == 0
    }
}

/// What recovery hands to the rest of the program.
#[derive(Debug, Clone, Default)]
pub struct Recovered {
    /// What was found.
    pub report: Report,
    /// Where the writer goes on: always in a new segment. The events of the last group are safe from a power cut only after its
    /// first commit, so answer for nothing before that.
    pub position: Position,
    /// The names in all `policy` records.
    pub directory: Directory,
    /// What reading on after the last segment needs to know.
    pub known: Known,
}

/// What reading on after some segments needs to know of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Known {
    /// The last of these segments.
    pub segment: u64,
    /// The number that the next group should have.
    group: u64,
    /// Number and checksum of the last groups, to recognise a repeated one.
    seen: VecDeque<(u64, u32)>,
    /// Of each experiment the latest `policy` record, and in it all arms that any of them had.
    policies: BTreeMap<ExperimentId, PolicyAdopted>,
}

impl Known {
    fn adopt(&mut self, policy: &PolicyAdopted) {
        let mut policy = policy.clone();
        policy.text = Arc::default();
        if let Some(earlier) = self.policies.remove(&policy.experiment) {
            let gone = |arm: &(ArmId, _, _)| !policy.arms.iter().any(|other| other.0 == arm.0);
            let gone: Vec<_> = earlier.arms.into_iter().filter(gone).collect();
            policy.arms.extend(gone);
        }
        self.policies.insert(policy.experiment, policy);
    }
}

/// Gives every event of every intact group to `sink`, in order and once; cuts the torn tail of the last segment and
/// copies damaged bytes to quarantine. Only for the process that holds the lock of the data directory.
///
/// # Errors
///
/// See [`RecoveryError`].
pub fn recover<S: Storage>(
    storage: &S,
    sink: impl FnMut(Event),
) -> Result<Recovered, RecoveryError> {
    recover_after(storage, Known::default(), sink)
}

/// As [`recover`], of the segments after those of a checkpoint.
///
/// # Errors
///
/// See [`RecoveryError`].
pub fn recover_after<S: Storage>(
    storage: &S,
    known: Known,
    sink: impl FnMut(Event),
) -> Result<Recovered, RecoveryError> {
    Walk::new(storage, true).after(known).run(&mut All(sink))
}

/// As [`recover_after`], of the segments before `live` only: those that nobody writes to any more. Nothing is cut.
///
/// # Errors
///
/// See [`RecoveryError`].
pub fn recover_between<S: Storage>(
    storage: &S,
    known: Known,
    live: u64,
    sink: impl FnMut(Event),
) -> Result<Recovered, RecoveryError> {
    let mut walk = Walk::new(storage, true).after(known);
    walk.before = live;
    walk.run(&mut All(sink))
}

/// As [`recover`], but changes nothing: what would be cut or copied is only reported. Also for the journal of a running
/// process, whose last group may be half written.
///
/// # Errors
///
/// See [`RecoveryError`].
pub fn scan<S: Storage>(storage: &S, sink: impl FnMut(Event)) -> Result<Recovered, RecoveryError> {
    Walk::new(storage, false).run(&mut All(sink))
}

/// As [`scan`], of the segments after those of a checkpoint.
///
/// # Errors
///
/// See [`RecoveryError`].
pub fn scan_after<S: Storage>(
    storage: &S,
    known: Known,
    sink: impl FnMut(Event),
) -> Result<Recovered, RecoveryError> {
    Walk::new(storage, false).after(known).run(&mut All(sink))
}

/// What is looked for in a journal.
pub trait Search {
    /// Whether a line (without its line feed) is to be decoded and given. Asked of every line, so it should look at bytes.
    fn wants(&mut self, line: &[u8]) -> bool;

    /// An event whose line was wanted.
    fn event(&mut self, event: Event);

    /// So many segments are read, of so many.
    fn progress(&mut self, _done: u64, _segments: u64) {}

    /// Whether all is found: later segments are not read.
    fn is_done(&self) -> bool {
        false
    }
}

/// As [`scan`], but decodes and counts only the lines that `search` wants. Lines that it does not want may be of a newer release. Checksums
/// are checked of all. The directory has the names in the `policy` records that were wanted.
///
/// # Errors
///
/// See [`RecoveryError`].
pub fn search<S: Storage>(
    storage: &S,
    search: &mut impl Search,
) -> Result<Recovered, RecoveryError> {
    Walk::new(storage, false).run(search)
}

/// The number of the journal's first intact group: 1, unless older segments were deleted. `None` of an empty journal.
///
/// # Errors
///
/// See [`RecoveryError`].
pub fn begins_at<S: Storage>(storage: &S) -> Result<Option<u64>, RecoveryError> {
    let found = Walk::new(storage, false).run(&mut Glance { groups: 0 })?;
    Ok(found.report.first_group)
}

/// Wants nothing of the first segments, until there is a group.
struct Glance {
    groups: u64,
}

impl Search for Glance {
    fn wants(&mut self, _line: &[u8]) -> bool {
        self.groups += 1;
        false
    }

    fn event(&mut self, _event: Event) {}

    fn is_done(&self) -> bool {
        self.groups > 0
    }
}

/// Wants everything.
struct All<F>(F);

impl<F: FnMut(Event)> Search for All<F> {
    fn wants(&mut self, _line: &[u8]) -> bool {
        true
    }

    fn event(&mut self, event: Event) {
        (self.0)(event);
    }
}

struct Walk<'a, S: Storage> {
    storage: &'a S,
    repair: bool,
    found: Recovered,
    decoder: Decoder,
    /// Segments from here on are not read.
    before: u64,
    /// The events of the group being read.
    events: Vec<Event>,
    /// Where in the segment being read the last folded group is.
    last: Option<Range<usize>>,
}

impl<'a, S: Storage> Walk<'a, S> {
    fn new(storage: &'a S, repair: bool) -> Self {
        Self {
            storage,
            repair,
            found: Recovered::default(),
            decoder: Decoder::default(),
            before: u64::MAX,
            events: Vec::new(),
            last: None,
        }
    }

    /// Goes on after what is known.
    fn after(mut self, known: Known) -> Self {
        for policy in known.policies.values() {
            self.decoder.adopt(policy);
            self.found.directory.adopt(policy);
        }
        let position = &mut self.found.position;
        position.segment = position.segment.max(known.segment.saturating_add(1));
        position.group = position.group.max(known.group);
        self.found.known = known;
        self
    }

    fn run(mut self, search: &mut impl Search) -> Result<Recovered, RecoveryError> {
        let all = self
            .storage
            .list()
            .map_err(|source| io_error("list the segments", source))?;
        let wanted = self.found.known.segment..self.before;
        let segments: Vec<u64> = all
            .iter()
            .copied()
            .filter(|segment| *segment > wanted.start && *segment < wanted.end)
            .collect();
        let mut bytes = Vec::new();
        for (index, segment) in segments.iter().enumerate() {
            match self.storage.read(*segment, &mut bytes) {
                // Whoever only looks may be overtaken by the process that owns the journal and deletes old segments.
                Err(error) if !self.repair && error.kind() == io::ErrorKind::NotFound => continue,
                read => read.map_err(|source| {
                    io_error(&format!("read {}", self.storage.name(*segment)), source)
                })?,
            }
            self.found.report.segments += 1;
            self.found.position.segment = segment.saturating_add(1);
            // What is sealed was finished.
            let last = all.last() == Some(segment) && !self.storage.is_sealed(*segment);
            self.segment(*segment, &bytes, last, search)?;
            search.progress(index as u64 + 1, segments.len() as u64);
            if search.is_done() {
                break;
            }
        }
        let Recovered {
            known, position, ..
        } = &mut self.found;
        known.segment = position.segment.saturating_sub(1);
        known.group = position.group;
        Ok(self.found)
    }

    fn segment(
        &mut self,
        segment: u64,
        bytes: &[u8],
        last: bool,
        search: &mut impl Search,
    ) -> Result<(), RecoveryError> {
        for chunk in Chunks::new(bytes) {
            match chunk {
                Chunk::Group(group) => self.group(segment, bytes, &group, search)?,
                Chunk::Damaged(range) => {
                    self.damage(segment, bytes, range, "its checksum does not fit".into())?;
                }
                Chunk::Tail { range, committed } if last => {
                    self.tail(segment, bytes, range, committed)?;
                }
                Chunk::Tail { range, .. } => {
                    let why = "it is not closed by an intact commit line".into();
                    self.damage(segment, bytes, range, why)?;
                }
            }
        }
        if let Some(range) = self.last.take() {
            // What is sealed was synced.
            let open = !self.storage.is_sealed(segment);
            self.found.position.last = open.then(|| LastGroup {
                segment,
                start: range.start as u64,
                bytes: bytes[range].to_vec(),
            });
        }
        Ok(())
    }

    fn group(
        &mut self,
        segment: u64,
        bytes: &[u8],
        group: &Group,
        search: &mut impl Search,
    ) -> Result<(), RecoveryError> {
        let key = (group.number, group.crc);
        if group.number < self.found.position.group {
            if self.found.known.seen.contains(&key) {
                self.found.report.repeated_groups += 1;
                return Ok(());
            }
            self.found.report.misnumbered_groups += 1;
        }
        match self.read_events(bytes, group.lines.clone(), search) {
            Ok(()) => {}
            Err((offset, source @ RecordError::Newer { .. })) => {
                let segment = self.storage.name(segment);
                return Err(RecoveryError::Newer {
                    segment,
                    offset,
                    source,
                });
            }
            Err((offset, error)) => {
                let why = format!("byte {offset} begins a line that cannot be read: {error}");
                return self.damage(segment, bytes, group.lines.clone(), why);
            }
        }
        let seen = &mut self.found.known.seen;
        if seen.len() == REMEMBERED {
            seen.pop_front();
        }
        seen.push_back(key);
        self.count(group.number);
        self.found.report.events += self.events.len() as u64;
        self.last = Some(group.lines.start..group.end);
        for event in self.events.drain(..) {
            if let Event::PolicyAdopted(policy) = &event {
                self.found.directory.adopt(policy);
                self.found.known.adopt(policy);
            }
            search.event(event);
        }
        Ok(())
    }

    /// Counts a group that is about to be folded. The first may have any number: older segments are deleted in time.
    fn count(&mut self, number: u64) {
        let expected = &mut self.found.position.group;
        self.found.report.first_group.get_or_insert(number);
        if self.found.report.groups > 0 || self.found.known.group > 0 {
            self.found.report.missing_groups += number.saturating_sub(*expected);
        }
        *expected = (*expected).max(number.saturating_add(1));
        self.found.report.groups += 1;
    }

    /// Reads the wanted lines in `range`; an error says where its line begins.
    fn read_events(
        &mut self,
        bytes: &[u8],
        range: Range<usize>,
        search: &mut impl Search,
    ) -> Result<(), (usize, RecordError)> {
        self.events.clear();
        let mut start = range.start;
        for end in memchr_iter(b'\n', &bytes[range.clone()]) {
            let end = range.start + end;
            let line = &bytes[start..end];
            if search.wants(line) {
                let event = self.decoder.decode(line).map_err(|error| (start, error))?;
                self.events.push(event);
            }
            start = end + 1;
        }
        Ok(())
    }

    fn damage(
        &mut self,
        segment: u64,
        bytes: &[u8],
        range: Range<usize>,
        why: String,
    ) -> Result<(), RecoveryError> {
        let copy = self
            .repair
            .then(|| {
                let offset = range.start as u64;
                self.storage
                    .quarantine(segment, offset, &bytes[range.clone()])
            })
            .transpose()
            .map_err(|source| {
                let doing = format!("keep the damaged bytes of {}", self.storage.name(segment));
                io_error(&doing, source)
            })?;
        self.found.report.damaged.push(Damage {
            segment: self.storage.name(segment),
            range,
            why,
            copy,
        });
        Ok(())
    }

    /// Cuts what follows the last intact group of the journal. It was never acknowledged, unless the disk has damaged it since:
    /// where it holds a whole commit line that may be so, and a copy is kept.
    fn tail(
        &mut self,
        segment: u64,
        bytes: &[u8],
        range: Range<usize>,
        committed: bool,
    ) -> Result<(), RecoveryError> {
        let start = range.start as u64;
        self.found.report.cut_bytes += range.len() as u64;
        if committed {
            let why = "its checksum does not fit".into();
            self.damage(segment, bytes, range, why)?;
        }
        if !self.repair {
            return Ok(());
        }
        self.storage.truncate(segment, start).map_err(|source| {
            let doing = format!("cut the torn end of {}", self.storage.name(segment));
            io_error(&doing, source)
        })
    }
}

fn io_error(doing: &str, source: io::Error) -> RecoveryError {
    RecoveryError::Io {
        doing: doing.to_owned(),
        source,
    }
}
