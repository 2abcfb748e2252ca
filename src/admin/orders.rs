//! An operator's orders: pause and resume an experiment; disable, enable and reset an arm.
//!
//! Each is journalled before it is answered, and holds until it is taken back, restarts included. The answer is the
//! experiment as it serves from then on.

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::Deserialize;
use serde_json::json;

use super::{Admin, experiments, problem};
use crate::engine::orders::{MAX_REASON_BYTES, Order};
use crate::engine::snapshot::Serving;
use crate::ledger::{AdoptError, Unavailable};

/// Most bytes of a body: a reason, and room for its escapes.
const MAX_BODY: usize = 4096;

/// The paths that take orders.
pub(super) fn routes() -> Router<Admin> {
    let mut router = Router::new();
    for word in ["pause", "resume"] {
        let path = format!("/api/v1/experiments/{{name}}/{word}");
        let handler = move |State(admin): State<Admin>, Path(name): Path<String>, body: Bytes| {
            carry_out(admin, word, name, None, body)
        };
        router = router.route(&path, post(handler));
    }
    for word in ["disable", "enable", "reset"] {
        let path = format!("/api/v1/experiments/{{name}}/arms/{{arm}}/{word}");
        let handler =
            move |State(admin): State<Admin>,
                  Path((name, arm)): Path<(String, String)>,
                  body: Bytes| { carry_out(admin, word, name, Some(arm), body) };
        router = router.route(&path, post(handler));
    }
    router.layer(DefaultBodyLimit::max(MAX_BODY))
}

/// The body of an order; it may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Why {
    reason: Option<String>,
}

/// Reads the reason; the error says what the body may be.
fn reason(body: &[u8]) -> Result<Option<Box<str>>, String> {
    let why = if body.trim_ascii().is_empty() {
        Why::default()
    } else {
        serde_json::from_slice(body)
            .map_err(|error| format!("the body is empty or {{\"reason\": \"…\"}}: {error}"))?
    };
    let reason = why.reason.filter(|reason| !reason.is_empty());
    match &reason {
        Some(reason) if reason.len() > MAX_REASON_BYTES => Err(format!(
            "the reason has {} bytes; at most {MAX_REASON_BYTES} are allowed",
            reason.len()
        )),
        _ => Ok(reason.map(String::into_boxed_str)),
    }
}

/// Gives the order with this word about an experiment, or about the arm of this name.
async fn carry_out(
    admin: Admin,
    word: &'static str,
    name: String,
    arm: Option<String>,
    body: Bytes,
) -> Response {
    let reason = match reason(&body) {
        Ok(reason) => reason,
        Err(detail) => return problem(StatusCode::BAD_REQUEST, "Bad request", &detail),
    };
    let published = admin.published();
    let mut experiments = published.experiments.iter();
    let Some(serving) = experiments.find(|serving| serving.experiment.name.as_str() == name) else {
        return not_found("there is no experiment of this name");
    };
    let experiment = serving.experiment.id;
    let id = arm.as_deref().and_then(|arm| {
        let mut arms = serving.experiment.arms.iter();
        arms.find(|known| known.name.as_str() == arm)
            .map(|known| known.id)
    });
    let Some(order) = Order::from_word(word, id) else {
        return not_found("the experiment has no arm of this name");
    };
    let operator = admin.operator.clone();
    let why = reason.clone();
    let given = tokio::task::spawn_blocking(move || operator.order(experiment, order, why));
    match given.await {
        Ok(Ok(Some(serving))) => {
            let (arm, reason) = (arm.as_deref(), reason.as_deref());
            tracing::info!(experiment = name, arm, reason, "operator: {word}");
            Json(answer(&serving, &admin)).into_response()
        }
        Ok(Ok(None)) => not_found("a reload has removed the experiment or the arm"),
        Ok(Err(AdoptError::Unavailable(why))) => unavailable(why),
        Ok(Err(error @ AdoptError::Epochs { .. })) => {
            problem(StatusCode::CONFLICT, "Conflict", &error.to_string())
        }
        Err(_) => problem(
            StatusCode::INTERNAL_SERVER_ERROR,
            "Internal error",
            "the order could not be carried out",
        ),
    }
}

/// The experiment as it serves, and what may surprise about it.
fn answer(serving: &Serving, admin: &Admin) -> serde_json::Value {
    let mut answer = experiments::describe(serving, admin);
    let none = serving
        .allocation
        .probabilities
        .iter()
        .all(|probability| *probability == 0.0);
    if none && !serving.paused {
        answer["note"] = json!(
            "no arm can be drawn: the baseline serves every request, with reason `fallback`, and nothing is learned"
        );
    }
    answer
}

fn not_found(detail: &str) -> Response {
    problem(StatusCode::NOT_FOUND, "Not found", detail)
}

fn unavailable(why: Unavailable) -> Response {
    let detail = match why {
        Unavailable::Stopping => "the server is stopping",
        Unavailable::Starting => "the journal is being taken over: give it again",
        Unavailable::Failing | Unavailable::Busy => {
            "the journal cannot be written at the moment, and an order holds only when it is in there: give it again"
        }
    };
    let refused = problem(
        StatusCode::SERVICE_UNAVAILABLE,
        "Service unavailable",
        detail,
    );
    let after = why.retry_after().to_string();
    ([(header::RETRY_AFTER, after)], refused).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_may_be_given_and_is_short() {
        assert_eq!(reason(b""), Ok(None));
        assert_eq!(reason(b" {} \n"), Ok(None));
        assert_eq!(reason(b"{\"reason\": \"\"}"), Ok(None));
        assert_eq!(
            reason("{\"reason\": \"zu groß\"}".as_bytes()),
            Ok(Some("zu groß".into()))
        );
        let longest = format!("{{\"reason\": \"{}\"}}", "x".repeat(200));
        assert!(reason(longest.as_bytes()).is_ok());
        let longer = longest.replace("xx", "xxx");
        assert!(reason(longer.as_bytes()).unwrap_err().contains("300 bytes"));
        for wrong in ["null", "[]", "{\"reason\": 1}", "{\"raeson\": \"x\"}", "{"] {
            assert!(
                reason(wrong.as_bytes()).is_err_and(|error| error.contains("\"reason\"")),
                "{wrong}"
            );
        }
    }
}
