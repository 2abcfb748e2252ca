//! Many seeds, and what they amount to.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::ser::{SerializeMap, SerializeStruct};
use serde::{Serialize, Serializer};

use super::trial::{self, Plan, Trial};
use crate::clock::Stopwatch;

/// Points of a curve.
const POINTS: u64 = 100;

/// Seeds, threads, and whom to tell.
pub struct Effort<'a> {
    /// Seeds 0 to this, less one.
    pub seeds: u64,
    /// How many seeds are played at a time.
    pub threads: NonZeroUsize,
    /// Is told how many rounds were played since the last time, from any thread.
    pub progress: &'a (dyn Fn(u64) + Sync),
}

impl std::fmt::Debug for Effort<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Effort")
            .field("seeds", &self.seeds)
            .field("threads", &self.threads)
            .finish_non_exhaustive()
    }
}

/// A mean over seeds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Its standard error; `None` with one seed.
    pub se: Option<f64>,
}

/// Regret at the horizon.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Regret {
    /// Mean and standard error.
    #[serde(flatten)]
    pub estimate: Estimate,
    /// A tenth of the seeds had less.
    pub p10: f64,
    /// The median.
    pub p50: f64,
    /// A tenth of the seeds had more.
    pub p90: f64,
}

/// Regret after some rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// How many rounds.
    pub t: u64,
    /// Mean and standard error.
    #[serde(flatten)]
    pub estimate: Estimate,
}

/// What a policy file came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// The policy file, as it was given.
    pub policy: String,
    /// Rounds of a seed.
    pub horizon: u64,
    /// Seeds.
    pub seeds: u64,
    /// Pseudo-regret at the horizon.
    pub regret: Regret,
    /// Pseudo-regret on the way there.
    pub curve: Vec<Point>,
    /// Of each arm, in the file's order: the part of the decisions.
    pub share: Vec<(String, f64)>,
    /// The mean reward of a decision.
    pub reward: Estimate,
    /// Of all threads together, by the wall clock.
    pub decisions_per_second: f64,
    /// The part of the posted rewards that came after their window and did not count.
    pub late: f64,
}

impl Serialize for Summary {
    /// The form of `--format json`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Share<'a>(&'a [(String, f64)]);
        impl Serialize for Share<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut map = serializer.serialize_map(Some(self.0.len()))?;
                for (arm, share) in self.0 {
                    map.serialize_entry(arm, share)?;
                }
                map.end()
            }
        }
        let mut form = serializer.serialize_struct("Summary", 8)?;
        form.serialize_field("policy", &self.policy)?;
        form.serialize_field("horizon", &self.horizon)?;
        form.serialize_field("seeds", &self.seeds)?;
        form.serialize_field("regret", &self.regret)?;
        form.serialize_field("curve", &self.curve)?;
        form.serialize_field("share", &Share(&self.share))?;
        form.serialize_field("reward", &self.reward)?;
        form.serialize_field("decisions_per_second", &self.decisions_per_second)?;
        form.end()
    }
}

/// Runs a plan with every seed. The numbers do not depend on the threads.
pub fn simulate(plan: &Plan, effort: &Effort<'_>) -> Summary {
    let checkpoints = checkpoints(plan.horizon);
    let watch = Stopwatch::start();
    let trials = trials(plan, effort, &checkpoints);
    let seconds = watch.elapsed().as_secs_f64();
    let rounds = plan.horizon as f64 * trials.len() as f64;
    let at =
        |index: usize| -> Vec<f64> { trials.iter().map(|trial| trial.regret[index]).collect() };
    let last = at(checkpoints.len() - 1);
    let drawn = |arm: usize| -> f64 { trials.iter().map(|trial| trial.drawn[arm] as f64).sum() };
    let rewards: Vec<f64> = trials
        .iter()
        .map(|trial| trial.reward / plan.horizon as f64)
        .collect();
    let sum = |count: fn(&Trial) -> u64| -> f64 { trials.iter().map(count).sum::<u64>() as f64 };
    Summary {
        policy: plan.experiment.file.clone(),
        horizon: plan.horizon,
        seeds: effort.seeds,
        regret: Regret {
            estimate: estimate(&last),
            p10: quantile(&last, 0.1),
            p50: quantile(&last, 0.5),
            p90: quantile(&last, 0.9),
        },
        curve: checkpoints
            .iter()
            .enumerate()
            .map(|(index, t)| Point {
                t: *t,
                estimate: estimate(&at(index)),
            })
            .collect(),
        share: plan
            .experiment
            .arms
            .iter()
            .enumerate()
            .map(|(index, arm)| (arm.name.to_string(), drawn(index) / rounds))
            .collect(),
        reward: estimate(&rewards),
        decisions_per_second: rounds / seconds.max(f64::MIN_POSITIVE),
        late: sum(|trial| trial.late) / sum(|trial| trial.posted).max(1.0),
    }
}

/// Every trial, in the order of the seeds.
fn trials(plan: &Plan, effort: &Effort<'_>, checkpoints: &[u64]) -> Vec<Trial> {
    let next = AtomicU64::new(0);
    let work = || {
        let mut trials = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= effort.seeds {
                return trials;
            }
            trials.push((seed, trial::run(plan, seed, checkpoints, effort.progress)));
        }
    };
    let mut trials: Vec<(u64, Trial)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..effort.threads.get())
            .map(|_| scope.spawn(work))
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| match thread.join() {
                Ok(trials) => trials,
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect()
    });
    trials.sort_by_key(|(seed, _)| *seed);
    trials.into_iter().map(|(_, trial)| trial).collect()
}

/// The rounds after which regret is noted: evenly spaced, the last one the horizon.
fn checkpoints(horizon: u64) -> Vec<u64> {
    let points = horizon.clamp(1, POINTS);
    (1..=points)
        .map(|point| (u128::from(horizon) * u128::from(point)).div_ceil(u128::from(points)) as u64)
        .collect()
}

fn estimate(values: &[f64]) -> Estimate {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Estimate {
        mean,
        se: (values.len() > 1).then(|| (squares / (count - 1.0) / count).sqrt()),
    }
}

/// The quantile of a sample, interpolated between its order statistics (Hyndman and Fan 1996, type 7).
fn quantile(values: &[f64], probability: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = probability * (sorted.len() - 1) as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * place.fract()
}

#[cfg(test)]
mod tests;
