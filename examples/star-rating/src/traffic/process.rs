//! Child processes that never outlive their owner, with their output in a log file.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::clock::Stopwatch;

/// How many lines of a child's log an error shows.
const SHOWN_LINES: usize = 8;

/// How often a child that was asked to stop is looked at.
const POLL: Duration = Duration::from_millis(20);

/// A running child. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; what it prints is appended to `log`.
    ///
    /// # Errors
    /// When the log cannot be written or the program cannot be started.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot write the log {}", log.display()))?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        // Ctrl-C goes to the terminal's whole process group; children are to stop when their owner says so.
        command.process_group(0);
        let child = command.spawn().with_context(|| {
            format!("cannot start {name} ({})", command.get_program().display())
        })?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
        })
    }

    /// What it is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// All it has printed.
    pub fn output(&self) -> String {
        fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The end of what it has printed, for an error message.
    pub fn last_lines(&self) -> String {
        let output = self.output();
        let lines: Vec<&str> = output
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        let shown = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
        if shown.is_empty() {
            return format!("(it printed nothing to {})", self.log.display());
        }
        format!(
            "the last lines of {}:\n  {}",
            self.log.display(),
            shown.join("\n  ")
        )
    }

    /// Asks it to stop, waits for at most `patience`, then kills it; gives how it ended if it did so by itself.
    pub fn stop(mut self, patience: Duration) -> Option<ExitStatus> {
        if self.ended().is_none()
            && let Some(pid) = Pid::from_raw(self.child.id().cast_signed())
        {
            // It may have ended in between, which is as good.
            kill_process(pid, Signal::TERM).ok();
        }
        let watch = Stopwatch::start();
        loop {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            if watch.elapsed() >= patience {
                return None;
            }
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Ports of this machine that nobody listens on, all different. Another process can take one before it is used.
///
/// # Errors
/// When there are none.
pub fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut listeners = Vec::with_capacity(N);
    let mut ports = [0; N];
    for port in &mut ports {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port on 127.0.0.1")?;
        *port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn wait(process: &mut Process) -> ExitStatus {
        loop {
            if let Some(status) = process.ended() {
                return status;
            }
            std::thread::sleep(POLL);
        }
    }

    fn is_running(id: u32) -> bool {
        Path::new(&format!("/proc/{id}")).exists()
    }

    #[test]
    fn the_last_lines_explain_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let script = "for i in 1 2 3 4 5 6 7 8 9; do echo line $i; done; echo broken >&2; exit 3";
        let mut process =
            Process::start("server", shell(script), &folder.path().join("log")).unwrap();
        assert_eq!(wait(&mut process).code(), Some(3));
        let lines = process.last_lines();
        assert!(
            lines.ends_with("line 9\n  broken") && !lines.contains("line 2\n"),
            "{lines}"
        );
    }

    #[test]
    fn dropping_kills_and_stopping_lets_it_finish() {
        let folder = tempfile::tempdir().unwrap();
        let process =
            Process::start("server", shell("exec sleep 60"), &folder.path().join("log")).unwrap();
        let id = process.id();
        assert!(is_running(id));
        drop(process);
        assert!(!is_running(id));
        let process = Process::start(
            "server",
            shell("trap 'exit 0' TERM; echo up; while :; do sleep 0.01; done"),
            &folder.path().join("2"),
        )
        .unwrap();
        while process.output().is_empty() {
            std::thread::sleep(POLL);
        }
        assert_eq!(
            process.stop(Duration::from_mins(1)).unwrap().code(),
            Some(0)
        );
    }

    #[test]
    fn a_missing_program_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = Process::start(
            "server",
            Command::new("/no/such/program"),
            &folder.path().join("log"),
        )
        .unwrap_err();
        assert!(
            format!("{error:#}").contains("/no/such/program"),
            "{error:#}"
        );
    }

    #[test]
    fn free_ports_differ() {
        let [first, second] = free_ports().unwrap();
        assert_ne!(first, second);
    }
}
