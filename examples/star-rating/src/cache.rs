//! Where fetched and locally made files live.
//!
//! Nothing in the cache is ever committed: everything in it can be made again by `star-rating fetch`
//! and `star-rating train`.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

/// The `--cache` option of the commands that need models or reviews.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct CacheArgs {
    /// Folder for models, reviews and everything made from them [default: the example's `cache` folder]
    #[arg(long = "cache", env = "STAR_RATING_CACHE", value_name = "DIR")]
    pub directory: Option<PathBuf>,
}

impl CacheArgs {
    /// The cache these options name.
    pub fn cache(&self) -> Cache {
        match &self.directory {
            Some(directory) => Cache::at(directory),
            None => Cache::default(),
        }
    }
}

/// The example's own folder: where it was compiled, or the current folder if that is gone.
pub fn example_directory() -> PathBuf {
    let compiled = Path::new(env!("CARGO_MANIFEST_DIR"));
    if compiled.is_dir() {
        return compiled.to_owned();
    }
    PathBuf::from(".")
}

/// A folder of fetched and locally made files.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Default for Cache {
    fn default() -> Self {
        Self::at(&example_directory().join("cache"))
    }
}

impl Cache {
    /// The cache in `root`, which need not exist yet.
    pub fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// The cache's own folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The path of `name` in the cache.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Makes the folder `name` in the cache (the cache itself when `name` is empty).
    ///
    /// # Errors
    /// When it cannot be made, naming it.
    pub fn make_directory(&self, name: &str) -> Result<PathBuf> {
        let directory = self.root.join(name);
        fs::create_dir_all(&directory).with_context(|| {
            format!(
                "cannot make the folder {}: choose another cache with --cache DIR",
                directory.display()
            )
        })?;
        Ok(directory)
    }

    /// Waits until no other process is filling this cache; the lock ends when the file is dropped.
    ///
    /// # Errors
    /// When the lock file cannot be made or locked.
    pub fn lock(&self) -> Result<File> {
        self.make_directory("")?;
        let path = self.path(".lock");
        let file =
            File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        file.lock()
            .with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(file)
    }

    /// Opens `name`, or says which command makes it.
    ///
    /// # Errors
    /// When it is missing or unreadable.
    pub fn open(&self, name: &str) -> Result<File> {
        let path = self.require(name)?;
        File::open(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// The path of `name`, if it is there.
    ///
    /// # Errors
    /// When it is missing: says which command makes it.
    pub fn require(&self, name: &str) -> Result<PathBuf> {
        let path = self.path(name);
        if !path.is_file() {
            bail!(
                "{} is missing: run `star-rating fetch` first (about 171 MB, once), or name the folder that has it with --cache DIR",
                path.display()
            );
        }
        Ok(path)
    }
}

/// Writes a file so that a reader sees either none or all of it.
///
/// # Errors
/// When `write` fails or the file cannot be put in place.
pub fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<()> {
    let partial = partial_name(path);
    let attempt = || -> Result<()> {
        let file = File::create(&partial)?;
        let mut writer = std::io::BufWriter::new(file);
        write(&mut writer)?;
        writer.flush()?;
        fs::rename(&partial, path)?;
        Ok(())
    };
    attempt().with_context(|| format!("cannot write {}", path.display()))
}

/// The temporary name a file has until it is complete.
pub fn partial_name(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".partial-{}", std::process::id()));
    path.with_file_name(name)
}

/// The SHA-256 of a file, in lower-case hexadecimal.
///
/// # Errors
/// When it cannot be read.
pub fn sha256_of_file(path: &Path) -> Result<String> {
    let attempt = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            let count = file.read(&mut buffer)?;
            if count == 0 {
                return Ok(hexadecimal(&hasher.finalize()));
            }
            hasher.update(&buffer[..count]);
        }
    };
    attempt().with_context(|| format!("cannot read {}", path.display()))
}

/// `bytes` in lower-case hexadecimal.
pub fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a String cannot fail.
            write!(text, "{byte:02x}").ok();
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let directory =
            std::env::temp_dir().join(format!("star-rating-{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        directory
    }

    #[test]
    fn a_missing_file_names_the_command_that_makes_it() {
        let error = Cache::at(Path::new("/nonexistent"))
            .require("reviews.tsv")
            .unwrap_err();
        let message = format!("{error:#}");
        assert!(message.contains("/nonexistent/reviews.tsv"), "{message}");
        assert!(message.contains("star-rating fetch"), "{message}");
    }

    #[test]
    fn a_failed_write_leaves_no_file() {
        let directory = scratch("atomic");
        let path = directory.join("file");
        assert!(write_atomically(&path, |_| bail!("no")).is_err());
        assert!(!path.exists());
        write_atomically(&path, |writer| Ok(writer.write_all(b"abc")?)).unwrap();
        assert_eq!(
            sha256_of_file(&path).unwrap(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        fs::remove_dir_all(directory).unwrap();
    }
}
