//! A decision that the client is told of, and the exchange that follows it.

use http::HeaderValue;

use super::client::field;
use super::exchange::Exchange;
use super::grpc::GrpcStatus;
use super::headers::{self, Head};
use super::router::Route;
use super::upstream::relay::Observer;
use super::worker::Worker;
use crate::clock::Stopwatch;
use crate::decision_id::DecisionId;
use crate::experiment::Experiment;
use crate::experiment::decision::{Decision, Reason};

/// A decision that the client is told of.
#[derive(Debug)]
pub(super) struct Signed<'a> {
    pub(super) worker: &'a Worker,
    pub(super) experiment: &'a Experiment,
    pub(super) route: &'a Route,
    /// The arm's index.
    pub(super) arm: usize,
    pub(super) decision: Decision,
    pub(super) id: DecisionId,
    /// When it was made.
    pub(super) since: Stopwatch,
    /// A cookie that was issued.
    pub(super) cookie: Option<HeaderValue>,
}

impl Signed<'_> {
    /// What is there for some decisions only.
    fn others(&self, put: &mut dyn FnMut(&[u8], &[u8])) {
        let reason = self.decision.reason;
        if reason != Reason::Sampled {
            put(headers::REASON, reason.as_str().as_bytes());
        }
        if let Some(cookie) = &self.cookie {
            put(b"set-cookie", cookie.as_bytes());
        }
    }

    /// Counts a response to the client.
    pub(super) fn count(&self, code: u16) {
        self.worker.shared.metrics.count_request(
            &self.experiment.name,
            &self.experiment.arms[self.arm].name,
            &self.route.arms[self.arm].metrics,
            code,
        );
    }
}

impl Head for Signed<'_> {
    fn lines(&self, out: &mut Vec<u8>) {
        field(out, headers::DECISION, self.id.as_bytes());
        out.extend_from_slice(&self.route.arms[self.arm].lines);
        self.others(&mut |name, value| field(out, name, value));
    }

    fn each(&self, put: &mut dyn FnMut(&[u8], &[u8])) {
        put(headers::DECISION, self.id.as_bytes());
        for (name, value) in &self.route.arms[self.arm].fields {
            put(name, value.as_bytes());
        }
        self.others(put);
    }
}

/// An exchange whose decision the client is told of.
#[derive(Debug)]
pub(super) struct Served<'a> {
    pub(super) signed: &'a Signed<'a>,
    pub(super) exchange: Exchange,
}

impl Head for Served<'_> {
    fn lines(&self, out: &mut Vec<u8>) {
        self.signed.lines(out);
    }

    fn each(&self, put: &mut dyn FnMut(&[u8], &[u8])) {
        self.signed.each(put);
    }
}

impl Observer for Served<'_> {
    fn answered(&mut self, status: u16) {
        self.signed.count(status);
        self.exchange.answered(status);
    }

    fn passes(&mut self, data: &[u8]) -> bool {
        self.exchange.watch(data);
        true
    }

    fn ended(&mut self, call: Option<GrpcStatus>) {
        self.exchange.ended(call);
    }
}
