//! Stands in for the model servers: answers from a table of what the real models predicted.
//!
//! It speaks like them (`POST /v1/stars` with JSON lines), but takes review ids (and blanks after them) for texts, since the table has no texts. So a
//! comparison of policies costs microseconds a request where BERT would cost tens of milliseconds, and needs no download.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::predict::Table;

/// One variant's stars by review id.
type Answers = HashMap<String, u8>;

/// The running stand-ins, on a thread of their own. Dropping it ends them.
#[derive(Debug)]
pub struct StandIns {
    endpoints: BTreeMap<String, Vec<String>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl StandIns {
    /// Starts one server for every variant of `table`, on free ports of this machine.
    ///
    /// # Errors
    /// When they cannot be started.
    pub fn start(table: &Table) -> Result<Self> {
        let variants: Vec<(String, Answers)> = table
            .variants
            .iter()
            .enumerate()
            .map(|(column, name)| {
                let answers = table
                    .rows
                    .iter()
                    .map(|row| (row.review_id.clone(), row.answers[column].stars));
                (name.clone(), answers.collect())
            })
            .collect();
        let (ready, started) = channel();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("stand-ins".to_owned())
            .spawn(move || run(variants, &ready, stopped))
            .context("cannot start a thread for the stand-in model servers")?;
        let endpoints = started
            .recv()
            .map_err(|_| anyhow!("the stand-in model servers ended at once"))??;
        Ok(Self {
            endpoints,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// The addresses by variant.
    pub fn endpoints(&self) -> &BTreeMap<String, Vec<String>> {
        &self.endpoints
    }
}

impl Drop for StandIns {
    fn drop(&mut self) {
        // Either way the thread sees that the sender is gone.
        drop(self.stop.take());
        self.thread.take().map(JoinHandle::join);
    }
}

type Endpoints = BTreeMap<String, Vec<String>>;

fn run(
    variants: Vec<(String, Answers)>,
    ready: &Sender<Result<Endpoints>>,
    stopped: oneshot::Receiver<()>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            drop(ready.send(Err(error.into())));
            return;
        }
    };
    runtime.block_on(async {
        let mut servers = JoinSet::new();
        let endpoints = listen(variants, &mut servers).await;
        // Who started us waits for this.
        drop(ready.send(endpoints));
        // An error is the sender's end, which is as good a signal.
        stopped.await.ok();
        servers.shutdown().await;
    });
}

async fn listen(variants: Vec<(String, Answers)>, servers: &mut JoinSet<()>) -> Result<Endpoints> {
    let mut endpoints = Endpoints::new();
    for (name, answers) in variants {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("no free port on 127.0.0.1")?;
        endpoints.insert(name, vec![format!("http://{}", listener.local_addr()?)]);
        servers.spawn(serve(listener, Arc::new(answers)));
    }
    Ok(endpoints)
}

async fn serve(listener: TcpListener, answers: Arc<Answers>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        if stream.set_nodelay(true).is_err() {
            continue;
        }
        let answers = Arc::clone(&answers);
        let service = service_fn(move |request| {
            let answers = Arc::clone(&answers);
            async move { answer(&answers, request).await }
        });
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        // A connection that fails has lost its client: there is nobody to tell.
        connections.spawn(async move { connection.await.ok() });
    }
}

#[derive(Deserialize)]
struct Question {
    features: [String; 1],
}

async fn answer(
    answers: &Answers,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let stars = match request.into_body().collect().await {
        Ok(body) => serde_json::from_slice::<Question>(&body.to_bytes())
            .ok()
            .and_then(|question| answers.get(question.features[0].trim_end()).copied()),
        Err(_) => None,
    };
    let mut response = match stars {
        Some(stars) => Response::new(Full::new(Bytes::from(format!(
            "{{\"predicted_label\": {stars}}}\n"
        )))),
        None => Response::new(Full::new(Bytes::from_static(
            b"{\"error\": \"not a review of the table\"}\n",
        ))),
    };
    if stars.is_none() {
        *response.status_mut() = StatusCode::BAD_REQUEST;
    }
    Ok(response)
}
