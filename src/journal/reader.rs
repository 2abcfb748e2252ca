//! Finds the intact groups of a segment's bytes. Pure: no I/O, and no bytes make it panic.
//!
//! A commit line carries the number of lines and bytes before it and a CRC-32 over those bytes and over its own
//! beginning up to the checksum. So a group is checked as a whole, its number cannot be changed unseen, and it is found
//! again after damage of any length: the commit line says where its group begins.

use std::ops::Range;

use memchr::memchr;

use super::scalar::{write_decimal, write_hex};

const HEAD: &[u8] = b"{\"type\":\"commit\",\"v\":1,\"count\":";
const BYTES: &[u8] = b",\"bytes\":";
const GROUP: &[u8] = b",\"group\":\"";
const CRC: &[u8] = b"\",\"crc\":\"";
const END: &[u8] = b"\"}";

/// Closes the group that begins at `start` of `buffer` and has `count` lines: appends its commit line.
pub(crate) fn write_commit(buffer: &mut Vec<u8>, start: usize, count: u64, group: u64) {
    let bytes = buffer.len() - start;
    buffer.extend_from_slice(HEAD);
    write_decimal(buffer, count);
    buffer.extend_from_slice(BYTES);
    write_decimal(buffer, bytes as u64);
    buffer.extend_from_slice(GROUP);
    write_decimal(buffer, group);
    buffer.extend_from_slice(CRC);
    let crc = crc32fast::hash(&buffer[start..]);
    write_hex(buffer, u128::from(crc), 8);
    buffer.extend_from_slice(END);
    buffer.push(b'\n');
}

/// What a commit line says.
struct Commit {
    count: u64,
    bytes: usize,
    group: u64,
    crc: u32,
    /// Length of the commit line up to the checksum, which the checksum covers.
    covered: usize,
}

impl Commit {
    /// Reads a line without its line feed; only the spelling that [`write_commit`] uses is a commit line.
    fn parse(line: &[u8]) -> Option<Self> {
        let rest = line.strip_prefix(HEAD)?;
        let (count, rest) = number(rest)?;
        let (bytes, rest) = number(rest.strip_prefix(BYTES)?)?;
        let (group, rest) = number(rest.strip_prefix(GROUP)?)?;
        let rest = rest.strip_prefix(CRC)?;
        let digits = rest.strip_suffix(END)?;
        let lower = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
        if digits.len() != 8 || !digits.iter().all(lower) {
            return None;
        }
        Some(Self {
            count,
            bytes: usize::try_from(bytes).ok()?,
            group,
            crc: u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?,
            covered: line.len() - rest.len(),
        })
    }
}

/// A decimal number without leading zeros, and what follows it.
fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let end = text
        .iter()
        .position(|byte| !byte.is_ascii_digit())
        .unwrap_or(text.len());
    let digits = &text[..end];
    if digits.len() > 1 && digits[0] == b'0' {
        return None;
    }
    let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some((number, &text[end..]))
}

/// A stretch of a segment.
#[derive(Debug, PartialEq, Eq)]
pub enum Chunk {
    /// A group whose checksum fits.
    Group(Group),
    /// Bytes that belong to no intact group, with an intact group after them.
    Damaged(Range<usize>),
    /// Bytes after the last intact group.
    Tail {
        /// To the segment's end.
        range: Range<usize>,
        /// Whether a whole commit line is in it: then it was not merely cut off while being written.
        committed: bool,
    },
}

/// An intact group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its number.
    pub number: u64,
    /// How many lines it has.
    pub count: u64,
    /// Its checksum; together with the number it tells a rewritten group from another.
    pub crc: u32,
    /// Its lines, without the commit line.
    pub lines: Range<usize>,
    /// Where its commit line ends.
    pub end: usize,
}

/// Iterates over the chunks of a segment, which cover it without gap or overlap (commit lines aside).
#[derive(Debug)]
pub struct Chunks<'a> {
    bytes: &'a [u8],
    /// End of the last intact group.
    done: usize,
    /// Start of the line to look at next.
    line: usize,
    /// A commit line was seen since `done`, and did not fit.
    committed: bool,
    /// A group that was found behind damage and is yet to be given.
    found: Option<Group>,
}

impl<'a> Chunks<'a> {
    /// Over the whole content of a segment.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            done: 0,
            line: 0,
            committed: false,
            found: None,
        }
    }

    /// The group that `commit`, whose line starts at `at`, closes; if it is intact.
    fn check(&self, commit: &Commit, at: usize) -> Option<Group> {
        let start = at
            .checked_sub(commit.bytes)
            .filter(|start| *start >= self.done)?;
        let covered = &self.bytes[start..at + commit.covered];
        (crc32fast::hash(covered) == commit.crc).then_some(Group {
            number: commit.group,
            count: commit.count,
            crc: commit.crc,
            lines: start..at,
            end: self.line,
        })
    }
}

impl Iterator for Chunks<'_> {
    type Item = Chunk;

    fn next(&mut self) -> Option<Chunk> {
        if let Some(group) = self.found.take() {
            return Some(Chunk::Group(group));
        }
        while let Some(length) = memchr(b'\n', &self.bytes[self.line..]) {
            let at = self.line;
            self.line += length + 1;
            let Some(commit) = Commit::parse(&self.bytes[at..at + length]) else {
                continue;
            };
            let Some(group) = self.check(&commit, at) else {
                self.committed = true;
                continue;
            };
            let damaged = self.done..group.lines.start;
            self.done = self.line;
            self.committed = false;
            if damaged.is_empty() {
                return Some(Chunk::Group(group));
            }
            self.found = Some(group);
            return Some(Chunk::Damaged(damaged));
        }
        self.line = self.bytes.len();
        let range = self.done..self.bytes.len();
        self.done = self.bytes.len();
        (!range.is_empty()).then_some(Chunk::Tail {
            range,
            committed: self.committed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(groups: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (number, lines) in (1..).zip(groups) {
            let start = bytes.len();
            bytes.extend_from_slice(lines.as_bytes());
            let count = lines.lines().count() as u64;
            write_commit(&mut bytes, start, count, number);
        }
        bytes
    }

    fn groups(bytes: &[u8]) -> Vec<u64> {
        Chunks::new(bytes)
            .filter_map(|chunk| match chunk {
                Chunk::Group(group) => Some(group.number),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn the_checksum_is_the_common_crc_32() {
        let bytes = segment(&["{\"a\":1}\n"]);
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(
            text,
            "{\"a\":1}\n{\"type\":\"commit\",\"v\":1,\"count\":1,\"bytes\":8,\"group\":\"1\",\"crc\":\"e114ec44\"}\n"
        );
    }

    #[test]
    fn intact_groups_are_found() {
        let bytes = segment(&["a\nb\n", "c\n", "d\n"]);
        let chunks: Vec<Chunk> = Chunks::new(&bytes).collect();
        assert_eq!(groups(&bytes), [1, 2, 3]);
        assert!(
            matches!(&chunks[0], Chunk::Group(group) if bytes[group.lines.clone()] == *b"a\nb\n")
        );
        assert_eq!(Chunks::new(b"").next(), None);
    }

    #[test]
    fn a_cut_leaves_the_groups_before_it() {
        let bytes = segment(&["a\nb\n", "c\n", "d\n"]);
        let first = segment(&["a\nb\n"]).len();
        let cut = &bytes[..first + 3];
        let chunks: Vec<Chunk> = Chunks::new(cut).collect();
        assert_eq!(groups(cut), [1]);
        assert_eq!(
            chunks[1],
            Chunk::Tail {
                range: first..first + 3,
                committed: false
            }
        );
    }

    #[test]
    fn every_flipped_bit_costs_exactly_the_group_it_is_in() {
        let parts = ["a\nb\n", "cc\n", "ddd\ne\n"];
        let bytes = segment(&parts);
        let ends: Vec<usize> = (1..=3)
            .map(|count| segment(&parts[..count]).len())
            .collect();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let hit = ends.iter().filter(|end| **end <= bit / 8).count() as u64 + 1;
            let expected: Vec<u64> = (1..=3).filter(|number| *number != hit).collect();
            assert_eq!(groups(&flipped), expected, "bit {bit}");
        }
    }

    #[test]
    fn chunks_cover_the_segment() {
        let mut bytes = segment(&["a\nb\n", "cc\n", "ddd\ne\n"]);
        bytes[30] ^= 1;
        bytes.extend_from_slice(b"{\"half");
        let chunks: Vec<Chunk> = Chunks::new(&bytes).collect();
        assert!(matches!(&chunks[0], Chunk::Damaged(range) if range.start == 0));
        assert!(
            matches!(chunks.last(), Some(Chunk::Tail { range, committed: false }) if range.len() == 6)
        );
        bytes.truncate(bytes.len() - 6);
        let last = bytes.len() - 4;
        bytes[last] ^= 1;
        assert!(matches!(
            Chunks::new(&bytes).last(),
            Some(Chunk::Tail {
                committed: true,
                ..
            })
        ));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
            let covered: usize = Chunks::new(&bytes)
                .map(|chunk| match chunk {
                    Chunk::Group(group) => group.lines.len(),
                    Chunk::Damaged(range) | Chunk::Tail { range, .. } => range.len(),
                })
                .sum();
            proptest::prop_assert!(covered <= bytes.len());
        }
    }
}
