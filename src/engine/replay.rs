//! A fold of a journal from its beginning, or from a checkpoint on.
//!
//! It forgets as it goes, by the journalled times, so that it needs no more memory than the process that wrote the journal
//! did. Not here: reading the journal.

use super::event::Event;
use super::fold::{Limits, Plans, State};
use crate::clock::Timestamp;

/// A replay closes windows this long after the journalled times, in milliseconds: within a group, rewards stand in the
/// order of their commit and not quite in that of their receipt.
const REPLAY_SLACK: u64 = 10 * 60 * 1000;

/// A replay closes windows once in this many events.
const REPLAY_STRIDE: u64 = 4096;

/// A fold of journalled events.
#[derive(Debug)]
pub struct Replay {
    state: State,
    now: Timestamp,
    latest: Timestamp,
    events: u64,
}

impl Replay {
    /// A fold of the events up to `now`, from the first.
    pub fn new(limits: Limits, now: Timestamp) -> Self {
        Self::resume(State::new(limits), now, Timestamp::default())
    }

    /// A fold that goes on after what led to `state`; `latest` is what [`Replay::latest`] was then.
    pub fn resume(state: State, now: Timestamp, latest: Timestamp) -> Self {
        Self {
            state,
            now,
            latest,
            events: 0,
        }
    }

    /// With these statistics from the first event on.
    #[must_use]
    pub fn with_plans(mut self, plans: Plans) -> Self {
        self.state.set_plans(plans);
        self
    }

    /// Takes the next event of the journal.
    pub fn push(&mut self, event: &Event) {
        self.latest = self.latest.max(event.at());
        self.state.apply(event);
        self.events += 1;
        if self.events.is_multiple_of(REPLAY_STRIDE) {
            self.advance();
        }
    }

    /// The latest journalled time so far.
    pub fn latest(&self) -> Timestamp {
        self.latest
    }

    /// The state after the events so far, to be gone on with.
    pub fn pause(mut self) -> State {
        self.advance();
        self.state
    }

    /// The state now.
    pub fn finish(mut self) -> State {
        self.state.advance(self.now);
        self.state.set_plans(Plans::new());
        self.state
    }

    fn advance(&mut self) {
        let until = self.latest.min(self.now).as_millis();
        self.state
            .advance(Timestamp::from_millis(until.saturating_sub(REPLAY_SLACK)));
    }
}
