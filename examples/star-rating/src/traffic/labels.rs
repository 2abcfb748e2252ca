//! Posts the true stars, in small batches, until the proxy has them.
//!
//! A proxy that is away or cannot write its journal is tried again and again, with growing pauses. That is safe, since a
//! decision counts once however often its label arrives.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;

use super::proxy::{Label, Proxy, Refusal, Statuses};
use crate::clock::Stopwatch;

/// Most labels in one post.
const BATCH: usize = 200;
/// How long a label waits for company.
const LINGER: Duration = Duration::from_millis(50);
/// First pause after a failed post; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause between two posts of the same labels.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How labels are posted.
#[derive(Debug, Clone, Copy)]
pub struct Posting {
    /// How long after the prediction a label is known.
    pub delay: Duration,
    /// How long the same labels are tried before they are given up.
    pub patience: Duration,
}

/// A label and when it may be posted, as time since the start of the replay.
#[derive(Debug)]
pub struct Due {
    /// What is posted.
    pub label: Label,
    /// When, at the earliest.
    pub at: Duration,
}

/// What became of the labels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelCounts {
    /// By the proxy's status: `accepted`, `duplicate`, and so on.
    pub statuses: Statuses,
    /// Posts that had to be repeated.
    pub retries: u64,
    /// Labels that the proxy never took.
    pub lost: u64,
    /// Why the last post failed.
    pub last_failure: Option<String>,
}

impl LabelCounts {
    /// Labels that the proxy has counted.
    pub fn counted(&self) -> u64 {
        ["accepted", "duplicate"]
            .iter()
            .filter_map(|status| self.statuses.get(*status))
            .sum()
    }

    /// Labels with any other answer, as `2 late, 1 invalid`; empty when there are none.
    pub fn exceptions(&self) -> String {
        let mut parts: BTreeMap<&str, u64> = self
            .statuses
            .iter()
            .map(|(status, count)| (status.as_str(), *count))
            .collect();
        parts.remove("accepted");
        if self.lost > 0 {
            parts.insert("never taken", self.lost);
        }
        let parts: Vec<String> = parts
            .iter()
            .map(|(status, count)| format!("{count} {status}"))
            .collect();
        parts.join(", ")
    }
}

/// Posts what comes from `labels` until the sender is gone and all of it is posted. `clock` is the one that set [`Due::at`].
pub async fn post_all(
    proxy: Proxy,
    mut labels: UnboundedReceiver<Due>,
    posting: Posting,
    clock: Stopwatch,
) -> LabelCounts {
    let mut counts = LabelCounts::default();
    let mut waiting: Option<Due> = None;
    loop {
        let Some(first) = next(&mut waiting, &mut labels).await else {
            return counts;
        };
        tokio::time::sleep((first.at + LINGER).saturating_sub(clock.elapsed())).await;
        let mut batch = vec![first.label];
        // Labels come in the order in which they are due, since all wait equally long.
        while batch.len() < BATCH {
            match labels.try_recv() {
                Ok(due) if due.at <= clock.elapsed() => batch.push(due.label),
                Ok(due) => {
                    waiting = Some(due);
                    break;
                }
                Err(_) => break,
            }
        }
        post(&proxy, &batch, posting.patience, &mut counts).await;
    }
}

async fn next(waiting: &mut Option<Due>, labels: &mut UnboundedReceiver<Due>) -> Option<Due> {
    match waiting.take() {
        Some(due) => Some(due),
        None => labels.recv().await,
    }
}

async fn post(proxy: &Proxy, batch: &[Label], patience: Duration, counts: &mut LabelCounts) {
    let started = Stopwatch::start();
    let mut pause = FIRST_PAUSE;
    loop {
        match proxy.post_labels(batch).await {
            Ok(statuses) => {
                for (status, count) in statuses {
                    *counts.statuses.entry(status).or_default() += count;
                }
                return;
            }
            Err(Refusal::Later(reason)) if started.elapsed() + pause < patience => {
                counts.last_failure = Some(reason);
                counts.retries += 1;
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            Err(Refusal::Later(reason) | Refusal::Never(reason)) => {
                counts.last_failure = Some(reason);
                counts.lost += batch.len() as u64;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_leave_out_what_is_as_it_should_be() {
        let mut counts = LabelCounts::default();
        counts.statuses.insert("accepted".to_owned(), 10);
        assert_eq!(counts.exceptions(), "");
        counts.statuses.insert("duplicate".to_owned(), 2);
        counts.lost = 3;
        assert_eq!(counts.exceptions(), "2 duplicate, 3 never taken");
        assert_eq!(counts.counted(), 12);
    }
}
