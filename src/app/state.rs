//! What a server serves from, and what it remembers: made anew from the data directory, or by a successor from what it can read of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use anyhow::{Context, Result};
use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::Plan;
use super::ports::workers;
use crate::clock::{Clock, Stopwatch, SystemClock};
use crate::config::settings::{Data, Settings, Tls};
use crate::experiment::Experiment;
use crate::learner::{Hook, Learner, Published};
use crate::ledger::{self, Handle, Ledger, Opened, Retention};
use crate::proxy;
use crate::proxy::pass_through::PassThrough;
use crate::proxy::router::Router;
use crate::proxy::tls::{ClientCertificates, ServerFiles, ServerTls};
use crate::proxy::upstream::Endpoints;
use crate::proxy::worker::{Phase, Shared};
use crate::reload::Reloads;
use crate::secret::{self, Secret};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::observe::Telemetry;

/// What serves requests.
#[derive(Debug)]
pub(super) struct State {
    pub(super) shared: Arc<Shared>,
    pub(super) phase: watch::Sender<Phase>,
    pub(super) reloads: Arc<Reloads>,
    pub(super) policies: PathBuf,
    pub(super) endpoints: Arc<Endpoints>,
}

/// What records and learns, and owns the data directory.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) ledger: Ledger,
    pub(super) learner: Arc<Learner<Router>>,
}

impl Core {
    /// Ends what changes the state, then the thread that keeps it: nothing is recorded after that, and the data directory is free.
    pub(super) fn end(self) {
        drop(self.learner);
        self.ledger.shutdown();
        tracing::info!("stopped: everything is written");
    }
}

/// What is made from the settings alone.
#[derive(Debug)]
pub(super) struct Base {
    settings: Settings,
    tls: Option<Arc<ServerTls>>,
    secret: Secret,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    telemetry: Arc<Telemetry>,
    endpoints: Arc<Endpoints>,
    default: Option<PassThrough>,
}

impl Base {
    pub(super) fn new(
        settings: Settings,
        tls: Option<Arc<ServerTls>>,
        secret: Secret,
    ) -> Result<Self> {
        let metrics = Arc::new(Metrics::new());
        let endpoints = Arc::default();
        let default = settings.default_upstream.as_ref();
        let default = default.map(|upstream| PassThrough::build(upstream, &endpoints, &metrics));
        Ok(Self {
            default: default.transpose().context("[default] in the settings")?,
            settings,
            tls,
            secret,
            clock: Arc::new(SystemClock),
            telemetry: Arc::new(Telemetry::new(Arc::clone(&metrics))),
            metrics,
            endpoints,
        })
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    pub(super) fn telemetry(&self) -> &Arc<Telemetry> {
        &self.telemetry
    }

    pub(super) fn router(&self, experiments: &[Arc<Experiment>]) -> Result<Arc<Router>> {
        let router = Router::build(experiments, &self.endpoints, &self.metrics)?;
        Ok(Arc::new(router))
    }

    pub(super) fn ledger(&self) -> ledger::Config {
        let settings = &self.settings;
        ledger::Config {
            data: settings.data.dir.clone(),
            durability: settings.data.fsync,
            retention: retention(&settings.data),
            workers: workers(settings) as u16,
            queue: settings.limits.journal_queue,
            limits: settings.limits.remembered(),
            keys: self.secret.decision_keys(),
            clock: Arc::clone(&self.clock),
            observer: Arc::clone(&self.telemetry) as Arc<dyn ledger::Observer>,
        }
    }

    /// A server that serves what is `published`, and records with `ledger`.
    pub(super) fn serving(
        self,
        (policies, experiments): (PathBuf, &[Arc<Experiment>]),
        published: Arc<ArcSwap<Published<Router>>>,
        ledger: Handle,
        origin: u64,
    ) -> State {
        let reloads = Reloads::started(experiments, self.clock.now(), &self.metrics);
        let (phase, watched) = watch::channel(Phase::Serving);
        let shared = Shared {
            keys: self.secret.decision_keys(),
            draw_keys: self.secret.draw_keys(),
            origin,
            published,
            ledger,
            telemetry: self.telemetry,
            metrics: self.metrics,
            clock: self.clock,
            connections: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            buffered: AtomicUsize::new(0),
            started: Stopwatch::start(),
            tls: self.tls,
            default: self.default,
            phase: watched,
            settings: self.settings,
        };
        State {
            shared: Arc::new(shared),
            phase,
            reloads: Arc::new(reloads),
            policies,
            endpoints: self.endpoints,
        }
    }
}

/// A server that goes on where the journal ends: its state is recovered, and its first snapshot published.
pub(super) fn recover(plan: Plan) -> Result<(State, Core)> {
    // Before the data directory is touched: wrong files cost nothing.
    let tls = server_tls(&plan.settings)?;
    let data = &plan.settings.data.dir;
    std::fs::create_dir_all(data)
        .with_context(|| format!("could not make the data directory {}", data.display()))?;
    let secret = secret::load_or_create(&plan.settings.auth.secret_path(data))?;
    if let Some(warning) = &secret.warning {
        tracing::warn!("{warning}");
    }
    let base = Base::new(plan.settings, tls, secret.secret)?;
    let (ledger, opened) = Ledger::start(&base.ledger())?;
    tell_recovery(&opened);
    let router = base.router(&plan.experiments)?;
    let learner = Learner::start(
        ledger.handle(),
        plan.experiments.clone(),
        router,
        hook(base.telemetry()),
    )?;
    let policies = (plan.policies, &plan.experiments[..]);
    let state = base.serving(
        policies,
        learner.published(),
        ledger.handle(),
        opened.origin,
    );
    let learner = Arc::new(learner);
    Ok((state, Core { ledger, learner }))
}

/// Tells metrics what is published.
pub(super) fn hook(telemetry: &Arc<Telemetry>) -> Hook<Router> {
    let telemetry = Arc::clone(telemetry);
    Box::new(move |published, changed, lag| telemetry.published(published, changed, lag))
}

/// When segments are finished, and how long they are kept.
fn retention(data: &Data) -> Retention {
    Retention {
        segment_bytes: data.segment_bytes,
        segment_age: data.segment_age,
        checkpoint_every: data.checkpoint_every,
        age: data.retention,
        bytes: (data.retention_bytes > 0).then_some(data.retention_bytes),
    }
}

/// Says what recovery had to do.
pub(super) fn tell_recovery(opened: &Opened) {
    let report = &opened.report;
    tracing::info!(
        checkpoint = opened.checkpoint,
        events = report.events,
        groups = report.groups,
        segments = report.segments,
        "journal recovered"
    );
    if report.cut_bytes > 0 {
        tracing::warn!(
            bytes = report.cut_bytes,
            "the journal's torn tail was cut: nothing of it had been acknowledged"
        );
    }
    for damage in &report.damaged {
        tracing::error!(
            ?damage,
            "damaged bytes in the journal were put into quarantine; what follows them is kept"
        );
    }
}

/// The TLS of the listeners, from the files that the settings name.
pub(super) fn server_tls(settings: &Settings) -> Result<Option<Arc<ServerTls>>, proxy::tls::Error> {
    let load = |tls: &Tls| {
        let clients = match (&tls.client_ca, tls.client_required) {
            (None, _) => ClientCertificates::Ignored,
            (Some(authorities), true) => ClientCertificates::Required(authorities.clone()),
            (Some(authorities), false) => ClientCertificates::Optional(authorities.clone()),
        };
        let files = ServerFiles {
            certificate: tls.certificate.clone(),
            key: tls.key.clone(),
            clients,
        };
        ServerTls::load(files).map(Arc::new)
    };
    settings.tls.as_ref().map(load).transpose()
}
