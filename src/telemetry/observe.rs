//! What the ledger and the learner do, as metrics.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};

use super::metrics::Metrics;
use crate::engine::event::{Rewarded, Verdict};
use crate::experiment::Experiment;
use crate::experiment::id::{ArmId, ExperimentId, Name};
use crate::learner::Published;
use crate::ledger::Observer;
use crate::proxy::router::Router;

/// Turns what happens into metrics.
#[derive(Debug)]
pub struct Telemetry {
    metrics: Arc<Metrics>,
    fsync: Histogram,
    dropped: Counter,
    invalid: Counter,
    lag: Gauge,
    writable: AtomicBool,
    /// Handles of every arm that was ever published: bounded by the configuration.
    arms: Mutex<HashMap<(ExperimentId, ArmId), ArmHandles>>,
}

/// What is told of an arm off the request path.
#[derive(Debug)]
struct ArmHandles {
    rewards: [Counter; Verdict::ALL.len()],
    allocation: Gauge,
    probability_best: Gauge,
    healthy: Gauge,
}

impl Telemetry {
    /// Resolves the handles.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let invalid = [("experiment", ""), ("arm", ""), ("status", "invalid")];
        Self {
            fsync: metrics.histogram("pointsman_journal_fsync_duration_seconds", &[]),
            dropped: metrics.counter("pointsman_journal_dropped_total", &[]),
            invalid: metrics.counter("pointsman_rewards_total", &invalid),
            lag: metrics.gauge("pointsman_learner_lag_seconds", &[]),
            writable: AtomicBool::new(true),
            arms: Mutex::default(),
            metrics,
        }
    }

    /// Counts items that were no rewards.
    pub fn count_invalid(&self, items: usize) {
        self.invalid.increment(items as u64);
    }

    /// Whether the last group commit reached the disk.
    pub fn is_writable(&self) -> bool {
        self.writable.load(Ordering::Relaxed)
    }

    /// Resolves the handles of arms that are new, and sets the gauges of the experiments that changed. `lag` is the age of the oldest
    /// commit whose effect this is.
    pub fn published(&self, published: &Published<Router>, changed: &[usize], lag: Duration) {
        self.lag.set(lag.as_secs_f64());
        let mut arms = self.arms.lock().unwrap_or_else(PoisonError::into_inner);
        for index in changed {
            let (serving, route) = (
                &published.experiments[*index],
                &published.router.routes[*index],
            );
            let experiment = &serving.experiment;
            for (index, (state, handles)) in serving.arms.iter().zip(&route.arms).enumerate() {
                let arm = &experiment.arms[index];
                let known = arms
                    .entry((experiment.id, arm.id))
                    .or_insert_with(|| self.resolve(experiment, &arm.name));
                handles.metrics.posterior_mean.set(state.posterior.mean());
                handles.metrics.reward_sum.set(state.tally.rewards.sum());
                known.probability_best.set(state.probability_best);
                known.healthy.set(f64::from(u8::from(state.healthy)));
                known
                    .allocation
                    .set(serving.allocation.probabilities[index]);
            }
        }
        clear_vanished(&arms, published);
    }

    fn resolve(&self, experiment: &Experiment, arm: &Name) -> ArmHandles {
        let labels = [
            ("experiment", experiment.name.as_str()),
            ("arm", arm.as_str()),
        ];
        let rewards = Verdict::ALL.map(|verdict| {
            self.metrics.counter(
                "pointsman_rewards_total",
                &[labels[0], labels[1], ("status", verdict.as_str())],
            )
        });
        ArmHandles {
            rewards,
            allocation: self.metrics.gauge("pointsman_arm_allocation", &labels),
            healthy: self.metrics.gauge("pointsman_arm_healthy", &labels),
            probability_best: self
                .metrics
                .gauge("pointsman_arm_probability_best", &labels),
        }
    }
}

/// An arm that no longer serves gets nothing: what it had would be told for ever.
fn clear_vanished(
    arms: &HashMap<(ExperimentId, ArmId), ArmHandles>,
    published: &Published<Router>,
) {
    let serving: usize = published
        .experiments
        .iter()
        .map(|serving| serving.arms.len())
        .sum();
    if arms.len() == serving {
        return;
    }
    for ((experiment, arm), handles) in arms {
        let serves = published.experiments.iter().any(|serving| {
            serving.experiment.id == *experiment && serving.experiment.arm_index(*arm).is_some()
        });
        if !serves {
            handles.allocation.set(0.0);
            handles.probability_best.set(0.0);
            // Nobody is to be called for an arm that is gone.
            handles.healthy.set(1.0);
        }
    }
}

impl Observer for Telemetry {
    fn committed(&self, took: Duration) {
        self.fsync.record(took.as_secs_f64());
    }

    fn dropped(&self, events: u64) {
        self.dropped.increment(events);
    }

    fn judged(&self, rewarded: &Rewarded) {
        let arms = self.arms.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(arm) = arms.get(&(rewarded.decision.experiment, rewarded.decision.arm)) {
            arm.rewards[rewarded.verdict as usize].increment(1);
        }
    }

    fn invalid(&self) {
        self.invalid.increment(1);
    }

    fn evicted(&self, experiment: &Name, keys: u64) {
        let labels = [("experiment", experiment.as_str())];
        self.metrics
            .counter("pointsman_reward_keys_evicted_total", &labels)
            .increment(keys);
        tracing::warn!(%experiment, keys, "rewards by these keys can no longer be posted: raise limits.reward_keys, or shorten the window");
    }

    fn writable(&self, writable: bool) {
        self.writable.store(writable, Ordering::Relaxed);
    }
}
