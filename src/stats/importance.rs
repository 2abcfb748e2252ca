//! Importance-weighted sums in fixed point: exact under any order of additions, undos and merges, as [`Moments`](super::moments::Moments) are.
//!
//! Not here: which weight a reward has. That follows from its logged propensity and the policy's parameters.

use serde::{Deserialize, Serialize};

/// Sums are multiples of this: 2^-32.
const ONE: f64 = (1_u64 << 32) as f64;

/// No single weight is taken for more than this, so that a billion of them add up.
const MAX_WEIGHT: f64 = 1e9;

/// Σ w and Σ w r.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Importance {
    weights: i128,
    rewards: i128,
}

impl Importance {
    /// The weight 1 / (propensity + exploration), at most 1e9.
    pub fn weight(propensity: f64, exploration: f64) -> f64 {
        (1.0 / (propensity + exploration)).min(MAX_WEIGHT)
    }

    /// Adds a reward. `value` is of magnitude at most 1e9, `weight` in [0, 1e9].
    pub fn add(&mut self, value: f64, weight: f64) {
        self.merge(&Self::of(value, weight));
    }

    /// Takes a reward back, exactly.
    pub fn remove(&mut self, value: f64, weight: f64) {
        self.subtract(&Self::of(value, weight));
    }

    /// Takes other sums back, exactly.
    pub fn subtract(&mut self, other: &Self) {
        self.weights = self.weights.saturating_sub(other.weights);
        self.rewards = self.rewards.saturating_sub(other.rewards);
    }

    /// Adds other sums.
    pub fn merge(&mut self, other: &Self) {
        self.weights = self.weights.saturating_add(other.weights);
        self.rewards = self.rewards.saturating_add(other.rewards);
    }

    /// Σ w.
    pub fn weights(&self) -> f64 {
        self.weights as f64 / ONE
    }

    /// Σ w r.
    pub fn rewards(&self) -> f64 {
        self.rewards as f64 / ONE
    }

    fn of(value: f64, weight: f64) -> Self {
        let quantise = |value: f64| (value * ONE).round_ties_even() as i128;
        Self {
            weights: quantise(weight),
            rewards: quantise(value * weight),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_exact_in_any_order_and_undo_is_exact() {
        let rewards = [(0.1, 3.7), (-1e9, 1e9), (1.0, 1.0 / 3.0), (7.25, 1e-9)];
        let mut forward = Importance::default();
        let mut backward = Importance::default();
        for (ahead, behind) in rewards.iter().zip(rewards.iter().rev()) {
            forward.add(ahead.0, ahead.1);
            backward.add(behind.0, behind.1);
        }
        assert_eq!(forward, backward);
        forward.add(0.3, 12.5);
        assert_ne!(forward, backward);
        forward.remove(0.3, 12.5);
        assert_eq!(forward, backward);
    }

    #[test]
    fn the_least_propensity_weighs_a_billion() {
        assert_eq!(Importance::weight(0.25, 0.25), 2.0);
        assert_eq!(Importance::weight(0.0, 0.0), 1e9);
        let mut sums = Importance::default();
        sums.add(1.0, Importance::weight(1e-300, 0.0));
        assert_eq!((sums.weights(), sums.rewards()), (1e9, 1e9));
    }
}
