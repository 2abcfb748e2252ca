//! Top-two Thompson sampling: half of the traffic for the leader, half for whoever might yet overtake it (Russo 2020, algorithm 4).
//!
//! With `a_i = P(arm i is best)`, a leader is drawn from a. With probability β it is played; else arms are drawn from a until one differs
//! from the leader, and that is played (ibid., §3.3):
//!
//! `ψ_i = a_i (β + (1 − β) Σ_{j≠i} a_j / (1 − a_j))`
//!
//! It finds the best arm; it does not earn. However sure it is, it gives the leader little more than β, so that the
//! evidence against every challenger keeps growing; with β = 1/2 the wrong arms fall off at nearly the best exponential rate. Two arms are split
//! half and half for ever under β = 1/2, for `a_1 (β + (1 − β) a_2 / a_1) = β a_1 + (1 − β) a_2`: a plain A/B test then says the same.
//!
//! Down to 1e-11, P(best) has five digits or more. Where `1 − a_j` is less than that, the challengers of that leader are drawn by their
//! P(best) among themselves.

use std::sync::Arc;

use super::best::probability_best;
use super::{
    ANY_REWARD, ArmEvidence, ArmPrior, Evidence, FLOOR, HALF_LIFE, Memory, Policy, PolicyKind,
    Posterior, SLIDING_WINDOW, Statistics, WARM_UP, posterior, prior,
};
use crate::document::{Default, Field, Kind, Range};
use crate::experiment::reward::RewardKind;

/// The leader's part when the file says nothing.
const DEFAULT_BETA: f64 = 0.5;

/// Below this, how P(best) divides between the challengers is rounding and truncated tails.
const RESOLVED: f64 = 1e-11;

/// The registry's entry.
pub const KIND: PolicyKind = PolicyKind {
    name: "top_two",
    summary: "About half of the traffic for the likely best arm, the rest for its likely challengers",
    guide: "For finding the best of three or more arms with few decisions, to switch the others off then. Not for earning: however sure it is, \
            half of the traffic keeps going to challengers, so what it costs grows with time as under a fixed split. Its pitfall: \
            two arms are split half and half for ever, whatever they earn. Use `thompson` to earn, and `fixed` to compare two.",
    fields: &[
        Field {
            key: "beta",
            kind: Kind::Number(Range {
                low: 0.0,
                high: 1.0,
                low_included: false,
                high_included: true,
            }),
            default: Default::Is("0.5"),
            doc: "The leader's part of the traffic; 1 is Thompson sampling.",
        },
        FLOOR,
        WARM_UP,
        HALF_LIFE,
        SLIDING_WINDOW,
        prior::PRIOR,
    ],
    example: "[policy.top_two]\nbeta = 0.5\n",
    explores: false,
    rewards: ANY_REWARD,
    unit: true,
    context: false,
    build: |section, setting| {
        Some(Arc::new(TopTwo {
            beta: section.number("beta").unwrap_or(DEFAULT_BETA),
            prior: prior::read(section, prior::PRIOR.key, setting.reward),
            memory: Memory::read(section),
        }))
    },
};

/// `[policy.top_two]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TopTwo {
    /// The leader's part, in (0, 1].
    pub beta: f64,
    /// The prior of arms that have none of their own; `None`: the default of the reward's kind.
    pub prior: Option<ArmPrior>,
    /// How long the past counts.
    pub memory: Memory,
}

impl Policy for TopTwo {
    fn kind(&self) -> &'static str {
        KIND.name
    }

    fn distribution(&self, evidence: &Evidence<'_>) -> Vec<f64> {
        let best = evidence.probability_best();
        if best.len() == 1 {
            return vec![1.0];
        }
        let mut chosen: Vec<f64> = best.iter().map(|share| self.beta * share).collect();
        for (leader, led) in best.iter().enumerate() {
            let challenge = (1.0 - self.beta) * led;
            if challenge == 0.0 {
                continue;
            }
            let challengers = challengers(evidence, best, leader);
            for (share, challenger) in chosen.iter_mut().zip(challengers) {
                *share += challenge * challenger;
            }
        }
        chosen
    }

    fn statistics(&self) -> Statistics {
        self.memory.into()
    }

    fn posterior(&self, arm: &ArmEvidence, reward: RewardKind) -> Posterior {
        posterior::posterior(arm, self.prior, reward)
    }
}

/// The distribution of the challenger, given the leader, which gets 0.
fn challengers(evidence: &Evidence<'_>, best: &[f64], leader: usize) -> Vec<f64> {
    let mut shares = best.to_vec();
    shares[leader] = 0.0;
    // The sum of the others, and not 1 − a, which would lose its digits.
    let sum: f64 = shares.iter().sum();
    if sum > RESOLVED {
        for share in &mut shares {
            *share /= sum;
        }
        return shares;
    }
    let mut others = evidence.posteriors.to_vec();
    others.remove(leader);
    let mut among = probability_best(&others, evidence.goal);
    among.insert(leader, 0.0);
    among
}
