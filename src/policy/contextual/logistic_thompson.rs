//! Logistic Thompson sampling for binary rewards: weights w ~ N(m, 1/q) for each arm, and each gets the probability that its logit wᵀx is
//! the greatest (Chapelle and Li, "An Empirical Evaluation of Thompson Sampling", 2011, Algorithm 3).
//!
//! The logistic function is increasing, so the arm whose success is likeliest is the one with the greatest logit; logits are independent normals
//! with mean mᵀx and variance Σ xᵢ²/qᵢ, and P(best | x) is the integral that `lin_thompson` uses.
//!
//! Use it for rates near 0 or 1, where a straight line predicts badly. The diagonal precision takes correlated features for independent ones and so is overconfident.
//! Its state depends on the order of the decisions: merging two replicas is close to having seen both streams, not
//! equal; a reward cannot be replaced or taken back, and old ones not discounted.

use std::sync::Arc;

use super::model::{Model, Scratch};
use super::normal_best::probability_best;
use super::{PRIOR, alike, lambda, states};
use crate::experiment::reward::Goal;
use crate::experiment::reward::RewardKind;
use crate::policy::{
    ArmEvidence, Evidence, FLOOR, Memory, Policy, PolicyKind, Posterior, Regression, Statistics,
    WARM_UP, posterior,
};
use crate::stats::laplace::{Laplace, LaplaceRule};
use crate::stats::scaler::Scaler;

/// The registry's entry.
pub const KIND: PolicyKind = PolicyKind {
    name: "logistic_thompson",
    summary: "Thompson sampling on a logistic regression, for rewards of 0 and 1",
    guide: "For rates near 0 or 1, where a straight line predicts less than nothing or more than all. Not where features go together: it takes them for independent and is too sure of itself. Its state \
            depends on the order of rewards, so it cannot forget, nor take a corrected reward back.",
    fields: &[FLOOR, WARM_UP, PRIOR],
    example: "[policy.logistic_thompson]\nprior = { lambda = 1.0 }\n",
    explores: false,
    rewards: &["binary"],
    unit: true,
    context: true,
    build: |section, _| {
        Some(Arc::new(LogisticThompson {
            rule: LaplaceRule {
                lambda: lambda(section),
                standardize: true,
            },
        }))
    },
};

/// `[policy.logistic_thompson]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogisticThompson {
    /// λ and standardisation; the rule the states were learned with.
    pub rule: LaplaceRule,
}

impl LogisticThompson {
    /// The published form for these arms, which have one dimension.
    pub fn fit(&self, arms: &[&Laplace], goal: Goal) -> LogisticThompsonModel {
        let sign = match goal {
            Goal::Maximize => 1.0,
            Goal::Minimize => -1.0,
        };
        let arms = arms.iter().map(|state| {
            let features = state.features().iter();
            let variances: Vec<f64> = features
                .map(|feature| 1.0 / (self.rule.lambda + feature.precision))
                .collect();
            let means = state.features().iter().zip(&variances);
            ArmLogit {
                means: means
                    .map(|(feature, variance)| sign * feature.leaning * variance)
                    .collect(),
                variances,
                scaler: state.scaler(self.rule),
            }
        });
        LogisticThompsonModel {
            arms: arms.collect(),
        }
    }
}

impl Policy for LogisticThompson {
    fn kind(&self) -> &'static str {
        KIND.name
    }

    fn distribution(&self, evidence: &Evidence<'_>) -> Vec<f64> {
        alike(evidence)
    }

    fn statistics(&self) -> Statistics {
        Statistics {
            memory: Memory::Forever,
            importance: None,
            regression: Some(Regression::Logistic {
                precision: self.rule.lambda,
            }),
        }
    }

    fn fit(&self, evidence: &Evidence<'_>) -> Option<Arc<dyn Model>> {
        let states = states(evidence)?;
        Some(Arc::new(self.fit(&states, evidence.goal)))
    }

    fn posterior(&self, arm: &ArmEvidence, reward: RewardKind) -> Posterior {
        posterior::posterior(arm, None, reward)
    }
}

/// The published form of [`LogisticThompson`].
#[derive(Debug, Clone)]
pub struct LogisticThompsonModel {
    arms: Vec<ArmLogit>,
}

/// One arm's weights, of features that the arm itself has standardised.
#[derive(Debug, Clone)]
struct ArmLogit {
    means: Vec<f64>,
    variances: Vec<f64>,
    scaler: Scaler,
}

impl Model for LogisticThompsonModel {
    fn arms(&self) -> usize {
        self.arms.len()
    }

    fn dimension(&self) -> usize {
        self.arms.first().map_or(1, |arm| arm.means.len())
    }

    fn distribution(&self, features: &[f64], scratch: &mut Scratch, distribution: &mut [f64]) {
        scratch.means.clear();
        scratch.deviations.clear();
        for arm in &self.arms {
            arm.scaler.standardize(features, &mut scratch.standardized);
            let (mut mean, mut variance) = (0.0, 0.0);
            for ((x, m), v) in scratch
                .standardized
                .iter()
                .zip(&arm.means)
                .zip(&arm.variances)
            {
                mean += m * x;
                variance += v * x * x;
            }
            scratch.means.push(mean);
            scratch.deviations.push(variance.sqrt());
        }
        probability_best(
            &scratch.means,
            &scratch.deviations,
            &mut scratch.best,
            distribution,
        );
    }
}
