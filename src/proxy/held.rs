//! Bodies that are read whole, because the policy file asks for a value from them or because they are for us: of bounded length, in
//! bounded time, and of bounded size together.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use super::body::{Source, SourceError};
use super::problem::Problem;
use super::upstream::Reserved;
use super::worker::Worker;

/// A body that was read whole, and its place in memory.
pub(super) struct Held<'a> {
    pub(super) bytes: Bytes,
    _place: Reserved<'a>,
}

/// Reads a body of at most `limit` bytes within `patience` milliseconds.
pub(super) async fn read_body<'a>(
    worker: &'a Worker,
    source: &mut Source<'_>,
    limit: usize,
    patience: u64,
) -> Result<Held<'a>, Problem> {
    let too_long = || {
        let detail = format!("the body is longer than the limit of {limit} bytes");
        let status = StatusCode::PAYLOAD_TOO_LARGE;
        Problem::new(status, "Content too large", detail).and_close()
    };
    // One that will never fit is not told to come again.
    let size = match source.announced() {
        Some(length) if length > limit as u64 => return Err(too_long()),
        Some(length) => length as usize,
        None => limit,
    };
    let shared = &worker.shared;
    let most = shared.settings.limits.buffered_bytes;
    let Some(place) = Reserved::take(&shared.buffered, size, most) else {
        return Err(Problem::overloaded(
            "as many bytes of bodies are in memory as limits.buffered_bytes allows",
        ));
    };
    let read = source.read_whole(limit, patience);
    match tokio::time::timeout(Duration::from_millis(patience), read).await {
        Ok(Ok(Some(bytes))) => Ok(Held {
            bytes,
            _place: place,
        }),
        Ok(Ok(None)) => Err(too_long()),
        Err(_) | Ok(Err(SourceError::Silent)) => {
            let detail = format!("the body did not arrive within {patience} ms");
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "Request timeout", detail).and_close())
        }
        Ok(Err(_)) => Err(Problem::bad_request(
            "the body could not be read: it is malformed or was cut short",
        )
        .and_close()),
    }
}
