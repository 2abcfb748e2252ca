//! Confidence sequences: intervals for one arm's mean that hold at every sample size at once, so that one may look as
//! often as one likes, and stop when one likes.
//!
//! With s the sum of n rewards scaled to [0, 1], the set of all p with M(p) < 1/α, where
//! M(p) = B(cp + s, c(1 − p) + n − s) / (B(cp, c(1 − p)) p^s (1 − p)^(n − s)),
//! the Beta mixture of likelihood ratios centred at p (Robbins 1970; Howard et al. 2021, prop. 7, two-sided
//! beta-binomial mixture). For binary rewards M is a non-negative martingale at the true p; for rewards
//! within [0, 1] it is a supermartingale, since x ↦ a^x b^(1−x) lies below its chord, so the same interval
//! holds for every bounded reward with a constant mean. By Ville's inequality it misses the mean at *any* n with probability at
//! most α. It uses the arm's own count only, and so stays valid while a bandit moves the traffic (optional skipping).
//!
//! Not here: differences between arms, and `real` rewards, whose sequences need a variance and are only asymptotic.

use crate::experiment::reward::RewardKind;
use crate::stats::special::{deviance, stirling_remainder};

/// The sample size at which the interval is tuned to be narrowest.
const TUNED_COUNT: f64 = 100.0;
/// The error rate for which it is tuned.
const TUNED_ALPHA: f64 = 0.05;

/// The confidence sequence at `count` rewards with sum `sum` (in the reward's own units) and error rate `alpha` in
/// (0, 1). The whole range without rewards; `None` for `real` rewards.
pub fn interval(kind: RewardKind, count: u64, sum: f64, alpha: f64) -> Option<(f64, f64)> {
    let (min, max) = match kind {
        RewardKind::Binary => (0.0, 1.0),
        RewardKind::Bounded { min, max } => (min, max),
        RewardKind::Real => return None,
    };
    let count = count as f64;
    let successes = ((sum - count * min) / (max - min)).max(0.0).min(count);
    let (low, high) = unit_interval(count, successes, alpha.max(1e-300));
    Some((min + (max - min) * low, min + (max - min) * high))
}

fn unit_interval(count: f64, successes: f64, alpha: f64) -> (f64, f64) {
    if count <= 0.0 {
        return (0.0, 1.0);
    }
    let failures = count - successes;
    let limit = -libm::log(alpha);
    let low = lower_end(successes, failures, limit);
    let high = 1.0 - lower_end(failures, successes, limit);
    (low, high)
}

/// The least p with ln M(p) < `limit`, by bisection over the logit below the sample mean, where M falls.
fn lower_end(successes: f64, failures: f64, limit: f64) -> f64 {
    if successes <= 0.0 {
        return 0.0;
    }
    let logistic = |logit: f64| 1.0 / (1.0 + libm::exp(-logit));
    // Above 1 − 1e-16 the logit no longer tells numbers apart.
    let mut inside = (libm::log(successes) - libm::log(failures)).min(36.0);
    if log_martingale(successes, failures, logistic(inside)) >= limit {
        return logistic(inside);
    }
    let mut stride = 1.0;
    let mut outside = inside - stride;
    while outside > -700.0 && log_martingale(successes, failures, logistic(outside)) < limit {
        inside = outside;
        stride *= 2.0;
        outside -= stride;
    }
    for _ in 0..80 {
        let middle = 0.5 * (inside + outside);
        if log_martingale(successes, failures, logistic(middle)) < limit {
            inside = middle;
        } else {
            outside = middle;
        }
    }
    logistic(outside)
}

/// ln M(p). With a = cp + s, b = c(1 − p) + n − s and Stirling's formula throughout, the large terms gather into deviances.
fn log_martingale(successes: f64, failures: f64, p: f64) -> f64 {
    let complement = 1.0 - p;
    if p <= 0.0 || complement <= 0.0 {
        return f64::INFINITY;
    }
    let weight = mixture_weight();
    let (prior_a, prior_b) = (weight * p, weight * complement);
    let (a, b) = (prior_a + successes, prior_b + failures);
    let total = a + b;
    // ln B(a, b) − s ln p − f ln(1 − p) = deviances + c p ln p + c (1 − p) ln(1 − p) + Stirling's smaller terms, and
    // ln B(cp, c(1 − p)) has the same form with deviances of 0.
    deviance(a, total * p) + deviance(b, total * complement)
        - 0.5 * (libm::log(a / prior_a) + libm::log(b / prior_b) - libm::log(total / weight))
        + stirling_remainder(a)
        + stirling_remainder(b)
        - stirling_remainder(total)
        - stirling_remainder(prior_a)
        - stirling_remainder(prior_b)
        + stirling_remainder(weight)
}

/// c: pseudo-observations of the mixture, so that the normal approximation is narrowest at the tuned count (Howard et al. 2021,
/// §3.5): c = t / (2 ln 1/α + ln(1 + 2 ln 1/α)) − 1.
fn mixture_weight() -> f64 {
    let penalty = -2.0 * libm::log(TUNED_ALPHA);
    TUNED_COUNT / (penalty + libm::log1p(penalty)) - 1.0
}

#[cfg(test)]
mod tests;
