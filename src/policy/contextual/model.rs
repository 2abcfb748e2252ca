//! What the learner publishes of a contextual policy and requests read.
//!
//! Not here: fitting (each policy's `fit`).

use std::fmt::Debug;

use super::normal_best::Workspace;

/// A contextual policy's published form. Immutable; answers requests without allocating memory.
pub trait Model: Debug + Send + Sync {
    /// How many arms it was fitted to, in whose order it answers.
    fn arms(&self) -> usize;

    /// Features + 1.
    fn dimension(&self) -> usize;

    /// Writes π(x) over the arms into `distribution` (one entry an arm): non-negative, sums to 1 within 1e-9.
    ///
    /// `features` are x as they were extracted, with x₀ = 1 (the model standardises them), as many as the dimension. The same features give the same
    /// bits on every platform.
    fn distribution(&self, features: &[f64], scratch: &mut Scratch, distribution: &mut [f64]);
}

/// Memory that a model works in. One per thread, for all models; it grows to the largest model and is not allocated again.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Features, standardised.
    pub(super) standardized: Vec<f64>,
    /// Their products xᵢ xⱼ, packed.
    pub(super) products: Vec<f64>,
    /// A number for each arm: the mean of its score.
    pub(super) means: Vec<f64>,
    /// A number for each arm: its score's standard deviation, or the like.
    pub(super) deviations: Vec<f64>,
    pub(super) best: Workspace,
}

/// Gives 1 to the greatest score, or equal parts to those that tie for it; all arms share if no score is a number.
pub(super) fn share_greatest(scores: &[f64], distribution: &mut [f64]) {
    let greatest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let tied = scores.iter().filter(|score| **score == greatest).count();
    let (count, all) = if tied == 0 {
        (scores.len(), true)
    } else {
        (tied, false)
    };
    let share = 1.0 / count as f64;
    for (part, score) in distribution.iter_mut().zip(scores) {
        *part = if all || *score == greatest {
            share
        } else {
            0.0
        };
    }
}
