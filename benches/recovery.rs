//! What a start costs, and what is remembered: bytes of each kind of line, events recovered a second on one core, and the memory of a fold
//! while ten million decisions are outstanding.
//!
//! `cargo bench --no-default-features --bench recovery -- [DIRECTORY] [MILLIONS]`: the directory is on the disk to be measured.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use pointsman::clock::{Stopwatch, Timestamp};
use pointsman::decision_id::Keys;
use pointsman::engine::event::{Event, PolicyAdopted, Rewarded, Verdict};
use pointsman::engine::fold::{Limits, State};
use pointsman::engine::replay::Replay;
use pointsman::experiment::decision::{Decision, Ending, LoggedDecision, Outcome, Reason};
use pointsman::experiment::id::{ArmId, ExperimentId, Name, PolicyVersion, SequenceKey, UnitHash};
use pointsman::experiment::reward::{Aggregate, Goal, Learn, RewardKind, RewardRule};
use pointsman::journal::{
    Directory, Durability, Encoder, FileStorage, Options, Position, Writer, recover,
};
use pointsman::policy::Statistics;

const START: u64 = 1_795_500_000_000;
const DAY: u64 = 24 * 3_600_000;
const ORIGIN: u64 = 1 << 60;

/// Decisions in the journal that is recovered; each has an outcome, and every other one a reward.
const RECORDED: u64 = 600_000;

fn say(text: &str) {
    writeln!(std::io::stdout(), "{text}").expect("a terminal");
}

fn policy() -> PolicyAdopted {
    let name = Name::new("star-rating").expect("a name");
    let arm = |index: u32| {
        let arm = Name::new(&format!("variant-{index}")).expect("a name");
        (ArmId::of(&name, &arm, ""), arm, String::new())
    };
    PolicyAdopted {
        metric: None,
        at: Timestamp::from_millis(START),
        experiment: ExperimentId::of(&name),
        version: PolicyVersion([1; 6]),
        epoch: 1,
        declared_epoch: 1,
        reward_meaning: String::new(),
        reward: RewardRule {
            kind: RewardKind::Binary,
            window: DAY,
            default: Some(0.0),
            aggregate: Aggregate::First,
            goal: Goal::Maximize,
            learn: Learn::Arrival,
            on_failure: None,
        },
        label: None,
        context: None,
        shadow: None,
        statistics: Statistics::SCALAR,
        arms: (0..4).map(arm).collect(),
        text: Arc::from(""),
        name,
    }
}

/// The `counter`-th decision; all of them are made within twelve hours, so that no window closes.
fn decision(policy: &PolicyAdopted, counter: u64, of: u64) -> Decision {
    Decision {
        sequence: SequenceKey {
            origin: ORIGIN,
            worker: (counter % 2) as u16,
            counter: counter / 2,
        },
        at: Timestamp::from_millis(START + counter * (DAY / 2) / of),
        experiment: policy.experiment,
        epoch: 1,
        arm: policy.arms[(counter % 4) as usize].0,
        policy_version: policy.version,
        propensity: 0.1 + 0.2,
        reason: Reason::Sampled,
    }
}

fn decided(decision: Decision) -> Event {
    Event::Decided(LoggedDecision {
        decision,
        unit: Some(UnitHash(
            decision
                .sequence
                .counter
                .wrapping_mul(0x9e37_79b9_7f4a_7c15),
        )),
        allocation_version: 12,
        key: None,
        instead_of: None,
        context: None,
    })
}

fn ended(decision: Decision) -> Event {
    Event::Ended(Outcome {
        decision,
        at: decision.at.plus(12),
        ending: Ending::Answered,
        status: Some(200),
        latency_micros: 12_345,
        prediction: None,
    })
}

fn rewarded(decision: Decision) -> Event {
    Event::Rewarded(Box::new(Rewarded {
        decision,
        received: decision.at.plus(60_000),
        at: None,
        metric: None,
        id: None,
        value: 1.0,
        label: None,
        context: None,
        verdict: Verdict::Accepted,
    }))
}

fn started() -> Event {
    Event::Started {
        at: Timestamp::from_millis(START),
        origin: ORIGIN,
    }
}

fn encoder() -> Encoder {
    Encoder::new(Keys::derive(&[7; 32], &[]), Directory::default())
}

fn lines(policy: &PolicyAdopted) {
    let mut encoder = encoder();
    encoder.encode(
        &Event::PolicyAdopted(Box::new(policy.clone())),
        &mut Vec::new(),
    );
    let decision = decision(policy, 123_456, RECORDED);
    for (what, event) in [
        ("decision", decided(decision)),
        ("outcome", ended(decision)),
        ("reward", rewarded(decision)),
    ] {
        let mut line = Vec::new();
        encoder.encode(&event, &mut line);
        say(&format!("bytes of a line: {what} {}", line.len()));
    }
}

/// Writes a journal and recovers it.
fn recovery(scratch: &PathBuf, policy: &PolicyAdopted) {
    let directory = tempfile::tempdir_in(scratch).expect("a directory to write in");
    let storage = FileStorage::open(directory.path()).expect("a journal");
    let options = Options {
        durability: Durability::None,
        ..Options::default()
    };
    let mut writer = Writer::new(storage.clone(), encoder(), Position::default(), options);
    let mut append = |event: Event| {
        writer.append(&event).expect("room");
        if writer.pending_bytes() > 1 << 18 {
            writer.commit().expect("a disk");
        }
    };
    append(started());
    append(Event::PolicyAdopted(Box::new(policy.clone())));
    for counter in 0..RECORDED {
        let decision = decision(policy, counter, RECORDED);
        append(decided(decision));
        append(ended(decision));
        if counter % 2 == 0 {
            append(rewarded(decision));
        }
    }
    writer.commit().expect("a disk");
    let bytes: u64 = fs::read_dir(directory.path())
        .expect("a journal")
        .filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()))
        .sum();
    for _ in 0..3 {
        let now = Timestamp::from_millis(START + 2 * DAY);
        let mut replay = Replay::new(Limits::default(), now);
        let span = Stopwatch::start();
        let found = recover(&storage, |event| replay.push(&event)).expect("a readable journal");
        let state = replay.finish();
        let seconds = span.elapsed().as_secs_f64();
        let rewards: u64 = state
            .tallies(policy.experiment)
            .iter()
            .map(|(_, tally)| tally.rewards.count())
            .sum();
        assert_eq!(rewards, RECORDED / 2);
        let events = found.report.events as f64;
        say(&format!(
            "recovery on one core: {events:.0} events ({:.0} MB) in {seconds:.2} s, {:.0} events/s",
            bytes as f64 / 1e6,
            events / seconds
        ));
    }
}

fn resident() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kilobytes.unwrap_or(f64::NAN) / 1024.0
}

/// Folds decisions whose windows stay open, and a reward for every tenth.
fn outstanding(policy: &PolicyAdopted, millions: u64) {
    let mut state = State::new(Limits::default());
    state.apply(&started());
    state.apply(&Event::PolicyAdopted(Box::new(policy.clone())));
    let before = resident();
    let (all, span) = (millions * 1_000_000, Stopwatch::start());
    for counter in 0..all {
        let decision = decision(policy, counter, all);
        state.apply(&decided(decision));
        // Spread over both workers.
        if counter % 20 < 2 {
            state.apply(&rewarded(decision));
        }
        if (counter + 1) % 1_000_000 == 0 {
            state.advance(decision.at);
            say(&format!(
                "outstanding decisions: {} million, memory of the fold {:.1} MiB",
                (counter + 1) / 1_000_000,
                resident() - before
            ));
        }
    }
    let waiting: u64 = state
        .tallies(policy.experiment)
        .iter()
        .map(|(_, tally)| tally.waiting)
        .sum();
    assert_eq!(waiting, all - all / 10);
    say(&format!(
        "folded at {:.0} events/s",
        all as f64 * 1.1 / span.elapsed().as_secs_f64()
    ));
}

fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench");
    let scratch = arguments
        .next()
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let millions = arguments
        .next()
        .map_or(10, |text| text.parse().expect("a number"));
    let policy = policy();
    lines(&policy);
    outstanding(&policy, millions);
    recovery(&scratch, &policy);
}
