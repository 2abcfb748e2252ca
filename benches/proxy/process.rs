//! Processes of a measurement: started on a core, ended with it, their CPU time and memory read from `/proc`.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use pointsman::clock::Stopwatch;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

/// Which cores the proxy gets, and which the load generator and the upstream share. None: no pinning.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cores {
    pub(crate) proxy: Option<String>,
    pub(crate) rest: Option<String>,
}

impl Cores {
    /// Core 0 for the proxy and core 1 for the rest, where there are two.
    pub(crate) fn apart() -> Self {
        if cores() < 2 {
            return Self::default();
        }
        Self {
            proxy: Some("0".to_owned()),
            rest: Some("1".to_owned()),
        }
    }
}

/// Cores that this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Lets this process and its children have as many descriptors as the system allows.
pub(crate) fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: limit.maximum,
        ..limit
    };
    // Where that is refused, a case that needs more says so.
    setrlimit(Resource::Nofile, most).ok();
}

/// A child that is asked to end, and then made to.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
}

impl Running {
    /// Starts a command on some cores. Its standard output and error go to the log, unless they are read.
    pub(crate) fn start(
        cores: Option<&str>,
        command: &[String],
        log: Option<&Path>,
    ) -> anyhow::Result<Self> {
        // Should this program be killed, it takes its children with it.
        let mut words = vec!["setpriv", "--pdeathsig", "TERM"];
        if let Some(cores) = cores {
            words.extend(["taskset", "-c", cores]);
        }
        words.extend(command.iter().map(String::as_str));
        let mut started = Command::new(words[0]);
        started.args(&words[1..]).stdin(Stdio::piped());
        match log {
            Some(log) => {
                let file = File::create(log)?;
                started.stdout(file.try_clone()?).stderr(file);
            }
            None => {
                started.stdout(Stdio::piped());
            }
        }
        let child = started
            .env("POINTSMAN_LOG", "warn")
            .spawn()
            .map_err(|error| anyhow::anyhow!("{}: {error}", words[0]))?;
        Ok(Self { child })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its first line, where its output is not logged.
    pub(crate) fn line(&mut self) -> anyhow::Result<(String, Option<BufReader<ChildStdout>>)> {
        let mut output = self.child.stdout.take().map(BufReader::new);
        let mut line = String::new();
        if let Some(output) = output.as_mut() {
            output.read_line(&mut line)?;
        }
        Ok((line, output))
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks it to end, and waits at most so long for it.
    pub(crate) fn stop(&mut self, longest: Duration) {
        drop(self.child.stdin.take());
        if self.has_ended() {
            return;
        }
        kill_process(Pid::from_child(&self.child), Signal::TERM).ok();
        let watch = Stopwatch::start();
        while !self.has_ended() && watch.elapsed() < longest {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop(Duration::from_secs(10));
    }
}

/// A process and all that descend from it.
pub(crate) fn family(root: u32) -> Vec<u32> {
    let mut family = vec![root];
    let mut next = 0;
    while let Some(process) = family.get(next).copied() {
        next += 1;
        for task in fs::read_dir(format!("/proc/{process}/task"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            family.extend(
                children
                    .split_whitespace()
                    .filter_map(|child| child.parse::<u32>().ok()),
            );
        }
    }
    family
}

/// Nanoseconds on a core of all threads of some processes.
pub(crate) fn cpu(processes: &[u32]) -> u64 {
    let mut sum = 0;
    for process in processes {
        let Ok(tasks) = fs::read_dir(format!("/proc/{process}/task")) else {
            continue;
        };
        for task in tasks.flatten() {
            let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            sum += text
                .split_whitespace()
                .next()
                .and_then(|time| time.parse::<u64>().ok())
                .unwrap_or(0);
        }
    }
    sum
}

/// Memory of some processes in KiB.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Memory {
    /// Resident pages.
    pub(crate) resident: f64,
    /// Shared pages divided by how many share them.
    pub(crate) proportional: f64,
}

pub(crate) fn memory(processes: &[u32]) -> Memory {
    let of = |file: &str, key: &str| -> f64 {
        let values = processes.iter().map(|process| {
            let text = fs::read_to_string(format!("/proc/{process}/{file}")).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok())
                .unwrap_or(0.0)
        });
        values.sum()
    };
    Memory {
        resident: of("status", "VmRSS:"),
        proportional: of("smaps_rollup", "Pss:"),
    }
}
