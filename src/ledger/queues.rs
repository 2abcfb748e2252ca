//! The bounded queues in which request threads leave what happened.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::Sender;
use crossbeam_queue::ArrayQueue;

use super::{Command, Shared};
use crate::engine::event::Event;

/// A queue for each request thread.
#[derive(Debug)]
pub(super) struct Queues {
    queues: Vec<Arc<ArrayQueue<Event>>>,
    /// Whether the ledger's thread was told that a queue is half full.
    nudged: AtomicBool,
}

impl Queues {
    pub(super) fn new(workers: u16, capacity: usize) -> Self {
        Self {
            queues: (0..workers)
                .map(|_| Arc::new(ArrayQueue::new(capacity.max(1))))
                .collect(),
            nudged: AtomicBool::new(false),
        }
    }

    /// Empties all queues of what they hold now; what is offered meanwhile may stay for the next time.
    pub(super) fn drain(&self, mut sink: impl FnMut(Event)) {
        self.nudged.store(false, Ordering::Relaxed);
        for queue in &self.queues {
            for _ in 0..queue.len() {
                let Some(event) = queue.pop() else { break };
                sink(event);
            }
        }
    }
}

/// Records what happens on one request thread.
#[derive(Debug, Clone)]
pub struct Recorder {
    queue: Arc<ArrayQueue<Event>>,
    shared: Arc<Shared>,
    control: Sender<Command>,
}

impl Recorder {
    pub(super) fn new(shared: &Arc<Shared>, worker: u16, control: Sender<Command>) -> Option<Self> {
        Some(Self {
            queue: Arc::clone(shared.queues.queues.get(usize::from(worker))?),
            shared: Arc::clone(shared),
            control,
        })
    }

    /// Leaves an event for the journal without waiting. False when the queue is full: the event is dropped, and counted.
    ///
    /// A decision is to be offered before its id leaves the process.
    pub fn offer(&self, event: Event) -> bool {
        if self.queue.push(event).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        if self.queue.len() * 2 >= self.queue.capacity()
            && !self.shared.queues.nudged.swap(true, Ordering::Relaxed)
        {
            // A full control channel means that the thread is awake anyway.
            self.control.try_send(Command::Nudge).ok();
        }
        true
    }
}
