//! Noticing that a server's certificate was replaced.
//!
//! The files are looked at in a fixed interval, by their contents: certificates change every few weeks, they are often links in a mounted
//! folder that is swapped as a whole, and then nothing is reported for the files themselves.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use metrics::{Counter, Gauge};

use super::Error;
use super::server::ServerTls;
use crate::telemetry::metrics::Metrics;

/// Certificate and key are written one after the other: a change is believed when nothing has changed for this long.
const QUIET: Duration = Duration::from_millis(200);

/// How often to wait for an end of changes.
const PATIENCE: usize = 10;

/// A running watch; it ends when it is dropped.
#[derive(Debug)]
pub struct Watch {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Reloads `tls` whenever its files have changed, and tells log and metrics how it went.
    ///
    /// # Errors
    ///
    /// When no thread can be started.
    pub fn start(tls: Arc<ServerTls>, poll: Duration, metrics: &Metrics) -> std::io::Result<Self> {
        let watching = Watching {
            tls,
            tell: Tell::new(metrics),
        };
        // What was loaded at the start counts as a success.
        watching.tell.successful.set(1.0);
        watching.tell_expiry();
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new()
            .name("certificates".into())
            .spawn(move || watching.run(poll, &stopped))?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that watches the certificates panicked");
        }
    }
}

/// The handles.
#[derive(Debug)]
struct Tell {
    successful: Gauge,
    expiry: Gauge,
    succeeded: Counter,
    failed: Counter,
}

impl Tell {
    fn new(metrics: &Metrics) -> Self {
        let reloads =
            |outcome| metrics.counter("pointsman_tls_reloads_total", &[("outcome", outcome)]);
        Self {
            successful: metrics.gauge("pointsman_tls_last_reload_successful", &[]),
            expiry: metrics.gauge("pointsman_tls_certificate_expiry_timestamp_seconds", &[]),
            succeeded: reloads("success"),
            failed: reloads("failure"),
        }
    }
}

struct Watching {
    tls: Arc<ServerTls>,
    tell: Tell,
}

impl Watching {
    fn run(self, poll: Duration, stopped: &Receiver<()>) {
        let over = |time| stopped.recv_timeout(time) != Err(RecvTimeoutError::Timeout);
        // What was looked at last, whatever came of it: the same mistake is told once.
        let mut seen = self.tls.fingerprint();
        let mut failing = false;
        // What changed between the server's loading and this thread's first look is no news, but the reload knows better.
        self.look(&mut failing);
        loop {
            if over(poll) {
                return;
            }
            let mut found = self.tls.fingerprint();
            if found == seen {
                continue;
            }
            for _ in 0..PATIENCE {
                if over(QUIET) {
                    return;
                }
                let again = self.tls.fingerprint();
                if again == found {
                    break;
                }
                found = again;
            }
            seen = found;
            self.look(&mut failing);
        }
    }

    /// Reloads, and says what came of it.
    fn look(&self, failing: &mut bool) {
        match self.tls.reload() {
            Ok(true) => self.succeeded("certificate reloaded"),
            // Put back to what serves.
            Ok(false) if *failing => self.succeeded("the certificate's files are in order again"),
            Ok(false) => {}
            Err(error) => {
                *failing = true;
                self.failed(&error);
                return;
            }
        }
        *failing = false;
    }

    fn succeeded(&self, what: &str) {
        let expires = self.tls.expires().map(|moment| moment.to_string());
        tracing::info!(expires, "{what}");
        self.tell.successful.set(1.0);
        self.tell.succeeded.increment(1);
        self.tell_expiry();
    }

    fn failed(&self, error: &Error) {
        tracing::error!(%error, "certificate not reloaded, the old one goes on serving");
        self.tell.successful.set(0.0);
        self.tell.failed.increment(1);
    }

    fn tell_expiry(&self) {
        if let Some(expires) = self.tls.expires() {
            self.tell.expiry.set(expires.as_millis() as f64 / 1e3);
        }
    }
}
