//! One request and its response over one connection: the request's body goes up while the response comes down, whichever ends first.

use std::cell::Cell;
use std::pin::pin;

use hyper::client::conn::http2::SendRequest;

use super::{Connection, ForwardError, Link};
use crate::experiment::upstream::{HostRule, PathRewrite};
use crate::http1::field::Known;
use crate::http1::head::{Limits, Response};
use crate::http1::tokens::{decimal, push_decimal};
use crate::proxy::body::{Piece, Source, SourceError};
use crate::proxy::channel::{Channel, ChannelBody};
use crate::proxy::client::{Client, Form, Status, field, write_piece};
use crate::proxy::grpc::GrpcStatus;
use crate::proxy::headers::{Head, Outgoing, Passing};
use crate::proxy::shadow::Copying;
use crate::proxy::timer::Timers;
use crate::proxy::wire::{Buffer, LARGEST, Wire, WireError};

/// Responses before the response that are passed on (RFC 9110 §15.2); more are an attack.
const MAX_INTERIM: usize = 64;

/// An arm that does not react to `Expect: 100-continue` within so many milliseconds is taken for one that never will, and we let the client go on.
const CONTINUE_PATIENCE: u64 = 1_000;

/// How long things may take, in milliseconds, and how large they may be.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// From the end of the request to the response's head.
    pub response: u64,
    /// Silence within the response.
    pub idle: u64,
    /// Silence of the client within its request.
    pub progress: u64,
    /// The response's head.
    pub head: Limits,
}

/// What is to be carried.
#[derive(Debug)]
pub struct Relay<'a> {
    /// The request's head.
    pub outgoing: &'a Outgoing<'a>,
    /// Which `Host` the endpoint sees.
    pub host: &'a HostRule,
    /// What becomes of the path.
    pub path: Option<&'a PathRewrite>,
    /// The endpoint's authority.
    pub authority: &'a str,
    /// Whether it is reached over TLS.
    pub is_tls: bool,
    /// Bounds.
    pub bounds: Bounds,
    /// The worker's time.
    pub timers: &'a Timers,
    /// Statuses that are an error here, because the request will be tried again.
    pub refused: &'a [u16],
}

/// Who is told how the response comes along. Its head is our own fields of the response.
pub trait Observer: Head {
    /// The response's head is there, and will be passed on.
    fn answered(&mut self, status: u16);

    /// A piece of its body passes. Whether more is wanted.
    fn passes(&mut self, data: &[u8]) -> bool;

    /// It has ended well; of a gRPC call it says how that went. Said before the client can see the last byte, so that a label cannot overtake it.
    fn ended(&mut self, call: Option<GrpcStatus>);
}

/// How an exchange ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relayed {
    /// The response was passed on to its end. Whether the connection may serve again.
    Whole {
        /// Both messages ended and nobody wants to close.
        reusable: bool,
        /// How the gRPC call went that it answers.
        call: Option<GrpcStatus>,
    },
    /// The connection goes on as a WebSocket.
    Switched,
}

/// Where the request's body goes.
enum Sink<'l> {
    Wire {
        wire: &'l Wire,
        out: &'l mut Vec<u8>,
        form: Form,
    },
    Stream(Channel),
}

impl Sink<'_> {
    async fn piece(&mut self, piece: &Piece<'_>, patience: u64) -> Result<(), WireError> {
        match self {
            Self::Wire { wire, out, form } => write_piece(wire, out, *form, piece, patience).await,
            Self::Stream(channel) => channel.piece(piece, patience).await,
        }
    }

    /// Sends the head by itself.
    async fn begin(&mut self, patience: u64) -> Result<(), WireError> {
        if let Self::Wire { wire, out, .. } = self {
            wire.write(&[out], patience).await?;
            out.clear();
        }
        Ok(())
    }
}

/// How far the request has come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// When its last byte was written, in milliseconds of the worker.
    ended: Cell<Option<u64>>,
    /// When the endpoint was found to take no more of it.
    stopped: Cell<Option<u64>>,
    /// Not a byte of it was taken by the kernel.
    unsent: Cell<bool>,
    /// Whether the response's head is there.
    is_answered: Cell<bool>,
}

/// Why the request's side ended before the response's.
enum Interrupted {
    /// The endpoint takes no more. It may have answered all the same.
    Endpoint,
    /// The endpoint took nothing for so long that an answer should have come.
    Silence,
    Client(ForwardError),
}

/// Whom an exchange is between, and who looks on.
#[derive(Debug)]
pub struct Parties<'p, 's, 'c, O> {
    /// The request's body.
    pub source: &'p mut Source<'s>,
    /// Who gets the response.
    pub client: &'p mut Client<'c>,
    /// Who looks on.
    pub observer: &'p mut O,
    /// The request's body is copied aside.
    pub copying: &'p mut Option<Box<Copying>>,
}

/// Where the response comes from.
enum Down<'l> {
    Wire(&'l Wire, &'l mut Buffer),
    Stream {
        sender: &'l mut SendRequest<ChannelBody>,
        request: Box<http::Request<ChannelBody>>,
        /// Whether the client is to be told to go on: an endpoint of HTTP/2 is not asked.
        is_awaited: bool,
    },
}

impl Relay<'_> {
    /// Carries the request over `link` and the response back to the client. `response` is room for its head.
    ///
    /// # Errors
    ///
    /// See [`ForwardError`]; where the client's response has begun, it broke off.
    pub async fn run(
        &self,
        link: &mut Link,
        parties: Parties<'_, '_, '_, impl Observer>,
        response: &mut Response,
    ) -> Result<Relayed, ForwardError> {
        let Parties {
            source,
            client,
            observer,
            copying,
        } = parties;
        let (sink, down) = match link {
            Link::Wire(connection) => {
                let Connection {
                    wire, buffer, out, ..
                } = &mut **connection;
                let form = self.wire_head(source, out);
                (Sink::Wire { wire, out, form }, Down::Wire(wire, buffer))
            }
            Link::Stream(sender, _) => {
                let (request, channel) = self.stream_head(source)?;
                let down = Down::Stream {
                    sender,
                    request: Box::new(request),
                    is_awaited: !source.is_at_hand() && self.outgoing.awaits_leave(),
                };
                (Sink::Stream(channel), down)
            }
        };
        let progress = Progress::default();
        let outcome = {
            let mut up = pin!(self.up(sink, source, &progress, copying));
            let mut down = pin!(self.down(down, client, observer, (&progress, response)));
            let mut going_up = true;
            loop {
                tokio::select! {
                    biased;
                    interrupted = &mut up, if going_up => match interrupted {
                        Interrupted::Silence if !progress.is_answered.get() => {
                            break Err(ForwardError::ResponseTimeout);
                        }
                        Interrupted::Endpoint | Interrupted::Silence => going_up = false,
                        Interrupted::Client(error) => break Err(error),
                    },
                    outcome = &mut down => break outcome,
                }
            }
        };
        match outcome {
            Err(ForwardError::Closed | ForwardError::Broken) if progress.unsent.get() => {
                Err(ForwardError::Connect)
            }
            Ok(Relayed::Whole { reusable, call }) => Ok(Relayed::Whole {
                reusable: reusable && progress.ended.get().is_some(),
                call,
            }),
            outcome => outcome,
        }
    }

    /// Sends the request, then waits for the client to leave. Ends only early.
    async fn up(
        &self,
        mut sink: Sink<'_>,
        source: &mut Source<'_>,
        progress: &Progress,
        copying: &mut Option<Box<Copying>>,
    ) -> Interrupted {
        let mut is_first = true;
        if !source.is_at_hand() && !source.has_ended() {
            if let Err(error) = sink.begin(self.bounds.response).await {
                return self.stopped(progress, true, error);
            }
            is_first = false;
        }
        loop {
            let piece = match source.next(self.bounds.progress).await {
                Ok(piece) => piece,
                Err(SourceError::Silent) => {
                    return Interrupted::Client(ForwardError::ClientTimeout);
                }
                Err(_) => return Interrupted::Client(ForwardError::Client),
            };
            if let Some(copying) = copying {
                copying.push(piece.data);
            }
            if let Err(error) = sink.piece(&piece, self.bounds.response).await {
                return self.stopped(progress, is_first, error);
            }
            is_first = false;
            if piece.ended {
                break;
            }
        }
        progress.ended.set(Some(self.timers.now()));
        if let Some(copying) = copying.take() {
            copying.complete();
        }
        source.gone().await;
        Interrupted::Client(ForwardError::Gone)
    }

    /// The endpoint takes no more of the request.
    fn stopped(&self, progress: &Progress, is_first: bool, error: WireError) -> Interrupted {
        progress.unsent.set(is_first && error == WireError::Unsent);
        progress.stopped.set(Some(self.timers.now()));
        if error == WireError::Silent {
            Interrupted::Silence
        } else {
            Interrupted::Endpoint
        }
    }

    /// Waits for the response and passes it on.
    async fn down(
        &self,
        down: Down<'_>,
        client: &mut Client<'_>,
        observer: &mut impl Observer,
        (progress, response): (&Progress, &mut Response),
    ) -> Result<Relayed, ForwardError> {
        let (mut body, keeps_alive, may_be_call) = match down {
            Down::Wire(wire, buffer) => {
                self.receive(wire, buffer, client, (progress, &mut *response))
                    .await?;
                if response.status == 101 {
                    return self.switch(client, observer, response).await;
                }
                let body = Source::wire(wire, buffer, response.framing, self.bounds.head.bytes);
                (body, response.keeps_alive(), false)
            }
            Down::Stream {
                sender,
                request,
                is_awaited,
            } => {
                if is_awaited {
                    go_on(client).await?;
                }
                let body = self
                    .receive_stream(sender, *request, (progress, &mut *response))
                    .await?;
                // gRPC is spoken over HTTP/2 alone.
                (body, true, true)
            }
        };
        progress.is_answered.set(true);
        if self.refused.contains(&response.status) {
            return Err(ForwardError::Status(response.status));
        }
        observer.answered(response.status);
        if progress.ended.get().is_none() {
            // What the client still sends cannot be told from its next request, should the arm not want it.
            client.close_after();
        }
        let status = Status {
            code: response.status,
            reason: response.reason(),
        };
        let stated = response.fields.of(Known::ContentLength).next();
        let fields = (passing(response, false), &*observer);
        client.begin(status, body.framing(), stated.and_then(decimal), &fields);
        if !body.is_at_hand() && !body.has_ended() {
            // Its first byte may be long in coming: a stream of events, for one.
            client.flush().await.map_err(|_| ForwardError::Gone)?;
        }
        let mut call = None;
        loop {
            let Ok(piece) = body.next(self.bounds.idle).await else {
                // What came is passed on; that it is not all, the client sees.
                client.flush().await.map_err(|_| ForwardError::Gone)?;
                return Err(ForwardError::Broken);
            };
            if !observer.passes(piece.data) {
                return Ok(Relayed::Whole {
                    reusable: false,
                    call,
                });
            }
            if piece.ended {
                if may_be_call {
                    call = GrpcStatus::of(response, &piece.trailers);
                }
                observer.ended(call);
            }
            client.piece(&piece).await.map_err(|_| ForwardError::Gone)?;
            if piece.ended {
                break;
            }
        }
        let ended = body.finish();
        Ok(Relayed::Whole {
            reusable: ended && keeps_alive,
            call,
        })
    }

    /// Reads the response's head from an HTTP/1.1 connection; what comes before it is passed on.
    async fn receive(
        &self,
        wire: &Wire,
        buffer: &mut Buffer,
        client: &mut Client<'_>,
        (progress, response): (&Progress, &mut Response),
    ) -> Result<(), ForwardError> {
        let to_head = self.outgoing.request.method_bytes() == b"HEAD";
        let mut waits = self.outgoing.awaits_leave();
        let mut interim = 0;
        loop {
            if !buffer.is_empty() {
                let parsed = response.parse(buffer.data(), to_head, self.bounds.head);
                if let Some(length) = parsed.map_err(|_| ForwardError::Broken)? {
                    buffer.consume(length);
                    match response.status {
                        101 if self.outgoing.websocket => return Ok(()),
                        101 => return Err(ForwardError::Broken),
                        200.. => return Ok(()),
                        _ => {}
                    }
                    (interim, waits) = (interim + 1, waits && response.status != 100);
                    if interim > MAX_INTERIM {
                        return Err(ForwardError::Broken);
                    }
                    let status = Status {
                        code: response.status,
                        reason: response.reason(),
                    };
                    let informed = client.inform(status, &passing(response, false)).await;
                    informed.map_err(|_| ForwardError::Gone)?;
                    continue;
                }
            }
            // Neither drips nor interim responses put the end off.
            let limit = self.patience_left(progress)?;
            let patience = if waits {
                CONTINUE_PATIENCE.min(limit)
            } else {
                limit
            };
            match wire
                .fill(buffer, LARGEST.max(self.bounds.head.bytes), patience)
                .await
            {
                Ok(0) | Err(WireError::Broken | WireError::Unsent) if buffer.is_empty() => {
                    return Err(ForwardError::Closed);
                }
                Ok(0) | Err(WireError::Broken | WireError::Unsent) => {
                    return Err(ForwardError::Broken);
                }
                Err(WireError::Silent) if waits => {
                    waits = false;
                    go_on(client).await?;
                }
                Ok(_) | Err(WireError::Silent) => {}
            }
        }
    }

    /// How long the arm may still take. It need not answer before the whole request is there; whether that comes is watched elsewhere.
    pub(super) fn patience_left(&self, progress: &Progress) -> Result<u64, ForwardError> {
        let Some(ended) = progress.ended.get().or(progress.stopped.get()) else {
            return Ok(self.bounds.response);
        };
        let waited = self.timers.now().saturating_sub(ended);
        if waited >= self.bounds.response {
            return Err(ForwardError::ResponseTimeout);
        }
        Ok(self.bounds.response - waited)
    }

    /// Passes the head on that turns the connection into a WebSocket.
    async fn switch(
        &self,
        client: &mut Client<'_>,
        observer: &mut impl Observer,
        response: &Response,
    ) -> Result<Relayed, ForwardError> {
        observer.answered(response.status);
        let status = Status {
            code: response.status,
            reason: response.reason(),
        };
        let fields = (passing(response, true), &*observer);
        let switched = client.switch(status, &fields).await;
        switched.map_err(|_| ForwardError::Gone)?;
        Ok(Relayed::Switched)
    }

    /// Writes the head for an HTTP/1.1 endpoint. How the body is written behind it.
    fn wire_head(&self, source: &Source<'_>, out: &mut Vec<u8>) -> Form {
        let request = self.outgoing.request;
        out.clear();
        out.extend_from_slice(request.method_bytes());
        out.push(b' ');
        self.outgoing.target(self.path, out);
        out.extend_from_slice(b" HTTP/1.1\r\n");
        field(out, b"host", self.outgoing.host(self.host, self.authority));
        self.outgoing.lines(out);
        let form = match source.announced() {
            None => {
                field(out, b"transfer-encoding", b"chunked");
                Form::Chunked
            }
            // A request that said nothing of a body goes on without a word of it.
            Some(0) if request.fields.of(Known::ContentLength).next().is_none() => Form::Length,
            Some(length) => {
                out.extend_from_slice(b"content-length: ");
                push_decimal(out, length);
                out.extend_from_slice(b"\r\n");
                Form::Length
            }
        };
        out.extend_from_slice(b"\r\n");
        form
    }
}

fn passing(response: &Response, upgraded: bool) -> Passing<'_> {
    Passing { response, upgraded }
}

/// Tells the client to send the body that it holds back (RFC 9110 §10.1.1).
async fn go_on(client: &mut Client<'_>) -> Result<(), ForwardError> {
    let status = Status {
        code: 100,
        reason: b"Continue",
    };
    let informed = client.inform(status, &()).await;
    informed.map_err(|_| ForwardError::Gone)
}
