//! What a policy sees: each eligible arm's evidence, discounted to now.
//!
//! Made by `engine::allocate` out of what the fold keeps. Everything is a sum over credits (posted rewards, defaults, failures),
//! so nothing here depends on their order.

use std::cell::OnceCell;
use std::sync::Arc;

use super::best::probability_best;
use super::{ArmPrior, Posterior};
use crate::experiment::reward::{Goal, RewardKind};
use crate::stats::laplace::Laplace;
use crate::stats::linear::Linear;
use crate::stats::moments::Moments;

/// Count, sum and spread of an arm's rewards; of discounted ones, each with its weight.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Estimate {
    /// Σ w.
    pub count: f64,
    /// Σ w r, in the reward's units.
    pub sum: f64,
    /// Σ w (r − mean)², never negative.
    pub deviations: f64,
}

impl Estimate {
    /// Mean reward; `None` without rewards.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0.0).then(|| self.sum / self.count)
    }

    /// Adds rewards that weigh `weight` each, in [0, 1] (the parallel variance formula of Chan, Golub and `LeVeque` 1983, eq. 1.5).
    pub fn add(&mut self, moments: &Moments, weight: f64) {
        let count = weight * moments.count() as f64;
        if count <= 0.0 {
            return;
        }
        let mean = moments.mean().unwrap_or(0.0);
        let spread = self.mean().map_or(0.0, |own| {
            (own - mean) * (own - mean) * (self.count / (self.count + count)) * count
        });
        self.count += count;
        self.sum += weight * moments.sum();
        self.deviations += weight * moments.sum_of_squared_deviations() + spread;
    }
}

impl Estimate {
    /// That of several sets of rewards together.
    pub fn of_all<'a>(parts: impl Iterator<Item = &'a Self> + Clone) -> Self {
        let count: f64 = parts.clone().map(|part| part.count).sum();
        let sum: f64 = parts.clone().map(|part| part.sum).sum();
        let deviations = parts
            .filter_map(|part| {
                let apart = part.mean()? - sum / count;
                Some(part.deviations + part.count * apart * apart)
            })
            .sum();
        Self {
            count,
            sum,
            deviations,
        }
    }
}

impl From<Moments> for Estimate {
    fn from(moments: Moments) -> Self {
        Self {
            count: moments.count() as f64,
            sum: moments.sum(),
            deviations: moments.sum_of_squared_deviations(),
        }
    }
}

/// Sums over an arm's credits in which each weighs 1 / (p + γ), with p the probability that was logged for it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ImportanceSum {
    /// Σ 1 / (p + γ).
    pub weights: f64,
    /// Σ r / (p + γ).
    pub rewards: f64,
}

/// What an arm's rewards say in their contexts.
#[derive(Debug, Clone, PartialEq)]
pub enum Regressed {
    /// Additive sums, discounted to now.
    Linear(Arc<Linear>),
    /// The posterior of a logistic regression.
    Logistic(Arc<Laplace>),
}

/// What a policy sees of one arm.
#[derive(Debug, Clone)]
pub struct ArmEvidence {
    /// The arm's weight in the file.
    pub weight: f64,
    /// The arm's own prior, if the file gives one.
    pub prior: Option<ArmPrior>,
    /// What it has earned, discounted to now.
    pub earned: Estimate,
    /// Credited decisions of the epoch, undiscounted: the arm's age.
    pub credited: u64,
    /// Sampled decisions in flight: their window is open, and nothing was learned of them yet.
    pub waiting: u64,
    /// Where the policy asks for it ([`Statistics::importance`](super::Statistics::importance)).
    pub importance: ImportanceSum,
    /// Likewise ([`Statistics::regression`](super::Statistics::regression)).
    pub regressed: Option<Regressed>,
}

impl ArmEvidence {
    /// An arm that has earned these rewards, with nothing else known of it.
    pub fn of(weight: f64, moments: Moments) -> Self {
        Self {
            weight,
            prior: None,
            earned: moments.into(),
            credited: moments.count(),
            waiting: 0,
            importance: ImportanceSum::default(),
            regressed: None,
        }
    }
}

/// What a policy sees of all of them.
#[derive(Debug)]
pub struct Evidence<'a> {
    /// The eligible arms.
    pub arms: &'a [ArmEvidence],
    /// What the policy itself believes of each ([`Policy::posterior`](super::Policy::posterior)).
    pub posteriors: &'a [Posterior],
    /// What a reward is.
    pub reward: RewardKind,
    /// Whether more is better.
    pub goal: Goal,
    best: OnceCell<Vec<f64>>,
}

impl<'a> Evidence<'a> {
    /// The evidence of these arms; `posteriors` in the same order.
    pub fn new(
        arms: &'a [ArmEvidence],
        posteriors: &'a [Posterior],
        reward: RewardKind,
        goal: Goal,
    ) -> Self {
        Self {
            arms,
            posteriors,
            reward,
            goal,
            best: OnceCell::new(),
        }
    }

    /// Posterior probability of each arm that it is the best of `arms`. Computed when it is first asked for, because it costs far
    /// more than anything else here.
    pub fn probability_best(&self) -> &[f64] {
        self.best
            .get_or_init(|| probability_best(self.posteriors, self.goal))
    }

    /// The same, if it has been asked for.
    pub fn into_probability_best(self) -> Option<Vec<f64>> {
        self.best.into_inner()
    }

    /// The posterior means, mirrored where less is better: more is better.
    pub fn gains(&self) -> Vec<f64> {
        self.posteriors
            .iter()
            .map(|posterior| match self.goal {
                Goal::Maximize => posterior.mean(),
                Goal::Minimize => -posterior.mean(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(values: &[f64]) -> Moments {
        let mut moments = Moments::default();
        for value in values {
            moments.add(*value, 1);
        }
        moments
    }

    #[test]
    fn parts_of_weight_one_add_up_to_the_whole() {
        let mut parts = Estimate::default();
        for part in [&[1.0, 2.5, -3.0][..], &[], &[7.0], &[1e6, 1e6 + 1.0]] {
            parts.add(&moments(part), 1.0);
        }
        let whole = Estimate::from(moments(&[1.0, 2.5, -3.0, 7.0, 1e6, 1e6 + 1.0]));
        assert_eq!(parts.count, whole.count);
        assert_eq!(parts.sum, whole.sum);
        assert!((parts.deviations / whole.deviations - 1.0).abs() < 1e-12);
    }

    #[test]
    fn weights_scale_counts_and_spread() {
        let mut estimate = Estimate::default();
        estimate.add(&moments(&[0.0, 1.0]), 0.5);
        estimate.add(&moments(&[1.0]), 0.25);
        // Weights 0.5, 0.5, 0.25 on 0, 1, 1.
        let mean = 0.75 / 1.25;
        assert_eq!(estimate.count, 1.25);
        assert_eq!(estimate.mean(), Some(mean));
        let spread = 0.5 * mean * mean + 0.75 * (1.0 - mean) * (1.0 - mean);
        assert!((estimate.deviations - spread).abs() < 1e-15);
    }
}
