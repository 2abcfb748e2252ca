//! The life of a request, in order:
//!
//! 1. **vet** it ([`vet`]), and give reserved paths to the API ([`api`]);
//! 2. load the **snapshot**, once, and **match** the path, host, method and headers ([`Router::find`]);
//! 3. find its **unit** ([`mod@unit`]) and its **context** ([`mod@context`]);
//! 4. **decide** ([`engine::decide`](crate::engine::decide)), sign the decision, offer it to the journal;
//!    (where the policy file has `[shadow]`, have its request copied to other arms: [`shadow`]);
//! 5. **forward** it to the least busy endpoint of the arm ([`upstream`]); if nothing could be sent, the baseline answers under a second decision;
//! 6. pass the **response** on with our headers, and record the outcome when it ends ([`exchange`](super::exchange)).
//!
//! It reads the snapshot and writes to a bounded queue; it takes no lock and waits for nothing but the client and the arm.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, HeaderValue, SET_COOKIE, TRANSFER_ENCODING};
use http::request::Parts;
use http::{Request, Response, StatusCode, Uri};
use http_body::Body as _;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;

use super::body::{Body, Proxied, RequestBody};
use super::exchange::Exchange;
use super::problem::Problem;
use super::router::{Route, Router};
use super::shadow::{self, Picked};
use super::upstream::{self, Failed, ForwardError, Timeouts};
use super::worker::{Peer, Role, Worker};
use super::{api, context, headers, unit, vet};
use crate::clock::{Stopwatch, Timestamp};
use crate::engine::decide::{Draw, decide};
use crate::engine::event::Event;
use crate::engine::snapshot::Serving;
use crate::experiment::context::{Context, ContextRule};
use crate::experiment::decision::{Decision, Ending, LoggedContext, LoggedDecision, Reason};
use crate::experiment::id::{KeyHash, MAX_KEY_BYTES, SequenceKey, UnitHash};
use crate::experiment::{MissingUnit, UnitSource};
use crate::learner::Published;
use crate::telemetry::metrics::ArmMetrics;

/// Answers one request, whatever it is.
pub async fn handle(worker: Rc<Worker>, peer: Peer, request: Request<Incoming>) -> Response<Body> {
    match respond(&worker, peer, request).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    }
}

async fn respond(
    worker: &Rc<Worker>,
    peer: Peer,
    request: Request<Incoming>,
) -> Result<Response<Body>, Problem> {
    let stopwatch = Stopwatch::start();
    let (parts, body) = request.into_parts();
    vet::request(&parts)?;
    match (api::is_reserved(parts.uri.path()), peer.role) {
        (true, Role::Everything | Role::Api) => {
            return api::answer(worker, peer.address, parts, body).await;
        }
        (false, Role::Everything | Role::Requests) => {}
        (_, Role::Api | Role::Requests) => return Err(worker.unmatched()),
    }
    let published = worker.published();
    let Some(index) = published.router.find(&parts) else {
        return Err(worker.unmatched());
    };
    let matched = Matched {
        published: &published,
        index,
    };
    let (body, found, context) = matched.identify(worker, &parts, body).await?;
    let subject = matched.subject(worker, found);
    let key = matched.reward_key(worker, &parts);
    let (draw, decision, context) = draw(
        worker,
        matched.serving(),
        subject.unit,
        subject.baseline,
        context,
    );
    record(
        worker,
        &matched.route().arms[draw.arm].metrics,
        LoggedDecision {
            decision,
            unit: subject.unit,
            allocation_version: matched.serving().allocation.version,
            instead_of: None,
            context,
            key,
        },
    );
    matched
        .route()
        .overhead
        .record(stopwatch.elapsed().as_secs_f64());
    let mut request = outgoing(matched.serving(), parts, body, decision.sequence);
    if let Some(shadow) = &matched.route().shadow {
        let picked = Picked {
            worker,
            published: &published,
            index,
            decision: &decision,
            served: draw.arm,
        };
        shadow::pick(shadow, &picked, &mut request);
    }
    let mut response = matched
        .forward_or_fall_back(worker, draw, (decision, key), request)
        .await;
    if let Some(cookie) = subject.cookie {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    Ok(response)
}

/// Draws an arm and makes the decision that says so. Does not record it.
pub(super) fn draw(
    worker: &Worker,
    serving: &Serving,
    unit: Option<UnitHash>,
    baseline: bool,
    context: Option<Context>,
) -> (Draw, Decision, Option<Box<LoggedContext>>) {
    let mut workspace = worker.workspace.borrow_mut();
    let workspace = &mut *workspace;
    if let (Some(rule), Some(context)) = (&serving.experiment.context, &context) {
        rule.encode(context, &mut workspace.features);
    }
    let sequence = worker.next_sequence();
    let draw = if baseline {
        Draw {
            arm: serving.experiment.baseline,
            propensity: 1.0,
            reason: Reason::Paused,
        }
    } else {
        decide(serving, unit, sequence, &worker.shared.draw_keys, workspace)
    };
    let depends = serving.allocation.contextual.is_some() && draw.reason == Reason::Sampled;
    let drawn_from: &[f64] = if depends {
        &workspace.probabilities
    } else {
        &[]
    };
    let logged = context.map(|context| {
        let arms = serving.experiment.arms.iter().map(|arm| arm.id);
        let probabilities = arms
            .zip(drawn_from.iter().copied())
            .filter(|(_, probability)| *probability > 0.0);
        Box::new(LoggedContext {
            context,
            probabilities: probabilities.collect(),
        })
    });
    let decision = decision_of(serving, draw, sequence, worker.now());
    (draw, decision, logged)
}

fn decision_of(serving: &Serving, draw: Draw, sequence: SequenceKey, at: Timestamp) -> Decision {
    let experiment = &serving.experiment;
    Decision {
        sequence,
        at,
        experiment: experiment.id,
        epoch: serving.epoch,
        arm: experiment.arms[draw.arm].id,
        policy_version: experiment.version,
        propensity: draw.propensity,
        reason: draw.reason,
    }
}

/// Counts a decision and offers it to the journal.
pub(super) fn record(worker: &Worker, metrics: &ArmMetrics, logged: LoggedDecision) {
    metrics.decisions[usize::from(logged.decision.reason.code())].increment(1);
    worker.record(Event::Decided(logged));
}

/// What the randomisation is about.
struct Subject {
    unit: Option<UnitHash>,
    /// The policy file sends requests without a unit to the baseline.
    baseline: bool,
    /// A cookie that was issued.
    cookie: Option<HeaderValue>,
}

/// A request's experiment in the snapshot that it saw.
struct Matched<'a> {
    published: &'a Arc<Published<Router>>,
    index: usize,
}

impl Matched<'_> {
    fn serving(&self) -> &Arc<Serving> {
        &self.published.experiments[self.index]
    }

    fn route(&self) -> &Route {
        &self.published.router.routes[self.index]
    }

    /// Looks for the unit's key and the context; reads the body only where one of them is in it.
    async fn identify(
        &self,
        worker: &Worker,
        parts: &Parts,
        body: Incoming,
    ) -> Result<(RequestBody, unit::Found, Option<Context>), Problem> {
        let limits = &worker.shared.settings.limits;
        let experiment = &self.serving().experiment;
        let rules = (experiment.unit.as_ref(), experiment.context.as_deref());
        let unit_in_body = rules
            .0
            .is_some_and(|rule| matches!(rule.source, UnitSource::Json(_)));
        let (body, read) = if unit_in_body || rules.1.is_some_and(ContextRule::needs_body) {
            let read = read_body(body, limits.buffered_body, limits.body_timeout).await?;
            let body = RequestBody::Buffered((!read.is_empty()).then(|| read.clone()));
            (body, Some(read))
        } else {
            (RequestBody::Streamed(body, Rc::default(), None), None)
        };
        let json = read.as_deref().and_then(crate::json::first_value);
        let found = rules.0.map_or(unit::Found::Missing, |rule| {
            unit::find(rule, self.route(), parts, json.as_ref(), limits.unit_key)
        });
        let context = rules.1.map(|rule| {
            let found = context::Found {
                parts,
                body: read.as_deref(),
                json: json.as_ref(),
                unit: found.key(),
            };
            context::find(rule, found)
        });
        Ok((body, found, context))
    }

    /// The client's own key for the decision, where the policy file asks for one.
    fn reward_key(&self, worker: &Worker, parts: &Parts) -> Option<KeyHash> {
        let (header, missing) = self.route().reward_key.as_ref()?;
        let key = parts.headers.get(header).map(HeaderValue::as_bytes);
        let key = key.filter(|key| (1..=MAX_KEY_BYTES).contains(&key.len()));
        if key.is_none() {
            missing.increment(1);
        }
        let experiment = self.serving().experiment.id;
        key.map(|key| worker.shared.draw_keys.key_hash(experiment, key))
    }

    fn subject(&self, worker: &Worker, found: unit::Found) -> Subject {
        let experiment = &self.serving().experiment;
        let Some(rule) = &experiment.unit else {
            return Subject {
                unit: None,
                baseline: false,
                cookie: None,
            };
        };
        let hash = |key: &[u8]| {
            worker
                .shared
                .draw_keys
                .unit_hash(experiment.id, &rule.salt, key)
        };
        match (found, &rule.source) {
            (unit::Found::Key(key), _) => Subject {
                unit: Some(hash(&key)),
                baseline: false,
                cookie: None,
            },
            (unit::Found::Missing, UnitSource::Cookie { name, issue: true }) => {
                let key = worker.new_unit_key();
                let cookie =
                    format!("{name}={key}; Path=/; Max-Age=31536000; HttpOnly; SameSite=Lax");
                Subject {
                    unit: Some(hash(key.as_bytes())),
                    baseline: false,
                    cookie: HeaderValue::from_str(&cookie).ok(),
                }
            }
            (unit::Found::Missing, _) => {
                self.route().unit_missing.increment(1);
                Subject {
                    unit: None,
                    baseline: rule.missing == MissingUnit::Baseline,
                    cookie: None,
                }
            }
        }
    }

    /// Forwards to the drawn arm. If nothing could be sent to it, the sampled decision stands as failed, and the baseline answers under
    /// a second one, which takes the client's key over: its answer is what the client will judge.
    async fn forward_or_fall_back(
        &self,
        worker: &Rc<Worker>,
        draw: Draw,
        (decision, key): (Decision, Option<KeyHash>),
        request: Request<RequestBody>,
    ) -> Response<Body> {
        let failed = match self.forward(worker, draw.arm, decision, request).await {
            Ok(response) => return response,
            Err(failed) => failed,
        };
        let experiment = &self.serving().experiment;
        let arm = &experiment.arms[draw.arm];
        let Some(request) = failed
            .unsent
            .filter(|_| !failed.error.is_the_clients() && draw.arm != experiment.baseline)
        else {
            return self.refuse(worker, draw, &decision, failed.error);
        };
        tracing::warn!(experiment = %experiment.name, arm = %arm.name, error = %failed.error, "the baseline answers");
        let sequence = worker.next_sequence();
        let fallback = Draw {
            arm: experiment.baseline,
            propensity: 1.0,
            reason: Reason::Fallback,
        };
        let second = decision_of(self.serving(), fallback, sequence, worker.now());
        record(
            worker,
            &self.route().arms[fallback.arm].metrics,
            LoggedDecision {
                decision: second,
                unit: None,
                allocation_version: self.serving().allocation.version,
                instead_of: Some(decision.sequence),
                context: None,
                key,
            },
        );
        match self.forward(worker, fallback.arm, second, request).await {
            Ok(response) => response,
            Err(failed) => self.refuse(worker, fallback, &second, failed.error),
        }
    }

    async fn forward(
        &self,
        worker: &Rc<Worker>,
        arm: usize,
        decision: Decision,
        request: Request<RequestBody>,
    ) -> Result<Response<Body>, Failed> {
        let route = self.route();
        let route_arm = &route.arms[arm];
        let upload = match request.body() {
            RequestBody::Streamed(_, upload, _) => Some(Rc::clone(upload)),
            RequestBody::Buffered(_) => None,
        };
        let mut exchange = Exchange::start(
            worker,
            decision,
            route_arm.metrics.duration.clone(),
            self.serving(),
        );
        let start = decision.sequence.counter;
        let Some(in_flight) = upstream::least_requests(&route_arm.endpoints, start) else {
            return Err(Failed {
                error: ForwardError::Connect,
                unsent: Some(request),
            });
        };
        let timeouts = Timeouts {
            connect: route.connect_timeout,
            response: route.response_timeout,
        };
        match worker.pool.send(in_flight, request, timeouts).await {
            // Nobody asked for another protocol: `Upgrade` never reaches an arm.
            Ok((response, _)) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                exchange.finish(Ending::Failed);
                Err(Failed {
                    error: ForwardError::Broken,
                    unsent: None,
                })
            }
            Ok((response, lease)) => {
                exchange.answered(response.status().as_u16(), lease);
                Ok(self.respond(worker, arm, &decision, response, exchange))
            }
            Err(failed) => {
                let broke = upload.is_some_and(|upload| upload.is_broken());
                let error = if broke {
                    ForwardError::Client
                } else {
                    failed.error
                };
                exchange.finish(if error.is_the_clients() {
                    Ending::Aborted
                } else {
                    Ending::Failed
                });
                Err(Failed { error, ..failed })
            }
        }
    }

    /// The arm's response with our headers.
    fn respond(
        &self,
        worker: &Worker,
        arm: usize,
        decision: &Decision,
        response: Response<Incoming>,
        exchange: Exchange,
    ) -> Response<Body> {
        let (mut parts, incoming) = response.into_parts();
        let chunked = parts.headers.contains_key(TRANSFER_ENCODING);
        headers::strip(&mut parts.headers, headers::Direction::Response);
        if chunked {
            parts.headers.remove(CONTENT_LENGTH);
        }
        self.sign(worker, arm, decision, &mut parts.headers);
        let experiment = &self.serving().experiment;
        let metrics = &self.route().arms[arm].metrics;
        worker.shared.metrics.count_request(
            &experiment.name,
            &experiment.arms[arm].name,
            metrics,
            parts.status.as_u16(),
        );
        let body = Proxied::new(incoming, exchange, self.route().idle_timeout);
        Response::from_parts(parts, Body::Proxied(Box::new(body)))
    }

    /// Our own answer for an arm that gave none. It carries the decision, too.
    fn refuse(
        &self,
        worker: &Worker,
        draw: Draw,
        decision: &Decision,
        error: ForwardError,
    ) -> Response<Body> {
        let problem = match error {
            ForwardError::ResponseTimeout => Problem::new(
                StatusCode::GATEWAY_TIMEOUT,
                "Gateway timeout",
                error.to_string(),
            ),
            ForwardError::Client => Problem::bad_request(error.to_string()).and_close(),
            ForwardError::ClientTimeout => {
                let status = StatusCode::REQUEST_TIMEOUT;
                Problem::new(status, "Request timeout", error.to_string()).and_close()
            }
            _ => bad_gateway(error.to_string()),
        };
        let experiment = &self.serving().experiment;
        let arm = &experiment.arms[draw.arm].name;
        let metrics = &self.route().arms[draw.arm].metrics;
        worker.shared.metrics.count_request(
            &experiment.name,
            arm,
            metrics,
            problem.status().as_u16(),
        );
        tracing::warn!(experiment = %experiment.name, %arm, %error, "no answer for the client");
        let mut response = problem.into_response();
        self.sign(worker, draw.arm, decision, response.headers_mut());
        response
    }

    /// Adds the headers that tell the client what was decided.
    fn sign(&self, worker: &Worker, arm: usize, decision: &Decision, map: &mut http::HeaderMap) {
        let route = self.route();
        let id = worker.shared.keys.encode(decision);
        if let Ok(id) = HeaderValue::from_bytes(id.as_bytes()) {
            map.insert(headers::DECISION, id);
        }
        map.insert(headers::EXPERIMENT, route.experiment_header.clone());
        map.insert(headers::ARM, route.arms[arm].header.clone());
        map.insert(headers::POLICY_VERSION, route.version_header.clone());
        if decision.reason != Reason::Sampled {
            map.insert(
                headers::REASON,
                HeaderValue::from_static(decision.reason.as_str()),
            );
        }
    }
}

fn bad_gateway(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_GATEWAY, "Bad gateway", detail)
}

/// The request as the arm gets it: the same method, target, headers and body, less what belongs to the client's connection.
fn outgoing(
    serving: &Serving,
    parts: Parts,
    body: RequestBody,
    sequence: SequenceKey,
) -> Request<RequestBody> {
    let Parts {
        method,
        uri,
        mut headers,
        ..
    } = parts;
    headers::strip(&mut headers, headers::Direction::Request);
    headers::identify(&mut headers, sequence);
    if serving.experiment.label.is_some() {
        headers::ask_for_identity(&mut headers);
    }
    let uri = match uri.authority() {
        None => uri,
        // Absolute form: the host header says the same (vetted), and an origin server expects a path.
        Some(_) => uri
            .path_and_query()
            .map_or_else(Uri::default, |path| Uri::from(path.clone())),
    };
    // The codec sends a GET without its body unless it is told how the body is framed.
    if !body.is_end_stream() && body.size_hint().exact().is_none() {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    request
}

/// Reads a body of at most `limit` bytes within `patience` milliseconds.
pub(super) async fn read_body(
    body: Incoming,
    limit: usize,
    patience: u64,
) -> Result<bytes::Bytes, Problem> {
    let read = Limited::new(body, limit).collect();
    let Ok(read) = tokio::time::timeout(Duration::from_millis(patience), read).await else {
        let detail = format!("the body did not arrive within {patience} ms");
        return Err(
            Problem::new(StatusCode::REQUEST_TIMEOUT, "Request timeout", detail).and_close(),
        );
    };
    match read {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "Content too large",
            format!("the body is longer than the limit of {limit} bytes"),
        )
        .and_close()),
        Err(error) => {
            Err(Problem::bad_request(format!("the body could not be read: {error}")).and_close())
        }
    }
}
