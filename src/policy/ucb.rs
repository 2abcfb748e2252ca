//! Upper confidence bounds: all traffic for the arm that might be best (optimism in the face of uncertainty), in two variants, on rewards
//! scaled to [0, 1] (mirrored where less is better):
//!
//! - `tuned`: UCB1-tuned (Auer, Cesa-Bianchi and Fischer 2002, §4): the greatest `m + √(ln t / n · min(1/4, V))`, with
//!   `V = s² + √(2 ln t / n)` from the arm's mean m and variance s².
//! - `kl`: KL-UCB (Garivier and Cappé 2011, algorithm 1 with c = 0): the greatest q with `n · kl(m, q) ≤ ln t`, where kl is the
//!   divergence between Bernoulli distributions. Optimal for binary rewards as t grows; for bounded ones still a bound.
//!
//! Arms without any decision come first; arms that tie share. π is one-hot but for ties, so a propensity is 1 or 0 before the floor, and the
//! floor (on by default) is all the exploration that off-policy estimates get.
//!
//! **In-flight decisions count** in n and in t, but not in m and s². A deterministic rule that only counts rewards gives all
//! traffic to one arm until its rewards return, a whole delay long, for each arm in turn. With them an arm's bound falls as soon as it is drawn. An arm
//! of which nothing but decisions in flight is known stands at the mean and variance of all rewards of all arms; where there are no rewards
//! at all, the arms with the fewest decisions come first.
//!
//! Under a half-life or a window n, t, m and s² are those of the discounted rewards (Garivier and Moulines 2011). ln t is taken
//! for at least ln 2, where the undiscounted rule starts, so that arms of which almost everything is forgotten are tried again.

use std::sync::Arc;

use super::{
    ArmEvidence, Estimate, Evidence, FLOOR, HALF_LIFE, Memory, Policy, PolicyKind, Posterior,
    SLIDING_WINDOW, Statistics, WARM_UP, posterior,
};
use crate::document::{Default, Field, Kind};
use crate::experiment::reward::{Goal, RewardKind};

/// The registry's entry.
pub const KIND: PolicyKind = PolicyKind {
    name: "ucb",
    summary: "The arm that might be best, by an upper confidence bound, gets everything but the floor",
    guide: "For binary or bounded rewards that come back soon, where the choice should follow from the numbers alone: \"tuned\" for rewards \
            of small variance, \"kl\" for rates near 0 or 1. Not where logged decisions are to be evaluated later: without a floor \
            its propensities are 0 or 1, and estimates need others. Its pitfall is delay: decisions in flight are counted, so that it does not send everything to \
            one arm until the first rewards return, but `thompson` still learns faster from rewards that come late. Where decisions without a reward are \
            never credited, give a `default`, or an arm that earns nothing keeps looking untried.",
    fields: &[
        Field {
            key: "variant",
            kind: Kind::Choice(&["tuned", "kl"]),
            default: Default::Is("\"tuned\""),
            doc: "\"tuned\": UCB1-tuned, by the observed variance. \"kl\": KL-UCB, by the divergence of Bernoulli distributions.",
        },
        FLOOR,
        WARM_UP,
        HALF_LIFE,
        SLIDING_WINDOW,
    ],
    example: "[policy.ucb]\nvariant = \"kl\"\n",
    explores: false,
    rewards: &["binary", "bounded"],
    unit: true,
    context: false,
    build: |section, _| {
        let variant = match section.string("variant") {
            Some("kl") => Variant::Kl,
            _ => Variant::Tuned,
        };
        Some(Arc::new(Ucb {
            variant,
            memory: Memory::read(section),
        }))
    },
};

/// Which bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// UCB1-tuned.
    Tuned,
    /// KL-UCB.
    Kl,
}

/// `[policy.ucb]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ucb {
    /// Which bound.
    pub variant: Variant,
    /// How long the past counts.
    pub memory: Memory,
}

impl Policy for Ucb {
    fn kind(&self) -> &'static str {
        KIND.name
    }

    fn distribution(&self, evidence: &Evidence<'_>) -> Vec<f64> {
        let arms: Vec<Scaled> = evidence
            .arms
            .iter()
            .map(|arm| Scaled::of(arm, evidence.reward, evidence.goal))
            .collect();
        let all = Estimate::of_all(arms.iter().map(|arm| &arm.gains));
        if all.count == 0.0 || arms.iter().any(|arm| arm.decisions == 0.0) {
            let fewest = arms.iter().map(|arm| -arm.decisions).collect();
            return greatest(fewest);
        }
        let total: f64 = arms.iter().map(|arm| arm.decisions).sum();
        let log_total = libm::log(total.max(2.0));
        let bounds = arms
            .iter()
            .map(|arm| {
                let seen = if arm.gains.count > 0.0 {
                    &arm.gains
                } else {
                    &all
                };
                let mean = seen.mean().unwrap_or(0.0).clamp(0.0, 1.0);
                let budget = log_total / arm.decisions;
                match self.variant {
                    Variant::Tuned => mean + tuned(seen.deviations / seen.count, budget),
                    Variant::Kl => divergent(mean, budget),
                }
            })
            .collect();
        greatest(bounds)
    }

    fn statistics(&self) -> Statistics {
        self.memory.into()
    }

    fn counts_waiting(&self) -> bool {
        true
    }

    fn posterior(&self, arm: &ArmEvidence, reward: RewardKind) -> Posterior {
        posterior::posterior(arm, None, reward)
    }
}

/// An arm with its rewards scaled to [0, 1], more being better.
struct Scaled {
    gains: Estimate,
    /// Decisions, those in flight included.
    decisions: f64,
}

impl Scaled {
    fn of(arm: &ArmEvidence, reward: RewardKind, goal: Goal) -> Self {
        let (min, max) = match reward {
            RewardKind::Bounded { min, max } => (min, max),
            RewardKind::Binary | RewardKind::Real => (0.0, 1.0),
        };
        let Estimate {
            count,
            sum,
            deviations,
        } = arm.earned;
        let gained = match goal {
            Goal::Maximize => sum - min * count,
            Goal::Minimize => max * count - sum,
        };
        Self {
            gains: Estimate {
                count,
                sum: gained / (max - min),
                deviations: deviations / (max - min) / (max - min),
            },
            decisions: count + arm.waiting as f64,
        }
    }
}

/// What UCB1-tuned adds to the mean; `budget` is ln t / n.
pub(super) fn tuned(variance: f64, budget: f64) -> f64 {
    let spread = variance + (2.0 * budget).sqrt();
    (budget * spread.min(0.25)).sqrt()
}

/// The greatest q in [mean, 1] whose divergence from `mean` is at most `budget`, by bisection.
pub(super) fn divergent(mean: f64, budget: f64) -> f64 {
    let (mut low, mut high) = (mean, 1.0);
    if divergence(mean, high) <= budget {
        return high;
    }
    loop {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            return low;
        }
        if divergence(mean, middle) <= budget {
            low = middle;
        } else {
            high = middle;
        }
    }
}

/// kl(p, q) of Bernoulli distributions, for q ≥ p; by their difference, which keeps its digits where q is near p.
fn divergence(p: f64, q: f64) -> f64 {
    let apart = q - p;
    let part = |share: f64, change: f64| {
        if share > 0.0 {
            -share * libm::log1p(change / share)
        } else {
            0.0
        }
    };
    (part(p, apart) + part(1.0 - p, -apart)).max(0.0)
}

/// Equal shares for the arms with the greatest score.
fn greatest(scores: Vec<f64>) -> Vec<f64> {
    let best = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let tied = scores.iter().filter(|score| **score == best).count() as f64;
    scores
        .into_iter()
        .map(|score| if score == best { 1.0 / tied } else { 0.0 })
        .collect()
}
