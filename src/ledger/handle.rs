//! The ways into the ledger, for any thread.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use crossbeam_channel::{Sender, TrySendError};
use tokio::sync::oneshot;

use super::{
    AdoptError, Adoption, Changes, Command, Prospect, Recorder, Reply, Shared, Unavailable,
};
use crate::clock::{Clock, Timestamp};
use crate::engine::event::Event;
use crate::engine::orders::Order;
use crate::experiment::Experiment;
use crate::experiment::id::ExperimentId;
use crate::rewards::{Answer, Item};

/// Rewards that may wait to be taken by the thread, all together.
const POSTED_ITEMS: usize = 200_000;

/// Reaches a running ledger, from any thread.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) control: Sender<Command>,
    pub(super) shared: Arc<Shared>,
    pub(super) clock: Arc<dyn Clock>,
}

impl Handle {
    /// The recorder of request thread `worker`; `None` beyond the configured number.
    pub fn recorder(&self, worker: u16) -> Option<Recorder> {
        Recorder::new(&self.shared, worker, self.control.clone())
    }

    /// The server's time: what a reward is stamped with at receipt.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Posts rewards. They are on their way when this returns, whether the receipt is waited for or not.
    pub fn post(&self, items: Vec<Item>) -> Receipt<Vec<Answer>> {
        let (reply, receipt) = oneshot::channel();
        if items.iter().all(Result::is_err) {
            let answers = items
                .into_iter()
                .filter_map(Result::err)
                .map(Answer::Invalid)
                .collect();
            reply.send(Ok(answers)).ok();
            return Receipt(receipt);
        }
        if !self.shared.open.load(Ordering::Acquire) {
            reply.send(Err(Unavailable::Starting)).ok();
            return Receipt(receipt);
        }
        let count = items.len();
        let waiting = self.shared.posted_items.fetch_add(count, Ordering::Relaxed);
        if waiting + count > POSTED_ITEMS && waiting > 0 {
            self.shared.posted_items.fetch_sub(count, Ordering::Relaxed);
            reply.send(Err(Unavailable::Busy)).ok();
            return Receipt(receipt);
        }
        if let Err(refused) = self.control.try_send(Command::Post { items, reply }) {
            self.shared.posted_items.fetch_sub(count, Ordering::Relaxed);
            if let TrySendError::Full(Command::Post { reply, .. }) = refused {
                reply.send(Err(Unavailable::Busy)).ok();
            }
        }
        Receipt(receipt)
    }

    /// Makes changed allocations ([`Event::Allocated`]) durable; to be waited for before anything is drawn from them.
    ///
    /// # Errors
    ///
    /// [`Unavailable`]. If the disk fails in the middle of it, this waits until it is known what has become of them.
    pub fn allocated(&self, events: Vec<Event>) -> Result<(), Unavailable> {
        self.ask(|reply| Command::Allocated { events, reply })
    }

    /// Where these experiments would go on.
    ///
    /// # Errors
    ///
    /// [`AdoptError`].
    pub fn prospects(
        &self,
        experiments: Vec<Arc<Experiment>>,
    ) -> Result<Vec<Prospect>, AdoptError> {
        let (reply, receipt) = oneshot::channel();
        self.control
            .send(Command::Prospects { experiments, reply })
            .map_err(|_| Unavailable::Stopping)?;
        receipt.blocking_recv().map_err(|_| Unavailable::Stopping)?
    }

    /// Puts experiments in force in place of all others, in one commit; to be waited for before they serve. Policies that
    /// have not changed are not written again.
    ///
    /// # Errors
    ///
    /// As for [`Handle::allocated`].
    pub fn adopt(&self, adoption: Adoption) -> Result<(), Unavailable> {
        let adoption = Box::new(adoption);
        self.ask(|reply| Command::Adopt { adoption, reply })
    }

    /// Makes an operator's order durable; the state follows it when this returns. One that changes nothing is not written.
    ///
    /// # Errors
    ///
    /// As for [`Handle::allocated`].
    pub fn order(
        &self,
        experiment: ExperimentId,
        order: Order,
        reason: Option<Box<str>>,
    ) -> Result<(), Unavailable> {
        self.ask(|reply| Command::Order {
            experiment,
            order,
            reason,
            reply,
        })
    }

    /// Where changed tallies arrive after each commit.
    pub fn changes(&self) -> Arc<Changes> {
        Arc::clone(&self.shared.changes)
    }

    /// Events that were dropped so far.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    fn ask(
        &self,
        command: impl FnOnce(Reply<Result<(), Unavailable>>) -> Command,
    ) -> Result<(), Unavailable> {
        let (reply, receipt) = oneshot::channel();
        self.control
            .send(command(reply))
            .map_err(|_| Unavailable::Stopping)?;
        receipt.blocking_recv().map_err(|_| Unavailable::Stopping)?
    }
}

/// The promise of an answer. Dropping it cancels nothing.
#[derive(Debug)]
pub struct Receipt<T>(oneshot::Receiver<Result<T, Unavailable>>);

impl<T> Receipt<T> {
    /// Waits for the answer on a thread that is not a runtime's.
    pub fn wait(self) -> Result<T, Unavailable> {
        self.0.blocking_recv().map_err(|_| Unavailable::Stopping)?
    }
}

impl<T> Future for Receipt<T> {
    type Output = Result<T, Unavailable>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(context)
            .map(|answer| answer.unwrap_or(Err(Unavailable::Stopping)))
    }
}
