//! Thompson sampling: each arm gets the posterior probability that it is the best one (Thompson 1933; probability matching).
//!
//! The usual form draws a mean from each posterior and plays the best draw. That draws from the same distribution without ever
//! knowing it; here it is computed (`best`), so each decision has its exact probability.

use std::sync::Arc;

use super::{
    ANY_REWARD, ArmEvidence, ArmPrior, Evidence, FLOOR, Policy, PolicyKind, Posterior, WARM_UP,
    posterior, prior,
};
use crate::document::{Default, Field, Kind};
use crate::experiment::reward::RewardKind;

/// The registry's entry.
pub const KIND: PolicyKind = PolicyKind {
    name: "thompson",
    summary: "Each arm gets the posterior probability that it is the best one",
    fields: &[
        FLOOR,
        WARM_UP,
        Field {
            key: "prior",
            kind: Kind::Table(prior::FIELDS),
            default: Default::Depends(
                "{ alpha = 1.0, beta = 1.0 }; for real rewards { mean = 0.0, strength = 0.001, shape = 0.5, scale = 0.5 }",
            ),
            doc: "What is known of an arm before its first reward, unless the arm has a prior of its own.",
        },
    ],
    example: "[policy.thompson]\nfloor = 0.02\nprior = { alpha = 1.0, beta = 1.0 }\n",
    explores: false,
    rewards: ANY_REWARD,
    build: |section, setting| {
        Some(Arc::new(Thompson {
            prior: prior::read(section, "prior", setting.reward),
        }))
    },
};

/// `[policy.thompson]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thompson {
    /// The prior of arms that have none of their own; `None`: the default of the reward's kind.
    pub prior: Option<ArmPrior>,
}

impl Policy for Thompson {
    fn kind(&self) -> &'static str {
        KIND.name
    }

    fn distribution(&self, evidence: &Evidence<'_>) -> Vec<f64> {
        evidence.probability_best().to_vec()
    }

    fn posterior(&self, arm: &ArmEvidence, reward: RewardKind) -> Posterior {
        posterior::posterior(arm, self.prior, reward)
    }
}
