//! Thompson sampling: each arm gets the posterior probability that it is the best one (Thompson 1933; probability matching).
//!
//! `π_i = P(μ_i = max_j μ_j) = ∫ f_i(x) ∏_{j≠i} F_j(x) dx` over the posteriors of the mean rewards: Beta for binary and bounded rewards
//! (Chapelle and Li 2011, algorithm 1), the Student t of a normal-inverse-gamma for real ones (Honda and Takemura 2014). A fractional
//! reward adds its fraction to the Beta, rather than being rounded to 0 or 1 by chance (Agrawal and Goyal 2012, algorithm 2).
//!
//! The usual form draws a mean from each posterior and plays the best draw. That draws from the same distribution without ever
//! knowing it; here it is computed (`best`), so each decision has its exact probability. It keeps randomising on a stale
//! posterior, so delay costs it little. With a half-life the posterior is that of the discounted rewards (Raj and Kalyani 2017), with a
//! window that of the recent ones (Trovò et al. 2020); the prior is never discounted, so it stays proper.

use std::sync::Arc;

use super::{
    ANY_REWARD, ArmEvidence, ArmPrior, Evidence, FLOOR, HALF_LIFE, Memory, Policy, PolicyKind,
    Posterior, SLIDING_WINDOW, Statistics, WARM_UP, posterior, prior,
};
use crate::experiment::reward::RewardKind;

/// The registry's entry.
pub const KIND: PolicyKind = PolicyKind {
    name: "thompson",
    summary: "Each arm gets the posterior probability that it is the best one",
    guide: "The first choice for earning: it explores as much as the evidence leaves open and no more, and late rewards trouble it \
            little. Not for a verdict: it starves the losers, so their means are known badly and read low. \
            Its P(best) is a belief and not a p-value: stopping as soon as it passes 95 % names a winner among equal arms in a third of all runs.",
    fields: &[FLOOR, WARM_UP, HALF_LIFE, SLIDING_WINDOW, prior::PRIOR],
    example: "[policy.thompson]\nfloor = 0.02\nprior = { alpha = 1.0, beta = 1.0 }\n",
    explores: false,
    rewards: ANY_REWARD,
    unit: true,
    context: false,
    build: |section, setting| {
        Some(Arc::new(Thompson {
            prior: prior::read(section, prior::PRIOR.key, setting.reward),
            memory: Memory::read(section),
        }))
    },
};

/// `[policy.thompson]`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Thompson {
    /// The prior of arms that have none of their own; `None`: the default of the reward's kind.
    pub prior: Option<ArmPrior>,
    /// How long the past counts.
    pub memory: Memory,
}

impl Policy for Thompson {
    fn kind(&self) -> &'static str {
        KIND.name
    }

    fn distribution(&self, evidence: &Evidence<'_>) -> Vec<f64> {
        evidence.probability_best().to_vec()
    }

    fn statistics(&self) -> Statistics {
        self.memory.into()
    }

    fn posterior(&self, arm: &ArmEvidence, reward: RewardKind) -> Posterior {
        posterior::posterior(arm, self.prior, reward)
    }
}
