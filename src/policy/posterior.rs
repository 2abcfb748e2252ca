//! From what an arm has earned to what is believed of its mean reward: conjugate updates.
//!
//! Binary and bounded rewards have a Beta posterior: α' = α + s, β' = β + n − s, with s the sum of the rewards scaled
//! to [0, 1]. For binary rewards that is exact. For bounded ones it takes a reward of 0.3 for three tenths of a
//! success, which is the widest that any distribution on the range can be, and is called approximate.
//!
//! Real rewards have a normal-inverse-gamma posterior (Gelman et al., Bayesian Data Analysis, 2013, §3.3):
//! κ' = κ + n, μ' = (κμ + Σr) / κ', a' = a + n/2, b' = b + ½ Σ(r − r̄)² + κ n (r̄ − μ)² / (2κ'),
//! and the mean is μ' + √(b' / (a' κ')) · t with 2a' degrees of freedom. b' stays positive, so that identical rewards do
//! not freeze an arm.
//!
//! Not here: which arm to prefer.

use super::{ArmEvidence, ArmPrior, Estimate, Posterior};
use crate::experiment::reward::RewardKind;
use crate::stats::special;

/// The posterior of `arm`: from its own prior, else from `shared`, else from the default of the reward's kind. A prior that
/// does not fit the reward is passed over; the configuration refuses it.
pub fn posterior(arm: &ArmEvidence, shared: Option<ArmPrior>, reward: RewardKind) -> Posterior {
    let prior = [arm.prior, shared]
        .into_iter()
        .flatten()
        .find(|prior| prior.fits(reward))
        .unwrap_or(ArmPrior::default_for(reward));
    let (min, max) = match reward {
        RewardKind::Bounded { min, max } => (min, max),
        RewardKind::Binary | RewardKind::Real => (0.0, 1.0),
    };
    match prior {
        ArmPrior::Beta { alpha, beta } => {
            let count = arm.earned.count;
            let scaled = (arm.earned.sum - count * min) / (max - min);
            // Rewards are rounded to 2^-32, so a sum may be a hair outside.
            let successes = scaled.max(0.0).min(count);
            Posterior::Beta {
                alpha: alpha + successes,
                beta: beta + (count - successes),
                min,
                max,
            }
        }
        ArmPrior::NormalInverseGamma {
            mean,
            strength,
            shape,
            scale,
        } => student_t((mean, strength, shape, scale), &arm.earned),
    }
}

/// The posterior of a normal mean from the prior (μ, κ, a, b).
fn student_t((mean, strength, shape, scale): (f64, f64, f64, f64), earned: &Estimate) -> Posterior {
    let count = earned.count;
    let total_strength = strength + count;
    let prior_share = strength / total_strength;
    let surprise = earned.mean().map_or(0.0, |observed| {
        prior_share * count * (observed - mean).powi(2)
    });
    let total_shape = shape + 0.5 * count;
    let total_scale = scale + 0.5 * (earned.deviations + surprise);
    Posterior::StudentT {
        location: prior_share * mean + earned.sum / total_strength,
        scale: (total_scale / total_shape / total_strength).sqrt(),
        degrees: 2.0 * total_shape,
    }
}

impl Posterior {
    /// The expected mean reward, in the reward's units. For a Student t its centre, which is the mean where there is one.
    pub fn mean(&self) -> f64 {
        match *self {
            Self::Beta {
                alpha,
                beta,
                min,
                max,
            } => min + (max - min) * (alpha / (alpha + beta)),
            Self::StudentT { location, .. } => location,
        }
    }

    /// The variance of the mean reward; infinite for a Student t with 2 degrees of freedom or fewer.
    pub fn variance(&self) -> f64 {
        match *self {
            Self::Beta {
                alpha,
                beta,
                min,
                max,
            } => {
                let total = alpha + beta;
                (max - min).powi(2) * (alpha / total) * (beta / total) / (total + 1.0)
            }
            Self::StudentT { scale, degrees, .. } if degrees > 2.0 => {
                scale * scale * degrees / (degrees - 2.0)
            }
            Self::StudentT { .. } => f64::INFINITY,
        }
    }

    /// The mean reward below which this much of the posterior lies; `probability` in (0, 1).
    pub fn quantile(&self, probability: f64) -> f64 {
        match *self {
            Self::Beta {
                alpha,
                beta,
                min,
                max,
            } => min + (max - min) * special::beta_quantile(alpha, beta, probability),
            Self::StudentT {
                location,
                scale,
                degrees,
            } => location + scale * special::student_t_quantile(degrees, probability),
        }
    }
}
