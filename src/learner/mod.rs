//! The one writer of what is drawn from: turns tallies into allocations and publishes them.
//!
//! Everything a request needs is behind one pointer, [`Published`]: the router, which belongs to whoever matches requests, and the
//! experiments as they serve, in the router's order. It is replaced as a whole, and shares what has not changed.
//!
//! A thread wakes when the ledger has committed something that changed a tally, computes anew what changed, oldest first and for
//! a bounded time, has changed allocations journalled, and publishes. It rests three times as long as it works. What is
//! published depends on the tallies, the policy files, the operator's orders and on which arms can be reached alone, so after a restart
//! the same is published again, once it is known which arms can be reached.
//!
//! Not here: how an allocation is computed (`engine::allocate`) and what a tally is (`engine::fold`).

mod availability;
mod desk;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::clock::{Stopwatch, Timestamp};
use crate::engine::orders::Order;
use crate::engine::snapshot::Serving;
use crate::experiment::Experiment;
use crate::experiment::id::ExperimentId;
use crate::ledger::{AdoptError, Adoption, Changes, Handle, Prospect, Unavailable};
pub use availability::Availability;
use desk::Desk;

/// How long a tick may compute before it publishes what it has.
const COMPUTE: Duration = Duration::from_millis(12);

/// Least time between two ticks, so that rewards that arrive together are learned together.
const REST: Duration = Duration::from_millis(20);

/// A thread that has nothing to do looks this often whether an allocation has become due.
const IDLE: Duration = Duration::from_millis(250);

/// While the journal takes no allocations it is asked this often.
const RETRY: Duration = Duration::from_millis(500);

/// Everything that a request needs.
#[derive(Debug)]
pub struct Published<R> {
    /// Finds the experiment of a request.
    pub router: Arc<R>,
    /// The experiments, in the router's order.
    pub experiments: Vec<Arc<Serving>>,
}

/// Is told after each publication what was published, which experiments changed (indices), and how long ago the oldest
/// commit was whose effect this is.
pub type Hook<R> = Box<dyn Fn(&Published<R>, &[usize], Duration) + Send + Sync>;

/// What serves until there is a learner: by what others have journalled, and nothing that would have to be journalled first. `None` if
/// the journal does not say what to draw from for one of these experiments.
pub fn provisional<R>(
    experiments: &[Arc<Experiment>],
    prospects: &[Prospect],
    router: Arc<R>,
    now: Timestamp,
) -> Option<Published<R>> {
    let experiments = experiments
        .iter()
        .zip(prospects)
        .map(|(experiment, prospect)| desk::as_journalled(experiment, prospect, now).map(Arc::new))
        .collect::<Option<_>>()?;
    Some(Published {
        router,
        experiments,
    })
}

/// Why a learner did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The first policies were not adopted.
    #[error(transparent)]
    Adopt(#[from] AdoptError),
    /// The system gives no thread.
    #[error("cannot start the learner's thread: {0}")]
    Thread(#[from] io::Error),
}

/// A running learner. Dropping it ends its thread.
pub struct Learner<R> {
    inner: Arc<Inner<R>>,
    thread: Option<JoinHandle<()>>,
}

struct Inner<R> {
    published: Arc<ArcSwap<Published<R>>>,
    ledger: Handle,
    changes: Arc<Changes>,
    desk: Mutex<Desk>,
    hook: Hook<R>,
    stop: AtomicBool,
    availability: Arc<Availability>,
    /// Somebody waits for the thread to look.
    called: Arc<AtomicBool>,
}

impl<R> std::fmt::Debug for Learner<R> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Learner")
    }
}

impl<R: Send + Sync + 'static> Learner<R> {
    /// Adopts the first experiments and publishes them before it returns.
    ///
    /// # Errors
    ///
    /// See [`StartError`].
    pub fn start(
        ledger: Handle,
        experiments: Vec<Arc<Experiment>>,
        router: Arc<R>,
        hook: Hook<R>,
    ) -> Result<Self, StartError> {
        let nothing = Published {
            router: Arc::clone(&router),
            experiments: Vec::new(),
        };
        let place = Arc::new(ArcSwap::from_pointee(nothing));
        Self::start_in(place, ledger, experiments, router, hook)
    }

    /// As [`Learner::start`], and what serves takes the place of something [`provisional`].
    ///
    /// # Errors
    ///
    /// See [`StartError`].
    pub fn start_in(
        published: Arc<ArcSwap<Published<R>>>,
        ledger: Handle,
        experiments: Vec<Arc<Experiment>>,
        router: Arc<R>,
        hook: Hook<R>,
    ) -> Result<Self, StartError> {
        let changes = ledger.changes();
        let called = Arc::default();
        let inner = Arc::new(Inner {
            published,
            availability: Arc::new(Availability::new(Arc::clone(&changes), Arc::clone(&called))),
            changes,
            ledger,
            desk: Mutex::default(),
            hook,
            stop: AtomicBool::new(false),
            called,
        });
        inner.adopt(experiments, router)?;
        let thread = std::thread::Builder::new()
            .name("learner".to_owned())
            .spawn({
                let inner = Arc::clone(&inner);
                move || inner.run()
            })?;
        Ok(Self {
            inner,
            thread: Some(thread),
        })
    }

    /// What serves; to be loaded once for each request.
    pub fn published(&self) -> Arc<ArcSwap<Published<R>>> {
        Arc::clone(&self.inner.published)
    }

    /// Puts `experiments` and their `router` in force in place of all others: all of them, durably, in one store, or on
    /// an error none of them. An operator's orders stay.
    ///
    /// # Errors
    ///
    /// See [`AdoptError`]. If the disk fails in the middle of it, this waits until it is known what has become of it.
    pub fn adopt(
        &self,
        experiments: Vec<Arc<Experiment>>,
        router: Arc<R>,
    ) -> Result<(), AdoptError> {
        self.inner.adopt(experiments, router)
    }

    /// A way to tell which arms have an available endpoint, for any thread.
    pub fn availability(&self) -> Arc<Availability> {
        Arc::clone(&self.inner.availability)
    }

    /// A way to give orders, for any thread.
    pub fn operator(&self) -> Operator<R> {
        Operator(Arc::clone(&self.inner))
    }

    /// Ends the thread. What serves goes on serving.
    pub fn shutdown(mut self) {
        self.stop();
    }
}

/// Gives an operator's orders: pauses experiments, takes arms out, lets them begin anew.
pub struct Operator<R>(Arc<Inner<R>>);

impl<R> Clone for Operator<R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<R> std::fmt::Debug for Operator<R> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Operator")
    }
}

impl<R> Operator<R> {
    /// Gives an order, which is durable and serves when this returns; how the experiment serves then. `None` if there is no such
    /// experiment or arm. To be called on a thread that may wait for the disk.
    ///
    /// # Errors
    ///
    /// See [`AdoptError`]. The order may be given again; if only the new allocation could not be journalled, the order holds already,
    /// and the allocation follows as soon as it can be.
    pub fn order(
        &self,
        experiment: ExperimentId,
        order: Order,
        reason: Option<Box<str>>,
    ) -> Result<Option<Arc<Serving>>, AdoptError> {
        let inner = &self.0;
        // Held throughout, so that no tick publishes what held before.
        let mut desk = inner.desk();
        let Some(index) = desk.place(experiment) else {
            return Ok(None);
        };
        let serving = Arc::clone(desk.at(index));
        let known = |arm| serving.experiment.arm_index(arm).is_some();
        if !order.arm().is_none_or(known) {
            return Ok(None);
        }
        inner.ledger.order(experiment, order, reason)?;
        let asked = vec![Arc::clone(&serving.experiment)];
        if let Some(prospect) = inner.ledger.prospects(asked)?.pop() {
            desk.follow(index, prospect);
        }
        // What holds already is published even if the new allocation cannot be journalled.
        let drawn = inner.draw_up(&mut desk, [index]);
        inner.publish(&mut desk);
        drawn?;
        Ok(Some(Arc::clone(desk.at(index))))
    }
}

impl<R> Learner<R> {
    fn stop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.inner.stop.store(true, Ordering::Release);
            self.inner.call();
            if thread.join().is_err() {
                tracing::error!("the learner's thread has panicked");
            }
        }
    }
}

impl<R> Drop for Learner<R> {
    fn drop(&mut self) {
        self.stop();
    }
}

impl<R> Inner<R> {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call(&self) {
        self.called.store(true, Ordering::Release);
        self.changes.wake();
    }

    /// The thread.
    fn run(&self) {
        let mut rest = Duration::ZERO;
        loop {
            std::thread::sleep(rest);
            if !self.desk().has_work(self.ledger.now()) {
                self.changes.wait(IDLE, &self.called);
            }
            self.called.store(false, Ordering::Release);
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            rest = self.tick().map_or(RETRY, |computed| REST.max(3 * computed));
        }
    }

    /// Learns and publishes. How long it computed; `None` if the journal took no allocations.
    fn tick(&self) -> Option<Duration> {
        let mut desk = self.desk();
        desk.receive(self.changes.take());
        desk.hear(&self.availability.unavailable());
        let due = desk.due(self.ledger.now());
        let computed = self.draw_up(&mut desk, due);
        // Which arms are lost is told even if no new allocation can be journalled.
        self.publish(&mut desk);
        match computed {
            Ok(computed) => Some(computed),
            Err(error) => {
                tracing::warn!(%error, "allocations stay as they are");
                None
            }
        }
    }

    /// Computes as many of these as there is time for, at least one, and lets them serve when their allocations are durable. How long
    /// it computed.
    fn draw_up(
        &self,
        desk: &mut Desk,
        due: impl IntoIterator<Item = usize>,
    ) -> Result<Duration, Unavailable> {
        let budget = Stopwatch::start();
        let now = self.ledger.now();
        let mut drafts = Vec::new();
        for index in due {
            drafts.push((index, desk.draft(index, now)));
            if budget.elapsed() >= COMPUTE {
                break;
            }
        }
        let computed = budget.elapsed();
        let allocations: Vec<_> = drafts
            .iter()
            .filter_map(|(_, draft)| draft.event())
            .collect();
        if !allocations.is_empty() {
            self.ledger.allocated(allocations)?;
        }
        for (index, draft) in drafts {
            desk.accept(index, draft);
        }
        Ok(computed)
    }

    /// Stores what has changed since the last time.
    fn publish(&self, desk: &mut Desk) {
        let (changed, since) = desk.take_unpublished();
        if changed.is_empty() {
            return;
        }
        let published = Arc::new(Published {
            router: Arc::clone(&self.published.load().router),
            experiments: desk.serving(),
        });
        self.published.store(Arc::clone(&published));
        let lag = since.map_or(Duration::ZERO, |since| since.elapsed());
        (self.hook)(&published, &changed, lag);
    }

    fn adopt(&self, experiments: Vec<Arc<Experiment>>, router: Arc<R>) -> Result<(), AdoptError> {
        // Held throughout, so that no tick publishes the old experiments again.
        let mut desk = self.desk();
        let prospects = self.ledger.prospects(experiments.clone())?;
        let epochs: Vec<_> = prospects.iter().map(|prospect| prospect.epoch).collect();
        let unavailable = self.availability.unavailable();
        let next = Desk::replacement(&experiments, prospects, &unavailable, self.ledger.now());
        self.ledger.adopt(Adoption {
            experiments: experiments.into_iter().zip(epochs).collect(),
            allocations: next.allocations,
        })?;
        *desk = next.desk;
        self.availability.keep_only(&desk.serving());
        let published = Arc::new(Published {
            router,
            experiments: desk.serving(),
        });
        self.published.store(Arc::clone(&published));
        let all: Vec<_> = (0..published.experiments.len()).collect();
        (self.hook)(&published, &all, Duration::ZERO);
        Ok(())
    }
}
