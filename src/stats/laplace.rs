//! The statistics of one arm's logistic regression: a Gaussian with a diagonal precision, moved on by each credited decision.
//!
//! Chapelle and Li, "An Empirical Evaluation of Thompson Sampling" (2011), Algorithm 3, with batches of one decision: with the weights
//! w ~ N(m, 1/q), features x and outcome y = ±1,
//!
//! - m ← the w that minimises ½ Σ qᵢ (wᵢ − mᵢ)² + ln(1 + exp(−y wᵀx)),
//! - qᵢ ← qᵢ + xᵢ² p (1 − p), with p = 1 / (1 + exp(−wᵀx)).
//!
//! The minimum lies on the line m + τ x/q, so it is the root of an increasing function of one number. Features are standardised by the arm's
//! own moments so far, because a diagonal prior means nothing without a common scale.
//!
//! What is kept is what adds: q − λ and q m (so merging two states is weighting by precision), and the features' moments. But each step
//! depends on those before it: a merged state is close to that of one stream, not equal to it, and a decision cannot be taken back. Not here: λ,
//! and probabilities of being best.

use serde::{Deserialize, Serialize};

use super::scaler::{Scaler, standard};

/// One arm's weights, precisions and feature moments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Laplace {
    /// Number of decisions.
    weight: f64,
    features: Vec<Feature>,
}

/// What is known of one feature's weight; all sums.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Feature {
    /// Σ x, raw.
    pub sum: f64,
    /// Σ x², raw.
    pub squares: f64,
    /// q − λ: precision of the weight beyond its prior's.
    pub precision: f64,
    /// q m: precision times mean of the weight.
    pub leaning: f64,
}

/// How a state is read and moved on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LaplaceRule {
    /// Precision of every weight's prior N(0, 1/λ), > 0.
    pub lambda: f64,
    /// Whether features are standardised; false only where they already are.
    pub standardize: bool,
}

impl Laplace {
    /// Without decisions. `dimension` counts the intercept: features + 1.
    pub fn new(dimension: usize) -> Self {
        Self {
            weight: 0.0,
            features: vec![Feature::default(); dimension],
        }
    }

    /// The inverse of reading [`Laplace::weight`] and [`Laplace::features`]. `None` unless every number is finite and no precision negative.
    pub fn from_parts(weight: f64, features: Vec<Feature>) -> Option<Self> {
        let sound = |feature: &Feature| {
            let sums = [feature.sum, feature.squares, feature.leaning];
            sums.iter().all(|sum| sum.is_finite()) && (0.0..=f64::MAX).contains(&feature.precision)
        };
        let sound = (0.0..=f64::MAX).contains(&weight) && features.iter().all(sound);
        sound.then_some(Self { weight, features })
    }

    /// Features + 1.
    pub fn dimension(&self) -> usize {
        self.features.len()
    }

    /// Number of decisions.
    pub fn weight(&self) -> f64 {
        self.weight
    }

    /// What is known of each feature's weight, the intercept first.
    pub fn features(&self) -> &[Feature] {
        &self.features
    }

    /// Learns a decision with features `x` (as many as the dimension, x₀ = 1, magnitudes at most 1e9) that ended well or not.
    pub fn learn(&mut self, x: &[f64], success: bool, rule: LaplaceRule) {
        debug_assert_eq!(x.len(), self.dimension());
        self.weight += 1.0;
        for (feature, value) in self.features.iter_mut().zip(x) {
            feature.sum += value;
            feature.squares += value * value;
        }
        let sign = if success { 1.0 } else { -1.0 };
        let (mean, variance) = self.score(x, rule);
        let score = sign * stationary_score(sign * mean, variance);
        let likely = logistic(score);
        let pull = if success { 1.0 - likely } else { -likely };
        let curvature = likely * (1.0 - likely);
        let weight = self.weight;
        for (index, feature) in self.features.iter_mut().enumerate() {
            let z = rule.standardized(index, x[index], weight, feature);
            let moved = (feature.leaning + pull * z) / (rule.lambda + feature.precision);
            feature.precision += z * z * curvature;
            feature.leaning = moved * (rule.lambda + feature.precision);
        }
    }

    /// Mean and variance of wᵀx.
    pub fn score(&self, x: &[f64], rule: LaplaceRule) -> (f64, f64) {
        let (mut mean, mut variance) = (0.0, 0.0);
        for (index, (feature, value)) in self.features.iter().zip(x).enumerate() {
            let z = rule.standardized(index, *value, self.weight, feature);
            let scaled = z / (rule.lambda + feature.precision);
            mean += scaled * feature.leaning;
            variance += scaled * z;
        }
        (mean, variance)
    }

    /// Adds what another state of the same dimension knows, weighting both by their precisions.
    pub fn merge(&mut self, other: &Self) {
        debug_assert_eq!(self.dimension(), other.dimension());
        self.weight += other.weight;
        for (feature, other) in self.features.iter_mut().zip(&other.features) {
            feature.sum += other.sum;
            feature.squares += other.squares;
            feature.precision += other.precision;
            feature.leaning += other.leaning;
        }
    }

    /// How this state standardises features.
    pub fn scaler(&self, rule: LaplaceRule) -> Scaler {
        if !rule.standardize {
            return Scaler::identity(self.dimension());
        }
        let moments = self.features.iter();
        Scaler::of(
            self.weight,
            moments.map(|feature| (feature.sum, feature.squares)),
        )
    }
}

impl LaplaceRule {
    fn standardized(self, index: usize, value: f64, weight: f64, feature: &Feature) -> f64 {
        if index == 0 || !self.standardize {
            return value;
        }
        let (mean, scale) = standard(weight, (feature.sum, feature.squares));
        (value - mean) * scale
    }
}

/// 1 / (1 + e^−score).
fn logistic(score: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-score))
}

/// The s with s = `mean` + `variance` / (1 + eˢ): wᵀx at the minimum, for the outcome +1. `variance` ≥ 0.
///
/// The root lies in [mean, mean + variance]; Newton's method, halving the interval where a step would leave it.
pub fn stationary_score(mean: f64, variance: f64) -> f64 {
    let (mut low, mut high) = (mean, mean + variance);
    let mut score = mean + variance * logistic(-mean) / (1.0 + 0.25 * variance);
    for _ in 0..200 {
        if !(low < score && score < high) {
            score = 0.5 * (low + high);
        }
        let below = logistic(-score);
        let residual = score - mean - variance * below;
        if residual > 0.0 {
            high = score;
        } else {
            low = score;
        }
        let step = residual / (1.0 + variance * below * (1.0 - below));
        if step.abs() <= 1e-15 * score.abs().max(1.0) {
            return score - step;
        }
        score -= step;
    }
    score
}

#[cfg(test)]
mod tests;
