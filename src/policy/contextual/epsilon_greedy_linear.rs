//! ε-greedy on a linear prediction: the arm with the best xᵀθ gets all but ε, which all arms share equally, the best one included.
//!
//! Use it when propensities must be easy to explain or bounded from below. It explores blindly for ever; arms that tie for
//! best share the greedy part. An arm without decisions predicts 0 (`ridge`), so it is found by exploring.

use std::sync::Arc;

use super::model::{Model, Scratch, share_greatest};
use super::ridge::{ArmStatistics, Objective, Predictions, Ridge};
use super::{PRIOR, STANDARDIZE, Sums, alike, linear, ridge_of};
use crate::document::{Default, Field, Kind, Range};
use crate::experiment::reward::RewardKind;
use crate::policy::{
    ANY_REWARD, ArmEvidence, Evidence, FLOOR, HALF_LIFE, Memory, Policy, PolicyKind, Posterior,
    SLIDING_WINDOW, Statistics, WARM_UP, posterior,
};

/// ε of policy files that give none.
pub const DEFAULT_EPSILON: f64 = 0.1;

/// The registry's entry.
pub const KIND: PolicyKind = PolicyKind {
    name: "epsilon_greedy_linear",
    summary: "The arm with the best prediction for this request gets all but epsilon, which all arms share",
    guide: "For a first contextual experiment that everybody understands, with known propensities. Not for earning in the long run: it explores as much after a million rewards as after ten, and as much where it is sure \
            as where it is not.",
    fields: &[
        Field {
            key: "epsilon",
            kind: Kind::Number(Range::closed(0.0, 1.0)),
            default: Default::Is("0.1"),
            doc: "The part of the traffic that all arms share equally.",
        },
        FLOOR,
        WARM_UP,
        HALF_LIFE,
        SLIDING_WINDOW,
        PRIOR,
        STANDARDIZE,
    ],
    example: "[policy.epsilon_greedy_linear]\nepsilon = 0.1\n",
    explores: true,
    rewards: ANY_REWARD,
    unit: true,
    context: true,
    build: |section, _| {
        Some(Arc::new(EpsilonGreedyLinear {
            epsilon: section.number("epsilon").unwrap_or(DEFAULT_EPSILON),
            ridge: ridge_of(section),
            memory: Memory::read(section),
        }))
    },
};

/// `[policy.epsilon_greedy_linear]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EpsilonGreedyLinear {
    /// The part that explores, in [0, 1].
    pub epsilon: f64,
    /// The regression.
    pub ridge: Ridge,
    /// How long the past counts.
    pub memory: Memory,
}

impl EpsilonGreedyLinear {
    /// The published form for these arms.
    pub fn fit(
        &self,
        arms: &[ArmStatistics<'_>],
        objective: Objective,
    ) -> EpsilonGreedyLinearModel {
        EpsilonGreedyLinearModel {
            epsilon: self.epsilon,
            fit: self.ridge.predictions(arms, objective),
        }
    }
}

impl Policy for EpsilonGreedyLinear {
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

/// The published form of [`EpsilonGreedyLinear`].
#[derive(Debug, Clone)]
pub struct EpsilonGreedyLinearModel {
    epsilon: f64,
    fit: Predictions,
}

impl Model for EpsilonGreedyLinearModel {
    fn arms(&self) -> usize {
        self.fit.arms()
    }

    fn dimension(&self) -> usize {
        self.fit.dimension()
    }

    fn distribution(&self, features: &[f64], scratch: &mut Scratch, distribution: &mut [f64]) {
        share_greatest(self.fit.predict(features, scratch), distribution);
        let explore = self.epsilon / distribution.len() as f64;
        for part in distribution {
            *part = explore + (1.0 - self.epsilon) * *part;
        }
    }
}
