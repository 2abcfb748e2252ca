//! The bench itself: the upstream and the load generator as child processes of this program, and one peer beside them.

use std::env;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::plan::{Load, Mode, Outcome, Plan};
use crate::process::{Cores, Running};

fn this_program(arguments: &[&str]) -> anyhow::Result<Vec<String>> {
    let program = env::current_exe()?.to_string_lossy().into_owned();
    let words = arguments.iter().map(|argument| (*argument).to_owned());
    Ok(std::iter::once(program).chain(words).collect())
}

/// The two ports of the upstream, as long as this lives.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) addresses: [SocketAddr; 2],
    pub(crate) running: Running,
}

impl Upstream {
    pub(crate) fn start(cores: &Cores) -> anyhow::Result<Self> {
        let command = this_program(&["upstream"])?;
        let mut running = Running::start(cores.rest.as_deref(), &command, None)?;
        let (line, _) = running.line()?;
        let addresses = serde_json::from_str(&line).context("the upstream did not start")?;
        Ok(Self { addresses, running })
    }
}

/// Runs a plan in a process of its own, to its end.
pub(crate) fn load(cores: &Cores, plan: &Plan) -> anyhow::Result<Outcome> {
    Ok(Loading::start(cores, plan)?.finish()?.0)
}

/// A generator at work.
#[derive(Debug)]
pub(crate) struct Loading {
    running: Running,
}

impl Loading {
    pub(crate) fn start(cores: &Cores, plan: &Plan) -> anyhow::Result<Self> {
        let plan = serde_json::to_string(plan)?;
        let command = this_program(&["generate", &plan])?;
        let running = Running::start(cores.rest.as_deref(), &command, None)?;
        Ok(Self { running })
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.running.has_ended()
    }

    /// Waits for its outcome. An idle one keeps its connections until what is given beside it is dropped.
    pub(crate) fn finish(mut self) -> anyhow::Result<(Outcome, Running)> {
        let (line, _) = self.running.line()?;
        let outcome = serde_json::from_str(&line).context("the load generator failed")?;
        Ok((outcome, self.running))
    }
}

/// A plan for one of the usual runs: 64 connections, or as many as said.
pub(crate) fn plan(address: SocketAddr, load: Load, mode: Mode, watch: Vec<u32>) -> Plan {
    Plan {
        address,
        connections: 64,
        load,
        mode,
        warm: 0.1,
        watch,
    }
}

/// Waits until a proxy answers 200 to one request.
pub(crate) fn wait_until_ready(
    cores: &Cores,
    address: SocketAddr,
    running: &mut Running,
    longest: Duration,
) -> anyhow::Result<()> {
    let watch = pointsman::clock::Stopwatch::start();
    let mut plan = plan(address, Load::Small, Mode::Count(1), Vec::new());
    plan.connections = 1;
    while watch.elapsed() < longest {
        ensure!(!running.has_ended(), "the proxy ended at its start");
        let connects = std::net::TcpStream::connect(address).is_ok();
        if connects && load(cores, &plan).is_ok_and(|outcome| outcome.errors == 0) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    anyhow::bail!("the proxy at {address} does not answer")
}
