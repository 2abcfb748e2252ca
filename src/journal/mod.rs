//! The journal: the append-only record of what happened, one JSON object per line. State is a fold of it.
//!
//! [`encode`] and [`decode`] turn an [`Event`](crate::engine::event::Event) into a line and back, [`writer`] commits lines in groups,
//! [`reader`] finds the intact groups of a segment again, and [`mod@recover`] walks all segments at a start; [`lines`] shows them to
//! commands that only look. All of it works on the small [`Storage`] trait, so that everything but the real files ([`storage`]) and the [`lock`] is tested
//! without a disk. Record types and their fields are in `docs/journal.md`.
//!
//! Not here: what the events mean (`engine`), who waits for a commit (`ledger`), and any thread or runtime.
//!
//! # Durability
//!
//! - A commit is acknowledged when the file, and for a new segment the directory too, has been synced.
//! - After a failed write or sync the same bytes are never synced again, because the kernel may have dropped the
//!   pages and would call the next sync a success: the groups are rewritten to a new segment, under the same numbers.
//! - A group is folded whole or not at all, and once, however often it was rewritten.

pub mod archive;
pub mod checkpoint;
mod context;
pub mod decode;
pub mod encode;
pub mod index;
pub mod lines;
pub mod lock;
mod quick;
pub mod reader;
pub mod recover;
pub(crate) mod scalar;
pub mod sealed;
pub mod storage;
pub mod writer;

#[cfg(test)]
pub(crate) mod memory;

pub use checkpoint::Checkpoint;
pub use decode::RecordError;
pub use encode::{Directory, Encoder};
pub use lock::{DataLock, LockError};
pub use recover::{
    Known, Recovered, RecoveryError, Report, Search, begins_at, recover, recover_after,
    recover_between, scan, scan_after, search,
};
pub use storage::{FileStorage, Storage};
pub use writer::{Backlogged, Durability, Options, Position, Writer};

/// The version of every record type that this release writes.
pub(crate) const RECORD_VERSION: u32 = 1;
#[cfg(test)]
mod tests;
