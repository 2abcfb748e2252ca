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
use http::header::{CONTENT_LENGTH, EXPECT, HeaderValue, TRANSFER_ENCODING};
use http::{Request, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt;

use super::body::RequestBody;
use super::exchange::is_failure;
use super::headers;
use super::router::{Route, RouteArm, Router};
use super::upstream::{self, Timeouts};
use super::worker::Worker;
use crate::clock::Stopwatch;
use crate::engine::event::Event;
use crate::experiment::decision::{Decision, Ending, Label, Outcome, Reason, Shadowed};
use crate::experiment::reward::LabelRule;
use crate::experiment::shadow::ShadowRule;
use crate::experiment::{Arm, Experiment};
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
    header: HeaderValue,
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
            header: headers::value(arm.name.as_str()),
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
    /// Method, target and headers.
    head: Request<()>,
}

/// Where a request was matched, and to whom it goes.
pub(super) struct Picked<'a> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) published: &'a Arc<Published<Router>>,
    pub(super) index: usize,
    pub(super) decision: &'a Decision,
    /// The index of the arm that serves.
    pub(super) served: usize,
}

/// Has the request shadowed, if its decision is one of those that are. `request` is as the arm that serves will get it.
pub(super) fn pick(shadow: &RouteShadow, picked: &Picked<'_>, request: &mut Request<RequestBody>) {
    let (worker, decision) = (picked.worker, picked.decision);
    let number = worker.shared.draw_keys.shadow(decision.sequence);
    if decision.reason != Reason::Sampled || number >= shadow.fraction {
        return;
    }
    // The size that a body is said to have is not exceeded, and one of unknown size is watched.
    let announced = request.body().size_hint().lower();
    let has_room = announced <= shadow.body_limit as u64;
    let tickets = shadow.tickets(picked.served, decision.sequence.counter, has_room);
    if tickets.is_empty() {
        return;
    }
    let shadowing = Shadowing {
        worker: Rc::clone(worker),
        published: Arc::clone(picked.published),
        index: picked.index,
        decision: *decision,
        head: head(request),
    };
    let copying = Copying {
        shadowing,
        tickets,
        body: Vec::new(),
        announced: announced as usize,
        limit: shadow.body_limit,
    };
    match request.body_mut() {
        RequestBody::Streamed(incoming, _, copy) if !incoming.is_end_stream() => {
            *copy = Some(Box::new(copying));
        }
        RequestBody::Streamed(..) => copying.complete(),
        RequestBody::Buffered(bytes) => {
            let bytes = bytes.clone().unwrap_or_default();
            copying.send(&bytes);
        }
    }
}

/// The head of the copies. They are framed by their length, because they are whole when they are sent.
fn head(request: &Request<RequestBody>) -> Request<()> {
    let mut head = Request::new(());
    *head.method_mut() = request.method().clone();
    *head.uri_mut() = request.uri().clone();
    let headers = head.headers_mut();
    headers.clone_from(request.headers());
    headers.remove(TRANSFER_ENCODING);
    headers.remove(EXPECT);
    head
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

    /// The body has passed as a whole: the copies are sent.
    pub fn complete(mut self) {
        let body = Bytes::from(std::mem::take(&mut self.body));
        self.send(&body);
    }

    fn send(self, body: &Bytes) {
        let shadowing = Rc::new(self.shadowing);
        for ticket in self.tickets {
            let (shadowing, body) = (Rc::clone(&shadowing), body.clone());
            tokio::task::spawn_local(async move { shadowing.send(ticket, body).await });
        }
    }
}

/// What came back.
#[derive(Debug, Default)]
struct Answer {
    status: Option<u16>,
    /// The response as far as a prediction is looked for in it.
    body: Vec<u8>,
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
        let request = self.request(arm, body);
        let stopwatch = Stopwatch::start();
        let mut answer = Answer::default();
        let whole = self.exchange(shadow, &self.route().arms[arm.index], request, &mut answer);
        let whole = tokio::time::timeout(shadow.timeout, whole).await;
        let latency_micros = stopwatch.elapsed().as_micros() as u64;
        let answered = whole == Ok(true) && !answer.status.is_none_or(is_failure);
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

    fn request(&self, arm: &ShadowArm, body: Bytes) -> Request<RequestBody> {
        let mut request = Request::new(RequestBody::Buffered(None));
        *request.method_mut() = self.head.method().clone();
        *request.uri_mut() = self.head.uri().clone();
        let headers = request.headers_mut();
        headers.clone_from(self.head.headers());
        headers.insert(headers::SHADOW, arm.header.clone());
        if !body.is_empty() {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
            *request.body_mut() = RequestBody::Buffered(Some(body));
        }
        request
    }

    /// Sends a copy and reads the response, as far as it may be of use. Whether that went well.
    async fn exchange(
        &self,
        shadow: &RouteShadow,
        arm: &RouteArm,
        request: Request<RequestBody>,
        answer: &mut Answer,
    ) -> bool {
        let start = self.decision.sequence.counter;
        let Some(in_flight) = upstream::least_requests(&arm.endpoints, start) else {
            return false;
        };
        let timeouts = Timeouts {
            connect: self.route().connect_timeout,
            response: shadow.timeout,
        };
        let sent = self.worker.shadows.send(in_flight, request, timeouts).await;
        let Ok((response, lease)) = sent else {
            return false;
        };
        answer.status = Some(response.status().as_u16());
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return false;
        }
        let limit = self.worker.shared.settings.limits.label_response;
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                return false;
            };
            let Some(data) = frame.data_ref() else {
                continue;
            };
            if answer.body.len() + data.len() > limit {
                // The rest is of no use to anybody. The connection ends with it.
                answer.body = Vec::new();
                return true;
            }
            answer.body.extend_from_slice(data);
        }
        lease.give_back();
        true
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
