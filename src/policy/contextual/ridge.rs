//! Ridge regression of each arm: from raw sums to what a request needs.
//!
//! With features standardised by the map T (pooled over the arms, so that all see the same x) and rewards scaled, each arm has
//! A = T (Σ x xᵀ) Tᵀ + λ I, θ = A⁻¹ T (Σ r x), and the variance of a prediction is proportional to xᵀ A⁻¹ x. λ lies on every coordinate, the
//! intercept included, as in Li et al., "A Contextual-Bandit Approach to Personalized News Article Recommendation" (2010), Algorithm 1.
//!
//! Rewards are scaled so that more is better and parameters mean the same everywhere: binary and bounded ones to [0, 1], as 1 − r
//! under `goal = "minimize"`; real ones to their pooled mean and standard deviation, negated under `minimize`. An arm without
//! decisions predicts 0: the worst of [0, 1], the average of real rewards.
//!
//! Not here: what a policy makes of a prediction and its variance.

use super::model::Scratch;
use crate::experiment::reward::{Goal, RewardKind};
use crate::stats::cholesky::{Cholesky, dot, row};
use crate::stats::linear::Linear;
use crate::stats::scaler::{Scaler, standard};

/// λ of policy files that give none.
pub const DEFAULT_LAMBDA: f64 = 1.0;

/// One arm, as a model is fitted to it.
#[derive(Debug, Clone, Copy)]
pub struct ArmStatistics<'a> {
    /// Its credited decisions; all arms of a fit have the same dimension.
    pub linear: &'a Linear,
    /// λ > 0 of its own prior N(0, 1/λ), if the file gives one.
    pub lambda: Option<f64>,
}

/// What the sums are about.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Objective {
    /// What a reward is.
    pub reward: RewardKind,
    /// Whether more is better.
    pub goal: Goal,
}

/// How sums are read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ridge {
    /// λ > 0: prior precision of every coefficient, in observations.
    pub lambda: f64,
    /// Whether features, and real rewards, are standardised; false only where they already are.
    pub standardize: bool,
}

impl Ridge {
    /// With λ, standardising.
    pub const fn new(lambda: f64) -> Self {
        Self {
            lambda,
            standardize: true,
        }
    }

    /// Coefficients of every arm.
    pub fn predictions(&self, arms: &[ArmStatistics<'_>], objective: Objective) -> Predictions {
        self.solve(arms, objective, |_| ())
    }

    /// Coefficients and A⁻¹ of every arm.
    pub fn uncertain(&self, arms: &[ArmStatistics<'_>], objective: Objective) -> Uncertain {
        let mut inverses = Vec::new();
        let predictions = self.solve(arms, objective, |cholesky| {
            let mut inverse = cholesky.inverse();
            // Each product of two different features stands for both orders.
            for i in 0..cholesky.dimension() {
                for value in &mut inverse[row(i)..row(i) + i] {
                    *value *= 2.0;
                }
            }
            inverses.extend_from_slice(&inverse);
        });
        Uncertain {
            predictions,
            inverses,
        }
    }

    fn solve(
        &self,
        arms: &[ArmStatistics<'_>],
        objective: Objective,
        mut factored: impl FnMut(&Cholesky),
    ) -> Predictions {
        let dimension = arms.first().map_or(1, |arm| arm.linear.dimension());
        let scaler = self.scaler(arms, dimension);
        let scale = self.reward_scale(arms, objective);
        let mut coefficients = Vec::with_capacity(arms.len() * dimension);
        for arm in arms {
            let (gram, mut theta) = standardized(arm.linear, &scaler, scale);
            let ridge = arm.lambda.unwrap_or(self.lambda);
            let cholesky = Cholesky::of_ridge(gram, dimension, ridge);
            cholesky.solve(&mut theta);
            coefficients.extend_from_slice(&theta);
            factored(&cholesky);
        }
        Predictions {
            arms: arms.len(),
            scaler,
            coefficients,
            weight: arms.iter().map(|arm| arm.linear.weight()).sum(),
        }
    }

    fn scaler(&self, arms: &[ArmStatistics<'_>], dimension: usize) -> Scaler {
        if !self.standardize {
            return Scaler::identity(dimension);
        }
        let pooled =
            |index: usize| -> f64 { arms.iter().map(|arm| arm.linear.gram()[index]).sum() };
        Scaler::of(
            pooled(0),
            (0..dimension).map(|i| (pooled(row(i)), pooled(row(i) + i))),
        )
    }

    fn reward_scale(&self, arms: &[ArmStatistics<'_>], objective: Objective) -> RewardScale {
        let (origin, unit) = match objective.reward {
            RewardKind::Bounded { min, max } => (min, 1.0 / (max - min)),
            RewardKind::Real if self.standardize => {
                let sum = |part: fn(&Linear) -> f64| arms.iter().map(|arm| part(arm.linear)).sum();
                let (mean, unit) = standard(
                    sum(Linear::weight),
                    (sum(Linear::sum), sum(Linear::squares)),
                );
                (mean, if unit > 0.0 { unit } else { 1.0 })
            }
            RewardKind::Binary | RewardKind::Real => (0.0, 1.0),
        };
        let (end, sign) = match (objective.goal, objective.reward) {
            (Goal::Maximize, _) => (0.0, 1.0),
            (Goal::Minimize, RewardKind::Real) => (0.0, -1.0),
            (Goal::Minimize, _) => (1.0, -1.0),
        };
        RewardScale {
            factor: sign * unit,
            shift: end - sign * unit * origin,
        }
    }
}

/// scaled = factor · r + shift.
#[derive(Debug, Clone, Copy)]
struct RewardScale {
    factor: f64,
    shift: f64,
}

/// T A Tᵀ and T b of scaled rewards.
fn standardized(linear: &Linear, scaler: &Scaler, scale: RewardScale) -> (Vec<f64>, Vec<f64>) {
    let (means, scales) = (&scaler.means, &scaler.scales);
    let weight = linear.weight();
    // Σ x of each feature is the first column of A.
    let column: Vec<f64> = (0..linear.dimension())
        .map(|i| linear.gram()[row(i)])
        .collect();
    let mut gram = linear.gram().to_vec();
    let mut response = linear.response().to_vec();
    for (total, sum) in response.iter_mut().zip(&column) {
        *total = scale.factor * *total + scale.shift * sum;
    }
    let sum = response.first().copied().unwrap_or(0.0);
    for i in 0..linear.dimension() {
        let centred = column[i] - means[i] * weight;
        let line = &mut gram[row(i)..=row(i) + i];
        for (j, entry) in line.iter_mut().enumerate() {
            let moment = *entry - means[i] * column[j] - means[j] * centred;
            *entry = moment * scales[i] * scales[j];
        }
        response[i] = (response[i] - means[i] * sum) * scales[i];
    }
    (gram, response)
}

/// The fitted coefficients of all arms.
#[derive(Debug, Clone)]
pub struct Predictions {
    arms: usize,
    scaler: Scaler,
    /// Of standardised features, arm after arm.
    coefficients: Vec<f64>,
    weight: f64,
}

impl Predictions {
    /// How many arms.
    pub fn arms(&self) -> usize {
        self.arms
    }

    /// Features + 1.
    pub fn dimension(&self) -> usize {
        self.scaler.means.len()
    }

    /// Credited decisions of all arms, at their weights.
    pub fn weight(&self) -> f64 {
        self.weight
    }

    /// The coefficients of one arm, of standardised features, the intercept first.
    pub fn coefficients(&self, arm: usize) -> &[f64] {
        let dimension = self.dimension();
        &self.coefficients[arm * dimension..(arm + 1) * dimension]
    }

    /// Each arm's predicted reward for `features`, scaled so that more is better.
    pub fn predict<'s>(&self, features: &[f64], scratch: &'s mut Scratch) -> &'s [f64] {
        self.scaler.standardize(features, &mut scratch.standardized);
        let x = scratch.standardized.as_slice();
        scratch.means.clear();
        scratch.means.extend(
            self.coefficients
                .chunks_exact(self.dimension())
                .map(|theta| dot(theta, x)),
        );
        &scratch.means
    }
}

/// Fitted coefficients and how uncertain they are.
#[derive(Debug, Clone)]
pub struct Uncertain {
    /// The coefficients.
    pub predictions: Predictions,
    /// A⁻¹ of each arm, packed, off-diagonal entries doubled.
    inverses: Vec<f64>,
}

impl Uncertain {
    /// Each arm's prediction, and √(xᵀ A⁻¹ x), the standard deviation of a prediction in units of the rewards' noise.
    pub fn predict<'s>(
        &self,
        features: &[f64],
        scratch: &'s mut Scratch,
    ) -> (&'s [f64], &'s mut [f64]) {
        self.predictions.predict(features, scratch);
        scratch.products.clear();
        for (index, value) in scratch.standardized.iter().enumerate() {
            let others = &scratch.standardized[..=index];
            scratch
                .products
                .extend(others.iter().map(|other| value * other));
        }
        let products = scratch.products.as_slice();
        scratch.deviations.clear();
        scratch.deviations.extend(
            self.inverses
                .chunks_exact(row(self.predictions.dimension()))
                .map(|inverse| dot(inverse, products).max(0.0).sqrt()),
        );
        (&scratch.means, &mut scratch.deviations)
    }
}
