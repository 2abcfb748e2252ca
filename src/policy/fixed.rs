//! A fixed split: each arm's weight is its share, whatever it earns. The classical A/B test.
//!
//! Weights are relative, so 99.5 and 0.5 give exactly half a percent, and a weight of 0 gives nothing.

use std::sync::Arc;

use super::{
    ANY_REWARD, ArmEvidence, Evidence, FLOOR, Policy, PolicyKind, Posterior, WARM_UP, posterior,
    shares,
};
use crate::experiment::reward::RewardKind;

/// The registry's entry.
pub const KIND: PolicyKind = PolicyKind {
    name: "fixed",
    summary: "A fixed split by the arms' weights: the classical A/B test",
    fields: &[FLOOR, WARM_UP],
    example: "[policy.fixed]\n",
    explores: true,
    rewards: ANY_REWARD,
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
