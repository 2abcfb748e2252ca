//! `star-rating client`: an application that has reviews rated and later tells the true stars.
//!
//! It needs nothing of the proxy but two calls: the model's own, through the proxy, and `POST /-/rewards`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use hyper::header::{HeaderName, HeaderValue};
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::labels::{LabelCounts, Posting};
use super::mix::Mix;
use super::proxy::Proxy;
use super::replay::{Arrivals, Pace, replay};
use super::signals::stop_signal;
use super::stream::{Item, Stream};
use super::tally::Tally;
use crate::cache::{Cache, CacheArgs};
use crate::clock::Stopwatch;
use crate::console::{Progress, Unit, line};
use crate::{dataset, reviews};

/// What is sent, and when: the options that `client` and `demo` share.
#[derive(Debug, Clone, clap::Args)]
pub struct TrafficArgs {
    /// Requests per second; 0 sends as fast as they are answered
    #[arg(long, default_value_t = 30.0, value_name = "N")]
    pub rate: f64,
    /// When requests are due
    #[arg(long, value_enum, default_value_t = Arrivals::Poisson)]
    pub arrivals: Arrivals,
    /// Stop after this many requests
    #[arg(long, value_name = "N")]
    pub requests: Option<u64>,
    /// Stop after this many minutes [default: 3, or no limit with --requests]
    #[arg(long, value_name = "M")]
    pub minutes: Option<f64>,
    /// Which kinds of review, in which proportions
    #[arg(
        long,
        default_value = "Clothing=0.6,Electronics=0.2,Movies=0.2",
        value_name = "KIND=SHARE,..."
    )]
    pub mix: Mix,
    /// Seconds until the true stars of a review are known
    #[arg(long, default_value_t = 0.0, value_name = "SECONDS")]
    pub delay: f64,
    /// Most requests in flight
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub concurrency: usize,
    /// Seed of the reviews' order and of their arrivals
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
}

/// Minutes of traffic when nothing else ends it.
const DEFAULT_MINUTES: f64 = 3.0;
/// Longest time, in seconds, that any option may name: a century.
const LONGEST: f64 = 3.2e9;
/// How long labels that the proxy does not take are tried.
const PATIENCE: Duration = Duration::from_mins(1);

impl TrafficArgs {
    /// The pace that these options ask for.
    ///
    /// # Errors
    /// When a number makes no sense.
    pub fn pace(&self) -> Result<Pace> {
        ensure!(
            self.rate.is_finite() && self.rate >= 0.0,
            "--rate must be a number of at least 0, not {}",
            self.rate
        );
        ensure!(self.concurrency > 0, "--concurrency must be at least 1");
        ensure!(self.requests != Some(0), "--requests must be at least 1");
        let minutes = self
            .minutes
            .or(self.requests.is_none().then_some(DEFAULT_MINUTES));
        Ok(Pace {
            rate: (self.rate > 0.0).then_some(self.rate),
            arrivals: self.arrivals,
            concurrency: self.concurrency,
            requests: self.requests,
            duration: minutes
                .map(|minutes| seconds("--minutes", minutes * 60.0))
                .transpose()?,
            posting: Posting {
                delay: seconds("--delay", self.delay)?,
                patience: PATIENCE,
            },
            seed: self.seed,
        })
    }

    /// The held-out reviews in the order of these options.
    ///
    /// # Errors
    /// When the reviews are missing (says how to get them) or the mix asks for what is not there.
    pub fn stream(&self, cache: &Cache) -> Result<Stream> {
        let reviews = reviews::load(cache)?;
        // No variant has learned from these, so their accuracy is what new reviews would see.
        let items: Arc<[Item]> = dataset::held_out(&reviews)
            .into_iter()
            .map(Item::of_review)
            .collect();
        Stream::new(items, self.mix, self.seed)
    }
}

fn seconds(option: &str, seconds: f64) -> Result<Duration> {
    ensure!(
        (0.0..LONGEST).contains(&seconds),
        "{option} must be a time of at least 0"
    );
    Ok(Duration::from_secs_f64(seconds))
}

/// Options of `star-rating client`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Pointsman's proxy listener
    #[arg(long, default_value = "http://127.0.0.1:8080", value_name = "URL")]
    proxy: String,
    /// The `auth.client_token` of its configuration, if it has one
    #[arg(
        long,
        env = "POINTSMAN_CLIENT_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    token: Option<String>,
    /// A header to send with every review, for policy files that match by it; can be given again
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    #[command(flatten)]
    traffic: TrafficArgs,
    #[command(flatten)]
    cache: CacheArgs,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or("expected NAME=VALUE, as in x-experiment=by-category")?;
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("{name:?} names no header"))?;
    HeaderValue::from_str(value).map_err(|_| format!("{value:?} can be no header's value"))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Runs `star-rating client`.
///
/// # Errors
/// When nothing could be sent, or labels were lost; says why.
pub fn run(args: &Args) -> Result<()> {
    let pace = args.traffic.pace()?;
    let stream = args.traffic.stream(&args.cache.cache())?;
    let proxy = Proxy::at(&args.proxy, args.token.as_deref())?.with_headers(args.headers.clone());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?;
    let watch = Stopwatch::start();
    let (tally, labels) = runtime.block_on(send(proxy, stream, pace))?;
    for row in report(&tally, &labels, watch.elapsed()) {
        line(&row)?;
    }
    if tally.answered() == 0 {
        let reason = tally
            .last_failure
            .unwrap_or_else(|| "nothing was sent".to_owned());
        bail!(
            "no review was rated at {}: {reason}. Is Pointsman running there (--proxy URL)?",
            args.proxy
        );
    }
    if labels.lost > 0 {
        bail!(
            "{} labels were lost: {}",
            labels.lost,
            labels.last_failure.unwrap_or_default()
        );
    }
    Ok(())
}

async fn send(proxy: Proxy, stream: Stream, pace: Pace) -> Result<(Tally, LabelCounts)> {
    let mut signal = std::pin::pin!(stop_signal()?);
    let (stop, stopped) = watch::channel(false);
    let (outcomes, mut received) = unbounded_channel();
    let mut client = JoinSet::new();
    client.spawn(replay(proxy, stream, pace, stopped, outcomes));
    let total = pace
        .requests
        .or_else(|| Some((pace.rate? * pace.duration?.as_secs_f64()) as u64));
    let progress = Progress::start("client", total.unwrap_or_default(), Unit::Items);
    let mut tally = Tally::default();
    loop {
        tokio::select! {
            outcome = received.recv() => match outcome {
                Some(outcome) => tally.add(&outcome),
                None => break,
            },
            _ = &mut signal, if !*stop.borrow() => {
                stop.send_replace(true);
            }
        }
        progress.set(tally.answered() + tally.failed);
    }
    let labels = client
        .join_next()
        .await
        .context("the client never ran")?
        .context("the client ended abnormally")?;
    progress.finish();
    Ok((tally, labels))
}

/// The figures of a finished run, as lines.
fn report(tally: &Tally, labels: &LabelCounts, elapsed: Duration) -> Vec<String> {
    let seconds = elapsed.as_secs_f64();
    let mut lines = vec![format!(
        "{} reviews rated in {seconds:.1} s ({:.1}/s), {} failed; {} labels counted, {} posts repeated",
        tally.answered(),
        tally.answered() as f64 / seconds,
        tally.failed,
        labels.counted(),
        labels.retries,
    )];
    if let Some(reason) = &tally.last_failure {
        lines.push(format!("last failure: {reason}"));
    }
    let exceptions = labels.exceptions();
    if !exceptions.is_empty() {
        lines.push(format!("labels not counted: {exceptions}"));
    }
    let row = |name: &str,
               requests: u64,
               accuracy: Option<f64>,
               quantile: &dyn Fn(f64) -> Option<f64>| {
        let number = |value: Option<f64>, digits: usize| {
            value.map_or("-".to_owned(), |value| format!("{value:.digits$}"))
        };
        let (median, tail) = (number(quantile(0.5), 1), number(quantile(0.99), 1));
        format!(
            "{name:<16} {requests:>8}  {:>8}  {median:>7}  {tail:>7}",
            number(accuracy, 3)
        )
    };
    lines.push(format!(
        "{:<16} {:>8}  {:>8}  {:>7}  {:>7}",
        "arm", "requests", "accuracy", "p50 ms", "p99 ms"
    ));
    for (name, arm) in &tally.arms {
        lines.push(row(name, arm.requests, arm.accuracy(), &|quantile| {
            arm.latency(quantile)
        }));
    }
    lines.push(row(
        "all",
        tally.answered(),
        tally.accuracy(),
        &|quantile| tally.latency(quantile),
    ));
    lines
}
