//! How good predictions are: accuracy and mean absolute error with standard errors, beside the best
//! constant answer.

use serde::{Deserialize, Serialize};

use crate::reviews::{Domain, Review};

/// Accuracy and error over one group of reviews.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Reviews in the group.
    pub count: usize,
    /// Share of reviews whose stars were predicted exactly.
    pub accuracy: f64,
    /// Standard error of the accuracy.
    pub accuracy_standard_error: f64,
    /// Mean distance from the true stars.
    pub mean_absolute_error: f64,
    /// Standard error of the mean absolute error.
    pub mean_absolute_error_standard_error: f64,
    /// The stars most often true in this very group: the strongest constant answer.
    pub majority_stars: u8,
    /// Accuracy of that constant answer.
    pub majority_accuracy: f64,
}

/// The scores over all held-out reviews and within each domain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// All held-out reviews: 60 % clothing, 20 % electronics, 20 % movies.
    pub all: Score,
    /// Clothing reviews.
    pub clothing: Score,
    /// Electronics sentences.
    pub electronics: Score,
    /// Movie sentences.
    pub movies: Score,
}

impl Evaluation {
    /// Scores `predicted` stars against the true ones of `reviews`.
    pub fn new(reviews: &[&Review], predicted: &[u8]) -> Self {
        let pairs = |domain: Option<Domain>| -> Vec<(u8, u8)> {
            reviews
                .iter()
                .zip(predicted)
                .filter(|(review, _)| domain.is_none_or(|domain| review.domain() == domain))
                .map(|(review, predicted)| (review.star_rating, *predicted))
                .collect()
        };
        Self {
            all: Score::new(&pairs(None)),
            clothing: Score::new(&pairs(Some(Domain::Clothing))),
            electronics: Score::new(&pairs(Some(Domain::Electronics))),
            movies: Score::new(&pairs(Some(Domain::Movies))),
        }
    }

    /// The groups with their names, in the order of reports.
    pub fn groups(&self) -> [(&'static str, &Score); 4] {
        [
            ("all", &self.all),
            ("clothing", &self.clothing),
            ("electronics", &self.electronics),
            ("movies", &self.movies),
        ]
    }

    /// A table of a header and one line per group.
    pub fn table(&self) -> Vec<String> {
        let header = format!(
            "{:<12} {:>6}  {:>15}  {:>15}  {:>18}",
            "held out", "n", "accuracy (SE)", "MAE (SE)", "majority accuracy"
        );
        let mut lines = vec![header];
        for (name, score) in self.groups() {
            lines.push(format!(
                "{name:<12} {:>6}  {:>7.3} ({:.3})  {:>7.3} ({:.3})  {:>7.3} (always {})",
                score.count,
                score.accuracy,
                score.accuracy_standard_error,
                score.mean_absolute_error,
                score.mean_absolute_error_standard_error,
                score.majority_accuracy,
                score.majority_stars
            ));
        }
        lines
    }
}

impl Score {
    /// Scores pairs of true and predicted stars.
    pub fn new(pairs: &[(u8, u8)]) -> Self {
        let hits = pairs
            .iter()
            .map(|(truth, predicted)| f64::from(u8::from(truth == predicted)));
        let errors = pairs
            .iter()
            .map(|(truth, predicted)| f64::from(truth.abs_diff(*predicted)));
        let (accuracy, accuracy_standard_error) = mean_and_error(hits);
        let (mean_absolute_error, mean_absolute_error_standard_error) = mean_and_error(errors);
        let times = |stars: u8| pairs.iter().filter(|(truth, _)| *truth == stars).count();
        let majority_stars = (1..=5).max_by_key(|stars| times(*stars)).unwrap_or(5);
        Self {
            count: pairs.len(),
            accuracy,
            accuracy_standard_error,
            mean_absolute_error,
            mean_absolute_error_standard_error,
            majority_stars,
            majority_accuracy: times(majority_stars) as f64 / pairs.len().max(1) as f64,
        }
    }
}

/// The mean and its standard error, sqrt(variance / n) with the n - 1 variance; zeros for no values.
pub fn mean_and_error(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let count = values.clone().count() as f64;
    if count < 1.0 {
        return (0.0, 0.0);
    }
    let mean = values.clone().sum::<f64>() / count;
    if count < 2.0 {
        return (mean, 0.0);
    }
    let variance = values.map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
    (mean, (variance / count).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_by_hand() {
        let score = Score::new(&[(5, 5), (5, 3), (1, 1), (4, 5)]);
        assert_eq!(score.count, 4);
        assert_eq!(score.accuracy, 0.5);
        // Variance of 1, 0, 1, 0 is 1/3; of 0, 2, 0, 1 it is 11/12.
        assert!((score.accuracy_standard_error - (1.0f64 / 12.0).sqrt()).abs() < 1e-12);
        assert_eq!(score.mean_absolute_error, 0.75);
        assert!((score.mean_absolute_error_standard_error - (11.0f64 / 48.0).sqrt()).abs() < 1e-12);
        assert_eq!((score.majority_stars, score.majority_accuracy), (5, 0.5));
    }

    #[test]
    fn empty_groups_have_finite_scores() {
        let score = Score::new(&[]);
        assert_eq!(score.count, 0);
        assert!(score.accuracy.is_finite() && score.majority_accuracy.is_finite());
    }
}
