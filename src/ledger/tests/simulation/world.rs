//! What happens in a simulated life.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crossbeam_channel::Receiver;

use super::super::drops::by_hand;
use super::super::refold::rule;
use super::oracle::{Key, Oracle};
use super::rules::{File, KINDS};
use super::*;
use crate::experiment::context::Value;
use crate::experiment::decision::LoggedContext;
use crate::ledger::keeper::Pace;

/// How often things happened, in one life or many.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seen(BTreeMap<&'static str, u64>);

impl Seen {
    const ALL: [&'static str; 23] = [
        "accepted reward",
        "aborted adoption",
        "adoption",
        "allocation",
        "clock step back",
        "clock step forward",
        "decision",
        "default",
        "drop",
        "duplicate",
        "failed commit",
        "failed start",
        "failure",
        "kill",
        "late reward",
        "power cut",
        "refused post",
        "retried post",
        "start",
        "checkpoint",
        "start from a checkpoint",
        "stop",
        "group in two places",
    ];

    pub(super) fn count(&mut self, what: &'static str, times: u64) {
        assert!(Self::ALL.contains(&what), "{what}");
        *self.0.entry(what).or_default() += times;
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (what, times) in &other.0 {
            *self.0.entry(what).or_default() += times;
        }
    }

    /// Everything that should be seen, and how often it was.
    pub(super) fn counts(&self) -> impl Iterator<Item = (&'static str, &u64)> {
        Self::ALL
            .iter()
            .map(|what| (*what, self.0.get(what).unwrap_or(&0)))
    }
}

/// What a client wants to be counted. It posts it until it is answered, and sometimes again.
#[derive(Debug)]
struct Intent {
    claim: Claim,
    /// The answer, when there is one that is no refusal.
    answer: Option<Answer>,
    in_flight: bool,
    tried: bool,
}

/// Tells the learner that what it asked for is durable.
type Answered = oneshot::Receiver<Result<(), Unavailable>>;

/// Experiments in force, each in its epoch.
type Adopted = Vec<(Arc<Experiment>, u16)>;

/// A running process.
struct Process {
    keeper: Keeper<MemoryStorage>,
    archivist: Archivist<MemoryStorage>,
    commands: Receiver<Command>,
    handle: Handle,
    recorder: Recorder,
    origin: u64,
    decided: u64,
    /// What its decisions are drawn under.
    serving: Adopted,
    adopting: Option<(Adopted, Answered)>,
    /// An allocation that its learner waits for: experiment and version.
    allocating: Option<(ExperimentId, u64, Answered)>,
    /// What its learner knows of each experiment.
    learned: BTreeMap<ExperimentId, Vec<(ArmId, Tally)>>,
}

pub(super) struct World {
    random: Random,
    disk: MemoryStorage,
    clock: Arc<ManualClock>,
    config: Config,
    files: Vec<File>,
    process: Option<Process>,
    starts: u64,
    decisions: Vec<Decision>,
    intents: Vec<Intent>,
    in_flight: Vec<(Vec<usize>, Receipt<Vec<Answer>>)>,
    oracle: Oracle,
    seen: Seen,
}

fn poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    match Pin::new(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

fn scalars((arm, tally): &(ArmId, Tally)) -> (ArmId, Tally) {
    let detail = Arc::default();
    (
        *arm,
        Tally {
            detail,
            ..tally.clone()
        },
    )
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
            starts: 0,
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

    fn start(&mut self) {
        self.seen.count("start", 1);
        self.starts += 1;
        let breaks = self.random.percent(15);
        if breaks {
            let operations = Some(self.random.below(4) as u32);
            self.disk.set_faults(Faults {
                operations,
                ..Faults::default()
            });
        }
        let origin = self.random.next();
        let opened = open(self.disk.clone(), Path::new("memory"), &self.config, origin);
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
    fn round(&mut self) {
        let either = |often: bool| if often { Duration::ZERO } else { Duration::MAX };
        let pace = Pace {
            retry: either(self.random.percent(50)),
            advance: either(self.random.percent(60)),
        };
        self.round_at(pace);
    }

    fn round_at(&mut self, pace: Pace) {
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

    /// Clients read their answers.
    fn answers(&mut self) {
        let mut waiting = Vec::new();
        for (intents, mut receipt) in std::mem::take(&mut self.in_flight) {
            let Some(answered) = poll(&mut receipt) else {
                waiting.push((intents, receipt));
                continue;
            };
            for (place, index) in intents.iter().enumerate() {
                let intent = &mut self.intents[*index];
                intent.in_flight = false;
                let Ok(answers) = &answered else {
                    self.seen.count("refused post", 1);
                    continue;
                };
                let key = Key::of(&intent.claim);
                match &answers[place] {
                    Answer::Judged(Verdict::Accepted) | Answer::Unlearned => {
                        self.seen.count("accepted reward", 1);
                        self.oracle.acknowledged(&key);
                    }
                    Answer::Judged(Verdict::Duplicate) => {
                        self.seen.count("duplicate", 1);
                        self.oracle.promised(&key);
                    }
                    Answer::Judged(Verdict::Late) => self.seen.count("late reward", 1),
                    _ => {}
                }
                intent.answer = Some(answers[place].clone());
            }
        }
        self.in_flight = waiting;
    }

    /// The learner looks, and hears of its requests.
    fn learn(&mut self) {
        let process = self.process.as_mut().expect("a process");
        if self.random.percent(70) {
            for (experiment, change) in process.handle.changes().take() {
                process.learned.insert(experiment, change.arms);
            }
            // Whatever it was not told of has not changed, but for what has been forgotten because it hardly weighs any more.
            let (state, _) = process.keeper.parts();
            for (experiment, arms) in &process.learned {
                let known = arms.iter().map(scalars);
                assert!(
                    known.eq(state.tallies(*experiment).iter().map(scalars)),
                    "the learner knows something else: {arms:?}"
                );
            }
        }
        if let Some((experiment, version, reply)) = &mut process.allocating
            && let Some(answer) = poll(reply)
        {
            if matches!(answer, Ok(Ok(()))) {
                self.oracle.allocated(*experiment, *version);
                self.seen.count("allocation", 1);
            }
            process.allocating = None;
        }
        if let Some((experiments, reply)) = &mut process.adopting
            && let Some(answer) = poll(reply)
        {
            if matches!(answer, Ok(Ok(()))) {
                process.serving.clone_from(experiments);
                self.seen.count("adoption", 1);
            } else {
                self.seen.count("aborted adoption", 1);
            }
            process.adopting = None;
        }
    }

    /// The process reads its folder of policy files.
    fn adopt(&mut self) {
        let experiments: Vec<_> = self
            .files
            .iter()
            .filter(|file| file.there)
            .map(|file| Arc::clone(&file.experiment))
            .collect();
        let (reply, mut prospects) = oneshot::channel();
        let process = self.process.as_mut().expect("a process");
        if process.adopting.is_some() {
            return;
        }
        let asked = Command::Prospects {
            experiments: experiments.clone(),
            reply,
        };
        process.handle.control.send(asked).expect("a channel");
        self.round();
        let prospects = poll(&mut prospects).expect("an answer");
        let prospects = prospects.expect("a process").expect("prospects");
        let process = self.process.as_mut().expect("a process");
        for (experiment, prospect) in experiments.iter().zip(&prospects) {
            let continues = prospect
                .standing
                .as_ref()
                .is_some_and(|standing| standing.epoch == prospect.epoch);
            if continues {
                let arms = process.keeper.parts().0.tallies(experiment.id);
                process.learned.insert(experiment.id, arms);
            }
        }
        let epochs = prospects.iter().map(|prospect| prospect.epoch);
        let experiments: Vec<_> = experiments.into_iter().zip(epochs).collect();
        let (reply, answer) = oneshot::channel();
        let adoption = Box::new(Adoption {
            experiments: experiments.clone(),
            allocations: Vec::new(),
        });
        process
            .handle
            .control
            .send(Command::Adopt { adoption, reply })
            .expect("a channel");
        process.adopting = Some((experiments, answer));
        self.round();
    }

    fn edit(&mut self) {
        let index = self.random.index(self.files.len());
        self.files[index].edit(&mut self.random, self.oracle.windows_change);
        self.adopt();
    }

    /// The learner publishes another allocation.
    fn allocate(&mut self) {
        let at = self.clock_now();
        let process = self.process.as_mut().expect("a process");
        if process.allocating.is_some() || process.serving.is_empty() {
            return;
        }
        let (experiment, epoch) = &process.serving[self.random.index(process.serving.len())];
        let version = self.oracle.next_allocation(experiment.id);
        let event = Event::Allocated {
            at,
            experiment: experiment.id,
            epoch: *epoch,
            version,
            probabilities: experiment.arms.iter().map(|arm| (arm.id, 0.5)).collect(),
        };
        let (reply, answer) = oneshot::channel();
        process
            .handle
            .control
            .send(Command::Allocated {
                events: vec![event],
                reply,
            })
            .expect("a channel");
        process.allocating = Some((experiment.id, version, answer));
    }

    /// A request is decided, and recorded unless the queue is full.
    fn decide(&mut self) {
        let at = self.clock_now();
        let process = self.process.as_mut().expect("a process");
        if process.serving.is_empty() {
            return;
        }
        let (experiment, epoch) = &process.serving[self.random.index(process.serving.len())];
        process.decided += 1;
        let reason = if self.random.percent(90) {
            Reason::Sampled
        } else {
            Reason::Forced
        };
        let decision = Decision {
            sequence: SequenceKey {
                origin: process.origin,
                worker: 0,
                counter: process.decided,
            },
            at,
            experiment: experiment.id,
            epoch: *epoch,
            arm: experiment.arms[self.random.index(2)].id,
            policy_version: experiment.version,
            propensity: 0.5,
            reason,
        };
        let context = experiment.context.is_some().then(|| {
            let prime = Value::Boolean(self.random.percent(50));
            Box::new(LoggedContext {
                context: rule().context(vec![prime].into()),
                probabilities: Vec::new(),
            })
        });
        let logged = LoggedDecision {
            decision,
            unit: None,
            allocation_version: 1,
            key: None,
            instead_of: None,
            context,
        };
        self.seen.count("decision", 1);
        // A tenth is lost on the way, as if the queue had been full.
        if self.random.percent(10) || !process.recorder.offer(Event::Decided(logged)) {
            self.seen.count("drop", 1);
        }
        self.decisions.push(decision);
    }

    /// The exchange of a recent decision of this process ends.
    fn end_exchange(&mut self) {
        let at = self.clock_now();
        let Some(decision) = self.recent() else {
            return;
        };
        let process = self.process.as_mut().expect("a process");
        if decision.sequence.origin != process.origin || !self.oracle.ends(decision.sequence) {
            return;
        }
        let ending = [Ending::Answered, Ending::Answered, Ending::Failed][self.random.index(3)];
        self.seen
            .count("failure", u64::from(ending == Ending::Failed));
        let prediction = Some(Label::Number(4.0 + self.random.below(2) as f64));
        process.recorder.offer(Event::Ended(Outcome {
            decision,
            at,
            ending,
            status: None,
            latency_micros: 1,
            prediction,
        }));
    }

    fn recent(&mut self) -> Option<Decision> {
        let some = self.decisions.len().min(1 + self.random.index(40));
        (some > 0).then(|| self.decisions[self.decisions.len() - 1 - self.random.index(some)])
    }

    /// A client posts one reward or several, new ones and such that it has posted before.
    fn post(&mut self) {
        let mut batch = BTreeSet::new();
        for _ in 0..=self.random.below(4) {
            let again = !self.intents.is_empty() && self.random.percent(30);
            let index = if again {
                Some(self.random.index(self.intents.len()))
            } else {
                self.intend()
            };
            batch.extend(index.filter(|index| !self.intents[*index].in_flight));
        }
        self.send(batch.into_iter().collect());
    }

    /// A new reward for a recent decision.
    fn intend(&mut self) -> Option<usize> {
        let decision = self.recent()?;
        let file = self
            .files
            .iter()
            .find(|file| file.experiment.id == decision.experiment)?;
        let metric = self.random.percent(8).then(|| name("seconds"));
        let aggregated = file.experiment.reward.aggregate != Aggregate::First;
        let id = (aggregated || metric.is_some()).then(|| self.random.below(5).to_string().into());
        let value = match file.kind {
            0 | 4 => self.random.below(2) as f64,
            _ => self.random.below(24) as f64 / 4.0,
        };
        let posted = if file.kind == 4 && metric.is_none() {
            Posted::Label(Label::Number(5.0))
        } else {
            Posted::Reward(value)
        };
        let claim = Claim {
            decision,
            received: decision.at,
            at: None,
            metric,
            id,
            posted,
        };
        self.intents.push(Intent {
            claim,
            answer: None,
            in_flight: false,
            tried: false,
        });
        Some(self.intents.len() - 1)
    }

    fn send(&mut self, batch: Vec<usize>) {
        let received = self.clock_now();
        let process = self.process.as_mut().expect("a process");
        if batch.is_empty() || process.commands.len() > POSTS / 2 {
            return;
        }
        let mut items = Vec::new();
        for index in &batch {
            let intent = &mut self.intents[*index];
            self.seen.count("retried post", u64::from(intent.tried));
            (intent.in_flight, intent.tried) = (true, true);
            self.oracle.posted(&Key::of(&intent.claim));
            let claim = Claim {
                received,
                ..intent.claim.clone()
            };
            items.push(Ok(claim.into()));
        }
        self.in_flight.push((batch, process.handle.post(items)));
    }

    fn clock_now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Time passes, or the clock steps.
    fn tick(&mut self) {
        let now = self.clock.now();
        let (forward, most) = [
            (true, 2_000),
            (true, 120_000),
            (true, 2 * 3_600_000),
            (false, 5_000),
            (false, 3_600_000),
            (true, 48 * 3_600_000),
        ][self.random.weighted(&[70, 18, 4, 4, 2, 2])];
        let by = self.random.below(most);
        if forward {
            self.clock.advance(by);
        } else {
            self.clock.set(Timestamp::from_millis(now.as_millis() - by));
        }
        if !forward || most > 3_600_000 {
            self.seen.count(
                if forward {
                    "clock step forward"
                } else {
                    "clock step back"
                },
                1,
            );
        }
    }

    fn break_disk(&mut self) {
        let some = |random: &mut Random, most| random.below(most) as u32;
        let random = &mut self.random;
        let room = random.percent(40).then(|| random.index(4000));
        let operations = random.percent(40).then(|| some(random, 6));
        self.disk.set_faults(Faults {
            room,
            syncs: some(random, 3),
            directory_syncs: some(random, 2),
            creates: some(random, 2),
            repairs: some(random, 3),
            seals: some(random, 3),
            operations,
        });
    }

    /// The process is gone, in the middle of a commit perhaps.
    fn kill(&mut self) {
        self.seen.count("kill", 1);
        if self.random.percent(50) {
            let operations = Some(self.random.below(5) as u32);
            self.disk.set_faults(Faults {
                operations,
                ..Faults::default()
            });
            self.round();
        }
        self.die();
    }

    fn cut_power(&mut self) {
        self.seen.count("power cut", 1);
        self.die();
        let random = &mut self.random;
        self.disk.power_cut(|below| random.index(below));
    }

    fn stop(&mut self) {
        self.seen.count("stop", 1);
        if let Some(process) = &mut self.process {
            let mut last: Vec<_> = process.commands.try_iter().collect();
            last.push(Command::Stop);
            assert!(process.keeper.round(last));
        }
        self.answers();
        self.die();
    }

    fn die(&mut self) {
        if self.process.is_some() {
            self.check_live();
        }
        self.process = None;
        self.disk.set_faults(Faults::default());
        // Clients see their connection end. What they have posted may count or not.
        self.answers();
        assert!(self.in_flight.is_empty());
    }

    /// What is live is what would be recovered.
    fn check_live(&mut self) {
        let process = self.process.as_ref().expect("a process");
        let (state, unapplied) = process.keeper.parts();
        self.oracle
            .check_live(&self.disk, state, unapplied, self.clock.now());
    }
}
