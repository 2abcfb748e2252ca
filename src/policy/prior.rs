//! Priors: what is known of an arm's mean reward before its first reward, and how files write it.
//!
//! Not here: the update by rewards (`posterior`).

use super::ArmPrior;
use crate::document::{Default, Field, Kind, Range, Section, quoted};
use crate::experiment::reward::RewardKind;

/// The prior of binary and bounded rewards unless a file gives one: uniform, Beta(1, 1).
pub const DEFAULT_BETA: ArmPrior = ArmPrior::Beta {
    alpha: 1.0,
    beta: 1.0,
};

/// The prior of real rewards unless a file gives one: a Cauchy around 0, worth a thousandth of an observation. It suits
/// rewards whose standard deviation is within a few orders of magnitude of 1; others should be scaled, or given a prior.
pub const DEFAULT_NORMAL: ArmPrior = ArmPrior::NormalInverseGamma {
    mean: 0.0,
    strength: 0.001,
    shape: 0.5,
    scale: 0.5,
};

impl ArmPrior {
    /// The default for this kind of reward.
    pub const fn default_for(reward: RewardKind) -> Self {
        match reward {
            RewardKind::Binary | RewardKind::Bounded { .. } => DEFAULT_BETA,
            RewardKind::Real => DEFAULT_NORMAL,
        }
    }

    /// Whether it is a prior for this kind of reward: Betas for binary and bounded, normal-inverse-gammas for real ones.
    pub const fn fits(self, reward: RewardKind) -> bool {
        matches!(
            (self, reward),
            (
                Self::Beta { .. },
                RewardKind::Binary | RewardKind::Bounded { .. }
            ) | (Self::NormalInverseGamma { .. }, RewardKind::Real)
        )
    }
}

/// Above 0, up to as many observations as sums are exact for.
const WEIGHT: Range = Range {
    low: 0.0,
    high: 1e9,
    low_included: false,
    high_included: true,
};

/// The keys of a prior. Which of them belong together depends on the reward, see [`read`].
pub const FIELDS: &[Field] = &[
    Field {
        key: "alpha",
        kind: Kind::Number(WEIGHT),
        default: Default::Depends("needed for binary and bounded rewards"),
        doc: "Successes seen before, in a Beta prior; of bounded rewards, how much of the range they add up to.",
    },
    Field {
        key: "beta",
        kind: Kind::Number(WEIGHT),
        default: Default::Depends("needed for binary and bounded rewards"),
        doc: "Failures seen before, in a Beta prior. The prior mean is alpha / (alpha + beta).",
    },
    Field {
        key: "mean",
        kind: Kind::Number(Range::closed(-1e9, 1e9)),
        default: Default::Depends("needed for real rewards"),
        doc: "Expected mean reward, in a normal-inverse-gamma prior.",
    },
    Field {
        key: "strength",
        kind: Kind::Number(WEIGHT),
        default: Default::Depends("needed for real rewards"),
        doc: "How many observations the prior mean is worth.",
    },
    Field {
        key: "shape",
        kind: Kind::Number(WEIGHT),
        default: Default::Depends("needed for real rewards"),
        doc: "Half as many observations as the prior variance is worth.",
    },
    Field {
        key: "scale",
        kind: Kind::Number(Range {
            low: 0.0,
            high: 1e27,
            low_included: false,
            high_included: true,
        }),
        default: Default::Depends("needed for real rewards"),
        doc: "Shape times the expected variance of a reward.",
    },
];

/// The prior of arms that have none of their own, for policies that use one; read with [`read`].
pub const PRIOR: Field = Field {
    key: "prior",
    kind: Kind::Table(FIELDS),
    default: Default::Depends(
        "{ alpha = 1.0, beta = 1.0 }; for real rewards { mean = 0.0, strength = 0.001, shape = 0.5, scale = 0.5 }",
    ),
    doc: "What is known of an arm before its first reward, unless the arm has a prior of its own. Its keys are those of `[prior]` above.",
};

/// The table at `key`, as a prior for this kind of reward. `None` when there is none, or when something is wrong with it, which is
/// then reported. The section's field `key` has the kind `Kind::Table(prior::FIELDS)`.
pub fn read(section: &Section<'_>, key: &'static str, reward: RewardKind) -> Option<ArmPrior> {
    let prior = section.section(key)?;
    let (needed, example): (&[&str], _) = match reward {
        RewardKind::Binary | RewardKind::Bounded { .. } => {
            (&["alpha", "beta"], "{ alpha = 1.0, beta = 1.0 }")
        }
        RewardKind::Real => (
            &["mean", "strength", "shape", "scale"],
            "{ mean = 0.0, strength = 1.0, shape = 1.0, scale = 1.0 }",
        ),
    };
    let kind = reward.as_str();
    let help = format!(
        "the prior of a {kind} reward takes {}, as in {example}",
        quoted(needed)
    );
    for other in FIELDS.iter().filter(|field| !needed.contains(&field.key)) {
        if prior.has(other.key) {
            let message = format!(
                "`{}` is not part of the prior of a {kind} reward",
                other.key
            );
            prior.reject_key(other.key, message, help.clone());
        }
    }
    for missing in needed.iter().filter(|needed| !prior.has(needed)) {
        let message = format!("`{missing}` is missing in the prior of a {kind} reward");
        prior.reject_section(message, help.clone());
    }
    Some(match reward {
        RewardKind::Binary | RewardKind::Bounded { .. } => ArmPrior::Beta {
            alpha: prior.number("alpha")?,
            beta: prior.number("beta")?,
        },
        RewardKind::Real => ArmPrior::NormalInverseGamma {
            mean: prior.number("mean")?,
            strength: prior.number("strength")?,
            shape: prior.number("shape")?,
            scale: prior.number("scale")?,
        },
    })
}
