//! The threads beside the request path that change what is served, and the one that waits for a successor.

use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use anyhow::{Context, Result};

use super::state::{Core, State};
use super::succession::Succession;
use crate::admin::Controls;
use crate::config::watch::Watch;
use crate::handover::{Listeners, Offered, Server};
use crate::proxy::health;
use crate::reload::{Reloader, Reloading, channel_of_reloads};

/// They run while somebody has the data directory.
#[derive(Debug)]
pub(super) struct Services {
    pub(super) reloader: Reloader,
    /// Nothing where the socket could not be made.
    succession: Option<Succession>,
    reloading: JoinHandle<()>,
    health: JoinHandle<std::io::Result<()>>,
    watch: Option<Watch>,
}

impl Services {
    /// Starts them; `listeners` are what a successor gets.
    pub(super) fn start(
        state: &State,
        core: &Core,
        listeners: Listeners,
        controls: &OnceLock<Controls>,
    ) -> Result<Self> {
        let (reloader, reloading) = start_reloader(state, core)?;
        let watch = Watch::start(&state.policies, &state.shared.settings, {
            let (reloader, reloads) = (reloader.clone(), Arc::clone(&state.reloads));
            move |fingerprint| {
                if reloads.is_news(fingerprint) {
                    reloader.notify();
                }
            }
        })?;
        let changed = controls.set(Controls {
            reloader: reloader.clone(),
            operator: core.learner.operator(),
        });
        if changed.is_err() {
            tracing::debug!("the admin listener had its controls before");
        }
        Ok(Self {
            succession: start_succession(state, listeners, &reloader)?,
            health: start_health(state, core)?,
            watch: Some(watch),
            reloader,
            reloading,
        })
    }

    /// Waits until a successor accepts; for ever, if none will come.
    pub(super) async fn replaced(&mut self) -> Offered {
        match &mut self.succession {
            Some(succession) => succession.replaced().await,
            None => std::future::pending().await,
        }
    }

    /// Lets nothing new begin: no successor, and no reload because of a changed file.
    pub(super) fn close(&mut self) {
        if let Some(succession) = &self.succession {
            succession.close();
        }
        self.watch = None;
    }

    /// Ends them. The process drains.
    pub(super) fn end(mut self) {
        self.close();
        if let Some(succession) = self.succession {
            succession.end();
        }
        if self.health.join().is_err() {
            tracing::error!("the health thread panicked");
        }
        self.reloader.stop();
        if self.reloading.join().is_err() {
            tracing::error!("the reload thread panicked");
        }
    }
}

fn start_reloader(state: &State, core: &Core) -> Result<(Reloader, JoinHandle<()>)> {
    let (reloader, requests) = channel_of_reloads();
    let reloading = Reloading {
        policies: state.policies.clone(),
        settings: state.shared.settings.clone(),
        endpoints: Arc::clone(&state.endpoints),
        metrics: Arc::clone(&state.shared.metrics),
        learner: Arc::clone(&core.learner),
        reloads: Arc::clone(&state.reloads),
        clock: Arc::clone(&state.shared.clock),
    };
    let thread = std::thread::Builder::new()
        .name("reload".into())
        .spawn(move || reloading.run(&requests))
        .context("could not start the reload thread")?;
    Ok((reloader, thread))
}

fn start_health(state: &State, core: &Core) -> Result<JoinHandle<std::io::Result<()>>> {
    let (shared, availability) = (Arc::clone(&state.shared), core.learner.availability());
    std::thread::Builder::new()
        .name("health".into())
        .spawn(move || health::run(shared, &availability))
        .context("could not start the health thread")
}

/// A server that cannot be replaced is still one.
fn start_succession(
    state: &State,
    listeners: Listeners,
    reloader: &Reloader,
) -> Result<Option<Succession>> {
    let settings = &state.shared.settings;
    match Server::bind(&settings.take_over.socket_path(&settings.data.dir)) {
        Ok(server) => Succession::start(server, listeners, reloader.clone()).map(Some),
        Err(error) => {
            tracing::error!(%error, "no process will be able to take over from this one");
            Ok(None)
        }
    }
}
