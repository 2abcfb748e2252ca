//! Softmax, or Boltzmann exploration: `π_i = exp(μ_i / τ) / Σ_j exp(μ_j / τ)` with μ the posterior means and τ the temperature, in the
//! rewards' own units (Sutton and Barto, Reinforcement Learning, 2018, §2.8; μ mirrored where less is better).
//!
//! An arm whose mean is τ lower gets e times less. Neither the counts nor time come into it, so with a fixed temperature the regret grows
//! in proportion to time: too hot never settles, too cold stays with whichever arm was lucky first (Cesa-Bianchi, Gentile, Lugosi and Neu
//! 2017, theorem 2, show that no schedule of τ for all arms together does better).

use std::sync::Arc;

use super::{
    ANY_REWARD, ArmEvidence, ArmPrior, Evidence, FLOOR, Policy, PolicyKind, Posterior, WARM_UP,
    posterior, prior,
};
use crate::document::{Default, Field, Kind, Range, Section};
use crate::experiment::reward::RewardKind;

/// The temperature when the file says nothing, as a part of the reward's range.
const DEFAULT_TEMPERATURE: f64 = 0.05;

/// The registry's entry.
pub const KIND: PolicyKind = PolicyKind {
    name: "softmax",
    summary: "Shares fall off exponentially with the distance from the best mean",
    guide: "When the split should follow the means smoothly, and bad arms should get less than mediocre ones: a steady mixture. \
            Not for earning in the long run: the temperature is fixed, so a part of the traffic goes to worse arms for ever, and what that costs grows with time. \
            Its pitfall is the temperature's unit, which is the reward's: 0.05 sorts rates well and leaves revenue in cents to the best arm \
            alone, after a lucky start as well.",
    fields: &[
        Field {
            key: "temperature",
            kind: Kind::Number(Range {
                low: 0.0,
                high: 1e9,
                low_included: false,
                high_included: true,
            }),
            default: Default::Depends(
                "0.05 of the reward's range (0.05 for binary ones); needed for real rewards",
            ),
            doc: "In the reward's units: an arm whose mean is worse by this much gets e (2.7) times less.",
        },
        FLOOR,
        WARM_UP,
        prior::PRIOR,
    ],
    example: "[policy.softmax]\ntemperature = 0.05\n",
    explores: true,
    rewards: ANY_REWARD,
    unit: true,
    context: false,
    build: |section, setting| {
        let prior = prior::read(section, prior::PRIOR.key, setting.reward);
        let temperature = temperature(section, setting.reward)?;
        Some(Arc::new(Softmax { temperature, prior }))
    },
};

fn temperature(section: &Section<'_>, reward: RewardKind) -> Option<f64> {
    let default = match reward {
        RewardKind::Binary => Some(DEFAULT_TEMPERATURE),
        RewardKind::Bounded { min, max } => Some(DEFAULT_TEMPERATURE * (max - min)),
        RewardKind::Real => None,
    };
    if default.is_none() && !section.has("temperature") {
        section.reject_section(
            "real rewards have no range from which a temperature would follow",
            "give `temperature`: how much worse a mean reward must be for its arm to get 2.7 times less",
        );
    }
    section.number("temperature").or(default)
}

/// `[policy.softmax]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Softmax {
    /// In the reward's units, > 0.
    pub temperature: f64,
    /// The prior of arms that have none of their own; `None`: the default of the reward's kind.
    pub prior: Option<ArmPrior>,
}

impl Policy for Softmax {
    fn kind(&self) -> &'static str {
        KIND.name
    }

    fn distribution(&self, evidence: &Evidence<'_>) -> Vec<f64> {
        let gains = evidence.gains();
        boltzmann(&gains, 1.0 / self.temperature)
    }

    fn posterior(&self, arm: &ArmEvidence, reward: RewardKind) -> Posterior {
        posterior::posterior(arm, self.prior, reward)
    }
}

/// Shares in proportion to exp(rate · gain). Relative to the greatest gain, so that nothing overflows and the best arm's share
/// never vanishes.
pub(super) fn boltzmann(gains: &[f64], rate: f64) -> Vec<f64> {
    let best = gains.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut shares: Vec<f64> = gains
        .iter()
        .map(|gain| {
            let behind = best - gain;
            // An infinite rate is all for the best, and 0 · ∞ is no number.
            if behind > 0.0 {
                libm::exp(-rate * behind)
            } else {
                1.0
            }
        })
        .collect();
    let sum: f64 = shares.iter().sum();
    for share in &mut shares {
        *share /= sum;
    }
    shares
}
