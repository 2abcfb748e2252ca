//! `star-rating demo`: the whole loop on one machine, with one command.
//!
//! Model servers, Pointsman and a client with real reviews, and a table of what Pointsman makes of it. Everything that is
//! started is a process as in production, and ends with the demo. Pointsman is started again if it dies, on the same data
//! directory: what it has learned is on disk.

mod screen;
mod servers;
pub mod table;
pub mod view;

use std::fs;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::admin::Admin;
use super::client::TrafficArgs;
use super::labels::LabelCounts;
use super::launch::{EXPERIMENT, Pointsman, RunDirectory, committed_policy, find_pointsman};
use super::paint::grouped;
use super::policy_file::{PolicyFile, PolicyKind};
use super::replay::{Pace, replay};
use super::signals::stop_signal;
use super::standing::Counterfactual;
use super::stream::Stream;
use super::tally::Outcome;
use crate::cache::{Cache, CacheArgs};
use crate::clock::Stopwatch;
use crate::console::note;
use crate::fetch;
use crate::predict::{Table, committed_table};
use screen::Screen;
use servers::Servers;
use view::{Event, View};

/// How often the table is drawn and the proxy asked.
const TICK: Duration = Duration::from_millis(500);
/// When the policy file is edited, as a share of the run.
const EDIT_AT: f64 = 0.5;
/// A proxy that dies sooner than this after its start is not started again.
const SHORTEST_LIFE: Duration = Duration::from_secs(2);

/// Options of `star-rating demo`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// How arms are chosen
    #[arg(long, value_enum, default_value_t = PolicyKind::Thompson)]
    policy: PolicyKind,
    #[command(flatten)]
    traffic: TrafficArgs,
    /// Keep configuration, journal and logs here, and go on with what an earlier run learned [default: a temporary folder]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Keep the temporary folder
    #[arg(long)]
    keep: bool,
    /// The policy file to start from [default: the repository's policies/star-rating.toml, or star-rating-by-category.toml for a policy
    /// that looks at the review]
    #[arg(long, value_name = "FILE")]
    policy_file: Option<PathBuf>,
    /// The pointsman binary [default: the one of this build]
    #[arg(long, value_name = "PATH")]
    pointsman: Option<PathBuf>,
    #[command(flatten)]
    cache: CacheArgs,
}

/// Runs `star-rating demo`.
///
/// # Errors
/// When something cannot be fetched, built, started or kept running; says what and why.
pub fn run(args: &Args) -> Result<()> {
    let pace = args.traffic.pace()?;
    let cache = args.cache.cache();
    fetch::fetch(&cache)?;
    let stream = args.traffic.stream(&cache)?;
    let binary = find_pointsman(args.pointsman.as_deref())?;
    let folder = Folder::prepare(args)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?;
    runtime.block_on(async {
        let mut signal = Box::pin(stop_signal()?);
        let demo = tokio::select! {
            demo = Demo::set_up(args, &cache, &binary, &folder.directory, stream.items(), &pace) => demo?,
            signal = &mut signal => bail!("stopped by {signal}"),
        };
        demo.run(stream, pace, signal).await
    })
}

/// Where the run's files are, and whether they stay.
struct Folder {
    directory: RunDirectory,
    /// Removed when this is dropped.
    _temporary: Option<TempDir>,
}

impl Folder {
    fn prepare(args: &Args) -> Result<Self> {
        if let Some(data) = &args.data {
            return Ok(Self {
                directory: RunDirectory::prepare(data)?,
                _temporary: None,
            });
        }
        let temporary = tempfile::Builder::new()
            .prefix("star-rating-")
            .tempdir()
            .context("cannot make a temporary folder: name one with --data DIR")?;
        let directory = RunDirectory::prepare(temporary.path())?;
        if args.keep {
            note(&format!(
                "demo: files stay in {}",
                temporary.keep().display()
            ));
            return Ok(Self {
                directory,
                _temporary: None,
            });
        }
        Ok(Self {
            directory,
            _temporary: Some(temporary),
        })
    }
}

/// Everything that runs.
struct Demo {
    // Dropped in this order: the proxy before the servers behind it.
    pointsman: Pointsman,
    servers: Servers,
    directory: RunDirectory,
    admin: Admin,
    policy: PolicyFile,
    view: View,
    screen: Screen,
    /// Rewards that earlier runs left.
    rewards_before: u64,
    edit: Edit,
    /// Rewards before the proxy died, until it is back.
    recovering: Option<u64>,
}

/// How far the edit of the policy file has come.
enum Edit {
    Planned,
    /// Made while this version served.
    Made {
        version: String,
    },
    Taken,
}

type Signal = Pin<Box<dyn Future<Output = &'static str>>>;

impl Demo {
    async fn set_up(
        args: &Args,
        cache: &Cache,
        binary: &Path,
        directory: &RunDirectory,
        items: &std::sync::Arc<[super::stream::Item]>,
        pace: &Pace,
    ) -> Result<Self> {
        let path = args.policy_file.clone();
        let path = path.unwrap_or_else(|| committed_policy(args.policy));
        let text = fs::read_to_string(&path)
            .with_context(|| format!("cannot read the policy file {}", path.display()))?;
        let mut policy = PolicyFile::parse(&text).with_context(|| path.display().to_string())?;
        policy
            .set_policy(args.policy)
            .with_context(|| path.display().to_string())?;
        let arms = policy.arm_names();
        let servers = Servers::start(&arms, cache, directory).await?;
        policy.set_endpoints(&servers.endpoints())?;
        directory.write_policy(&policy.to_string())?;
        let mut pointsman = Pointsman::start(binary, directory)?;
        pointsman.wait_until_ready().await?;
        let admin = pointsman.admin()?;
        let experiment = admin.experiment(EXPERIMENT).await?;
        let counterfactual =
            Counterfactual::new(Table::load(&committed_table()).ok().as_ref(), &arms, items);
        let mut demo = Self {
            rewards_before: experiment.rewards(),
            view: View::new(
                &arms,
                args.policy.is_contextual(),
                counterfactual,
                pace.duration,
                pace.requests,
            ),
            pointsman,
            servers,
            directory: directory.clone(),
            admin,
            policy,
            screen: Screen::new(),
            edit: Edit::Planned,
            recovering: None,
        };
        demo.introduce(args);
        demo.view.look(experiment);
        Ok(demo)
    }

    fn introduce(&mut self, args: &Args) {
        let id = self.pointsman.process().id();
        self.say(&format!(
            "proxy {}, admin {} (pid {id})",
            self.pointsman.proxy_url(),
            self.pointsman.admin_url()
        ));
        self.say(&format!(
            "policy, journal and logs in {}",
            self.directory.root().display()
        ));
        self.say(&format!("reviews: {}", args.traffic.mix));
        if self.rewards_before > 0 {
            self.say(&format!(
                "goes on with {} rewards of earlier runs",
                grouped(self.rewards_before)
            ));
        }
    }

    async fn run(mut self, stream: Stream, pace: Pace, mut signal: Signal) -> Result<()> {
        let clock = Stopwatch::start();
        let (stop, stopped) = watch::channel(false);
        let (sender, mut outcomes) = unbounded_channel();
        let mut client = JoinSet::new();
        let proxy = self.pointsman.proxy()?;
        let proxy = proxy.with_headers(self.policy.match_headers());
        client.spawn(replay(proxy, stream, pace, stopped, sender));
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut stopped_by = None;
        // Until the client has everything back, the last labels' answers included.
        let labels = loop {
            tokio::select! {
                labels = client.join_next() => break labels.and_then(Result::ok).context("the client ended abnormally")?,
                _ = ticks.tick() => {
                    self.view.elapsed = clock.elapsed();
                    self.tick(&mut outcomes).await?;
                }
                name = &mut signal => {
                    if stopped_by.is_some() {
                        bail!("stopped by {name}, without waiting for the requests in flight");
                    }
                    stopped_by = Some(name);
                    signal = Box::pin(stop_signal()?);
                    self.say("stopping: waiting for the requests in flight");
                    stop.send_replace(true);
                }
            }
        };
        self.view.elapsed = clock.elapsed();
        self.finish(&mut outcomes, &labels).await?;
        match stopped_by {
            Some(name) => bail!("stopped by {name}"),
            None => Ok(()),
        }
    }

    async fn tick(&mut self, outcomes: &mut UnboundedReceiver<Outcome>) -> Result<()> {
        while let Ok(outcome) = outcomes.try_recv() {
            self.view.add(&outcome);
        }
        self.servers.check()?;
        self.revive()?;
        // Without an answer the last one stays on show: the proxy is away for a moment.
        if let Ok(experiment) = self.admin.experiment(EXPERIMENT).await {
            self.welcome_back(experiment.rewards());
            self.view.look(experiment);
            self.edit_policy()?;
        }
        self.screen.show(&self.view)
    }

    /// Starts the proxy again if it has ended.
    fn revive(&mut self) -> Result<()> {
        let Some(status) = self.pointsman.process().ended() else {
            return Ok(());
        };
        if self.pointsman.age() < SHORTEST_LIFE {
            bail!(
                "pointsman ended ({status}) right after its start; {}",
                self.pointsman.process().last_lines()
            );
        }
        let rewards = self
            .view
            .experiment
            .as_ref()
            .map_or(0, super::admin::Experiment::rewards);
        self.pointsman.restart()?;
        self.view.restarts += 1;
        self.recovering = Some(rewards);
        let id = self.pointsman.process().id();
        self.warn(&format!(
            "Pointsman has ended: {status}; started again on its data (pid {id})"
        ));
        Ok(())
    }

    fn welcome_back(&mut self, rewards: u64) {
        if let Some(before) = self.recovering.take() {
            self.say(&format!(
                "Pointsman is back with {} rewards (last seen: {})",
                grouped(rewards),
                grouped(before)
            ));
        }
    }

    /// Edits the policy file once, halfway, and notices when the proxy has taken it.
    fn edit_policy(&mut self) -> Result<()> {
        let Some(experiment) = &self.view.experiment else {
            return Ok(());
        };
        match &self.edit {
            Edit::Planned if self.view.progress() >= EDIT_AT => {
                let version = experiment.version.clone();
                let change = self.policy.explore_less()?;
                self.directory.write_policy(&self.policy.to_string())?;
                self.edit = Edit::Made { version };
                self.say(&format!("policy file edited while serving: {change}"));
            }
            Edit::Made { version } if experiment.version != *version => {
                let text = format!(
                    "hot reload: policy {version} -> {}, {} rewards kept",
                    experiment.version,
                    grouped(experiment.rewards())
                );
                self.edit = Edit::Taken;
                self.view.reloads += 1;
                self.say(&text);
            }
            _ => {}
        }
        Ok(())
    }

    async fn finish(
        mut self,
        outcomes: &mut UnboundedReceiver<Outcome>,
        labels: &LabelCounts,
    ) -> Result<()> {
        while let Ok(outcome) = outcomes.try_recv() {
            self.view.add(&outcome);
        }
        // Acknowledged means counted; the snapshot that shows it follows within 100 ms.
        tokio::time::sleep(TICK).await;
        if let Ok(experiment) = self.admin.experiment(EXPERIMENT).await {
            self.view.look(experiment);
        }
        let exceptions = labels.exceptions();
        if !exceptions.is_empty() {
            self.warn(&format!("labels not accepted: {exceptions}"));
        }
        self.screen.show(&self.view)?;
        // A label of a post that was repeated is a duplicate the second time, and counted all the same.
        let summary = table::summary(
            &self.view,
            labels.counted(),
            self.rewards_before,
            self.screen.columns(),
        );
        self.screen.print(&[super::paint::Line::default()])?;
        self.screen.print(&summary)?;
        self.pointsman.stop();
        if labels.lost > 0 {
            bail!(
                "{} labels were lost: {}",
                labels.lost,
                labels.last_failure.clone().unwrap_or_default()
            );
        }
        if self.view.tally.answered() == 0 {
            let reason = self
                .view
                .tally
                .last_failure
                .unwrap_or_else(|| "nothing was sent".to_owned());
            bail!("no review was rated: {reason}");
        }
        Ok(())
    }

    fn say(&mut self, text: &str) {
        self.view.events.push(Event {
            at: self.view.elapsed,
            text: text.to_owned(),
            warning: false,
        });
    }

    fn warn(&mut self, text: &str) {
        self.view.events.push(Event {
            at: self.view.elapsed,
            text: text.to_owned(),
            warning: true,
        });
    }
}
