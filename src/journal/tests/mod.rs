//! The journal as a whole: records, crashes, failing disks, and the frozen fixture.

mod checkpoint;
mod contexts;
mod crash;
mod every_byte;
mod faults;
mod fixture;
mod keys;
mod orders;
mod quick;
mod records;
mod remaining;
mod samples;
mod search;
mod shadows;

use super::encode::{Directory, Encoder};
use super::memory::MemoryStorage;
use super::recover::{Recovered, recover, scan};
use super::writer::{Options, Position, Writer};
use crate::decision_id::Keys;
use crate::engine::event::Event;

fn keys() -> Keys {
    Keys::derive(&[7; 32], &[])
}

fn encoder() -> Encoder {
    Encoder::new(keys(), Directory::default())
}

fn writer(storage: &MemoryStorage, position: Position) -> Writer<MemoryStorage> {
    Writer::new(storage.clone(), encoder(), position, Options::default())
}

/// All events, after repair.
fn recovered(storage: &MemoryStorage) -> (Vec<Event>, Recovered) {
    let mut events = Vec::new();
    let found = recover(storage, |event| events.push(event)).unwrap();
    (events, found)
}

/// All events, without repair.
fn scanned(storage: &MemoryStorage) -> (Vec<Event>, Recovered) {
    let mut events = Vec::new();
    let found = scan(storage, |event| events.push(event)).unwrap();
    (events, found)
}
