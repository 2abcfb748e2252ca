//! The secret file: the keys of decision ids, and the root of the keys of all draws.
//!
//! One key of 64 hexadecimal digits a line, the newest first: the first signs, all verify. A line `units` and 64
//! digits is the root of [`DrawKeys`], which must outlive rotation, or every sticky unit would be drawn anew; a file
//! without it takes the last key for it. Replicas share one file. This is also where randomness is taken from the system.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::chance::DrawKeys;
use crate::decision_id::Keys;

/// What a new file says of itself.
const HEADER: &str = "\
# Keys of Pointsman's decision ids. Whoever reads this file can forge them. All replicas need the same file.
# To rotate: put a new line of 64 hex digits above the others and restart; remove the old one when the longest window has passed.
# The line `units` decides which unit gets which arm: never change it while an experiment runs.
";

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The disk's error.
    #[error("secret file {}: cannot {doing}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// The disk's error.
        source: io::Error,
    },
    /// The content is wrong.
    #[error("secret file {}: {source}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: MalformedSecret,
    },
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Entropy(getrandom::Error),
}

/// What is wrong with a secret file's text. It never shows the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MalformedSecret {
    /// A line is neither key, root, comment nor empty.
    #[error(
        "line {line}: expected a key of 64 hex digits, `units` and 64 hex digits, or a comment that begins with #"
    )]
    Line {
        /// Counted from 1.
        line: usize,
    },
    /// A second `units` line.
    #[error("line {line}: there is already a `units` line; remove one of them")]
    SecondUnits {
        /// Counted from 1.
        line: usize,
    },
    /// No key.
    #[error("it has no key: add a line of 64 hex digits (`openssl rand -hex 32` makes one)")]
    NoKey,
}

/// The content of a secret file.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    first: [u8; 32],
    others: Vec<[u8; 32]>,
    units: [u8; 32],
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(..)")
    }
}

impl Secret {
    /// Reads the text of a secret file.
    ///
    /// # Errors
    ///
    /// See [`MalformedSecret`].
    pub fn parse(text: &str) -> Result<Self, MalformedSecret> {
        let mut keys = Vec::new();
        let mut units = None;
        for (line, text) in (1..).zip(text.lines()) {
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let root = text
                .strip_prefix("units")
                .filter(|rest| rest.starts_with(char::is_whitespace));
            let key =
                parse_key(root.unwrap_or(text).trim()).ok_or(MalformedSecret::Line { line })?;
            if root.is_none() {
                keys.push(key);
            } else if units.replace(key).is_some() {
                return Err(MalformedSecret::SecondUnits { line });
            }
        }
        let (first, others) = keys.split_first().ok_or(MalformedSecret::NoKey)?;
        Ok(Self {
            first: *first,
            units: units.unwrap_or(*others.last().unwrap_or(first)),
            others: others.to_vec(),
        })
    }

    /// The keys of decision ids.
    pub fn decision_keys(&self) -> Keys {
        Keys::derive(&self.first, &self.others)
    }

    /// The keys of draws.
    pub fn draw_keys(&self) -> DrawKeys {
        DrawKeys::derive(&self.units)
    }
}

fn parse_key(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut key = [0; 32];
    for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let high = char::from(digits[0]).to_digit(16)?;
        let low = char::from(digits[1]).to_digit(16)?;
        *byte = (high << 4 | low) as u8;
    }
    Some(key)
}

/// A secret and how it was come by.
#[derive(Debug)]
pub struct Loaded {
    /// The secret.
    pub secret: Secret,
    /// Whether the file was made now.
    pub created: bool,
    /// What the user should know: the file's mode lets others read it.
    pub warning: Option<String>,
}

/// Reads the secret file, and makes it, mode 0600, if there is none. Processes that start at once get the same one.
///
/// # Errors
///
/// See [`SecretError`]. The directory of the file must exist.
pub fn load_or_create(path: &Path) -> Result<Loaded, SecretError> {
    let created = match fs::symlink_metadata(path) {
        Ok(_) => false,
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(path)?,
        Err(source) => return Err(io_error(path, "look at it", source)),
    };
    let (secret, warning) = read(path)?;
    Ok(Loaded {
        secret,
        created,
        warning,
    })
}

/// Reads the secret file as it is: for commands that only look.
///
/// # Errors
///
/// See [`SecretError`].
pub fn load(path: &Path) -> Result<Secret, SecretError> {
    read(path).map(|(secret, _)| secret)
}

/// The secret, and a warning if others can read it.
fn read(path: &Path) -> Result<(Secret, Option<String>), SecretError> {
    let text = fs::read_to_string(path).map_err(|source| io_error(path, "read it", source))?;
    let mode = fs::metadata(path)
        .map_err(|source| io_error(path, "look at it", source))?
        .mode();
    let secret = Secret::parse(&text).map_err(|source| SecretError::Content {
        path: path.to_owned(),
        source,
    })?;
    let warning = (mode & 0o077 != 0).then(|| {
        format!(
            "secret file {} has mode {:03o}, so others may read or change it: chmod 600 it",
            path.display(),
            mode & 0o777
        )
    });
    Ok((secret, warning))
}

/// Makes the file with one key and a root; `false` if another process was faster. It is complete and synced before it has its
/// name, and a link never replaces a file that is already there.
fn create(path: &Path) -> Result<bool, SecretError> {
    let tag = random_number()?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{tag:016x}.partial"));
    let partial = path.with_file_name(name);
    let written = write_new(&partial).and_then(|()| give_name(&partial, path));
    // After a rename it is gone already.
    fs::remove_file(&partial).ok();
    let created = written?;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|source| io_error(path, "sync its directory", source))?;
    Ok(created)
}

fn write_new(partial: &Path) -> Result<(), SecretError> {
    let failed = |source| io_error(partial, "write it", source);
    let text = format!("{HEADER}{}\nunits {}\n", random_key()?, random_key()?);
    let mut file: File = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(partial)
        .map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)
}

fn give_name(partial: &Path, path: &Path) -> Result<bool, SecretError> {
    match fs::hard_link(partial, path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        // A file system without hard links: a rename is still atomic, though the slower of two processes wins.
        Err(_) => fs::rename(partial, path)
            .map(|()| true)
            .map_err(|source| io_error(path, "make it", source)),
    }
}

fn random_key() -> Result<String, SecretError> {
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(SecretError::Entropy)?;
    Ok(blake3::Hash::from_bytes(key).to_hex().to_string())
}

/// A random 64-bit number from the system: the origin of a process start.
///
/// # Errors
///
/// [`SecretError::Entropy`].
pub fn random_number() -> Result<u64, SecretError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(SecretError::Entropy)?;
    Ok(u64::from_le_bytes(bytes))
}

fn io_error(path: &Path, doing: &'static str, source: io::Error) -> SecretError {
    SecretError::Io {
        path: path.to_owned(),
        doing,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB";
    const C: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn the_first_key_signs_and_the_last_is_the_root() {
        let secret = Secret::parse(&format!("# note\n\n  {A}\r\n{C}\n{B}")).unwrap();
        assert_eq!(secret.first, [0xaa; 32]);
        assert_eq!(secret.others.len(), 2);
        assert_eq!(secret.others[0][..3], [0x01, 0x23, 0x45]);
        assert_eq!(secret.units, [0xbb; 32]);
        assert_eq!(Secret::parse(A).unwrap().units, [0xaa; 32]);
    }

    #[test]
    fn a_units_line_is_the_root_wherever_it_is() {
        for text in [format!("units {B}\n{A}"), format!("{A}\nunits\t{B}\n")] {
            let secret = Secret::parse(&text).unwrap();
            assert_eq!((secret.first, secret.units), ([0xaa; 32], [0xbb; 32]));
            assert!(secret.others.is_empty());
        }
    }

    #[test]
    fn rotation_leaves_the_units_where_they_are() {
        let before = Secret::parse(&format!("{A}\nunits {B}")).unwrap();
        let after = Secret::parse(&format!("{C}\n{A}\nunits {B}")).unwrap();
        assert_eq!(before.units, after.units);
        // Without a units line too, as long as the oldest key stays.
        let before = Secret::parse(A).unwrap();
        let after = Secret::parse(&format!("{C}\n{A}")).unwrap();
        assert_eq!(before.units, after.units);
    }

    #[test]
    fn malformed_files_say_where_and_never_what() {
        use MalformedSecret::{Line, NoKey, SecondUnits};
        for (text, expected) in [
            (String::new(), NoKey),
            (format!("# only\nunits {A}"), NoKey),
            (format!("{A}\n{}", &B[1..]), Line { line: 2 }),
            (format!("{A}\n\n{B}0"), Line { line: 3 }),
            (format!("g{}", &A[1..]), Line { line: 1 }),
            (format!("é{}", &A[2..]), Line { line: 1 }),
            (format!("{A} {B}"), Line { line: 1 }),
            (format!("units{A}"), Line { line: 1 }),
            (format!("{A}\nunits"), Line { line: 2 }),
            (
                format!("{A}\nunits {B}\nunits {B}"),
                SecondUnits { line: 3 },
            ),
        ] {
            let error = Secret::parse(&text).unwrap_err();
            assert_eq!(error, expected, "{text}");
            assert!(!error.to_string().contains("aaaa"));
        }
    }

    #[test]
    fn it_is_made_once_for_its_owner_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        let made = load_or_create(&path).unwrap();
        assert!(made.created);
        assert_eq!(made.warning, None);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let read = load_or_create(&path).unwrap();
        assert!(!read.created);
        assert_eq!(read.secret, made.secret);
        assert_ne!(made.secret.first, made.secret.units);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        assert_eq!(format!("{made:?}").matches("Secret(..)").count(), 1);
    }

    #[test]
    fn processes_that_start_at_once_get_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        let loaded: Vec<Loaded> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| load_or_create(&path).unwrap()))
                .collect();
            let joined = threads.into_iter().map(|thread| thread.join().unwrap());
            joined.collect()
        });
        assert!(loaded.iter().all(|one| one.secret == loaded[0].secret));
        assert_eq!(loaded.iter().filter(|one| one.created).count(), 1);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_others_can_read_is_used_with_a_warning() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        fs::write(&path, A).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let warning = load_or_create(&path).unwrap().warning.unwrap();
        assert!(
            warning.contains("640") && warning.contains("chmod 600"),
            "{warning}"
        );
    }

    #[test]
    fn errors_name_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let absent = directory.path().join("secret");
        let error = load(&absent).unwrap_err().to_string();
        assert!(error.contains("secret: cannot read it"), "{error}");
        assert!(!absent.exists());
        let path = directory.path().join("missing/secret");
        let error = load_or_create(&path).unwrap_err().to_string();
        assert!(error.contains("missing/secret"), "{error}");
        let path = directory.path().join("secret");
        fs::write(&path, "x").unwrap();
        let error = load_or_create(&path).unwrap_err().to_string();
        assert!(error.contains("secret: line 1"), "{error}");
    }
}
