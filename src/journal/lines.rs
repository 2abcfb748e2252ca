//! Shows every line of the journal with its place, for commands that look at it and change nothing: also at that of a running
//! process, whose last group may be half written and whose old segments may be deleted meanwhile.
//!
//! Which groups count is decided as in [`mod@super::recover`]: those whose checksum fits, each once, in the order of the segments.
//! Not here: what lines mean, and what is to be done about damage.

use std::collections::VecDeque;
use std::io;
use std::ops::{ControlFlow, Range};

use memchr::memchr_iter;

use super::reader::{Chunk, Chunks, Group};
use super::recover::REMEMBERED;
use super::storage::Storage;

/// What is seen, in order.
#[derive(Debug)]
pub enum Sight<'a> {
    /// A segment begins.
    Segment {
        /// Its name.
        name: &'a str,
        /// Its bytes, uncompressed.
        bytes: u64,
    },
    /// A segment that cannot be read.
    Unreadable {
        /// Its name.
        name: &'a str,
        /// The disk's error.
        error: io::Error,
    },
    /// A group begins whose checksum fits.
    Group(SeenGroup),
    /// A line of that group, unless it is repeated.
    Line {
        /// Where in the segment it begins.
        offset: u64,
        /// The line without its line feed.
        line: &'a [u8],
    },
    /// Bytes that belong to no intact group, with an intact group after them in the same segment.
    Damaged(Range<u64>),
    /// Bytes after the last intact group of a segment.
    Tail {
        /// Where.
        range: Range<u64>,
        /// Whether a whole commit line is in it: then it was not merely cut off while being written.
        committed: bool,
        /// Whether this is the last segment, where a group may be half written.
        last: bool,
    },
    /// A segment is done.
    Done {
        /// Segments seen so far.
        segments: u64,
        /// How many there are.
        of: u64,
    },
}

/// A group whose checksum fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenGroup {
    /// Its number.
    pub number: u64,
    /// How many lines its commit line says it has.
    pub count: u64,
    /// Where in the segment its first line begins.
    pub offset: u64,
    /// Bytes of its lines and its commit line.
    pub bytes: u64,
    /// How its number follows those before it.
    pub order: Order,
}

/// How a group's number follows those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The first that was seen, or the first after a segment that could not be read or was deleted meanwhile: it may have any number.
    First,
    /// One more than the last.
    Next,
    /// So many numbers are left out before it.
    After(u64),
    /// It was there before, with the same checksum: written again after a failed commit or at a start. Its lines are not shown.
    Repeated,
    /// It is not above the last, and is no repeat of a recent one.
    Misnumbered,
}

/// Shows the journal on `storage` to `see`, until that breaks off.
///
/// # Errors
///
/// When the segments cannot be listed. One that cannot be read is shown as such.
pub fn walk<S: Storage, B>(
    storage: &S,
    mut see: impl FnMut(Sight<'_>) -> ControlFlow<B>,
) -> io::Result<ControlFlow<B>> {
    let segments = storage.list()?;
    let mut bytes = Vec::new();
    let mut numbers = Numbers::default();
    for (index, segment) in segments.iter().enumerate() {
        let name = storage.name(*segment);
        let flow = match storage.read(*segment, &mut bytes) {
            Ok(()) => {
                let last = index + 1 == segments.len();
                show(&name, &bytes, last, &mut numbers, &mut see)
            }
            Err(error) => {
                numbers.lose_count();
                // Deleted meanwhile by the process that owns the journal.
                if error.kind() == io::ErrorKind::NotFound {
                    ControlFlow::Continue(())
                } else {
                    see(Sight::Unreadable { name: &name, error })
                }
            }
        };
        let done = Sight::Done {
            segments: index as u64 + 1,
            of: segments.len() as u64,
        };
        if let ControlFlow::Break(value) = flow {
            return Ok(ControlFlow::Break(value));
        }
        if let ControlFlow::Break(value) = see(done) {
            return Ok(ControlFlow::Break(value));
        }
    }
    Ok(ControlFlow::Continue(()))
}

fn show<B>(
    name: &str,
    bytes: &[u8],
    last: bool,
    numbers: &mut Numbers,
    see: &mut impl FnMut(Sight<'_>) -> ControlFlow<B>,
) -> ControlFlow<B> {
    see(Sight::Segment {
        name,
        bytes: bytes.len() as u64,
    })?;
    for chunk in Chunks::new(bytes) {
        match chunk {
            Chunk::Group(group) => {
                let order = numbers.take(&group);
                see(Sight::Group(SeenGroup {
                    number: group.number,
                    count: group.count,
                    offset: group.lines.start as u64,
                    bytes: (group.end - group.lines.start) as u64,
                    order,
                }))?;
                if order != Order::Repeated {
                    show_lines(bytes, group.lines, see)?;
                }
            }
            Chunk::Damaged(range) => see(Sight::Damaged(wide(&range)))?,
            Chunk::Tail { range, committed } => see(Sight::Tail {
                range: wide(&range),
                committed,
                last,
            })?,
        }
    }
    ControlFlow::Continue(())
}

fn show_lines<B>(
    bytes: &[u8],
    range: Range<usize>,
    see: &mut impl FnMut(Sight<'_>) -> ControlFlow<B>,
) -> ControlFlow<B> {
    let mut start = range.start;
    for end in memchr_iter(b'\n', &bytes[range.clone()]) {
        let end = range.start + end;
        see(Sight::Line {
            offset: start as u64,
            line: &bytes[start..end],
        })?;
        start = end + 1;
    }
    ControlFlow::Continue(())
}

fn wide(range: &Range<usize>) -> Range<u64> {
    range.start as u64..range.end as u64
}

/// Follows the numbers of groups.
#[derive(Default)]
struct Numbers {
    /// One more than the greatest so far; `None` where any may come.
    expected: Option<u64>,
    /// Number and checksum of the last groups.
    seen: VecDeque<(u64, u32)>,
}

impl Numbers {
    fn lose_count(&mut self) {
        self.expected = None;
    }

    fn take(&mut self, group: &Group) -> Order {
        let key = (group.number, group.crc);
        if self.seen.contains(&key) {
            return Order::Repeated;
        }
        if self.seen.len() == REMEMBERED {
            self.seen.pop_front();
        }
        self.seen.push_back(key);
        let next = group.number.saturating_add(1);
        let order = match self.expected {
            None => Order::First,
            Some(expected) if group.number < expected => return Order::Misnumbered,
            Some(expected) if group.number == expected => Order::Next,
            Some(expected) => Order::After(group.number - expected),
        };
        self.expected = Some(next);
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::memory::MemoryStorage;
    use crate::journal::reader::write_commit;

    fn group(bytes: &mut Vec<u8>, lines: &str, number: u64) {
        let start = bytes.len();
        bytes.extend_from_slice(lines.as_bytes());
        write_commit(bytes, start, lines.lines().count() as u64, number);
    }

    /// Lines with their places, and how the groups follow each other.
    fn seen(storage: &MemoryStorage) -> (Vec<(u64, String)>, Vec<Order>) {
        let (mut lines, mut orders) = (Vec::new(), Vec::new());
        let flow: ControlFlow<()> = walk(storage, |sight| {
            match sight {
                Sight::Line { offset, line } => {
                    lines.push((offset, String::from_utf8(line.to_vec()).unwrap()));
                }
                Sight::Group(group) => orders.push(group.order),
                _ => {}
            }
            ControlFlow::Continue(())
        })
        .unwrap();
        assert!(flow.is_continue());
        (lines, orders)
    }

    #[test]
    fn each_group_is_shown_once_and_gaps_are_told() {
        let storage = MemoryStorage::default();
        let mut first = Vec::new();
        group(&mut first, "a\nb\n", 7);
        group(&mut first, "c\n", 8);
        storage.put(1, &first);
        let mut second = Vec::new();
        group(&mut second, "c\n", 8);
        group(&mut second, "d\n", 12);
        group(&mut second, "e\n", 9);
        storage.put(3, &second);
        let (lines, orders) = seen(&storage);
        let texts: Vec<&str> = lines.iter().map(|(_, line)| line.as_str()).collect();
        assert_eq!(texts, ["a", "b", "c", "d", "e"]);
        assert_eq!((lines[0].0, lines[1].0), (0, 2));
        assert_eq!(
            orders,
            [
                Order::First,
                Order::Next,
                Order::Repeated,
                Order::After(3),
                Order::Misnumbered
            ]
        );
    }

    #[test]
    fn who_has_seen_enough_breaks_off() {
        let storage = MemoryStorage::default();
        let mut bytes = Vec::new();
        group(&mut bytes, "a\nb\n", 1);
        storage.put(1, &bytes);
        let mut lines = 0;
        let flow = walk(&storage, |sight| {
            lines += u32::from(matches!(sight, Sight::Line { .. }));
            if lines == 1 {
                ControlFlow::Break("enough")
            } else {
                ControlFlow::Continue(())
            }
        });
        assert_eq!(flow.unwrap(), ControlFlow::Break("enough"));
        assert_eq!(lines, 1);
    }
}
