//! Linear Thompson sampling: θ ~ N(A⁻¹ b, v² A⁻¹) for each arm, and each gets the probability that its xᵀθ is the greatest (Agrawal and
//! Goyal, "Thompson Sampling for Contextual Bandits with Linear Payoffs", 2013; disjoint models).
//!
//! The usual form draws θ and plays the best arm. The arms' xᵀθ are independent normals, so P(best | x) is a one-dimensional integral, and it
//! is computed for every request: each decision has its exact probability. The first choice among the contextual policies: it goes on exploring while rewards are
//! delayed, and its propensities are spread.
//!
//! v is in units of the reward's range (binary, bounded) or standard deviation (real). The theory's v is the noise's standard deviation, at most
//! 0.5 for rewards in [0, 1]; smaller values earn more where features tell a lot (0.1 was best on the classification benchmark), but with few features they
//! may leave an unseen arm, at N(0, v² xᵀx / λ), untried: `warm_up` and the floor guard against that.

use std::sync::Arc;

use super::model::{Model, Scratch};
use super::normal_best::probability_best;
use super::ridge::{ArmStatistics, Objective, Ridge, Uncertain};
use super::{PRIOR, STANDARDIZE, Sums, alike, linear, ridge_of};
use crate::document::{Default, Field, Kind, Range};
use crate::experiment::reward::RewardKind;
use crate::policy::{
    ANY_REWARD, ArmEvidence, Evidence, FLOOR, HALF_LIFE, Memory, Policy, PolicyKind, Posterior,
    SLIDING_WINDOW, Statistics, WARM_UP, posterior,
};

/// v of policy files that give none.
pub const DEFAULT_V: f64 = 0.25;

/// The registry's entry.
pub const KIND: PolicyKind = PolicyKind {
    name: "lin_thompson",
    summary: "Each arm gets the probability that it is the best one for this request",
    guide: "The first choice where the best arm depends on the request: it explores where the regression is unsure, late rewards trouble it little, and its propensities are \
            spread. Not where the reward bends: a straight line cannot follow, give it features that can. Its pitfall is `v`: too small, and an arm that began badly is not tried again.",
    fields: &[
        Field {
            key: "v",
            kind: Kind::Number(Range::NOT_NEGATIVE),
            default: Default::Is("0.25"),
            doc: "Standard deviation of a reward around its prediction, as the posterior assumes it, in units of the reward's range (of real rewards: of their spread). Larger explores more.",
        },
        FLOOR,
        WARM_UP,
        HALF_LIFE,
        SLIDING_WINDOW,
        PRIOR,
        STANDARDIZE,
    ],
    example: "[policy.lin_thompson]\nv = 0.25\n",
    explores: false,
    rewards: ANY_REWARD,
    unit: true,
    context: true,
    build: |section, _| {
        Some(Arc::new(LinThompson {
            v: section.number("v").unwrap_or(DEFAULT_V),
            ridge: ridge_of(section),
            memory: Memory::read(section),
        }))
    },
};

/// `[policy.lin_thompson]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinThompson {
    /// Standard deviation of the rewards' noise, as the posterior assumes it, ≥ 0.
    pub v: f64,
    /// The regression.
    pub ridge: Ridge,
    /// How long the past counts.
    pub memory: Memory,
}

impl LinThompson {
    /// The published form for these arms.
    pub fn fit(&self, arms: &[ArmStatistics<'_>], objective: Objective) -> LinThompsonModel {
        LinThompsonModel {
            v: self.v,
            fit: self.ridge.uncertain(arms, objective),
        }
    }
}

impl Policy for LinThompson {
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

/// The published form of [`LinThompson`].
#[derive(Debug, Clone)]
pub struct LinThompsonModel {
    v: f64,
    fit: Uncertain,
}

impl Model for LinThompsonModel {
    fn arms(&self) -> usize {
        self.fit.predictions.arms()
    }

    fn dimension(&self) -> usize {
        self.fit.predictions.dimension()
    }

    fn distribution(&self, features: &[f64], scratch: &mut Scratch, distribution: &mut [f64]) {
        let (_, deviations) = self.fit.predict(features, scratch);
        for deviation in deviations {
            *deviation *= self.v;
        }
        probability_best(
            &scratch.means,
            &scratch.deviations,
            &mut scratch.best,
            distribution,
        );
    }
}
