//! The one way to record that something happened: a thread that owns the journal and the state that follows from it.
//!
//! Request threads [`offer`](Recorder::offer) decisions and outcomes without waiting: into a bounded queue each, and when it is full the event
//! is dropped and counted. Rewards are [`posted`](Handle::post) and answered when the sync that covers them has returned. Everything
//! that is waiting goes into one group commit, so that the cost of a sync is shared; a lone reward starts one at once.
//!
//! **Order.** In a round the thread first takes what was posted and then empties the queues, and writes the queues first: a
//! decision is offered before its id reaches a client, so it stands in the journal before any reward for it; and an allocation
//! is durable before anything is drawn from it, because who publishes it waits for [`Handle::allocated`].
//!
//! **When the disk fails**, rewards are answered with [`Unavailable`] and nothing is judged; decisions go on, as far as memory is set
//! aside for them. The group that failed stays with the journal's writer and is tried again. A client that was told to come
//! back finds its reward either counted (`duplicate`) or not yet; it is counted once in any case.
//!
//! Not here: the rules (`engine`), the bytes (`journal`), allocations (`learner`), HTTP.

mod archivist;
mod batches;
mod changes;
mod handle;
mod keeper;
mod peek;
mod prepared;
mod queues;
mod restore;
mod shelf;
mod statements;
mod waiting;

#[cfg(test)]
pub(crate) mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::decision_id::Keys;
use crate::engine::event::{Event, Rewarded};
use crate::engine::fold::{Limits, Standing, State};
use crate::engine::orders::Order;
use crate::engine::snapshot::Tally;
use crate::experiment::Experiment;
use crate::experiment::id::{ExperimentId, Name};
use crate::journal::{
    DataLock, Durability, FileStorage, LockError, RecoveryError, Report, Storage,
};
use crate::rewards::{Answer, Item};
use crate::secret::{SecretError, random_number};

pub use changes::{Change, Changes};
pub use handle::{Handle, Receipt};
pub use peek::Peeked;
pub use prepared::Prepared;
pub use queues::Recorder;

use archivist::Archivist;
pub use archivist::Retention;
use keeper::Keeper;
use queues::Queues;
use restore::open;

/// Posts that may wait to be taken by the thread.
const POSTS: usize = 1024;

/// What a ledger needs.
#[derive(Debug, Clone)]
pub struct Config {
    /// The data directory; the journal is in `journal/` below it.
    pub data: PathBuf,
    /// Whether acknowledgements wait for the disk.
    pub durability: Durability,
    /// When segments are finished, and how long they are kept.
    pub retention: Retention,
    /// How many request threads record.
    pub workers: u16,
    /// Events that a request thread may have waiting.
    pub queue: usize,
    /// Bounds on what is remembered.
    pub limits: Limits,
    /// The keys of decision ids.
    pub keys: Keys,
    /// Where `now` comes from.
    pub clock: Arc<dyn Clock>,
    /// Who is told what happens.
    pub observer: Arc<dyn Observer>,
}

/// Is told what happens in the ledger, on the ledger's thread: to be quick.
pub trait Observer: Send + Sync + std::fmt::Debug {
    /// A commit took this long, write and sync.
    fn committed(&self, took: Duration);
    /// Events were dropped because they could not be kept until the disk takes them.
    fn dropped(&self, events: u64);
    /// A reward was judged, and is durable.
    fn judged(&self, rewarded: &Rewarded);
    /// An item was invalid.
    fn invalid(&self);
    /// So many clients' keys of an experiment's decisions were pushed out by newer ones.
    fn evicted(&self, _experiment: &Name, _keys: u64) {}
    /// The journal can be written again, or no longer.
    fn writable(&self, writable: bool);
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn committed(&self, _took: Duration) {}
    fn dropped(&self, _events: u64) {}
    fn judged(&self, _rewarded: &Rewarded) {}
    fn invalid(&self) {}
    fn writable(&self, _writable: bool) {}
}

/// Why a ledger did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another process has the data directory, or it cannot be made.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The journal cannot be read.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// Older segments were deleted, and what they came to is not known.
    #[error(
        "the journal in {} begins at group {group}, and no checkpoint of what came before can be read: \
         put back {}/checkpoints from a backup, or start with another data directory{problems}",
        directory.display(), directory.display()
    )]
    Beheaded {
        /// The journal's directory.
        directory: PathBuf,
        /// The first group.
        group: u64,
        /// What is wrong with the checkpoints.
        problems: String,
    },
    /// The journal cannot be written.
    #[error("cannot write the journal in {}: {source}; check its permissions and the space on its disk", directory.display())]
    Write {
        /// The journal's directory.
        directory: PathBuf,
        /// The disk's error.
        source: io::Error,
    },
    /// The system gives no random number for this start.
    #[error(transparent)]
    Entropy(#[from] SecretError),
    /// The system gives no thread.
    #[error("cannot start the ledger's thread: {0}")]
    Thread(io::Error),
}

/// Why something was not recorded. It may be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// The disk fails.
    #[error("the journal cannot be written at the moment; try again, nothing is counted twice")]
    Failing,
    /// More is waiting than may wait.
    #[error("too many rewards are waiting for the journal; try again, nothing is counted twice")]
    Busy,
    /// The process before this one still has the journal.
    #[error("the journal is being taken over; try again, nothing is counted twice")]
    Starting,
    /// The process is going down.
    #[error("the process is shutting down; try again, nothing is counted twice")]
    Stopping,
}

impl Unavailable {
    /// For `Retry-After`, in seconds.
    pub const fn retry_after(self) -> u64 {
        match self {
            Self::Busy | Self::Starting => 1,
            Self::Failing | Self::Stopping => 5,
        }
    }
}

/// Why policies were not adopted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdoptError {
    /// The journal does not take them.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// No epoch is left.
    #[error("{file}: {problem}")]
    Epochs {
        /// The policy file.
        file: String,
        /// What to do.
        problem: String,
    },
}

/// Where an experiment would go on if it were adopted.
#[derive(Debug, Clone)]
pub struct Prospect {
    /// Its epoch.
    pub epoch: u16,
    /// What its arms have earned in that epoch, in the order of its file.
    pub tallies: Vec<Tally>,
    /// Where it stands now; `None` if it is new.
    pub standing: Option<Standing>,
    /// The ledger's round that this is of; see [`Change::revision`].
    pub revision: u64,
}

/// Policies to be put in force together, in place of all others.
#[derive(Debug, Clone)]
pub struct Adoption {
    /// The experiments, each with the epoch of its [`Prospect`].
    pub experiments: Vec<(Arc<Experiment>, u16)>,
    /// Their changed allocations ([`Event::Allocated`]).
    pub allocations: Vec<Event>,
}

type Reply<T> = oneshot::Sender<T>;

/// What the thread is asked to do.
enum Command {
    Post {
        items: Vec<Item>,
        reply: Reply<Result<Vec<Answer>, Unavailable>>,
    },
    Allocated {
        events: Vec<Event>,
        reply: Reply<Result<(), Unavailable>>,
    },
    Prospects {
        experiments: Vec<Arc<Experiment>>,
        reply: Reply<Result<Vec<Prospect>, AdoptError>>,
    },
    Adopt {
        adoption: Box<Adoption>,
        reply: Reply<Result<(), Unavailable>>,
    },
    Order {
        experiment: ExperimentId,
        order: Order,
        reason: Option<Box<str>>,
        reply: Reply<Result<(), Unavailable>>,
    },
    /// A queue is half full.
    Nudge,
    Stop,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Command")
    }
}

/// What handles and thread share.
#[derive(Debug)]
struct Shared {
    queues: Queues,
    changes: Arc<Changes>,
    posted_items: AtomicUsize,
    dropped: AtomicU64,
    /// Whether there is a thread that judges rewards.
    open: AtomicBool,
}

/// What is given to others of a ledger, and the end at which its thread will hear them.
#[derive(Debug)]
struct Front {
    handle: Handle,
    commands: Receiver<Command>,
}

impl Front {
    fn new(config: &Config) -> Self {
        let (control, commands) = bounded(POSTS);
        let shared = Arc::new(Shared {
            queues: Queues::new(config.workers, config.queue),
            changes: Arc::default(),
            posted_items: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
            open: AtomicBool::new(false),
        });
        let clock = Arc::clone(&config.clock);
        let handle = Handle {
            control,
            shared,
            clock,
        };
        Self { handle, commands }
    }
}

/// A running ledger. Dropping it shuts it down.
#[derive(Debug)]
pub struct Ledger {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
    archivist: Option<archivist::Running>,
    /// Released after the thread has ended.
    lock: Option<DataLock>,
}

/// What was found at the start.
#[derive(Debug, Clone)]
pub struct Opened {
    /// What recovery found, after the checkpoint if there is one.
    pub report: Report,
    /// The last segment that the checkpoint covers.
    pub checkpoint: Option<u64>,
    /// The random number of this process start, for its sequence keys.
    pub origin: u64,
}

impl Ledger {
    /// Takes the lock of the data directory, recovers the state, and makes this start durable.
    ///
    /// # Errors
    ///
    /// See [`StartError`].
    pub fn start(config: &Config) -> Result<(Self, Opened), StartError> {
        let lock = DataLock::acquire(&config.data)?;
        Self::start_locked(lock, config, Front::new(config), random_number()?)
    }

    fn start_locked(
        lock: DataLock,
        config: &Config,
        front: Front,
        origin: u64,
    ) -> Result<(Self, Opened), StartError> {
        let directory = config.data.join("journal");
        let storage = FileStorage::open(&directory).map_err(|source| StartError::Write {
            directory: directory.clone(),
            source,
        })?;
        let (mut ledger, opened) = Self::start_behind(storage, &directory, config, front, origin)?;
        ledger.lock = Some(lock);
        Ok((ledger, opened))
    }

    #[cfg(test)]
    fn start_on<S>(
        storage: S,
        directory: &Path,
        config: &Config,
    ) -> Result<(Self, Opened), StartError>
    where
        S: Storage + Clone + Send + 'static,
        S::Segment: Send,
    {
        let front = Front::new(config);
        Self::start_behind(storage, directory, config, front, random_number()?)
    }

    fn start_behind<S>(
        storage: S,
        directory: &Path,
        config: &Config,
        front: Front,
        origin: u64,
    ) -> Result<(Self, Opened), StartError>
    where
        S: Storage + Clone + Send + 'static,
        S::Segment: Send,
    {
        let Front { handle, commands } = front;
        // What was recorded before this may not find its window closed already.
        handle.shared.queues.park();
        let recorded = handle.shared.queues.earliest_parked();
        let now = config.clock.now();
        let now = recorded.map_or(now, |recorded| recorded.min(now));
        let (state, writer, opened) = open(storage.clone(), directory, config, origin, now)?;
        let archivist = Archivist::new(storage, config, writer.unfinished());
        let (desk, shared) = (archivist.desk(), Arc::clone(&handle.shared));
        let keeper = Keeper::new(writer, state, desk, shared, config);
        let thread = std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || keeper.run(&commands))
            .map_err(StartError::Thread)?;
        handle.shared.open.store(true, Ordering::Release);
        let ledger = Self {
            handle,
            thread: Some(thread),
            archivist: Some(archivist.start()?),
            lock: None,
        };
        Ok((ledger, opened))
    }

    /// A handle to it.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Journals what is waiting and ends. Call it when nobody records any more.
    pub fn shutdown(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.handle.control.send(Command::Stop).ok();
            if thread.join().is_err() {
                tracing::error!("the ledger's thread has panicked");
            }
        }
        if let Some(archivist) = self.archivist.take() {
            archivist.stop();
        }
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What an experiment's arms have earned, and where it stands.
fn prospect(state: &State, experiment: &Experiment, revision: u64) -> Result<Prospect, AdoptError> {
    let epoch = state
        .epoch_for(experiment)
        .map_err(|error| AdoptError::Epochs {
            file: experiment.file.clone(),
            problem: error.to_string(),
        })?;
    let standing = state.standing(experiment.id);
    let continues = standing
        .as_ref()
        .is_some_and(|standing| standing.epoch == epoch);
    let tally = |arm| {
        if continues {
            state.tally(experiment.id, arm)
        } else {
            Tally::default()
        }
    };
    Ok(Prospect {
        epoch,
        tallies: experiment.arms.iter().map(|arm| tally(arm.id)).collect(),
        standing,
        revision,
    })
}
