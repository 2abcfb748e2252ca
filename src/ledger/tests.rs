//! The ledger's thread over a disk that fails on demand.

mod contexts;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use super::*;
use crate::clock::{ManualClock, Timestamp};
use crate::engine::attribute::{Claim, Posted};
use crate::engine::event::Verdict;
use crate::experiment::decision::{Decision, Ending, Label, LoggedDecision, Outcome, Reason};
use crate::experiment::id::{ArmId, ExperimentId, Name, PolicyVersion, SequenceKey};
use crate::experiment::reward::{
    Aggregate, Compare, Goal, LabelRule, Learn, RewardKind, RewardRule,
};
use crate::experiment::upstream::{HostRule, Protocol};
use crate::experiment::{Arm, Matcher, PathRule, UpstreamRule};
use crate::journal::memory::{Faults, MemoryStorage};
use crate::policy::{ArmEvidence, Evidence, Policy, Posterior};

mod archive;
mod drops;
mod faults;
mod labels;
mod refold;
mod simulation;

/// All arms alike until one has earned more, which then gets three quarters.
#[derive(Debug)]
struct Greedy;

impl Policy for Greedy {
    fn kind(&self) -> &'static str {
        "greedy"
    }

    fn distribution(&self, evidence: &Evidence<'_>) -> Vec<f64> {
        let best = (0..evidence.arms.len()).max_by(|a, b| {
            let sum = |index: &usize| evidence.arms[*index].earned.sum;
            sum(a).total_cmp(&sum(b))
        });
        let rest = 0.25 / (evidence.arms.len() - 1).max(1) as f64;
        (0..evidence.arms.len())
            .map(|index| if Some(index) == best { 0.75 } else { rest })
            .collect()
    }

    fn posterior(&self, arm: &ArmEvidence, _reward: RewardKind) -> Posterior {
        Posterior::Beta {
            alpha: 1.0 + arm.earned.sum,
            beta: 1.0,
            min: 0.0,
            max: 1.0,
        }
    }
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// An experiment with arms `a`, `b`, and what else `arms` says; its policy file is just `text`.
pub(crate) fn experiment(called: &str, text: &str, arms: &[&str]) -> Experiment {
    let name_ = name(called);
    Experiment {
        id: ExperimentId::of(&name_),
        description: String::new(),
        file: format!("{called}.toml"),
        text: Arc::from(text),
        version: PolicyVersion::of(&name_, text),
        declared_epoch: 0,
        matcher: Matcher {
            path: PathRule::Exact("/".to_owned()),
            methods: Vec::new(),
            host: None,
            headers: Vec::new(),
        },
        unit: None,
        reward: RewardRule {
            kind: RewardKind::Binary,
            window: 3_600_000,
            default: None,
            aggregate: Aggregate::First,
            goal: Goal::Maximize,
            learn: Learn::Arrival,
            on_failure: None,
        },
        reward_metric: None,
        reward_key: None,
        label: None,
        shadow: None,
        context: None,
        arms: arms
            .iter()
            .map(|arm| Arm {
                name: name(arm),
                id: ArmId::of(&name_, &name(arm), ""),
                version: String::new(),
                endpoints: Vec::new(),
                weight: 1.0,
                prior: None,
                protocol: Protocol::Auto,
                host: HostRule::Keep,
                path: None,
                model: None,
            })
            .collect(),
        baseline: 0,
        policy: Arc::new(Greedy),
        floor: 0.0,
        warm_up: 0,
        upstream: UpstreamRule::default(),
        name: name_,
    }
}

/// Counts what it is told.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) verdicts: Mutex<BTreeMap<&'static str, u64>>,
    pub(crate) commits: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) evicted: AtomicU64,
}

impl Observer for Counts {
    fn committed(&self, _took: Duration) {
        self.commits.fetch_add(1, Ordering::Relaxed);
    }
    fn dropped(&self, events: u64) {
        self.dropped.fetch_add(events, Ordering::Relaxed);
    }
    fn judged(&self, rewarded: &Rewarded) {
        *self
            .verdicts
            .lock()
            .unwrap()
            .entry(rewarded.verdict.as_str())
            .or_default() += 1;
    }
    fn invalid(&self) {
        *self.verdicts.lock().unwrap().entry("invalid").or_default() += 1;
    }
    fn evicted(&self, _experiment: &Name, keys: u64) {
        self.evicted.fetch_add(keys, Ordering::Relaxed);
    }
    fn writable(&self, _writable: bool) {}
}

pub(crate) const START: u64 = 1_800_000_000_000;

/// A ledger on a disk in memory, and what goes with it.
pub(crate) struct Rig {
    pub(crate) storage: MemoryStorage,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) counts: Arc<Counts>,
    pub(crate) ledger: Option<Ledger>,
    pub(crate) handle: Handle,
    pub(crate) origin: u64,
    pub(crate) config: Config,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Config)) -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis(START)));
        let counts = Arc::new(Counts::default());
        let mut config = Config {
            data: PathBuf::from("memory"),
            durability: Durability::Group,
            retention: Retention::default(),
            workers: 2,
            queue: 1024,
            limits: Limits::default(),
            keys: Keys::derive(&[7; 32], &[]),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            observer: Arc::clone(&counts) as Arc<dyn Observer>,
        };
        change(&mut config);
        let storage = MemoryStorage::default();
        let (ledger, opened) =
            Ledger::start_on(storage.clone(), Path::new("memory"), &config).unwrap();
        let handle = ledger.handle();
        Self {
            storage,
            clock,
            counts,
            ledger: Some(ledger),
            handle,
            origin: opened.origin,
            config,
        }
    }

    /// Ends the process, in good order or not, and starts another on the same disk.
    pub(crate) fn restart(&mut self) {
        self.ledger = None;
        let (ledger, opened) =
            Ledger::start_on(self.storage.clone(), Path::new("memory"), &self.config).unwrap();
        self.handle = ledger.handle();
        self.ledger = Some(ledger);
        self.origin = opened.origin;
    }

    pub(crate) fn adopt(&self, experiments: &[&Arc<Experiment>]) -> Vec<Prospect> {
        let experiments: Vec<_> = experiments
            .iter()
            .map(|experiment| Arc::clone(experiment))
            .collect();
        let prospects = self.handle.prospects(experiments.clone()).unwrap();
        let epochs = prospects.iter().map(|prospect| prospect.epoch);
        self.handle
            .adopt(Adoption {
                experiments: experiments.into_iter().zip(epochs).collect(),
                allocations: Vec::new(),
            })
            .unwrap();
        prospects
    }

    pub(crate) fn decision(&self, experiment: &Experiment, arm: usize, counter: u64) -> Decision {
        Decision {
            sequence: SequenceKey {
                origin: self.origin,
                worker: 0,
                counter,
            },
            at: self.handle.now(),
            experiment: experiment.id,
            epoch: 1,
            arm: experiment.arms[arm].id,
            policy_version: experiment.version,
            propensity: 0.5,
            reason: Reason::Sampled,
        }
    }

    pub(crate) fn post(&self, decision: Decision, posted: Posted) -> Receipt<Vec<Answer>> {
        self.handle
            .post(vec![Ok(self.claim(decision, posted).into())])
    }

    fn claim(&self, decision: Decision, posted: Posted) -> Claim {
        Claim {
            decision,
            received: self.handle.now(),
            at: None,
            metric: None,
            id: None,
            posted,
        }
    }

    pub(crate) fn reward(
        &self,
        decision: Decision,
        value: f64,
    ) -> Result<Vec<Answer>, Unavailable> {
        self.post(decision, Posted::Reward(value)).wait()
    }

    pub(crate) fn tallies(&self, experiment: &Arc<Experiment>) -> Vec<Tally> {
        self.handle
            .prospects(vec![Arc::clone(experiment)])
            .unwrap()
            .remove(0)
            .tallies
    }
}

fn logged(decision: Decision) -> Event {
    Event::Decided(LoggedDecision {
        decision,
        unit: None,
        allocation_version: 1,
        instead_of: None,
        key: None,
        context: None,
    })
}

fn outcome(decision: Decision, prediction: Label) -> Event {
    Event::Ended(Outcome {
        decision,
        at: decision.at,
        ending: Ending::Answered,
        status: Some(200),
        latency_micros: 10,
        prediction: Some(prediction),
    })
}

#[expect(clippy::unnecessary_wraps, reason = "what a post is compared with")]
fn judged(verdict: Verdict) -> Result<Vec<Answer>, Unavailable> {
    Ok(vec![Answer::Judged(verdict)])
}

#[test]
fn a_reward_is_counted_once_and_survives_a_restart() {
    let mut rig = Rig::new();
    let stars = Arc::new(experiment("stars", "1", &["a", "b"]));
    rig.adopt(&[&stars]);
    let decision = rig.decision(&stars, 1, 1);
    assert!(rig.handle.recorder(0).unwrap().offer(logged(decision)));
    assert!(rig.handle.recorder(2).is_none());
    assert_eq!(rig.reward(decision, 1.0), judged(Verdict::Accepted));
    assert_eq!(rig.reward(decision, 1.0), judged(Verdict::Duplicate));
    let before = rig.tallies(&stars);
    assert_eq!(
        (
            before[1].decisions,
            before[1].rewards.count(),
            before[1].learned.sum()
        ),
        (1, 1, 1.0)
    );
    rig.restart();
    assert_eq!(rig.tallies(&stars), before);
    assert_eq!(rig.reward(decision, 1.0), judged(Verdict::Duplicate));
    assert_eq!(rig.tallies(&stars), before);
}

#[test]
fn of_many_posts_at_once_one_is_accepted() {
    let rig = Rig::new();
    let stars = Arc::new(experiment("stars", "1", &["a", "b"]));
    rig.adopt(&[&stars]);
    let decision = rig.decision(&stars, 0, 1);
    let answers: Vec<_> = std::thread::scope(|scope| {
        let posts: Vec<_> = (0..50)
            .map(|_| scope.spawn(|| rig.reward(decision, 1.0)))
            .collect();
        posts.into_iter().map(|post| post.join().unwrap()).collect()
    });
    let accepted = answers
        .iter()
        .filter(|answer| **answer == judged(Verdict::Accepted))
        .count();
    let duplicates = answers
        .iter()
        .filter(|answer| **answer == judged(Verdict::Duplicate))
        .count();
    assert_eq!((accepted, duplicates), (1, 49));
    let verdicts = rig.counts.verdicts.lock().unwrap();
    assert_eq!((verdicts["accepted"], verdicts["duplicate"]), (1, 49));
}

#[test]
fn items_are_answered_in_their_order() {
    let rig = Rig::new();
    let stars = Arc::new(experiment("stars", "1", &["a", "b"]));
    rig.adopt(&[&stars]);
    let decision = rig.decision(&stars, 0, 1);
    let claim = |value| Ok(rig.claim(decision, Posted::Reward(value)).into());
    let answers = rig
        .handle
        .post(vec![
            claim(7.0),
            claim(1.0),
            Err("no".to_owned()),
            claim(1.0),
        ])
        .wait()
        .unwrap();
    assert!(matches!(&answers[0], Answer::Invalid(error) if error.contains("not 0 or 1")));
    assert_eq!(answers[1], Answer::Judged(Verdict::Accepted));
    assert_eq!(answers[2], Answer::Invalid("no".to_owned()));
    assert_eq!(answers[3], Answer::Judged(Verdict::Duplicate));
}

#[test]
fn a_change_of_meaning_starts_an_epoch_and_a_removed_arm_keeps_its_history() {
    let mut rig = Rig::new();
    let both = Arc::new(experiment("stars", "1", &["a", "b"]));
    assert_eq!(rig.adopt(&[&both])[0].epoch, 1);
    rig.reward(rig.decision(&both, 1, 1), 1.0).unwrap();
    let one = Arc::new(experiment("stars", "2", &["a"]));
    assert_eq!(rig.adopt(&[&one])[0].epoch, 1);
    assert_eq!(
        rig.reward(rig.decision(&both, 1, 2), 1.0),
        judged(Verdict::Accepted)
    );
    let prospect = rig.adopt(&[&both]).remove(0);
    assert_eq!(
        (prospect.epoch, prospect.tallies[1].rewards.count()),
        (1, 2)
    );

    rig.adopt(&[]);
    assert_eq!(
        rig.reward(rig.decision(&both, 1, 3), 1.0),
        judged(Verdict::Retired)
    );
    assert!(
        rig.handle.prospects(vec![Arc::clone(&both)]).unwrap()[0]
            .standing
            .as_ref()
            .unwrap()
            .retired
    );

    let mut raised = experiment("stars", "3", &["a", "b"]);
    raised.declared_epoch = 9;
    let raised = Arc::new(raised);
    let prospect = rig.adopt(&[&raised]).remove(0);
    assert_eq!(
        (prospect.epoch, prospect.tallies),
        (9, vec![Tally::default(); 2])
    );
    rig.restart();
    assert_eq!(rig.adopt(&[&raised])[0].epoch, 9);
    let mut meant = experiment("stars", "4", &["a", "b"]);
    meant.reward.aggregate = Aggregate::Max;
    assert_eq!(rig.adopt(&[&Arc::new(meant)])[0].epoch, 10);
}

#[test]
fn an_unchanged_policy_is_not_written_again() {
    let mut rig = Rig::new();
    let stars = Arc::new(experiment("stars", "1", &["a", "b"]));
    let written = |rig: &Rig| {
        let contents = rig.storage.contents().concat();
        String::from_utf8_lossy(&contents)
            .matches("\"type\":\"policy\"")
            .count()
    };
    rig.adopt(&[&stars]);
    rig.adopt(&[&stars]);
    rig.restart();
    rig.adopt(&[&stars]);
    assert_eq!(written(&rig), 1);
}

#[test]
fn events_beyond_the_queue_are_dropped_and_counted() {
    let rig = Rig::with(|config| config.queue = 4);
    let stars = Arc::new(experiment("stars", "1", &["a", "b"]));
    rig.adopt(&[&stars]);
    let recorder = rig.handle.recorder(0).unwrap();
    let taken = (0..20_000)
        .filter(|counter| recorder.offer(logged(rig.decision(&stars, 0, *counter))))
        .count() as u64;
    assert_eq!(taken + rig.handle.dropped(), 20_000);
    drop(rig.ledger);
    assert_eq!(
        rig.counts.dropped.load(Ordering::Relaxed),
        rig.handle.dropped()
    );
}

#[test]
fn a_stopped_ledger_says_so() {
    let mut rig = Rig::new();
    let stars = Arc::new(experiment("stars", "1", &["a", "b"]));
    rig.adopt(&[&stars]);
    let decision = rig.decision(&stars, 0, 1);
    rig.ledger = None;
    assert_eq!(rig.reward(decision, 1.0), Err(Unavailable::Stopping));
    assert!(rig.handle.prospects(Vec::new()).is_err());
}

#[test]
fn a_data_directory_has_one_ledger() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = Rig::new().config.clone();
    config.data = directory.path().to_owned();
    let (ledger, first) = Ledger::start(&config).unwrap();
    assert!(matches!(Ledger::start(&config), Err(StartError::Lock(_))));
    ledger.shutdown();
    let (_ledger, second) = Ledger::start(&config).unwrap();
    assert_ne!(first.origin, second.origin);
    assert_eq!(second.report.events, 1);
}
