//! One request to one target, an arm most often: which endpoint, and whether another try is due.
//!
//! A request is tried again only within its target and under the same decision, only while nothing was passed to the client, only
//! when the endpoint can have made nothing of it or the request may be sent twice (RFC 9110 §9.2.2), and only within the budget.

use super::access::{Access, Target};
use super::body::Source;
use super::client::Client;
use super::endpoint::Verdict;
use super::exchange::is_failure;
use super::headers::Outgoing;
use super::shadow::Copying;
use super::upstream::relay::{Bounds, Observer, Parties, Relay, Relayed};
use super::upstream::{Connection, EndpointState, ForwardError, Link, Opening, Place, choose};
use super::worker::Worker;
use crate::experiment::upstream::{Scheme, UpstreamRule};
use crate::http1::head::{Limits, Response};

/// What is forwarded to whom.
#[derive(Debug)]
pub struct Forward<'a> {
    /// The worker.
    pub worker: &'a Worker,
    /// The rules.
    pub access: &'a Access,
    /// Where it goes.
    pub target: &'a Target,
    /// The request's head.
    pub outgoing: &'a Outgoing<'a>,
    /// Where ties between endpoints start.
    pub start: u64,
    /// Whether an endpoint is tried even if none is available.
    pub is_last_resort: bool,
}

/// An arm that did not answer.
#[derive(Debug, Clone, Copy)]
pub struct Failure {
    /// Why.
    pub error: ForwardError,
    /// Whether the request may go to somebody else.
    pub may_be_sent_again: bool,
}

impl Forward<'_> {
    /// Forwards, with retries as the policy file allows them.
    ///
    /// # Errors
    ///
    /// The last try's, where nothing was passed to the client, or where what was passed broke off.
    pub async fn run(
        &self,
        source: &mut Source<'_>,
        client: &mut Client<'_>,
        observer: &mut impl Observer,
        copying: &mut Option<Box<Copying>>,
    ) -> Result<Option<Box<Connection>>, Failure> {
        let rule = &self.access.rule;
        let may_repeat =
            rule.retry.idempotent || is_idempotent(self.outgoing.request.method_bytes());
        // However it ends, the request is sent at most so often again.
        let (mut resent, most) = (0, rule.retry.attempts.max(1));
        self.access.budget.on_request(self.worker.timers.now());
        let load = &self.target.load.in_flight;
        let Some(_place) = Place::take(load, rule.max_in_flight) else {
            return Err(Failure {
                error: ForwardError::Overloaded,
                may_be_sent_again: source.can_rewind(),
            });
        };
        loop {
            let parties = Parties {
                source,
                client,
                observer: &mut *observer,
                copying,
            };
            let refuses = resent < rule.retry.attempts && may_repeat && parties.source.can_rewind();
            let error = match self.attempt(parties, (refuses, resent)).await {
                Ok(switched) => return Ok(switched),
                Err(error) => error,
            };
            let may_be_sent_again = !client.has_begun
                && !error.is_the_clients()
                && (error.sent_nothing() || may_repeat)
                && source.can_rewind();
            // An answer that cannot be read is an answer; and an arm that is slow or full does not want more.
            let worth_it = error.sent_nothing() && error != ForwardError::Overloaded
                || matches!(error, ForwardError::Closed | ForwardError::Status(_));
            resent += 1;
            // A connection that was too old says nothing of the endpoint, and costs nothing of the budget.
            let is_stale = error.is_stale() && resent <= most;
            let is_due = may_be_sent_again
                && (is_stale
                    || worth_it
                        && resent <= rule.retry.attempts
                        && self.access.budget.try_retry(self.worker.timers.now()));
            if !is_due {
                return Err(Failure {
                    error,
                    may_be_sent_again,
                });
            }
            source.rewind();
            if let Some(copying) = copying {
                copying.restart();
            }
        }
    }

    /// Takes in what an attempt says of an endpoint.
    fn judge(&self, state: &EndpointState, relayed: Result<Relayed, ForwardError>, status: u16) {
        // Others may share the endpoint and go by what is said of it. What a default upstream says of any path is nothing to them.
        if !self.target.ejections.has_places() {
            return;
        }
        let verdict = match relayed {
            Err(error) if error.is_stale() || error.is_the_clients() => return,
            Err(_) => Verdict::Failure,
            Ok(Relayed::Whole { call, .. }) if is_failure(status, call) => Verdict::Failure,
            Ok(_) => Verdict::Success,
        };
        let (now, rule) = (self.worker.timers.now(), &self.access.rule.ejection);
        let ejected = state
            .standing
            .record(verdict, now, rule, &self.target.ejections);
        if let Some(until) = ejected {
            let rest = until.saturating_sub(now);
            tracing::warn!(endpoint = %state.authority, milliseconds = rest, "an endpoint that fails is let rest");
            self.worker.published().router.look_again();
        }
    }

    /// One try at one endpoint. A connection that was switched to another protocol is handed back.
    async fn attempt(
        &self,
        parties: Parties<'_, '_, '_, impl Observer>,
        (refuses, tried): (bool, u32),
    ) -> Result<Option<Box<Connection>>, ForwardError> {
        let at = (self.worker.timers.now(), self.access.rule.slow_start);
        let in_flight = choose(
            &self.target.endpoints,
            self.start + u64::from(tried),
            at,
            self.is_last_resort,
        )
        .ok_or(ForwardError::Unavailable)?;
        let state = in_flight.state;
        let opening = opening(self.worker, &self.access.rule);
        let mut link = match self.worker.pool.acquire(state, opening).await {
            Ok(link) => link,
            Err(error) => {
                self.judge(state, Err(error), 0);
                return Err(error);
            }
        };
        let mut relay = Relay::new(
            self.worker,
            &self.access.rule,
            self.target,
            state,
            self.outgoing,
        );
        if refuses {
            relay.refused = &self.access.rule.retry.statuses;
        }
        let mut response = self.worker.responses.borrow_mut().pop().unwrap_or_default();
        let relayed = relay.run(&mut link, parties, &mut response).await;
        let relayed = relayed.map_err(|error| self.age(error, &link, state));
        self.judge(state, relayed, response.status);
        self.keep(response);
        match (relayed?, link) {
            (Relayed::Switched, Link::Wire(connection)) => return Ok(Some(connection)),
            (Relayed::Whole { reusable: true, .. }, Link::Wire(connection)) => {
                self.worker.pool.give_back(state, connection, opening.idle);
            }
            _ => {}
        }
        Ok(None)
    }

    /// What an error is on a connection that was, or was not, in use before.
    fn age(&self, error: ForwardError, link: &Link, state: &EndpointState) -> ForwardError {
        if error == ForwardError::Leaving {
            self.worker.pool.leave(state);
        }
        match (error, link) {
            // Nothing was sent over it that could have been seen.
            (ForwardError::Connect, _) if link.is_reused() => ForwardError::Leaving,
            (ForwardError::Leaving, _) if !link.is_reused() => ForwardError::Refused,
            (ForwardError::Closed, Link::Wire(connection)) if connection.is_reused => {
                ForwardError::Stale
            }
            (error, _) => error,
        }
    }

    fn keep(&self, response: Response) {
        let mut kept = self.worker.responses.borrow_mut();
        if kept.len() < 64 {
            kept.push(response);
        }
    }
}

/// How connections to endpoints are opened by a rule.
pub(super) fn opening(worker: &Worker, rule: &UpstreamRule) -> Opening {
    Opening {
        timeout: rule.connect_timeout,
        pending: rule.max_pending,
        idle: worker.shared.settings.limits.upstream_idle,
    }
}

impl<'a> Relay<'a> {
    /// A request to an endpoint of a target, by its rule.
    pub(super) fn new(
        worker: &'a Worker,
        rule: &UpstreamRule,
        target: &'a Target,
        state: &'a EndpointState,
        outgoing: &'a Outgoing<'a>,
    ) -> Self {
        let limits = &worker.shared.settings.limits;
        let bounds = Bounds {
            response: rule.response_timeout,
            idle: rule.idle_timeout,
            progress: limits.progress_timeout,
            head: Limits {
                fields: limits.response_headers,
                bytes: limits.response_header_bytes,
            },
        };
        Self {
            outgoing,
            host: &target.host,
            path: target.path.as_ref(),
            authority: &state.authority,
            is_tls: state.endpoint.scheme == Scheme::Https,
            bounds,
            timers: &worker.timers,
            refused: &[],
        }
    }
}

/// RFC 9110 §9.2.2.
fn is_idempotent(method: &[u8]) -> bool {
    matches!(
        method,
        b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE"
    )
}
