//! One exchange with an arm, from the decision to its outcome. However it ends, it is recorded exactly once.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use super::grpc::GrpcStatus;
use super::worker::Worker;
use crate::clock::Stopwatch;
use crate::engine::event::Event;
use crate::engine::snapshot::Serving;
use crate::experiment::decision::{Decision, Ending, Label, Outcome};
use crate::json;
use crate::telemetry::metrics::ArmMetrics;

/// What counts as an arm's failure, for outcomes, ejection, shadows and metrics alike: a status that says that the server, not the
/// request, is at fault; of a gRPC call, that of the call. (An arm that does not answer at all has failed, too.)
pub fn is_failure(status: u16, call: Option<GrpcStatus>) -> bool {
    status >= 500 || call.is_some_and(GrpcStatus::is_the_servers_fault)
}

/// An exchange under way.
pub struct Exchange {
    worker: Rc<Worker>,
    decision: Decision,
    stopwatch: Stopwatch,
    metrics: Arc<ArmMetrics>,
    status: Option<u16>,
    call: Option<GrpcStatus>,
    tee: Option<Tee>,
    finished: bool,
}

impl fmt::Debug for Exchange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Exchange")
            .field("decision", &self.decision)
            .finish_non_exhaustive()
    }
}

impl Exchange {
    /// Starts when the decision was made, at `since`.
    pub fn start(
        worker: &Rc<Worker>,
        decision: Decision,
        metrics: Arc<ArmMetrics>,
        serving: &Arc<Serving>,
        since: Stopwatch,
    ) -> Self {
        let limit = worker.shared.settings.limits.label_response;
        let labelled = serving.experiment.label.is_some();
        Self {
            worker: Rc::clone(worker),
            decision,
            stopwatch: since,
            metrics,
            status: None,
            call: None,
            tee: labelled.then(|| Tee::new(Arc::clone(serving), limit)),
            finished: false,
        }
    }

    /// The response's head is there.
    pub fn answered(&mut self, status: u16) {
        self.status = Some(status);
        if is_failure(status, None) {
            self.tee = None;
        }
    }

    /// The response is there as a whole; of a gRPC call it says how that went.
    pub fn ended(&mut self, call: Option<GrpcStatus>) {
        self.call = call;
        self.finish(Ending::Answered);
    }

    /// A piece of the response's body passes.
    pub fn watch(&mut self, data: &[u8]) {
        if let Some(tee) = &mut self.tee {
            tee.push(data);
        }
    }

    /// Records the outcome; the first call counts.
    pub fn finish(&mut self, ending: Ending) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        let elapsed = self.stopwatch.elapsed();
        let fails = |status| is_failure(status, self.call);
        let ending = match ending {
            Ending::Answered if self.status.is_none_or(fails) => Ending::Failed,
            ending => ending,
        };
        if ending == Ending::Failed {
            self.metrics.failures.increment(1);
        }
        let tee = self.tee.take().filter(|_| ending == Ending::Answered);
        let outcome = Outcome {
            decision: self.decision,
            at: self.worker.now(),
            ending,
            status: self.status,
            latency_micros: elapsed.as_micros() as u64,
            prediction: tee.and_then(Tee::prediction),
        };
        if ending != Ending::Aborted {
            self.metrics.duration.record(elapsed.as_secs_f64());
        }
        self.worker.record(Event::Ended(outcome));
    }
}

impl Drop for Exchange {
    /// Dropped before its end: the client has left.
    fn drop(&mut self) {
        self.finish(Ending::Aborted);
    }
}

/// A bounded copy of a response, for the prediction in it. The response itself is not delayed.
struct Tee {
    serving: Arc<Serving>,
    copy: Vec<u8>,
    limit: usize,
    overflown: bool,
}

impl Tee {
    fn new(serving: Arc<Serving>, limit: usize) -> Self {
        Self {
            serving,
            copy: Vec::new(),
            limit,
            overflown: false,
        }
    }

    fn push(&mut self, data: &[u8]) {
        if self.overflown || self.copy.len() + data.len() > self.limit {
            self.overflown = true;
            self.copy = Vec::new();
        } else {
            self.copy.extend_from_slice(data);
        }
    }

    /// The value at the policy file's JSON pointer; `None` when the response is no JSON, too long, or has no such value.
    fn prediction(self) -> Option<Label> {
        let rule = self.serving.experiment.label.as_ref()?;
        let first_line_or_all = json::first_value(&self.copy)?;
        json::label_at(&first_line_or_all, &rule.prediction)
    }
}
