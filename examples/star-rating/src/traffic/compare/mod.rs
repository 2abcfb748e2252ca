//! `star-rating compare`: the same reviews under several policies, over many seeds.
//!
//! Every run is a fresh Pointsman, the real binary over real sockets, with the real client. Only the models are not there:
//! their answers to the held-out reviews are replayed from the table that `star-rating predict` wrote, because 150,000 BERT
//! runs would take an hour and give the same answers. So accuracies are the real models', latencies are not.

pub mod report;
pub mod stand_in;
mod text;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::labels::Posting;
use super::launch::{EXPERIMENT, Pointsman, RunDirectory, committed_policy, find_pointsman};
use super::mix::Mix;
use super::paint::grouped;
use super::policy_file::{PolicyFile, PolicyKind};
use super::proxy::Proxy;
use super::recent::Recent;
use super::replay::{Arrivals, Pace, replay};
use super::signals::stop_signal;
use super::standing::{Counterfactual, Standing};
use super::stream::{Item, Stream};
use super::tally::{Outcome, Tally};
use crate::clock::Stopwatch;
use crate::console::{Progress, Unit, line, note};
use crate::predict::{Table, committed_table};
use report::{CategoryShares, Estimate, Report, Run, arm_accuracies, sum_up};
use stand_in::StandIns;

/// How long labels that the proxy does not take are tried.
const PATIENCE: Duration = Duration::from_secs(20);
/// Acknowledged rewards are in the next snapshot, which follows within 100 ms.
const SETTLING: Duration = Duration::from_millis(200);

/// What "late" means: the last of so many parts of the requests.
const LATE: usize = 5;
/// Shares are counted over the last of so many parts of the requests.
const LAST: usize = 10;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Options of `star-rating compare`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Requests of each run
    #[arg(long, default_value_t = 5000, value_name = "N")]
    requests: u64,
    /// Runs of each policy, with the seeds 1 to N
    #[arg(long, default_value_t = 10, value_name = "N")]
    seeds: u64,
    /// Requests per second; 0 sends as fast as they are answered
    #[arg(long, default_value_t = 1500.0, value_name = "N")]
    rate: f64,
    /// The policies to compare
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "lin_thompson,epsilon_greedy_linear,thompson,epsilon_greedy,fixed",
        value_name = "KIND,..."
    )]
    policies: Vec<PolicyKind>,
    /// Which kinds of review, in which proportions
    #[arg(
        long,
        default_value = "Clothing=0.6,Electronics=0.2,Movies=0.2",
        value_name = "KIND=SHARE,..."
    )]
    mix: Mix,
    /// The variants' answers [default: the example's predictions.tsv]
    #[arg(long, value_name = "FILE")]
    predictions: Option<PathBuf>,
    /// The policy file to start from [default: the repository's policies/star-rating.toml, and star-rating-by-category.toml for policies
    /// that look at the review]
    #[arg(long, value_name = "FILE")]
    policy_file: Option<PathBuf>,
    /// The pointsman binary [default: the one of this build]
    #[arg(long, value_name = "PATH")]
    pointsman: Option<PathBuf>,
    /// How the results are printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Runs `star-rating compare`.
///
/// # Errors
/// When something is missing or a run fails; says what.
pub fn run(args: &Args) -> Result<()> {
    ensure!(
        args.requests > 0 && args.seeds > 0,
        "--requests and --seeds must be at least 1"
    );
    ensure!(
        args.rate.is_finite() && args.rate >= 0.0,
        "--rate must be a number of at least 0, not {}",
        args.rate
    );
    let comparison = Comparison::prepare(args)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?;
    let report = runtime.block_on(async {
        let signal = stop_signal()?;
        tokio::select! {
            report = comparison.run() => report,
            signal = signal => bail!("stopped by {signal}"),
        }
    })?;
    match args.format {
        Format::Json => line(&serde_json::to_string_pretty(&report)?),
        Format::Text => {
            line(&format!(
                "{} requests x {} seeds x {} policies through Pointsman; {}; the models' answers are replayed",
                grouped(args.requests),
                args.seeds,
                args.policies.len(),
                args.mix
            ))?;
            text::lines(&report).iter().try_for_each(|row| line(row))
        }
    }
}

/// All that the runs have in common.
struct Comparison<'a> {
    args: &'a Args,
    table: Table,
    items: Arc<[Item]>,
    /// The file that each policy starts from.
    policies: BTreeMap<PolicyKind, PolicyFile>,
    arms: Vec<String>,
    stand_ins: StandIns,
    binary: PathBuf,
}

impl<'a> Comparison<'a> {
    fn prepare(args: &'a Args) -> Result<Self> {
        let table = Table::load(args.predictions.as_deref().unwrap_or(&committed_table()))?;
        let mut policies = BTreeMap::new();
        for kind in &args.policies {
            let path = args.policy_file.clone();
            let path = path.unwrap_or_else(|| committed_policy(*kind));
            policies.insert(*kind, read_policy(*kind, &path)?);
        }
        let arms = policies.values().next().map(PolicyFile::arm_names);
        let arms = arms.context("--policies names none")?;
        ensure!(
            policies.values().all(|policy| policy.arm_names() == arms),
            "the policy files must have the same arms, in the same order"
        );
        let binary = find_pointsman(args.pointsman.as_deref())?;
        Ok(Self {
            args,
            items: Item::of_table(&table).into(),
            arms,
            policies,
            stand_ins: StandIns::start(&table)?,
            table,
            binary,
        })
    }

    async fn run(&self) -> Result<Report> {
        let arms = arm_accuracies(&self.table, &self.arms, &self.args.mix).with_context(|| {
            format!(
                "the table of predictions has {}, the policy file {}: run `star-rating predict`",
                self.table.variants.join(", "),
                self.arms.join(", ")
            )
        })?;
        let best_arm = report::best(&arms)
            .context("the policy file has no arms")?
            .to_owned();
        let total = self.args.requests * self.args.seeds * self.args.policies.len() as u64;
        let progress = Progress::start("compare", total, Unit::Items);
        let mut runs = Vec::new();
        for seed in 1..=self.args.seeds {
            for kind in &self.args.policies {
                progress.message(&format!("{}, seed {seed}", kind.name()));
                let run = self.run_one(*kind, seed, &best_arm, &progress).await;
                runs.push(run.with_context(|| format!("{}, seed {seed}", kind.name()))?);
            }
        }
        progress.finish();
        // All policies get the same reviews, so one of them has these yardsticks for all.
        let one = self.args.policies.first().map_or("", |kind| kind.name());
        let over = |value: fn(&Run) -> f64| {
            let runs = runs.iter().filter(|run| run.policy == one);
            Estimate::of(&runs.map(value).collect::<Vec<_>>())
        };
        Ok(Report {
            requests: self.args.requests,
            seeds: self.args.seeds as usize,
            rate: (self.args.rate > 0.0).then_some(self.args.rate),
            answers: "replayed",
            arms,
            best_arm,
            uniform: over(|run| run.uniform),
            best: over(|run| run.best),
            by_category: over(|run| run.by_category),
            policies: self
                .args
                .policies
                .iter()
                .map(|kind| sum_up(*kind, &runs))
                .collect(),
            lead: report::lead(&self.args.policies, &runs),
            runs,
        })
    }

    async fn run_one(
        &self,
        kind: PolicyKind,
        seed: u64,
        best_arm: &str,
        progress: &Progress,
    ) -> Result<Run> {
        let folder = tempfile::Builder::new()
            .prefix("star-rating-")
            .tempdir()
            .context("cannot make a temporary folder")?;
        let mut pointsman = self.start(kind, folder.path()).await?;
        let stream = Stream::new(Arc::clone(&self.items), self.args.mix, seed)?;
        let proxy = pointsman
            .proxy()?
            .with_headers(self.policy(kind)?.match_headers());
        let outcomes = self.send(proxy, stream, seed, progress).await?;
        tokio::time::sleep(SETTLING).await;
        let rewards = pointsman.admin()?.experiment(EXPERIMENT).await?.rewards();
        if let Some(status) = pointsman.process().ended() {
            bail!(
                "pointsman has ended ({status}); {}",
                pointsman.process().last_lines()
            );
        }
        let standing = self.standing(&outcomes)?;
        let late = self.standing(last(&outcomes, LATE))?;
        let recent = self.recent(last(&outcomes, LAST));
        Ok(Run {
            policy: kind.name(),
            seed,
            accuracy: standing.earned,
            uniform: standing.uniform,
            best: standing.best,
            by_category: standing.by_category,
            late: late.earned,
            late_best: late.best,
            best_arm_share: self.share(&recent, best_arm),
            shares: CategoryShares::of(&recent),
            failed: outcomes
                .iter()
                .filter(|outcome| outcome.answer.is_err())
                .count() as u64,
            rewards,
        })
    }

    fn standing(&self, outcomes: &[Outcome]) -> Result<Standing> {
        let mut tally = Tally::default();
        let mut counterfactual = Counterfactual::new(Some(&self.table), &self.arms, &self.items);
        for outcome in outcomes {
            tally.add(outcome);
            counterfactual.add(outcome);
        }
        Standing::of(&tally, &counterfactual)
            .filter(|standing| standing.exact)
            .with_context(|| {
                let reason = tally
                    .last_failure
                    .clone()
                    .unwrap_or_else(|| "the answers are not the table's".to_owned());
                format!(
                    "{} of {} requests failed: {reason}",
                    tally.failed,
                    outcomes.len()
                )
            })
    }

    fn recent(&self, outcomes: &[Outcome]) -> Recent {
        let mut recent = Recent::new(&self.arms, outcomes.len());
        for outcome in outcomes {
            recent.add(outcome);
        }
        recent
    }

    /// The arm's share of these requests.
    fn share(&self, recent: &Recent, arm: &str) -> f64 {
        let place = self.arms.iter().position(|name| name == arm);
        let shares = recent.shares(None);
        shares
            .and_then(|shares| shares.get(place?).copied())
            .unwrap_or(0.0)
    }

    fn policy(&self, kind: PolicyKind) -> Result<&PolicyFile> {
        let policy = self.policies.get(&kind);
        policy.with_context(|| format!("no policy file for {}", kind.name()))
    }

    async fn start(&self, kind: PolicyKind, folder: &Path) -> Result<Pointsman> {
        let directory = RunDirectory::prepare(folder)?;
        let mut policy = self.policy(kind)?.clone();
        policy.set_endpoints(self.stand_ins.endpoints())?;
        directory.write_policy(&policy.to_string())?;
        let mut pointsman = Pointsman::start(&self.binary, &directory)?;
        pointsman.wait_until_ready().await?;
        Ok(pointsman)
    }

    /// All outcomes, in the order in which they came.
    async fn send(
        &self,
        proxy: Proxy,
        stream: Stream,
        seed: u64,
        progress: &Progress,
    ) -> Result<Vec<Outcome>> {
        let pace = Pace {
            rate: (self.args.rate > 0.0).then_some(self.args.rate),
            arrivals: Arrivals::Poisson,
            concurrency: 32,
            requests: Some(self.args.requests),
            duration: None,
            posting: Posting {
                delay: Duration::ZERO,
                patience: PATIENCE,
            },
            seed,
        };
        let (_stop, stopped) = watch::channel(false);
        let (sender, mut received) = unbounded_channel();
        let mut client = JoinSet::new();
        let watch = Stopwatch::start();
        client.spawn(replay(proxy, stream, pace, stopped, sender));
        let mut outcomes = Vec::with_capacity(self.args.requests as usize);
        while let Some(outcome) = received.recv().await {
            outcomes.push(outcome);
            progress.advance(1);
        }
        let labels = client
            .join_next()
            .await
            .context("the client never ran")?
            .context("the client ended abnormally")?;
        ensure!(
            labels.lost == 0,
            "{} labels were lost: {}",
            labels.lost,
            labels.last_failure.unwrap_or_default()
        );
        let exceptions = labels.exceptions();
        if !exceptions.is_empty() {
            note(&format!("labels not accepted: {exceptions}"));
        }
        let rate = outcomes.len() as f64 / watch.elapsed().as_secs_f64();
        progress.message(&format!("{rate:.0} requests/s"));
        Ok(outcomes)
    }
}

/// The policy file at `path`, under a policy of this kind.
fn read_policy(kind: PolicyKind, path: &Path) -> Result<PolicyFile> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("cannot read the policy file {}", path.display()))?;
    let parse = || {
        let mut policy = PolicyFile::parse(&text)?;
        policy.set_policy(kind)?;
        Ok::<_, anyhow::Error>(policy)
    };
    parse().with_context(|| path.display().to_string())
}

/// One part in `parts` of the outcomes, the last one.
fn last(outcomes: &[Outcome], parts: usize) -> &[Outcome] {
    &outcomes[outcomes.len() - outcomes.len().div_ceil(parts)..]
}
