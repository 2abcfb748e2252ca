//! The state of a data directory that another process owns: for its successor, which may draw from what was journalled before the
//! directory's lock is its own.
//!
//! Nothing is locked, cut, made or removed, and the owner notices nothing. What is found may be behind what the owner knows, and the
//! end of it not yet durable; so nothing is judged by it, and it is thrown away when the directory is [opened](super::Ledger::start).

use std::path::Path;
use std::sync::Arc;

use super::restore::{complete, fold_live};
use super::{AdoptError, Prospect, StartError, prospect};
use crate::clock::Timestamp;
use crate::engine::fold::{Limits, State};
use crate::experiment::Experiment;
use crate::journal::{FileStorage, Report, Storage};

/// How often to begin anew because the owner has deleted what was about to be read.
const ATTEMPTS: usize = 3;

/// What a journal came to when it was looked at.
#[derive(Debug)]
pub struct Peeked {
    state: State,
    /// What was read, after the checkpoint if there is one.
    pub report: Report,
    /// The last segment that the checkpoint covers.
    pub checkpoint: Option<u64>,
}

impl Peeked {
    /// Reads the journal below `data`, whoever owns it.
    ///
    /// # Errors
    ///
    /// See [`StartError`].
    pub fn read(data: &Path, limits: Limits, now: Timestamp) -> Result<Self, StartError> {
        let directory = data.join("journal");
        let storage = FileStorage::existing(&directory);
        Self::read_from(&storage, &directory, limits, now)
    }

    fn read_from<S: Storage>(
        storage: &S,
        directory: &Path,
        limits: Limits,
        now: Timestamp,
    ) -> Result<Self, StartError> {
        let oldest = || storage.list().map(|all| all.first().copied()).ok();
        let mut attempt = 1;
        loop {
            let before = oldest();
            let read = Self::read_once(storage, directory, limits, now);
            if attempt == ATTEMPTS || before == oldest() {
                return read;
            }
            attempt += 1;
        }
    }

    fn read_once<S: Storage>(
        storage: &S,
        directory: &Path,
        limits: Limits,
        now: Timestamp,
    ) -> Result<Self, StartError> {
        let folded = fold_live(storage, limits, now)?;
        folded.check(directory)?;
        let state = complete(storage, folded.replay.finish(), limits, now)?;
        Ok(Self {
            state,
            report: folded.recovered.report,
            checkpoint: folded.checkpoint,
        })
    }

    /// Where these experiments would go on, and in [`Prospect::standing`] what was last drawn from, as
    /// [`Handle::prospects`](super::Handle::prospects) would say.
    ///
    /// # Errors
    ///
    /// [`AdoptError::Epochs`].
    pub fn prospects(&self, experiments: &[Arc<Experiment>]) -> Result<Vec<Prospect>, AdoptError> {
        experiments
            .iter()
            .map(|experiment| prospect(&self.state, experiment, 0))
            .collect()
    }

    /// Whether exactly these experiments are in force, each in this version and with an allocation. If not, the journal does not say
    /// what to draw from.
    pub fn are_in_force(&self, experiments: &[Arc<Experiment>]) -> bool {
        let as_written = |experiment: &Arc<Experiment>| {
            self.state.standing(experiment.id).is_some_and(|standing| {
                let allocation = standing.allocation.as_ref();
                !standing.retired
                    && standing.version == experiment.version
                    && allocation.is_some_and(|last| last.epoch == standing.epoch)
            })
        };
        experiments.iter().all(as_written) && self.state.active().count() == experiments.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Rig, experiment};
    use super::super::{Config, Ledger};
    use super::*;

    fn look(rig: &Rig) -> Peeked {
        let data = Path::new("memory");
        Peeked::read_from(&rig.storage, data, Limits::default(), rig.handle.now()).unwrap()
    }

    #[test]
    fn a_live_journal_is_read_and_left_alone() {
        let rig = Rig::new();
        let stars = Arc::new(experiment("stars", "1", &["a", "b"]));
        rig.adopt(&[&stars]);
        rig.reward(rig.decision(&stars, 1, 1), 1.0).unwrap();
        let before = rig.storage.contents();
        let peeked = look(&rig);
        let prospect = peeked.prospects(&[Arc::clone(&stars)]).unwrap().remove(0);
        assert_eq!(prospect.epoch, 1);
        assert_eq!(prospect.tallies, rig.tallies(&stars));
        assert_eq!(rig.storage.contents(), before);
        // The owner goes on, and so does who looks again.
        rig.reward(rig.decision(&stars, 1, 2), 1.0).unwrap();
        let prospect = look(&rig).prospects(&[Arc::clone(&stars)]).unwrap();
        assert_eq!(prospect[0].tallies[1].rewards.count(), 2);
    }

    #[test]
    fn half_a_group_is_nothing_and_stays_where_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let config = Config {
            data: directory.path().to_owned(),
            ..Rig::new().config
        };
        let (ledger, _) = Ledger::start(&config).unwrap();
        let journal = directory.path().join("journal");
        let segment = std::fs::read_dir(&journal)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| path.is_file())
            .unwrap();
        let mut bytes = std::fs::read(&segment).unwrap();
        bytes.extend_from_slice(b"{\"half\":");
        std::fs::write(&segment, &bytes).unwrap();
        let now = config.clock.now();
        let peeked = Peeked::read(directory.path(), Limits::default(), now).unwrap();
        assert_eq!(peeked.report.events, 1);
        assert_eq!(peeked.report.cut_bytes, 8);
        assert_eq!(std::fs::read(&segment).unwrap(), bytes);
        assert!(!journal.join("quarantine").exists());
        drop(ledger);
        // Nothing is made where nothing is.
        let nowhere = directory.path().join("nowhere");
        assert!(Peeked::read(&nowhere, Limits::default(), now).is_err());
        assert!(!nowhere.exists());
    }
}
