//! Failing disks: what was acknowledged is found again, once and in order, whatever fails and whenever the power goes.

use proptest::prelude::*;

use super::super::memory::Faults;
use super::super::writer::{Durability, GROUP_BYTES, MAX_PENDING_BYTES};
use super::*;
use crate::clock::Timestamp;

fn numbered(number: u64) -> Event {
    Event::Started {
        at: Timestamp::from_millis(0),
        origin: number,
    }
}

fn numbers(events: &[Event]) -> Vec<u64> {
    events
        .iter()
        .map(|event| match event {
            Event::Started { origin, .. } => *origin,
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn nothing_is_written_before_a_commit_and_a_segment_only_when_needed() {
    let storage = MemoryStorage::default();
    let mut writer = writer(&storage, Position::default());
    writer.commit().unwrap();
    writer.append(&numbered(1)).unwrap();
    assert!(storage.contents().is_empty());
    writer.commit().unwrap();
    writer.commit().unwrap();
    assert_eq!(storage.syncs(), 1);
    assert_eq!(numbers(&scanned(&storage).0), [1]);
    assert_eq!(writer.live_segment(), Some(1));
}

#[test]
fn a_failed_sync_is_never_repeated_on_the_same_bytes() {
    let storage = MemoryStorage::default();
    let mut writer = writer(&storage, Position::default());
    writer.append(&numbered(1)).unwrap();
    writer.commit().unwrap();
    storage.set_faults(Faults {
        syncs: 1,
        ..Faults::default()
    });
    writer.append(&numbered(2)).unwrap();
    assert!(writer.commit().is_err());
    assert!(writer.is_failing());
    // Appended while it fails: in a group of its own, so that the frozen one is rewritten unchanged.
    writer.append(&numbered(3)).unwrap();
    writer.commit().unwrap();
    assert!(!writer.is_failing());
    assert_eq!(writer.live_segment(), Some(2));
    storage.power_cut(|_| 0);
    let (events, found) = recovered(&storage);
    assert_eq!(numbers(&events), [1, 2, 3]);
    assert_eq!(found.position.group, 4);
    assert!(found.report.is_clean());
}

#[test]
fn a_group_in_two_segments_is_folded_once() {
    let storage = MemoryStorage::default();
    let mut writer = writer(&storage, Position::default());
    writer.append(&numbered(1)).unwrap();
    writer.commit().unwrap();
    // The sync fails although the bytes are there, and the old segment cannot be cut either.
    storage.set_faults(Faults {
        syncs: 1,
        repairs: 1,
        ..Faults::default()
    });
    writer.append(&numbered(2)).unwrap();
    assert!(writer.commit().is_err());
    writer.append(&numbered(3)).unwrap();
    writer.commit().unwrap();
    let (events, found) = recovered(&storage);
    assert_eq!(numbers(&events), [1, 2, 3]);
    assert_eq!(found.report.repeated_groups, 1);
    assert!(found.report.is_clean());
}

#[test]
fn a_full_disk_heals_and_leaves_no_litter() {
    let storage = MemoryStorage::default();
    let mut writer = writer(&storage, Position::default());
    writer.append(&numbered(1)).unwrap();
    writer.commit().unwrap();
    storage.set_faults(Faults {
        room: Some(20),
        ..Faults::default()
    });
    writer.append(&numbered(2)).unwrap();
    for _ in 0..50 {
        assert!(writer.commit().is_err());
    }
    assert_eq!(storage.contents().len(), 1);
    storage.set_faults(Faults::default());
    writer.commit().unwrap();
    let (events, found) = recovered(&storage);
    assert_eq!(numbers(&events), [1, 2]);
    assert!(found.report.is_clean(), "{:?}", found.report);
}

#[test]
fn segments_rotate_and_groups_stay_small() {
    let storage = MemoryStorage::default();
    let options = Options {
        segment_bytes: 1 << 20,
        durability: Durability::None,
    };
    let mut writer = Writer::new(storage.clone(), encoder(), Position::default(), options);
    for number in 0..40_000 {
        writer.append(&numbered(number)).unwrap();
        if number % 15_000 == 0 {
            writer.commit().unwrap();
        }
    }
    writer.commit().unwrap();
    assert_eq!(storage.syncs(), 0);
    let (events, found) = recovered(&storage);
    assert_eq!(numbers(&events), (0..40_000).collect::<Vec<_>>());
    assert!(found.report.segments >= 2, "{:?}", found.report);
    let contents = storage.contents().concat();
    let text = std::str::from_utf8(&contents).unwrap();
    let largest = text
        .lines()
        .filter_map(|line| line.split_once(",\"bytes\":")?.1.split(',').next())
        .map(|bytes| bytes.parse::<usize>().unwrap())
        .max();
    assert!(largest.is_some_and(|largest| largest <= GROUP_BYTES));
    assert!(largest.is_some_and(|largest| largest > GROUP_BYTES / 2));
}

#[test]
fn a_line_longer_than_a_group_has_one_of_its_own() {
    let storage = MemoryStorage::default();
    let mut writer = writer(&storage, Position::default());
    let mut policy = samples::policy();
    policy.text = "x".repeat(GROUP_BYTES + 1).into();
    writer.append(&numbered(1)).unwrap();
    writer
        .append(&Event::PolicyAdopted(Box::new(policy)))
        .unwrap();
    writer.append(&numbered(2)).unwrap();
    writer.commit().unwrap();
    assert_eq!(recovered(&storage).1.report.groups, 3);
}

#[test]
fn what_waits_for_a_dead_disk_is_bounded() {
    let storage = MemoryStorage::default();
    storage.set_faults(Faults {
        creates: u32::MAX,
        ..Faults::default()
    });
    let mut writer = writer(&storage, Position::default());
    let mut policy = samples::policy();
    policy.text = "x".repeat(1 << 20).into();
    let event = Event::PolicyAdopted(Box::new(policy));
    while writer.append(&event).is_ok() {
        assert!(writer.commit().is_err());
    }
    let pending = writer.pending_bytes();
    assert!((MAX_PENDING_BYTES..MAX_PENDING_BYTES + (2 << 20)).contains(&pending));
    storage.set_faults(Faults::default());
    writer.commit().unwrap();
    assert_eq!(writer.pending_bytes(), 0);
    assert!(recovered(&storage).1.report.is_clean());
}

#[derive(Debug, Clone)]
enum Step {
    Append(usize),
    Commit,
    Fault(Faults),
    Heal,
    Kill,
    PowerCut,
}

fn any_faults() -> impl Strategy<Value = Faults> {
    let room = prop_oneof![3 => Just(None), 2 => (0_usize..600).prop_map(Some)];
    (room, 0_u32..3, 0_u32..2, 0_u32..2, 0_u32..3).prop_map(
        |(room, syncs, directory_syncs, creates, repairs)| Faults {
            seals: 0,
            room,
            syncs,
            directory_syncs,
            creates,
            repairs,
            operations: None,
        },
    )
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1_usize..4).prop_map(Step::Append),
        6 => Just(Step::Commit),
        2 => any_faults().prop_map(Step::Fault),
        2 => Just(Step::Heal),
        1 => Just(Step::Kill),
        1 => Just(Step::PowerCut),
    ]
}

/// The writer with its disk, and what it owes.
struct Model {
    storage: MemoryStorage,
    writer: Writer<MemoryStorage>,
    next: u64,
    /// Appended or recovered by this process, not acknowledged.
    pending: Vec<u64>,
    /// Must be there after any crash.
    owed: Vec<u64>,
}

impl Model {
    fn new() -> Self {
        let storage = MemoryStorage::default();
        Self {
            writer: writer(&storage, Position::default()),
            storage,
            next: 1,
            pending: Vec::new(),
            owed: Vec::new(),
        }
    }

    fn step(&mut self, step: &Step, choose: &mut impl FnMut(usize) -> usize) {
        match step {
            Step::Append(count) => {
                for _ in 0..*count {
                    self.writer.append(&numbered(self.next)).unwrap();
                    self.pending.push(self.next);
                    self.next += 1;
                }
            }
            Step::Commit => {
                if self.writer.commit().is_ok() {
                    self.owed.append(&mut self.pending);
                    self.owed.sort_unstable();
                }
            }
            Step::Fault(faults) => self.storage.set_faults(*faults),
            Step::Heal => self.storage.set_faults(Faults::default()),
            Step::Kill => self.restart(),
            Step::PowerCut => {
                self.storage.power_cut(choose);
                self.restart();
            }
        }
    }

    fn restart(&mut self) {
        self.storage.set_faults(Faults::default());
        let (events, found) = recovered(&self.storage);
        let found_numbers = numbers(&events);
        assert!(
            found_numbers.is_sorted_by(|a, b| a < b),
            "{found_numbers:?}"
        );
        let lost: Vec<_> = self
            .owed
            .iter()
            .filter(|number| !found_numbers.contains(number))
            .collect();
        assert!(lost.is_empty(), "lost {lost:?}");
        assert!(found_numbers.iter().all(|number| *number < self.next));
        assert_eq!(found.report.misnumbered_groups, 0);
        // The last group may be in doubt until the next commit.
        self.pending = found_numbers;
        self.pending.retain(|number| !self.owed.contains(number));
        self.writer = writer(&self.storage, found.position);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]
    #[test]
    fn nothing_acknowledged_is_lost_or_doubled(
        steps in proptest::collection::vec(any_step(), 1..60),
        seed in any::<u64>(),
    ) {
        let mut state = seed;
        let mut choose = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        let mut model = Model::new();
        for step in &steps {
            model.step(step, &mut choose);
        }
        model.step(&Step::PowerCut, &mut choose);
    }
}
