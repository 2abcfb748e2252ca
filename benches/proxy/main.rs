//! What the proxy costs, beside nginx, haproxy and Envoy: `cargo bench --bench proxy -- CASE`. What each case measures, and what it has
//! measured, is told in `docs/speed.md`. Everything is on loopback and bounded; Linux only.
//!
//! The upstream and the load generator are this program again, in processes of their own and on a core of their own, so that only the proxy's
//! time is counted as the proxy's.

mod bench;
mod cases;
mod client;
mod figures;
mod generator;
mod http;
mod install;
mod peers;
mod plan;
mod poll;
mod process;
mod report;
mod request;
mod upstream;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use cases::{against, idle, instructions, ours, rate, soak};
use peers::Start;
use plan::Load;
use process::Cores;
use report::Report;

#[derive(Debug, Parser)]
#[command(
    name = "cargo bench --bench proxy --",
    about = "What the proxy costs",
    arg_required_else_help = false
)]
struct Arguments {
    #[command(subcommand)]
    case: Option<Case>,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    /// Measure this `pointsman` and not the one just built.
    #[arg(long, global = true)]
    binary: Option<PathBuf>,
    /// Given by cargo.
    #[arg(long, global = true, hide = true)]
    bench: bool,
}

#[derive(Debug, Subcommand)]
enum Case {
    /// User instructions per request, held against the budget (valgrind)
    Instructions(instructions::Instructions),
    /// CPU time per request against nginx, saturated
    Saturated(against::Against),
    /// The same with 64 KiB responses
    Big(against::Against),
    /// Latency added at a fixed rate
    Rate(rate::Rate),
    /// Delay of server-sent events
    Sse(rate::Rate),
    /// Memory of idle client connections
    Idle(idle::Idle),
    /// Many experiments beside one (valgrind)
    Experiments(ours::Experiments),
    /// Two workers beside one
    Workers(ours::Workers),
    /// Millions of mixed requests: no error, flat memory
    Soak(soak::Soak),
    #[command(hide = true)]
    Upstream,
    #[command(hide = true)]
    Generate { plan: String },
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// True: what was demanded holds.
fn run() -> anyhow::Result<bool> {
    let arguments = Arguments::parse();
    process::raise_descriptors();
    let built = env!("CARGO_BIN_EXE_pointsman");
    let start = Start {
        cores: Cores::apart(),
        binary: arguments.binary.unwrap_or_else(|| PathBuf::from(built)),
        experiments: 1,
        workers: 1,
        wrapper: Vec::new(),
    };
    let report: Report = match arguments.case {
        None => {
            use clap::CommandFactory;
            Arguments::command().print_help()?;
            return Ok(true);
        }
        Some(Case::Upstream) => return Ok(upstream::run().map(|()| true)?),
        Some(Case::Generate { plan }) => {
            return Ok(generator::run(serde_json::from_str(&plan)?).map(|()| true)?);
        }
        Some(Case::Instructions(arguments)) => instructions::measure(start, &arguments)?,
        Some(Case::Saturated(arguments)) => against::measure(&start, Load::Small, &arguments)?,
        Some(Case::Big(arguments)) => against::measure(&start, Load::Big, &arguments)?,
        Some(Case::Rate(arguments)) => rate::measure(&start, Load::Small, &arguments)?,
        Some(Case::Sse(arguments)) => rate::measure(&start, Load::Events, &arguments)?,
        Some(Case::Idle(arguments)) => idle::measure(&start, &arguments)?,
        Some(Case::Experiments(arguments)) => ours::experiments(&start, &arguments)?,
        Some(Case::Workers(arguments)) => ours::workers(&start, &arguments)?,
        Some(Case::Soak(arguments)) => soak::measure(&start, &arguments)?,
    };
    report.write(arguments.json)?;
    Ok(report.passed)
}
