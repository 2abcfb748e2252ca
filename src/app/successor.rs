//! A server that takes the place of another: it decides by what the other has journalled, and takes the data directory when it is free.
//!
//! Until it accepts, the other process is undisturbed: nothing is made or written, and every error ends this one alone.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use arc_swap::ArcSwap;

use super::Plan;
use super::state::{Base, Core, State, hook, server_tls, tell_recovery};
use crate::experiment::Experiment;
use crate::handover::{Client, Error, Listeners, Release};
use crate::learner::{Learner, provisional};
use crate::ledger::{Observer, Peeked, Prepared};
use crate::proxy::router::Router;
use crate::proxy::worker::Shared;
use crate::secret;

/// How long the old process may take to reload its policies and pass its sockets.
const PATIENCE: Duration = Duration::from_mins(1);

/// How often to say that the old process still has the data directory.
const REMIND: Duration = Duration::from_mins(1);

/// How long the lock may take to be free after its owner has gone.
const LOCK: Duration = Duration::from_secs(20);

/// A successor that serves, and waits for the data directory.
#[derive(Debug)]
pub(super) struct Waiting {
    client: Client,
    prepared: Prepared,
    experiments: Vec<Arc<Experiment>>,
    router: Arc<Router>,
}

/// Asks the process at `socket` for its sockets; nothing if there is none.
pub(super) fn connect(socket: &Path) -> Result<Option<(Client, Listeners)>> {
    match Client::connect(socket, PATIENCE) {
        Ok(taken) => Ok(Some(taken)),
        Err(error @ (Error::Nobody(_) | Error::Gone)) => {
            tracing::warn!("{error}; starting as if --take-over were not given");
            Ok(None)
        }
        Err(error) => Err(error).context("could not take over"),
    }
}

/// Reads what the old process has journalled, and prepares to serve by it.
pub(super) fn prepare(plan: Plan, client: Client) -> Result<(State, Waiting)> {
    let Plan {
        settings,
        policies,
        experiments,
        ..
    } = plan;
    let tls = server_tls(&settings)?;
    let secret = secret::load(&settings.auth.secret_path(&settings.data.dir))?;
    let (data, limits) = (settings.data.dir.clone(), settings.limits.remembered());
    let base = Base::new(settings, tls, secret)?;
    let now = base.clock().now();
    let peeked = Peeked::read(&data, limits, now).context("could not read the journal")?;
    if !peeked.are_in_force(&experiments) {
        bail!(
            "the running process serves other policies than {}: let it reload them first (or read its log if it has refused to); it goes on as before",
            policies.display()
        );
    }
    let prospects = peeked.prospects(&experiments)?;
    let router = base.router(&experiments)?;
    let published = provisional(&experiments, &prospects, Arc::clone(&router), now)
        .context("the journal does not say what to draw from")?;
    let all: Vec<usize> = (0..published.experiments.len()).collect();
    hook(base.telemetry())(&published, &all, Duration::ZERO);
    base.telemetry().writable(false);
    let prepared = Prepared::new(base.ledger())?;
    let state = base.serving(
        (policies, &experiments),
        Arc::new(ArcSwap::from_pointee(published)),
        prepared.handle(),
        prepared.origin(),
    );
    let waiting = Waiting {
        client,
        prepared,
        experiments,
        router,
    };
    Ok((state, waiting))
}

impl Waiting {
    /// Tells the old process that it may stop.
    pub(super) fn accepting(&self) -> Result<()> {
        match self.client.accepting() {
            // If it has died, its place is free; if it lives, its lock is not.
            Ok(()) | Err(Error::Gone) => Ok(()),
            Err(error) => Err(error).context("could not take over"),
        }
    }

    /// Waits as long as the old process takes to let go of the data directory, and goes on where it has ended. Call on a thread that may wait.
    pub(super) fn open(self, shared: &Shared) -> Result<Core> {
        loop {
            match self.client.wait_released(REMIND) {
                Ok(Release::Told) => break,
                Ok(Release::Gone) => {
                    tracing::warn!("the process before this one went without a word");
                    break;
                }
                Err(Error::Io { .. }) => {
                    tracing::warn!("the process before this one still has the data directory");
                }
                Err(error) => return Err(error).context("could not take over"),
            }
        }
        let (ledger, opened) = self.prepared.open(LOCK)?;
        tell_recovery(&opened);
        shared.telemetry.writable(true);
        let learner = Learner::start_in(
            Arc::clone(&shared.published),
            ledger.handle(),
            self.experiments,
            self.router,
            hook(&shared.telemetry),
        )?;
        let learner = Arc::new(learner);
        Ok(Core { ledger, learner })
    }
}
