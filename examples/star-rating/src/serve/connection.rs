//! One request and its answer.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{ALLOW, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};

use crate::console::note;
use crate::serve::queue::{Queue, Refusal};
use crate::serve::request::{self, Question};

/// Longest body that is read, in bytes: far more than 64 long reviews.
const LONGEST_BODY: usize = 1 << 20;

/// What all connections share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) variant: String,
    pub(super) queue: Queue,
}

type Answer = Response<Full<Bytes>>;

/// Answers one request; what is wrong becomes a status and a message.
pub(super) async fn answer(
    shared: &Shared,
    request: Request<Incoming>,
) -> Result<Answer, Infallible> {
    let answer = match request.uri().path() {
        "/v1/stars" if request.method() == Method::POST => rate(shared, request)
            .await
            .unwrap_or_else(|refused| refused),
        "/ping" | "/health" if [Method::GET, Method::HEAD].contains(request.method()) => json(
            StatusCode::OK,
            &serde_json::json!({"status": "ok", "variant": shared.variant}),
        ),
        "/v1/stars" => not_allowed("POST"),
        "/ping" | "/health" => not_allowed("GET, HEAD"),
        path => error(
            StatusCode::NOT_FOUND,
            &format!("no {path} here: POST /v1/stars, GET /ping, GET /health"),
        ),
    };
    Ok(answer)
}

async fn rate(shared: &Shared, request: Request<Incoming>) -> Result<Answer, Answer> {
    if let Some(encoding) = request.headers().get(CONTENT_ENCODING)
        && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        return Err(error(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "send the body without a content encoding",
        ));
    }
    let body = read_body(request.into_body()).await?;
    let question =
        Question::parse(&body).map_err(|message| error(StatusCode::BAD_REQUEST, &message))?;
    let rated = shared
        .queue
        .rate(question.texts)
        .await
        .map_err(|refusal| refused(&refusal))?;
    let body = request::answer(question.form, &rated, &shared.variant)
        .map_err(|cause| error(StatusCode::INTERNAL_SERVER_ERROR, &cause.to_string()))?;
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    answer.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static(question.form.content_type()),
    );
    let timing = format!(
        "queue;dur={:.1}, model;dur={:.1}",
        rated.queue_milliseconds, rated.model_milliseconds
    );
    if let Ok(timing) = HeaderValue::from_str(&timing) {
        answer.headers_mut().insert("server-timing", timing);
    }
    Ok(answer)
}

async fn read_body(body: Incoming) -> Result<Bytes, Answer> {
    let too_long = || {
        error(
            StatusCode::PAYLOAD_TOO_LARGE,
            &format!("the body is longer than {LONGEST_BODY} bytes"),
        )
    };
    if body.size_hint().lower() > LONGEST_BODY as u64 {
        return Err(too_long());
    }
    match Limited::new(body, LONGEST_BODY).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(cause) if cause.is::<LengthLimitError>() => Err(too_long()),
        Err(cause) => Err(error(
            StatusCode::BAD_REQUEST,
            &format!("the body could not be read: {cause}"),
        )),
    }
}

fn refused(refusal: &Refusal) -> Answer {
    match refusal {
        Refusal::Full => {
            let mut answer = error(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many requests wait for the model: try again",
            );
            answer
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from_static("1"));
            answer
        }
        Refusal::Failed(cause) => {
            note(&format!("serve: {cause:#}"));
            error(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the model failed; see the server's log",
            )
        }
    }
}

fn not_allowed(methods: &'static str) -> Answer {
    let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, &format!("use {methods}"));
    answer
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(methods));
    answer
}

fn error(status: StatusCode, message: &str) -> Answer {
    json(status, &serde_json::json!({"error": message}))
}

fn json(status: StatusCode, value: &serde_json::Value) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(format!("{value}\n"))));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
