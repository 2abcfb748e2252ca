//! Frozen journals: a new release reads what every older one wrote. Files under `tests/fixtures` are never edited; a new
//! form of the journal gets a new folder and a test of its own.

use std::fs;
use std::path::PathBuf;

use super::super::archive::{Archive, check_index, seal_segment};
use super::super::memory::Faults;
use super::super::storage::{FileStorage, Segment, Storage};
use super::*;
use crate::engine::event::PolicyAdopted;
use crate::experiment::context::{Context, Value};
use crate::experiment::id::Name;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/journal_v1")
}

/// The same version, with what contextual policies have added.
fn contexts_folder() -> PathBuf {
    folder().with_file_name("journal_v1_contexts")
}

/// The same version, with what shadows have added.
fn shadows_folder() -> PathBuf {
    folder().with_file_name("journal_v1_shadows")
}

/// The same version, with what clients' own keys have added.
fn keys_folder() -> PathBuf {
    folder().with_file_name("journal_v1_keys")
}

/// The same version, with what an operator's orders have added.
fn orders_folder() -> PathBuf {
    folder().with_file_name("journal_v1_operator")
}

/// The same version, with what the loss of an arm's endpoints has added.
fn remaining_folder() -> PathBuf {
    folder().with_file_name("journal_v1_remaining")
}

/// The same version, with what a named reward has added.
fn metric_folder() -> PathBuf {
    folder().with_file_name("journal_v1_metric")
}

fn metric_groups() -> Vec<Vec<Event>> {
    let policy = PolicyAdopted {
        reward_meaning: "binary first metric revenue".into(),
        metric: Some(Name::new("revenue").unwrap()),
        ..samples::policy()
    };
    vec![vec![Event::PolicyAdopted(Box::new(policy))]]
}

fn write_groups(groups: &[Vec<Event>]) -> MemoryStorage {
    let storage = MemoryStorage::default();
    let mut writer = writer(&storage, Position::default());
    for group in groups {
        for event in group {
            writer.append(event).unwrap();
        }
        writer.commit().unwrap();
    }
    storage
}

/// Two segments: a sync failed after the fourth group, which was rewritten to the second one.
fn write() -> MemoryStorage {
    let storage = MemoryStorage::default();
    let mut writer = writer(&storage, Position::default());
    for (index, events) in samples::groups().iter().enumerate() {
        for event in events {
            writer.append(event).unwrap();
        }
        if index == 3 {
            storage.set_faults(Faults {
                syncs: 1,
                repairs: 1,
                ..Faults::default()
            });
            assert!(writer.commit().is_err());
        }
        writer.commit().unwrap();
    }
    storage
}

#[test]
fn version_1_is_read() {
    let mut events = Vec::new();
    let storage = FileStorage::existing(folder());
    let found = scan(&storage, |event| events.push(event)).unwrap();
    assert_eq!(events, samples::groups().concat());
    assert!(found.report.is_clean(), "{:?}", found.report);
    assert_eq!(found.report.segments, 2);
    assert_eq!(found.report.repeated_groups, 1);
    assert_eq!(found.position.group, 9);
}

#[test]
fn version_1_is_what_this_release_writes() {
    for (number, written) in (1..).zip(write().contents()) {
        let frozen = fs::read(folder().join(format!("{number:012}.jsonl"))).unwrap();
        assert_eq!(
            String::from_utf8(written).unwrap(),
            String::from_utf8(frozen).unwrap()
        );
    }
}

#[test]
fn version_1_with_contexts_is_read() {
    let mut events = Vec::new();
    let storage = FileStorage::existing(contexts_folder());
    let found = scan(&storage, |event| events.push(event)).unwrap();
    assert_eq!(events, contexts::groups().concat());
    assert!(found.report.is_clean(), "{:?}", found.report);
}

#[test]
fn version_1_with_contexts_is_what_this_release_writes() {
    let [written] = &write_groups(&contexts::groups()).contents()[..] else {
        panic!("one segment");
    };
    let frozen = fs::read_to_string(contexts_folder().join("000000000001.jsonl")).unwrap();
    assert_eq!(String::from_utf8_lossy(written), frozen);
}

#[test]
fn version_1_with_shadows_is_read() {
    let mut events = Vec::new();
    let storage = FileStorage::existing(shadows_folder());
    let found = scan(&storage, |event| events.push(event)).unwrap();
    assert_eq!(events, shadows::groups().concat());
    assert!(found.report.is_clean(), "{:?}", found.report);
}

#[test]
fn version_1_with_shadows_is_what_this_release_writes() {
    let [written] = &write_groups(&shadows::groups()).contents()[..] else {
        panic!("one segment");
    };
    let frozen = fs::read_to_string(shadows_folder().join("000000000001.jsonl")).unwrap();
    assert_eq!(String::from_utf8_lossy(written), frozen);
}

#[test]
fn version_1_with_keys_is_read() {
    let mut events = Vec::new();
    let storage = FileStorage::existing(keys_folder());
    let found = scan(&storage, |event| events.push(event)).unwrap();
    assert_eq!(events, keys::groups().concat());
    assert!(found.report.is_clean(), "{:?}", found.report);
}

#[test]
fn version_1_with_keys_is_what_this_release_writes() {
    let [written] = &write_groups(&keys::groups()).contents()[..] else {
        panic!("one segment");
    };
    let frozen = fs::read_to_string(keys_folder().join("000000000001.jsonl")).unwrap();
    assert_eq!(String::from_utf8_lossy(written), frozen);
}

#[test]
fn version_1_with_orders_is_read() {
    let mut events = Vec::new();
    let storage = FileStorage::existing(orders_folder());
    let found = scan(&storage, |event| events.push(event)).unwrap();
    assert_eq!(events, orders::groups().concat());
    assert!(found.report.is_clean(), "{:?}", found.report);
}

#[test]
fn version_1_with_orders_is_what_this_release_writes() {
    let [written] = &write_groups(&orders::groups()).contents()[..] else {
        panic!("one segment");
    };
    let frozen = fs::read_to_string(orders_folder().join("000000000001.jsonl")).unwrap();
    assert_eq!(String::from_utf8_lossy(written), frozen);
}

#[test]
fn version_1_with_own_probabilities_is_read() {
    let mut events = Vec::new();
    let storage = FileStorage::existing(remaining_folder());
    let found = scan(&storage, |event| events.push(event)).unwrap();
    assert_eq!(events, remaining::groups().concat());
    assert!(found.report.is_clean(), "{:?}", found.report);
}

/// What is looked up in a sealed segment: contexts and a prediction.
fn sealed_groups() -> Vec<Vec<Event>> {
    let mut groups = contexts::groups();
    groups.push(vec![Event::Ended(samples::outcome(1))]);
    groups
}

/// Frozen: a new release reads the segments that all older ones have sealed, and finds single lines in them by their indexes.
#[test]
fn a_sealed_segment_of_version_1_is_read() {
    let folder = folder().with_file_name("journal_v1_sealed");
    if std::env::var_os("POINTSMAN_WRITE_FIXTURES").is_some() && !folder.exists() {
        let storage = FileStorage::open(&folder).unwrap();
        let plain = write_groups(&sealed_groups()).contents().remove(0);
        storage.create(1).unwrap().append(&plain).unwrap();
        seal_segment(&storage, 1).unwrap();
        fs::remove_dir(folder.join("checkpoints")).unwrap();
    }
    let storage = FileStorage::existing(&folder);
    assert_eq!(
        (storage.list().unwrap(), storage.is_sealed(1)),
        (vec![1], true)
    );
    let mut events = Vec::new();
    let found = scan(&storage, |event| events.push(event)).unwrap();
    assert_eq!(events, sealed_groups().concat());
    assert!(found.report.is_clean(), "{:?}", found.report);

    check_index(&storage, 1).unwrap();
    let mut archive = Archive::default();
    assert_eq!(archive.refresh(&storage).unwrap(), 1);
    let with_context = |event: &Event| match event {
        Event::Decided(logged) => Some((logged.decision, logged.context.as_ref()?.context.clone())),
        _ => None,
    };
    let decided: Vec<_> = events.iter().filter_map(with_context).collect();
    assert!(decided.len() > 3, "{decided:?}");
    // A line by itself does not say which features were missing.
    let present = |context: Context| -> Vec<_> {
        let pairs = context.names.iter().cloned().zip(context.values);
        pairs
            .filter(|(_, value)| *value != Value::Missing)
            .collect()
    };
    for (decision, context) in decided {
        let found = archive.context(&storage, &decision).unwrap();
        assert_eq!(found.map(present), Some(present(context)));
    }
    let ended = samples::outcome(1);
    let found = archive.prediction(&storage, &ended.decision).unwrap();
    assert_eq!((found.is_some(), found), (true, ended.prediction));
}

#[test]
fn version_1_with_a_metric_is_read() {
    let mut events = Vec::new();
    let storage = FileStorage::existing(metric_folder());
    let found = scan(&storage, |event| events.push(event)).unwrap();
    assert_eq!(events, metric_groups().concat());
    assert!(found.report.is_clean(), "{:?}", found.report);
}

#[test]
fn version_1_with_own_probabilities_is_what_this_release_writes() {
    let [written] = &write_groups(&remaining::groups()).contents()[..] else {
        panic!("one segment");
    };
    let frozen = fs::read_to_string(remaining_folder().join("000000000001.jsonl")).unwrap();
    assert_eq!(String::from_utf8_lossy(written), frozen);
}

#[test]
fn version_1_with_a_metric_is_what_this_release_writes() {
    let [written] = &write_groups(&metric_groups()).contents()[..] else {
        panic!("one segment");
    };
    let path = metric_folder().join("000000000001.jsonl");
    if std::env::var_os("POINTSMAN_WRITE_FIXTURES").is_some() && !path.exists() {
        fs::create_dir_all(metric_folder()).unwrap();
        fs::write(&path, written).unwrap();
    }
    assert_eq!(
        String::from_utf8_lossy(written),
        fs::read_to_string(path).unwrap()
    );
}
