//! Wiring: from settings to a running server, and from a signal to a clean end.
//!
//! Start: policies compiled → ports bound → data directory locked, recovered, this start's origin synced → first snapshot published → workers
//! listen → ready. Stop: unready → `drain_delay` → no new connections, open ones finish → journal flushed and synced.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use socket2::Socket;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::admin::{self, Admin};
use crate::clock::{Clock, Stopwatch, SystemClock};
use crate::config::settings::{Data, Settings, Tls};
use crate::config::watch::Watch;
use crate::experiment::Experiment;
use crate::learner::{Learner, Published};
use crate::ledger::{self, Ledger, Opened, Retention};
use crate::proxy::router::Router;
use crate::proxy::tls::watch::Watch as CertificateWatch;
use crate::proxy::tls::{ClientCertificates, ServerFiles, ServerTls};
use crate::proxy::upstream::Endpoints;
use crate::proxy::worker::{self, Phase, Role, Shared};
use crate::proxy::{self, health};
use crate::reload::{Reloader, Reloading, Reloads, channel_of_reloads};
use crate::secret;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::observe::Telemetry;

/// How long requests to the admin listener may take at the end.
const ADMIN_PATIENCE: Duration = Duration::from_secs(2);

/// Samples pile up in histograms until they are folded.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

/// What a server is started with: checked, so that only the machine can still refuse.
#[derive(Debug)]
pub struct Plan {
    /// The settings.
    pub settings: Settings,
    /// The folder of policy files.
    pub policies: PathBuf,
    /// The compiled policies, most specific first.
    pub experiments: Vec<Arc<Experiment>>,
}

/// Runs a server until it is told to stop. An error means that it never served, or did not end cleanly.
pub fn run(plan: Plan) -> Result<()> {
    let ports = Ports::bind(&plan.settings)?;
    let (app, parts) = App::recover(plan)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("could not start a runtime")?;
    runtime.block_on(app.serve(ports, parts))
}

/// The ports, bound before the data directory is touched, so that a port in use costs nothing.
struct Ports {
    proxy: Vec<Socket>,
    api: Vec<Socket>,
    admin: std::net::TcpListener,
}

impl Ports {
    fn bind(settings: &Settings) -> Result<Self> {
        let workers = workers(settings);
        let all = |address: SocketAddr| -> Result<Vec<Socket>> {
            // With SO_REUSEPORT another Pointsman could take the port as well, and clients would reach either.
            drop(std::net::TcpListener::bind(address).with_context(|| cannot_listen(address))?);
            (0..workers)
                .map(|_| worker::bind(address).with_context(|| cannot_listen(address)))
                .collect()
        };
        let admin = settings.listen.admin;
        Ok(Self {
            proxy: all(settings.listen.proxy)?,
            api: settings.listen.api.map_or_else(|| Ok(Vec::new()), all)?,
            admin: std::net::TcpListener::bind(admin).with_context(|| cannot_listen(admin))?,
        })
    }

    /// One set of sockets a worker.
    fn by_worker(proxy: Vec<Socket>, api: Vec<Socket>) -> Vec<Vec<(Socket, Role)>> {
        let role = if api.is_empty() {
            Role::Everything
        } else {
            Role::Requests
        };
        let mut sets: Vec<Vec<_>> = proxy
            .into_iter()
            .map(|socket| vec![(socket, role)])
            .collect();
        for (set, socket) in sets.iter_mut().zip(api) {
            set.push((socket, Role::Api));
        }
        sets
    }
}

fn cannot_listen(address: SocketAddr) -> String {
    format!("could not listen on {address} (change it in [listen], or stop what uses it)")
}

fn workers(settings: &Settings) -> usize {
    match settings.workers.count {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        count => count,
    }
}

/// A server whose state is recovered and whose first snapshot is published.
#[derive(Debug)]
struct App {
    shared: Arc<Shared>,
    phase: watch::Sender<Phase>,
    learner: Arc<Learner<Router>>,
    reloads: Arc<Reloads>,
    ledger: Ledger,
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
fn tell_recovery(opened: &Opened) {
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

/// What only the reloader needs.
#[derive(Debug)]
struct ReloadParts {
    policies: PathBuf,
    endpoints: Endpoints,
}

/// The TLS of the listeners, from the files that the settings name.
fn server_tls(tls: &Tls) -> Result<Arc<ServerTls>, proxy::tls::Error> {
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
}

impl App {
    fn recover(plan: Plan) -> Result<(Self, ReloadParts)> {
        let Plan {
            settings,
            policies,
            experiments,
        } = plan;
        // Before the data directory is touched: wrong files cost nothing.
        let tls = settings.tls.as_ref().map(server_tls).transpose()?;
        let data = &settings.data.dir;
        std::fs::create_dir_all(data)
            .with_context(|| format!("could not make the data directory {}", data.display()))?;
        let secret = secret::load_or_create(&settings.auth.secret_path(data))?;
        if let Some(warning) = &secret.warning {
            tracing::warn!("{warning}");
        }
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let metrics = Arc::new(Metrics::new());
        let telemetry = Arc::new(Telemetry::new(Arc::clone(&metrics)));
        let (ledger, opened) = Ledger::start(&ledger::Config {
            data: data.clone(),
            durability: settings.data.fsync,
            retention: retention(&settings.data),
            workers: workers(&settings) as u16,
            queue: settings.limits.journal_queue,
            limits: settings.limits.remembered(),
            keys: secret.secret.decision_keys(),
            clock: Arc::clone(&clock),
            observer: Arc::clone(&telemetry) as Arc<dyn ledger::Observer>,
        })?;
        tell_recovery(&opened);
        let endpoints = Endpoints::default();
        let router = Arc::new(Router::build(&experiments, &endpoints, &metrics)?);
        let reloads = Arc::new(Reloads::started(&experiments, clock.now(), &metrics));
        let hook = {
            let telemetry = Arc::clone(&telemetry);
            move |published: &Published<Router>, changed: &[usize], lag| {
                telemetry.published(published, changed, lag);
            }
        };
        let learner = Arc::new(Learner::start(
            ledger.handle(),
            experiments,
            router,
            Box::new(hook),
        )?);
        let (phase, watched) = watch::channel(Phase::Serving);
        let shared = Arc::new(Shared {
            keys: secret.secret.decision_keys(),
            draw_keys: secret.secret.draw_keys(),
            origin: opened.origin,
            published: learner.published(),
            ledger: ledger.handle(),
            telemetry,
            metrics,
            clock,
            connections: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            started: Stopwatch::start(),
            tls,
            phase: watched,
            settings,
        });
        Ok((
            Self {
                shared,
                phase,
                learner,
                reloads,
                ledger,
            },
            ReloadParts {
                policies,
                endpoints,
            },
        ))
    }

    async fn serve(self, ports: Ports, parts: ReloadParts) -> Result<()> {
        let mut signals = Signals::new()?;
        let policies = parts.policies.clone();
        let (reloader, reloading) = self.start_reloader(parts)?;
        let watch = Watch::start(&policies, &self.shared.settings, {
            let (reloader, reloads) = (reloader.clone(), Arc::clone(&self.reloads));
            move |fingerprint| {
                if reloads.is_news(fingerprint) {
                    reloader.notify();
                }
            }
        })?;
        let poll = Duration::from_millis(self.shared.settings.reload.poll);
        let certificates = self
            .shared
            .tls
            .as_ref()
            .map(|tls| CertificateWatch::start(Arc::clone(tls), poll, &self.shared.metrics));
        let certificates = certificates.transpose()?;
        let (stop_admin, stopped) = watch::channel(false);
        ports.admin.set_nonblocking(true)?;
        let admin_listener = TcpListener::from_std(ports.admin)?;
        let admin_state = Admin {
            shared: Arc::clone(&self.shared),
            reloads: Arc::clone(&self.reloads),
            reloader: reloader.clone(),
            operator: self.learner.operator(),
        };
        let admin = admin::serve(admin_state, admin_listener, stopped);
        let workers = self.start_workers(Ports::by_worker(ports.proxy, ports.api))?;
        let health = self.start_health()?;
        self.announce();
        let life = async {
            self.until_told_to_stop(&mut signals, &reloader).await;
            self.drain(&mut signals, workers).await
        };
        let mut admin = std::pin::pin!(admin);
        let drained = tokio::select! {
            drained = life => drained,
            ended = &mut admin => Err(anyhow!("the admin listener ended: {ended:?}")),
        };
        stop_admin.send_replace(true);
        if tokio::time::timeout(ADMIN_PATIENCE, &mut admin)
            .await
            .is_err()
        {
            tracing::debug!("requests to the admin listener are cut");
        }
        drop((watch, certificates));
        if health.join().is_err() {
            tracing::error!("the health thread panicked");
        }
        reloader.stop();
        self.end(reloading);
        drained
    }

    /// Ends what changes the state, then the thread that keeps it: nothing is recorded after that.
    fn end(self, reloading: JoinHandle<()>) {
        if reloading.join().is_err() {
            tracing::error!("the reload thread panicked");
        }
        drop(self.learner);
        self.ledger.shutdown();
        tracing::info!("stopped: everything is written");
    }

    fn start_reloader(&self, parts: ReloadParts) -> Result<(Reloader, JoinHandle<()>)> {
        let (reloader, requests) = channel_of_reloads();
        let reloading = Reloading {
            policies: parts.policies,
            settings: self.shared.settings.clone(),
            endpoints: parts.endpoints,
            metrics: Arc::clone(&self.shared.metrics),
            learner: Arc::clone(&self.learner),
            reloads: Arc::clone(&self.reloads),
            clock: Arc::clone(&self.shared.clock),
        };
        let thread = std::thread::Builder::new()
            .name("reload".into())
            .spawn(move || reloading.run(&requests))
            .context("could not start the reload thread")?;
        Ok((reloader, thread))
    }

    fn start_workers(
        &self,
        sets: Vec<Vec<(Socket, Role)>>,
    ) -> Result<Vec<JoinHandle<std::io::Result<()>>>> {
        // All listen before any accepts, and before the server is ready.
        for (socket, _) in sets.iter().flatten() {
            socket.listen(worker::BACKLOG).context("could not listen")?;
        }
        let start = |(index, sockets): (usize, Vec<(Socket, Role)>)| {
            let shared = Arc::clone(&self.shared);
            std::thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || worker::run(shared, index as u16, sockets))
                .context("could not start a worker thread")
        };
        sets.into_iter().enumerate().map(start).collect()
    }

    fn start_health(&self) -> Result<JoinHandle<std::io::Result<()>>> {
        let (shared, availability) = (Arc::clone(&self.shared), self.learner.availability());
        std::thread::Builder::new()
            .name("health".into())
            .spawn(move || health::run(shared, &availability))
            .context("could not start the health thread")
    }

    fn announce(&self) {
        let listen = &self.shared.settings.listen;
        let experiments = self.shared.published.load().experiments.len();
        tracing::info!(proxy = %listen.proxy, admin = %listen.admin, experiments, "ready");
    }

    async fn until_told_to_stop(&self, signals: &mut Signals, reloader: &Reloader) {
        let mut upkeep = tokio::time::interval(METRICS_UPKEEP);
        loop {
            tokio::select! {
                _ = signals.terminate.recv() => return,
                _ = signals.interrupt.recv() => return,
                _ = signals.reload.recv() => reloader.notify(),
                _ = upkeep.tick() => self.shared.metrics.upkeep(),
            }
        }
    }

    /// Unready first, then no new connections, then the end of those that are open. Another signal skips the waiting.
    async fn drain(
        &self,
        signals: &mut Signals,
        workers: Vec<JoinHandle<std::io::Result<()>>>,
    ) -> Result<()> {
        let delay = Duration::from_millis(self.shared.settings.shutdown.drain_delay);
        tracing::info!(?delay, "stopping: unready, still serving");
        self.phase.send_replace(Phase::Unready);
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = signals.stop() => {}
        }
        tracing::info!("draining: no new connections");
        self.phase.send_replace(Phase::Draining);
        let mut joined = tokio::task::spawn_blocking(move || {
            workers.into_iter().try_for_each(|worker| -> Result<()> {
                worker
                    .join()
                    .map_err(|_| anyhow!("a worker panicked"))?
                    .map_err(Into::into)
            })
        });
        tokio::select! {
            joined = &mut joined => return joined?,
            () = signals.stop() => {}
        }
        // Workers end first, so that nothing is recorded after the ledger has ended.
        tracing::warn!("a second signal: open connections are cut");
        self.phase.send_replace(Phase::Cut);
        joined.await??;
        Err(anyhow!(
            "stopped by a second signal before every request had finished"
        ))
    }
}

/// The signals that a server listens to.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let listen = |kind| signal(kind).context("could not listen to signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            reload: listen(SignalKind::hangup())?,
        })
    }

    /// The next SIGTERM or SIGINT.
    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
