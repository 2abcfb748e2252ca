//! A recorded journal is cut at every byte and flipped at many; recovery keeps every intact group and invents none.

use super::super::storage::{FileStorage, Storage};
use super::*;

/// Two segments and, for each, the ends of its groups with the events up to there.
struct Recorded {
    segments: [Vec<u8>; 2],
    groups: [Vec<(usize, Vec<Event>)>; 2],
}

fn record() -> Recorded {
    let mut encoder = encoder();
    let mut recorded = Recorded {
        segments: [Vec::new(), Vec::new()],
        groups: [Vec::new(), Vec::new()],
    };
    for (index, events) in samples::groups().into_iter().enumerate() {
        let half = index / 4;
        let segment = &mut recorded.segments[half];
        let start = segment.len();
        for event in &events {
            encoder.encode(event, segment);
        }
        super::super::reader::write_commit(segment, start, events.len() as u64, index as u64 + 1);
        recorded.groups[half].push((segment.len(), events));
    }
    recorded
}

fn disk(first: &[u8], second: &[u8]) -> MemoryStorage {
    let storage = MemoryStorage::default();
    storage.put(1, first);
    storage.put(2, second);
    storage
}

fn events_of<'a>(groups: impl Iterator<Item = &'a (usize, Vec<Event>)>) -> Vec<Event> {
    groups.flat_map(|(_, events)| events.clone()).collect()
}

#[test]
fn an_undamaged_journal_is_read_whole() {
    let recorded = record();
    let storage = disk(&recorded.segments[0], &recorded.segments[1]);
    let (events, found) = recovered(&storage);
    assert_eq!(events, samples::groups().concat());
    assert!(found.report.is_clean());
    assert_eq!(found.report.groups, 8);
    assert_eq!((found.position.segment, found.position.group), (3, 9));
    let last = found.position.last.unwrap();
    assert_eq!(last.segment, 2);
    assert_eq!(last.bytes, recorded.segments[1][last.start as usize..]);
    assert_eq!(storage.contents(), recorded.segments);
    let name = found
        .directory
        .arm(samples::decision(1).experiment, samples::decision(1).arm);
    assert_eq!(name.map(ToString::to_string), Some("minilm-l6".into()));
}

#[test]
fn a_cut_at_every_byte_of_the_live_segment_loses_only_the_group_it_is_in() {
    let recorded = record();
    let before = events_of(recorded.groups[0].iter());
    for length in 0..=recorded.segments[1].len() {
        let storage = disk(&recorded.segments[0], &recorded.segments[1][..length]);
        let (events, found) = recovered(&storage);
        let kept = recorded.groups[1].iter().filter(|(end, _)| *end <= length);
        let end = kept.clone().next_back().map_or(0, |(end, _)| *end);
        let expected = [before.clone(), events_of(kept)].concat();
        assert_eq!(events, expected, "cut at {length}");
        assert_eq!(found.report.cut_bytes as usize, length - end);
        assert!(found.report.damaged.is_empty(), "{:?}", found.report);
        assert_eq!(storage.contents()[1], recorded.segments[1][..end]);
    }
}

#[test]
fn a_cut_at_every_byte_of_a_sealed_segment_keeps_what_follows() {
    let recorded = record();
    let after = events_of(recorded.groups[1].iter());
    for length in 0..=recorded.segments[0].len() {
        let storage = disk(&recorded.segments[0][..length], &recorded.segments[1]);
        let (events, found) = recovered(&storage);
        let kept = recorded.groups[0].iter().filter(|(end, _)| *end <= length);
        let end = kept.clone().next_back().map_or(0, |(end, _)| *end);
        let expected = [events_of(kept), after.clone()].concat();
        assert_eq!(events, expected, "cut at {length}");
        assert_eq!(found.report.cut_bytes, 0);
        let quarantined = storage.quarantined();
        assert_eq!(quarantined.concat(), recorded.segments[0][end..length]);
        assert_eq!(found.report.damaged.len(), quarantined.len());
    }
}

#[test]
fn a_flipped_bit_loses_only_the_group_it_is_in() {
    let recorded = record();
    for half in 0..2 {
        for position in (half..recorded.segments[half].len()).step_by(3) {
            let mut segments = recorded.segments.clone();
            segments[half][position] ^= 1 << (position % 8);
            let storage = disk(&segments[0], &segments[1]);
            let (events, found) = recovered(&storage);
            let hit = recorded.groups[half]
                .iter()
                .position(|(end, _)| position < *end)
                .unwrap();
            let mut groups = recorded.groups.clone();
            groups[half].remove(hit);
            let expected = events_of(groups.iter().flatten());
            assert_eq!(events, expected, "segment {half}, byte {position}");
            assert!(!found.report.is_clean());
            assert!(found.report.missing_groups <= 1);
        }
    }
}

#[test]
fn zeros_and_noise_at_the_end_are_cut() {
    let recorded = record();
    for junk in [vec![0; 5000], vec![b'\n'; 10], vec![0xff; 100]] {
        let live = [recorded.segments[1].clone(), junk.clone()].concat();
        let storage = disk(&recorded.segments[0], &live);
        let (events, found) = recovered(&storage);
        assert_eq!(events, samples::groups().concat());
        assert_eq!(found.report.cut_bytes as usize, junk.len());
        assert_eq!(storage.contents()[1], recorded.segments[1]);
        assert!(recovered(&storage).1.report.is_clean());
    }
}

#[test]
fn a_lost_segment_is_noticed_and_deleted_old_ones_are_not() {
    let recorded = record();
    let storage = MemoryStorage::default();
    storage.put(2, &recorded.segments[1]);
    assert!(recovered(&storage).1.report.is_clean());
    let mut later = Vec::new();
    encoder().encode(&Event::Decided(samples::logged(9)), &mut later);
    super::super::reader::write_commit(&mut later, 0, 1, 19);
    storage.put(4, &later);
    let (events, found) = recovered(&storage);
    assert_eq!(events.last(), Some(&Event::Decided(samples::logged(9))));
    assert_eq!(found.report.missing_groups, 10);
    assert_eq!(found.position.group, 20);
}

#[test]
fn looking_changes_nothing() {
    let recorded = record();
    let torn = &recorded.segments[1][..recorded.segments[1].len() - 1];
    let mut flipped = recorded.segments[0].clone();
    flipped[3] ^= 1;
    let storage = disk(&flipped, torn);
    let (_, found) = scanned(&storage);
    assert!(found.report.cut_bytes > 0);
    assert_eq!(found.report.damaged.len(), 1);
    assert_eq!(found.report.damaged[0].copy, None);
    assert_eq!(storage.contents(), [flipped, torn.to_vec()]);
    assert!(storage.quarantined().is_empty());
}

#[test]
fn a_group_that_a_newer_release_wrote_stops_recovery() {
    let mut bytes = b"{\"type\":\"sealed\",\"v\":2}\n".to_vec();
    super::super::reader::write_commit(&mut bytes, 0, 1, 1);
    let storage = MemoryStorage::default();
    storage.put(1, &bytes);
    let error = recover(&storage, |_| ()).unwrap_err().to_string();
    assert!(error.contains("segment 1, byte 0"), "{error}");
    assert!(error.contains("newer release"), "{error}");
}

#[test]
fn an_unreadable_line_under_a_good_checksum_is_quarantined_with_its_group() {
    let mut bytes = Vec::new();
    encoder().encode(&Event::Decided(samples::logged(1)), &mut bytes);
    bytes.extend_from_slice(b"{\"type\":\"decision\",\"v\":1}\n");
    super::super::reader::write_commit(&mut bytes, 0, 2, 1);
    let storage = MemoryStorage::default();
    storage.put(1, &bytes);
    let (events, found) = recovered(&storage);
    assert_eq!(events, []);
    assert!(found.report.damaged[0].why.contains("missing field `id`"));
    // Looking again, after repair, gives the same.
    assert_eq!(scanned(&storage).0, []);
    assert_eq!(storage.quarantined().len(), 1);
}

#[test]
fn real_files_survive_torn_ends_and_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let storage = FileStorage::open(directory.path().join("journal")).unwrap();
    let mut written: Vec<Event> = Vec::new();
    for counter in 0..5 {
        let mut events = Vec::new();
        let found = recover(&storage, |event| events.push(event)).unwrap();
        assert_eq!(events, written);
        assert_eq!(found.report.cut_bytes, if counter == 0 { 0 } else { 7 });
        assert!(found.report.damaged.is_empty());
        let mut writer = Writer::new(
            storage.clone(),
            encoder(),
            found.position,
            Options::default(),
        );
        for event in samples::groups().concat() {
            writer.append(&event).unwrap();
            written.push(event);
        }
        writer.commit().unwrap();
        let live = storage.name(writer.live_segment().unwrap());
        let path = directory.path().join("journal").join(live);
        let torn = [std::fs::read(&path).unwrap(), b"{\"type\"".to_vec()].concat();
        std::fs::write(path, torn).unwrap();
    }
    // Each start rewrote the last group of the one before. The first segment held nothing else, and is gone.
    assert_eq!(storage.list().unwrap(), [2, 3, 4, 5]);
}
