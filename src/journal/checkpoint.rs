//! A checkpoint: what the journal amounts to up to the end of a segment, so that recovery reads only what came after.
//!
//! A file of two parts: a line of JSON that says what it is, with a checksum, and the state in `MessagePack` with named fields,
//! compressed with zstd. A release reads what earlier releases wrote, because fields are found by name and new ones have defaults.
//! It is a short cut and nothing else: the journal alone says what happened, and while it is whole, every checkpoint may be deleted.
//!
//! Not here: when one is made (`ledger`).

use std::io;

use serde::{Deserialize, Serialize};

use super::recover::Known;
use super::storage::Storage;
use crate::clock::Timestamp;
use crate::engine::fold::State;

/// The version that this release writes.
const VERSION: u32 = 1;

const LEVEL: i32 = 1;

/// What the segments up to one amount to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// What reading on needs to know.
    pub known: Known,
    /// The latest time in a record so far.
    pub latest: Timestamp,
    /// The state.
    pub state: State,
}

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    #[serde(rename = "type")]
    kind: String,
    v: u32,
    /// Up to when.
    at: String,
    /// The last segment.
    segment: String,
    /// Length of what follows.
    bytes: usize,
    /// CRC-32 of what follows.
    crc: String,
}

/// Why a checkpoint is not used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The disk's error.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Not as it was written.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// Another release has written it.
    #[error(
        "it is of version {0}, which a newer release has written: start that one, or a still newer one"
    )]
    Newer(u32),
    /// The journal does not reach as far.
    #[error("it is ahead of the journal, which ends before segment {0}")]
    Ahead(u64),
}

impl Checkpoint {
    /// The file.
    ///
    /// # Errors
    ///
    /// The encoder's error, which no state should cause.
    pub fn encode(&self) -> io::Result<Vec<u8>> {
        let mut compressor = zstd::Encoder::new(Vec::new(), LEVEL)?;
        let mut serializer = rmp_serde::Serializer::new(&mut compressor).with_struct_map();
        self.serialize(&mut serializer).map_err(io::Error::other)?;
        let body = compressor.finish()?;
        let head = Head {
            kind: "checkpoint".to_owned(),
            v: VERSION,
            at: self.latest.to_string(),
            segment: self.known.segment.to_string(),
            bytes: body.len(),
            crc: format!("{:08x}", crc32fast::hash(&body)),
        };
        let mut bytes = serde_json::to_vec(&head)?;
        bytes.push(b'\n');
        bytes.extend_from_slice(&body);
        Ok(bytes)
    }

    /// Reads a file.
    ///
    /// # Errors
    ///
    /// See [`CheckpointError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, CheckpointError> {
        let damaged = |why: String| CheckpointError::Damaged(why);
        let end = memchr::memchr(b'\n', bytes)
            .ok_or_else(|| damaged("it has no first line".to_owned()))?;
        let (line, body) = (&bytes[..end], &bytes[end + 1..]);
        let head: Head = serde_json::from_slice(line)
            .map_err(|error| damaged(format!("first line: {error}")))?;
        if head.kind != "checkpoint" {
            return Err(damaged("it is something else".to_owned()));
        }
        if head.v > VERSION {
            return Err(CheckpointError::Newer(head.v));
        }
        if body.len() != head.bytes || format!("{:08x}", crc32fast::hash(body)) != head.crc {
            return Err(damaged("its checksum does not fit".to_owned()));
        }
        let plain = io::BufReader::new(zstd::Decoder::with_buffer(body)?);
        rmp_serde::from_read(plain).map_err(|error| damaged(error.to_string()))
    }
}

/// A checkpoint that cannot be used: its number, and why.
pub type Unusable = (u64, CheckpointError);

/// The newest checkpoint that can be used, and what is wrong with those that cannot, by number.
///
/// # Errors
///
/// The disk's, if it cannot tell which segments and checkpoints there are.
pub fn newest<S: Storage>(storage: &S) -> io::Result<(Option<Checkpoint>, Vec<Unusable>)> {
    let end = storage.list()?.last().copied().unwrap_or(0);
    let mut unusable = Vec::new();
    for number in storage.checkpoints()?.into_iter().rev() {
        match read(storage, number, end) {
            Ok(checkpoint) => return Ok((Some(checkpoint), unusable)),
            Err(error) => unusable.push((number, error)),
        }
    }
    Ok((None, unusable))
}

/// A checkpoint of a journal whose last segment is `end`.
///
/// # Errors
///
/// See [`CheckpointError`].
pub fn read<S: Storage>(storage: &S, number: u64, end: u64) -> Result<Checkpoint, CheckpointError> {
    let checkpoint = Checkpoint::decode(&storage.read_checkpoint(number)?)?;
    if checkpoint.known.segment > end {
        return Err(CheckpointError::Ahead(checkpoint.known.segment));
    }
    Ok(checkpoint)
}
