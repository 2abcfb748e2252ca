//! HTTP/2 with prior knowledge: a client, and upstreams that answer what the test says. hyper speaks it, frame by frame as the test gives them.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

/// A body that the test fills. It ends when the other end is dropped, or breaks off with an error.
pub struct Frames(mpsc::UnboundedReceiver<io::Result<Frame<Bytes>>>);

/// The end that fills.
#[derive(Clone)]
pub struct Filler(mpsc::UnboundedSender<io::Result<Frame<Bytes>>>);

/// Both ends.
pub fn frames() -> (Filler, Frames) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Filler(sender), Frames(receiver))
}

/// A body that is at hand.
pub fn whole(body: &[u8]) -> Frames {
    let (filler, frames) = frames();
    if !body.is_empty() {
        filler.data(body);
    }
    frames
}

impl Filler {
    pub fn data(&self, data: &[u8]) {
        let data = Bytes::copy_from_slice(data);
        self.frame(Frame::data(data));
    }

    pub fn trailer(&self, name: &'static str, value: &str) {
        let mut map = HeaderMap::new();
        map.insert(name, value.parse().unwrap());
        self.frame(Frame::trailers(map));
    }

    pub fn frame(&self, frame: Frame<Bytes>) {
        self.0.send(Ok(frame)).ok();
    }

    /// Breaks the body off.
    pub fn fail(&self) {
        self.0.send(Err(io::ErrorKind::Other.into())).ok();
    }

    /// Waits until nobody reads it any more.
    pub async fn gone(&self) {
        self.0.closed().await;
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(context)
    }
}

/// Runs a test's future; a hang is an error.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let bounded = async { tokio::time::timeout(Duration::from_mins(1), future).await };
    runtime.block_on(bounded).unwrap()
}

/// A connection to the proxy.
pub async fn connect(address: SocketAddr) -> SendRequest<Frames> {
    over(TcpStream::connect(address).await.unwrap()).await
}

/// A connection over a stream that is there.
pub async fn over(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> SendRequest<Frames> {
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    sender
}

/// A request for `path`.
pub fn request(method: &str, path: &str, body: Frames) -> Request<Frames> {
    Request::builder()
        .method(method)
        .uri(format!("http://pointsman.example{path}"))
        .body(body)
        .unwrap()
}

/// The next bytes of a body.
pub async fn data(body: &mut Incoming) -> Bytes {
    body.frame().await.unwrap().unwrap().into_data().unwrap()
}

pub type Respond = Pin<Box<dyn Future<Output = Response<Frames>> + Send>>;

/// An endpoint. It lives as long as the test process.
pub fn upstream(
    respond: impl Fn(Request<Incoming>) -> Respond + Send + Sync + 'static,
) -> SocketAddr {
    serve(respond, None)
}

/// An endpoint over TLS.
pub fn upstream_over_tls(
    tls: TlsAcceptor,
    respond: impl Fn(Request<Incoming>) -> Respond + Send + Sync + 'static,
) -> SocketAddr {
    serve(respond, Some(tls))
}

fn serve(
    respond: impl Fn(Request<Incoming>) -> Respond + Send + Sync + 'static,
    tls: Option<TlsAcceptor>,
) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let respond = Arc::new(respond);
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let (respond, tls) = (Arc::clone(&respond), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve_connection(stream, respond).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve_connection(stream, respond).await;
                            }
                        }
                    }
                });
            }
        });
    });
    address
}

async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    respond: Arc<impl Fn(Request<Incoming>) -> Respond + Send + Sync + 'static>,
) {
    let service = service_fn(move |request| {
        let response = respond(request);
        async move { Ok::<_, io::Error>(response.await) }
    });
    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await
        .ok();
}

/// Answers with the request's body as it comes, trailers included.
pub fn echo(request: Request<Incoming>) -> Respond {
    Box::pin(async move {
        let (filler, frames) = frames();
        let mut incoming = request.into_body();
        tokio::spawn(async move {
            while let Some(Ok(frame)) = incoming.frame().await {
                filler.frame(frame);
            }
        });
        Response::new(frames)
    })
}
