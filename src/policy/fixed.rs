//! A fixed split: each arm's weight is its share, whatever it earns: `π_i = w_i / Σ_j w_j`. The classical A/B test.
//!
//! Weights are relative, so 99.5 and 0.5 give exactly half a percent, and a weight of 0 gives nothing. It takes no warm-up, because
//! a cold arm's share would be the one it has anyway.

use std::sync::Arc;

use super::{
    ANY_REWARD, ArmEvidence, Evidence, FLOOR, Policy, PolicyKind, Posterior, posterior, shares,
};
use crate::experiment::reward::RewardKind;

/// The registry's entry.
pub const KIND: PolicyKind = PolicyKind {
    name: "fixed",
    summary: "A fixed split by the arms' weights: the classical A/B test",
    guide: "For a verdict: only under a fixed split do the textbook tests and intervals hold. Not for earning: a bad arm keeps its share \
            to the end. Its pitfall is the reader who looks every day and stops when the p-value is small, and a weight changed on \
            the way: each mixes other days into one arm than into the other.",
    fields: &[FLOOR],
    example: "[policy.fixed]\n",
    explores: true,
    rewards: ANY_REWARD,
    unit: true,
    context: false,
    build: |_, _| Some(Arc::new(Fixed)),
};

/// `[policy.fixed]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fixed;

impl Policy for Fixed {
    fn kind(&self) -> &'static str {
        KIND.name
    }

    fn distribution(&self, evidence: &Evidence<'_>) -> Vec<f64> {
        shares(evidence.arms.iter().map(|arm| arm.weight))
    }

    fn posterior(&self, arm: &ArmEvidence, reward: RewardKind) -> Posterior {
        posterior::posterior(arm, None, reward)
    }
}
