//! A fold of a journal from its beginning, or from a checkpoint on.
//!
//! It forgets as it goes, by the journalled times, so that it needs no more memory than the process that wrote the journal
//! did. Not here: reading the journal.

use super::event::{Event, Verdict};
use super::fold::{Limits, Plans, State};
use crate::clock::Timestamp;

/// A replay closes windows this long after the journalled times, in milliseconds: within a group, rewards stand in the
/// order of their commit and not quite in that of their receipt.
const REPLAY_SLACK: u64 = 10 * 60 * 1000;

/// A replay closes windows once in this many events; in tests more often, so that short histories see it.
const REPLAY_STRIDE: u64 = if cfg!(test) { 16 } else { 4096 };

/// A fold of journalled events.
#[derive(Debug)]
pub struct Replay {
    state: State,
    now: Timestamp,
    latest: Timestamp,
    events: u64,
    patient: bool,
    hasty: bool,
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
            patient: false,
            hasty: false,
        }
    }

    /// Forgets nothing before the end, whatever memory that takes: for a journal on which another fold was [hasty](Self::is_hasty).
    #[must_use]
    pub fn patient(mut self) -> Self {
        self.patient = true;
        self
    }

    /// Whether an event has come for a decision that was forgotten already, or a retirement after what it gives up was credited: the state is then
    /// wrong. The process that journalled it had not come that far, so its clock was behind that of an earlier one by more than the slack.
    pub fn is_hasty(&self) -> bool {
        self.hasty
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
        self.hasty |= self.comes_too_late(event);
        self.state.apply(event);
        self.events += 1;
        if self.events.is_multiple_of(REPLAY_STRIDE) {
            self.advance();
        }
    }

    /// Whether the state has moved on from what the process knew that journalled this event.
    fn comes_too_late(&self, event: &Event) -> bool {
        let decision = match event {
            Event::Decided(logged) => &logged.decision,
            Event::Ended(outcome) => &outcome.decision,
            Event::Shadowed(shadowed) => &shadowed.outcome.decision,
            Event::Rewarded(rewarded) if rewarded.verdict == Verdict::Accepted => {
                &rewarded.decision
            }
            Event::PolicyRetired { at, .. } => return *at < self.state.advanced(),
            _ => return false,
        };
        !self.state.remembers(decision)
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
        if self.patient {
            return;
        }
        let until = self.latest.min(self.now).as_millis();
        self.state
            .advance(Timestamp::from_millis(until.saturating_sub(REPLAY_SLACK)));
    }
}
