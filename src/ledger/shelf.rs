//! The ledger's thread and the segments that it no longer writes: when one is finished, and what is looked up in them.
//!
//! Not here: what becomes of finished segments (`archivist`).

use std::io;
use std::time::Duration;

use super::archivist::{Desk, Retention};
use crate::clock::Stopwatch;
use crate::experiment::context::Context;
use crate::experiment::decision::{Decision, Label};
use crate::journal::archive::Archive;
use crate::journal::{Storage, Writer};

/// Segments, as the ledger's thread sees them.
#[derive(Debug)]
pub(super) struct Shelf {
    desk: Desk,
    /// Segments below this are finished, and the archivist knows.
    told: u64,
    /// The live segment, and since when.
    live: (u64, Stopwatch),
    oldest: Duration,
    archive: Archive,
    /// What the archive was last refreshed for.
    seen: u64,
    /// Whether a failed look-up was told.
    failed: bool,
}

impl Shelf {
    pub(super) fn new(desk: Desk, live: u64, retention: Retention) -> Self {
        Self {
            desk,
            told: live,
            live: (live, Stopwatch::start()),
            oldest: Duration::from_millis(retention.segment_age),
            archive: Archive::default(),
            seen: 0,
            failed: false,
        }
    }

    /// After a successful commit: ends a segment that is full or old enough, and tells the archivist of finished ones. Whether what is
    /// written next goes to another segment than what was written before.
    pub(super) fn committed<S: Storage>(&mut self, writer: &mut Writer<S>) -> bool {
        if writer.is_full() || self.live.1.elapsed() >= self.oldest {
            writer.finish_segment();
        }
        let live = writer.unfinished();
        let another = live != self.live.0;
        if another {
            self.live = (live, Stopwatch::start());
        }
        if live > self.told {
            self.desk.finished(live);
            self.told = live;
        }
        another
    }

    /// What a decision was made upon, if a sealed segment has it.
    pub(super) fn context<S: Storage>(
        &mut self,
        storage: &S,
        decision: &Decision,
    ) -> Option<Context> {
        let found = self
            .refresh(storage)
            .and_then(|()| self.archive.context(storage, decision));
        self.told_if_failed(found)
    }

    /// What an arm has predicted, if a sealed segment has it.
    pub(super) fn prediction<S: Storage>(
        &mut self,
        storage: &S,
        decision: &Decision,
    ) -> Option<Label> {
        let found = self
            .refresh(storage)
            .and_then(|()| self.archive.prediction(storage, decision));
        self.told_if_failed(found)
    }

    fn refresh<S: Storage>(&mut self, storage: &S) -> io::Result<()> {
        let now = self.desk.sealed();
        if self.seen != now {
            self.archive.refresh(storage)?;
            self.seen = now;
        }
        Ok(())
    }

    /// A segment may have been deleted just now; anything else that fails is told once.
    fn told_if_failed<T>(&mut self, found: io::Result<Option<T>>) -> Option<T> {
        let error = match found {
            Ok(found) => return found,
            Err(error) => error,
        };
        if error.kind() != io::ErrorKind::NotFound && !self.failed {
            tracing::warn!(%error, "a sealed segment of the journal cannot be read: rewards for older decisions count, and teach nothing about their contexts");
            self.failed = true;
        }
        None
    }
}
