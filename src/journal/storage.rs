//! Where segments are kept: a small trait, and its real form on a directory.
//!
//! A segment is a file that only grows. Its number is its place in the order of all segments and is never used twice.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Digits in a segment's file name.
const DIGITS: usize = 12;
const EXTENSION: &str = ".jsonl";

/// The operations that the journal needs of a disk.
pub trait Storage {
    /// An open segment.
    type Segment: Segment;

    /// The numbers of all segments, ascending.
    fn list(&self) -> io::Result<Vec<u64>>;

    /// Makes a new, empty segment. Fails if there is one with this number. The directory is not yet synced.
    fn create(&self, segment: u64) -> io::Result<Self::Segment>;

    /// Makes the names of all segments durable.
    fn sync_directory(&self) -> io::Result<()>;

    /// Replaces `bytes` by the whole content of a segment.
    fn read(&self, segment: u64, bytes: &mut Vec<u8>) -> io::Result<()>;

    /// Cuts a segment to its first `length` bytes, durably.
    fn truncate(&self, segment: u64, length: u64) -> io::Result<()>;

    /// Removes a segment that holds nothing that was acknowledged.
    fn remove(&self, segment: u64) -> io::Result<()>;

    /// Keeps a copy of damaged bytes found at `offset` of `segment` for people to look at, durably; not again if it is
    /// already there. Returns where it is.
    fn quarantine(&self, segment: u64, offset: u64, bytes: &[u8]) -> io::Result<PathBuf>;

    /// The segment's name for messages.
    fn name(&self, segment: u64) -> String;
}

/// An open segment.
pub trait Segment {
    /// Appends all of `bytes`. After an error any part of them may have been written.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes what was appended durable.
    fn sync(&mut self) -> io::Result<()>;
}

/// Segments as files `NNNNNNNNNNNN.jsonl` in a directory.
#[derive(Debug, Clone)]
pub struct FileStorage {
    directory: PathBuf,
}

impl FileStorage {
    /// Opens `directory`, and makes it if it is missing.
    pub fn open(directory: impl Into<PathBuf>) -> io::Result<Self> {
        let directory = directory.into();
        make_directory(&directory)?;
        Ok(Self { directory })
    }

    /// The directory as it is, for reading: nothing is made.
    pub fn existing(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
        }
    }

    fn path(&self, segment: u64) -> PathBuf {
        self.directory.join(self.name(segment))
    }
}

/// Makes a directory and its missing parents, each durable in its own parent.
fn make_directory(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let parent = match directory.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => {
            make_directory(parent)?;
            parent
        }
        _ => Path::new("."),
    };
    match fs::create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => sync_path(parent),
    }
}

/// Syncs a directory: the names in it are durable afterwards.
fn sync_path(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(EXTENSION)?;
    let well_formed = digits.len() >= DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    well_formed.then(|| digits.parse().ok()).flatten()
}

impl Storage for FileStorage {
    type Segment = FileSegment;

    fn list(&self) -> io::Result<Vec<u64>> {
        let mut segments = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            segments.extend(entry?.file_name().to_str().and_then(segment_number));
        }
        segments.sort_unstable();
        Ok(segments)
    }

    fn create(&self, segment: u64) -> io::Result<FileSegment> {
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(self.path(segment))?;
        Ok(FileSegment {
            file,
            synced: false,
        })
    }

    fn sync_directory(&self) -> io::Result<()> {
        sync_path(&self.directory)
    }

    fn read(&self, segment: u64, bytes: &mut Vec<u8>) -> io::Result<()> {
        bytes.clear();
        File::open(self.path(segment))?
            .read_to_end(bytes)
            .map(|_| ())
    }

    fn truncate(&self, segment: u64, length: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.path(segment))?;
        file.set_len(length)?;
        file.sync_all()
    }

    fn remove(&self, segment: u64) -> io::Result<()> {
        fs::remove_file(self.path(segment))
    }

    fn quarantine(&self, segment: u64, offset: u64, bytes: &[u8]) -> io::Result<PathBuf> {
        let directory = self.directory.join("quarantine");
        make_directory(&directory)?;
        let name = format!("{segment:012}-{offset:010}.jsonl");
        let path = directory.join(&name);
        let there = fs::metadata(&path).is_ok_and(|found| found.len() == bytes.len() as u64);
        if !there {
            let partial = directory.join(format!("{name}.partial"));
            let mut file = File::create(&partial)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&partial, &path)?;
            sync_path(&directory)?;
        }
        Ok(path)
    }

    fn name(&self, segment: u64) -> String {
        format!("{segment:0DIGITS$}{EXTENSION}")
    }
}

/// A segment's file, open for appending.
#[derive(Debug)]
pub struct FileSegment {
    file: File,
    /// Whether it was synced once, with all its metadata.
    synced: bool,
}

impl Segment for FileSegment {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.synced {
            // Length and content; times may lag.
            self.file.sync_data()
        } else {
            self.file.sync_all()?;
            self.synced = true;
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_files_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let storage = FileStorage::open(directory.path().join("a/journal")).unwrap();
        for number in [10, 2, 1_000_000_000_000] {
            let mut segment = storage.create(number).unwrap();
            segment.append(b"one\n").unwrap();
            segment.sync().unwrap();
            segment.append(b"two\n").unwrap();
            segment.sync().unwrap();
        }
        storage.sync_directory().unwrap();
        fs::write(directory.path().join("a/journal/notes.txt"), "x").unwrap();
        fs::write(directory.path().join("a/journal/12.jsonl"), "x").unwrap();
        assert_eq!(storage.list().unwrap(), [2, 10, 1_000_000_000_000]);
        assert_eq!(storage.name(2), "000000000002.jsonl");
        let mut bytes = vec![1];
        storage.truncate(2, 5).unwrap();
        storage.read(2, &mut bytes).unwrap();
        assert_eq!(bytes, b"one\nt");
        assert!(storage.create(2).is_err());
        storage.remove(2).unwrap();
        assert_eq!(storage.list().unwrap(), [10, 1_000_000_000_000]);
    }

    #[test]
    fn quarantined_bytes_are_kept_once() {
        let directory = tempfile::tempdir().unwrap();
        let storage = FileStorage::open(directory.path()).unwrap();
        let path = storage.quarantine(3, 17, b"torn").unwrap();
        assert_eq!(storage.quarantine(3, 17, b"torn").unwrap(), path);
        assert_eq!(fs::read(path).unwrap(), b"torn");
        assert_eq!(storage.list().unwrap(), [0_u64; 0]);
    }
}
