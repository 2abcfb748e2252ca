//! ε-greedy: the arm with the best mean gets all but ε, which is shared equally by all arms, the best one included
//! (Sutton and Barto, Reinforcement Learning, 2018, §2.2).
//!
//! The mean is that of the posterior, so an arm without rewards stands at its prior's mean (0.5 of the range, or 0 for real rewards,
//! unless the file gives the arm a prior), and at the start all arms tie. Arms that tie for best share the greedy part equally.

use std::sync::Arc;

use super::{
    ANY_REWARD, ArmEvidence, Evidence, FLOOR, Policy, PolicyKind, Posterior, WARM_UP, posterior,
};
use crate::document::{Default, Field, Kind, Range};
use crate::experiment::reward::RewardKind;

/// Explored when the file says nothing.
const DEFAULT_EPSILON: f64 = 0.1;

/// The registry's entry.
pub const KIND: PolicyKind = PolicyKind {
    name: "epsilon_greedy",
    summary: "The arm with the best mean gets all but epsilon, which all arms share",
    fields: &[
        Field {
            key: "epsilon",
            kind: Kind::Number(Range::closed(0.0, 1.0)),
            default: Default::Is("0.1"),
            doc: "The part of the traffic that all arms share equally, whatever they have earned.",
        },
        FLOOR,
        WARM_UP,
    ],
    example: "[policy.epsilon_greedy]\nepsilon = 0.1\n",
    explores: true,
    rewards: ANY_REWARD,
    build: |section, _| {
        let epsilon = section.number("epsilon").unwrap_or(DEFAULT_EPSILON);
        Some(Arc::new(EpsilonGreedy { epsilon }))
    },
};

/// `[policy.epsilon_greedy]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EpsilonGreedy {
    /// The part that explores, in [0, 1].
    pub epsilon: f64,
}

impl Policy for EpsilonGreedy {
    fn kind(&self) -> &'static str {
        KIND.name
    }

    fn distribution(&self, evidence: &Evidence<'_>) -> Vec<f64> {
        let means = evidence.gains();
        let best = means.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let tied = means.iter().filter(|mean| **mean == best).count() as f64;
        let explore = self.epsilon / means.len() as f64;
        means
            .iter()
            .map(|mean| {
                let greedy = if *mean == best {
                    (1.0 - self.epsilon) / tied
                } else {
                    0.0
                };
                explore + greedy
            })
            .collect()
    }

    fn posterior(&self, arm: &ArmEvidence, reward: RewardKind) -> Posterior {
        posterior::posterior(arm, None, reward)
    }
}
