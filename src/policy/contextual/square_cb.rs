//! SquareCB: an arm's probability falls with how far its prediction lies behind the best one's (Foster and Rakhlin, "Beyond UCB: Optimal and
//! Efficient Contextual Bandits with Regression Oracles", 2020, Algorithm 1; inverse gap weighting after Abe and Long, 1999).
//!
//! `p_a = 1 / (K + γ (ŷ_best − ŷ_a))` for the K − 1 arms that are not the best, and the rest to the best one, with γ = `gamma_scale` ·
//! t^`gamma_exponent` after t credited decisions, as Vowpal Wabbit's `--squarecb` has it. Gaps are cut off at 1, the range of a scaled reward,
//! so every arm keeps at least 1 / (K + γ). Arms that tie for best share.
//!
//! Use it when propensities should be cheap and smooth: a decision is as fast as a greedy one. It needs rewards with a range. It knows no uncertainty: with a
//! small γ it explores for long, with a large one it may lock on to an early favourite.

use std::sync::Arc;

use super::model::{Model, Scratch};
use super::ridge::{ArmStatistics, Objective, Predictions, Ridge};
use super::{PRIOR, STANDARDIZE, Sums, alike, linear, ridge_of};
use crate::document::{Default, Field, Kind, Range};
use crate::experiment::reward::RewardKind;
use crate::policy::{
    ArmEvidence, Evidence, FLOOR, HALF_LIFE, Memory, Policy, PolicyKind, Posterior, SLIDING_WINDOW,
    Statistics, WARM_UP, posterior,
};

/// `gamma_scale` of policy files that give none.
pub const DEFAULT_GAMMA_SCALE: f64 = 10.0;
/// `gamma_exponent` of policy files that give none.
pub const DEFAULT_GAMMA_EXPONENT: f64 = 0.5;

/// The registry's entry.
pub const KIND: PolicyKind = PolicyKind {
    name: "square_cb",
    summary: "Each arm gets less the further its prediction is behind the best one",
    guide: "Where every decision must be cheap and its propensity never 0: no arm falls silent, and off-policy estimates stay possible. Not with many arms and few \
            requests, where it explores evenly for long. Its pitfall is the scale of the reward: it needs a range, so it takes no real rewards.",
    fields: &[
        Field {
            key: "gamma_scale",
            kind: Kind::Number(Range {
                low: 0.0,
                high: 1e9,
                low_included: false,
                high_included: true,
            }),
            default: Default::Is("10.0"),
            doc: "How sharply gaps count after one credited decision.",
        },
        Field {
            key: "gamma_exponent",
            kind: Kind::Number(Range::closed(0.0, 1.0)),
            default: Default::Is("0.5"),
            doc: "How fast that grows with the number of credited decisions.",
        },
        FLOOR,
        WARM_UP,
        HALF_LIFE,
        SLIDING_WINDOW,
        PRIOR,
        STANDARDIZE,
    ],
    example: "[policy.square_cb]\ngamma_scale = 100.0\n",
    explores: true,
    rewards: &["binary", "bounded"],
    unit: true,
    context: true,
    build: |section, _| {
        Some(Arc::new(SquareCb {
            gamma_scale: section.number("gamma_scale").unwrap_or(DEFAULT_GAMMA_SCALE),
            gamma_exponent: section
                .number("gamma_exponent")
                .unwrap_or(DEFAULT_GAMMA_EXPONENT),
            ridge: ridge_of(section),
            memory: Memory::read(section),
        }))
    },
};

/// `[policy.square_cb]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SquareCb {
    /// γ after one credited decision, > 0.
    pub gamma_scale: f64,
    /// How fast γ grows, in [0, 1].
    pub gamma_exponent: f64,
    /// The regression.
    pub ridge: Ridge,
    /// How long the past counts.
    pub memory: Memory,
}

impl SquareCb {
    /// The published form for these arms. The reward is binary or bounded.
    pub fn fit(&self, arms: &[ArmStatistics<'_>], objective: Objective) -> SquareCbModel {
        let fit = self.ridge.predictions(arms, objective);
        SquareCbModel {
            gamma: self.gamma_scale * libm::pow(fit.weight(), self.gamma_exponent),
            fit,
        }
    }
}

impl Policy for SquareCb {
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

/// The published form of [`SquareCb`].
#[derive(Debug, Clone)]
pub struct SquareCbModel {
    gamma: f64,
    fit: Predictions,
}

impl Model for SquareCbModel {
    fn arms(&self) -> usize {
        self.fit.arms()
    }

    fn dimension(&self) -> usize {
        self.fit.dimension()
    }

    fn distribution(&self, features: &[f64], scratch: &mut Scratch, distribution: &mut [f64]) {
        weigh_gaps(
            self.fit.predict(features, scratch),
            self.gamma,
            distribution,
        );
    }
}

/// Inverse gap weighting of `scores` with γ ≥ 0.
pub(super) fn weigh_gaps(scores: &[f64], gamma: f64, distribution: &mut [f64]) {
    let best = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let count = scores.len() as f64;
    let (mut tied, mut rest) = (0.0, 1.0);
    for (part, score) in distribution.iter_mut().zip(scores) {
        let gap = best - score;
        if gap > 0.0 {
            *part = 1.0 / (count + gamma * gap.min(1.0));
            rest -= *part;
        } else {
            tied += 1.0;
        }
    }
    for (part, score) in distribution.iter_mut().zip(scores) {
        if best - score <= 0.0 {
            *part = rest / tied;
        }
    }
}
