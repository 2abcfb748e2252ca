//! The one place where an error becomes a response: `application/problem+json` (RFC 9457).

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER,
};
use http::{Response, StatusCode};

use super::upstream::ForwardError;

/// An error as the client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    title: &'static str,
    detail: String,
    /// Seconds after which another try makes sense.
    retry_after: Option<u64>,
    /// The connection's framing can no longer be trusted.
    close: bool,
    /// One more header that this problem calls for.
    header: Option<(HeaderName, &'static str)>,
}

impl Problem {
    /// A problem with a status, a fixed title and the detail of this case.
    pub fn new(status: StatusCode, title: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            title,
            detail: detail.into(),
            retry_after: None,
            close: false,
            header: None,
        }
    }

    /// The request is malformed.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "Bad request", detail)
    }

    /// There is more to do than allowed: try again soon.
    pub fn overloaded(detail: impl Into<String>) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self::new(status, "Service unavailable", detail).retry_after(1)
    }

    /// Tells the client when to try again.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Closes the connection after the answer.
    #[must_use]
    pub fn and_close(mut self) -> Self {
        self.close = true;
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.header = Some((name, value));
        self
    }

    /// The status code.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The response.
    pub fn into_response(self) -> Response<Bytes> {
        let body = serde_json::json!({
            "type": "about:blank",
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        let mut response = full(self.status, "application/problem+json", body.to_string());
        if let Some(seconds) = self.retry_after {
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some((name, value)) = self.header {
            response
                .headers_mut()
                .insert(name, HeaderValue::from_static(value));
        }
        if self.close {
            response
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// What the client is told of an arm that did not answer.
impl From<ForwardError> for Problem {
    fn from(error: ForwardError) -> Self {
        let detail = error.to_string();
        match error {
            ForwardError::ResponseTimeout | ForwardError::TotalTimeout => {
                Self::new(StatusCode::GATEWAY_TIMEOUT, "Gateway timeout", detail)
            }
            ForwardError::Overloaded | ForwardError::Unavailable => Self::overloaded(detail),
            ForwardError::Client => Self::bad_request(detail).and_close(),
            ForwardError::ClientTimeout => {
                Self::new(StatusCode::REQUEST_TIMEOUT, "Request timeout", detail).and_close()
            }
            _ => Self::new(StatusCode::BAD_GATEWAY, "Bad gateway", detail),
        }
    }
}

/// A response whose whole body is at hand.
pub fn full(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Bytes> {
    let body = body.into();
    let length = body.len();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
        .headers_mut()
        .insert(CONTENT_LENGTH, HeaderValue::from(length));
    response
}
