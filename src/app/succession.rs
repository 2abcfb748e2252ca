//! A server that may be replaced: a thread waits for a successor, passes the sockets, and says so when the successor accepts on them.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::oneshot;

use crate::handover::{Listeners, Offered, Request, Server};
use crate::reload::Reloader;

/// Time between two looks whether the process stops.
const LOOK: Duration = Duration::from_millis(250);

/// How long a successor may take to read the journal and accept.
const PATIENCE: Duration = Duration::from_mins(2);

/// The sockets to be passed on, until the process stops listening.
type Sockets = Arc<Mutex<Option<Arc<Listeners>>>>;

/// The wait for a successor.
#[derive(Debug)]
pub(super) struct Succession {
    sockets: Sockets,
    replaced: oneshot::Receiver<Offered>,
    /// Nothing is ever sent: it ends with the thread.
    ended: Receiver<()>,
}

impl Succession {
    /// Waits on a thread of its own.
    pub(super) fn start(server: Server, listeners: Listeners, reloader: Reloader) -> Result<Self> {
        let sockets: Sockets = Arc::new(Mutex::new(Some(Arc::new(listeners))));
        let (tell, replaced) = oneshot::channel();
        let (end, ended) = channel();
        let waiting = Waiting {
            server,
            sockets: Arc::clone(&sockets),
            reloader,
            _end: end,
        };
        std::thread::Builder::new()
            .name("take-over".into())
            .spawn(move || waiting.run(tell))
            .context("could not start the thread that waits for a successor")?;
        Ok(Self {
            sockets,
            replaced,
            ended,
        })
    }

    /// Waits until a successor accepts; for ever, if none will come.
    pub(super) async fn replaced(&mut self) -> Offered {
        match (&mut self.replaced).await {
            Ok(offered) => offered,
            Err(_) => std::future::pending().await,
        }
    }

    /// Lets go of the sockets. Who comes now is refused.
    pub(super) fn close(&self) {
        drop(take(&self.sockets));
    }

    /// Waits until the socket for successors is gone, unless one is just being heard.
    pub(super) fn end(self) {
        self.close();
        if self.ended.recv_timeout(2 * LOOK) == Err(RecvTimeoutError::Timeout) {
            tracing::debug!("a successor is left behind");
        }
    }
}

fn take(sockets: &Sockets) -> Option<Arc<Listeners>> {
    sockets
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take()
}

fn look(sockets: &Sockets) -> Option<Arc<Listeners>> {
    sockets
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}

/// The thread. Its fields are dropped in this order.
struct Waiting {
    server: Server,
    sockets: Sockets,
    reloader: Reloader,
    _end: Sender<()>,
}

impl Waiting {
    fn run(self, tell: oneshot::Sender<Offered>) {
        while look(&self.sockets).is_some() {
            match self.server.accept(LOOK) {
                Ok(None) => {}
                Ok(Some(request)) => {
                    if let Some(offered) = self.pass(request) {
                        // The successor will listen there.
                        drop(self);
                        if tell.send(offered).is_err() {
                            tracing::debug!("the process has stopped before it was replaced");
                        }
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "who wanted to take over did not");
                    std::thread::sleep(LOOK);
                }
            }
        }
    }

    /// Passes the sockets; nothing if all stays as it is.
    fn pass(&self, request: Request) -> Option<Offered> {
        let process = request.process();
        tracing::info!(process, "a successor wants to take over");
        let refusal = match self.reloader.reload_and_wait() {
            // So that what is in force is what the successor reads.
            Some(Ok(_)) => None,
            Some(Err(errors)) => Some(format!(
                "its policies cannot be reloaded: {}",
                errors.join("; ")
            )),
            None => Some("it is stopping".to_owned()),
        };
        let offered = match (refusal, look(&self.sockets)) {
            (None, Some(listeners)) => request.offer(&listeners, PATIENCE).map(Some),
            (None, None) => request.refuse("it is stopping").map(|()| None),
            (Some(why), _) => {
                tracing::warn!(process, why, "the successor is refused");
                request.refuse(&why).map(|()| None)
            }
        };
        offered
            .inspect_err(|error| tracing::warn!(process, %error, "the successor did not take over"))
            .ok()
            .flatten()
    }
}
