//! Sends reviews at a given rate and hands their labels to the poster.
//!
//! Open loop: requests are due at times that do not depend on the answers, so a slow server meets the same traffic as a fast
//! one, and a request that had to wait for its turn counts that wait as latency. Without a rate the loop is closed: as many
//! requests as may be in flight.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use super::labels::{Due, LabelCounts, Posting, post_all};
use super::proxy::{Label, Proxy};
use super::stream::{Item, Stream};
use super::tally::Outcome;
use crate::clock::Stopwatch;
use crate::random::SplitMix64;

/// When requests are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Arrivals {
    /// Independent of each other, as those of many users are.
    Poisson,
    /// At equal distances.
    Paced,
}

/// How reviews are replayed.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Requests per second; `None`: as fast as they are answered.
    pub rate: Option<f64>,
    /// When requests are due.
    pub arrivals: Arrivals,
    /// Most requests in flight.
    pub concurrency: usize,
    /// Ends after so many requests.
    pub requests: Option<u64>,
    /// Ends after this time.
    pub duration: Option<Duration>,
    /// How labels are posted.
    pub posting: Posting,
    /// Seed of the arrivals.
    pub seed: u64,
}

/// Replays `stream` until the pace ends or `stop` becomes true, then waits for what is in flight and for the labels. Every
/// outcome goes to `outcomes`.
pub async fn replay(
    proxy: Proxy,
    mut stream: Stream,
    pace: Pace,
    mut stop: watch::Receiver<bool>,
    outcomes: UnboundedSender<Outcome>,
) -> LabelCounts {
    let clock = Stopwatch::start();
    let (labels, received) = unbounded_channel();
    let mut poster = JoinSet::new();
    poster.spawn(post_all(proxy.clone(), received, pace.posting, clock));
    let slots = Arc::new(Semaphore::new(pace.concurrency));
    let sender = Sender {
        proxy,
        clock,
        delay: pace.posting.delay,
        labels,
        outcomes,
    };
    let mut in_flight = JoinSet::new();
    let mut schedule = Schedule::new(&pace);
    while let Some(due) = schedule.next() {
        let slot = tokio::select! {
            slot = wait_for_turn(due, clock, &slots) => slot,
            // An error means that whoever could stop us is gone.
            _ = stop.wait_for(|stop| *stop) => break,
        };
        // A closed loop has no set times: its requests are due when their turn comes.
        let due = if pace.rate.is_some() {
            due
        } else {
            clock.elapsed()
        };
        if pace.duration.is_some_and(|duration| due >= duration) {
            break;
        }
        while in_flight.try_join_next().is_some() {}
        let draw = stream.draw();
        let items = Arc::clone(stream.items());
        let sender = sender.clone();
        in_flight.spawn(async move {
            sender
                .send(&items[draw.item], draw.item, draw.user, due)
                .await;
            drop(slot);
        });
    }
    while in_flight.join_next().await.is_some() {}
    // The poster ends once the last sender of labels is gone.
    drop(sender);
    poster
        .join_next()
        .await
        .and_then(Result::ok)
        .unwrap_or_default()
}

async fn wait_for_turn(
    due: Duration,
    clock: Stopwatch,
    slots: &Arc<Semaphore>,
) -> Option<OwnedSemaphorePermit> {
    let wait = due.saturating_sub(clock.elapsed());
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
    // The semaphore is never closed, so there is always a permit.
    Arc::clone(slots).acquire_owned().await.ok()
}

/// What a request in flight needs.
#[derive(Clone)]
struct Sender {
    proxy: Proxy,
    clock: Stopwatch,
    delay: Duration,
    labels: UnboundedSender<Due>,
    outcomes: UnboundedSender<Outcome>,
}

impl Sender {
    async fn send(&self, item: &Item, index: usize, user: usize, due: Duration) {
        let answer = self.proxy.rate(item, user).await;
        let now = self.clock.elapsed();
        if let Ok(answered) = &answer {
            let label = Label {
                decision_id: answered.decision_id.clone(),
                label: item.stars,
            };
            // The poster outlives the requests.
            drop(self.labels.send(Due {
                label,
                at: now + self.delay,
            }));
        }
        let outcome = Outcome {
            item: index,
            domain: item.domain,
            stars: item.stars,
            latency: now.saturating_sub(due),
            answer,
        };
        // Nobody listens any more when the command is about to end.
        drop(self.outcomes.send(outcome));
    }
}

/// When requests are due, as time since the start.
struct Schedule {
    rate: Option<f64>,
    arrivals: Arrivals,
    left: u64,
    next: f64,
    random: SplitMix64,
}

impl Schedule {
    fn new(pace: &Pace) -> Self {
        Self {
            rate: pace.rate,
            arrivals: pace.arrivals,
            left: pace.requests.unwrap_or(u64::MAX),
            next: 0.0,
            random: SplitMix64::new(pace.seed),
        }
    }

    /// When the next request is due, 0 without a rate; `None` when all were sent.
    fn next(&mut self) -> Option<Duration> {
        self.left = self.left.checked_sub(1)?;
        let Some(rate) = self.rate else {
            return Some(Duration::ZERO);
        };
        let due = Duration::from_secs_f64(self.next);
        let gap = match self.arrivals {
            Arrivals::Paced => 1.0,
            Arrivals::Poisson => -(1.0 - self.random.unit_interval()).ln(),
        };
        self.next += gap / rate;
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(arrivals: Arrivals, rate: Option<f64>, requests: u64) -> Vec<Duration> {
        let posting = Posting {
            delay: Duration::ZERO,
            patience: Duration::ZERO,
        };
        let pace = Pace {
            rate,
            arrivals,
            concurrency: 1,
            requests: Some(requests),
            duration: None,
            posting,
            seed: 3,
        };
        let mut schedule = Schedule::new(&pace);
        std::iter::from_fn(|| schedule.next()).collect()
    }

    #[test]
    fn paced_requests_are_equally_far_apart() {
        let due: Vec<u128> = schedule(Arrivals::Paced, Some(50.0), 4)
            .iter()
            .map(Duration::as_millis)
            .collect();
        assert_eq!(due, [0, 20, 40, 60]);
    }

    #[test]
    fn poisson_requests_keep_the_rate_on_average_and_repeat_with_the_seed() {
        let due = schedule(Arrivals::Poisson, Some(50.0), 5001);
        let seconds = due.last().unwrap().as_secs_f64();
        assert!((96.0..104.0).contains(&seconds), "{seconds}");
        assert_eq!(due, schedule(Arrivals::Poisson, Some(50.0), 5001));
    }

    #[test]
    fn without_a_rate_requests_are_due_at_once() {
        assert_eq!(
            schedule(Arrivals::Poisson, None, 2),
            [Duration::ZERO, Duration::ZERO]
        );
    }
}
