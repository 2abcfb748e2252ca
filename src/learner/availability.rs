//! Which arms have an endpoint that is available, as those who talk to the endpoints have told.
//!
//! It is no operator's order: it is not journalled (the allocations that follow from it are), begins anew with the process, and
//! stays through reloads by the arm's id. An arm of which nothing was told is available. Not here: how it is found out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::engine::snapshot::Serving;
use crate::experiment::id::{ArmId, ExperimentId};
use crate::ledger::Changes;

/// The arms of each experiment that are not available.
pub(super) type Unavailable = BTreeMap<ExperimentId, BTreeSet<ArmId>>;

/// Tells the learner which arms can be reached, from any thread. Nothing waits for the learner here.
#[derive(Debug)]
pub struct Availability {
    unavailable: Mutex<Unavailable>,
    /// Where the learner waits.
    changes: Arc<Changes>,
    /// It is to look.
    called: Arc<AtomicBool>,
}

impl Availability {
    pub(super) fn new(changes: Arc<Changes>, called: Arc<AtomicBool>) -> Self {
        Self {
            unavailable: Mutex::default(),
            changes,
            called,
        }
    }

    /// Says of arms of an experiment whether they have an available endpoint; of its other arms, what was said before holds. An
    /// allocation without the arms that have none serves soon, and one with them soon after they have come back. What is known
    /// already costs nothing more than to look.
    pub fn tell(&self, experiment: ExperimentId, arms: impl IntoIterator<Item = (ArmId, bool)>) {
        let mut unavailable = self.lock();
        let of_experiment = unavailable.entry(experiment).or_default();
        let mut news = false;
        for (arm, available) in arms {
            news |= if available {
                of_experiment.remove(&arm)
            } else {
                of_experiment.insert(arm)
            };
        }
        if of_experiment.is_empty() {
            unavailable.remove(&experiment);
        }
        drop(unavailable);
        if news {
            self.called.store(true, Ordering::Release);
            self.changes.wake();
        }
    }

    /// What was told last.
    pub(super) fn unavailable(&self) -> Unavailable {
        self.lock().clone()
    }

    /// Forgets what was told of arms that do not serve: when they come back they are other arms behind the same name.
    pub(super) fn keep_only(&self, serving: &[Arc<Serving>]) {
        self.lock().retain(|id, arms| {
            let serving = serving.iter().find(|serving| serving.experiment.id == *id);
            arms.retain(|arm| {
                serving.is_some_and(|serving| serving.experiment.arm_index(*arm).is_some())
            });
            !arms.is_empty()
        });
    }

    fn lock(&self) -> MutexGuard<'_, Unavailable> {
        self.unavailable
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
