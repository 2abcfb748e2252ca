//! The bounded queues in which request threads leave what happened.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::Sender;
use crossbeam_queue::ArrayQueue;

use super::{Command, Shared};
use crate::clock::Timestamp;
use crate::decision_id::DecisionId;
use crate::engine::event::Event;
use crate::experiment::decision::LoggedDecision;

/// Events that are parked, a few hundred bytes each. What comes after them fills the queues, and then is dropped and counted.
const PARKED: usize = 1_000_000;

/// A queue for each request thread.
#[derive(Debug)]
pub(super) struct Queues {
    by_worker: Vec<Arc<ArrayQueue<Recorded>>>,
    /// Whether the ledger's thread was told that a queue is half full.
    nudged: AtomicBool,
    /// What was offered before there was a ledger's thread, ahead of what is in the queues. Held by whoever empties them.
    parked: Mutex<Vec<Recorded>>,
}

/// What a request thread has recorded.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) event: Event,
    /// The id of a decision that was signed already, so that the journal needs not sign it again.
    pub(super) id: Option<DecisionId>,
}

impl Queues {
    pub(super) fn new(workers: u16, capacity: usize) -> Self {
        Self {
            by_worker: (0..workers)
                .map(|_| Arc::new(ArrayQueue::new(capacity.max(1))))
                .collect(),
            nudged: AtomicBool::new(false),
            parked: Mutex::default(),
        }
    }

    fn parked(&self) -> MutexGuard<'_, Vec<Recorded>> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Empties all queues into memory, until there is a ledger's thread.
    pub(super) fn park(&self) {
        let mut parked = self.parked();
        for queue in &self.by_worker {
            for _ in 0..queue.len().min(PARKED.saturating_sub(parked.len())) {
                let Some(recorded) = queue.pop() else { break };
                parked.push(recorded);
            }
        }
    }

    /// When the earliest of what is parked happened.
    pub(super) fn earliest_parked(&self) -> Option<Timestamp> {
        let parked = self.parked();
        parked.iter().map(|recorded| recorded.event.at()).min()
    }

    /// Empties all queues of what they hold now; what is offered meanwhile may stay for the next time. What is parked comes first.
    pub(super) fn drain(&self, mut sink: impl FnMut(Recorded)) {
        self.nudged.store(false, Ordering::Relaxed);
        let mut parked = self.parked();
        for recorded in std::mem::take(&mut *parked) {
            sink(recorded);
        }
        for queue in &self.by_worker {
            for _ in 0..queue.len() {
                let Some(recorded) = queue.pop() else { break };
                sink(recorded);
            }
        }
    }
}

/// Records what happens on one request thread.
#[derive(Debug, Clone)]
pub struct Recorder {
    queue: Arc<ArrayQueue<Recorded>>,
    shared: Arc<Shared>,
    control: Sender<Command>,
}

impl Recorder {
    pub(super) fn new(shared: &Arc<Shared>, worker: u16, control: Sender<Command>) -> Option<Self> {
        Some(Self {
            queue: Arc::clone(shared.queues.by_worker.get(usize::from(worker))?),
            shared: Arc::clone(shared),
            control,
        })
    }

    /// Leaves an event for the journal without waiting. False when the queue is full: the event is dropped, and counted.
    ///
    /// A decision is to be offered before its id leaves the process.
    pub fn offer(&self, event: Event) -> bool {
        self.push(Recorded { event, id: None })
    }

    /// As [`Self::offer`], for a decision that `id` was signed for.
    pub fn offer_signed(&self, decision: LoggedDecision, id: DecisionId) -> bool {
        self.push(Recorded {
            event: Event::Decided(decision),
            id: Some(id),
        })
    }

    fn push(&self, recorded: Recorded) -> bool {
        if self.queue.push(recorded).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        if self.queue.len() * 2 >= self.queue.capacity()
            && self.shared.open.load(Ordering::Relaxed)
            && !self.shared.queues.nudged.swap(true, Ordering::Relaxed)
        {
            // A full control channel means that the thread is awake anyway.
            self.control.try_send(Command::Nudge).ok();
        }
        true
    }
}
