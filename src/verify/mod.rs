//! Checks the whole journal: that every checksum fits, that no group is missing, that every line can be read, and that what the lines say
//! can be true together.
//!
//! [`verify`] only reads, so it works on the journal of a running process; `text` and `json` show what it found. Not here: files, terminals
//! and exit codes (`cli`); repairs ([`mod@crate::journal::recover`]); and whether a draw, made again, comes out the same
//! ([`mod@crate::inspect`], which needs the secret for that).

mod checks;
mod json;
mod text;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::ops::{ControlFlow, Range};

use crate::clock::Timestamp;
use crate::journal::archive::check_index;
use crate::journal::checkpoint::{CheckpointError, read as read_checkpoint};
use crate::journal::lines::{Order, SeenGroup, Sight, walk};
use crate::journal::{RecordError, Storage};

pub use json::to_json;
pub use text::render;

use checks::Checks;

/// Problems of one kind that are told one by one; more are counted.
pub const TOLD: usize = 50;

/// How far the records' times may go back, in milliseconds, before it is worth a word: they stand in the order of their commit.
const STEP_BACK: u64 = 10 * 60 * 1000;

/// What can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Bytes whose checksum does not fit.
    Damaged,
    /// Bytes at the end of a segment that is not the last one, and that no commit line closes.
    Unclosed,
    /// A segment that cannot be read.
    UnreadableSegment,
    /// Groups whose numbers are left out.
    MissingGroups,
    /// A group whose number is not above the last.
    MisnumberedGroup,
    /// A commit line that counts other lines than there are.
    LineCount,
    /// A line that is no record.
    UnreadableLine,
    /// A line that a newer release has written.
    NewerRecord,
    /// A line whose fields are not those of its decision id.
    FieldsDiffer,
    /// A decision of a process whose start is not journalled.
    UnknownStart,
    /// Two decisions with one sequence key.
    DuplicateDecision,
    /// A decision under a policy file that was not adopted before.
    UnknownPolicy,
    /// A propensity other than the probability that was journalled.
    Propensity,
    /// An allocation whose number is not one more than the last.
    AllocationVersion,
    /// Probabilities outside [0, 1], or that do not add up to 1.
    Probabilities,
    /// An epoch that is below the last, or that no policy file was adopted into.
    Epoch,
    /// A second reward that counted, under `first`.
    DuplicateReward,
    /// A reward that counted and cannot: it has no value, or its decision was not drawn.
    RewardValue,
    /// Damaged bytes that a start has put aside.
    Quarantined,
    /// An index of a sealed segment that is missing or damaged.
    Index,
    /// A checkpoint that cannot be used.
    Checkpoint,
}

impl Kind {
    /// The word in the report.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::Unclosed => "unclosed",
            Self::UnreadableSegment => "unreadable_segment",
            Self::MissingGroups => "missing_groups",
            Self::MisnumberedGroup => "misnumbered_group",
            Self::LineCount => "line_count",
            Self::UnreadableLine => "unreadable_line",
            Self::NewerRecord => "newer_record",
            Self::FieldsDiffer => "fields_differ",
            Self::UnknownStart => "unknown_start",
            Self::DuplicateDecision => "duplicate_decision",
            Self::UnknownPolicy => "unknown_policy",
            Self::Propensity => "propensity",
            Self::AllocationVersion => "allocation_version",
            Self::Probabilities => "probabilities",
            Self::Epoch => "epoch",
            Self::DuplicateReward => "duplicate_reward",
            Self::RewardValue => "reward_value",
            Self::Quarantined => "quarantined",
            Self::Index => "index",
            Self::Checkpoint => "checkpoint",
        }
    }
}

/// Something that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What.
    pub kind: Kind,
    /// The segment, or the file in quarantine.
    pub segment: String,
    /// Where in the segment, uncompressed.
    pub offset: Option<u64>,
    /// What exactly, for people.
    pub message: String,
}

/// Lines of one type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lines {
    /// How many.
    pub count: u64,
    /// Their bytes, line feeds included.
    pub bytes: u64,
}

/// The end of the last segment that no commit line closes: of a running process a group that is being written, else what a crash has cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Torn {
    /// The segment.
    pub segment: String,
    /// Where.
    pub range: Range<u64>,
}

/// All that was found.
#[derive(Debug, Clone, Default)]
pub struct Verification {
    /// Segments read.
    pub segments: u64,
    /// Bytes of them, uncompressed.
    pub bytes: u64,
    /// Groups whose checksum fits, repeated ones apart.
    pub groups: u64,
    /// Numbers of the first group and of the greatest.
    pub numbers: Option<(u64, u64)>,
    /// Groups that were written twice, as every start does; they count once.
    pub repeated: u64,
    /// Lines by type.
    pub records: BTreeMap<String, Lines>,
    /// Times of the earliest and the latest record.
    pub span: Option<(Timestamp, Timestamp)>,
    /// By how many milliseconds the records' times go back at most, if by more than ten minutes: the clock was set back.
    pub stepped_back: Option<u64>,
    /// Decisions whose propensity was compared with what was journalled.
    pub compared: u64,
    /// Drawn decisions whose allocation is not in the journal any more.
    pub uncompared: u64,
    /// Checkpoints that can be used.
    pub checkpoints: u64,
    /// The unclosed end.
    pub torn: Option<Torn>,
    /// What is wrong, in the journal's order; of each kind at most [`TOLD`].
    pub problems: Vec<Problem>,
    /// How many problems there are of each kind.
    pub counts: BTreeMap<Kind, u64>,
}

impl Verification {
    /// Whether nothing is wrong. An unclosed end is not.
    pub fn holds(&self) -> bool {
        self.counts.is_empty()
    }

    /// Decisions.
    pub fn decisions(&self) -> u64 {
        self.records
            .get("decision")
            .map_or(0, |decisions| decisions.count)
    }

    fn report(&mut self, kind: Kind, segment: &str, offset: Option<u64>, message: String) {
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        if *count <= TOLD as u64 {
            self.problems.push(Problem {
                kind,
                segment: segment.to_owned(),
                offset,
                message,
            });
        }
    }
}

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Segments read.
    pub segments: u64,
    /// Segments there are.
    pub of: u64,
    /// Bytes of the segments read.
    pub bytes: u64,
}

/// Checks the journal on `storage`. `quarantined` are the names of the files that starts have put aside, with their sizes in bytes.
///
/// # Errors
///
/// When the segments cannot be listed. What is wrong is no error but in [`Verification::problems`].
pub fn verify<S: Storage>(
    storage: &S,
    quarantined: &[(String, u64)],
    progress: &mut dyn FnMut(Step),
) -> io::Result<Verification> {
    let mut verifier = Verifier {
        found: Verification::default(),
        checks: Checks::default(),
        segment: String::new(),
        lost: None,
        group: None,
        lines: 0,
    };
    let ControlFlow::Continue(()) = walk(storage, |sight| -> ControlFlow<Infallible> {
        verifier.see(sight, progress);
        ControlFlow::Continue(())
    })?;
    verifier.end_group();
    let mut found = verifier.found;
    (found.compared, found.uncompared) = verifier.checks.compared();
    for (name, bytes) in quarantined {
        let message = format!(
            "{bytes} damaged bytes that a start has put aside; when you have looked at them, move the file away"
        );
        found.report(
            Kind::Quarantined,
            &format!("quarantine/{name}"),
            None,
            message,
        );
    }
    check_beside(storage, &mut found)?;
    Ok(found)
}

/// Checks what is kept beside the segments. Something that is gone by now was deleted by the process that owns the journal.
fn check_beside<S: Storage>(storage: &S, found: &mut Verification) -> io::Result<()> {
    for segment in storage.list()? {
        if storage.is_sealed(segment)
            && let Err(error) = check_index(storage, segment)
            && storage.is_sealed(segment)
        {
            let message = format!(
                "its index cannot be used ({error}): rewards for older decisions count, and may teach nothing about their contexts"
            );
            found.report(Kind::Index, &storage.name(segment), None, message);
        }
    }
    let end = storage.list()?.last().copied().unwrap_or(0);
    for number in storage.checkpoints()? {
        match read_checkpoint(storage, number, end) {
            Ok(_) => found.checkpoints += 1,
            Err(CheckpointError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let name = format!("checkpoint {number}");
                found.report(Kind::Checkpoint, &name, None, error.to_string());
            }
        }
    }
    Ok(())
}

/// Follows the walk.
struct Verifier {
    found: Verification,
    checks: Checks,
    /// The segment's name.
    segment: String,
    /// Index of the problem that tells of damage since the last intact group: groups that are missing then were in it.
    lost: Option<usize>,
    /// The group whose lines are being shown.
    group: Option<SeenGroup>,
    /// Lines of it so far.
    lines: u64,
}

impl Verifier {
    fn see(&mut self, sight: Sight<'_>, progress: &mut dyn FnMut(Step)) {
        match sight {
            Sight::Segment { name, bytes } => {
                name.clone_into(&mut self.segment);
                self.found.segments += 1;
                self.found.bytes += bytes;
            }
            Sight::Unreadable { name, error } => {
                let message = format!("the segment cannot be read: {error}");
                self.found
                    .report(Kind::UnreadableSegment, name, None, message);
                self.checks.lose_track();
            }
            Sight::Group(group) => self.group(group),
            Sight::Line { offset, line } => self.line(offset, line),
            Sight::Damaged(range) => self.damage(
                Kind::Damaged,
                &range,
                "whose checksum does not fit: the bytes were changed after they were written",
            ),
            Sight::Tail {
                range,
                committed: false,
                last: true,
            } => {
                self.end_group();
                self.found.torn = Some(Torn {
                    segment: self.segment.clone(),
                    range,
                });
            }
            Sight::Tail {
                range,
                committed: true,
                ..
            } => self.damage(
                Kind::Damaged,
                &range,
                "at the segment's end whose checksum does not fit: the bytes were changed after they were written",
            ),
            Sight::Tail { range, .. } => self.damage(
                Kind::Unclosed,
                &range,
                "at the segment's end that no commit line closes: the segment was cut, or its last group was given up",
            ),
            Sight::Done { segments, of } => {
                self.end_group();
                progress(Step {
                    segments,
                    of,
                    bytes: self.found.bytes,
                });
            }
        }
    }

    fn group(&mut self, group: SeenGroup) {
        self.end_group();
        let lost = self.lost.take();
        if group.order == Order::Repeated {
            self.found.repeated += 1;
            return;
        }
        self.found.groups += 1;
        let numbers = self.found.numbers.unwrap_or((group.number, 0));
        self.found.numbers = Some((numbers.0, numbers.1.max(group.number)));
        match group.order {
            Order::First if self.found.groups == 1 && group.number == 1 => {}
            Order::First => self.checks.lose_track(),
            Order::After(missing) => self.missing(&group, missing, lost),
            Order::Misnumbered => {
                let message = format!(
                    "group {} comes after group {}: a segment was renamed, copied or brought back",
                    group.number, numbers.1
                );
                let offset = Some(group.offset);
                self.found
                    .report(Kind::MisnumberedGroup, &self.segment, offset, message);
            }
            Order::Next | Order::Repeated => {}
        }
        self.group = Some(group);
        self.lines = 0;
    }

    /// Groups are missing before this one: they were in the damage before it, or are gone.
    fn missing(&mut self, group: &SeenGroup, missing: u64, lost: Option<usize>) {
        self.checks.lose_track();
        let first = group.number - missing;
        let last = group.number - 1;
        let which = if missing == 1 {
            format!("group {first} is")
        } else {
            format!("groups {first} to {last} are")
        };
        if let Some(problem) = lost.and_then(|index| self.found.problems.get_mut(index)) {
            problem.message.push_str(&format!("; {which} lost"));
            return;
        }
        let message = format!(
            "{which} missing before group {}: a segment was deleted or cut",
            group.number
        );
        let offset = Some(group.offset);
        self.found
            .report(Kind::MissingGroups, &self.segment, offset, message);
    }

    fn damage(&mut self, kind: Kind, range: &Range<u64>, what: &str) {
        self.end_group();
        let message = format!("{} bytes {what}", range.end - range.start);
        let told = self.found.problems.len();
        self.found
            .report(kind, &self.segment, Some(range.start), message);
        self.checks.lose_track();
        // Damage that is only counted cannot say what was in it.
        self.lost = (self.found.problems.len() > told)
            .then_some(told)
            .or(self.lost);
    }

    fn end_group(&mut self) {
        let Some(group) = self.group.take() else {
            return;
        };
        if group.count != self.lines {
            let message = format!(
                "the commit line of group {} says {} lines, and there are {}",
                group.number, group.count, self.lines
            );
            let offset = Some(group.offset);
            self.found
                .report(Kind::LineCount, &self.segment, offset, message);
        }
    }

    fn line(&mut self, offset: u64, line: &[u8]) {
        self.lines += 1;
        let found = &mut self.found;
        let word = type_of(line);
        if !found.records.contains_key(word) {
            found.records.insert(word.to_owned(), Lines::default());
        }
        if let Some(lines) = found.records.get_mut(word) {
            lines.count += 1;
            lines.bytes += line.len() as u64 + 1;
        }
        let segment = &self.segment;
        let mut report = |kind, message| found.report(kind, segment, Some(offset), message);
        match self.checks.check(line, &mut report) {
            Ok(at) => self.time(at),
            Err(error @ RecordError::Newer { .. }) => {
                report(Kind::NewerRecord, error.to_string());
            }
            Err(error) => report(
                Kind::UnreadableLine,
                format!(
                    "the line cannot be read, and recovery leaves its whole group out: {error}"
                ),
            ),
        }
    }

    fn time(&mut self, at: Timestamp) {
        let (first, last) = self.found.span.unwrap_or((at, at));
        let back = last.since(at);
        if back > self.found.stepped_back.unwrap_or(STEP_BACK) {
            self.found.stepped_back = Some(back);
        }
        self.found.span = Some((first.min(at), last.max(at)));
    }
}

/// The type of a line as our writer spells it.
fn type_of(line: &[u8]) -> &str {
    let rest = line.strip_prefix(b"{\"type\":\"").unwrap_or_default();
    let end = rest
        .iter()
        .take(32)
        .position(|byte| *byte == b'"')
        .unwrap_or(0);
    match std::str::from_utf8(&rest[..end]) {
        Ok(word) if !word.is_empty() => word,
        _ => "other",
    }
}

#[cfg(test)]
mod tests;
