//! A checkpoint at any place leads to the state that the whole journal leads to.

use std::fs;
use std::path::PathBuf;

use super::super::checkpoint::{Checkpoint, CheckpointError, newest};
use super::super::storage::{FileStorage, Storage};
use super::super::{Known, Options, recover_after, recover_between};
use super::*;
use crate::clock::Timestamp;
use crate::engine::fold::{Limits, State};
use crate::engine::replay::Replay;

const NOW: Timestamp = Timestamp::from_millis(1_795_600_000_000);

/// Every group in a segment of its own.
fn storage() -> MemoryStorage {
    let storage = MemoryStorage::default();
    let options = Options {
        segment_bytes: 1,
        ..Options::default()
    };
    let mut writer = Writer::new(storage.clone(), encoder(), Position::default(), options);
    for group in samples::groups().into_iter().chain(contexts::groups()) {
        for event in &group {
            writer.append(event).unwrap();
        }
        writer.commit().unwrap();
    }
    storage
}

/// What the segments before `live` amount to.
fn checkpoint<S: Storage>(storage: &S, live: u64) -> Checkpoint {
    let mut replay = Replay::new(Limits::default(), NOW);
    let found = recover_between(storage, Known::default(), live, |event| replay.push(&event));
    Checkpoint {
        known: found.unwrap().known,
        latest: replay.latest(),
        state: settled(replay.pause()),
    }
}

/// Without what is not kept.
fn settled(mut state: State) -> State {
    state.take_changed();
    state
}

#[test]
fn a_checkpoint_after_any_segment_leads_to_the_same_state() {
    let storage = storage();
    let segments = storage.list().unwrap();
    assert!(segments.len() > 10);
    let mut whole = Replay::new(Limits::default(), NOW);
    let all = recover(&storage, |event| whole.push(&event)).unwrap();
    let whole = settled(whole.finish());
    for live in segments {
        let made = checkpoint(&storage, live + 1);
        assert_eq!(made.known.segment, live);
        let read = Checkpoint::decode(&made.encode().unwrap()).unwrap();
        let state = settled(read.state.clone().resumed(Limits::default()));
        assert_eq!(
            Checkpoint {
                state,
                ..read.clone()
            },
            made
        );

        let state = read.state.resumed(Limits::default());
        let mut replay = Replay::resume(state, NOW, read.latest);
        let rest = recover_after(&storage, read.known, |event| replay.push(&event)).unwrap();
        assert_eq!(settled(replay.finish()), whole, "after segment {live}");
        assert_eq!(rest.position.group, all.position.group);
        assert_eq!(rest.position.segment, all.position.segment);
        assert_eq!(rest.known, all.known);
    }
}

#[test]
fn a_group_that_was_rewritten_after_the_checkpoint_counts_once() {
    let storage = MemoryStorage::default();
    let mut writer = writer(&storage, Position::default());
    writer.append(&samples::groups()[0][0]).unwrap();
    writer.commit().unwrap();
    let twice = storage.contents().remove(0);
    storage.put(2, &twice);
    let known = checkpoint(&storage, 2).known;
    let mut events = 0;
    let found = recover_after(&storage, known, |_| events += 1).unwrap();
    assert_eq!((events, found.report.repeated_groups), (0, 1));
}

#[test]
fn any_flipped_bit_of_a_checkpoint_is_noticed() {
    let storage = storage();
    let bytes = checkpoint(&storage, u64::MAX).encode().unwrap();
    let head = memchr::memchr(b'\n', &bytes).unwrap();
    for bit in (head * 8..bytes.len() * 8).step_by(7) {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let read = Checkpoint::decode(&flipped);
        assert!(
            matches!(read, Err(CheckpointError::Damaged(_))),
            "bit {bit}"
        );
    }
    for cut in (0..bytes.len()).step_by(11) {
        assert!(Checkpoint::decode(&bytes[..cut]).is_err());
    }
}

#[test]
fn one_of_a_newer_release_or_ahead_of_the_journal_is_not_used() {
    let storage = storage();
    let made = checkpoint(&storage, 4);
    let bytes = made.encode().unwrap();
    let line = memchr::memchr(b'\n', &bytes).unwrap();
    let head = String::from_utf8(bytes[..line].to_vec()).unwrap();
    let mut newer = head.replace("\"v\":1", "\"v\":2").into_bytes();
    newer.extend_from_slice(&bytes[line..]);
    assert!(matches!(
        Checkpoint::decode(&newer),
        Err(CheckpointError::Newer(2))
    ));
    storage.write_checkpoint(3, &bytes).unwrap();
    storage.write_checkpoint(9, &newer).unwrap();
    let mut ahead = made.clone();
    ahead.known.segment = 1000;
    storage
        .write_checkpoint(1000, &ahead.encode().unwrap())
        .unwrap();
    let (found, unusable) = newest(&storage).unwrap();
    assert_eq!(found.unwrap().known.segment, 3);
    let numbers: Vec<u64> = unusable.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, [1000, 9]);
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// Frozen: a new release reads the checkpoints of all older ones.
#[test]
fn a_checkpoint_of_version_1_is_read() {
    let path = folder().join("checkpoint_v1/000000000001.checkpoint");
    let storage = FileStorage::existing(folder().join("journal_v1_contexts"));
    let mut made = checkpoint(&storage, 2);
    if std::env::var_os("POINTSMAN_WRITE_FIXTURES").is_some() && !path.exists() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, made.encode().unwrap()).unwrap();
    }
    let read = Checkpoint::decode(&fs::read(&path).unwrap()).unwrap();
    made.state = made.state.resumed(Limits::default());
    let state = read.state.clone().resumed(Limits::default());
    assert_eq!(Checkpoint { state, ..read }, made);
}
