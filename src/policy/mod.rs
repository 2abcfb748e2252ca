//! How arms are chosen. A policy turns evidence into a distribution over the eligible arms; it never draws.
//!
//! The engine mixes the floor in and draws, once, in one place (`engine::allocate`, `engine::decide`), so the probability that
//! is logged is the probability that was used. A policy value is parameters only: no state, clock, chance or I/O.
//! What the arms have earned is additive ([`Moments`](crate::stats::moments::Moments)) and the same for every context-free policy, so changing a
//! file's policy keeps it.
//!
//! **Adding a policy:** one new file in this folder with a type that implements [`Policy`] and a `KIND`, and its
//! line in [`KINDS`]. The conformance tests walk that slice.

pub mod best;
pub mod contextual;
mod density;
pub mod epsilon_greedy;
pub mod evidence;
pub mod exp3;
pub mod fixed;
pub mod posterior;
pub mod prior;
pub mod softmax;
pub mod statistics;
pub mod thompson;
pub mod top_two;
pub mod ucb;

use std::fmt::Debug;
use std::sync::Arc;

use crate::document::{Default, Field, Kind, Range, Section};
use crate::experiment::reward::RewardKind;
use contextual::{epsilon_greedy_linear, lin_thompson, lin_ucb, logistic_thompson, square_cb};

pub use contextual::model::{Model, Scratch};
pub use evidence::{ArmEvidence, Estimate, Evidence, ImportanceSum, Regressed};
pub use statistics::{HALF_LIFE, Memory, Regression, SLIDING_WINDOW, Statistics};

/// Every policy that a file can name.
pub const KINDS: &[PolicyKind] = &[
    fixed::KIND,
    epsilon_greedy::KIND,
    thompson::KIND,
    top_two::KIND,
    ucb::KIND,
    softmax::KIND,
    exp3::KIND,
    lin_thompson::KIND,
    lin_ucb::KIND,
    square_cb::KIND,
    epsilon_greedy_linear::KIND,
    logistic_thompson::KIND,
];

/// What a file has to know of a policy: its name, its parameters, and how to make it of them.
#[derive(Debug, Clone, Copy)]
pub struct PolicyKind {
    /// The word after `policy.`.
    pub name: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
    /// When to use it, when not, and its pitfall: for the reference.
    pub guide: &'static str,
    /// The keys of its table: [`FLOOR`]; [`WARM_UP`], [`HALF_LIFE`], [`SLIDING_WINDOW`] and `prior` where they make sense; and its own.
    /// A key that is not here is refused.
    pub fields: &'static [Field],
    /// A table that compiles with two arms and binary rewards, as TOML.
    pub example: &'static str,
    /// Whether it explores by itself, so that it needs no floor.
    pub explores: bool,
    /// The rewards it can learn from, as the words of [`RewardKind::as_str`].
    pub rewards: &'static [&'static str],
    /// Whether units may keep their arm.
    pub unit: bool,
    /// Whether it sees the features of a request.
    pub context: bool,
    /// Makes the policy of its table, which has been checked against `fields`. What concerns several keys, or the
    /// reward, is reported through the section; `None` after an error.
    pub build: fn(&Section<'_>, Setting) -> Option<Arc<dyn Policy>>,
}

/// What a policy is built for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Setting {
    /// What a reward is.
    pub reward: RewardKind,
    /// How many arms the file has.
    pub arms: usize,
}

impl PolicyKind {
    /// The kind with this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.name == name)
    }

    /// Whether its table may have this key.
    pub fn takes(&self, key: &str) -> bool {
        self.fields.iter().any(|field| field.key == key)
    }

    /// The floor of an experiment that gives none: 0 for policies that explore by themselves, else min(0.01, 0.1 / arms).
    pub fn default_floor(&self, arms: usize) -> f64 {
        if self.explores {
            0.0
        } else {
            (0.1 / arms.max(1) as f64).min(0.01)
        }
    }
}

/// The words of all kinds of rewards.
pub const ANY_REWARD: &[&str] = &["binary", "bounded", "real"];

/// `floor`, which every policy takes. That arms × floor is below 1 is for the configuration to check.
pub const FLOOR: Field = Field {
    key: "floor",
    kind: Kind::Number(Range::half_open(0.0, 1.0)),
    default: Default::Depends(
        "0 for policies that explore by themselves (the table above says which), else the lesser of 0.01 and 0.1 / arms",
    ),
    doc: "Least probability of each arm that can be drawn. Arms × floor must be below 1. Off-policy estimates and \
          intervals need one: 0.05 to 0.1 if they matter.",
};

/// `warm_up`, for policies whose shares follow the rewards.
pub const WARM_UP: Field = Field {
    key: "warm_up",
    kind: Kind::Integer(0, 1_000_000_000),
    default: Default::Is("0"),
    doc: "An arm is warm after this many credited decisions. Until then it gets its weight's share of the traffic.",
};

/// A rule from evidence to a distribution over arms.
pub trait Policy: Debug + Send + Sync {
    /// The word after `policy.` in a policy file.
    fn kind(&self) -> &'static str;

    /// π over `arms` (the eligible ones, at least one): non-negative, sums to 1 within 1e-9, in the order of `arms`.
    fn distribution(&self, evidence: &Evidence<'_>) -> Vec<f64>;

    /// What the fold has to keep for it, besides counts and sums.
    fn statistics(&self) -> Statistics {
        Statistics::SCALAR
    }

    /// The model that answers each request by its context; `None` for policies that do not look at contexts, whose
    /// [`Policy::distribution`] answers for all.
    fn fit(&self, evidence: &Evidence<'_>) -> Option<Arc<dyn Model>> {
        let _ = evidence;
        None
    }

    /// Whether it looks at [`ArmEvidence::waiting`], so that decisions alone change its word.
    fn counts_waiting(&self) -> bool {
        false
    }

    /// What is believed of an arm's mean reward, for people and for P(best).
    fn posterior(&self, arm: &ArmEvidence, reward: RewardKind) -> Posterior;
}

/// A prior for one arm's mean reward.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ArmPrior {
    /// Beta(alpha, beta) over the mean of a binary reward, or of a bounded one scaled to [0, 1].
    Beta {
        /// Pseudo-successes, > 0.
        alpha: f64,
        /// Pseudo-failures, > 0.
        beta: f64,
    },
    /// Normal-inverse-gamma over mean and variance of a real reward.
    NormalInverseGamma {
        /// Prior mean.
        mean: f64,
        /// Pseudo-observations behind the mean, > 0.
        strength: f64,
        /// Shape of the inverse gamma, > 0.
        shape: f64,
        /// Scale of the inverse gamma, > 0.
        scale: f64,
    },
}

/// What is believed of an arm's mean reward.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Posterior {
    /// mean = min + (max − min) θ with θ ~ Beta(alpha, beta).
    Beta {
        /// > 0.
        alpha: f64,
        /// > 0.
        beta: f64,
        /// Least reward (0 for binary).
        min: f64,
        /// Greatest reward (1 for binary).
        max: f64,
    },
    /// mean ~ location + scale · t(degrees of freedom).
    StudentT {
        /// Centre.
        location: f64,
        /// > 0.
        scale: f64,
        /// > 0.
        degrees: f64,
    },
}

/// Non-negative weights as shares of their sum, each rounded once. Equal shares when none is positive and finite.
pub(crate) fn shares(weights: impl Iterator<Item = f64>) -> Vec<f64> {
    let usable = |weight: f64| {
        if weight > 0.0 && weight.is_finite() {
            weight
        } else {
            0.0
        }
    };
    let mut shares: Vec<f64> = weights.map(usable).collect();
    let mut sum: f64 = shares.iter().sum();
    if sum.is_infinite() {
        // Small enough for any number of arms to add up.
        for share in &mut shares {
            *share *= 1e-10;
        }
        sum = shares.iter().sum();
    }
    if sum == 0.0 {
        let equal = 1.0 / shares.len() as f64;
        shares.fill(equal);
    } else {
        for share in &mut shares {
            *share /= sum;
        }
    }
    shares
}

#[cfg(test)]
mod tests;
