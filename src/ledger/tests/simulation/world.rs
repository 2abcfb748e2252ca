//! A simulated life: the disk, the folder of policy files, the process, and how it begins and ends.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crossbeam_channel::Receiver;

use super::super::drops::by_hand;
use super::oracle::Oracle;
use super::rules::{File, KINDS};
use super::*;
use crate::ledger::keeper::Pace;

/// What a client wants to be counted. It posts it until it is answered, and sometimes again.
#[derive(Debug)]
pub(super) struct Intent {
    pub(super) claim: Claim,
    /// The answer, when there is one that is no refusal.
    pub(super) answer: Option<Answer>,
    pub(super) in_flight: bool,
    pub(super) tried: bool,
}

/// Tells the learner that what it asked for is durable.
pub(super) type Answered = oneshot::Receiver<Result<(), Unavailable>>;

/// Experiments in force, each in its epoch.
pub(super) type Adopted = Vec<(Arc<Experiment>, u16)>;

/// A running process.
pub(super) struct Process {
    pub(super) keeper: Keeper<MemoryStorage>,
    pub(super) archivist: Archivist<MemoryStorage>,
    pub(super) commands: Receiver<Command>,
    pub(super) handle: Handle,
    pub(super) recorder: Recorder,
    pub(super) origin: u64,
    pub(super) decided: u64,
    /// What its decisions are drawn under.
    pub(super) serving: Adopted,
    pub(super) adopting: Option<(Adopted, Answered)>,
    /// An allocation that its learner waits for: experiment and version.
    pub(super) allocating: Option<(ExperimentId, u64, Answered)>,
    /// What its learner knows of each experiment.
    pub(super) learned: BTreeMap<ExperimentId, Vec<(ArmId, Tally)>>,
}

pub(super) struct World {
    pub(super) random: Random,
    pub(super) disk: MemoryStorage,
    pub(super) clock: Arc<ManualClock>,
    pub(super) config: Config,
    pub(super) files: Vec<File>,
    pub(super) process: Option<Process>,
    pub(super) decisions: Vec<Decision>,
    pub(super) intents: Vec<Intent>,
    pub(super) in_flight: Vec<(Vec<usize>, Receipt<Vec<Answer>>)>,
    pub(super) oracle: Oracle,
    pub(super) seen: Seen,
}

pub(super) fn poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    match Pin::new(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

impl World {
    pub(super) fn new(mut random: Random) -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis(START)));
        let config = Config {
            data: PathBuf::from("memory"),
            durability: Durability::Group,
            retention: Retention {
                segment_bytes: 1000 + random.below(20_000),
                checkpoint_every: 0,
                // The oracle reads everything that ever was.
                age: u64::MAX,
                ..Retention::default()
            },
            workers: 1,
            queue: 4 + random.index(40),
            limits: Limits::default(),
            keys: Keys::derive(&[7; 32], &[]),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            observer: Arc::new(Unobserved),
        };
        let first = random.index(KINDS);
        let files = (0..3)
            .map(|kind| File::new((first + kind) % KINDS))
            .collect();
        Self {
            disk: MemoryStorage::default(),
            clock,
            config,
            files,
            process: None,
            decisions: Vec::new(),
            intents: Vec::new(),
            in_flight: Vec::new(),
            oracle: Oracle::new(random.percent(50)),
            seen: Seen::default(),
            random,
        }
    }

    /// Something happens.
    pub(super) fn step(&mut self) {
        if self.process.is_none() {
            self.start();
            return;
        }
        match self
            .random
            .weighted(&[22, 8, 26, 30, 14, 5, 5, 2, 2, 1, 3, 6, 4])
        {
            0 => (0..=self.random.below(4)).for_each(|_| self.decide()),
            1 => self.end_exchange(),
            2 => self.post(),
            3 => self.round(),
            4 => self.tick(),
            5 => self.break_disk(),
            6 => self.disk.set_faults(Faults::default()),
            7 => self.kill(),
            8 => self.cut_power(),
            9 => self.stop(),
            10 => self.edit(),
            11 => self.archive(),
            _ => self.allocate(),
        }
    }

    /// The disk heals, everybody is answered, all windows close, and the power is cut once more.
    pub(super) fn end(mut self) -> Seen {
        self.disk.set_faults(Faults::default());
        while self.process.is_none() {
            self.start();
        }
        for _ in 0..1000 {
            self.round_at(Pace {
                retry: Duration::ZERO,
                advance: Duration::ZERO,
            });
            let open: Vec<_> = (0..self.intents.len())
                .filter(|index| {
                    self.intents[*index].answer.is_none() && !self.intents[*index].in_flight
                })
                .collect();
            if open.is_empty() && self.in_flight.is_empty() {
                break;
            }
            open.chunks(20).for_each(|some| self.send(some.to_vec()));
            // Labels give up waiting.
            self.clock.advance(1000);
        }
        assert!(self.in_flight.is_empty(), "somebody is never answered");
        assert!(
            self.intents.iter().all(|intent| intent.answer.is_some()),
            "somebody is never answered"
        );
        // Late enough for every window, and for the clock to have come by wherever it was.
        self.clock
            .set(Timestamp::from_millis(START + 90 * 24 * 3_600_000));
        self.round_at(Pace {
            retry: Duration::ZERO,
            advance: Duration::ZERO,
        });
        let process = self.process.as_ref().expect("a process");
        let (state, _) = process.keeper.parts();
        let defaults = Oracle::check_credits(&self.disk, state);
        self.seen.count("default", defaults);
        self.check_live();
        self.process = None;
        let random = &mut self.random;
        self.disk.power_cut(|below| random.index(below));
        self.start();
        self.seen
    }

    pub(super) fn start(&mut self) {
        self.seen.count("start", 1);
        let breaks = self.random.percent(15);
        if breaks {
            let operations = Some(self.random.below(4) as u32);
            self.disk.set_faults(Faults {
                operations,
                ..Faults::default()
            });
        }
        let origin = self.random.next();
        let now = self.config.clock.now();
        let opened = open(
            self.disk.clone(),
            Path::new("memory"),
            &self.config,
            origin,
            now,
        );
        let (state, writer) = match opened {
            Ok((state, writer, opened)) => {
                let report = &opened.report;
                assert_eq!(
                    (report.missing_groups, report.misnumbered_groups),
                    (0, 0),
                    "{report:?}"
                );
                self.seen
                    .count("group in two places", report.repeated_groups);
                let from_checkpoint = opened.checkpoint.is_some();
                self.seen
                    .count("start from a checkpoint", u64::from(from_checkpoint));
                (state, writer)
            }
            Err(error) => {
                assert!(breaks, "{error}");
                self.disk.set_faults(Faults::default());
                self.seen.count("failed start", 1);
                if self.random.percent(50) {
                    self.cut_power();
                }
                return;
            }
        };
        self.disk.set_faults(Faults::default());
        self.oracle.check_journal(&self.disk);
        let (keeper, archivist, commands, handle) = by_hand(state, writer, &self.config);
        self.process = Some(Process {
            keeper,
            archivist,
            commands,
            recorder: handle.recorder(0).expect("a recorder"),
            handle,
            origin,
            decided: 0,
            serving: Vec::new(),
            adopting: None,
            allocating: None,
            learned: BTreeMap::new(),
        });
        self.check_live();
        self.adopt();
    }

    /// The process lets the archivist seal what is finished, and make a checkpoint.
    fn archive(&mut self) {
        let process = self.process.as_mut().expect("a process");
        let before = self.disk.checkpoints().expect("a list");
        process.archivist.work();
        let after = self.disk.checkpoints().expect("a list");
        self.seen.count("checkpoint", u64::from(after != before));
    }

    /// The process lets the ledger's thread do a round.
    pub(super) fn round(&mut self) {
        let either = |often: bool| if often { Duration::ZERO } else { Duration::MAX };
        let pace = Pace {
            retry: either(self.random.percent(50)),
            advance: either(self.random.percent(60)),
        };
        self.round_at(pace);
    }

    pub(super) fn round_at(&mut self, pace: Pace) {
        let process = self.process.as_mut().expect("a process");
        process.keeper.pace = pace;
        let was_failing = process.keeper.is_failing();
        process.keeper.round(process.commands.try_iter().collect());
        self.seen.count(
            "failed commit",
            u64::from(process.keeper.is_failing() && !was_failing),
        );
        self.answers();
        self.learn();
        if self.random.percent(3) {
            self.check_live();
        }
    }

    pub(super) fn clock_now(&self) -> Timestamp {
        self.clock.now()
    }

    /// What is live is what would be recovered.
    pub(super) fn check_live(&mut self) {
        let process = self.process.as_ref().expect("a process");
        let (state, unapplied) = process.keeper.parts();
        self.oracle
            .check_live(&self.disk, state, unapplied, self.clock.now());
    }
}
