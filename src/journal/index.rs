//! Which line of a sealed segment has a decision's context or prediction: a sorted table beside the segment.
//!
//! A reward may come when its decision is no longer in memory. Then the segments of the decision's time are looked through: some twenty
//! small reads find the line's place, and one group is decompressed. Pure: bytes in, bytes out.
//!
//! Layout, all numbers little-endian: eight bytes of magic; counts of frames (u32), contexts (u32) and predictions (u32); the earliest and the
//! latest time of a decision in the segment and the latest time of any record (u64 each, milliseconds); the frames (start u64, sealed u64, length u32);
//! the contexts, then the predictions, each sorted (hash u64, start of the line u32); a CRC-32 of all this (u32).

use std::hash::Hasher;
use std::io;

use siphasher::sip::SipHasher24;

use super::sealed::Frame;
use crate::clock::Timestamp;
use crate::experiment::id::SequenceKey;

const MAGIC: &[u8; 8] = b"pmindex1";

/// Length of what stands before the frames.
pub const HEAD: usize = 8 + 3 * 4 + 3 * 8;

const FRAME: usize = 8 + 8 + 4;
const ENTRY: usize = 8 + 4;

/// What may be looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// Decisions that were made upon a context.
    Contexts,
    /// Outcomes with a prediction.
    Predictions,
}

/// The beginning of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    frames: u32,
    contexts: u32,
    predictions: u32,
    /// Earliest time of a decision in the segment; later than `last_decision` if there is none.
    pub first_decision: Timestamp,
    /// Latest time of a decision.
    pub last_decision: Timestamp,
    /// Latest time of any record.
    pub latest: Timestamp,
}

/// Collects what an index will say.
#[derive(Debug)]
pub struct Builder {
    first_decision: u64,
    last_decision: u64,
    latest: u64,
    contexts: Vec<(u64, u32)>,
    predictions: Vec<(u64, u32)>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            first_decision: u64::MAX,
            last_decision: 0,
            latest: 0,
            contexts: Vec::new(),
            predictions: Vec::new(),
        }
    }
}

impl Builder {
    /// Takes note of a record's time.
    pub fn time(&mut self, at: Timestamp) {
        self.latest = self.latest.max(at.as_millis());
    }

    /// Takes note of a decision's time.
    pub fn decision(&mut self, at: Timestamp) {
        self.time(at);
        self.first_decision = self.first_decision.min(at.as_millis());
        self.last_decision = self.last_decision.max(at.as_millis());
    }

    /// Takes note of a line that begins at `start` and may be looked up.
    pub fn line(&mut self, table: Table, sequence: SequenceKey, start: usize) {
        // A segment is closed long before this; what could not be told apart is left out.
        let Ok(start) = u32::try_from(start) else {
            return;
        };
        let entry = (hash(sequence), start);
        match table {
            Table::Contexts => self.contexts.push(entry),
            Table::Predictions => self.predictions.push(entry),
        }
    }

    /// The index of a segment that was sealed in these frames.
    pub fn build(mut self, frames: &[Frame]) -> Vec<u8> {
        self.contexts.sort_unstable();
        self.predictions.sort_unstable();
        let mut bytes = MAGIC.to_vec();
        for count in [frames.len(), self.contexts.len(), self.predictions.len()] {
            bytes.extend_from_slice(&(count as u32).to_le_bytes());
        }
        for time in [self.first_decision, self.last_decision, self.latest] {
            bytes.extend_from_slice(&time.to_le_bytes());
        }
        for frame in frames {
            bytes.extend_from_slice(&frame.start.to_le_bytes());
            bytes.extend_from_slice(&frame.sealed.to_le_bytes());
            bytes.extend_from_slice(&frame.length.to_le_bytes());
        }
        for (hash, start) in self.contexts.iter().chain(&self.predictions) {
            bytes.extend_from_slice(&hash.to_le_bytes());
            bytes.extend_from_slice(&start.to_le_bytes());
        }
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }
}

impl Head {
    /// Reads the first [`HEAD`] bytes; `None` if they are no index.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(MAGIC)?;
        let count = |index: usize| {
            Some(u32::from_le_bytes(
                rest.get(4 * index..)?.first_chunk().copied()?,
            ))
        };
        let time = |index: usize| {
            let millis = u64::from_le_bytes(rest.get(12 + 8 * index..)?.first_chunk().copied()?);
            Some(Timestamp::from_millis(millis))
        };
        Some(Self {
            frames: count(0)?,
            contexts: count(1)?,
            predictions: count(2)?,
            first_decision: time(0)?,
            last_decision: time(1)?,
            latest: time(2)?,
        })
    }

    /// Bytes of the whole index.
    pub fn length(&self) -> usize {
        let entries = self.contexts as usize + self.predictions as usize;
        HEAD + self.frames as usize * FRAME + entries * ENTRY + 4
    }

    /// Whether the segment may have a record about a decision made at `at`.
    pub fn covers(&self, at: Timestamp) -> bool {
        self.first_decision <= at && at <= self.last_decision
    }

    /// Where a table's entries begin, and how many there are.
    fn table(&self, table: Table) -> (u64, u32) {
        let contexts = frame_at(self.frames);
        match table {
            Table::Contexts => (contexts, self.contexts),
            Table::Predictions => (
                contexts + u64::from(self.contexts) * ENTRY as u64,
                self.predictions,
            ),
        }
    }

    /// Where the lines begin that may be about this decision: usually one, and with a chance of 2⁻⁶⁴ others. `read` gives bytes
    /// of the index, by place and length.
    pub fn find(
        &self,
        table: Table,
        sequence: SequenceKey,
        mut read: impl FnMut(u64, usize) -> io::Result<Vec<u8>>,
    ) -> io::Result<Vec<u32>> {
        let wanted = hash(sequence);
        let (begin, count) = self.table(table);
        let mut entry = |index: u32| -> io::Result<(u64, u32)> {
            let bytes = read(begin + u64::from(index) * ENTRY as u64, ENTRY)?;
            let hash = number::<8>(&bytes, 0)?;
            Ok((hash, number::<4>(&bytes, 8)? as u32))
        };
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = low.midpoint(high);
            if entry(middle)?.0 < wanted {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let mut found = Vec::new();
        while low < count {
            let (hash, start) = entry(low)?;
            if hash != wanted {
                break;
            }
            found.push(start);
            low += 1;
        }
        Ok(found)
    }

    /// The frame that holds the byte at `start` of the segment.
    pub fn frame(
        &self,
        start: u32,
        mut read: impl FnMut(u64, usize) -> io::Result<Vec<u8>>,
    ) -> io::Result<Frame> {
        let mut frame = |index: u32| -> io::Result<Frame> {
            let bytes = read(frame_at(index), FRAME)?;
            Ok(Frame {
                start: number::<8>(&bytes, 0)?,
                sealed: number::<8>(&bytes, 8)?,
                length: number::<4>(&bytes, 16)? as u32,
            })
        };
        let (mut low, mut high) = (0, self.frames);
        while low < high {
            let middle = low.midpoint(high);
            if frame(middle)?.start <= u64::from(start) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low.checked_sub(1).map_or_else(|| Err(damaged()), frame)
    }
}

/// Where the frame of this number stands.
fn frame_at(index: u32) -> u64 {
    HEAD as u64 + u64::from(index) * FRAME as u64
}

/// Whether a whole index is as it was written.
pub fn is_intact(index: &[u8]) -> bool {
    index
        .split_last_chunk::<4>()
        .is_some_and(|(bytes, crc)| crc32fast::hash(bytes) == u32::from_le_bytes(*crc))
        && Head::read(index).is_some()
}

/// The little-endian number of `N` bytes at `place`.
fn number<const N: usize>(bytes: &[u8], place: usize) -> io::Result<u64> {
    let bytes = bytes.get(place..place + N).ok_or_else(damaged)?;
    let mut number = [0; 8];
    number[..N].copy_from_slice(bytes);
    Ok(u64::from_le_bytes(number))
}

fn damaged() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "an index of the journal is damaged",
    )
}

/// Persisted: the unkeyed SipHash-2-4 of origin, worker and counter.
fn hash(sequence: SequenceKey) -> u64 {
    let mut hasher = SipHasher24::new();
    hasher.write(&sequence.origin.to_le_bytes());
    hasher.write(&sequence.worker.to_le_bytes());
    hasher.write(&sequence.counter.to_le_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(counter: u64) -> SequenceKey {
        SequenceKey {
            origin: 7,
            worker: 1,
            counter,
        }
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn index() -> Vec<u8> {
        let mut builder = Builder::default();
        for counter in 0..1000 {
            builder.decision(at(500 + counter));
            builder.line(Table::Contexts, sequence(counter), 10 * counter as usize);
        }
        builder.line(Table::Predictions, sequence(3), 77);
        builder.time(at(9000));
        let frames: Vec<Frame> = (0..10)
            .map(|frame| Frame {
                start: 1000 * frame,
                sealed: 100 * frame,
                length: 100,
            })
            .collect();
        builder.build(&frames)
    }

    #[test]
    fn every_line_is_found_and_nothing_else() {
        let index = index();
        assert!(is_intact(&index));
        let head = Head::read(&index[..HEAD]).unwrap();
        assert_eq!(head.length(), index.len());
        let read = |place: u64, length: usize| Ok(index[place as usize..][..length].to_vec());
        for counter in 0..1000 {
            let found = head.find(Table::Contexts, sequence(counter), read).unwrap();
            assert_eq!(found, [10 * counter as u32]);
            let frame = head.frame(found[0], read).unwrap();
            assert_eq!(frame.start, 1000 * (counter / 100));
        }
        assert!(
            head.find(Table::Contexts, sequence(1000), read)
                .unwrap()
                .is_empty()
        );
        assert_eq!(
            head.find(Table::Predictions, sequence(3), read).unwrap(),
            [77]
        );
        assert!(
            head.find(Table::Predictions, sequence(4), read)
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn the_times_say_which_segments_to_look_at() {
        let head = Head::read(&index()).unwrap();
        assert!(head.covers(at(500)) && head.covers(at(1499)));
        assert!(!head.covers(at(499)) && !head.covers(at(1500)));
        assert_eq!(head.latest, at(9000));
        assert!(
            !Head::read(&Builder::default().build(&[]))
                .unwrap()
                .covers(at(0))
        );
    }

    #[test]
    fn damage_is_noticed() {
        let mut index = index();
        index[200] ^= 1;
        assert!(!is_intact(&index));
        assert!(!is_intact(b"") && !is_intact(&index[..20]));
    }

    /// Frozen: indexes are read by later releases.
    #[test]
    fn the_hash_is_what_it_was() {
        assert_eq!(hash(sequence(1)), HASH_OF_7_1_1);
    }

    const HASH_OF_7_1_1: u64 = 780_786_283_460_032_887;
}
