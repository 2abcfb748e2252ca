//! Noticing that the policies folder changed.
//!
//! The folder is watched, not its files: a mounted ConfigMap swaps a link, and a watched file would be seen once and then never
//! again. What the file system reports only wakes the watch, which takes a hash of the contents; it also does so at a fixed interval,
//! because network and overlay file systems report nothing. Whether the hash is new is for the caller to know: a watch that
//! remembered it would miss a file that came, was loaded by somebody else's reload, and went.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use super::load::{Fingerprint, fingerprint};
use super::settings::Settings;

/// Editors write in several steps; a change is looked at when nothing has happened for this long.
const QUIET: Duration = Duration::from_millis(200);

/// A running watch; it ends when it is dropped.
#[derive(Debug)]
pub struct Watch {
    wake: Sender<Wake>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Wake {
    Something,
    Stop,
}

impl Watch {
    /// Calls `look` with the hash of the policy files in `folder` (`None` when they cannot be read) whenever they may have changed.
    ///
    /// # Errors
    ///
    /// When no thread can be started. A file system that cannot be watched is only polled.
    pub fn start(
        folder: &Path,
        settings: &Settings,
        look: impl Fn(Fingerprint) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (wake, events) = channel();
        let watching = Watching {
            folder: folder.to_owned(),
            settings: settings.clone(),
            wake: wake.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("watch".into())
            .spawn(move || watching.run(&events, look))?;
        Ok(Self {
            wake,
            thread: Some(thread),
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let told = self.wake.send(Wake::Stop).is_ok();
        if let Some(thread) = self.thread.take().filter(|_| told)
            && thread.join().is_err()
        {
            tracing::error!("the thread that watches the policies panicked");
        }
    }
}

struct Watching {
    folder: PathBuf,
    settings: Settings,
    wake: Sender<Wake>,
}

impl Watching {
    fn run(&self, events: &Receiver<Wake>, look: impl Fn(Fingerprint)) {
        let poll = Duration::from_millis(self.settings.reload.poll);
        let mut watcher = self.watcher();
        loop {
            match events.recv_timeout(poll) {
                Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(Wake::Something) => {
                    // Wait for the end of a burst, but not for ever.
                    for _ in 0..10 {
                        match events.recv_timeout(QUIET) {
                            Ok(Wake::Something) => {}
                            Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                            Err(RecvTimeoutError::Timeout) => break,
                        }
                    }
                }
                // A folder that was removed and made anew is watched anew.
                Err(RecvTimeoutError::Timeout) => watcher = self.watcher().or(watcher),
            }
            look(fingerprint(&self.folder, &self.settings));
        }
    }

    fn watcher(&self) -> Option<RecommendedWatcher> {
        let wake = self.wake.clone();
        let handler = move |event: notify::Result<notify::Event>| {
            // Our own reading of the files is reported, too.
            let of_interest = event.is_ok_and(|event| !event.kind.is_access());
            if of_interest && wake.send(Wake::Something).is_err() {
                tracing::debug!("a change of the policies came after the end");
            }
        };
        let started = notify::recommended_watcher(handler).and_then(|mut watcher| {
            watcher
                .watch(&self.folder, RecursiveMode::NonRecursive)
                .map(|()| watcher)
        });
        started
            .inspect_err(|error| tracing::debug!(%error, "the policies folder is only polled"))
            .ok()
    }
}
