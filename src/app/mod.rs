//! Wiring: from settings to a running server, and from a signal to a clean end.
//!
//! Start: policies compiled → ports bound → data directory locked, recovered, this start's origin synced → first snapshot published → workers
//! listen → ready. Stop: unready → `drain_delay` → no new connections, open ones finish → journal flushed and synced.
//!
//! A successor begins with the sockets of the process that it replaces: policies compiled → sockets passed → journal read → workers
//! accept → the other drains and lets go of the data directory → locked, recovered → ready. The other skips `drain_delay`.
//!
//! Not here: what the two say to each other (`handover`).

mod ports;
mod services;
mod signals;
mod state;
mod succession;
mod successor;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use socket2::Socket;
use tokio::sync::watch;
use tokio::task::JoinHandle as Task;

use crate::admin::{self, Admin, Controls};
use crate::config::settings::Settings;
use crate::experiment::Experiment;
use crate::handover::{Listeners, Notifier, Offered};
use crate::proxy::tls::watch::{ServerCertificate, Watch as CertificateWatch};
use crate::proxy::worker::{self, Phase, Role};
use ports::{Ports, workers};
use services::Services;
use signals::{Signals, Told};
use state::{Core, State};
use successor::Waiting;

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
    /// Sockets that the process was started with.
    pub inherited: Listeners,
    /// Whether to take the place of a running process, if there is one.
    pub take_over: bool,
}

/// Runs a server until it is told to stop, or replaced. An error means that it never served, or did not end cleanly.
pub fn run(mut plan: Plan) -> Result<()> {
    let settings = &plan.settings;
    let taken = if plan.take_over {
        successor::connect(&settings.take_over.socket_path(&settings.data.dir))?
    } else {
        None
    };
    let inherited = std::mem::take(&mut plan.inherited);
    let (ports, state, start) = if let Some((client, listeners)) = taken {
        let ports = Ports::complete(listeners, settings)?;
        let (state, waiting) = successor::prepare(plan, client)?;
        (ports, state, Start::Successor(Box::new(waiting)))
    } else {
        let ports = Ports::complete(inherited, settings)?;
        let (state, core) = state::recover(plan)?;
        (ports, state, Start::First(core))
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("could not start a runtime")?;
    let app = App {
        state,
        notifier: notifier(),
        controls: Arc::default(),
    };
    let ended = runtime.block_on(app.serve(ports, start));
    // A successor that was stopped twice still waits for the data directory.
    runtime.shutdown_background();
    ended
}

fn notifier() -> Notifier {
    Notifier::from_environment().unwrap_or_else(|error| {
        tracing::warn!(%error, "the service manager cannot be told how it is");
        Notifier::default()
    })
}

/// How a server starts.
#[derive(Debug)]
enum Start {
    /// With everything.
    First(Core),
    /// Without the data directory.
    Successor(Box<Waiting>),
}

/// The threads that serve requests.
type Workers = Vec<JoinHandle<std::io::Result<()>>>;

/// What has to be ended after the last request.
#[derive(Debug)]
struct Remains {
    core: Core,
    services: Services,
    /// Who is told when the data directory is free.
    successor: Option<Offered>,
}

/// A server that serves from the beginning of [`App::live`].
#[derive(Debug)]
struct App {
    state: State,
    notifier: Notifier,
    controls: Arc<OnceLock<Controls>>,
}

impl App {
    async fn serve(self, mut ports: Ports, start: Start) -> Result<()> {
        let mut signals = Signals::new()?;
        let shared = &self.state.shared;
        let certificates = self.watch_certificates()?;
        let for_successor = ports.share()?;
        let (proxy, admin) = ports.addresses();
        let (stop_admin, stopped) = watch::channel(false);
        let admin_state = Admin {
            shared: Arc::clone(shared),
            reloads: Arc::clone(&self.state.reloads),
            controls: Arc::clone(&self.controls),
        };
        let listener = ports.admin()?;
        let mut admin_runs = true;
        let mut admin_serves = std::pin::pin!(admin::serve(admin_state, listener, stopped));
        let experiments = shared.published.load().experiments.len();
        tracing::info!(?proxy, ?admin, experiments, "starting");
        let (lived, remains) = {
            let life = self.live(start, ports, for_successor, &mut signals, &stop_admin);
            let mut life = std::pin::pin!(life);
            loop {
                tokio::select! {
                    lived = &mut life => break lived,
                    () = self.keep_alive() => {}
                    ended = &mut admin_serves, if admin_runs => {
                        admin_runs = false;
                        if !*stop_admin.borrow() {
                            break (Err(anyhow!("the admin listener ended: {ended:?}")), None);
                        }
                    }
                }
            }
        };
        stop_admin.send_replace(true);
        if admin_runs
            && tokio::time::timeout(ADMIN_PATIENCE, admin_serves)
                .await
                .is_err()
        {
            tracing::debug!("requests to the admin listener are cut");
        }
        drop(certificates);
        if let Some(remains) = remains {
            remains.end();
        }
        lived
    }

    /// Watches the server's own certificate and the files that TLS to endpoints needs.
    fn watch_certificates(&self) -> Result<Vec<CertificateWatch>> {
        let shared = &self.state.shared;
        let poll = Duration::from_millis(shared.settings.reload.poll);
        let endpoints = CertificateWatch::start(Arc::clone(&self.state.endpoints), poll)?;
        let own = shared.tls.as_ref().map(|tls| {
            let certificate = ServerCertificate::new(Arc::clone(tls), &shared.metrics);
            CertificateWatch::start(certificate, poll)
        });
        Ok(own.transpose()?.into_iter().chain([endpoints]).collect())
    }

    /// Serves until it is told to stop and every request has finished.
    async fn live(
        &self,
        start: Start,
        ports: Ports,
        for_successor: Listeners,
        signals: &mut Signals,
        stop_admin: &watch::Sender<bool>,
    ) -> (Result<()>, Option<Remains>) {
        let succeeds = matches!(start, Start::Successor(_));
        let begun = self.begin(start, ports, for_successor, signals).await;
        let (core, mut services, workers) = match begun {
            Ok(begun) => begun,
            Err(error) => return (Err(error), None),
        };
        if succeeds {
            self.notifier.took_over();
        } else {
            self.notifier.ready();
        }
        tracing::info!("ready");
        let successor = self.until_told_to_stop(signals, &mut services).await;
        services.close();
        let delay = if successor.is_some() {
            tracing::info!("a successor accepts connections");
            self.notifier
                .status("replaced by a successor, finishing requests");
            stop_admin.send_replace(true);
            Duration::ZERO
        } else {
            self.notifier.stopping();
            Duration::from_millis(self.state.shared.settings.shutdown.drain_delay)
        };
        let drained = self.drain(delay, signals, workers).await;
        let remains = Remains {
            core,
            services,
            successor,
        };
        (drained, Some(remains))
    }

    /// Serves, and has all that it takes to go on.
    async fn begin(
        &self,
        start: Start,
        ports: Ports,
        for_successor: Listeners,
        signals: &mut Signals,
    ) -> Result<(Core, Services, Workers)> {
        let start_services =
            |core: &Core| Services::start(&self.state, core, for_successor, &self.controls);
        let waiting = match start {
            Start::First(core) => {
                let services = start_services(&core)?;
                let workers = self.start_workers(ports)?;
                return Ok((core, services, workers));
            }
            Start::Successor(waiting) => waiting,
        };
        let (core, workers) = self.succeed(*waiting, ports, signals).await?;
        match start_services(&core) {
            Ok(services) => {
                // Whatever has changed meanwhile, and whoever has asked for it.
                services.reloader.notify();
                Ok((core, services, workers))
            }
            Err(error) => {
                let drained = self.drain(Duration::ZERO, signals, workers).await;
                core.end();
                Err(drained.err().unwrap_or(error))
            }
        }
    }

    /// Serves by what another process has journalled, until the data directory is this one's.
    async fn succeed(
        &self,
        waiting: Waiting,
        ports: Ports,
        signals: &mut Signals,
    ) -> Result<(Core, Workers)> {
        let workers = self.start_workers(ports)?;
        waiting.accepting()?;
        self.notifier.succeeds();
        self.notifier
            .status("deciding, waiting for the data directory");
        tracing::info!("accepting connections; waiting for the data directory");
        let shared = Arc::clone(&self.state.shared);
        let mut opening = tokio::task::spawn_blocking(move || waiting.open(&shared));
        let opened = loop {
            tokio::select! {
                opened = &mut opening => break opened?,
                signal = signals.next() => match signal {
                    Told::Reload => self.notifier.reloading(),
                    Told::Stop => {
                        self.notifier.stopping();
                        return Err(self.give_up(opening, signals, workers).await);
                    }
                },
            }
        };
        match opened {
            Ok(core) => Ok((core, workers)),
            Err(error) => {
                tracing::error!("the data directory cannot be used: {error:#}");
                self.notifier.stopping();
                let drained = self.drain(Duration::ZERO, signals, workers).await;
                Err(drained.err().unwrap_or(error))
            }
        }
    }

    /// Stops before the data directory was this process's: what was decided is still to be written to it.
    async fn give_up(
        &self,
        opening: Task<Result<Core>>,
        signals: &mut Signals,
        workers: Workers,
    ) -> anyhow::Error {
        let delay = Duration::from_millis(self.state.shared.settings.shutdown.drain_delay);
        let drained = self.drain(delay, signals, workers).await;
        let told = anyhow!("stopped before the data directory was taken over");
        tokio::select! {
            opened = opening => match opened {
                Ok(Ok(core)) => {
                    core.end();
                    drained.err().unwrap_or(told)
                }
                Ok(Err(error)) => error,
                Err(error) => error.into(),
            },
            () = signals.stop() => told.context("a second signal: what was decided is lost"),
        }
    }

    fn start_workers(&self, ports: Ports) -> Result<Workers> {
        let sets = ports.by_worker(workers(&self.state.shared.settings))?;
        let start = |(index, sockets): (usize, Vec<(Socket, Role)>)| {
            let shared = Arc::clone(&self.state.shared);
            std::thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || worker::run(shared, index as u16, sockets))
                .context("could not start a worker thread")
        };
        sets.into_iter().enumerate().map(start).collect()
    }

    /// Says that the process is alive as often as the service manager wants to hear it. Never ends.
    async fn keep_alive(&self) {
        let Some(interval) = self.notifier.interval() else {
            return std::future::pending().await;
        };
        let mut ticks = tokio::time::interval(interval.max(Duration::from_millis(1)));
        loop {
            ticks.tick().await;
            self.notifier.alive();
        }
    }

    /// The successor, if it is the reason.
    async fn until_told_to_stop(
        &self,
        signals: &mut Signals,
        services: &mut Services,
    ) -> Option<Offered> {
        let mut upkeep = tokio::time::interval(METRICS_UPKEEP);
        let reloader = services.reloader.clone();
        let mut reload = std::pin::pin!(reloader.reload());
        let mut reloads = false;
        loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    Told::Stop => return None,
                    Told::Reload => {
                        self.notifier.reloading();
                        // One that runs may have read the files already.
                        reload.set(reloader.reload());
                        reloads = true;
                    }
                },
                offered = services.replaced() => return Some(offered),
                // The thread that reloads has told what came of it.
                _ = &mut reload, if reloads => {
                    reloads = false;
                    self.notifier.ready();
                }
                _ = upkeep.tick() => self.state.shared.metrics.upkeep(),
            }
        }
    }

    /// Unready first, then no new connections, then the end of those that are open. Another signal skips the waiting.
    async fn drain(&self, delay: Duration, signals: &mut Signals, workers: Workers) -> Result<()> {
        let phase = &self.state.phase;
        if !delay.is_zero() {
            tracing::info!(?delay, "stopping: unready, still serving");
            phase.send_replace(Phase::Unready);
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = signals.stop() => {}
            }
        }
        tracing::info!("draining: no new connections");
        phase.send_replace(Phase::Draining);
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
        phase.send_replace(Phase::Cut);
        joined.await??;
        Err(anyhow!(
            "stopped by a second signal before every request had finished"
        ))
    }
}

impl Remains {
    fn end(self) {
        self.services.end();
        self.core.end();
        if let Some(successor) = self.successor
            && let Err(error) = successor.released()
        {
            tracing::debug!(%error, "the successor does not wait any more");
        }
    }
}
