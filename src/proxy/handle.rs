//! The life of a request, in order:
//!
//! 1. **vet** it ([`vet`]), and give reserved paths to the API ([`api`]);
//! 2. load the **snapshot**, once, and **match** the path, host, method and headers ([`Router::find`]); what matches nothing is passed through,
//!    if there is a default upstream ([`pass_through`](super::pass_through));
//! 3. find its **unit** ([`mod@unit`]) and its **context** ([`mod@context`]);
//! 4. **decide** ([`engine::decide`](crate::engine::decide)), sign the decision, offer it to the journal;
//!    (where the policy file has `[shadow]`, have its request copied to other arms: [`shadow`]);
//! 5. **forward** it to the least busy endpoint of the arm ([`Forward`]); if that fails and nothing was passed on, the baseline answers under a
//!    second decision, where the request may be sent again;
//! 6. pass the **response** on with our headers ([`relay`](super::upstream::relay)), and record the outcome when it ends
//!    ([`exchange`](super::exchange)).
//!
//! It is the same for HTTP/1.1 and HTTP/2. It reads the snapshot and writes to a bounded queue; it takes no lock and waits for nothing
//! but the client and the arm.

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;

use super::body::Source;
use super::client::Client;
use super::draw::{decision_of, draw, record};
use super::exchange::Exchange;
use super::forward::{Failure, Forward};
use super::headers::{Head, Outgoing};
use super::held::{Held, read_body};
use super::problem::Problem;
use super::router::{Route, Router};
use super::shadow::{self, Copying, Picked};
use super::signed::{Served, Signed};
use super::tunnel::tunnel;
use super::upstream::{Connection, ForwardError, Place};
use super::worker::{Peer, Role, Worker};
use super::{api, context, unit, vet};
use crate::clock::Stopwatch;
use crate::decision_id::DecisionId;
use crate::engine::decide::Draw;
use crate::engine::snapshot::Serving;
use crate::experiment::context::{Context, ContextRule};
use crate::experiment::decision::{Decision, Ending, LoggedDecision, Reason};
use crate::experiment::id::{KeyHash, MAX_KEY_BYTES, UnitHash};
use crate::experiment::{MissingUnit, UnitSource};
use crate::http1::head::Request;
use crate::learner::Published;

/// Answers one request, whatever it is. Whether its whole body was read, so that what follows on the connection is another request.
pub async fn handle(
    worker: &Rc<Worker>,
    peer: &Peer,
    request: &Request,
    mut source: Source<'_>,
    client: &mut Client<'_>,
) -> bool {
    match respond(worker, peer, request, &mut source, client).await {
        Ok(None) => {}
        Ok(Some(switched)) => {
            switched.run(worker, source).await;
            return false;
        }
        Err(_) if client.has_begun => client.abort(),
        Err(problem) => {
            if !source.is_read() {
                client.close_after();
            }
            if client.answer(problem.into_response()).await.is_err() {
                client.close_after();
            }
        }
    }
    source.finish()
}

/// A request that goes on as a WebSocket.
#[derive(Debug)]
pub(super) struct Switched {
    pub(super) connection: Box<Connection>,
    /// None where nobody decided.
    pub(super) exchange: Option<Exchange>,
    pub(super) idle_timeout: u64,
}

impl Switched {
    async fn run(mut self, worker: &Worker, source: Source<'_>) {
        if let Some((wire, buffer)) = source.into_wire() {
            let Connection {
                wire: up_wire,
                buffer: up_buffer,
                ..
            } = &mut *self.connection;
            let (client, arm) = ((wire, buffer), (&*up_wire, up_buffer));
            tunnel(&worker.timers, client, arm, self.idle_timeout).await;
        }
        if let Some(exchange) = &mut self.exchange {
            exchange.finish(Ending::Answered);
        }
    }
}

async fn respond(
    worker: &Rc<Worker>,
    peer: &Peer,
    request: &Request,
    source: &mut Source<'_>,
    client: &mut Client<'_>,
) -> Result<Option<Switched>, Problem> {
    let stopwatch = Stopwatch::start();
    vet::request(request)?;
    match (api::is_reserved(request.path_bytes()), peer.role) {
        (true, Role::Everything | Role::Api) => {
            let answer = api::answer(worker, peer.address, request, source).await?;
            if !source.is_read() {
                client.close_after();
            }
            if client.answer(answer).await.is_err() {
                client.close_after();
            }
            return Ok(None);
        }
        (false, Role::Everything | Role::Requests) => {}
        (_, Role::Api | Role::Requests) => return Err(worker.unmatched()),
    }
    let limit = worker.shared.settings.limits.in_flight;
    let Some(_place) = Place::take(&worker.shared.in_flight, limit) else {
        return Err(Problem::overloaded(
            "the proxy has as many requests in flight as limits.in_flight allows",
        ));
    };
    let published = worker.published();
    let Some(index) = published.router.find(request) else {
        let Some(default) = &worker.shared.default else {
            return Err(worker.unmatched());
        };
        let between = (worker, peer);
        return default.forward(between, request, source, client).await;
    };
    let mut matched = Matched {
        worker,
        published: &published,
        index,
        request,
        peer,
        body: None,
    };
    let (found, context, body) = matched.identify(source).await?;
    matched.body = body;
    let subject = matched.subject(found);
    let key = matched.reward_key();
    let (draw, decision, context) = draw(
        worker,
        (matched.serving(), matched.route()),
        subject.unit,
        subject.baseline,
        context,
    );
    let logged = LoggedDecision {
        decision,
        unit: subject.unit,
        allocation_version: matched.serving().allocation.version,
        instead_of: None,
        context,
        key,
    };
    let id = record(worker, &matched.route().arms[draw.arm].metrics, logged);
    let (overhead, since) = stopwatch.lap();
    matched.route().overhead.record(overhead.as_secs_f64());
    let signed = matched.signed(draw.arm, (decision, id), since, subject.cookie);
    matched
        .forward_or_fall_back(signed, key, source, client)
        .await
}

/// What the randomisation is about.
#[derive(Default)]
struct Subject {
    unit: Option<UnitHash>,
    /// The policy file sends requests without a unit to the baseline.
    baseline: bool,
    /// A cookie that was issued.
    cookie: Option<HeaderValue>,
}

/// A request and its experiment in the snapshot that it saw.
struct Matched<'a> {
    worker: &'a Rc<Worker>,
    published: &'a Arc<Published<Router>>,
    index: usize,
    request: &'a Request,
    peer: &'a Peer,
    /// The body, where it was read.
    body: Option<Held<'a>>,
}

impl<'a> Matched<'a> {
    fn serving(&self) -> &Arc<Serving> {
        &self.published.experiments[self.index]
    }

    fn route(&self) -> &Route {
        &self.published.router.routes[self.index]
    }

    /// Looks for the unit's key and the context; reads the body only where one of them is in it.
    async fn identify(
        &self,
        source: &mut Source<'_>,
    ) -> Result<(unit::Found, Option<Context>, Option<Held<'a>>), Problem> {
        let limits = &self.worker.shared.settings.limits;
        let experiment = &self.serving().experiment;
        let rules = (experiment.unit.as_ref(), experiment.context.as_deref());
        let unit_in_body = rules
            .0
            .is_some_and(|rule| matches!(rule.source, UnitSource::Json(_)));
        let needs_body = unit_in_body
            || rules.1.is_some_and(ContextRule::needs_body)
            || self.route().access.rule.model_field.is_some();
        let read = if needs_body {
            Some(
                read_body(
                    self.worker,
                    source,
                    limits.buffered_body,
                    limits.body_timeout,
                )
                .await?,
            )
        } else {
            None
        };
        let bytes = read.as_ref().map(|held| &*held.bytes);
        let json = bytes.and_then(crate::json::first_value);
        let found = rules.0.map_or(unit::Found::Missing, |rule| {
            unit::find(rule, self.request, json.as_ref(), limits.unit_key)
        });
        let context = rules.1.map(|rule| {
            let found = context::Found {
                request: self.request,
                body: bytes,
                json: json.as_ref(),
                unit: found.key(),
            };
            context::find(rule, found)
        });
        drop(json);
        Ok((found, context, read))
    }

    /// The client's own key for the decision, where the policy file asks for one.
    fn reward_key(&self) -> Option<KeyHash> {
        let (header, missing) = self.route().reward_key.as_ref()?;
        let key = self.request.fields.get(header.as_bytes());
        let key = key.filter(|key| (1..=MAX_KEY_BYTES).contains(&key.len()));
        if key.is_none() {
            missing.increment(1);
        }
        let experiment = self.serving().experiment.id;
        key.map(|key| self.worker.shared.draw_keys.key_hash(experiment, key))
    }

    fn subject(&self, found: unit::Found) -> Subject {
        let experiment = &self.serving().experiment;
        let Some(rule) = &experiment.unit else {
            return Subject::default();
        };
        let keys = &self.worker.shared.draw_keys;
        let hash = |key: &[u8]| Some(keys.unit_hash(experiment.id, &rule.salt, key));
        match (found, &rule.source) {
            (unit::Found::Key(key), _) => Subject {
                unit: hash(&key),
                ..Subject::default()
            },
            (unit::Found::Missing, UnitSource::Cookie { name, issue: true }) => {
                let key = self.worker.new_unit_key();
                let cookie =
                    format!("{name}={key}; Path=/; Max-Age=31536000; HttpOnly; SameSite=Lax");
                Subject {
                    unit: hash(key.as_bytes()),
                    baseline: false,
                    cookie: HeaderValue::from_str(&cookie).ok(),
                }
            }
            (unit::Found::Missing, _) => {
                self.route().unit_missing.increment(1);
                Subject {
                    baseline: rule.missing == MissingUnit::Baseline,
                    ..Subject::default()
                }
            }
        }
    }

    /// Forwards to the drawn arm. If that fails and the request may be sent again, the sampled decision stands as failed, and the baseline
    /// answers under a second one, which takes the client's key over: its answer is what the client will judge.
    async fn forward_or_fall_back(
        &self,
        mut signed: Signed<'_>,
        key: Option<KeyHash>,
        source: &mut Source<'_>,
        client: &mut Client<'_>,
    ) -> Result<Option<Switched>, Problem> {
        let mut copying = self.shadow(&signed.decision, signed.arm, source);
        let failure = match self.forward(&signed, source, client, &mut copying).await {
            Ok(switched) => return Ok(switched),
            Err(failure) => failure,
        };
        let experiment = &self.serving().experiment;
        if !failure.may_be_sent_again || signed.arm == experiment.baseline {
            return self.refuse(&signed, (source, client), failure.error).await;
        }
        let arm = &experiment.arms[signed.arm].name;
        tracing::warn!(experiment = %experiment.name, %arm, error = %failure.error, "the baseline answers");
        let fallback = Draw {
            arm: experiment.baseline,
            propensity: 1.0,
            reason: Reason::Fallback,
        };
        let sequence = self.worker.next_sequence();
        let second = decision_of(self.serving(), fallback, sequence, self.worker.now());
        let logged = LoggedDecision {
            decision: second,
            unit: None,
            allocation_version: self.serving().allocation.version,
            instead_of: Some(signed.decision.sequence),
            context: None,
            key,
        };
        let metrics = &self.route().arms[fallback.arm].metrics;
        let id = record(self.worker, metrics, logged);
        signed = self.signed(
            fallback.arm,
            (second, id),
            Stopwatch::start(),
            signed.cookie,
        );
        source.rewind();
        if let Some(copying) = &mut copying {
            copying.restart();
        }
        match self.forward(&signed, source, client, &mut copying).await {
            Ok(switched) => Ok(switched),
            Err(failure) => self.refuse(&signed, (source, client), failure.error).await,
        }
    }

    /// Has the request copied to the arms that shadow, if its decision is one of those that are.
    fn shadow(
        &self,
        decision: &Decision,
        served: usize,
        source: &Source<'_>,
    ) -> Option<Box<Copying>> {
        let shadow = self.route().shadow.as_ref()?;
        let picked = Picked {
            worker: self.worker,
            published: self.published,
            index: self.index,
            decision,
            served,
            request: self.request,
            peer: self.peer,
        };
        shadow::pick(shadow, &picked, source.announced())
    }

    async fn forward(
        &self,
        signed: &Signed<'_>,
        source: &mut Source<'_>,
        client: &mut Client<'_>,
        copying: &mut Option<Box<Copying>>,
    ) -> Result<Option<Switched>, Failure> {
        let (route, worker) = (self.route(), self.worker);
        let (arm, decision) = (&route.arms[signed.arm], signed.decision);
        let metrics = Arc::clone(&arm.metrics);
        let mut served = Served {
            signed,
            exchange: Exchange::start(worker, decision, metrics, self.serving(), signed.since),
        };
        let rule = &route.access.rule;
        self.name_model(rule.model_field.as_deref(), arm.model.as_deref(), source);
        let outgoing = Outgoing {
            request: self.request,
            peer: self.peer,
            forwarding: worker.shared.settings.forwarding,
            sequence: decision.sequence,
            identity: self.serving().experiment.label.is_some(),
            is_whole: self.body.is_some(),
            websocket: !client.is_stream() && self.request.wants_websocket(),
            deadline: rule
                .deadline_header
                .as_deref()
                .map(|header| (header, rule.total_timeout.unwrap_or(rule.response_timeout))),
            shadow: None,
        };
        let forward = Forward {
            worker,
            access: &route.access,
            target: &arm.target,
            outgoing: &outgoing,
            start: decision.sequence.counter,
            is_last_resort: decision.reason == Reason::Fallback,
        };
        let outcome = {
            // Pinned where it is made: it is large, and else it would be moved once more.
            let mut run = pin!(forward.run(source, client, &mut served, copying));
            match rule.total_timeout {
                None => run.as_mut().await,
                Some(total) => tokio::time::timeout(Duration::from_millis(total), run.as_mut())
                    .await
                    .unwrap_or(Err(Failure {
                        error: ForwardError::TotalTimeout,
                        may_be_sent_again: false,
                    })),
            }
        };
        match outcome {
            Ok(connection) => Ok(connection.map(|connection| Switched {
                connection,
                exchange: Some(served.exchange),
                idle_timeout: rule.idle_timeout,
            })),
            Err(failure) => {
                served.exchange.finish(if failure.error.is_the_clients() {
                    Ending::Aborted
                } else {
                    Ending::Failed
                });
                Err(failure)
            }
        }
    }

    /// Puts the arm's model into the body. A body without that field goes as it came.
    fn name_model(&self, field: Option<&str>, model: Option<&str>, source: &mut Source<'_>) {
        let (Some(field), Some(body)) = (field, &self.body) else {
            return;
        };
        let body = &body.bytes;
        let named = model.and_then(|model| crate::json::replace_text(body, field, model));
        source.replace(named.map_or_else(|| body.clone(), Bytes::from));
    }

    /// Our own answer for an arm that gave none. It carries the decision, too.
    async fn refuse(
        &self,
        signed: &Signed<'_>,
        (source, client): (&Source<'_>, &mut Client<'_>),
        error: ForwardError,
    ) -> Result<Option<Switched>, Problem> {
        let experiment = &self.serving().experiment;
        let arm = &experiment.arms[signed.arm].name;
        if error == ForwardError::Gone {
            tracing::debug!(experiment = %experiment.name, %arm, "the client has left");
            client.leave();
            return Ok(None);
        }
        tracing::warn!(experiment = %experiment.name, %arm, %error, "no answer for the client");
        let problem = Problem::from(error);
        if client.has_begun {
            return Err(problem);
        }
        signed.count(problem.status().as_u16());
        let mut response = problem.into_response();
        let map = response.headers_mut();
        signed.each(&mut |name, value| super::client::append(map, name, value));
        if error.is_the_clients() || !source.is_read() {
            client.close_after();
        }
        if client.answer(response).await.is_err() {
            client.close_after();
        }
        Ok(None)
    }

    fn signed(
        &self,
        arm: usize,
        (decision, id): (Decision, DecisionId),
        since: Stopwatch,
        cookie: Option<HeaderValue>,
    ) -> Signed<'_> {
        Signed {
            worker: self.worker,
            experiment: &self.serving().experiment,
            route: self.route(),
            arm,
            decision,
            id,
            since,
            cookie,
        }
    }
}
