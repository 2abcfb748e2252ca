//! Starts Pointsman the way a user would: its own binary, a configuration file, a folder of policy files, a data directory.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::admin::Admin;
use super::attached;
use super::policy_file::PolicyKind;
use super::process::{Process, free_ports};
use super::proxy::Proxy;
use crate::cache::{example_directory, write_atomically};
use crate::clock::Stopwatch;
use crate::console::note;

/// The experiment's name: the stem of its policy file in a run's folder, whatever the policy.
pub const EXPERIMENT: &str = "star-rating";

/// How long a start may take; recovery of a large journal included.
const START_TIMEOUT: Duration = Duration::from_mins(1);
/// How often a starting server is asked whether it is ready.
const POLL: Duration = Duration::from_millis(20);
/// How long a server that was asked to stop may take.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// The repository's policy file for policies of this kind.
pub fn committed_policy(kind: PolicyKind) -> PathBuf {
    let suffix = if kind.is_contextual() {
        "-by-category"
    } else {
        ""
    };
    example_directory()
        .join("../../policies")
        .join(format!("{EXPERIMENT}{suffix}.toml"))
}

/// The `pointsman` binary: the one given; else, in the repository, a fresh build; else the one beside this program.
///
/// # Errors
/// When there is none and none can be built; says what to do.
pub fn find_pointsman(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(given) = given {
        ensure!(
            given.is_file(),
            "{} is not there: --pointsman needs the path of the binary",
            given.display()
        );
        return Ok(given.to_owned());
    }
    let own = std::env::current_exe().context("cannot find this program's own path")?;
    let profile = own.parent().context("this program is in no folder")?;
    let beside = profile.join("pointsman");
    let manifest = example_directory().join("../../Cargo.toml");
    let cargo = std::env::var_os("CARGO");
    if !manifest.is_file() || (cargo.is_none() && beside.is_file()) {
        ensure!(
            beside.is_file(),
            "no pointsman beside {}: name it with --pointsman PATH",
            own.display()
        );
        return Ok(beside);
    }
    build(&cargo.unwrap_or_else(|| "cargo".into()), &manifest, profile)?;
    ensure!(
        beside.is_file(),
        "cargo built pointsman, but not as {}: name it with --pointsman PATH",
        beside.display()
    );
    Ok(beside)
}

/// Builds the binary into the folder that this program is in. Instant when nothing has changed.
fn build(cargo: &std::ffi::OsStr, manifest: &Path, profile: &Path) -> Result<()> {
    let mut command = Command::new(cargo);
    command
        .args(["build", "--bin", "pointsman", "--manifest-path"])
        .arg(manifest);
    if profile.file_name().is_some_and(|name| name == "release") {
        command.arg("--release");
    }
    if let Some(target) = profile.parent() {
        command.arg("--target-dir").arg(target);
    }
    note("building pointsman (a minute or two the first time) ...");
    let status = command
        .status()
        .context("cannot run cargo: install Rust, or name a binary with --pointsman PATH")?;
    ensure!(
        status.success(),
        "cargo could not build pointsman; its messages are above"
    );
    Ok(())
}

/// A folder with all that one server needs and makes.
#[derive(Debug, Clone)]
pub struct RunDirectory {
    root: PathBuf,
    /// A second run would give the first one's server other policies. Unlocked when the last clone is dropped.
    _lock: Arc<File>,
}

impl RunDirectory {
    /// Prepares `root`, which may hold the data of an earlier run.
    ///
    /// # Errors
    /// When it cannot be written, or another run uses it.
    pub fn prepare(root: &Path) -> Result<Self> {
        for folder in ["policies", "logs"] {
            let path = root.join(folder);
            fs::create_dir_all(&path).with_context(|| {
                format!(
                    "cannot make the folder {}: choose another with --data DIR",
                    path.display()
                )
            })?;
        }
        let root = root
            .canonicalize()
            .with_context(|| format!("cannot read {}", root.display()))?;
        let path = root.join("lock");
        let lock =
            File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        if let Err(TryLockError::WouldBlock) = lock.try_lock() {
            bail!(
                "{} is in use by another run: stop that, or give this one another folder",
                root.display()
            );
        }
        Ok(Self {
            root,
            _lock: Arc::new(lock),
        })
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the server keeps its journal.
    pub fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// Where the policy file is.
    pub fn policy(&self) -> PathBuf {
        self.root
            .join("policies")
            .join(format!("{EXPERIMENT}.toml"))
    }

    /// Where `name` prints.
    pub fn log(&self, name: &str) -> PathBuf {
        self.root.join("logs").join(format!("{name}.log"))
    }

    /// Writes the policy file in one step, so that a watching server never sees half of it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_policy(&self, text: &str) -> Result<()> {
        // Written beside the watched folder, then moved into it.
        let aside = self.root.join("policy.new");
        fs::write(&aside, text).with_context(|| format!("cannot write {}", aside.display()))?;
        fs::rename(&aside, self.policy())
            .with_context(|| format!("cannot write {}", self.policy().display()))
    }

    fn write_config(&self, proxy_port: u16, admin_port: u16) -> Result<()> {
        let text = format!(
            "[listen]\nproxy = \"127.0.0.1:{proxy_port}\"\nadmin = \"127.0.0.1:{admin_port}\"\n\n\
             [shutdown]\n# Nobody has to be told before this server goes.\ndrain_delay = \"0s\"\n"
        );
        write_atomically(&self.root.join("pointsman.toml"), |out| {
            Ok(out.write_all(text.as_bytes())?)
        })
    }
}

/// A running server.
#[derive(Debug)]
pub struct Pointsman {
    binary: PathBuf,
    directory: RunDirectory,
    process: Process,
    age: Stopwatch,
    proxy_url: String,
    admin_url: String,
}

impl Pointsman {
    /// Starts `binary` on free ports in `directory`, which must have its policy file.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(binary: &Path, directory: &RunDirectory) -> Result<Self> {
        let [proxy_port, admin_port] = free_ports()?;
        directory.write_config(proxy_port, admin_port)?;
        Ok(Self {
            binary: binary.to_owned(),
            directory: directory.clone(),
            process: spawn(binary, directory)?,
            age: Stopwatch::start(),
            proxy_url: format!("http://127.0.0.1:{proxy_port}"),
            admin_url: format!("http://127.0.0.1:{admin_port}"),
        })
    }

    /// Starts it again, on the same ports and the same data directory, after it has ended.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn restart(&mut self) -> Result<()> {
        self.process = spawn(&self.binary, &self.directory)?;
        self.age = Stopwatch::start();
        Ok(())
    }

    /// Waits until it takes traffic.
    ///
    /// # Errors
    /// When it ends instead (with its last words), or takes too long.
    pub async fn wait_until_ready(&mut self) -> Result<()> {
        let admin = self.admin()?;
        while !admin.is_ready().await {
            if let Some(status) = self.process.ended() {
                bail!(
                    "pointsman ended at once ({status}); {}",
                    self.process.last_lines()
                );
            }
            if self.age.elapsed() > START_TIMEOUT {
                bail!(
                    "pointsman is not ready after {} s; {}",
                    START_TIMEOUT.as_secs(),
                    self.process.last_lines()
                );
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Its proxy listener.
    ///
    /// # Errors
    /// When the HTTP client cannot be set up.
    pub fn proxy(&self) -> Result<Proxy> {
        Proxy::at(&self.proxy_url, None)
    }

    /// Its admin listener.
    ///
    /// # Errors
    /// When the HTTP client cannot be set up.
    pub fn admin(&self) -> Result<Admin> {
        Admin::at(&self.admin_url)
    }

    /// The address of its proxy listener.
    pub fn proxy_url(&self) -> &str {
        &self.proxy_url
    }

    /// The address of its admin listener.
    pub fn admin_url(&self) -> &str {
        &self.admin_url
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// How long ago it was started.
    pub fn age(&self) -> Duration {
        self.age.elapsed()
    }

    /// Stops it the clean way; killed if that takes too long.
    pub fn stop(self) {
        // Whatever it still had to say is in its log.
        self.process.stop(STOP_TIMEOUT);
    }
}

fn spawn(binary: &Path, directory: &RunDirectory) -> Result<Process> {
    let mut command = attached::command(binary)?;
    command
        .arg("serve")
        .arg("--config")
        .arg(directory.root.join("pointsman.toml"));
    command
        .arg("--policies")
        .arg(directory.root.join("policies"))
        .arg("--data")
        .arg(directory.data());
    Process::start("pointsman", command, &directory.log("pointsman"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_directory_has_one_user() {
        let folder = tempfile::tempdir().unwrap();
        let first = RunDirectory::prepare(folder.path()).unwrap();
        let message = RunDirectory::prepare(folder.path())
            .unwrap_err()
            .to_string();
        assert!(message.contains("in use by another run"), "{message}");
        drop(first);
        RunDirectory::prepare(folder.path()).unwrap();
    }

    #[test]
    fn a_binary_that_is_not_there_is_named() {
        let message = find_pointsman(Some(Path::new("/no/such/pointsman")))
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("/no/such/pointsman") && message.contains("--pointsman"),
            "{message}"
        );
    }
}
