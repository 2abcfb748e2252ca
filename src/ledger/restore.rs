//! From the disk to the state: the newest checkpoint and a fold of what follows, or a fold of everything again.
//!
//! Not here: reading segments (`journal`), and what an event means (`engine`).

use std::io;
use std::path::Path;

use super::{Config, Opened, StartError};
use crate::clock::Timestamp;
use crate::engine::event::Event;
use crate::engine::fold::{Limits, Plans, State};
use crate::engine::replay::Replay;
use crate::journal::checkpoint::{Unusable, newest};
use crate::journal::{
    Checkpoint, Encoder, Known, Options, Recovered, RecoveryError, Storage, Writer, begins_at,
    recover_between, scan, scan_after,
};

/// Recovers to the state at `now`, and makes the start with this `origin` durable before anything else can happen.
pub(super) fn open<S: Storage>(
    storage: S,
    directory: &Path,
    config: &Config,
    origin: u64,
    now: Timestamp,
) -> Result<(State, Writer<S>, Opened), StartError> {
    let folded = fold(&storage, config.limits, now, u64::MAX)?;
    folded.check(directory)?;
    let Folded {
        replay,
        recovered,
        checkpoint,
        ..
    } = folded;
    let mut state = complete(&storage, replay.finish(), config.limits, now)?;
    let options = Options {
        durability: config.durability,
        segment_bytes: config.retention.segment_bytes,
    };
    let encoder = Encoder::new(config.keys.clone(), recovered.directory);
    let mut writer = Writer::new(storage, encoder, recovered.position, options);
    let started = Event::Started { at: now, origin };
    writer
        .append(&started)
        .map_err(io::Error::other)
        .and_then(|()| writer.commit())
        .map_err(|source| StartError::Write {
            directory: directory.to_owned(),
            source,
        })?;
    state.apply(&started);
    let opened = Opened {
        report: recovered.report,
        checkpoint,
        origin,
    };
    Ok((state, writer, opened))
}

/// The state with what its policies keep and a checkpoint did not.
pub(super) fn complete<S: Storage>(
    storage: &S,
    mut state: State,
    limits: Limits,
    now: Timestamp,
) -> Result<State, RecoveryError> {
    let plans = state.incomplete();
    if !plans.is_empty() {
        let again = fold_again(storage, &state, limits, now, &plans)?;
        state.complete(&plans, again);
    }
    Ok(state)
}

/// A fold of the journal so far.
#[derive(Debug)]
pub(super) struct Folded {
    pub(super) replay: Replay,
    pub(super) recovered: Recovered,
    /// The last segment that the checkpoint covers from which it began.
    pub(super) checkpoint: Option<u64>,
    unusable: Vec<Unusable>,
}

impl Folded {
    /// Whether the fold began with the journal's first group, or with a checkpoint.
    ///
    /// # Errors
    ///
    /// [`StartError::Beheaded`] if it did not.
    pub(super) fn check(&self, directory: &Path) -> Result<(), StartError> {
        let report = &self.recovered.report;
        // A damaged first group is told as damage.
        let whole = self.checkpoint.is_some() || !report.damaged.is_empty();
        match report.first_group {
            Some(group @ 2..) if !whole => Err(StartError::Beheaded {
                directory: directory.to_owned(),
                group,
                problems: self.problems(),
            }),
            _ => Ok(()),
        }
    }

    /// What is wrong with checkpoints, a line each.
    fn problems(&self) -> String {
        let mut problems = String::new();
        for (number, problem) in &self.unusable {
            problems.push_str(&format!("\n  checkpoint {number}: {problem}"));
        }
        problems
    }
}

/// Folds the segments before `live`, from the newest checkpoint on.
pub(super) fn fold<S: Storage>(
    storage: &S,
    limits: Limits,
    now: Timestamp,
    live: u64,
) -> Result<Folded, RecoveryError> {
    fold_by(storage, limits, now, |known, replay| {
        recover_between(storage, known, live, |event| replay.push(&event))
    })
}

/// Folds all segments, from the newest checkpoint on, while another process may write to them, and changes nothing.
pub(super) fn fold_live<S: Storage>(
    storage: &S,
    limits: Limits,
    now: Timestamp,
) -> Result<Folded, RecoveryError> {
    fold_by(storage, limits, now, |known, replay| {
        scan_after(storage, known, |event| replay.push(&event))
    })
}

/// Folds what `read` reads. If a clock that was set back makes that come to something wrong, from the beginning, as far back as the
/// journal reaches.
fn fold_by<S: Storage>(
    storage: &S,
    limits: Limits,
    now: Timestamp,
    read: impl Fn(Known, &mut Replay) -> Result<Recovered, RecoveryError>,
) -> Result<Folded, RecoveryError> {
    let load = || {
        newest(storage).map_err(|source| RecoveryError::Io {
            doing: "list the checkpoints".to_owned(),
            source,
        })
    };
    let (checkpoint, unusable) = load()?;
    for (number, problem) in &unusable {
        tracing::warn!(checkpoint = number, %problem, "a checkpoint cannot be used; an older one, or the whole journal, is read instead");
    }
    let number = checkpoint.as_ref().map(|found| found.known.segment);
    let (known, mut replay) = begin(checkpoint, limits, now);
    let recovered = read(known, &mut replay)?;
    if !replay.is_hasty() {
        return Ok(Folded {
            replay,
            recovered,
            checkpoint: number,
            unusable,
        });
    }
    tracing::warn!(
        "the clock was set back while the journal was written: it is read once more, with more memory"
    );
    let (checkpoint, unusable) = if begins_at(storage)?.is_none_or(|group| group == 1) {
        (None, unusable)
    } else {
        load()?
    };
    let number = checkpoint.as_ref().map(|found| found.known.segment);
    let (known, replay) = begin(checkpoint, limits, now);
    let mut replay = replay.patient();
    let recovered = read(known, &mut replay)?;
    Ok(Folded {
        replay,
        recovered,
        checkpoint: number,
        unusable,
    })
}

/// Where a fold begins: after a checkpoint, or before everything.
fn begin(checkpoint: Option<Checkpoint>, limits: Limits, now: Timestamp) -> (Known, Replay) {
    match checkpoint {
        Some(found) => {
            let state = found.state.resumed(limits);
            (found.known, Replay::resume(state, now, found.latest))
        }
        None => (Known::default(), Replay::new(limits, now)),
    }
}

/// The planned experiments as they would be if these statistics had been kept from the beginning of the journal.
///
/// Where the beginning was deleted, counts and sums are those of `state`, and what is kept beyond them starts where the journal does.
pub(super) fn fold_again<S: Storage>(
    storage: &S,
    state: &State,
    limits: Limits,
    now: Timestamp,
    plans: &Plans,
) -> Result<State, RecoveryError> {
    let whole = begins_at(storage)?.is_none_or(|group| group == 1);
    if !whole {
        tracing::warn!(
            "older segments of the journal were deleted: what a changed policy keeps beyond counts and sums starts from what is left"
        );
    }
    let fresh = || {
        let replay = if whole {
            Replay::new(limits, now)
        } else {
            Replay::resume(state.emptied(plans), now, Timestamp::default())
        };
        replay.with_plans(plans.clone())
    };
    let mut replay = fresh();
    scan(storage, |event| replay.push(&event))?;
    if replay.is_hasty() {
        replay = fresh().patient();
        scan(storage, |event| replay.push(&event))?;
    }
    let mut again = replay.finish();
    // These were told when it happened.
    again.take_evicted();
    if whole {
        return Ok(again);
    }
    let mut own = state.only(plans);
    own.complete_in_part(plans, again);
    Ok(own)
}
