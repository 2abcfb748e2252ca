//! Requests that match no experiment, where there is a default upstream: they are forwarded as an arm's are, but nobody decides, nothing of
//! ours is added to the response, and nothing is journalled.

use std::rc::Rc;
use std::sync::Arc;

use metrics::Counter;

use super::access::{Access, Target};
use super::body::Source;
use super::client::Client;
use super::forward::Forward;
use super::grpc::GrpcStatus;
use super::handle::Switched;
use super::headers::{Head, Outgoing};
use super::problem::Problem;
use super::tls;
use super::upstream::relay::Observer;
use super::upstream::{ArmLoad, Endpoints, ForwardError};
use super::worker::{Peer, Worker};
use crate::config::settings::DefaultUpstream;
use crate::http1::head::Request;
use crate::telemetry::metrics::Metrics;

/// The classes of status codes, as a label has them; the last is for codes that belong to none.
const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "other"];

/// `[default]`, with all that can be worked out before the first request.
#[derive(Debug)]
pub struct PassThrough {
    access: Access,
    target: Target,
    unmatched: Counter,
    /// Responses to clients, by [`CLASSES`].
    answers: [Counter; CLASSES.len()],
}

impl PassThrough {
    /// Compiles the settings.
    ///
    /// # Errors
    ///
    /// A file that TLS to the endpoint needs.
    pub fn build(
        upstream: &DefaultUpstream,
        endpoints: &Endpoints,
        metrics: &Metrics,
    ) -> Result<Self, tls::Error> {
        let rule = &upstream.rule;
        let way = (rule.host.clone(), rule.path.clone(), rule.protocol);
        let only = std::slice::from_ref(&upstream.endpoint);
        Ok(Self {
            target: Target::new(endpoints, only, way, rule, Arc::<ArmLoad>::default())?,
            access: Access::new(rule.clone()),
            unmatched: metrics.counter("pointsman_unmatched_total", &[]),
            answers: CLASSES
                .map(|class| metrics.counter("pointsman_passed_through_total", &[("code", class)])),
        })
    }

    fn count(&self, status: u16) {
        let class = usize::from(status / 100).wrapping_sub(1);
        self.answers[class.min(CLASSES.len() - 1)].increment(1);
    }

    /// Forwards a request.
    pub(super) async fn forward(
        &self,
        (worker, peer): (&Rc<Worker>, &Peer),
        request: &Request,
        source: &mut Source<'_>,
        client: &mut Client<'_>,
    ) -> Result<Option<Switched>, Problem> {
        self.unmatched.increment(1);
        let rule = &self.access.rule;
        let sequence = worker.next_sequence();
        let outgoing = Outgoing {
            request,
            peer,
            forwarding: worker.shared.settings.forwarding,
            sequence,
            identity: false,
            is_whole: false,
            websocket: !client.is_stream() && request.wants_websocket(),
            deadline: None,
            shadow: None,
        };
        let forward = Forward {
            worker,
            access: &self.access,
            target: &self.target,
            outgoing: &outgoing,
            start: sequence.counter,
            // There is nobody else to ask.
            is_last_resort: true,
        };
        let mut passed = Passed(self);
        match forward.run(source, client, &mut passed, &mut None).await {
            Ok(connection) => Ok(connection.map(|connection| Switched {
                connection,
                exchange: None,
                idle_timeout: rule.idle_timeout,
            })),
            Err(failure) => self.refuse(client, failure.error),
        }
    }

    /// Our own answer where the upstream gave none.
    fn refuse(
        &self,
        client: &mut Client<'_>,
        error: ForwardError,
    ) -> Result<Option<Switched>, Problem> {
        if error == ForwardError::Gone {
            client.leave();
            return Ok(None);
        }
        tracing::warn!(endpoint = %self.target.endpoints[0].authority, %error, "no answer of the default upstream");
        let problem = Problem::from(error);
        if !client.has_begun {
            self.count(problem.status().as_u16());
        }
        if error.is_the_clients() {
            client.close_after();
        }
        Err(problem)
    }
}

/// Counts what the client gets.
struct Passed<'a>(&'a PassThrough);

impl Head for Passed<'_> {}

impl Observer for Passed<'_> {
    fn answered(&mut self, status: u16) {
        self.0.count(status);
    }

    fn passes(&mut self, _: &[u8]) -> bool {
        true
    }

    fn ended(&mut self, _: Option<GrpcStatus>) {}
}
