//! Coarse time-outs: one tick of the worker looks at all of them, so that arming one costs two stores instead of a place in the
//! runtime's timer wheel. They fire late by up to a tick ([`TICK`]), never early.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::clock::Stopwatch;

/// Time between two looks.
pub const TICK: Duration = Duration::from_millis(50);

/// How long a connection that is idle when the process drains may take to begin a request: a client that has just sent one, or has just
/// connected, cannot know.
const LINGER: u64 = 1_000;

/// It did not happen in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elapsed;

/// The time-outs of one worker.
#[derive(Debug)]
pub struct Timers {
    started: Stopwatch,
    now: Cell<u64>,
    /// Whether idle waits end soon.
    is_draining: Cell<bool>,
    slots: RefCell<Vec<Rc<Slot>>>,
}

#[derive(Debug)]
struct Slot {
    /// Its place among the slots.
    index: Cell<usize>,
    /// In milliseconds of [`Timers::now`]; `u64::MAX`: not armed.
    deadline: Cell<u64>,
    waker: RefCell<Option<Waker>>,
}

impl Timers {
    /// Whose time began with `started`.
    pub fn new(started: Stopwatch) -> Self {
        Self {
            now: Cell::new(started.elapsed().as_millis() as u64),
            started,
            is_draining: Cell::new(false),
            slots: RefCell::default(),
        }
    }

    /// Milliseconds since the process started, as of the last tick.
    pub fn now(&self) -> u64 {
        self.now.get()
    }

    /// Takes the time, and wakes whoever waited too long.
    pub fn tick(&self) {
        self.now.set(self.started.elapsed().as_millis() as u64);
        for slot in &*self.slots.borrow() {
            if slot.deadline.get() <= self.now.get()
                && let Some(waker) = slot.waker.take()
            {
                waker.wake();
            }
        }
    }

    /// Has every idle wait end soon, those to come too.
    pub fn drain(&self) {
        self.is_draining.set(true);
        for slot in &*self.slots.borrow() {
            if let Some(waker) = slot.waker.take() {
                waker.wake();
            }
        }
    }

    /// Whether idle waits end soon.
    pub fn is_draining(&self) -> bool {
        self.is_draining.get()
    }

    /// Ticks until it is dropped.
    pub async fn run(&self) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.tick();
        }
    }
}

/// A place for one time-out at a time.
#[derive(Debug)]
pub struct Timer {
    timers: Rc<Timers>,
    slot: Rc<Slot>,
}

impl Timer {
    /// Whether the worker drains.
    pub fn is_draining(&self) -> bool {
        self.timers.is_draining()
    }

    /// A timer that `timers` looks after.
    pub fn new(timers: &Rc<Timers>) -> Self {
        let mut slots = timers.slots.borrow_mut();
        let slot = Rc::new(Slot {
            index: Cell::new(slots.len()),
            deadline: Cell::new(u64::MAX),
            waker: RefCell::default(),
        });
        slots.push(Rc::clone(&slot));
        drop(slots);
        Self {
            timers: Rc::clone(timers),
            slot,
        }
    }

    /// Milliseconds since the process started, as of the last tick.
    pub fn now(&self) -> u64 {
        self.timers.now()
    }

    /// Like [`Self::within`], and not much longer than until the worker drains: a request that is on its way is still heard.
    pub async fn while_idle<F: Future>(&self, limit: u64, future: F) -> Result<F::Output, Elapsed> {
        let mut future = pin!(future);
        let until_drained = poll_fn(|context| {
            let polled = future.as_mut().poll(context);
            if polled.is_pending() && self.timers.is_draining() {
                let last = self.timers.now().saturating_add(limit.min(LINGER));
                let deadline = &self.slot.deadline;
                deadline.set(deadline.get().min(last));
            }
            polled
        });
        self.within(limit, until_drained).await
    }

    /// Waits for `future` for at most `limit` milliseconds.
    pub async fn within<F: Future>(&self, limit: u64, future: F) -> Result<F::Output, Elapsed> {
        let mut future = pin!(future);
        let _disarmed = Disarm(&self.slot);
        poll_fn(|context| {
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(Ok(output));
            }
            let slot = &self.slot;
            if slot.deadline.get() == u64::MAX {
                // The clock stands between ticks: without one more the time-out could come early.
                let margin = TICK.as_millis() as u64;
                let deadline = self.timers.now().saturating_add(limit) + margin;
                slot.deadline.set(deadline);
            } else if slot.deadline.get() <= self.timers.now() {
                return Poll::Ready(Err(Elapsed));
            }
            let mut waker = slot.waker.borrow_mut();
            match &mut *waker {
                Some(waker) => waker.clone_from(context.waker()),
                none => *none = Some(context.waker().clone()),
            }
            Poll::Pending
        })
        .await
    }

    /// Waits `limit` milliseconds.
    pub async fn sleep(&self, limit: u64) {
        let never = self.within(limit, std::future::pending::<()>()).await;
        debug_assert_eq!(never, Err(Elapsed));
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let mut slots = self.timers.slots.borrow_mut();
        let index = self.slot.index.get();
        slots.swap_remove(index);
        if let Some(moved) = slots.get(index) {
            moved.index.set(index);
        }
    }
}

struct Disarm<'a>(&'a Slot);

impl Drop for Disarm<'_> {
    fn drop(&mut self) {
        self.0.deadline.set(u64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_comes_in_time_is_not_cut_and_what_does_not_is() {
        let timers = Rc::new(Timers::new(Stopwatch::start()));
        let (first, second) = (Timer::new(&timers), Timer::new(&timers));
        assert_eq!(first.within(0, async { 7 }).await, Ok(7));
        drop(first);
        let waited = tokio::select! {
            () = timers.run() => None,
            waited = second.within(20, std::future::pending::<()>()) => Some(waited),
        };
        assert_eq!(waited, Some(Err(Elapsed)));
        assert!(timers.now() >= 20);
        drop(second);
        assert!(timers.slots.borrow().is_empty());
    }

    #[tokio::test]
    async fn an_idle_wait_outlives_the_drain_by_a_moment() {
        let timers = Rc::new(Timers::new(Stopwatch::start()));
        let (idle, heard) = (Timer::new(&timers), Timer::new(&timers));
        let (sender, late) = tokio::sync::oneshot::channel();
        timers.drain();
        let talk = async {
            tokio::time::sleep(TICK).await;
            sender.send(7).unwrap();
        };
        let waited = async {
            tokio::join!(
                idle.while_idle(u64::MAX, std::future::pending::<()>()),
                heard.while_idle(u64::MAX, late),
                talk
            )
        };
        let waited = tokio::select! {
            () = timers.run() => None,
            waited = waited => Some(waited),
        };
        assert_eq!(waited, Some((Err(Elapsed), Ok(Ok(7)), ())));
        assert!((LINGER..3 * LINGER).contains(&timers.now()));
    }
}
