//! EXP3-IX: exponential weights over estimated losses, for rewards that follow no law (Neu 2015, algorithm 1).
//!
//! Every credited decision adds its loss, divided by the probability with which its arm was drawn, to that arm's sum:
//!
//! `L_a = Σ (1 − r) / (p + γ)`, `π_a ∝ exp(−η L_a)`, `η = √(2 ln K / (K T))`, `γ = η / 2` (ibid., theorem 1)
//!
//! with rewards scaled to [0, 1] (mirrored where less is better), K arms and a horizon of T decisions. p is the probability that was logged
//! with the decision, floor included: one recomputed when the reward arrives would be wrong under delay. γ is the implicit exploration: a
//! little bias that keeps the estimates of rarely drawn arms from exploding, so that the bound holds in nearly every run and not
//! only on average. Nothing is drawn uniformly for exploration's sake, so no floor is needed.
//!
//! The sums count from the same start for every arm, and K is part of γ: for a file with another number of arms, or another horizon, the
//! journal is folded again with the new γ. An arm that takes another's place, or that was out for a while, has no losses from the time that it missed and
//! would therefore seem better than it is. As long as nothing is credited to it, it stands at the least loss of the others; from then on
//! its own losses count, and it is favoured until they have caught up. This cannot be told from an arm that was abandoned long ago,
//! to which the algorithm must return when the world has changed, so the remedy is the file's: a new `epoch` starts all arms together.

use std::sync::Arc;

use super::softmax::boltzmann;
use super::{
    ArmEvidence, Evidence, FLOOR, Memory, Policy, PolicyKind, Posterior, Statistics, WARM_UP,
    posterior,
};
use crate::document::{Default, Field, Kind};
use crate::experiment::reward::{Goal, RewardKind};

/// The horizon when the file says nothing.
const DEFAULT_HORIZON: u32 = 10_000;

/// The registry's entry.
pub const KIND: PolicyKind = PolicyKind {
    name: "exp3",
    summary: "EXP3-IX: exponential weights over losses, for rewards that follow no law",
    guide: "When rewards may change at any time and in any way, against an adversary even: it is never much worse than the best arm over the horizon. \
            Not where arms have steady means: there it explores several times as much as `thompson`. Its pitfalls: a horizon far from the number \
            of decisions (too short and it hardly returns to an arm that it left, too long and it takes that much longer to learn anything), and an arm that joins later, which is favoured \
            until its losses have caught up: raise `epoch` when an arm is replaced.",
    fields: &[
        Field {
            key: "horizon",
            kind: Kind::Integer(1, 1_000_000_000),
            default: Default::Is("10000"),
            doc: "How many credited decisions it is tuned for.",
        },
        FLOOR,
        WARM_UP,
    ],
    example: "[policy.exp3]\nhorizon = 100000\n",
    explores: true,
    rewards: &["binary", "bounded"],
    unit: true,
    context: false,
    build: |section, setting| {
        let horizon = section
            .integer("horizon")
            .map_or(f64::from(DEFAULT_HORIZON), |horizon| horizon as f64);
        Some(Arc::new(Exp3::tuned(horizon, setting.arms)))
    },
};

/// `[policy.exp3]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Exp3 {
    /// η: how fast weights fall with losses, ≥ 0.
    pub rate: f64,
    /// γ: what is added to a propensity before it divides, ≥ 0.
    pub exploration: f64,
}

impl Exp3 {
    /// For a horizon of `horizon` ≥ 1 decisions between `arms` arms.
    pub fn tuned(horizon: f64, arms: usize) -> Self {
        let arms = arms.max(1) as f64;
        let rate = (2.0 * libm::log(arms) / (arms * horizon)).sqrt();
        Self {
            rate,
            exploration: 0.5 * rate,
        }
    }
}

impl Policy for Exp3 {
    fn kind(&self) -> &'static str {
        KIND.name
    }

    fn distribution(&self, evidence: &Evidence<'_>) -> Vec<f64> {
        let losses: Vec<Option<f64>> = evidence
            .arms
            .iter()
            .map(|arm| (arm.credited > 0).then(|| loss(arm, evidence.reward, evidence.goal)))
            .collect();
        let least = losses.iter().flatten().copied().fold(f64::MAX, f64::min);
        let gains: Vec<f64> = losses.iter().map(|loss| -loss.unwrap_or(least)).collect();
        boltzmann(&gains, self.rate)
    }

    fn statistics(&self) -> Statistics {
        Statistics {
            memory: Memory::Forever,
            importance: Some(self.exploration),
            regression: None,
        }
    }

    fn posterior(&self, arm: &ArmEvidence, reward: RewardKind) -> Posterior {
        posterior::posterior(arm, None, reward)
    }
}

/// L of an arm: its importance-weighted losses, each in [0, 1] before its weight.
fn loss(arm: &ArmEvidence, reward: RewardKind, goal: Goal) -> f64 {
    let (min, max) = match reward {
        RewardKind::Bounded { min, max } => (min, max),
        RewardKind::Binary | RewardKind::Real => (0.0, 1.0),
    };
    let sums = &arm.importance;
    let lost = match goal {
        Goal::Maximize => max * sums.weights - sums.rewards,
        Goal::Minimize => sums.rewards - min * sums.weights,
    };
    // Sums are rounded to 2^-32, so one may be a hair outside.
    (lost / (max - min)).max(0.0)
}
