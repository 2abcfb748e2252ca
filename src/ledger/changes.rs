//! Tallies on their way to the learner: of each experiment the latest, so a slow learner costs no memory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Stopwatch;
use crate::engine::snapshot::Tally;
use crate::experiment::id::{ArmId, ExperimentId};

/// What an experiment's arms have earned, after a commit that changed it.
#[derive(Debug, Clone)]
pub struct Change {
    /// The epoch that the tallies are of.
    pub epoch: u16,
    /// The ledger's round that they are of. What a later round says holds.
    pub revision: u64,
    /// All arms that ever earned in the epoch; an arm that is missing has earned nothing.
    pub arms: Vec<(ArmId, Tally)>,
    /// Started at the first commit that the reader has not yet seen.
    pub since: Stopwatch,
}

/// The mailbox.
#[derive(Debug, Default)]
pub struct Changes {
    latest: Mutex<BTreeMap<ExperimentId, Change>>,
    arrived: Condvar,
}

impl Changes {
    /// Puts the latest tallies of an experiment in.
    pub(super) fn put(
        &self,
        experiment: ExperimentId,
        epoch: u16,
        revision: u64,
        arms: Vec<(ArmId, Tally)>,
    ) {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let since = latest
            .get(&experiment)
            .map_or_else(Stopwatch::start, |change| change.since);
        let change = Change {
            epoch,
            revision,
            arms,
            since,
        };
        latest.insert(experiment, change);
        self.arrived.notify_all();
    }

    /// Waits up to `timeout` for something to arrive, or for [`Changes::wake`] after `called` was set.
    pub fn wait(&self, timeout: Duration, called: &AtomicBool) {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let idle =
            |latest: &mut BTreeMap<_, _>| latest.is_empty() && !called.load(Ordering::Acquire);
        // Why it woke does not matter: the reader looks.
        drop(self.arrived.wait_timeout_while(latest, timeout, idle));
    }

    /// Takes everything out.
    pub fn take(&self) -> BTreeMap<ExperimentId, Change> {
        std::mem::take(&mut *self.latest.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Wakes a reader that waits, for it to look at something else.
    pub fn wake(&self) {
        // Taken so that the flag cannot be set between the reader's look and its wait.
        drop(self.latest.lock());
        self.arrived.notify_all();
    }
}
