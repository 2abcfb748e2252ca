//! A client's HTTP/2 connection (RFC 9113). hyper speaks the protocol; each stream's request is turned into the form that HTTP/1.1's have, so
//! that all that follows is the same.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use http::{Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::oneshot;

use super::body::{Departure, Source};
use super::channel::ChannelBody;
use super::client::Client;
use super::connection::KEPT;
use super::handle::handle;
use super::problem::Problem;
use super::stream::Rewound;
use super::upstream::LocalExecutor;
use super::worker::{Peer, Phase, Worker};
use crate::config::settings::Limits;
use crate::http1::chunked::is_value;
use crate::http1::field::Known;
use crate::http1::head::Request;
use crate::http1::tokens::decimal;

/// Serves a connection to its end.
pub(super) async fn serve(worker: Rc<Worker>, stream: Rewound, peer: Peer) {
    let limits = &worker.shared.settings.limits;
    let mut builder = http2::Builder::new(LocalExecutor);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams as u32)
        .max_header_list_size(limits.header_bytes as u32)
        .adaptive_window(true)
        .keep_alive_interval(Duration::from_millis(limits.keep_alive_timeout))
        .keep_alive_timeout(Duration::from_millis(limits.header_timeout));
    let streams = Rc::new(Streams::default());
    let service = {
        let (worker, streams) = (Rc::clone(&worker), Rc::clone(&streams));
        service_fn(move |request| {
            let (worker, peer) = (Rc::clone(&worker), peer.clone());
            let open = Open::one_more(&streams);
            async move {
                let answered = respond(worker, peer, request, open).await;
                answered.ok_or(std::io::Error::from(std::io::ErrorKind::ConnectionAborted))
            }
        })
    };
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let mut phase = worker.shared.phase.clone();
    let mut is_ending = false;
    let patience = Duration::from_millis(limits.header_timeout);
    loop {
        let idle = Duration::from_millis(limits.keep_alive_timeout);
        let before = streams.served.get();
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a client's HTTP/2 connection ended");
                }
                return;
            }
            _ = phase.wait_for(|phase| *phase >= Phase::Draining), if !is_ending => {}
            () = tokio::time::sleep(idle), if !is_ending => {
                if streams.open.get() > 0 || streams.served.get() != before {
                    continue;
                }
            }
            // A peer that does not answer our goodbye, or has not even begun to speak, is left.
            () = tokio::time::sleep(patience), if is_ending => {
                if streams.open.get() == 0 {
                    return;
                }
                continue;
            }
        }
        is_ending = true;
        connection.as_mut().graceful_shutdown();
    }
}

/// The streams of a connection.
#[derive(Debug, Default)]
struct Streams {
    open: Cell<usize>,
    served: Cell<u64>,
}

struct Open(Rc<Streams>);

impl Open {
    fn one_more(streams: &Rc<Streams>) -> Self {
        streams.open.set(streams.open.get() + 1);
        streams.served.set(streams.served.get() + 1);
        Self(Rc::clone(streams))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
    }
}

/// Tells of a departure when hyper drops the request before there is a response.
struct Waiting(Option<Rc<Departure>>);

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(departure) = &self.0 {
            departure.declare();
        }
    }
}

/// The response to one request; `None` where it broke off before its head.
async fn respond(
    worker: Rc<Worker>,
    peer: Peer,
    request: http::Request<Incoming>,
    open: Open,
) -> Option<Response<ChannelBody>> {
    let (parts, incoming) = request.into_parts();
    let mut head = worker.requests.borrow_mut().pop().unwrap_or_default();
    let departure = Rc::new(Departure::default());
    let mut waiting = Waiting(Some(Rc::clone(&departure)));
    let (sender, receiver) = oneshot::channel();
    let vetted = convert(&parts, &mut head, &worker.shared.settings.limits);
    tokio::task::spawn_local(async move {
        let patience = worker.shared.settings.limits.progress_timeout;
        let to_head = parts.method == http::Method::HEAD;
        let mut client = Client::stream(sender, Rc::clone(&departure), to_head, patience);
        if let Err(problem) = vetted {
            let _refused = client.answer(problem.into_response()).await;
        } else {
            let length = head.fields.of(Known::ContentLength).next();
            let length = length.and_then(decimal);
            let source = Source::stream(incoming, length, Some(departure));
            handle(&worker, &peer, &head, source, &mut client).await;
        }
        drop(client);
        drop(open);
        let mut kept = worker.requests.borrow_mut();
        if kept.len() < KEPT {
            kept.push(head);
        }
    });
    let response = receiver.await.ok();
    waiting.0 = None;
    response
}

/// The request as HTTP/1.1 would have it (RFC 9113 §8.3.1).
fn convert(
    parts: &http::request::Parts,
    head: &mut Request,
    limits: &Limits,
) -> Result<(), Problem> {
    let bad = |detail: &str| Problem::bad_request(detail);
    let target = parts.uri.path_and_query().map_or("", |path| path.as_str());
    if parts.method == http::Method::CONNECT {
        let detail = "CONNECT is not proxied: this is a reverse proxy";
        let status = StatusCode::METHOD_NOT_ALLOWED;
        return Err(Problem::new(status, "Method not allowed", detail));
    }
    let made = head.make(parts.method.as_str(), target);
    made.map_err(|_| bad("the request target must be a path"))?;
    if let Some(authority) = parts.uri.authority() {
        head.fields.push(b"host", authority.as_str().as_bytes());
    }
    let mut cookies = Vec::new();
    for (name, value) in &parts.headers {
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
        if value.trim_ascii().len() != value.len() || !is_value(value) {
            return Err(bad("a field's value starts or ends with white space"));
        }
        match name {
            b"host" if head.host() == Some(value) => {}
            b"cookie" => {
                if !cookies.is_empty() {
                    cookies.extend_from_slice(b"; ");
                }
                cookies.extend_from_slice(value);
            }
            _ => head.fields.push(name, value),
        }
    }
    if head.fields.len() > limits.headers {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        let detail = "there are too many fields";
        return Err(Problem::new(
            status,
            "Request header fields too large",
            detail,
        ));
    }
    if head.fields.of(Known::ContentLength).count() > 1 {
        return Err(bad("content-length must be one decimal number"));
    }
    if !cookies.is_empty() {
        head.fields.push(b"cookie", &cookies);
    }
    Ok(())
}
