//! The ledger's thread: rounds of take, judge, commit, apply, answer. What policy files change is in `policies`.

mod policies;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::archivist::Desk;
use super::batches::{Batches, Place};
use super::queues::Recorded;
use super::shelf::Shelf;
use super::statements::Statements;
use super::waiting::Waiting;
use super::{Command, Config, Observer, Reply, Shared, Unavailable};
use crate::clock::{Clock, Stopwatch, Timestamp};
use crate::engine::attribute::{Claim, Judgement, Tentative};
use crate::engine::event::Event;
use crate::engine::fold::{Limits, State};
use crate::engine::orders::Ordered;
use crate::journal::{Storage, Writer};
use crate::rewards::{Answer, Item};

/// Decisions are flushed at least this often.
const FLUSH: Duration = Duration::from_millis(20);

/// Posts taken in one round.
const POSTS_A_ROUND: usize = 256;

/// What may be pending before a commit is started in the middle of a round.
const COMMIT_BYTES: usize = 4 << 20;

/// How often the thread does what nobody asks it for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// A failing disk is tried this often.
    pub(super) retry: Duration,
    /// Windows are closed this often.
    pub(super) advance: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            retry: Duration::from_millis(250),
            advance: Duration::from_secs(1),
        }
    }
}

/// A label that is judged at this time has waited long enough, whatever the clock says.
const WAITED: Timestamp = Timestamp::from_millis(u64::MAX);

/// Owns the journal's writer and the state.
pub(super) struct Keeper<S: Storage> {
    writer: Writer<S>,
    state: State,
    /// What the events would change that are not yet durable.
    tentative: Tentative,
    /// Those events, in the order in which the writer has them.
    unapplied: Vec<Event>,
    batches: Batches,
    waiting: Waiting,
    /// Labels whose outcome has come, or whose time is up.
    due: Vec<(Place, Claim)>,
    /// Those who wait until what they brought is durable, however long that takes.
    promised: Vec<Reply<Result<(), Unavailable>>>,
    shelf: Shelf,
    statements: Statements,
    limits: Limits,
    pub(super) pace: Pace,
    dropped_told: u64,
    revision: u64,
    tried: Stopwatch,
    advanced: Stopwatch,
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    observer: Arc<dyn Observer>,
}

impl<S: Storage> Keeper<S> {
    pub(super) fn new(
        writer: Writer<S>,
        mut state: State,
        desk: Desk,
        shared: Arc<Shared>,
        config: &Config,
    ) -> Self {
        // What was evicted in an earlier life was told then.
        state.take_evicted();
        let shelf = Shelf::new(desk, writer.unfinished(), config.retention);
        Self {
            writer,
            state,
            tentative: Tentative::default(),
            unapplied: Vec::new(),
            batches: Batches::default(),
            waiting: Waiting::default(),
            due: Vec::new(),
            promised: Vec::new(),
            shelf,
            statements: Statements::default(),
            limits: config.limits,
            pace: Pace::default(),
            dropped_told: 0,
            revision: 0,
            tried: Stopwatch::start(),
            advanced: Stopwatch::start(),
            shared,
            clock: Arc::clone(&config.clock),
            observer: Arc::clone(&config.observer),
        }
    }

    /// Whether the last commit failed.
    #[cfg(test)]
    pub(super) fn is_failing(&self) -> bool {
        self.writer.is_failing()
    }

    /// What has been applied, and what has not.
    #[cfg(test)]
    pub(super) fn parts(&self) -> (&State, &[Event]) {
        (&self.state, &self.unapplied)
    }

    /// Works until it is told to stop, or nobody is left to tell it anything.
    pub(super) fn run(mut self, control: &Receiver<Command>) {
        loop {
            let first = match control.recv_timeout(FLUSH) {
                Ok(command) => Some(command),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(Command::Stop),
            };
            let commands: Vec<_> = first
                .into_iter()
                .chain(control.try_iter().take(POSTS_A_ROUND))
                .collect();
            if self.round(commands) {
                let rest = control.try_iter().collect();
                self.round(rest);
                break;
            }
        }
        self.batches.refuse_all(Unavailable::Stopping);
        for reply in self.promised.drain(..) {
            reply.send(Err(Unavailable::Stopping)).ok();
        }
    }

    /// One round; whether it was the last.
    ///
    /// The commands were taken before the queues are emptied: what was offered before a reward was posted is in them.
    pub(super) fn round(&mut self, commands: Vec<Command>) -> bool {
        self.revision += 1;
        if self.writer.is_failing() && self.tried.elapsed() >= self.pace.retry {
            self.commit();
        }
        let mut posts = Vec::new();
        let mut later = Vec::new();
        let mut stop = false;
        for command in commands {
            match command {
                Command::Post { items, reply } => posts.push((items, reply)),
                Command::Allocated { events, reply } => self.promise(events, reply),
                Command::Nudge => {}
                Command::Stop => stop = true,
                asked @ (Command::Prospects { .. }
                | Command::Adopt { .. }
                | Command::Order { .. }) => later.push(asked),
            }
        }
        self.empty_queues();
        self.settle_due_labels();
        for (items, reply) in posts {
            self.post(items, reply);
        }
        if stop || !self.writer.is_failing() {
            self.commit();
        }
        for command in later {
            match command {
                Command::Prospects { experiments, reply } => {
                    reply.send(self.prospects(&experiments)).ok();
                }
                Command::Adopt { adoption, reply } => self.adopt(&adoption, reply),
                Command::Order {
                    experiment,
                    order,
                    reason,
                    reply,
                } => {
                    // Everything else is durable and applied, so no reward is judged by what held before the order.
                    let event = Event::Ordered(Box::new(Ordered {
                        at: self.clock.now().max(self.state.advanced()),
                        experiment,
                        order,
                        reason,
                    }));
                    let news = self.state.is_news(experiment, order);
                    self.promise(news.then_some(event).into_iter().collect(), reply);
                    self.commit();
                }
                _ => {}
            }
        }
        self.close_windows();
        self.tell();
        stop
    }

    /// Takes what the request threads have left.
    fn empty_queues(&mut self) {
        let shared = Arc::clone(&self.shared);
        shared.queues.drain(|Recorded { event, id }| {
            let decision = match &event {
                Event::Decided(logged) => &logged.decision,
                Event::Ended(outcome) => &outcome.decision,
                Event::Shadowed(shadowed) => &shadowed.outcome.decision,
                _ => return,
            };
            if !self.state.remembers(decision) || !self.make_room() {
                self.drop_event();
                return;
            }
            self.state_anew();
            if let Some(id) = id {
                self.writer.note_signed(decision, id);
            }
            if self.writer.append(&event).is_err() {
                self.drop_event();
                return;
            }
            if let Event::Decided(logged) = &event {
                self.tentative.note_decision(&self.state, logged);
            }
            if let Event::Ended(outcome) = &event {
                self.tentative.note(&self.state, outcome);
                self.due
                    .extend(self.waiting.take(outcome.decision.sequence));
            }
            self.unapplied.push(event);
        });
    }

    fn drop_event(&self) {
        self.shared.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Commits when much is pending. Whether more may be appended: while the disk fails, only as much as memory is set
    /// aside for, which `append` sees to.
    fn make_room(&mut self) -> bool {
        self.writer.is_failing()
            || self.writer.pending_bytes() < COMMIT_BYTES
            || self.commit()
            || self.writer.is_failing()
    }

    /// Judges the labels that need not wait any longer, unless the disk fails.
    fn settle_due_labels(&mut self) {
        let now = self.clock.now();
        let expired = self.waiting.take_expired(now, self.limits.label_wait);
        self.due.extend(expired);
        if self.writer.is_failing() {
            return;
        }
        for (place, claim) in std::mem::take(&mut self.due) {
            if self.batches.is_open(place.batch) {
                self.judge(place, claim, WAITED);
            }
        }
    }

    /// Judges a post.
    fn post(&mut self, items: Vec<Item>, reply: Reply<Result<Vec<Answer>, Unavailable>>) {
        self.shared
            .posted_items
            .fetch_sub(items.len(), Ordering::Relaxed);
        if self.writer.is_failing() {
            reply.send(Err(Unavailable::Failing)).ok();
            return;
        }
        let now = self.clock.now();
        let batch = self.batches.open(items.len(), reply);
        for (index, item) in items.into_iter().enumerate() {
            let place = Place { batch, index };
            match item {
                Ok(claim) => match self.state.resolve(&self.tentative, claim) {
                    Ok(claim) => self.judge(place, claim, now),
                    Err(error) => self.invalid(place, error),
                },
                Err(error) => self.invalid(place, error),
            }
            if !self.batches.is_open(batch) {
                return;
            }
        }
    }

    fn invalid(&mut self, place: Place, error: String) {
        self.observer.invalid();
        self.batches.answer(place, Answer::Invalid(error));
    }

    fn judge(&mut self, place: Place, claim: Claim, now: Timestamp) {
        let deadline = claim.received.plus(self.limits.label_wait);
        let now = if self.waiting.is_full() {
            deadline
        } else {
            now
        };
        self.recall(&claim);
        match self.state.judge(&mut self.tentative, claim, now) {
            Judgement::Judged(rewarded) => {
                let answer = if self.state.is_unlearned(&rewarded) {
                    Answer::Unlearned
                } else {
                    Answer::Judged(rewarded.verdict)
                };
                if self.append(Event::Rewarded(rewarded)) {
                    self.batches.answer(place, answer);
                } else {
                    self.batches.refuse(place.batch, Unavailable::Failing);
                }
            }
            Judgement::Wait(claim) => self.waiting.push(place, *claim, deadline),
            Judgement::Invalid(error) => self.invalid(place, error),
        }
    }

    /// Looks in sealed segments for what the judgement needs and memory no longer has.
    fn recall(&mut self, claim: &Claim) {
        let (decision, storage) = (&claim.decision, self.writer.storage());
        if self.state.lacks_context(&self.tentative, claim)
            && let Some(context) = self.shelf.context(storage, decision)
        {
            self.tentative.recall_context(decision.sequence, context);
        }
        if self.state.lacks_prediction(&self.tentative, claim)
            && let Some(label) = self.shelf.prediction(storage, decision)
        {
            self.tentative
                .recall_prediction(decision.sequence, Some(label));
        }
    }

    /// Before anything else, a segment gets what is in force; but nothing is written for its sake alone.
    fn state_anew(&mut self) {
        let now = !self.statements.are_complete() && self.unapplied.is_empty();
        if !now || self.writer.is_failing() {
            return;
        }
        let at = self.clock.now().max(self.state.advanced());
        for event in self.statements.missing(&self.state, at) {
            if self.writer.append(&event).is_ok() {
                self.statements.note(&event);
                self.unapplied.push(event);
            }
        }
    }

    /// Hands an event to the writer; commits when much is pending.
    fn append(&mut self, event: Event) -> bool {
        self.state_anew();
        if self.writer.append(&event).is_err() {
            return false;
        }
        self.statements.note(&event);
        self.unapplied.push(event);
        self.writer.pending_bytes() < COMMIT_BYTES || self.commit()
    }

    /// Takes allocations; their sender is answered when they are durable.
    fn promise(&mut self, events: Vec<Event>, reply: Reply<Result<(), Unavailable>>) {
        if self.writer.is_failing() {
            reply.send(Err(Unavailable::Failing)).ok();
            return;
        }
        for event in events {
            if !self.append(event) {
                reply.send(Err(Unavailable::Failing)).ok();
                return;
            }
        }
        self.promised.push(reply);
    }

    /// Makes what is pending durable, applies it and answers for it. Whether the disk took it.
    fn commit(&mut self) -> bool {
        if self.writer.pending_bytes() > 0 {
            let was_failing = self.writer.is_failing();
            self.tried = Stopwatch::start();
            if let Err(error) = self.writer.commit() {
                self.failed(&error, was_failing);
                return false;
            }
            self.observer.committed(self.tried.elapsed());
            if was_failing {
                tracing::info!("the journal can be written again");
                self.observer.writable(true);
            }
            for event in self.unapplied.drain(..) {
                self.state.apply(&event);
                if let Event::Rewarded(rewarded) = &event {
                    self.observer.judged(rewarded);
                }
            }
            self.tentative = Tentative::default();
            if self.shelf.committed(&mut self.writer) {
                self.statements.begin_segment();
            }
        }
        self.batches.committed();
        for reply in self.promised.drain(..) {
            reply.send(Ok(())).ok();
        }
        true
    }

    /// What is pending stays with the writer and will be tried again; those who posted rewards are not kept waiting.
    fn failed(&mut self, error: &std::io::Error, was_failing: bool) {
        if !was_failing {
            tracing::error!(%error, "the journal cannot be written: rewards are answered 503, decisions go on");
            self.observer.writable(false);
        }
        self.batches.refuse_all(Unavailable::Failing);
    }

    /// Closes windows, unless events that belong before their closing are held up.
    fn close_windows(&mut self) {
        if self.advanced.elapsed() >= self.pace.advance && self.unapplied.is_empty() {
            self.advanced = Stopwatch::start();
            self.state.advance(self.clock.now());
            for (experiment, keys) in self.state.take_evicted() {
                self.observer.evicted(&experiment, keys);
            }
        }
    }

    /// Tells the learner which tallies have changed, and the observer what was dropped.
    fn tell(&mut self) {
        for experiment in self.state.take_changed() {
            if let Some(standing) = self.state.standing(experiment) {
                let arms = self.state.tallies(experiment);
                self.shared
                    .changes
                    .put(experiment, standing.epoch, self.revision, arms);
            }
        }
        let dropped = self.shared.dropped.load(Ordering::Relaxed);
        if dropped > self.dropped_told {
            self.observer.dropped(dropped - self.dropped_told);
            self.dropped_told = dropped;
        }
    }
}
