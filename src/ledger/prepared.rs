//! A ledger before its data directory is free: a successor's, which decides while the process before it still drains.
//!
//! Decisions and outcomes are taken and kept in memory, in order; rewards are refused with [`Unavailable::Starting`](super::Unavailable),
//! because whether one was counted already is in a journal that another process still writes to. When the directory is free, what was
//! kept is journalled before anything else, under an origin that was this process's from the beginning.
//!
//! A process that dies before that has lost what it kept, as one that dies loses what waits in its queues.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Config, Front, Handle, Ledger, Opened, Shared, StartError};
use crate::clock::Stopwatch;
use crate::journal::{DataLock, LockError};
use crate::secret::random_number;

/// How often queues are emptied: as often as a ledger would.
const EMPTY: Duration = Duration::from_millis(20);

/// How often the lock is tried.
const TRY: Duration = Duration::from_millis(20);

/// A ledger that waits for its data directory.
#[derive(Debug)]
pub struct Prepared {
    config: Config,
    front: Front,
    origin: u64,
    parking: Parking,
}

impl Prepared {
    /// Takes what is recorded from now on. The data directory is not touched.
    ///
    /// # Errors
    ///
    /// When the system gives no random number or no thread.
    pub fn new(config: Config) -> Result<Self, StartError> {
        let front = Front::new(&config);
        Ok(Self {
            parking: Parking::start(Arc::clone(&front.handle.shared))?,
            origin: random_number()?,
            front,
            config,
        })
    }

    /// A handle to the ledger that this will be. Everything but rewards waits until it is one.
    pub fn handle(&self) -> Handle {
        self.front.handle.clone()
    }

    /// The random number of this process start, for its sequence keys.
    pub fn origin(&self) -> u64 {
        self.origin
    }

    /// Takes the lock of the data directory, for which it waits at most `patience`, and goes on as [`Ledger::start`].
    ///
    /// # Errors
    ///
    /// See [`StartError`]. What was kept is lost then.
    pub fn open(self, patience: Duration) -> Result<(Ledger, Opened), StartError> {
        let waited = Stopwatch::start();
        let lock = loop {
            match DataLock::acquire(&self.config.data) {
                Err(LockError::Held { .. }) if waited.elapsed() < patience => {
                    std::thread::sleep(TRY);
                }
                taken => break taken?,
            }
        };
        let opened = Ledger::start_locked(lock, &self.config, self.front, self.origin);
        // Not before, because reading the journal takes its time. The ledger's thread and this one take turns.
        drop(self.parking);
        opened
    }
}

/// The thread that empties the queues meanwhile.
#[derive(Debug)]
struct Parking {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Parking {
    fn start(shared: Arc<Shared>) -> Result<Self, StartError> {
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new()
            .name("parking".to_owned())
            .spawn(move || {
                while stopped.recv_timeout(EMPTY) == Err(RecvTimeoutError::Timeout) {
                    shared.queues.park();
                }
            })
            .map_err(StartError::Thread)?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Parking {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that keeps what is recorded has panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Rig, experiment};
    use super::super::{Recorder, StartError, Unavailable};
    use super::*;
    use crate::engine::attribute::Posted;
    use crate::engine::event::{Event, Verdict};
    use crate::experiment::Experiment;
    use crate::experiment::decision::{Decision, LoggedDecision};
    use crate::rewards::Answer;

    const LONG: Duration = Duration::from_secs(20);

    /// A ledger on a real directory, whose owner goes when it is told to.
    fn owner(rig: &mut Rig, directory: &tempfile::TempDir) -> Ledger {
        rig.config.data = directory.path().to_owned();
        let (ledger, opened) = Ledger::start(&rig.config).unwrap();
        rig.handle = ledger.handle();
        rig.origin = opened.origin;
        ledger
    }

    fn crediting() -> Arc<Experiment> {
        let mut crediting = experiment("stars", "1", &["a", "b"]);
        crediting.reward.default = Some(0.0);
        Arc::new(crediting)
    }

    /// Offers a decision until it is taken.
    fn record(recorder: &Recorder, decision: Decision) {
        let event = Event::Decided(LoggedDecision {
            decision,
            unit: None,
            allocation_version: 1,
            instead_of: None,
            key: None,
            context: None,
        });
        while !recorder.offer(event.clone()) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn what_was_decided_before_the_lock_was_ours_is_journalled() {
        let directory = tempfile::tempdir().unwrap();
        let mut rig = Rig::with(|config| config.queue = 16);
        let old = owner(&mut rig, &directory);
        let stars = crediting();
        rig.adopt(&[&stars]);

        let prepared = Prepared::new(rig.config.clone()).unwrap();
        rig.handle = prepared.handle();
        rig.origin = prepared.origin();
        let recorder = rig.handle.recorder(0).unwrap();
        let decisions: Vec<_> = (0..200)
            .map(|counter| rig.decision(&stars, 1, counter))
            .collect();
        for decision in &decisions {
            record(&recorder, *decision);
        }
        let early = rig.post(decisions[0], Posted::Reward(1.0)).wait();
        assert_eq!(early, Err(Unavailable::Starting));
        // Long after the windows of what was decided have closed.
        rig.clock.advance(2 * stars.reward.window);
        let drained = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            old.shutdown();
        });
        let (ledger, opened) = prepared.open(LONG).unwrap();
        drained.join().unwrap();
        assert_eq!(opened.origin, rig.origin);
        let late = rig.post(decisions[0], Posted::Reward(1.0)).wait();
        assert_eq!(late, Ok(vec![Answer::Judged(Verdict::Late)]));
        ledger.shutdown();

        let (ledger, opened) = Ledger::start(&rig.config).unwrap();
        // Two starts, a policy and the decisions; what comes too late is not written.
        assert_eq!(opened.report.events, 203);
        rig.handle = ledger.handle();
        assert_eq!(rig.tallies(&stars)[1].learned.count(), 200);
    }

    #[test]
    fn rewards_are_counted_as_soon_as_the_lock_is_ours() {
        let directory = tempfile::tempdir().unwrap();
        let mut rig = Rig::new();
        let old = owner(&mut rig, &directory);
        let stars = crediting();
        rig.adopt(&[&stars]);
        let by_old = rig.decision(&stars, 1, 7);
        rig.reward(by_old, 1.0).unwrap();
        let prepared = Prepared::new(rig.config.clone()).unwrap();
        rig.handle = prepared.handle();
        rig.origin = prepared.origin();
        let decision = rig.decision(&stars, 1, 7);
        record(&rig.handle.recorder(0).unwrap(), decision);
        old.shutdown();
        let (_ledger, _) = prepared.open(LONG).unwrap();
        for (decision, verdict) in [(decision, Verdict::Accepted), (by_old, Verdict::Duplicate)] {
            let answer = rig.reward(decision, 1.0);
            assert_eq!(answer, Ok(vec![Answer::Judged(verdict)]));
        }
    }

    #[test]
    fn a_lock_that_is_not_released_is_not_waited_for_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let mut rig = Rig::new();
        let old = owner(&mut rig, &directory);
        let prepared = Prepared::new(rig.config.clone()).unwrap();
        let handle = prepared.handle();
        let error = prepared.open(Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, StartError::Lock(_)), "{error}");
        // Nobody will ever answer.
        assert!(handle.prospects(Vec::new()).is_err());
        drop(old);
    }
}
