//! Standardisation: features less their means, in units of their standard deviations.
//!
//! A linear map that is derived from raw sums whenever it is needed and stored nowhere. The intercept (index 0) stays 1. A feature
//! that has not varied yet becomes 0, so it takes no part. Not here: the sums themselves.

/// Standardised features are cut off here, so that one absurd request cannot reach infinities. In standard deviations.
const LIMIT: f64 = 1e6;

/// Means and scales of the features.
#[derive(Debug, Clone, PartialEq)]
pub struct Scaler {
    /// Of each feature; 0 for the intercept.
    pub means: Vec<f64>,
    /// One over the standard deviation of each feature, 0 for a constant one, 1 for the intercept.
    pub scales: Vec<f64>,
}

impl Scaler {
    /// Leaves features as they are.
    pub fn identity(dimension: usize) -> Self {
        Self {
            means: vec![0.0; dimension],
            scales: vec![1.0; dimension],
        }
    }

    /// From the number of decisions and each feature's (Σ x, Σ x²), the intercept's included.
    pub fn of(weight: f64, moments: impl Iterator<Item = (f64, f64)>) -> Self {
        let (means, scales) = moments
            .enumerate()
            .map(|(index, moments)| match index {
                0 => (0.0, 1.0),
                _ => standard(weight, moments),
            })
            .unzip();
        Self { means, scales }
    }

    /// One standardised feature.
    pub fn apply(&self, index: usize, value: f64) -> f64 {
        limited((value - self.means[index]) * self.scales[index])
    }

    /// Standardises `features` into `standardized`, whose memory is reused.
    pub fn standardize(&self, features: &[f64], standardized: &mut Vec<f64>) {
        standardized.clear();
        standardized.extend(
            features
                .iter()
                .zip(self.means.iter().zip(&self.scales))
                .map(|(value, (mean, scale))| limited((value - mean) * scale)),
        );
    }
}

/// Mean, and one over the standard deviation, of a feature with these Σ x and Σ x².
///
/// The variance counts as 0 if rounding could have made it: n additions may err by n · 2⁻⁵³ of Σ x².
pub fn standard(weight: f64, (sum, squares): (f64, f64)) -> (f64, f64) {
    if weight <= 0.0 {
        return (0.0, 0.0);
    }
    let mean = sum / weight;
    let second = squares / weight;
    let variance = second - mean * mean;
    let noise = second * f64::EPSILON * weight.max(8.0);
    let scale = if variance > noise && variance.is_normal() {
        1.0 / variance.sqrt()
    } else {
        0.0
    };
    (mean, scale)
}

fn limited(value: f64) -> f64 {
    if value.abs() <= LIMIT {
        value
    } else {
        LIMIT.copysign(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scaler(columns: &[&[f64]]) -> Scaler {
        let moments = columns.iter().map(|column| {
            let squares = column.iter().map(|value| value * value).sum();
            (column.iter().sum(), squares)
        });
        Scaler::of(columns[0].len() as f64, moments)
    }

    #[test]
    fn the_intercept_stays_and_a_constant_feature_becomes_zero() {
        let scaler = scaler(&[&[1.0; 4], &[0.1; 4], &[1.0, 3.0, 1.0, 3.0]]);
        let mut standardized = Vec::new();
        scaler.standardize(&[1.0, 0.1, 3.0], &mut standardized);
        assert_eq!(standardized, [1.0, 0.0, 1.0]);
        scaler.standardize(&[1.0, 7.0, 1.0], &mut standardized);
        assert_eq!(standardized, [1.0, 0.0, -1.0]);
    }

    #[test]
    fn a_constant_stays_constant_however_often_it_was_added() {
        let (mut sum, mut squares) = (0.0, 0.0);
        for count in 1..=100_000 {
            sum += 0.1;
            squares += 0.1 * 0.1;
            if count % 1000 == 1 {
                assert_eq!(standard(f64::from(count), (sum, squares)).1, 0.0, "{count}");
            }
        }
    }

    #[test]
    fn a_small_spread_around_a_large_mean_is_seen() {
        // Years: 2024 ± 1.
        let scaler = scaler(&[&[1.0; 2], &[2023.0, 2025.0]]);
        assert!((scaler.apply(1, 2025.0) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn nothing_comes_out_that_is_not_finite() {
        let identity = Scaler::identity(2);
        for hostile in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, -1e300] {
            assert!(identity.apply(1, hostile).is_finite());
        }
        assert_eq!(standard(0.0, (0.0, 0.0)), (0.0, 0.0));
        assert_eq!(standard(3.0, (f64::NAN, f64::NAN)).1, 0.0);
    }
}
