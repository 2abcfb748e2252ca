//! A sealed segment: the same lines, compressed, one zstd frame for each group, so that a damaged byte costs one group and a
//! line can be read without the rest. `zstdcat` shows it as it was.
//!
//! Pure: bytes in, bytes out. Offsets are of the uncompressed segment, whatever it is kept as. Not here: files (`storage`), and which
//! line a decision is on (`index`).

use std::io;
use std::ops::Range;

use zstd::zstd_safe;

use super::reader::{Chunk, Chunks};

/// First bytes of a zstd frame (RFC 8878, section 3.1.1).
const MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();

/// zstd's level 3, its default: a fifth of the size at some 300 MB a second.
const LEVEL: i32 = 3;

/// No group is longer than this, whatever a frame's header says: a group may exceed its usual length by one line.
const MAX_FRAME: u64 = 1 << 30;

/// Where a frame is, and what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Where its content begins in the segment.
    pub start: u64,
    /// Where it begins in the sealed segment.
    pub sealed: u64,
    /// Its length in the sealed segment.
    pub length: u32,
}

/// Compresses a whole segment. What belongs to no intact group is kept as it is, in frames of its own.
pub fn seal(segment: &[u8]) -> io::Result<(Vec<u8>, Vec<Frame>)> {
    let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
    compressor.set_parameter(zstd_safe::CParameter::ChecksumFlag(true))?;
    let mut sealed = Vec::with_capacity(segment.len() / 4);
    let mut frames = Vec::new();
    for range in pieces(segment) {
        let frame = compressor.compress(&segment[range.clone()])?;
        frames.push(Frame {
            start: range.start as u64,
            sealed: sealed.len() as u64,
            length: u32::try_from(frame.len()).map_err(io::Error::other)?,
        });
        sealed.extend_from_slice(&frame);
    }
    Ok((sealed, frames))
}

/// The stretches of a segment that get a frame each: groups with their commit lines, and what is between them.
fn pieces(segment: &[u8]) -> impl Iterator<Item = Range<usize>> + '_ {
    Chunks::new(segment).map(|chunk| match chunk {
        Chunk::Group(group) => group.lines.start..group.end,
        Chunk::Damaged(range) | Chunk::Tail { range, .. } => range,
    })
}

/// Puts the content of a sealed segment in place of `bytes`. A frame that is damaged is left as it is, compressed, so that who reads
/// the lines finds damage there.
pub fn unseal(sealed: &[u8], bytes: &mut Vec<u8>) -> io::Result<()> {
    let mut decompressor = zstd::bulk::Decompressor::new()?;
    bytes.clear();
    bytes.reserve(4 * sealed.len());
    let mut rest = sealed;
    while !rest.is_empty() {
        let length = frame_length(rest);
        let opened = length.and_then(|length| open(&mut decompressor, &rest[..length], bytes));
        let next = opened.unwrap_or_else(|| {
            let next = next_frame(rest);
            bytes.extend_from_slice(&rest[..next]);
            // Keeps the damage from running into the next group's first line.
            bytes.push(b'\n');
            next
        });
        rest = &rest[next..];
    }
    Ok(())
}

/// The content of a single frame.
pub fn unseal_frame(frame: &[u8]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut decompressor = zstd::bulk::Decompressor::new()?;
    match open(&mut decompressor, frame, &mut bytes) {
        Some(length) if length == frame.len() => Ok(bytes),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a sealed group is damaged",
        )),
    }
}

/// Length of the frame that `bytes` begin with.
fn frame_length(bytes: &[u8]) -> Option<usize> {
    let length = zstd_safe::find_frame_compressed_size(bytes).ok()?;
    (length > 0 && length <= bytes.len()).then_some(length)
}

/// Appends the content of a frame; its length, or `None` if it is damaged, and then nothing is appended.
fn open(
    decompressor: &mut zstd::bulk::Decompressor<'_>,
    frame: &[u8],
    bytes: &mut Vec<u8>,
) -> Option<usize> {
    let size = zstd_safe::get_frame_content_size(frame).ok().flatten()?;
    if size > MAX_FRAME {
        return None;
    }
    let content = decompressor.decompress(frame, size as usize).ok()?;
    bytes.extend_from_slice(&content);
    Some(frame.len())
}

/// Where the next frame after a damaged one begins, or the end.
fn next_frame(bytes: &[u8]) -> usize {
    memchr::memmem::find_iter(&bytes[1..], &MAGIC)
        .map(|place| place + 1)
        .find(|place| frame_length(&bytes[*place..]).is_some())
        .unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::super::reader::write_commit;
    use super::*;

    fn segment(groups: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in 1..=groups {
            let start = bytes.len();
            let lines = format!("{{\"line\":{number}}}\n{{\"other\":{number}}}\n");
            bytes.extend_from_slice(lines.as_bytes());
            write_commit(&mut bytes, start, 2, number);
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
    fn a_sealed_segment_reads_back_byte_for_byte() {
        let mut torn = segment(3);
        torn.extend_from_slice(b"{\"torn");
        let mut damaged = segment(4);
        damaged[60] ^= 1;
        for bytes in [Vec::new(), segment(1), segment(5), torn, damaged] {
            let (sealed, frames) = seal(&bytes).unwrap();
            let mut read = vec![7];
            unseal(&sealed, &mut read).unwrap();
            assert_eq!(read, bytes);
            for frame in frames {
                let part = &sealed[frame.sealed as usize..][..frame.length as usize];
                let content = unseal_frame(part).unwrap();
                assert!(bytes[frame.start as usize..].starts_with(&content));
            }
        }
    }

    #[test]
    fn one_flipped_bit_costs_one_group() {
        let bytes = segment(5);
        let (sealed, frames) = seal(&bytes).unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let hit = frames
                .iter()
                .filter(|frame| frame.sealed as usize <= bit / 8)
                .count() as u64;
            let mut read = Vec::new();
            unseal(&flipped, &mut read).unwrap();
            let found = groups(&read);
            let expected: Vec<u64> = (1..=5).filter(|number| *number != hit).collect();
            // Some bits of a frame's header carry nothing that is needed.
            assert!(
                found == expected || found == [1, 2, 3, 4, 5],
                "bit {bit}: {found:?}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300), frames in 0_usize..3) {
            let (mut sealed, _) = seal(&segment(frames as u64)).unwrap();
            sealed.extend_from_slice(&bytes);
            let mut read = Vec::new();
            unseal(&sealed, &mut read).unwrap();
        }
    }
}
