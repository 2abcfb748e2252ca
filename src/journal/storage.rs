//! Where segments are kept: a small trait, and its real form on a directory.
//!
//! A segment is a file that only grows, until it is finished; then it may be sealed, which changes how it is kept and not what it holds.
//! Its number is its place in the order of all segments and is never used twice. Checkpoints are kept beside them, under the
//! number of the last segment that they cover. Not here: what is in all these.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::sealed::unseal;

/// Digits in a segment's file name.
const DIGITS: usize = 12;
const EXTENSION: &str = ".jsonl";
const SEALED: &str = ".jsonl.zst";
const INDEX: &str = ".index";
const CHECKPOINT: &str = ".checkpoint";
/// Of a file that is being written. One that is found at a start was not finished, and is removed.
const PARTIAL: &str = ".partial";

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

    /// Replaces `bytes` by the whole content of a segment, sealed or not.
    fn read(&self, segment: u64, bytes: &mut Vec<u8>) -> io::Result<()>;

    /// Whether a segment is sealed.
    fn is_sealed(&self, segment: u64) -> bool;

    /// Keeps a segment that nobody writes to any more in its sealed form, and its index beside it, durably, and then no longer as it was.
    /// It can be read at any time meanwhile.
    fn seal(&self, segment: u64, sealed: &[u8], index: &[u8]) -> io::Result<()>;

    /// Reads `length` bytes from `place` on, of a sealed segment or of its index.
    fn read_part(&self, segment: u64, part: Part, place: u64, length: usize)
    -> io::Result<Vec<u8>>;

    /// Bytes that a segment takes up, its index included.
    fn size(&self, segment: u64) -> io::Result<u64>;

    /// The numbers of all checkpoints, ascending.
    fn checkpoints(&self) -> io::Result<Vec<u64>>;

    /// Keeps a checkpoint, as a whole or not at all, durably.
    fn write_checkpoint(&self, checkpoint: u64, bytes: &[u8]) -> io::Result<()>;

    /// A checkpoint.
    fn read_checkpoint(&self, checkpoint: u64) -> io::Result<Vec<u8>>;

    /// Removes a checkpoint.
    fn remove_checkpoint(&self, checkpoint: u64) -> io::Result<()>;

    /// Cuts a segment to its first `length` bytes, durably.
    fn truncate(&self, segment: u64, length: u64) -> io::Result<()>;

    /// Removes a segment whose content is not needed any more, and its index.
    fn remove(&self, segment: u64) -> io::Result<()>;

    /// Keeps a copy of damaged bytes found at `offset` of `segment` for people to look at, durably; not again if it is
    /// already there. Returns where it is.
    fn quarantine(&self, segment: u64, offset: u64, bytes: &[u8]) -> io::Result<PathBuf>;

    /// The segment's name for messages.
    fn name(&self, segment: u64) -> String;
}

/// Of a sealed segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The compressed lines.
    Lines,
    /// The index.
    Index,
}

/// An open segment.
pub trait Segment {
    /// Appends all of `bytes`. After an error any part of them may have been written.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes what was appended durable.
    fn sync(&mut self) -> io::Result<()>;
}

/// Segments as files `NNNNNNNNNNNN.jsonl`, or sealed `NNNNNNNNNNNN.jsonl.zst`, in a directory, and checkpoints as files
/// `NNNNNNNNNNNN.checkpoint` in `checkpoints` below it.
#[derive(Debug, Clone)]
pub struct FileStorage {
    directory: PathBuf,
    checkpoints: PathBuf,
}

impl FileStorage {
    /// Opens `directory`, makes what is missing, and removes what was being written when a process was killed, or is there twice because it was being
    /// sealed. Only for the process that holds the lock of the data directory.
    pub fn open(directory: impl Into<PathBuf>) -> io::Result<Self> {
        let storage = Self::existing(directory);
        for directory in [&storage.directory, &storage.checkpoints] {
            make_directory(directory)?;
            for name in names(directory)? {
                if name.ends_with(PARTIAL) {
                    fs::remove_file(directory.join(name))?;
                }
            }
        }
        for name in names(&storage.directory)? {
            if let Some(segment) = number_of(&name, EXTENSION)
                && storage.is_sealed(segment)
            {
                fs::remove_file(storage.directory.join(name))?;
            }
        }
        Ok(storage)
    }

    /// The directory as it is, for reading: nothing is made.
    pub fn existing(directory: impl Into<PathBuf>) -> Self {
        let directory = directory.into();
        Self {
            checkpoints: directory.join("checkpoints"),
            directory,
        }
    }

    fn path(&self, segment: u64, extension: &str) -> PathBuf {
        self.directory.join(file_name(segment, extension))
    }

    fn checkpoint(&self, checkpoint: u64) -> PathBuf {
        self.checkpoints.join(file_name(checkpoint, CHECKPOINT))
    }
}

fn file_name(number: u64, extension: &str) -> String {
    format!("{number:0DIGITS$}{extension}")
}

/// The names of the files in a directory, as far as they are UTF-8.
fn names(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        names.extend(entry?.file_name().into_string().ok());
    }
    Ok(names)
}

/// Writes a file so that it is there as a whole or not at all. Its name is durable once its directory is synced.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(PARTIAL);
    let mut file = File::create(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&partial, path)
}

/// Removes a file that may be gone already.
fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
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

/// The number in a file's name.
fn number_of(name: &str, extension: &str) -> Option<u64> {
    let digits = name.strip_suffix(extension)?;
    let well_formed = digits.len() >= DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    well_formed.then(|| digits.parse().ok()).flatten()
}

impl Storage for FileStorage {
    type Segment = FileSegment;

    fn list(&self) -> io::Result<Vec<u64>> {
        let segment =
            |name: &String| number_of(name, EXTENSION).or_else(|| number_of(name, SEALED));
        let mut segments: Vec<u64> = names(&self.directory)?.iter().filter_map(segment).collect();
        segments.sort_unstable();
        // While a segment is being sealed it is there twice.
        segments.dedup();
        Ok(segments)
    }

    fn create(&self, segment: u64) -> io::Result<FileSegment> {
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(self.path(segment, EXTENSION))?;
        Ok(FileSegment {
            file,
            synced: false,
        })
    }

    fn sync_directory(&self) -> io::Result<()> {
        sync_path(&self.directory)
    }

    fn read(&self, segment: u64, bytes: &mut Vec<u8>) -> io::Result<()> {
        // The sealed form first: it is there as a whole or not at all, and while both are there they hold the same.
        match fs::read(self.path(segment, SEALED)) {
            Ok(sealed) => unseal(&sealed, bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                bytes.clear();
                match File::open(self.path(segment, EXTENSION)) {
                    Ok(mut file) => file.read_to_end(bytes).map(|_| ()),
                    // It may have been sealed between the two.
                    Err(_) => unseal(&fs::read(self.path(segment, SEALED))?, bytes),
                }
            }
            Err(error) => Err(error),
        }
    }

    fn is_sealed(&self, segment: u64) -> bool {
        self.path(segment, SEALED).exists()
    }

    fn seal(&self, segment: u64, sealed: &[u8], index: &[u8]) -> io::Result<()> {
        write_whole(&self.path(segment, INDEX), index)?;
        write_whole(&self.path(segment, SEALED), sealed)?;
        self.sync_directory()?;
        remove_if_there(&self.path(segment, EXTENSION))
    }

    fn read_part(
        &self,
        segment: u64,
        part: Part,
        place: u64,
        length: usize,
    ) -> io::Result<Vec<u8>> {
        let extension = match part {
            Part::Lines => SEALED,
            Part::Index => INDEX,
        };
        let mut bytes = vec![0; length];
        File::open(self.path(segment, extension))?.read_exact_at(&mut bytes, place)?;
        Ok(bytes)
    }

    fn size(&self, segment: u64) -> io::Result<u64> {
        let of = |extension| fs::metadata(self.path(segment, extension)).map(|found| found.len());
        let lines = of(SEALED).or_else(|_| of(EXTENSION))?;
        Ok(lines + of(INDEX).unwrap_or(0))
    }

    fn checkpoints(&self) -> io::Result<Vec<u64>> {
        let names = match names(&self.checkpoints) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            names => names?,
        };
        let mut checkpoints: Vec<u64> = names
            .iter()
            .filter_map(|name| number_of(name, CHECKPOINT))
            .collect();
        checkpoints.sort_unstable();
        Ok(checkpoints)
    }

    fn write_checkpoint(&self, checkpoint: u64, bytes: &[u8]) -> io::Result<()> {
        write_whole(&self.checkpoint(checkpoint), bytes)?;
        sync_path(&self.checkpoints)
    }

    fn read_checkpoint(&self, checkpoint: u64) -> io::Result<Vec<u8>> {
        fs::read(self.checkpoint(checkpoint))
    }

    fn remove_checkpoint(&self, checkpoint: u64) -> io::Result<()> {
        remove_if_there(&self.checkpoint(checkpoint))
    }

    fn truncate(&self, segment: u64, length: u64) -> io::Result<()> {
        let file = OpenOptions::new()
            .write(true)
            .open(self.path(segment, EXTENSION))?;
        file.set_len(length)?;
        file.sync_all()
    }

    fn remove(&self, segment: u64) -> io::Result<()> {
        // The index last: without one a sealed segment could not be looked into.
        for extension in [EXTENSION, SEALED, INDEX] {
            remove_if_there(&self.path(segment, extension))?;
        }
        Ok(())
    }

    fn quarantine(&self, segment: u64, offset: u64, bytes: &[u8]) -> io::Result<PathBuf> {
        let directory = self.directory.join("quarantine");
        make_directory(&directory)?;
        let path = directory.join(format!("{segment:0DIGITS$}-{offset:010}{EXTENSION}"));
        let there = fs::metadata(&path).is_ok_and(|found| found.len() == bytes.len() as u64);
        if !there {
            write_whole(&path, bytes)?;
            sync_path(&directory)?;
        }
        Ok(path)
    }

    fn name(&self, segment: u64) -> String {
        let extension = if self.is_sealed(segment) {
            SEALED
        } else {
            EXTENSION
        };
        file_name(segment, extension)
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
    fn sealing_may_be_interrupted_anywhere() {
        let directory = tempfile::tempdir().unwrap();
        let storage = FileStorage::open(directory.path()).unwrap();
        let (sealed, frames) = super::super::sealed::seal(b"one\n").unwrap();
        let index = super::super::index::Builder::default().build(&frames);
        let read = |storage: &FileStorage| {
            let mut bytes = Vec::new();
            storage.read(1, &mut bytes).unwrap();
            bytes
        };
        storage.create(1).unwrap().append(b"one\n").unwrap();
        let raw = directory.path().join("000000000001.jsonl");
        fs::write(
            directory.path().join("000000000001.jsonl.zst.partial"),
            &sealed[..3],
        )
        .unwrap();
        let storage = FileStorage::open(directory.path()).unwrap();
        assert_eq!(
            (read(&storage), storage.list().unwrap()),
            (b"one\n".to_vec(), vec![1])
        );
        storage.seal(1, &sealed, &index).unwrap();
        assert!(!raw.exists() && storage.is_sealed(1));
        assert_eq!(storage.name(1), "000000000001.jsonl.zst");
        // The removal of the plain form was not yet durable when the power was cut.
        fs::write(&raw, b"on").unwrap();
        assert_eq!(
            (read(&storage), storage.list().unwrap()),
            (b"one\n".to_vec(), vec![1])
        );
        let storage = FileStorage::open(directory.path()).unwrap();
        assert!(!raw.exists());
        assert_eq!(read(&storage), b"one\n");
        storage.remove(1).unwrap();
        assert_eq!(
            fs::read_dir(directory.path()).unwrap().count(),
            1,
            "the folder of checkpoints"
        );
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
