//! The statistics of one arm's linear regression: sums over its credited decisions, and nothing derived from them.
//!
//! With x the features of a decision (x₀ = 1, the intercept) and r its reward they are A = Σ x xᵀ, b = Σ r x and Σ r². They are raw: not
//! discounted, not standardised, no inverse, no λ. So two replicas' statistics add up to those of one that saw both streams (to 1e-9; floating-point
//! sums depend on the order of their terms), and a changed λ, goal or standardisation needs no relearning. An update costs d²/2
//! multiplications. Not here: solving (`policy::contextual::ridge`).

use serde::{Deserialize, Serialize};

use super::cholesky::{add_outer, row};

/// A, b and Σ r² of a set of decisions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Linear {
    /// Σ x xᵀ, packed (`cholesky`). Its first entry is the number of decisions, or their weight.
    gram: Vec<f64>,
    /// Σ r x; its first entry is Σ r.
    response: Vec<f64>,
    /// Σ r².
    squares: f64,
}

impl Linear {
    /// Without decisions. `dimension` counts the intercept: features + 1.
    pub fn new(dimension: usize) -> Self {
        Self {
            gram: vec![0.0; row(dimension)],
            response: vec![0.0; dimension],
            squares: 0.0,
        }
    }

    /// The inverse of reading [`Linear::gram`], [`Linear::response`] and [`Linear::squares`]. `None` unless lengths fit and every
    /// number is finite.
    pub fn from_parts(gram: Vec<f64>, response: Vec<f64>, squares: f64) -> Option<Self> {
        let fits = gram.len() == row(response.len());
        let finite = gram.iter().chain(&response).all(|value| value.is_finite());
        (fits && finite && squares.is_finite()).then_some(Self {
            gram,
            response,
            squares,
        })
    }

    /// Features + 1.
    pub fn dimension(&self) -> usize {
        self.response.len()
    }

    /// Number of decisions; after [`Linear::merge_scaled`] their weight.
    pub fn weight(&self) -> f64 {
        self.gram.first().copied().unwrap_or(0.0)
    }

    /// Σ r.
    pub fn sum(&self) -> f64 {
        self.response.first().copied().unwrap_or(0.0)
    }

    /// Σ x xᵀ: its lower triangle by rows.
    pub fn gram(&self) -> &[f64] {
        &self.gram
    }

    /// Σ r x.
    pub fn response(&self) -> &[f64] {
        &self.response
    }

    /// Σ r².
    pub fn squares(&self) -> f64 {
        self.squares
    }

    /// Adds a decision with features `x` (as many as the dimension, x₀ = 1, magnitudes at most 1e9) and reward `r`.
    pub fn add(&mut self, x: &[f64], r: f64) {
        self.accumulate(x, r, 1.0);
    }

    /// Takes a decision back that was added with the same `x` and `r`; exact but for rounding.
    pub fn remove(&mut self, x: &[f64], r: f64) {
        self.accumulate(x, r, -1.0);
    }

    /// Replaces the reward `old` of a decision that was added with features `x` by `new`. A stays bit for bit.
    pub fn correct(&mut self, x: &[f64], old: f64, new: f64) {
        for (sum, value) in self.response.iter_mut().zip(x) {
            *sum += (new - old) * value;
        }
        self.squares += new * new - old * old;
    }

    /// Adds another set of decisions of the same dimension.
    pub fn merge(&mut self, other: &Self) {
        self.merge_scaled(other, 1.0);
    }

    /// Adds another set of decisions of the same dimension at `weight` in [0, 1]: how a half-life discounts old ones.
    pub fn merge_scaled(&mut self, other: &Self, weight: f64) {
        debug_assert_eq!(self.dimension(), other.dimension());
        for (sum, value) in self.gram.iter_mut().zip(&other.gram) {
            *sum += weight * value;
        }
        for (sum, value) in self.response.iter_mut().zip(&other.response) {
            *sum += weight * value;
        }
        self.squares += weight * other.squares;
    }

    fn accumulate(&mut self, x: &[f64], r: f64, weight: f64) {
        debug_assert_eq!(x.len(), self.dimension());
        debug_assert_eq!(x.first(), Some(&1.0));
        add_outer(&mut self.gram, x, weight);
        for (sum, value) in self.response.iter_mut().zip(x) {
            *sum += weight * r * value;
        }
        self.squares += weight * r * r;
    }
}

#[cfg(test)]
pub(crate) mod tests;
