//! The lock of a data directory: two processes on one journal would destroy it.
//!
//! It is the operating system's lock on the open file `lock`, so it goes when the process goes, however it ends. The number
//! in the file is for messages only.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds it.
    #[error(
        "data directory {} is in use by {holder}: stop that, or give this one another directory with --data",
        directory.display()
    )]
    Held {
        /// The data directory.
        directory: PathBuf,
        /// `process 123`, or `another process` if it has not yet written its number.
        holder: String,
    },
    /// The disk's error.
    #[error("cannot lock data directory {}: {source}", directory.display())]
    Io {
        /// The data directory.
        directory: PathBuf,
        /// The disk's error.
        source: io::Error,
    },
}

/// Holds the lock until it is dropped.
#[derive(Debug)]
pub struct DataLock {
    /// Closing it releases the lock.
    _file: File,
}

impl DataLock {
    /// Takes the lock of `directory`, which is made if it is missing.
    ///
    /// # Errors
    ///
    /// [`LockError::Held`], naming the holder, or the disk's error.
    pub fn acquire(directory: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Io {
            directory: directory.to_owned(),
            source,
        };
        std::fs::create_dir_all(directory).map_err(failed)?;
        // Not truncated when opened: until the lock is ours the number in it is another's.
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(directory.join("lock"))
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Held {
                    directory: directory.to_owned(),
                    holder: holder(&mut file),
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        file.set_len(0).map_err(failed)?;
        file.rewind().map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let number = file
        .take(20)
        .read_to_string(&mut text)
        .ok()
        .and_then(|_| text.trim().parse::<u32>().ok());
    match number {
        Some(number) => format!("process {number}"),
        None => "another process".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_names_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        let first = DataLock::acquire(&data).unwrap();
        let error = DataLock::acquire(&data).unwrap_err().to_string();
        let expected = format!("process {}:", std::process::id());
        assert!(error.contains(&expected), "{error}");
        assert!(error.contains("data"), "{error}");
        drop(first);
        DataLock::acquire(&data).unwrap();
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "x").unwrap();
        let error = DataLock::acquire(&file.join("data")).unwrap_err();
        assert!(matches!(error, LockError::Io { .. }), "{error}");
    }
}
