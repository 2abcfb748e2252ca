//! What journalling a decision costs the thread that serves the request: building the event and leaving it in the queue, in CPU time of that
//! thread. The ledger writes to a disk meanwhile.
//!
//! `cargo bench --bench recorder -- [DIRECTORY]`: the directory is on the disk that is written to.

use std::fs;
use std::hint::black_box;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pointsman::clock::{Clock, Stopwatch, SystemClock};
use pointsman::decision_id::Keys;
use pointsman::engine::event::Event;
use pointsman::engine::fold::Limits;
use pointsman::experiment::decision::{Decision, Ending, LoggedDecision, Outcome, Reason};
use pointsman::experiment::id::{ArmId, ExperimentId, PolicyVersion, SequenceKey, UnitHash};
use pointsman::journal::Durability;
use pointsman::ledger::{Config, Ledger, Retention, Unobserved};

/// Decisions that are recorded in one go; the queue takes them all.
const GO: u64 = 10_000;
const GOES: u64 = 100;

/// CPU time of this thread so far, in nanoseconds.
fn cpu() -> u64 {
    // It is brought up to date when the thread gives the core away.
    std::thread::yield_now();
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    text.split(' ')
        .next()
        .and_then(|field| field.parse().ok())
        .expect("a number")
}

fn decision(origin: u64, counter: u64) -> Decision {
    Decision {
        sequence: SequenceKey {
            origin,
            worker: 0,
            counter,
        },
        at: SystemClock.now(),
        experiment: ExperimentId(7),
        epoch: 1,
        arm: ArmId(counter as u32 % 4),
        policy_version: PolicyVersion([1; 6]),
        propensity: 0.25,
        reason: Reason::Sampled,
    }
}

fn main() {
    let scratch = std::env::args()
        .skip(1)
        .find(|argument| argument != "--bench");
    let scratch = scratch.map_or_else(std::env::temp_dir, PathBuf::from);
    let data = tempfile::tempdir_in(scratch).expect("a directory to write in");
    let config = Config {
        data: data.path().to_owned(),
        durability: Durability::Group,
        retention: Retention::default(),
        workers: 1,
        queue: 2 * GO as usize + 1,
        limits: Limits::default(),
        keys: Keys::derive(&[7; 32], &[]),
        clock: Arc::new(SystemClock),
        observer: Arc::new(Unobserved),
    };
    let (ledger, opened) = Ledger::start(&config).expect("a ledger");
    let handle = ledger.handle();
    let recorder = handle.recorder(0).expect("a recorder");
    let (mut decisions, mut outcomes) = (0, 0);
    let mut fastest = Duration::MAX;
    for go in 0..GOES {
        let counters = go * GO..(go + 1) * GO;
        let before = cpu();
        let watch = Stopwatch::start();
        for counter in counters.clone() {
            recorder.offer(Event::Decided(LoggedDecision {
                decision: black_box(decision(opened.origin, counter)),
                unit: Some(UnitHash(counter)),
                allocation_version: 1,
                key: None,
                instead_of: None,
                context: None,
            }));
        }
        fastest = fastest.min(watch.elapsed());
        let between = cpu();
        for counter in counters {
            recorder.offer(Event::Ended(Outcome {
                decision: black_box(decision(opened.origin, counter)),
                at: SystemClock.now(),
                ending: Ending::Answered,
                status: Some(200),
                latency_micros: 1000,
                prediction: None,
            }));
        }
        decisions += between - before;
        outcomes += cpu() - between;
        // Until the queue has been emptied: the first may be answered by a commit in the middle of that. Waiting takes no CPU.
        for _ in 0..2 {
            handle.allocated(Vec::new()).expect("a journal");
        }
    }
    let each = |nanos: u64| nanos as f64 / (GO * GOES) as f64;
    let told = format!(
        "request thread's CPU: {:.0} ns a decision, {:.0} ns an outcome ({} of each; {} dropped; in the fastest go {:.0} ns a decision by the clock)",
        each(decisions),
        each(outcomes),
        GO * GOES,
        handle.dropped(),
        fastest.as_nanos() as f64 / GO as f64
    );
    writeln!(std::io::stdout(), "{told}").expect("a terminal");
    ledger.shutdown();
}
