//! What becomes of finished segments, on a thread of its own: they are sealed, folded into a checkpoint, and one day deleted.
//!
//! A checkpoint is made by the code that recovers: from the checkpoint before it and the segments since, never from the state that
//! serves. So the ledger's thread does not wait for it, and each one is a recovery that has been tried. If anything here fails, it is
//! told and tried again later, and the journal is as complete as before.
//!
//! Not here: writing the journal (`keeper`), and how anything is kept (`journal`).

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::restore::{Folded, fold};
use super::{Config, StartError};
use crate::clock::{Clock, Stopwatch, Timestamp};
use crate::engine::fold::Limits;
use crate::journal::archive::{Archive, seal_segment};
use crate::journal::{Checkpoint, RecoveryError, Storage};

/// Without anything else to do, it looks for what may be deleted this often.
const IDLE: Duration = Duration::from_mins(1);

/// What has failed is tried again after this.
const RETRY: Duration = Duration::from_secs(5);

/// Checkpoints that are kept.
const KEPT: usize = 2;

/// When segments are finished, and how long they are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// A segment is finished when it has this many bytes.
    pub segment_bytes: u64,
    /// Or when it is this old, in milliseconds.
    pub segment_age: u64,
    /// At least this long passes between checkpoints, in milliseconds.
    pub checkpoint_every: u64,
    /// A segment whose records are older than this is deleted, in milliseconds.
    pub age: u64,
    /// The oldest segments are deleted where all together have more bytes.
    pub bytes: Option<u64>,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            segment_age: 60 * 60 * 1000,
            checkpoint_every: 60 * 1000,
            age: 30 * 24 * 60 * 60 * 1000,
            bytes: None,
        }
    }
}

/// What the ledger's thread has of the archivist.
#[derive(Debug, Clone)]
pub(super) struct Desk {
    /// Segments below this are finished.
    live: Arc<AtomicU64>,
    bell: Sender<()>,
    /// Counts the changes of what is sealed.
    sealed: Arc<AtomicU64>,
}

impl Desk {
    /// Says that segments below `live` are finished.
    pub(super) fn finished(&self, live: u64) {
        self.live.store(live, Ordering::Release);
        // If the bell has been rung before and not been heard yet, once is enough.
        self.bell.try_send(()).ok();
    }

    /// Changes whenever sealed segments have come or gone.
    pub(super) fn sealed(&self) -> u64 {
        self.sealed.load(Ordering::Acquire)
    }
}

/// A thread that works until it is stopped.
#[derive(Debug)]
pub(super) struct Running {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Running {
    /// Lets it finish what it is doing.
    pub(super) fn stop(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::error!("the archivist's thread has panicked");
        }
    }
}

/// Seals, makes checkpoints and deletes.
#[derive(Debug)]
pub(super) struct Archivist<S> {
    storage: S,
    limits: Limits,
    retention: Retention,
    clock: Arc<dyn Clock>,
    archive: Archive,
    desk: Desk,
    rung: Receiver<()>,
    /// The last segment that a checkpoint covers, and when it was made.
    covered: Option<(u64, Stopwatch)>,
    latest_finished: u64,
    failing: bool,
    /// How long after a decision something about it may matter, in milliseconds; as the last checkpoint has it.
    reach: Option<u64>,
}

impl<S: Storage + Send + 'static> Archivist<S> {
    /// With the segments below `live` finished.
    pub(super) fn new(storage: S, config: &Config, live: u64) -> Self {
        let (bell, rung) = bounded(1);
        let desk = Desk {
            live: Arc::new(AtomicU64::new(live)),
            bell,
            sealed: Arc::new(AtomicU64::new(1)),
        };
        Self {
            storage,
            limits: config.limits,
            retention: config.retention,
            clock: Arc::clone(&config.clock),
            archive: Archive::default(),
            desk,
            rung,
            covered: None,
            latest_finished: 0,
            failing: false,
            reach: None,
        }
    }

    /// Where it is told of finished segments.
    pub(super) fn desk(&self) -> Desk {
        self.desk.clone()
    }

    /// Starts the thread.
    pub(super) fn start(self) -> Result<Running, StartError> {
        let (stop, stopped) = bounded(0);
        let thread = std::thread::Builder::new()
            .name("archivist".to_owned())
            .spawn(move || self.run(&stopped))
            .map_err(StartError::Thread)?;
        Ok(Running { stop, thread })
    }

    fn run(mut self, stopped: &Receiver<()>) {
        loop {
            self.work();
            crossbeam_channel::select! {
                recv(stopped) -> _ => return,
                recv(self.rung) -> heard => if heard.is_err() { return },
                default(self.rest()) => {}
            }
        }
    }

    /// How long to wait for something to do.
    fn rest(&self) -> Duration {
        let every = Duration::from_millis(self.retention.checkpoint_every);
        match self.covered {
            _ if self.failing => RETRY,
            Some((covered, made)) if self.latest_finished > covered => every
                .saturating_sub(made.elapsed())
                .clamp(Duration::from_millis(50), IDLE),
            _ => IDLE,
        }
    }

    /// Does what there is to do about finished segments.
    pub(super) fn work(&mut self) {
        let live = self.desk.live.load(Ordering::Acquire);
        let sealed = self.seal(live).map_err(|error| {
            self.failed(&error, "a finished segment of the journal cannot be sealed: it stays as it is, and will be tried again");
        });
        let covered = self.checkpoint(live).map_err(|error| {
            self.failed(&error, "no checkpoint could be made: a start would have to read more of the journal; it will be tried again");
        });
        let pruned = self.prune(self.clock.now()).map_err(|error| {
            self.failed(
                &error,
                "old segments of the journal cannot be deleted: it will be tried again",
            );
        });
        self.failing = sealed.and(covered).and(pruned).is_err();
    }

    /// Tells of a failure, once until all is well again.
    fn failed(&self, error: &dyn std::fmt::Display, what: &str) {
        if !self.failing {
            tracing::warn!(%error, "{what}");
        }
    }

    fn seal(&mut self, live: u64) -> io::Result<()> {
        let finished = |segment: &u64| *segment < live && !self.storage.is_sealed(*segment);
        let finished: Vec<u64> = self.storage.list()?.into_iter().filter(finished).collect();
        for segment in finished {
            seal_segment(&self.storage, segment)?;
            self.desk.sealed.fetch_add(1, Ordering::Release);
        }
        Ok(())
    }

    /// Makes a checkpoint, if there are finished segments that the last one does not cover and it is old enough.
    fn checkpoint(&mut self, live: u64) -> Result<(), RecoveryError> {
        let doing = |doing: &str, source| RecoveryError::Io {
            doing: doing.to_owned(),
            source,
        };
        let every = Duration::from_millis(self.retention.checkpoint_every);
        let last = self
            .storage
            .list()
            .map_err(|error| doing("list the segments", error))?;
        let last = last.into_iter().rfind(|segment| *segment < live);
        self.latest_finished = last.unwrap_or(0);
        let covered = self.covered.map(|(segment, _)| segment);
        let early = self.covered.is_some_and(|(_, made)| made.elapsed() < every);
        if last.is_none() || last <= covered || early {
            return Ok(());
        }
        let folded = fold(&self.storage, self.limits, self.clock.now(), live)?;
        let whole = folded.check(Path::new("journal"));
        let Folded {
            replay,
            recovered: found,
            checkpoint: before,
            ..
        } = folded;
        for damage in &found.report.damaged {
            tracing::error!(segment = damage.segment, from = damage.range.start, to = damage.range.end, why = damage.why, copy = ?damage.copy, "the journal is damaged");
        }
        if let Err(beheaded) = whole {
            return Err(doing("begin", io::Error::other(beheaded)));
        }
        let (latest, state) = (replay.latest(), replay.pause());
        self.reach = Some(state.reach());
        self.covered = Some((found.known.segment, Stopwatch::start()));
        if before >= Some(found.known.segment) {
            return Ok(());
        }
        let made = Checkpoint {
            known: found.known,
            latest,
            state,
        };
        self.keep(&made).map_err(|error| {
            self.covered = None;
            doing("write a checkpoint", error)
        })
    }

    /// Writes a checkpoint and removes those that are no longer needed.
    fn keep(&self, made: &Checkpoint) -> io::Result<()> {
        let bytes = made.encode()?;
        self.storage.write_checkpoint(made.known.segment, &bytes)?;
        tracing::debug!(
            segment = made.known.segment,
            bytes = bytes.len(),
            "checkpoint"
        );
        let all = self.storage.checkpoints()?;
        for old in all.iter().rev().skip(KEPT) {
            self.storage.remove_checkpoint(*old)?;
        }
        Ok(())
    }

    /// Deletes the oldest segments, as far as they are too old or too many, both checkpoints cover them, and no window needs them.
    fn prune(&mut self, now: Timestamp) -> io::Result<()> {
        let checkpoints = self.storage.checkpoints()?;
        let (Some(reach), [.., older, _]) = (self.reach, &checkpoints[..]) else {
            return Ok(());
        };
        self.archive.refresh(&self.storage)?;
        let mut total = 0;
        for segment in self.storage.list()? {
            total += self.storage.size(segment)?;
        }
        let mut gone = 0;
        for (segment, head) in self.archive.segments() {
            let Some(head) = head.filter(|_| segment <= *older) else {
                break;
            };
            let age = now.since(head.latest);
            let too_many = self.retention.bytes.is_some_and(|most| total > most);
            if age <= reach || !(too_many || age > self.retention.age) {
                break;
            }
            total = total.saturating_sub(self.storage.size(segment)?);
            self.storage.remove(segment)?;
            gone += 1;
        }
        if gone > 0 {
            self.storage.sync_directory()?;
            self.desk.sealed.fetch_add(1, Ordering::Release);
            tracing::info!(segments = gone, "deleted old segments of the journal");
        }
        Ok(())
    }
}
