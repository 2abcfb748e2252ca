//! One model server per arm: this program's own `serve`, in processes of their own.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::cache::Cache;
use crate::clock::Stopwatch;
use crate::console::{Progress, Unit};
use crate::traffic::attached;
use crate::traffic::launch::RunDirectory;
use crate::traffic::process::Process;
use crate::variant::committed_directory;

/// How long loading a model may take.
const START_TIMEOUT: Duration = Duration::from_mins(2);
/// How often a starting server is looked at.
const POLL: Duration = Duration::from_millis(50);

/// The running model servers.
#[derive(Debug)]
pub(super) struct Servers(Vec<(Process, String)>);

impl Servers {
    /// Starts a server for every arm, the variant of the same name, and waits until all answer.
    ///
    /// # Errors
    /// When a variant is missing, or a server ends instead of starting (with its last words).
    pub(super) async fn start(
        arms: &[String],
        cache: &Cache,
        directory: &RunDirectory,
    ) -> Result<Self> {
        let program = std::env::current_exe().context("cannot find this program's own path")?;
        let mut processes = Vec::new();
        for arm in arms {
            let variant = committed_directory().join(format!("{arm}.toml"));
            ensure!(
                variant.is_file(),
                "the policy file has an arm {arm:?}, but there is no variant file {}",
                variant.display()
            );
            let mut command = attached::command(&program)?;
            command.arg("serve").arg("--variant").arg(variant);
            command
                .args(["--listen", "127.0.0.1:0", "--cache"])
                .arg(cache.root());
            // A log of an earlier run would tell the address of an earlier server.
            let log = directory.log(arm);
            std::fs::write(&log, "")
                .with_context(|| format!("cannot write the log {}", log.display()))?;
            processes.push(Process::start(arm, command, &log)?);
        }
        let progress = Progress::start("starting model servers", arms.len() as u64, Unit::Items);
        let watch = Stopwatch::start();
        let mut servers = Vec::new();
        for mut process in processes {
            let address = wait_for_address(&mut process, watch).await?;
            progress.advance(1);
            servers.push((process, address));
        }
        progress.finish();
        Ok(Self(servers))
    }

    /// The addresses by arm.
    pub(super) fn endpoints(&self) -> BTreeMap<String, Vec<String>> {
        self.0
            .iter()
            .map(|(process, address)| (process.name().to_owned(), vec![address.clone()]))
            .collect()
    }

    /// Fails if a server has ended.
    ///
    /// # Errors
    /// With its name and its last words.
    pub(super) fn check(&mut self) -> Result<()> {
        for (process, _) in &mut self.0 {
            if let Some(status) = process.ended() {
                bail!(
                    "the model server {} has ended ({status}); {}",
                    process.name(),
                    process.last_lines()
                );
            }
        }
        Ok(())
    }
}

async fn wait_for_address(process: &mut Process, watch: Stopwatch) -> Result<String> {
    loop {
        if let Some(address) = announced_address(&process.output()) {
            return Ok(address);
        }
        if let Some(status) = process.ended() {
            bail!(
                "the model server {} ended at once ({status}); {}",
                process.name(),
                process.last_lines()
            );
        }
        if watch.elapsed() > START_TIMEOUT {
            bail!(
                "the model server {} is not ready after {} s; {}",
                process.name(),
                START_TIMEOUT.as_secs(),
                process.last_lines()
            );
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The address in a server's line `serve: NAME on http://ADDRESS (loaded in ...)`.
fn announced_address(output: &str) -> Option<String> {
    let line = output.lines().find(|line| line.starts_with("serve: "))?;
    let start = line.find("http://")?;
    // A line that is still being written has no end yet.
    let end = line[start..].find(' ')?;
    Some(line[start..start + end].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_announced_address_is_found_once_it_is_whole() {
        let line = "some warning\nserve: l6-all on http://127.0.0.1:40123 (loaded in 0.20 s)\n";
        assert_eq!(
            announced_address(line).as_deref(),
            Some("http://127.0.0.1:40123")
        );
        assert_eq!(
            announced_address("serve: l6-all on http://127.0.0.1:401"),
            None
        );
        assert_eq!(announced_address(""), None);
    }
}
