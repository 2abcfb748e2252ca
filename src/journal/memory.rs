//! A disk in memory that fails on demand and forgets what was not synced, for tests.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::sealed::unseal;
use super::storage::{Part, Segment, Storage};

/// What would become of a byte in a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Written, not synced.
    Dirty,
    /// A sync failed: the kernel calls it clean, and it is not on the disk.
    Dropped,
    /// On the disk.
    Durable,
}

#[derive(Debug, Clone, Default)]
struct MemoryFile {
    bytes: Vec<u8>,
    fates: Vec<Fate>,
    /// Whether the directory holds its name durably.
    named: bool,
}

/// What is to go wrong.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    /// Bytes that still fit on the disk.
    pub(crate) room: Option<usize>,
    /// Syncs that will fail.
    pub(crate) syncs: u32,
    /// Syncs of the directory that will fail.
    pub(crate) directory_syncs: u32,
    /// Creations that will fail.
    pub(crate) creates: u32,
    /// Removals and truncations that will fail.
    pub(crate) repairs: u32,
    /// Sealings and checkpoints that will fail.
    pub(crate) seals: u32,
    /// After so many more operations nothing reaches the disk any more: the process is about to be killed. Of a write in that
    /// moment a half arrives.
    pub(crate) operations: Option<u32>,
}

impl Faults {
    /// Takes note of an operation; an error if it does not reach the disk.
    fn operation(&mut self) -> io::Result<()> {
        match &mut self.operations {
            Some(0) => Err(io::Error::other("the process is dying")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

#[derive(Debug, Default)]
struct Disk {
    files: BTreeMap<u64, MemoryFile>,
    /// Lines and index of sealed segments. Sealing is atomic and durable, as a file that is renamed into its place is.
    sealed: BTreeMap<u64, (Vec<u8>, Vec<u8>)>,
    checkpoints: BTreeMap<u64, Vec<u8>>,
    /// Removed since the directory was synced.
    removed: BTreeMap<u64, MemoryFile>,
    quarantine: BTreeMap<(u64, u64), Vec<u8>>,
    faults: Faults,
    syncs: u64,
}

/// Shared by all its clones, as a disk is by all processes.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryStorage(Arc<Mutex<Disk>>);

fn fail(left: &mut u32) -> io::Result<()> {
    if *left == 0 {
        return Ok(());
    }
    *left -= 1;
    Err(io::Error::other("injected"))
}

impl MemoryStorage {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        self.disk().faults = faults;
    }

    /// Syncs of files so far.
    pub(crate) fn syncs(&self) -> u64 {
        self.disk().syncs
    }

    pub(crate) fn quarantined(&self) -> Vec<Vec<u8>> {
        self.disk().quarantine.values().cloned().collect()
    }

    /// The content of all segments in order, sealed or not.
    pub(crate) fn contents(&self) -> Vec<Vec<u8>> {
        let segments = self.list().unwrap_or_default();
        let content = |segment| {
            let mut bytes = Vec::new();
            self.read(segment, &mut bytes).ok()?;
            Some(bytes)
        };
        segments.into_iter().filter_map(content).collect()
    }

    /// A durable segment with this content.
    pub(crate) fn put(&self, segment: u64, bytes: &[u8]) {
        let file = MemoryFile {
            bytes: bytes.to_vec(),
            fates: vec![Fate::Durable; bytes.len()],
            named: true,
        };
        self.disk().files.insert(segment, file);
    }

    /// What a power cut may leave: files whose names were not durable may be gone, and removed ones be there again; bytes that were not durable may be cut off
    /// or zero. `choose(n)` gives a number below n.
    pub(crate) fn power_cut(&self, mut choose: impl FnMut(usize) -> usize) {
        let mut disk = self.disk();
        for (number, file) in std::mem::take(&mut disk.removed) {
            if file.named && choose(2) == 0 {
                disk.files.entry(number).or_insert(file);
            }
        }
        disk.files.retain(|_, file| file.named || choose(2) == 0);
        for file in disk.files.values_mut() {
            let kept = file
                .fates
                .iter()
                .rposition(|fate| *fate == Fate::Durable)
                .map_or(0, |last| last + 1);
            let length = kept + choose(file.bytes.len() - kept + 1);
            let written = kept + choose(length - kept + 1);
            for (index, byte) in file.bytes.iter_mut().enumerate() {
                let lost = match file.fates[index] {
                    Fate::Durable => false,
                    Fate::Dropped => true,
                    Fate::Dirty => index >= written,
                };
                if lost {
                    *byte = 0;
                }
            }
            file.bytes.truncate(length);
            file.fates = vec![Fate::Durable; length];
            file.named = true;
        }
    }
}

impl Storage for MemoryStorage {
    type Segment = MemorySegment;

    fn list(&self) -> io::Result<Vec<u64>> {
        let disk = self.disk();
        let all: BTreeSet<u64> = disk
            .files
            .keys()
            .chain(disk.sealed.keys())
            .copied()
            .collect();
        Ok(all.into_iter().collect())
    }

    fn create(&self, segment: u64) -> io::Result<MemorySegment> {
        let mut disk = self.disk();
        disk.faults.operation()?;
        fail(&mut disk.faults.creates)?;
        if disk.files.contains_key(&segment) || disk.sealed.contains_key(&segment) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        disk.files.insert(segment, MemoryFile::default());
        Ok(MemorySegment {
            storage: self.clone(),
            number: segment,
        })
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut disk = self.disk();
        disk.faults.operation()?;
        fail(&mut disk.faults.directory_syncs)?;
        disk.files.values_mut().for_each(|file| file.named = true);
        disk.removed.clear();
        Ok(())
    }

    fn read(&self, segment: u64, bytes: &mut Vec<u8>) -> io::Result<()> {
        let disk = self.disk();
        if let Some((sealed, _)) = disk.sealed.get(&segment) {
            return unseal(sealed, bytes);
        }
        let file = disk.files.get(&segment).ok_or(io::ErrorKind::NotFound)?;
        bytes.clone_from(&file.bytes);
        Ok(())
    }

    fn is_sealed(&self, segment: u64) -> bool {
        self.disk().sealed.contains_key(&segment)
    }

    fn seal(&self, segment: u64, sealed: &[u8], index: &[u8]) -> io::Result<()> {
        let mut disk = self.disk();
        disk.faults.operation()?;
        fail(&mut disk.faults.seals)?;
        let parts = (sealed.to_vec(), index.to_vec());
        disk.sealed.insert(segment, parts);
        disk.files.remove(&segment);
        Ok(())
    }

    fn read_part(
        &self,
        segment: u64,
        part: Part,
        place: u64,
        length: usize,
    ) -> io::Result<Vec<u8>> {
        let disk = self.disk();
        let (lines, index) = disk.sealed.get(&segment).ok_or(io::ErrorKind::NotFound)?;
        let bytes = match part {
            Part::Lines => lines,
            Part::Index => index,
        };
        let rest = bytes.get(place as usize..).unwrap_or_default();
        let found = rest.get(..length).ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(found.to_vec())
    }

    fn size(&self, segment: u64) -> io::Result<u64> {
        let disk = self.disk();
        let sealed = disk
            .sealed
            .get(&segment)
            .map(|(lines, index)| lines.len() + index.len());
        let open = || disk.files.get(&segment).map(|file| file.bytes.len());
        let size = sealed.or_else(open).ok_or(io::ErrorKind::NotFound)?;
        Ok(size as u64)
    }

    fn checkpoints(&self) -> io::Result<Vec<u64>> {
        Ok(self.disk().checkpoints.keys().copied().collect())
    }

    fn write_checkpoint(&self, checkpoint: u64, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.disk();
        disk.faults.operation()?;
        fail(&mut disk.faults.seals)?;
        disk.checkpoints.insert(checkpoint, bytes.to_vec());
        Ok(())
    }

    fn read_checkpoint(&self, checkpoint: u64) -> io::Result<Vec<u8>> {
        let disk = self.disk();
        let found = disk.checkpoints.get(&checkpoint);
        found.cloned().ok_or(io::ErrorKind::NotFound.into())
    }

    fn remove_checkpoint(&self, checkpoint: u64) -> io::Result<()> {
        let mut disk = self.disk();
        disk.faults.operation()?;
        fail(&mut disk.faults.repairs)?;
        disk.checkpoints.remove(&checkpoint);
        Ok(())
    }

    fn truncate(&self, segment: u64, length: u64) -> io::Result<()> {
        let mut disk = self.disk();
        disk.faults.operation()?;
        fail(&mut disk.faults.repairs)?;
        let file = disk
            .files
            .get_mut(&segment)
            .ok_or(io::ErrorKind::NotFound)?;
        file.bytes.truncate(length as usize);
        file.fates.truncate(length as usize);
        Ok(())
    }

    fn remove(&self, segment: u64) -> io::Result<()> {
        let mut disk = self.disk();
        disk.faults.operation()?;
        fail(&mut disk.faults.repairs)?;
        if let Some(file) = disk.files.remove(&segment) {
            disk.removed.insert(segment, file);
        }
        disk.sealed.remove(&segment);
        Ok(())
    }

    fn quarantine(&self, segment: u64, offset: u64, bytes: &[u8]) -> io::Result<PathBuf> {
        let kept = bytes.to_vec();
        self.disk().quarantine.insert((segment, offset), kept);
        Ok(PathBuf::from(format!("{segment}-{offset}")))
    }

    fn name(&self, segment: u64) -> String {
        format!("segment {segment}")
    }
}

/// A segment of a [`MemoryStorage`].
#[derive(Debug)]
pub(crate) struct MemorySegment {
    storage: MemoryStorage,
    number: u64,
}

impl Segment for MemorySegment {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.storage.disk();
        let alive = disk.faults.operations != Some(0);
        let torn = if alive { bytes.len() } else { bytes.len() / 2 };
        disk.faults.operation().ok();
        let fits = disk.faults.room.unwrap_or(torn).min(torn);
        if let Some(room) = &mut disk.faults.room {
            *room -= fits;
        }
        let file = disk
            .files
            .get_mut(&self.number)
            .ok_or(io::ErrorKind::NotFound)?;
        file.bytes.extend_from_slice(&bytes[..fits]);
        file.fates.resize(file.bytes.len(), Fate::Dirty);
        if fits == bytes.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::StorageFull.into())
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut disk = self.storage.disk();
        disk.faults.operation()?;
        disk.syncs += 1;
        let failed = fail(&mut disk.faults.syncs);
        let file = disk
            .files
            .get_mut(&self.number)
            .ok_or(io::ErrorKind::NotFound)?;
        let fate = if failed.is_ok() {
            Fate::Durable
        } else {
            Fate::Dropped
        };
        for dirty in file.fates.iter_mut().filter(|fate| **fate == Fate::Dirty) {
            *dirty = fate;
        }
        failed
    }
}
