//! Finished segments: sealed, folded into checkpoints, looked into and deleted, and nobody notices but the disk.

use super::refold::{Keeping, rule};
use super::*;
use crate::experiment::context::Value;
use crate::experiment::decision::LoggedContext;
use crate::journal::checkpoint::newest;
use crate::policy::{Memory, Regressed, Regression, Statistics};

/// Sums over contexts, and nothing else that would be kept.
const LINEAR: Statistics = Statistics {
    memory: Memory::Forever,
    importance: None,
    regression: Some(Regression::Linear),
};

fn learning() -> Arc<Experiment> {
    Arc::new(Experiment {
        policy: Arc::new(Keeping(LINEAR)),
        context: Some(Arc::new(rule())),
        ..experiment("stars", "learning", &["a", "b"])
    })
}

fn plain() -> Arc<Experiment> {
    Arc::new(Experiment {
        context: Some(Arc::new(rule())),
        ..experiment("stars", "plain", &["a", "b"])
    })
}

fn labelled() -> Arc<Experiment> {
    Arc::new(Experiment {
        label: Some(LabelRule {
            prediction: "/stars".to_owned(),
            compare: Compare::Equals,
        }),
        ..experiment("stars", "labelled", &["a", "b"])
    })
}

fn with_context(decision: Decision, prime: bool) -> Event {
    let Event::Decided(mut logged) = logged(decision) else {
        unreachable!();
    };
    logged.context = Some(Box::new(LoggedContext {
        context: rule().context(vec![Value::Boolean(prime)].into()),
        probabilities: Vec::new(),
    }));
    Event::Decided(logged)
}

/// Small segments, a checkpoint whenever one is finished, everything kept.
fn small(config: &mut Config) {
    config.retention.segment_bytes = 2000;
    config.retention.checkpoint_every = 0;
}

/// Waits for something that another thread is about to do.
fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Rig {
    /// The last segment that the newest checkpoint covers.
    fn covered(&self) -> u64 {
        let (newest, unusable) = newest(&self.storage).unwrap();
        assert!(unusable.is_empty(), "{unusable:?}");
        newest.map_or(0, |newest| newest.known.segment)
    }

    /// Waits until every finished segment is sealed and covered by a checkpoint.
    fn settle(&self) {
        until(|| {
            let segments = self.storage.list().unwrap();
            let Some((_, finished)) = segments.split_last() else {
                return false;
            };
            let sealed = finished
                .iter()
                .all(|segment| self.storage.is_sealed(*segment));
            sealed && finished.last().is_none_or(|last| *last <= self.covered())
        });
    }

    /// Waits until all windows have closed but those of this many unrewarded decisions.
    fn close(&self, experiment: &Arc<Experiment>, waiting: u64) {
        let waits = |tally: &Tally| tally.waiting;
        until(|| self.tallies(experiment).iter().map(waits).sum::<u64>() == waiting);
    }

    /// Decisions for alternate arms, every second one rewarded; those with even counters have x = 1.
    fn live_through(&self, experiment: &Experiment, counters: std::ops::Range<u64>) {
        for counter in counters {
            let decision = self.decision(experiment, counter as usize % 2, counter);
            let recorder = self.handle.recorder(0).unwrap();
            assert!(recorder.offer(with_context(decision, counter % 4 < 2)));
            if counter % 3 != 0 {
                let value = f64::from(u8::from(counter % 5 == 0));
                assert_eq!(self.reward(decision, value), judged(Verdict::Accepted));
            }
            self.clock.advance(1000);
        }
    }
}

#[test]
fn a_start_from_a_checkpoint_comes_to_the_same_as_one_from_the_beginning() {
    let mut rig = Rig::with(small);
    let stars = learning();
    rig.adopt(&[&stars]);
    rig.live_through(&stars, 0..60);
    rig.settle();
    assert!(rig.covered() > 3, "{}", rig.covered());
    assert!(rig.storage.checkpoints().unwrap().len() <= 2);
    let live = rig.tallies(&stars);
    rig.restart();
    assert_eq!(rig.tallies(&stars), live);

    // What is not in the checkpoint is found after it: the claims of before, contexts, the names of arms.
    let old = rig.decision(&stars, 1, 1);
    let first = Decision {
        sequence: SequenceKey {
            origin: rig.first_origin(),
            ..old.sequence
        },
        at: Timestamp::from_millis(START + 1000),
        ..old
    };
    assert_eq!(rig.reward(first, 1.0), judged(Verdict::Duplicate));
    rig.live_through(&stars, 100..130);
    rig.settle();
    let live = rig.tallies(&stars);
    rig.restart();
    assert_eq!(rig.tallies(&stars), live);
    for checkpoint in rig.storage.checkpoints().unwrap() {
        rig.storage.remove_checkpoint(checkpoint).unwrap();
    }
    rig.restart();
    assert_eq!(rig.tallies(&stars), live);
}

impl Rig {
    /// The origin of the first start in the journal.
    fn first_origin(&self) -> u64 {
        let mut origins = Vec::new();
        crate::journal::scan(&self.storage, |event| {
            if let Event::Started { origin, .. } = event {
                origins.push(origin);
            }
        })
        .unwrap();
        origins[0]
    }

    fn opened(&mut self) -> Result<Opened, StartError> {
        self.ledger = None;
        let directory = Path::new("memory");
        let (ledger, opened) = Ledger::start_on(self.storage.clone(), directory, &self.config)?;
        self.handle = ledger.handle();
        self.ledger = Some(ledger);
        Ok(opened)
    }
}

#[test]
fn a_damaged_checkpoint_gives_way_to_the_one_before_it() {
    let mut rig = Rig::with(small);
    let stars = learning();
    rig.adopt(&[&stars]);
    rig.live_through(&stars, 0..60);
    rig.settle();
    let live = rig.tallies(&stars);
    rig.ledger = None;
    let checkpoints = rig.storage.checkpoints().unwrap();
    let [older, newest] = checkpoints[..] else {
        panic!("{checkpoints:?}");
    };
    let mut bytes = rig.storage.read_checkpoint(newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    rig.storage.write_checkpoint(newest, &bytes).unwrap();
    assert_eq!(rig.opened().unwrap().checkpoint, Some(older));
    assert_eq!(rig.tallies(&stars), live);
}

#[test]
fn old_segments_are_deleted_and_nothing_is_forgotten() {
    let mut rig = Rig::with(|config| {
        small(config);
        config.retention.age = 3_600_000;
    });
    let stars = learning();
    rig.adopt(&[&stars]);
    rig.live_through(&stars, 0..60);
    rig.settle();
    assert_eq!(rig.storage.list().unwrap()[0], 1);
    // Beyond retention and window, and then something that finishes segments.
    rig.clock.advance(4 * 3_600_000);
    rig.live_through(&stars, 100..130);
    until(|| rig.storage.list().unwrap()[0] > 4);
    rig.settle();
    rig.close(&stars, 10);
    let live = rig.tallies(&stars);
    assert_eq!(live[0].decisions + live[1].decisions, 90);
    let opened = rig.opened().unwrap();
    assert!(opened.checkpoint.is_some());
    assert_eq!(rig.tallies(&stars), live);

    // Without its checkpoints the rest of such a journal is not taken for the whole.
    rig.ledger = None;
    for checkpoint in rig.storage.checkpoints().unwrap() {
        rig.storage.remove_checkpoint(checkpoint).unwrap();
    }
    let refused = rig.opened().unwrap_err();
    assert!(matches!(refused, StartError::Beheaded { .. }), "{refused}");
}

#[test]
fn too_many_bytes_are_deleted_as_far_as_no_window_needs_them() {
    let rig = Rig::with(|config| {
        small(config);
        config.retention.bytes = Some(4000);
    });
    let stars = learning();
    rig.adopt(&[&stars]);
    rig.live_through(&stars, 0..60);
    rig.settle();
    assert_eq!(rig.storage.list().unwrap()[0], 1);
    rig.clock.advance(2 * 3_600_000);
    rig.live_through(&stars, 100..130);
    until(|| rig.storage.list().unwrap()[0] > 4);
}

#[test]
fn a_context_that_memory_has_lost_is_found_on_the_disk() {
    let mut rig = Rig::with(|config| {
        small(config);
        config.limits.contexts = 2;
    });
    let stars = learning();
    rig.adopt(&[&stars]);
    let decisions: Vec<_> = (0..40)
        .map(|counter| rig.decision(&stars, 1, counter))
        .collect();
    let recorder = rig.handle.recorder(0).unwrap();
    let other = rig.handle.clone();
    for decision in &decisions {
        assert!(recorder.offer(with_context(*decision, decision.sequence.counter < 10)));
        // Each in a group of its own.
        other.prospects(vec![Arc::clone(&stars)]).unwrap();
    }
    rig.settle();
    rig.restart();
    for decision in &decisions[..20] {
        assert_eq!(rig.reward(*decision, 1.0), judged(Verdict::Accepted));
    }
    let tally = &rig.tallies(&stars)[1];
    let statistics = LINEAR;
    let learned = tally.detail.regressed(&statistics, 2, rig.handle.now());
    let Some(Regressed::Linear(linear)) = learned else {
        panic!("no regression");
    };
    // Twenty decisions, ten of them with x = 1; all rewarded.
    assert_eq!(linear.gram()[..2], [20.0, 10.0]);
    assert_eq!(linear.response(), [20.0, 10.0]);
    rig.settle();
    let live = rig.tallies(&stars);
    rig.restart();
    assert_eq!(rig.tallies(&stars), live);
}

#[test]
fn a_prediction_that_memory_has_lost_is_found_on_the_disk() {
    let mut rig = Rig::with(|config| {
        small(config);
        config.limits.predictions = 1;
    });
    let stars = labelled();
    rig.adopt(&[&stars]);
    let recorder = rig.handle.recorder(0).unwrap();
    let decisions: Vec<_> = (0..40)
        .map(|counter| rig.decision(&stars, 1, counter))
        .collect();
    for decision in &decisions {
        assert!(recorder.offer(logged(*decision)));
        let prediction = Label::Number(decision.sequence.counter as f64);
        assert!(recorder.offer(outcome(*decision, prediction)));
        rig.handle.prospects(vec![Arc::clone(&stars)]).unwrap();
    }
    rig.settle();
    rig.restart();
    for decision in &decisions[..10] {
        let label = Label::Number(if decision.sequence.counter < 5 {
            decision.sequence.counter as f64
        } else {
            -1.0
        });
        let answer = rig.post(*decision, Posted::Label(label)).wait();
        assert_eq!(answer, judged(Verdict::Accepted));
    }
    assert_eq!(rig.tallies(&stars)[1].rewards.sum(), 5.0);
}

#[test]
fn a_changed_policy_learns_from_what_is_left_and_counts_stay() {
    let mut rig = Rig::with(|config| {
        small(config);
        config.retention.age = 3_600_000;
    });
    let before = plain();
    rig.adopt(&[&before]);
    rig.live_through(&before, 0..60);
    rig.clock.advance(4 * 3_600_000);
    rig.live_through(&before, 100..160);
    until(|| rig.storage.list().unwrap()[0] > 4);
    rig.settle();
    rig.close(&before, 20);
    let counted = rig.tallies(&before);
    let stars = learning();
    rig.adopt(&[&stars]);
    let learned = rig.tallies(&stars);
    let statistics = LINEAR;
    for (arm, tally) in learned.iter().enumerate() {
        assert_eq!(tally.learned, counted[arm].learned);
        assert_eq!(tally.decisions, counted[arm].decisions);
        let known = tally.detail.regressed(&statistics, 2, rig.handle.now());
        let Some(Regressed::Linear(linear)) = known else {
            panic!("no regression");
        };
        let count = linear.gram()[0];
        assert!(
            count >= 20.0 && count < tally.learned.count() as f64,
            "{count}"
        );
    }
    rig.settle();
    rig.restart();
    assert_eq!(rig.tallies(&stars), learned);
}

#[test]
fn a_disk_that_takes_no_checkpoint_does_not_keep_rewards_from_counting() {
    let mut rig = Rig::with(small);
    let stars = learning();
    rig.adopt(&[&stars]);
    rig.storage.set_faults(Faults {
        seals: u32::MAX,
        ..Faults::default()
    });
    rig.live_through(&stars, 0..60);
    assert!(!rig.storage.is_sealed(1));
    let live = rig.tallies(&stars);
    rig.restart();
    assert_eq!(rig.tallies(&stars), live);
    rig.storage.set_faults(Faults::default());
    rig.live_through(&stars, 100..130);
    rig.settle();
    let live = rig.tallies(&stars);
    assert!(rig.opened().unwrap().checkpoint.is_some());
    assert_eq!(rig.tallies(&stars), live);
}
