//! The learner over a real ledger on a disk in memory.

mod availability;

use std::sync::Mutex as StdMutex;

use super::*;
use crate::experiment::id::ArmId;
use crate::experiment::reward::Aggregate;
use crate::experiment::{MissingUnit, UnitRule, UnitSource};
use crate::journal::memory::Faults;
use crate::ledger::tests::{Rig, experiment};
use crate::ledger::{Ledger, Peeked};

type Log = Arc<StdMutex<Vec<Vec<usize>>>>;

fn start(rig: &Rig, experiments: &[&Arc<Experiment>]) -> (Learner<&'static str>, Log) {
    let log = Log::default();
    let hook: Hook<&'static str> = Box::new({
        let log = Arc::clone(&log);
        move |_, changed, _| log.lock().unwrap().push(changed.to_vec())
    });
    let experiments = experiments
        .iter()
        .map(|experiment| Arc::clone(experiment))
        .collect();
    let learner = Learner::start(rig.handle.clone(), experiments, Arc::new("first"), hook).unwrap();
    (learner, log)
}

fn serving(learner: &Learner<&'static str>, index: usize) -> Arc<Serving> {
    Arc::clone(&learner.published().load().experiments[index])
}

/// Waits until experiment 0 serves as `wanted`.
fn wait_for(learner: &Learner<&'static str>, wanted: impl Fn(&Serving) -> bool) -> Arc<Serving> {
    loop {
        let serving = serving(learner, 0);
        if wanted(&serving) {
            return serving;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn sticky(text: &str) -> Experiment {
    let mut sticky = experiment("stars", text, &["a", "b"]);
    sticky.unit = Some(UnitRule {
        source: UnitSource::Header("x-user".to_owned()),
        missing: MissingUnit::Random,
        reallocate: 600_000,
        salt: String::new(),
    });
    sticky
}

#[test]
fn a_reward_moves_the_allocation_and_a_restart_finds_it_again() {
    let mut rig = Rig::new();
    let stars = Arc::new(experiment("stars", "1", &["a", "b"]));
    let other = Arc::new(experiment("other", "1", &["x"]));
    let (learner, log) = start(&rig, &[&stars, &other]);
    let before = serving(&learner, 0);
    let untouched = serving(&learner, 1);
    assert_eq!((before.epoch, before.allocation.version), (1, 1));
    assert_eq!(untouched.allocation.probabilities, [1.0]);
    let favoured = usize::from(before.allocation.probabilities[0] > 0.5);
    rig.reward(rig.decision(&stars, favoured, 1), 1.0).unwrap();
    let after = wait_for(&learner, |serving| serving.allocation.version == 2);
    assert_eq!(after.arms[favoured].tally.rewards.count(), 1);
    assert!(after.allocation.probabilities[favoured] > 0.5);
    assert!(Arc::ptr_eq(&untouched, &serving(&learner, 1)));
    assert_eq!(log.lock().unwrap().first(), Some(&vec![0, 1]));
    assert!(log.lock().unwrap().contains(&vec![0]));
    learner.shutdown();

    rig.restart();
    let (learner, _) = start(&rig, &[&stars, &other]);
    assert_eq!(
        serving(&learner, 0).allocation.probabilities,
        after.allocation.probabilities
    );
    assert_eq!(
        serving(&learner, 0).arms[favoured].tally,
        after.arms[favoured].tally
    );
}

#[test]
fn a_successor_serves_what_was_journalled_before_the_journal_is_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let mut rig = Rig::new();
    rig.config.data = directory.path().to_owned();
    let (ledger, opened) = Ledger::start(&rig.config).unwrap();
    rig.handle = ledger.handle();
    rig.origin = opened.origin;
    let stars = Arc::new(experiment("stars", "1", &["a", "b"]));
    let (learner, _) = start(&rig, &[&stars]);
    rig.reward(rig.decision(&stars, 0, 1), 1.0).unwrap();
    let after = wait_for(&learner, |serving| serving.allocation.version == 2);

    let now = rig.handle.now();
    let peeked = Peeked::read(&rig.config.data, rig.config.limits, now).unwrap();
    let same = [Arc::clone(&stars)];
    assert!(peeked.are_in_force(&same));
    let prospects = peeked.prospects(&same).unwrap();
    let published = provisional(&same, &prospects, Arc::new("successor"), now).unwrap();
    let serving = &published.experiments[0];
    assert_eq!(serving.epoch, after.epoch);
    assert_eq!(serving.allocation.version, 2);
    assert_eq!(
        serving.allocation.probabilities,
        after.allocation.probabilities
    );
    assert_eq!(serving.arms[0].tally, after.arms[0].tally);

    // Nothing is drawn from what is not in the journal.
    for other in [
        vec![Arc::new(experiment("stars", "2", &["a", "b"]))],
        vec![Arc::new(experiment("new", "1", &["a"]))],
    ] {
        assert!(!peeked.are_in_force(&other));
        let prospects = peeked.prospects(&other).unwrap();
        assert!(provisional(&other, &prospects, Arc::new("successor"), now).is_none());
    }
    assert!(!peeked.are_in_force(&[]));
    let both = [stars, Arc::new(experiment("new", "1", &["a"]))];
    assert!(!peeked.are_in_force(&both));
    drop(learner);
    drop(ledger);
}

#[test]
fn nothing_is_adopted_while_the_journal_cannot_take_it() {
    let rig = Rig::new();
    let stars = Arc::new(experiment("stars", "1", &["a", "b"]));
    let (learner, _) = start(&rig, &[&stars]);
    rig.storage.set_faults(Faults {
        syncs: 1,
        creates: u32::MAX,
        ..Faults::default()
    });
    assert!(rig.reward(rig.decision(&stars, 0, 1), 1.0).is_err());
    let changed = Arc::new(experiment("stars", "2", &["a", "b", "c"]));
    let refused = learner.adopt(vec![Arc::clone(&changed)], Arc::new("second"));
    assert!(matches!(refused, Err(AdoptError::Unavailable(_))));
    assert_eq!(*learner.published().load().router, "first");
    assert_eq!(serving(&learner, 0).arms.len(), 2);
    rig.storage.set_faults(Faults::default());
    while learner
        .adopt(vec![Arc::clone(&changed)], Arc::new("second"))
        .is_err()
    {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(*learner.published().load().router, "second");
    let serving = serving(&learner, 0);
    assert_eq!((serving.arms.len(), serving.epoch), (3, 1));
    assert!(serving.allocation.version >= 2);
    // Journalled when the disk took it, though its client was told to come back.
    wait_for(&learner, |serving| {
        serving.arms[0].tally.rewards.count() == 1
    });
}

#[test]
fn sticky_units_are_moved_when_their_time_has_come() {
    let mut rig = Rig::new();
    let stars = Arc::new(sticky("1"));
    let (learner, _) = start(&rig, &[&stars]);
    let first = serving(&learner, 0);
    let favoured = usize::from(first.allocation.probabilities[0] > 0.5);
    rig.reward(rig.decision(&stars, favoured, 1), 1.0).unwrap();
    let learned = wait_for(&learner, |serving| {
        serving.arms[favoured].tally.learned.count() == 1
    });
    assert_eq!(learned.allocation.version, first.allocation.version);
    learner.shutdown();
    rig.restart();
    let (learner, _) = start(&rig, &[&stars]);
    assert_eq!(
        serving(&learner, 0).allocation.version,
        first.allocation.version
    );
    rig.clock.advance(600_000);
    let moved = wait_for(&learner, |serving| serving.allocation.version == 2);
    assert!(moved.allocation.probabilities[favoured] > 0.5);
    rig.reward(rig.decision(&stars, 1 - favoured, 2), 1.0)
        .unwrap();
    rig.reward(rig.decision(&stars, 1 - favoured, 3), 1.0)
        .unwrap();
    let changed = Arc::new(sticky("2"));
    learner.adopt(vec![changed], Arc::new("second")).unwrap();
    assert_eq!(serving(&learner, 0).allocation.version, 3);
}

#[test]
fn an_operators_orders_serve_at_once_and_outlast_reloads_and_restarts() {
    let mut rig = Rig::new();
    let stars = Arc::new(sticky("1"));
    let (learner, _) = start(&rig, &[&stars]);
    let arm = stars.arms[0].id;
    let order = |learner: &Learner<&'static str>, order| {
        learner.operator().order(stars.id, order, None).unwrap()
    };
    let without = order(&learner, Order::Disable(arm)).unwrap();
    assert_eq!(without.allocation.probabilities, [0.0, 1.0]);
    assert!(!without.arms[0].enabled && without.arms[1].enabled);
    assert!(Arc::ptr_eq(&without, &serving(&learner, 0)));
    assert!(order(&learner, Order::Disable(ArmId(1))).is_none());
    let paused = order(&learner, Order::Pause).unwrap();
    assert!(paused.paused && serving(&learner, 0).paused);
    let again = order(&learner, Order::Pause).unwrap();
    assert_eq!(again.allocation.version, paused.allocation.version);
    learner
        .adopt(vec![Arc::new(sticky("2"))], Arc::new("second"))
        .unwrap();
    let reloaded = serving(&learner, 0);
    assert!(reloaded.paused && reloaded.allocation.probabilities[0] == 0.0);
    learner.shutdown();
    rig.restart();
    let (learner, _) = start(&rig, &[&stars]);
    let restarted = serving(&learner, 0);
    assert!(restarted.paused && !restarted.arms[0].enabled);
    assert_eq!(restarted.allocation.probabilities, [0.0, 1.0]);
    let with = order(&learner, Order::Enable(arm)).unwrap();
    assert!(with.arms[0].enabled && with.allocation.probabilities[0] > 0.0);
    let resumed = order(&learner, Order::Resume).unwrap();
    assert!(!resumed.paused && !serving(&learner, 0).paused);
    let unknown = learner.operator();
    let unknown = unknown.order(ExperimentId(1), Order::Pause, None).unwrap();
    assert!(unknown.is_none());
    let written = rig.storage.contents().concat();
    let orders = String::from_utf8_lossy(&written)
        .matches("\"type\":\"operator\"")
        .count();
    assert_eq!(orders, 4, "what changes nothing is not written");
}

#[test]
fn an_arm_that_begins_anew_serves_as_one() {
    let rig = Rig::new();
    let stars = Arc::new(experiment("stars", "1", &["a", "b"]));
    let (learner, _) = start(&rig, &[&stars]);
    rig.reward(rig.decision(&stars, 0, 1), 1.0).unwrap();
    let before = wait_for(&learner, |serving| {
        serving.arms[0].tally.rewards.count() == 1
    });
    let reset = Order::Reset(stars.arms[0].id);
    let after = learner.operator().order(stars.id, reset, None).unwrap();
    let after = after.unwrap();
    assert_eq!(after.arms[0].tally.rewards.count(), 0);
    assert!(after.allocation.version > before.allocation.version);
}

#[test]
fn orders_wait_for_a_disk_that_takes_them() {
    let rig = Rig::new();
    let stars = Arc::new(experiment("stars", "1", &["a", "b"]));
    let (learner, _) = start(&rig, &[&stars]);
    rig.storage.set_faults(Faults {
        syncs: 1,
        creates: u32::MAX,
        ..Faults::default()
    });
    assert!(rig.reward(rig.decision(&stars, 0, 1), 1.0).is_err());
    let operator = learner.operator();
    let order = || operator.order(stars.id, Order::Pause, None);
    assert!(matches!(order(), Err(AdoptError::Unavailable(_))));
    assert!(!serving(&learner, 0).paused);
    rig.storage.set_faults(Faults::default());
    while order().is_err() {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(serving(&learner, 0).paused);
}

#[test]
fn a_new_epoch_starts_from_nothing_with_the_next_version() {
    let rig = Rig::new();
    let stars = Arc::new(experiment("stars", "1", &["a", "b"]));
    let (learner, _) = start(&rig, &[&stars]);
    rig.reward(rig.decision(&stars, 0, 1), 1.0).unwrap();
    wait_for(&learner, |serving| {
        serving.arms[0].tally.learned.count() == 1
    });
    let version = serving(&learner, 0).allocation.version;
    let mut meant = experiment("stars", "2", &["a", "b"]);
    meant.reward.aggregate = Aggregate::Max;
    learner
        .adopt(vec![Arc::new(meant)], Arc::new("second"))
        .unwrap();
    let fresh = serving(&learner, 0);
    assert_eq!((fresh.epoch, fresh.allocation.version), (2, version + 1));
    assert_eq!(fresh.arms[0].tally.learned.count(), 0);
}
