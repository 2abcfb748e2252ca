//! Shadows: copies of requests that go to other arms, whose answers no client sees.
//!
//! A request is picked when its decision is made (`pick`), by a keyed hash of the decision. Its body is copied aside while it passes to
//! the arm that serves (`Copying`); when it is whole, a task of its own sends each copy over connections that only
//! shadows use, and records what came of it. The client's exchange waits for none of it and does not see how it ends.
//!
//! What is under way is bounded: each copy has a `Slot` of its experiment before its first byte is kept, and bodies have a limit. What
//! has no slot, or does not become whole, is skipped and counted. Not here: scores, which are the engine's.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::body::Source;
use super::client::Client;
use super::exchange::is_failure;
use super::forward::opening;
use super::grpc::GrpcStatus;
use super::headers::{Head, Outgoing};
use super::router::{Route, Router};
use super::upstream::relay::{Observer, Parties, Relay, Relayed};
use super::upstream::{Link, choose};
use super::worker::{Peer, Worker};
use crate::clock::Stopwatch;
use crate::engine::event::Event;
use crate::experiment::decision::{Decision, Ending, Label, Outcome, Reason, Shadowed};
use crate::experiment::reward::LabelRule;
use crate::experiment::shadow::ShadowRule;
use crate::experiment::{Arm, Experiment};
use crate::http1::head::{Request, Response};
use crate::json;
use crate::learner::Published;
use crate::telemetry::metrics::{Metrics, ShadowMetrics};

/// The copies of one experiment's requests that are under way in this process, reloads or not.
#[derive(Debug, Default)]
pub struct Slots(AtomicUsize);

impl Slots {
    fn take(self: &Arc<Self>, limit: usize) -> Option<Slot> {
        let one_more = |taken| (taken < limit).then_some(taken + 1);
        let taken = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        taken.is_ok().then(|| Slot(Arc::clone(self)))
    }
}

/// The place of one copy.
#[derive(Debug)]
struct Slot(Arc<Slots>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// `[shadow]`, with all that can be worked out before the first request.
#[derive(Debug)]
pub struct RouteShadow {
    fraction: f64,
    concurrency: usize,
    timeout: Duration,
    body_limit: usize,
    arms: Vec<ShadowArm>,
    slots: Arc<Slots>,
}

#[derive(Debug)]
struct ShadowArm {
    /// Its index in the experiment.
    index: usize,
    name: String,
    metrics: ShadowMetrics,
}

impl RouteShadow {
    /// Compiles the rule of `experiment`.
    pub fn build(
        rule: &ShadowRule,
        experiment: &Experiment,
        slots: Arc<Slots>,
        metrics: &Metrics,
    ) -> Self {
        let arm = |index: usize, arm: &Arm| ShadowArm {
            index,
            name: arm.name.to_string(),
            metrics: metrics.shadow(&experiment.name, &arm.name),
        };
        let arms = rule.arms.iter().copied();
        Self {
            fraction: rule.fraction,
            concurrency: rule.concurrency,
            timeout: Duration::from_millis(rule.timeout),
            body_limit: rule.body_limit,
            arms: arms
                .filter_map(|index| Some(arm(index, experiment.arms.get(index)?)))
                .collect(),
            slots,
        }
    }

    /// A ticket for each arm but the one that serves, as far as there are slots. Where they run out depends on `start`, so that no arm always
    /// comes last.
    fn tickets(&self, served: usize, start: u64, has_room: bool) -> Vec<Ticket> {
        let count = self.arms.len();
        let first = (start % count.max(1) as u64) as usize;
        let mut tickets = Vec::new();
        for place in (first..count).chain(0..first) {
            let arm = &self.arms[place];
            if arm.index == served {
                continue;
            }
            match has_room
                .then(|| self.slots.take(self.concurrency))
                .flatten()
            {
                Some(slot) => tickets.push(Ticket {
                    place,
                    unsent: Some(arm.metrics.skipped.clone()),
                    _slot: slot,
                }),
                None => arm.metrics.skipped.increment(1),
            }
        }
        tickets
    }
}

/// One copy that is to be sent. Dropped before that, it counts as skipped.
#[derive(Debug)]
struct Ticket {
    /// The shadow's place in [`RouteShadow::arms`].
    place: usize,
    unsent: Option<metrics::Counter>,
    _slot: Slot,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(skipped) = self.unsent.take() {
            skipped.increment(1);
        }
    }
}

/// A request that is shadowed: what its copies have in common.
#[derive(Debug)]
struct Shadowing {
    worker: Rc<Worker>,
    published: Arc<Published<Router>>,
    index: usize,
    decision: Decision,
    request: Request,
    peer: Peer,
}

/// Where a request was matched, and to whom it goes.
pub(super) struct Picked<'a> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) published: &'a Arc<Published<Router>>,
    pub(super) index: usize,
    pub(super) decision: &'a Decision,
    /// The index of the arm that serves.
    pub(super) served: usize,
    pub(super) request: &'a Request,
    pub(super) peer: &'a Peer,
}

/// The copies of a request, if its decision is one of those that are shadowed. `announced` is the length that its body is said to have: it is not
/// exceeded, and a body of unknown length is watched.
pub(super) fn pick(
    shadow: &RouteShadow,
    picked: &Picked<'_>,
    announced: Option<u64>,
) -> Option<Box<Copying>> {
    let (worker, decision) = (picked.worker, picked.decision);
    let number = worker.shared.draw_keys.shadow(decision.sequence);
    if decision.reason != Reason::Sampled || number >= shadow.fraction {
        return None;
    }
    let announced = announced.unwrap_or(0);
    let has_room = announced <= shadow.body_limit as u64;
    let tickets = shadow.tickets(picked.served, decision.sequence.counter, has_room);
    if tickets.is_empty() {
        return None;
    }
    let shadowing = Shadowing {
        worker: Rc::clone(worker),
        published: Arc::clone(picked.published),
        index: picked.index,
        decision: *decision,
        request: picked.request.clone(),
        peer: picked.peer.clone(),
    };
    Some(Box::new(Copying {
        shadowing,
        tickets,
        body: Vec::new(),
        announced: announced as usize,
        limit: shadow.body_limit,
    }))
}

/// A request's body on its way to the arm that serves, copied aside.
#[derive(Debug)]
pub struct Copying {
    shadowing: Shadowing,
    /// Empty when it was given up.
    tickets: Vec<Ticket>,
    body: Vec<u8>,
    /// Bytes that are sure to come.
    announced: usize,
    limit: usize,
}

impl Copying {
    /// A piece of the body passes.
    pub fn push(&mut self, data: &[u8]) {
        if self.tickets.is_empty() {
            return;
        }
        if data.len() > self.limit - self.body.len() {
            self.tickets.clear();
            self.body = Vec::new();
        } else {
            if self.body.is_empty() {
                self.body.reserve_exact(self.announced);
            }
            self.body.extend_from_slice(data);
        }
    }

    /// The request is sent anew: so is the copy.
    pub fn restart(&mut self) {
        self.body.clear();
    }

    /// The body has passed as a whole: the copies are sent.
    pub fn complete(mut self) {
        let body = Bytes::from(std::mem::take(&mut self.body));
        let shadowing = Rc::new(self.shadowing);
        for ticket in self.tickets {
            let (shadowing, body) = (Rc::clone(&shadowing), body.clone());
            tokio::task::spawn_local(async move { shadowing.send(ticket, body).await });
        }
    }
}

/// What came back.
#[derive(Debug)]
struct Answer {
    status: Option<u16>,
    call: Option<GrpcStatus>,
    /// The response as far as a prediction is looked for in it.
    body: Vec<u8>,
    limit: usize,
    is_too_long: bool,
}

impl Head for Answer {}

impl Observer for Answer {
    fn answered(&mut self, status: u16) {
        self.status = Some(status);
    }

    fn passes(&mut self, data: &[u8]) -> bool {
        self.is_too_long |= self.body.len() + data.len() > self.limit;
        if self.is_too_long {
            self.body = Vec::new();
        } else {
            self.body.extend_from_slice(data);
        }
        // The rest is of no use to anybody.
        !self.is_too_long
    }

    fn ended(&mut self, call: Option<GrpcStatus>) {
        self.call = call;
    }
}

impl Shadowing {
    fn route(&self) -> &Route {
        &self.published.router.routes[self.index]
    }

    fn experiment(&self) -> &Experiment {
        &self.published.experiments[self.index].experiment
    }

    /// Sends a copy and records what came of it.
    async fn send(&self, mut ticket: Ticket, body: Bytes) {
        let Some(shadow) = &self.route().shadow else {
            return;
        };
        ticket.unsent = None;
        let arm = &shadow.arms[ticket.place];
        let stopwatch = Stopwatch::start();
        let mut answer = Answer {
            status: None,
            call: None,
            body: Vec::new(),
            limit: self.worker.shared.settings.limits.label_response,
            is_too_long: false,
        };
        let whole = self.exchange(arm, body, &mut answer);
        let whole = tokio::time::timeout(shadow.timeout, whole).await;
        let latency_micros = stopwatch.elapsed().as_micros() as u64;
        let fails = |status| is_failure(status, answer.call);
        let answered = whole == Ok(true) && !answer.status.is_none_or(fails);
        let (ending, counter) = if answered {
            (Ending::Answered, &arm.metrics.answered)
        } else {
            (Ending::Failed, &arm.metrics.failed)
        };
        counter.increment(1);
        let experiment = self.experiment();
        let rule = experiment.label.as_ref().filter(|_| answered);
        let outcome = Outcome {
            decision: self.decision,
            at: self.worker.now(),
            ending,
            status: answer.status,
            latency_micros,
            prediction: rule.and_then(|rule| answer.prediction(rule)),
        };
        self.worker.record(Event::Shadowed(Box::new(Shadowed {
            arm: experiment.arms[arm.index].id,
            outcome,
        })));
    }

    /// Sends a copy and reads the response. Whether that went well.
    async fn exchange(&self, arm: &ShadowArm, body: Bytes, answer: &mut Answer) -> bool {
        let (worker, route) = (&self.worker, self.route());
        let target = &route.arms[arm.index].target;
        let start = self.decision.sequence.counter;
        let at = (worker.timers.now(), route.access.rule.slow_start);
        let Some(in_flight) = choose(&target.endpoints, start, at, false) else {
            return false;
        };
        let opening = opening(worker, &route.access.rule);
        let Ok(mut link) = worker.shadows.acquire(in_flight.state, opening).await else {
            return false;
        };
        let outgoing = Outgoing {
            request: &self.request,
            peer: &self.peer,
            forwarding: worker.shared.settings.forwarding,
            sequence: self.decision.sequence,
            identity: self.experiment().label.is_some(),
            websocket: false,
            is_whole: true,
            deadline: None,
            shadow: Some(&arm.name),
        };
        let relay = Relay::new(
            worker,
            &route.access.rule,
            target,
            in_flight.state,
            &outgoing,
        );
        let mut source = Source::memory(body);
        let parties = Parties {
            source: &mut source,
            client: &mut Client::nobody(self.request.method() == "HEAD"),
            observer: answer,
            copying: &mut None,
        };
        let relayed = relay
            .run(&mut link, parties, &mut Response::default())
            .await;
        match (relayed, link) {
            (Ok(Relayed::Whole { reusable: true, .. }), Link::Wire(connection)) => {
                worker
                    .shadows
                    .give_back(in_flight.state, connection, opening.idle);
                true
            }
            (relayed, _) => relayed.is_ok(),
        }
    }
}

impl Answer {
    fn prediction(&self, rule: &LabelRule) -> Option<Label> {
        json::label_at(&json::first_value(&self.body)?, &rule.prediction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_bounded_and_given_back() {
        let slots = Arc::new(Slots::default());
        let taken: Vec<_> = (0..4).filter_map(|_| slots.take(3)).collect();
        assert_eq!(taken.len(), 3);
        // A reload may have lowered the limit.
        assert!(slots.take(2).is_none());
        drop(taken);
        assert!(slots.take(1).is_some());
        assert_eq!(slots.0.load(Ordering::Relaxed), 0);
    }
}
