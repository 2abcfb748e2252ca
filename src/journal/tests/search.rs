//! Looking for a few lines among many.

use super::super::recover::{Search, search};
use super::super::storage::Storage;
use super::*;

/// Wants the lines with `word`; removes segment 2 when the first is read, if asked to.
struct Grep<'a> {
    word: &'a str,
    asked: usize,
    events: Vec<Event>,
    progress: Vec<(u64, u64)>,
    remove_from: Option<&'a MemoryStorage>,
    enough: usize,
}

impl<'a> Grep<'a> {
    fn new(word: &'a str) -> Self {
        Self {
            word,
            asked: 0,
            events: Vec::new(),
            progress: Vec::new(),
            remove_from: None,
            enough: usize::MAX,
        }
    }
}

impl Search for Grep<'_> {
    fn wants(&mut self, line: &[u8]) -> bool {
        self.asked += 1;
        String::from_utf8_lossy(line).contains(self.word)
    }

    fn event(&mut self, event: Event) {
        self.events.push(event);
    }

    fn progress(&mut self, done: u64, segments: u64) {
        self.progress.push((done, segments));
        if let Some(storage) = self.remove_from.filter(|_| done == 1) {
            storage.remove(2).unwrap();
        }
    }

    fn is_done(&self) -> bool {
        self.events.len() >= self.enough
    }
}

/// A segment whose only group has these lines and this number.
fn segment(lines: &str, group: u64) -> Vec<u8> {
    let mut bytes = lines.as_bytes().to_vec();
    let count = lines.lines().count() as u64;
    super::super::reader::write_commit(&mut bytes, 0, count, group);
    bytes
}

fn lines(events: &[Event]) -> String {
    let mut encoder = encoder();
    let mut lines = Vec::new();
    for event in events {
        encoder.encode(event, &mut lines);
    }
    String::from_utf8(lines).unwrap()
}

#[test]
fn only_wanted_lines_are_given_and_only_they_have_to_be_readable() {
    let all = samples::groups().concat();
    let outcome = Event::Ended(samples::outcome(1));
    let storage = MemoryStorage::default();
    let newer = "{\"type\":\"sealed\",\"v\":9}\n";
    storage.put(1, &segment(&format!("{}{newer}", lines(&all)), 1));
    storage.put(2, &segment(&lines(std::slice::from_ref(&outcome)), 2));
    let mut grep = Grep::new("{\"type\":\"outcome\"");
    let found = search(&storage, &mut grep).unwrap();
    let is_outcome = |event: &&Event| matches!(event, Event::Ended(_));
    let mut wanted: Vec<Event> = all.iter().filter(is_outcome).cloned().collect();
    wanted.push(outcome);
    assert_eq!(grep.events, wanted);
    assert_eq!(grep.asked, all.len() + 2);
    assert_eq!(grep.progress, [(1, 2), (2, 2)]);
    assert_eq!((found.report.groups, found.report.events), (2, 5));
    assert!(search(&storage, &mut Grep::new("sealed")).is_err());
}

#[test]
fn groups_are_checked_whatever_is_wanted_and_nothing_is_repaired() {
    let mut bytes = segment(&lines(&samples::groups()[2]), 1);
    bytes[40] ^= 1;
    bytes.extend_from_slice(&segment(&lines(&samples::groups()[3]), 2));
    bytes.extend_from_slice(b"{\"type\":\"deci");
    let storage = MemoryStorage::default();
    storage.put(1, &bytes);
    let mut grep = Grep::new("");
    let found = search(&storage, &mut grep).unwrap();
    assert_eq!(grep.events, samples::groups()[3]);
    assert_eq!(found.report.damaged.len(), 1);
    assert_eq!(found.report.cut_bytes, 13);
    assert_eq!(storage.contents(), [bytes]);
    assert!(storage.quarantined().is_empty());
}

#[test]
fn a_segment_that_is_deleted_meanwhile_is_passed_over() {
    let storage = MemoryStorage::default();
    for number in 1..=3 {
        let decision = Event::Decided(samples::logged(number));
        storage.put(number, &segment(&lines(&[decision]), number));
    }
    let mut grep = Grep::new("decision");
    grep.remove_from = Some(&storage);
    let found = search(&storage, &mut grep).unwrap();
    let wanted = [samples::logged(1), samples::logged(3)].map(Event::Decided);
    assert_eq!(grep.events, wanted);
    assert_eq!(found.report.segments, 2);
    assert_eq!(found.report.missing_groups, 1);
}

#[test]
fn a_search_ends_when_all_is_found() {
    let storage = MemoryStorage::default();
    for number in 1..=3 {
        let decision = Event::Decided(samples::logged(number));
        storage.put(number, &segment(&lines(&[decision]), number));
    }
    let mut grep = Grep::new("decision");
    grep.enough = 2;
    let found = search(&storage, &mut grep).unwrap();
    assert_eq!(grep.progress, [(1, 3), (2, 3)]);
    assert_eq!((grep.events.len(), found.report.segments), (2, 2));
}
