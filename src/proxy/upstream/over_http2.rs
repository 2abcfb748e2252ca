//! One request over a stream of an HTTP/2 connection (RFC 9113): its head, the response's, and what it says when there is none.

use std::error::Error;
use std::pin::pin;
use std::time::Duration;

use h2::Reason;
use http::uri::{PathAndQuery, Uri};
use hyper::client::conn::TrySendError;
use hyper::client::conn::http2::SendRequest;

use super::ForwardError;
use super::relay::{Progress, Relay};
use crate::http1::field::Known;
use crate::http1::head::Response;
use crate::http1::tokens::decimal;
use crate::proxy::body::Source;
use crate::proxy::channel::{Channel, ChannelBody, channel};
use crate::proxy::client::append;

impl Relay<'_> {
    /// Sends the request's head on an HTTP/2 connection and waits for the response's.
    pub(super) async fn receive_stream(
        &self,
        sender: &mut SendRequest<ChannelBody>,
        request: http::Request<ChannelBody>,
        (progress, response): (&Progress, &mut Response),
    ) -> Result<Source<'static>, ForwardError> {
        let mut answer = pin!(sender.try_send_request(request));
        let mut limit = self.bounds.response;
        let answer = loop {
            match tokio::time::timeout(Duration::from_millis(limit), answer.as_mut()).await {
                Ok(Ok(answer)) => break answer,
                Ok(Err(error)) => {
                    tracing::debug!(error = %error.error(), "an HTTP/2 stream to an endpoint ended");
                    return Err(refusal(&error));
                }
                Err(_) => limit = self.patience_left(progress)?,
            }
        };
        let (parts, body) = answer.into_parts();
        if !(200..=599).contains(&parts.status.as_u16()) {
            return Err(ForwardError::Broken);
        }
        response.make(parts.status.as_u16());
        for (name, value) in &parts.headers {
            response
                .fields
                .push(name.as_str().as_bytes(), value.as_bytes());
        }
        let length = response.fields.of(Known::ContentLength).next();
        let length = length.and_then(decimal);
        Ok(Source::stream(body, length, None))
    }

    /// The head for an HTTP/2 endpoint.
    pub(super) fn stream_head(
        &self,
        source: &Source<'_>,
    ) -> Result<(http::Request<ChannelBody>, Channel), ForwardError> {
        let request = self.outgoing.request;
        let (channel, body) = channel(source.announced() == Some(0), None);
        let mut target = Vec::new();
        self.outgoing.target(self.path, &mut target);
        let uri = Uri::builder()
            .scheme(if self.is_tls { "https" } else { "http" })
            .authority(self.outgoing.host(self.host, self.authority))
            .path_and_query(PathAndQuery::try_from(target).map_err(|_| ForwardError::Client)?)
            .build()
            .map_err(|_| ForwardError::Client)?;
        let mut head = http::Request::new(body);
        *head.method_mut() = request.method().parse().map_err(|_| ForwardError::Client)?;
        *head.uri_mut() = uri;
        *head.version_mut() = http::Version::HTTP_2;
        let headers = head.headers_mut();
        self.outgoing
            .fields(&mut |name, value| append(headers, name, value));
        headers.remove(http::header::EXPECT);
        if let Some(length @ 1..) = source.announced() {
            headers.insert(http::header::CONTENT_LENGTH, length.into());
        }
        Ok((head, channel))
    }
}

/// What a stream that ended without a response says of its request.
fn refusal(error: &TrySendError<http::Request<ChannelBody>>) -> ForwardError {
    // hyper gives a request back of which not a byte was written.
    if error.message().is_some() {
        return ForwardError::Leaving;
    }
    let cause = error.error().source();
    let cause = cause.and_then(|cause| cause.downcast_ref::<h2::Error>());
    let Some(cause) = cause.filter(|cause| cause.is_remote()) else {
        return ForwardError::Closed;
    };
    // RFC 9113 §8.7: in these two cases, and in no other, the endpoint says that it has not processed the request. A GOAWAY concerns only
    // streams above the last one that it names (§6.8); h2 lets the others go on.
    if cause.is_go_away() {
        ForwardError::Leaving
    } else if cause.reason() == Some(Reason::REFUSED_STREAM) {
        ForwardError::Refused
    } else {
        ForwardError::Closed
    }
}
