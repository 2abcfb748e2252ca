//! LinUCB: the arm with the greatest upper confidence bound xᵀθ + α √(xᵀ A⁻¹ x) (Li, Chu, Langford and Schapire, "A
//! Contextual-Bandit Approach to Personalized News Article Recommendation", 2010, Algorithm 1: disjoint models).
//!
//! Use it when rewards come back at once and earning is all that counts. It is deterministic: propensities are 0, 1 or the floor, so
//! off-policy estimates rest on the floor alone, and while rewards are on their way every request with the same features goes to the same arm.
//! α is in units of the reward's range (binary, bounded) or standard deviation (real). An unseen arm stands at 0 + α √(xᵀx / λ):
//! with few features and a small α, arms may never be tried; `warm_up` guards against that.

use std::sync::Arc;

use super::model::{Model, Scratch, share_greatest};
use super::ridge::{ArmStatistics, Objective, Ridge, Uncertain};
use super::{PRIOR, STANDARDIZE, Sums, alike, linear, ridge_of};
use crate::document::{Default, Field, Kind, Range};
use crate::experiment::reward::RewardKind;
use crate::policy::{
    ANY_REWARD, ArmEvidence, Evidence, FLOOR, HALF_LIFE, Memory, Policy, PolicyKind, Posterior,
    SLIDING_WINDOW, Statistics, WARM_UP, posterior,
};

/// α of policy files that give none.
pub const DEFAULT_ALPHA: f64 = 1.0;

/// The registry's entry.
pub const KIND: PolicyKind = PolicyKind {
    name: "lin_ucb",
    summary: "The arm with the best upper confidence bound for this request gets all but the floor",
    guide: "Where features tell nearly everything and rewards come at once: it wastes little. Not where rewards are late, because it sends all like requests to one arm until it hears of them, and not \
            for off-policy estimates: what it does not play has no more than the floor.",
    fields: &[
        Field {
            key: "alpha",
            kind: Kind::Number(Range::NOT_NEGATIVE),
            default: Default::Is("1.0"),
            doc: "Width of the bound in standard deviations of a prediction. Larger explores more.",
        },
        FLOOR,
        WARM_UP,
        HALF_LIFE,
        SLIDING_WINDOW,
        PRIOR,
        STANDARDIZE,
    ],
    example: "[policy.lin_ucb]\nalpha = 0.3\n",
    explores: false,
    rewards: ANY_REWARD,
    unit: true,
    context: true,
    build: |section, _| {
        Some(Arc::new(LinUcb {
            alpha: section.number("alpha").unwrap_or(DEFAULT_ALPHA),
            ridge: ridge_of(section),
            memory: Memory::read(section),
        }))
    },
};

/// `[policy.lin_ucb]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinUcb {
    /// Width of the bound, ≥ 0.
    pub alpha: f64,
    /// The regression.
    pub ridge: Ridge,
    /// How long the past counts.
    pub memory: Memory,
}

impl LinUcb {
    /// The published form for these arms.
    pub fn fit(&self, arms: &[ArmStatistics<'_>], objective: Objective) -> LinUcbModel {
        LinUcbModel {
            alpha: self.alpha,
            fit: self.ridge.uncertain(arms, objective),
        }
    }
}

impl Policy for LinUcb {
    fn kind(&self) -> &'static str {
        KIND.name
    }

    fn distribution(&self, evidence: &Evidence<'_>) -> Vec<f64> {
        alike(evidence)
    }

    fn statistics(&self) -> Statistics {
        linear(self.memory)
    }

    fn fit(&self, evidence: &Evidence<'_>) -> Option<Arc<dyn Model>> {
        let sums = Sums::of(evidence)?;
        Some(Arc::new(self.fit(&sums.arms(), sums.objective)))
    }

    fn posterior(&self, arm: &ArmEvidence, reward: RewardKind) -> Posterior {
        posterior::posterior(arm, None, reward)
    }
}

/// The published form of [`LinUcb`].
#[derive(Debug, Clone)]
pub struct LinUcbModel {
    alpha: f64,
    fit: Uncertain,
}

impl LinUcbModel {
    /// Each arm's upper confidence bound, scaled so that more is better.
    pub fn bounds<'s>(&self, features: &[f64], scratch: &'s mut Scratch) -> &'s [f64] {
        let (means, deviations) = self.fit.predict(features, scratch);
        for (bound, mean) in deviations.iter_mut().zip(means) {
            *bound = mean + self.alpha * *bound;
        }
        deviations
    }
}

impl Model for LinUcbModel {
    fn arms(&self) -> usize {
        self.fit.predictions.arms()
    }

    fn dimension(&self) -> usize {
        self.fit.predictions.dimension()
    }

    fn distribution(&self, features: &[f64], scratch: &mut Scratch, distribution: &mut [f64]) {
        share_greatest(self.bounds(features, scratch), distribution);
    }
}
