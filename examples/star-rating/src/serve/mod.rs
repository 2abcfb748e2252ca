//! `star-rating serve`: one variant behind HTTP/1.1, as a model container would be.
//!
//! `POST /v1/stars` rates reviews (see [`request`] for the two forms), `GET /ping` and `/health`
//! answer 200: the socket accepts connections only once the model is loaded. Sockets are served by
//! one asynchronous thread, the model runs on threads of its own behind a bounded [`queue`].
//! It speaks plain HTTP without compression; TLS, HTTP/2 and authentication are for what stands before it.

mod connection;
pub mod queue;
pub mod request;

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use crate::cache::CacheArgs;
use crate::clock::Stopwatch;
use crate::console::note;
use crate::model::Model;
use crate::threads;
use crate::variant::Variant;
use connection::Shared;
use queue::{Predictor, Queue};

/// Requests in flight get this long to finish after a signal to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a failed accept, which most often means too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Options of `star-rating serve`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The variant file to serve
    #[arg(long, value_name = "FILE")]
    variant: PathBuf,
    /// Layers and head made by `star-rating train --tune-layers` instead of the committed head
    #[arg(long, value_name = "FILE")]
    tuned: Option<PathBuf>,
    /// Address to listen on; port 0 takes any free port and prints it
    #[arg(long, default_value = "127.0.0.1:9001", value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// Threads that run the model
    #[arg(long, default_value_t = 1, value_name = "N")]
    threads: usize,
    /// Requests that may wait for a thread; beyond these the answer is 503
    #[arg(long, default_value_t = 64, value_name = "N")]
    queue: usize,
    #[command(flatten)]
    cache: CacheArgs,
}

/// Runs `star-rating serve` until SIGTERM or SIGINT.
///
/// # Errors
/// When the variant, its files or the address cannot be used; says what to do.
pub fn run(args: &Args) -> Result<()> {
    threads::one_per_sum()?;
    ensure!(args.threads > 0, "--threads must be at least 1");
    ensure!(args.queue > 0, "--queue must be at least 1");
    let variant = Variant::load(&args.variant)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?;
    let listener = runtime.block_on(bind(args.listen))?;
    let address = listener.local_addr()?;
    let cache = args.cache.cache();
    let watch = Stopwatch::start();
    let model = match &args.tuned {
        Some(tuned) => Model::load_tuned(&cache, &variant, tuned)?,
        None => Model::load(&cache, &variant)?,
    };
    // The first run touches all weights: let no client wait for that.
    model.predict("warm up")?;
    note(&format!(
        "serve: {} on http://{address} (loaded in {:.2} s)",
        variant.name,
        watch.elapsed().as_secs_f64()
    ));
    let predictor: Predictor = Arc::new(move |text| model.predict(text));
    let queue = Queue::start(&predictor, args.threads, args.queue)?;
    runtime.block_on(async {
        let stop = stop_signal()?;
        serve(listener, &variant.name, queue, stop).await
    })?;
    note(&format!("serve: {} stopped", variant.name));
    Ok(())
}

/// Listens on `address`.
///
/// # Errors
/// When the port is in use or not ours to take; says what to do.
pub async fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!(
            "cannot listen on {address}: choose another port with --listen, or stop what uses it"
        )
    })
}

/// Serves `listener` until `stop` is done, then lets running requests finish.
///
/// # Errors
/// When the threads of the queue cannot be ended.
pub async fn serve(
    listener: TcpListener,
    variant: &str,
    queue: Queue,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let shared = Arc::new(Shared {
        variant: variant.to_owned(),
        queue,
    });
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    tokio::pin!(stop);
    loop {
        let stream = tokio::select! {
            () = &mut stop => break,
            Some(_) = connections.join_next() => continue,
            stream = accept(&listener) => stream,
        };
        let shared = Arc::clone(&shared);
        let service = service_fn(move |request| {
            let shared = Arc::clone(&shared);
            async move { connection::answer(&shared, request).await }
        });
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection);
        // A connection that fails has lost its client: there is nobody to tell.
        connections.spawn(async move { connection.await.ok() });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown())
        .await
        .is_err()
    {
        note("serve: stopped with requests still running");
    }
    connections.shutdown().await;
    match Arc::try_unwrap(shared) {
        Ok(shared) => shared.queue.stop(),
        Err(_) => Ok(()),
    }
}

/// The next connection.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        // Answers are small: with Nagle's algorithm they would wait for the client's acknowledgement.
        match listener.accept().await.and_then(|(stream, _)| {
            stream.set_nodelay(true)?;
            Ok(stream)
        }) {
            Ok(stream) => return stream,
            Err(error) => {
                note(&format!("serve: cannot accept a connection: {error}"));
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn stop_signal() -> Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
