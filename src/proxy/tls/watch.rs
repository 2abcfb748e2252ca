//! Noticing that certificates were replaced: the server's, and those that TLS to endpoints needs.
//!
//! The files are looked at in a fixed interval, by their contents: certificates change every few weeks, they are often links in a mounted
//! folder that is swapped as a whole, and then nothing is reported for the files themselves.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use blake3::Hash;
use metrics::{Counter, Gauge};

use super::Error;
use super::server::ServerTls;
use crate::telemetry::metrics::Metrics;

/// Certificate and key are written one after the other: a change is believed when nothing has changed for this long.
const QUIET: Duration = Duration::from_millis(200);

/// How often to wait for an end of changes.
const PATIENCE: usize = 10;

/// What is watched.
pub trait Watched: Send + 'static {
    /// A hash of what is in the files now; `None` when one cannot be read.
    fn fingerprint(&self) -> Option<Hash>;

    /// Reads the files again. Whether they are new, and serve from now on.
    ///
    /// # Errors
    ///
    /// Which file is wrong, and why; what served before goes on serving.
    fn reload(&self) -> Result<bool, Error>;

    /// Says what came of a change.
    fn tell(&self, outcome: Result<&str, &Error>);
}

/// A running watch; it ends when it is dropped.
#[derive(Debug)]
pub struct Watch {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Reloads `watched` whenever its files have changed, and has it tell how that went.
    ///
    /// # Errors
    ///
    /// When no thread can be started.
    pub fn start(watched: impl Watched, poll: Duration) -> std::io::Result<Self> {
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new()
            .name("certificates".into())
            .spawn(move || run(&watched, poll, &stopped))?;
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

fn run(watched: &impl Watched, poll: Duration, stopped: &Receiver<()>) {
    let over = |time| stopped.recv_timeout(time) != Err(RecvTimeoutError::Timeout);
    // What was looked at last, whatever came of it: the same mistake is told once.
    let mut seen = watched.fingerprint();
    let mut failing = false;
    // What changed between the loading and this thread's first look is no news, but the reload knows better.
    look(watched, &mut failing);
    loop {
        if over(poll) {
            return;
        }
        let mut found = watched.fingerprint();
        if found == seen {
            continue;
        }
        for _ in 0..PATIENCE {
            if over(QUIET) {
                return;
            }
            let again = watched.fingerprint();
            if again == found {
                break;
            }
            found = again;
        }
        seen = found;
        look(watched, &mut failing);
    }
}

/// Reloads, and says what came of it.
fn look(watched: &impl Watched, failing: &mut bool) {
    match watched.reload() {
        Ok(true) => watched.tell(Ok("certificate reloaded")),
        // Put back to what serves.
        Ok(false) if *failing => watched.tell(Ok("the certificate's files are in order again")),
        Ok(false) => {}
        Err(error) => {
            *failing = true;
            watched.tell(Err(&error));
            return;
        }
    }
    *failing = false;
}

/// The server's own certificate, of which metrics tell as well.
#[derive(Debug)]
pub struct ServerCertificate {
    tls: Arc<ServerTls>,
    successful: Gauge,
    expiry: Gauge,
    succeeded: Counter,
    failed: Counter,
}

impl ServerCertificate {
    /// What was loaded at the start counts as a success.
    pub fn new(tls: Arc<ServerTls>, metrics: &Metrics) -> Self {
        let reloads =
            |outcome| metrics.counter("pointsman_tls_reloads_total", &[("outcome", outcome)]);
        let this = Self {
            tls,
            successful: metrics.gauge("pointsman_tls_last_reload_successful", &[]),
            expiry: metrics.gauge("pointsman_tls_certificate_expiry_timestamp_seconds", &[]),
            succeeded: reloads("success"),
            failed: reloads("failure"),
        };
        this.successful.set(1.0);
        this.tell_expiry();
        this
    }

    fn tell_expiry(&self) {
        if let Some(expires) = self.tls.expires() {
            self.expiry.set(expires.as_millis() as f64 / 1e3);
        }
    }
}

impl Watched for ServerCertificate {
    fn fingerprint(&self) -> Option<Hash> {
        self.tls.fingerprint()
    }

    fn reload(&self) -> Result<bool, Error> {
        self.tls.reload()
    }

    fn tell(&self, outcome: Result<&str, &Error>) {
        match outcome {
            Ok(what) => {
                let expires = self.tls.expires().map(|moment| moment.to_string());
                tracing::info!(expires, "{what}");
                self.successful.set(1.0);
                self.succeeded.increment(1);
                self.tell_expiry();
            }
            Err(error) => {
                tracing::error!(%error, "certificate not reloaded, the old one goes on serving");
                self.successful.set(0.0);
                self.failed.increment(1);
            }
        }
    }
}
