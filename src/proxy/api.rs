//! The reserved paths of the data plane: rewards, decisions without proxying, liveness and readiness.

use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use http::header::{ALLOW, HeaderValue, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use serde::Deserialize;

use super::body::Source;
use super::context;
use super::draw::{draw, record};
use super::held::read_body;
use super::problem::{Problem, full};
use super::worker::{Phase, Worker};
use crate::engine::keys::Subject;
use crate::engine::snapshot::Serving;
use crate::experiment::MissingUnit;
use crate::experiment::decision::LoggedDecision;
use crate::experiment::id::{ExperimentId, KeyHash, MAX_KEY_BYTES};
use crate::http1::fields::Fields;
use crate::http1::head::Request;
use crate::rewards::{self, Reference};

const JSON: &str = "application/json";

/// Whether `path` is ours, whatever the policy files match.
pub fn is_reserved(path: &[u8]) -> bool {
    path.starts_with(b"/-/") || path.starts_with(b"/ofrep/")
}

/// Answers a request to a reserved path.
pub async fn answer(
    worker: &Rc<Worker>,
    peer: SocketAddr,
    request: &Request,
    body: &mut Source<'_>,
) -> Result<Response<Bytes>, Problem> {
    match (request.path(), request.method()) {
        ("/-/rewards", "POST") => {
            authorize(worker, peer, &request.fields)?;
            post_rewards(worker, &request.fields, body).await
        }
        ("/-/decisions", "POST") => {
            authorize(worker, peer, &request.fields)?;
            post_decision(worker, body).await
        }
        ("/-/healthy", "GET" | "HEAD") => Ok(full(StatusCode::OK, "text/plain", "healthy\n")),
        ("/-/ready", "GET" | "HEAD") => Ok(ready(worker)),
        ("/-/rewards" | "/-/decisions", _) => Ok(not_allowed("POST")),
        ("/-/healthy" | "/-/ready", _) => Ok(not_allowed("GET, HEAD")),
        (path, _) => Err(Problem::new(
            StatusCode::NOT_FOUND,
            "Not found",
            format!("there is nothing at the reserved path {path}"),
        )),
    }
}

fn not_allowed(allow: &'static str) -> Response<Bytes> {
    let problem = Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "Method not allowed",
        format!("this path takes {allow}"),
    );
    let mut response = problem.into_response();
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allow));
    response
}

fn ready(worker: &Worker) -> Response<Bytes> {
    let ready = *worker.shared.phase.borrow() == Phase::Serving;
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = serde_json::json!({
        "ready": ready,
        "journal_writable": worker.shared.telemetry.is_writable(),
    });
    full(status, JSON, body.to_string())
}

/// Rewards and decisions need the client token; without one, only peers on this machine are trusted.
fn authorize(worker: &Worker, peer: SocketAddr, fields: &Fields) -> Result<(), Problem> {
    let auth = &worker.shared.settings.auth;
    let allowed = if auth.client_token.is_empty() {
        auth.open || peer.ip().to_canonical().is_loopback()
    } else {
        bearer(fields)
            .is_some_and(|given| blake3::hash(given) == blake3::hash(auth.client_token.as_bytes()))
    };
    if allowed {
        return Ok(());
    }
    let detail = if auth.client_token.is_empty() {
        "without auth.client_token in the configuration only this machine may post here"
    } else {
        "send the client token as `Authorization: Bearer …`"
    };
    Err(
        Problem::new(StatusCode::UNAUTHORIZED, "Unauthorized", detail)
            .with_header(WWW_AUTHENTICATE, "Bearer"),
    )
}

/// Keys may be guessed, so that they are only taken from those who have shown the client token, whatever machine they are on.
fn authorize_keys(worker: &Worker) -> Result<(), Problem> {
    if !worker.shared.settings.auth.client_token.is_empty() {
        return Ok(());
    }
    let detail = "a key of your own is only taken with the client token: set auth.client_token in the configuration";
    Err(
        Problem::new(StatusCode::UNAUTHORIZED, "Unauthorized", detail)
            .with_header(WWW_AUTHENTICATE, "Bearer"),
    )
}

fn bearer(fields: &Fields) -> Option<&[u8]> {
    let value = fields.get(b"authorization")?;
    let (scheme, token) = value.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| token.trim_ascii())
}

async fn post_rewards(
    worker: &Rc<Worker>,
    fields: &Fields,
    body: &mut Source<'_>,
) -> Result<Response<Bytes>, Problem> {
    let limits = &worker.shared.settings.limits;
    let held = read_body(worker, body, limits.reward_body, limits.body_timeout).await?;
    let body = &held.bytes;
    let content_type = fields
        .get(b"content-type")
        .and_then(|value| std::str::from_utf8(value).ok());
    let bounds = rewards::Limits {
        bytes: limits.reward_body,
        items: limits.reward_items,
        depth: limits.json_depth,
    };
    let shared = &worker.shared;
    let decode = |reference: Reference<'_>| match reference {
        Reference::DecisionId(id) => match shared.keys.decode(id) {
            Ok(decision) => Ok(Subject::Decision(decision)),
            Err(error) => Err(error.to_string()),
        },
        Reference::Key { experiment, key } => {
            let experiment = ExperimentId::of(experiment);
            let hash = shared.draw_keys.key_hash(experiment, key.as_bytes());
            Ok(Subject::Key(experiment, hash))
        }
    };
    let items =
        rewards::parse(body, content_type, bounds, worker.now(), decode).map_err(|error| {
            let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
            Problem::new(status, "The rewards cannot be read", error.to_string())
        })?;
    if rewards::any_by_key(&items) {
        authorize_keys(worker)?;
    }
    // Items that are no rewards never reach the ledger if there is nothing else in the post.
    let none_is_a_reward = items.iter().all(Result::is_err);
    match worker.shared.ledger.post(items).await {
        Ok(answers) => {
            if none_is_a_reward {
                worker.shared.telemetry.count_invalid(answers.len());
            }
            let status = StatusCode::from_u16(rewards::status(&answers)).unwrap_or(StatusCode::OK);
            Ok(full(status, JSON, rewards::render(&answers)))
        }
        Err(error) => Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "Service unavailable",
            error.to_string(),
        )
        .retry_after(error.retry_after())),
    }
}

/// The body of `POST /-/decisions`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DecisionRequest {
    experiment: String,
    unit: Option<String>,
    /// The client's own key, by which it will post rewards.
    key: Option<String>,
    /// Taken, and not looked at, by policies without context.
    #[serde(default)]
    context: serde_json::Map<String, serde_json::Value>,
}

async fn post_decision(
    worker: &Rc<Worker>,
    body: &mut Source<'_>,
) -> Result<Response<Bytes>, Problem> {
    let limits = &worker.shared.settings.limits;
    let held = read_body(worker, body, limits.buffered_body, limits.body_timeout).await?;
    let body = &held.bytes;
    let asked: DecisionRequest = serde_json::from_slice(body).map_err(|error| {
        Problem::bad_request(format!(
            "the body must be {{\"experiment\": …, \"unit\": …, \"key\": …, \"context\": {{…}}}}: {error}"
        ))
    })?;
    let published = worker.published();
    let found = published
        .experiments
        .iter()
        .position(|serving| serving.experiment.name.as_str() == asked.experiment);
    let Some(index) = found else {
        let detail = format!("there is no experiment called {:?}", asked.experiment);
        return Err(Problem::new(StatusCode::NOT_FOUND, "Not found", detail));
    };
    let (serving, route) = (
        &published.experiments[index],
        &published.router.routes[index],
    );
    let key = asked.unit.filter(|unit| !unit.is_empty());
    if key.as_ref().is_some_and(|key| key.len() > limits.unit_key) {
        return Err(Problem::bad_request(format!(
            "unit is longer than the limit of {} bytes",
            limits.unit_key
        )));
    }
    let reward_key = asked
        .key
        .map(|key| stated_key(worker, serving, &key))
        .transpose()?;
    let rule = serving.experiment.context.as_deref();
    let context = rule
        .map(|rule| context::stated(rule, &asked.context, key.as_deref()))
        .transpose()
        .map_err(Problem::bad_request)?;
    let mut baseline = false;
    let unit = serving.experiment.unit.as_ref().and_then(|rule| {
        if key.is_none() {
            route.unit_missing.increment(1);
            baseline = rule.missing == MissingUnit::Baseline;
        }
        key.map(|key| {
            worker
                .shared
                .draw_keys
                .unit_hash(serving.experiment.id, &rule.salt, key.as_bytes())
        })
    });
    let (drawn, decision, context) = draw(worker, (serving, route), unit, baseline, context);
    let logged = LoggedDecision {
        decision,
        unit,
        allocation_version: serving.allocation.version,
        instead_of: None,
        context,
        key: reward_key,
    };
    let id = record(worker, &route.arms[drawn.arm].metrics, logged);
    let body = serde_json::json!({
        "decision_id": id.as_str(),
        "arm": serving.experiment.arms[drawn.arm].name.as_str(),
        "propensity": decision.propensity,
        "reason": decision.reason.as_str(),
        "experiment": serving.experiment.name.as_str(),
        "policy_version": serving.experiment.version.to_string(),
    });
    Ok(full(StatusCode::CREATED, JSON, body.to_string()))
}

/// The hash of the key that a client has stated for its decision.
fn stated_key(worker: &Worker, serving: &Serving, key: &str) -> Result<KeyHash, Problem> {
    authorize_keys(worker)?;
    if serving.experiment.reward_key.is_none() {
        return Err(Problem::bad_request(format!(
            "experiment {} takes no keys: its policy file has no `key` in [reward]",
            serving.experiment.name
        )));
    }
    if key.is_empty() || key.len() > MAX_KEY_BYTES {
        return Err(Problem::bad_request(format!(
            "key has {} bytes; 1 to {MAX_KEY_BYTES} are allowed",
            key.len()
        )));
    }
    let draw_keys = &worker.shared.draw_keys;
    Ok(draw_keys.key_hash(serving.experiment.id, key.as_bytes()))
}
