//! A bounded queue before the threads that run the model.
//!
//! Bounded, so that under overload a client hears "later" at once instead of waiting without end.
//! Requests are not batched: at the lengths of reviews a batch costs almost as much as its parts.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow};
use tokio::sync::oneshot;

use crate::clock::Stopwatch;
use crate::console::note;
use crate::head::Prediction;
use crate::threads;

/// Rates one text.
pub type Predictor = Arc<dyn Fn(&str) -> Result<Prediction> + Send + Sync>;

/// The answers to one request.
#[derive(Debug, Clone, PartialEq)]
pub struct Rated {
    /// One per text, in order.
    pub predictions: Vec<Prediction>,
    /// How long the request waited for a thread, in milliseconds.
    pub queue_milliseconds: f64,
    /// How long the model took for all texts, in milliseconds.
    pub model_milliseconds: f64,
}

/// Why a request was not answered.
#[derive(Debug)]
pub enum Refusal {
    /// The queue is full.
    Full,
    /// The model failed.
    Failed(anyhow::Error),
}

struct Job {
    texts: Vec<String>,
    waiting: Stopwatch,
    reply: oneshot::Sender<Result<Rated>>,
}

/// Threads that rate texts, and the requests that wait for them.
pub struct Queue {
    sender: SyncSender<Job>,
    workers: Vec<JoinHandle<()>>,
}

impl fmt::Debug for Queue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Queue")
            .field("workers", &self.workers.len())
            .finish_non_exhaustive()
    }
}

impl Queue {
    /// Starts `threads` threads; up to `capacity` requests may wait for them.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(predictor: &Predictor, threads: usize, capacity: usize) -> Result<Self> {
        let (sender, receiver) = sync_channel(capacity);
        let receiver = Arc::new(Mutex::new(receiver));
        let workers = (0..threads)
            .map(|index| {
                let (predictor, receiver) = (Arc::clone(predictor), Arc::clone(&receiver));
                std::thread::Builder::new()
                    .name(format!("model-{index}"))
                    .spawn(move || work(&predictor, &receiver))
                    .context("cannot start a thread for the model")
            })
            .collect::<Result<_>>()?;
        Ok(Self { sender, workers })
    }

    /// Rates `texts` when their turn comes.
    ///
    /// # Errors
    /// [`Refusal::Full`] at once when too many wait, [`Refusal::Failed`] when the model fails.
    pub async fn rate(&self, texts: Vec<String>) -> Result<Rated, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.sender
            .try_send(Job {
                texts,
                waiting: Stopwatch::start(),
                reply,
            })
            .map_err(|error| match error {
                TrySendError::Full(_) => Refusal::Full,
                TrySendError::Disconnected(_) => {
                    Refusal::Failed(anyhow!("the model's threads have ended"))
                }
            })?;
        match answer.await {
            Ok(result) => result.map_err(Refusal::Failed),
            Err(_) => Err(Refusal::Failed(anyhow!("the model's thread has ended"))),
        }
    }

    /// Lets the threads finish what waits, and ends them.
    ///
    /// # Errors
    /// When a thread ended abnormally.
    pub fn stop(self) -> Result<()> {
        drop(self.sender);
        for worker in self.workers {
            worker
                .join()
                .map_err(|_| anyhow!("a thread of the model ended abnormally"))?;
        }
        Ok(())
    }
}

fn work(predictor: &Predictor, receiver: &Mutex<Receiver<Job>>) {
    if let Err(error) = threads::compute_alone() {
        // The model still works, only slower beside others.
        note(&format!("serve: {error:#}"));
    }
    loop {
        let job = match receiver.lock() {
            Ok(receiver) => receiver.recv(),
            Err(_) => break,
        };
        let Ok(job) = job else { break };
        if job.reply.is_closed() {
            // The client has gone: its turn is better spent on the next one.
            continue;
        }
        let queue_milliseconds = job.waiting.milliseconds();
        let watch = Stopwatch::start();
        let predictions = catch_unwind(AssertUnwindSafe(|| {
            job.texts
                .iter()
                .map(|text| predictor(text))
                .collect::<Result<Vec<_>>>()
        }))
        .unwrap_or_else(|_| Err(anyhow!("the model failed on this text")));
        let rated = predictions.map(|predictions| Rated {
            predictions,
            queue_milliseconds,
            model_milliseconds: watch.milliseconds(),
        });
        // The client may have gone meanwhile.
        job.reply.send(rated).ok();
    }
}
