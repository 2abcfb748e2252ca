//! Changing the policies of a running server: prepare everything (may fail), then adopt it in one step.
//!
//! One thread does all reloads, one after the other, whoever asks: the file watcher, `SIGHUP`, or `POST /-/reload`. Requests go
//! on with what they have.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tokio::sync::oneshot;

use crate::clock::{Clock, Timestamp};
use crate::config::load::{self, Fingerprint};
use crate::config::settings::Settings;
use crate::experiment::Experiment;
use crate::learner::Learner;
use crate::proxy::router::Router;
use crate::proxy::upstream::Endpoints;
use crate::telemetry::metrics::Metrics;

/// The version of all policies together, or every error.
pub type Outcome = Result<String, Vec<String>>;

/// Where reloads are asked for. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reloader(Sender<Request>);

/// What the reload thread is asked.
#[derive(Debug)]
pub enum Request {
    /// To reload, and to tell somebody what came of it.
    Reload(Option<oneshot::Sender<Outcome>>),
    /// To end.
    Stop,
}

impl Reloader {
    /// Asks for a reload without waiting for it.
    pub fn notify(&self) {
        // The reloader is gone only when the server is stopping.
        if self.0.send(Request::Reload(None)).is_err() {
            tracing::debug!("a reload came too late");
        }
    }

    /// Ends the reload thread after what it is doing.
    pub fn stop(&self) {
        if self.0.send(Request::Stop).is_err() {
            tracing::debug!("the reload thread has ended before");
        }
    }

    /// Reloads; `None` when the server is stopping.
    pub async fn reload(&self) -> Option<Outcome> {
        let (reply, outcome) = oneshot::channel();
        self.0.send(Request::Reload(Some(reply))).ok()?;
        outcome.await.ok()
    }
}

/// How the last reload ended, for the admin API.
#[derive(Debug, Default)]
pub struct Reloads {
    last: Mutex<LastReload>,
    /// The files that the last reload looked at, whatever came of it.
    seen: Mutex<Fingerprint>,
}

/// One reload.
#[derive(Debug, Clone, Default, Serialize)]
pub struct LastReload {
    /// RFC 3339.
    pub at: String,
    /// Whether the policies that it found serve now.
    pub successful: bool,
    /// The version of all policies that serve now.
    pub version: String,
    /// Every error of the reload that failed.
    pub errors: Vec<String>,
}

impl Reloads {
    /// The policies that the server starts with count as a successful reload.
    pub fn started(experiments: &[Arc<Experiment>], now: Timestamp, metrics: &Metrics) -> Self {
        let reloads = Self::default();
        reloads.succeeded(version_of(experiments), now, metrics);
        reloads
    }

    fn succeeded(&self, version: String, now: Timestamp, metrics: &Metrics) {
        metrics
            .gauge("pointsman_config_last_reload_successful", &[])
            .set(1.0);
        metrics
            .gauge(
                "pointsman_config_last_reload_success_timestamp_seconds",
                &[],
            )
            .set(now.as_millis() as f64 / 1e3);
        self.set(LastReload {
            at: now.to_string(),
            successful: true,
            version,
            errors: Vec::new(),
        });
    }

    fn failed(&self, errors: Vec<String>, now: Timestamp, metrics: &Metrics) {
        metrics
            .gauge("pointsman_config_last_reload_successful", &[])
            .set(0.0);
        self.set(LastReload {
            at: now.to_string(),
            successful: false,
            version: self.last().version,
            errors,
        });
    }

    /// The last one.
    pub fn last(&self) -> LastReload {
        self.last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether the last reload looked at other files than these.
    pub fn is_news(&self, fingerprint: Fingerprint) -> bool {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) != fingerprint
    }

    fn set(&self, last: LastReload) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = last;
    }
}

/// What a reload needs.
#[derive(Debug)]
pub struct Reloading {
    /// The folder of policy files.
    pub policies: PathBuf,
    /// Limits for them.
    pub settings: Settings,
    /// Known endpoints.
    pub endpoints: Endpoints,
    /// Where handles are made.
    pub metrics: Arc<Metrics>,
    /// Who adopts.
    pub learner: Arc<Learner<Router>>,
    /// What to tell people.
    pub reloads: Arc<Reloads>,
    /// For timestamps.
    pub clock: Arc<dyn Clock>,
}

impl Reloading {
    /// Reloads whenever it is asked to, until it is told to stop. Call on a thread of its own.
    pub fn run(self, requests: &Receiver<Request>) {
        while let Ok(Request::Reload(first)) = requests.recv() {
            let mut waiting = vec![first];
            let mut stopped = false;
            // Whoever asked in the meantime is answered by the same reload.
            for request in requests.try_iter() {
                match request {
                    Request::Reload(reply) => waiting.push(reply),
                    Request::Stop => stopped = true,
                }
            }
            let outcome = self.reload();
            for reply in waiting.into_iter().flatten() {
                // The client may have left.
                drop(reply.send(outcome.clone()));
            }
            if stopped {
                return;
            }
        }
    }

    fn reload(&self) -> Outcome {
        // Taken before the files are read: a change in between is news to the next look.
        let fingerprint = load::fingerprint(&self.policies, &self.settings);
        *self
            .reloads
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = fingerprint;
        let outcome = self.prepare_and_adopt();
        self.tell(&outcome);
        outcome
    }

    fn prepare_and_adopt(&self) -> Outcome {
        let render = |problems: Vec<crate::document::Problem>| {
            problems.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let loaded =
            load::policies(std::slice::from_ref(&self.policies), &self.settings).map_err(render)?;
        let version = version_of(&loaded.experiments);
        if version == self.reloads.last().version {
            return Ok(version);
        }
        let router = Router::build(&loaded.experiments, &self.endpoints, &self.metrics)
            .map_err(|error| vec![error.to_string()])?;
        self.learner
            .adopt(loaded.experiments, Arc::new(router))
            .map_err(|error| {
                // The files are right; what failed may work at the next look.
                *self
                    .reloads
                    .seen
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner) = None;
                vec![error.to_string()]
            })?;
        Ok(version)
    }

    /// Log, metrics and admin API say the same.
    fn tell(&self, outcome: &Outcome) {
        let now = self.clock.now();
        let last = self.reloads.last();
        if last.successful && outcome.as_ref() == Ok(&last.version) {
            tracing::debug!("policies looked at: nothing has changed");
            return;
        }
        match outcome {
            Ok(version) => {
                tracing::info!(%version, "policies reloaded");
                self.reloads.succeeded(version.clone(), now, &self.metrics);
            }
            Err(errors) => {
                for error in errors {
                    tracing::error!(error, "policies not reloaded, the old ones go on serving");
                }
                self.reloads.failed(errors.clone(), now, &self.metrics);
            }
        }
        let word = if outcome.is_ok() {
            "success"
        } else {
            "failure"
        };
        self.metrics
            .counter("pointsman_config_reloads_total", &[("outcome", word)])
            .increment(1);
    }
}

/// A way to ask for reloads and the end at which [`Reloading::run`] hears them.
pub fn channel_of_reloads() -> (Reloader, Receiver<Request>) {
    let (sender, receiver) = channel();
    (Reloader(sender), receiver)
}

/// One name for a set of policies: the first 12 hex digits of the hash of their versions.
pub fn version_of(experiments: &[Arc<Experiment>]) -> String {
    let mut versions: Vec<String> = experiments
        .iter()
        .map(|experiment| format!("{} {}", experiment.name, experiment.version))
        .collect();
    versions.sort_unstable();
    blake3::hash(versions.join("\n").as_bytes()).to_hex()[..12].to_owned()
}
