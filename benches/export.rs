//! Rows exported per second, and lines verified, on one thread: of a journal on disk in which each decision has an outcome and a reward.
//!
//! `cargo bench --no-default-features --bench export`, or with the number of decisions at its end: `-- 2000000`

use std::io::{self, Write};
use std::sync::Arc;

use pointsman::clock::{Stopwatch, Timestamp};
use pointsman::decision_id::Keys;
use pointsman::engine::event::{Event, PolicyAdopted, Rewarded, Verdict};
use pointsman::experiment::context::{ContextRule, Encoding, Feature, Scale, Source, Value};
use pointsman::experiment::decision::{
    Decision, Ending, Label, LoggedContext, LoggedDecision, Outcome, Reason,
};
use pointsman::experiment::id::{ArmId, ExperimentId, Name, PolicyVersion, SequenceKey};
use pointsman::experiment::reward::{Aggregate, Goal, Learn, RewardKind, RewardRule};
use pointsman::export::{Destination, Format, Selection, Shape, Sink, export, sink};
use pointsman::journal::writer::Position;
use pointsman::journal::{Directory, Durability, Encoder, FileStorage, Options, Writer};
use pointsman::policy::Statistics;
use pointsman::verify::verify;

const START: u64 = 1_795_500_000_000;

fn main() -> io::Result<()> {
    let decisions = std::env::args().find_map(|argument| argument.parse().ok());
    let decisions: u64 = decisions.unwrap_or(300_000);
    for contextual in [false, true] {
        let folder = tempfile::tempdir()?;
        let storage = FileStorage::open(folder.path())?;
        journal(&storage, decisions, contextual)?;
        let size =
            |file: io::Result<std::fs::DirEntry>| Ok::<u64, io::Error>(file?.metadata()?.len());
        let bytes: u64 = std::fs::read_dir(folder.path())?
            .map(size)
            .sum::<io::Result<_>>()?;
        let what = if contextual {
            "3 features, 10 arms"
        } else {
            "no context, 2 arms"
        };
        tell(&format!(
            "{what}: {decisions} decisions, {} bytes each with outcome and reward",
            bytes / decisions
        ));
        for (name, format) in formats() {
            let effort = Effort::start();
            let mut nowhere = Nowhere(format);
            let now = Timestamp::from_millis(2 * START);
            let selection = Selection::default();
            let summary = export(&storage, &selection, now, &mut nowhere, &mut |_| ())
                .map_err(io::Error::other)?;
            assert_eq!(summary.rows, decisions);
            effort.tell(&format!("export {name}"), "rows", decisions);
        }
        let effort = Effort::start();
        let found = verify(&storage, &[], &mut |_| ())?;
        assert!(found.holds(), "{:?}", found.problems);
        effort.tell("verify", "lines", 3 * decisions);
    }
    Ok(())
}

fn formats() -> Vec<(&'static str, Format)> {
    vec![
        ("jsonl", Format::Jsonl),
        ("csv", Format::Csv),
        ("dsjson", Format::Dsjson),
        #[cfg(feature = "parquet")]
        ("parquet", Format::Parquet),
    ]
}

fn tell(line: &str) {
    writeln!(io::stdout(), "{line}").ok();
}

/// A rate by the processor's time, which other processes do not take from it; where the system does not tell that, by the wall's.
struct Effort {
    watch: Stopwatch,
    processor: Option<f64>,
}

impl Effort {
    fn start() -> Self {
        Self {
            watch: Stopwatch::start(),
            processor: processor_seconds(),
        }
    }

    fn tell(&self, what: &str, unit: &str, count: u64) {
        let wall = self.watch.elapsed().as_secs_f64();
        let processor = self.processor.zip(processor_seconds());
        let processor = processor.map_or(wall, |(before, after)| after - before);
        let rate = |seconds: f64| count as f64 / seconds;
        tell(&format!(
            "  {what:<16} {:>9.0} {unit}/s of processor time, {:>9.0} {unit}/s of wall time",
            rate(processor),
            rate(wall)
        ));
    }
}

/// What this thread has used (Linux).
fn processor_seconds() -> Option<f64> {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds: u64 = told.split_whitespace().next()?.parse().ok()?;
    Some(nanoseconds as f64 / 1e9)
}

/// Takes all that is written.
struct Nowhere(Format);

impl Destination for Nowhere {
    fn open(&mut self, _experiment: Option<&str>, shape: &Shape) -> io::Result<Box<dyn Sink>> {
        sink(self.0, shape, Box::new(io::sink()))
    }

    fn is_split(&self) -> bool {
        false
    }
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

/// A category, a length, a truth value.
fn features() -> Arc<ContextRule> {
    let feature = |name: &str, encoding| Feature {
        name: name.into(),
        source: Source::Header(name.into()),
        encoding,
    };
    let scale = Scale {
        center: 0.0,
        scale: 1.0,
        log: true,
        missing: 0.0,
    };
    Arc::new(ContextRule::new(vec![
        feature("category", Encoding::Hashed(16)),
        feature("length", Encoding::Length(scale)),
        feature("prime", Encoding::Boolean),
    ]))
}

fn policy(contextual: bool) -> PolicyAdopted {
    let experiment = name("star-rating");
    let arm = |index: u32| {
        let arm = name(&format!("variant-{index}"));
        (ArmId::of(&experiment, &arm, ""), arm, String::new())
    };
    PolicyAdopted {
        metric: None,
        at: Timestamp::from_millis(START),
        experiment: ExperimentId::of(&experiment),
        version: PolicyVersion([1; 6]),
        epoch: 1,
        declared_epoch: 1,
        reward_meaning: String::new(),
        reward: RewardRule {
            kind: RewardKind::Binary,
            window: 3_600_000,
            default: None,
            aggregate: Aggregate::First,
            goal: Goal::Maximize,
            learn: Learn::Arrival,
            on_failure: None,
        },
        label: None,
        context: contextual.then(features),
        shadow: None,
        statistics: Statistics::SCALAR,
        arms: (0..if contextual { 10 } else { 2 }).map(arm).collect(),
        text: Arc::from(""),
        name: experiment,
    }
}

/// Writes the journal.
fn journal(storage: &FileStorage, decisions: u64, contextual: bool) -> io::Result<()> {
    let policy = policy(contextual);
    let encoder = Encoder::new(Keys::derive(&[7; 32], &[]), Directory::default());
    let options = Options {
        durability: Durability::None,
        ..Options::default()
    };
    let mut writer = Writer::new(storage.clone(), encoder, Position::default(), options);
    let mut append = |event: &Event, commit: bool| {
        writer.append(event).map_err(io::Error::other)?;
        if commit { writer.commit() } else { Ok(()) }
    };
    let share = if contextual { 0.1 } else { 0.5 };
    let probabilities: Vec<_> = policy.arms.iter().map(|arm| (arm.0, share)).collect();
    let origin = 1 << 60;
    let start = Event::Started {
        at: policy.at,
        origin,
    };
    append(&start, false)?;
    append(&Event::PolicyAdopted(Box::new(policy.clone())), false)?;
    let allocation = Event::Allocated {
        at: policy.at,
        experiment: policy.experiment,
        epoch: 1,
        version: 1,
        probabilities: probabilities.clone(),
    };
    append(&allocation, true)?;
    for counter in 0..decisions {
        let at = policy.at.plus(counter);
        let decision = Decision {
            sequence: SequenceKey {
                origin,
                worker: (counter % 2) as u16,
                counter: counter / 2,
            },
            at,
            experiment: policy.experiment,
            epoch: 1,
            arm: probabilities[counter as usize % probabilities.len()].0,
            policy_version: policy.version,
            propensity: share,
            reason: Reason::Sampled,
        };
        let context = policy.context.as_ref().map(|rule| {
            let values = vec![
                Value::Text("clothing".into()),
                Value::Number((counter % 1000) as f64),
                Value::Boolean(counter % 3 == 0),
            ];
            Box::new(LoggedContext {
                context: rule.context(values.into()),
                probabilities: probabilities.clone(),
            })
        });
        let decided = Event::Decided(LoggedDecision {
            decision,
            unit: None,
            allocation_version: 1,
            key: None,
            instead_of: None,
            context,
        });
        append(&decided, false)?;
        let ended = Event::Ended(Outcome {
            decision,
            at: at.plus(40),
            ending: Ending::Answered,
            status: Some(200),
            latency_micros: 39_000 + counter % 1000,
            prediction: Some(Label::Number(5.0)),
        });
        append(&ended, false)?;
        let rewarded = Event::Rewarded(Box::new(Rewarded {
            decision,
            received: at.plus(3000),
            at: None,
            metric: None,
            id: None,
            value: (counter % 2) as f64,
            label: Some(Label::Number(4.0)),
            context: None,
            verdict: Verdict::Accepted,
        }));
        append(&rewarded, counter % 200 == 199 || counter + 1 == decisions)?;
    }
    Ok(())
}
