//! ε-greedy: the arm with the best mean gets all but ε, which is shared equally by all arms, the best one included
//! (Sutton and Barto, Reinforcement Learning, 2018, §2.2): `π_i = ε / K + (1 − ε) [i is best] / (arms that tie for best)`.
//!
//! The mean is that of the posterior, so an arm without rewards stands at its prior's mean (0.5 of the range, or 0 for real rewards,
//! unless the file gives a prior), and at the start all arms tie. A prior above what any arm earns makes every arm be tried
//! first (optimistic initial values, ibid. §2.6).
//!
//! With `decay = N`, ε falls as `ε_t = min(epsilon, N / t)`, where t counts the credited decisions of the eligible arms. It is the schedule
//! of Auer, Cesa-Bianchi and Fischer (2002, theorem 3), `ε_t = min(1, c K / (d² t))`, with `N = c K / d²`: for c > 5 and d at
//! most the gap between the best arm and the next, the regret grows with ln t. Credited and not made decisions are counted, so
//! that under delay ε does not fall before anything is known. Under a half-life or a window t counts what is left of them, so that ε
//! never falls to nothing in a world that changes.

use std::sync::Arc;

use super::{
    ANY_REWARD, ArmEvidence, ArmPrior, Evidence, FLOOR, HALF_LIFE, Memory, Policy, PolicyKind,
    Posterior, SLIDING_WINDOW, Statistics, WARM_UP, posterior, prior,
};
use crate::document::{Default, Field, Kind, Range};
use crate::experiment::reward::RewardKind;

/// Explored when the file says nothing.
const DEFAULT_EPSILON: f64 = 0.1;

/// The registry's entry.
pub const KIND: PolicyKind = PolicyKind {
    name: "epsilon_greedy",
    summary: "The arm with the best mean gets all but epsilon, which all arms share",
    guide: "When the traffic must be easy to explain, and every arm must keep a known part of it. Not where exploration is dear: \
            a constant epsilon is paid for ever, on bad arms as on good ones, and what it costs grows with time. With `decay` it ends; \
            the pitfall is a `decay` that is too small for the gap between the arms: then one run in ten or so stays with \
            the wrong arm almost for ever, which averages hide. N = 5 × arms / gap² is safe (1,000 for two arms that differ by 0.1 on rewards in [0, 1]); \
            if no gap worth finding can be named, use `thompson`.",
    fields: &[
        Field {
            key: "epsilon",
            kind: Kind::Number(Range::closed(0.0, 1.0)),
            default: Default::Depends("0.1; with `decay` 1"),
            doc: "The part of the traffic that all arms share equally, whatever they have earned. With `decay`, the most that it ever is.",
        },
        Field {
            key: "decay",
            kind: Kind::Number(Range {
                low: 0.0,
                high: 1e9,
                low_included: false,
                high_included: true,
            }),
            default: Default::Off,
            doc: "Makes the part that is explored min(epsilon, decay / t) after t credited decisions: with 1000 everything until the thousandth, a tenth at 10,000, a hundredth at 100,000.",
        },
        FLOOR,
        WARM_UP,
        HALF_LIFE,
        SLIDING_WINDOW,
        prior::PRIOR,
    ],
    example: "[policy.epsilon_greedy]\nepsilon = 0.1\n",
    explores: true,
    rewards: ANY_REWARD,
    unit: true,
    context: false,
    build: |section, setting| {
        let decay = section.number("decay");
        let default = if decay.is_some() {
            1.0
        } else {
            DEFAULT_EPSILON
        };
        Some(Arc::new(EpsilonGreedy {
            epsilon: section.number("epsilon").unwrap_or(default),
            decay,
            prior: prior::read(section, prior::PRIOR.key, setting.reward),
            memory: Memory::read(section),
        }))
    },
};

/// `[policy.epsilon_greedy]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EpsilonGreedy {
    /// The part that explores, in [0, 1]; the most that it ever is.
    pub epsilon: f64,
    /// How many credited decisions explore fully before ε falls, > 0; `None`: it stays.
    pub decay: Option<f64>,
    /// The prior of arms that have none of their own; `None`: the default of the reward's kind.
    pub prior: Option<ArmPrior>,
    /// How long the past counts.
    pub memory: Memory,
}

impl EpsilonGreedy {
    /// With an ε that stays, default priors, and nothing forgotten.
    pub const fn constant(epsilon: f64) -> Self {
        Self {
            epsilon,
            decay: None,
            prior: None,
            memory: Memory::Forever,
        }
    }

    /// ε now.
    fn explored(&self, arms: &[ArmEvidence]) -> f64 {
        let Some(decay) = self.decay else {
            return self.epsilon;
        };
        let credited: f64 = arms.iter().map(|arm| arm.earned.count).sum();
        // Before the first credit this is infinite.
        (decay / credited).min(self.epsilon)
    }
}

impl Policy for EpsilonGreedy {
    fn kind(&self) -> &'static str {
        KIND.name
    }

    fn distribution(&self, evidence: &Evidence<'_>) -> Vec<f64> {
        let means = evidence.gains();
        let epsilon = self.explored(evidence.arms);
        let best = means.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let tied = means.iter().filter(|mean| **mean == best).count() as f64;
        let explore = epsilon / means.len() as f64;
        means
            .iter()
            .map(|mean| {
                let greedy = if *mean == best {
                    (1.0 - epsilon) / tied
                } else {
                    0.0
                };
                explore + greedy
            })
            .collect()
    }

    fn statistics(&self) -> Statistics {
        self.memory.into()
    }

    fn posterior(&self, arm: &ArmEvidence, reward: RewardKind) -> Posterior {
        posterior::posterior(arm, self.prior, reward)
    }
}
