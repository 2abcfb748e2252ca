//! Durable rewards a second: bodies of 100 rewards are parsed, their ids checked, and posted by clients that each wait for
//! their answer, while decisions are recorded beside them.
//!
//! `cargo bench --bench ledger -- [DIRECTORY] [CLIENTS]`: the directory is on the disk to be measured.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pointsman::clock::{Clock, Stopwatch, SystemClock};
use pointsman::decision_id::Keys;
use pointsman::engine::event::{Event, Rewarded, Verdict};
use pointsman::engine::fold;
use pointsman::engine::keys::Subject;
use pointsman::experiment::decision::{Decision, LoggedDecision, Reason};
use pointsman::experiment::id::{ArmId, ExperimentId, Name, PolicyVersion, SequenceKey};
use pointsman::experiment::reward::{Aggregate, Goal, Learn, RewardKind, RewardRule};
use pointsman::experiment::upstream::{HostRule, Protocol};
use pointsman::experiment::{Arm, Experiment, Matcher, PathRule, UpstreamRule};
use pointsman::journal::Durability;
use pointsman::learner::Learner;
use pointsman::ledger::{Config, Handle, Ledger, Observer, Retention};
use pointsman::policy::thompson::Thompson;
use pointsman::rewards::{self, Reference};

/// Rewards in a body.
const BATCH: u64 = 100;

/// How long is measured.
const SPAN: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
struct Commits {
    count: AtomicU64,
    micros: AtomicU64,
}

impl Observer for Commits {
    fn committed(&self, took: Duration) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.micros
            .fetch_add(took.as_micros() as u64, Ordering::Relaxed);
    }
    fn dropped(&self, _events: u64) {}
    fn judged(&self, _rewarded: &Rewarded) {}
    fn invalid(&self) {}
    fn writable(&self, _writable: bool) {}
}

fn experiment() -> Experiment {
    let name = Name::new("bench").expect("a name");
    let arm = |index: u32| {
        let arm = Name::new(&format!("arm-{index}")).expect("a name");
        Arm {
            id: ArmId::of(&name, &arm, ""),
            name: arm,
            version: String::new(),
            endpoints: Vec::new(),
            weight: 1.0,
            prior: None,
            protocol: Protocol::Auto,
            host: HostRule::Keep,
            path: None,
            model: None,
        }
    };
    Experiment {
        id: ExperimentId::of(&name),
        version: PolicyVersion::of(&name, ""),
        arms: (0..4).map(arm).collect(),
        name,
        description: String::new(),
        file: String::new(),
        text: Arc::from(""),
        declared_epoch: 0,
        matcher: Matcher {
            path: PathRule::Exact("/".into()),
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
        baseline: 0,
        policy: Arc::new(Thompson::default()),
        floor: 0.01,
        warm_up: 0,
        upstream: UpstreamRule::default(),
    }
}

/// What the clients have done.
#[derive(Debug, Default)]
struct Done {
    accepted: AtomicU64,
    parsing_nanos: AtomicU64,
}

/// Decides, and posts the rewards, until the time is up.
fn post(
    client: u16,
    origin: u64,
    handle: &Handle,
    keys: &Keys,
    experiment: &Experiment,
    done: &Done,
) {
    let recorder = handle.recorder(client).expect("a recorder");
    let span = Stopwatch::start();
    let mut counter = 0;
    while span.elapsed() < SPAN {
        let mut body = String::from("[");
        for _ in 0..BATCH {
            counter += 1;
            let decision = Decision {
                sequence: SequenceKey {
                    origin,
                    worker: client,
                    counter,
                },
                at: SystemClock.now(),
                experiment: experiment.id,
                epoch: 1,
                arm: experiment.arms[(counter % 4) as usize].id,
                policy_version: experiment.version,
                propensity: 0.25,
                reason: Reason::Sampled,
            };
            recorder.offer(Event::Decided(LoggedDecision {
                decision,
                unit: None,
                allocation_version: 1,
                instead_of: None,
                key: None,
                context: None,
            }));
            if body.len() > 1 {
                body.push(',');
            }
            body.push_str("{\"decision_id\":\"");
            body.push_str(keys.encode(&decision).as_str());
            body.push_str("\",\"reward\":1}");
        }
        body.push(']');
        let parse = Stopwatch::start();
        let decode = |reference: Reference<'_>| match reference {
            Reference::DecisionId(id) => match keys.decode(id) {
                Ok(decision) => Ok(Subject::Decision(decision)),
                Err(error) => Err(error.to_string()),
            },
            Reference::Key { .. } => Err("keys are not measured".to_owned()),
        };
        let limits = rewards::Limits::default();
        let items = rewards::parse(body.as_bytes(), None, limits, handle.now(), decode)
            .expect("a readable body");
        done.parsing_nanos
            .fetch_add(parse.elapsed().as_nanos() as u64, Ordering::Relaxed);
        let answers = handle.post(items).wait().expect("a journal");
        let accepted = answers
            .iter()
            .filter(|answer| **answer == rewards::Answer::Judged(Verdict::Accepted))
            .count();
        done.accepted.fetch_add(accepted as u64, Ordering::Relaxed);
    }
}

fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench");
    let scratch = arguments
        .next()
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let clients: u16 = arguments
        .next()
        .map_or(8, |text| text.parse().expect("a number"));
    let data = tempfile::tempdir_in(scratch).expect("a directory to write in");
    let commits = Arc::new(Commits::default());
    let keys = Keys::derive(&[7; 32], &[]);
    let config = Config {
        data: data.path().to_owned(),
        durability: Durability::Group,
        retention: Retention::default(),
        workers: clients,
        queue: 16_384,
        limits: fold::Limits::default(),
        keys: keys.clone(),
        clock: Arc::new(SystemClock),
        observer: Arc::clone(&commits) as Arc<dyn Observer>,
    };
    let (ledger, opened) = Ledger::start(&config).expect("a ledger");
    let handle = ledger.handle();
    let experiment = Arc::new(experiment());
    let experiments = vec![Arc::clone(&experiment)];
    let lag = Arc::new(AtomicU64::new(0));
    let hook = Box::new({
        let lag = Arc::clone(&lag);
        move |_: &_, _: &_, since: Duration| {
            lag.fetch_max(since.as_micros() as u64, Ordering::Relaxed);
        }
    });
    let learner =
        Learner::start(handle.clone(), experiments, Arc::new(()), hook).expect("a learner");

    let done = Done::default();
    let span = Stopwatch::start();
    std::thread::scope(|scope| {
        for client in 0..clients {
            let (handle, keys, experiment, done) = (&handle, &keys, &experiment, &done);
            scope.spawn(move || post(client, opened.origin, handle, keys, experiment, done));
        }
    });
    let seconds = span.elapsed().as_secs_f64();
    let accepted = done.accepted.into_inner() as f64;
    let made = commits.count.load(Ordering::Relaxed) as f64;
    let posting = format!(
        "{clients} clients, batches of {BATCH}: {:.0} durable rewards/s ({:.0} commits/s of {:.2} ms; parsing {:.2} µs a reward; {} events dropped; snapshots at most {:.0} ms behind)",
        accepted / seconds,
        made / seconds,
        commits.micros.load(Ordering::Relaxed) as f64 / made / 1e3,
        done.parsing_nanos.into_inner() as f64 / accepted / 1e3,
        handle.dropped(),
        lag.load(Ordering::Relaxed) as f64 / 1e3,
    );
    learner.shutdown();
    ledger.shutdown();
    let restart = Stopwatch::start();
    let (ledger, opened) = Ledger::start(&config).expect("a ledger");
    let seconds = restart.elapsed().as_secs_f64();
    ledger.shutdown();
    let events = opened.report.events;
    writeln!(
        std::io::stdout(),
        "{posting}\nrecovery: {events} events in {seconds:.2} s"
    )
    .expect("a terminal");
}
