//! A decision that the client is told of, and the exchange that follows it.

use http::HeaderValue;

use super::exchange::Exchange;
use super::headers;
use super::router::Route;
use super::upstream::relay::Observer;
use super::worker::Worker;
use crate::decision_id::DecisionId;
use crate::experiment::Experiment;
use crate::experiment::decision::{Decision, Ending, Reason};

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
    /// A cookie that was issued.
    pub(super) cookie: Option<HeaderValue>,
}

impl Signed<'_> {
    /// Our fields of the response.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let reason = self.decision.reason;
        let reason = (reason != Reason::Sampled).then(|| reason.as_str().as_bytes());
        let cookie = self.cookie.as_ref().map(HeaderValue::as_bytes);
        let all: [(&[u8], Option<&[u8]>); 6] = [
            (headers::DECISION, Some(self.id.as_bytes())),
            (
                headers::EXPERIMENT,
                Some(self.route.experiment_header.as_bytes()),
            ),
            (
                headers::ARM,
                Some(self.route.arms[self.arm].header.as_bytes()),
            ),
            (
                headers::POLICY_VERSION,
                Some(self.route.version_header.as_bytes()),
            ),
            (headers::REASON, reason),
            (b"set-cookie", cookie),
        ];
        all.into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
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

/// An exchange whose decision the client is told of.
#[derive(Debug)]
pub(super) struct Served<'a> {
    pub(super) signed: &'a Signed<'a>,
    pub(super) exchange: Exchange,
}

impl Observer for Served<'_> {
    fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.signed.fields()
    }

    fn answered(&mut self, status: u16) {
        self.signed.count(status);
        self.exchange.answered(status);
    }

    fn passes(&mut self, data: &[u8]) -> bool {
        self.exchange.watch(data);
        true
    }

    fn ended(&mut self) {
        self.exchange.finish(Ending::Answered);
    }
}
