//! From runs to a table: means over seeds with their standard errors, as text or JSON.

use serde::Serialize;

use crate::predict::Table;
use crate::reviews::Domain;
use crate::traffic::mix::Mix;
use crate::traffic::policy_file::PolicyKind;

/// One policy with one seed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run {
    /// The policy's name.
    pub policy: &'static str,
    /// Seed of the reviews' order.
    pub seed: u64,
    /// Share of right answers.
    pub accuracy: f64,
    /// What a uniform split would have earned on the same reviews.
    pub uniform: f64,
    /// What the best arm alone would have earned on the same reviews.
    pub best: f64,
    /// The best arm's share of the last tenth of the requests.
    pub best_arm_share: f64,
    /// Requests without an answer.
    pub failed: u64,
    /// Labels that the proxy counted.
    pub rewards: u64,
}

/// A mean over seeds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Its standard error; 0 for a single seed.
    pub se: f64,
}

impl Estimate {
    /// The mean of `values` with its standard error.
    pub fn of(values: &[f64]) -> Self {
        let count = values.len().max(1) as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Self {
            mean,
            se: if count > 1.0 {
                (squares / (count - 1.0) / count).sqrt()
            } else {
                0.0
            },
        }
    }
}

/// One arm's accuracy on the mix, from the held-out reviews of the table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ArmAccuracy {
    /// The arm's name.
    pub name: String,
    /// Share of right answers, with the standard error of a stratified sample.
    pub accuracy: Estimate,
}

/// The accuracy of every arm on `mix`, as the table has it.
pub fn arm_accuracies(table: &Table, arms: &[String], mix: &Mix) -> Option<Vec<ArmAccuracy>> {
    arms.iter()
        .map(|name| {
            let column = table.variants.iter().position(|variant| variant == name)?;
            Some(ArmAccuracy {
                name: name.clone(),
                accuracy: stratified(table, column, mix),
            })
        })
        .collect()
}

fn stratified(table: &Table, column: usize, mix: &Mix) -> Estimate {
    let mut estimate = Estimate { mean: 0.0, se: 0.0 };
    for domain in Domain::ALL {
        let rows: Vec<bool> = table
            .rows
            .iter()
            .filter(|row| Domain::of_category(&row.product_category) == domain)
            .map(|row| row.answers[column].stars == row.star_rating)
            .collect();
        let count = rows.len().max(1) as f64;
        let accuracy = rows.iter().filter(|right| **right).count() as f64 / count;
        estimate.mean += mix.share(domain) * accuracy;
        estimate.se += mix.share(domain).powi(2) * accuracy * (1.0 - accuracy) / count;
    }
    Estimate {
        se: estimate.se.sqrt(),
        ..estimate
    }
}

/// One policy over all seeds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PolicyResult {
    /// The policy's name.
    pub policy: &'static str,
    /// Accuracy earned.
    pub accuracy: Estimate,
    /// Accuracy above a uniform split of the same reviews, compared seed by seed.
    pub gain: Estimate,
    /// The best arm's share of the last tenth of the requests.
    pub best_arm_share: Estimate,
    /// Seeds in which the best arm had at least half of the last tenth.
    pub seeds_with_majority: usize,
}

/// The whole comparison.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Requests of each run.
    pub requests: u64,
    /// Runs of each policy.
    pub seeds: usize,
    /// Requests per second; none: as fast as they were answered.
    pub rate: Option<f64>,
    /// Where the models' answers are from: always `replayed`.
    pub answers: &'static str,
    /// The arms as the table knows them.
    pub arms: Vec<ArmAccuracy>,
    /// The arm with the greatest accuracy.
    pub best_arm: String,
    /// What a uniform split would have earned.
    pub uniform: Estimate,
    /// What the best arm alone would have earned.
    pub best: Estimate,
    /// One per policy.
    pub policies: Vec<PolicyResult>,
    /// All runs.
    pub runs: Vec<Run>,
}

/// Sums up the runs of one policy.
pub fn sum_up(kind: PolicyKind, runs: &[Run]) -> PolicyResult {
    let runs: Vec<&Run> = runs
        .iter()
        .filter(|run| run.policy == kind.name())
        .collect();
    let over = |value: &dyn Fn(&Run) -> f64| {
        Estimate::of(&runs.iter().map(|run| value(run)).collect::<Vec<_>>())
    };
    PolicyResult {
        policy: kind.name(),
        accuracy: over(&|run| run.accuracy),
        gain: over(&|run| run.accuracy - run.uniform),
        best_arm_share: over(&|run| run.best_arm_share),
        seeds_with_majority: runs.iter().filter(|run| run.best_arm_share >= 0.5).count(),
    }
}

impl Report {
    /// The report as lines of text.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("{:<16} {:>16}", "arm", "accuracy ± SE")];
        for arm in &self.arms {
            let mark = if arm.name == self.best_arm {
                "  best"
            } else {
                ""
            };
            lines.push(format!(
                "{:<16} {:>16}{mark}",
                arm.name,
                accuracy(arm.accuracy)
            ));
        }
        lines.push(String::new());
        lines.push(format!(
            "{:<16} {:>16}  {:>18}  {:>18}  {:>12}",
            "policy", "accuracy ± SE", "gain on uniform", "share of best arm", ">= half in"
        ));
        for result in &self.policies {
            lines.push(format!(
                "{:<16} {:>16}  {:>18}  {:>18}  {:>12}",
                result.policy,
                accuracy(result.accuracy),
                format!(
                    "{:+.2} ± {:.2} pp",
                    result.gain.mean * 100.0,
                    result.gain.se * 100.0
                ),
                format!(
                    "{:.1} ± {:.1} %",
                    result.best_arm_share.mean * 100.0,
                    result.best_arm_share.se * 100.0
                ),
                format!("{} of {}", result.seeds_with_majority, self.seeds),
            ));
        }
        lines.push(format!(
            "{:<16} {:>16}",
            "(uniform split)",
            accuracy(self.uniform)
        ));
        lines.push(format!(
            "{:<16} {:>16}",
            "(best arm alone)",
            accuracy(self.best)
        ));
        lines.push(String::new());
        lines.push("The last two rows, and the gain, count the same reviews as the policies' runs, so they pair seed by seed.".to_owned());
        lines
            .push("The share is the best arm's part of the last tenth of the requests.".to_owned());
        lines
    }
}

fn accuracy(estimate: Estimate) -> String {
    format!("{:.4} ± {:.4}", estimate.mean, estimate.se)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predict::{Answer, Row};

    fn run(policy: &'static str, seed: u64, accuracy: f64, share: f64) -> Run {
        Run {
            policy,
            seed,
            accuracy,
            uniform: 0.5,
            best: 0.7,
            best_arm_share: share,
            failed: 0,
            rewards: 100,
        }
    }

    #[test]
    fn means_have_standard_errors() {
        let estimate = Estimate::of(&[1.0, 2.0, 3.0, 4.0]);
        assert_eq!(estimate.mean, 2.5);
        assert!((estimate.se - 0.645_497).abs() < 1e-6, "{estimate:?}");
        assert_eq!(Estimate::of(&[3.0]), Estimate { mean: 3.0, se: 0.0 });
    }

    #[test]
    fn policies_are_summed_up_apart() {
        let runs = [
            run("thompson", 1, 0.6, 0.5),
            run("fixed", 1, 0.5, 0.25),
            run("thompson", 2, 0.64, 0.4),
        ];
        let result = sum_up(PolicyKind::Thompson, &runs);
        assert!(
            (result.accuracy.mean - 0.62).abs() < 1e-12 && (result.gain.mean - 0.12).abs() < 1e-12,
            "{result:?}"
        );
        assert_eq!(result.seeds_with_majority, 1);
    }

    #[test]
    fn arms_are_weighted_by_the_mix() {
        let row = |category: &str, predicted: u8| Row {
            review_id: String::new(),
            product_category: category.to_owned(),
            star_rating: 5,
            answers: vec![Answer {
                stars: predicted,
                latency_milliseconds: 1.0,
            }],
        };
        let rows = vec![
            row("Tops", 5),
            row("Tops", 5),
            row("Tops", 5),
            row("Tops", 1),
            row("Movies", 1),
        ];
        let table = Table {
            variants: vec!["a".to_owned()],
            rows,
        };
        let mix: Mix = "Clothing=0.8,Movies=0.2".parse().unwrap();
        let arms = arm_accuracies(&table, &["a".to_owned()], &mix).unwrap();
        assert!((arms[0].accuracy.mean - 0.6).abs() < 1e-12, "{arms:?}");
        assert!(
            (arms[0].accuracy.se - 0.8 * (0.75 * 0.25 / 4.0_f64).sqrt()).abs() < 1e-12,
            "{arms:?}"
        );
        assert_eq!(arm_accuracies(&table, &["b".to_owned()], &mix), None);
    }

    #[test]
    fn the_table_lines_up() {
        let runs = vec![run("thompson", 1, 0.6, 0.5), run("thompson", 2, 0.64, 0.4)];
        let report = Report {
            requests: 100,
            seeds: 2,
            rate: Some(1000.0),
            answers: "replayed",
            arms: vec![ArmAccuracy {
                name: "l6-all".to_owned(),
                accuracy: Estimate {
                    mean: 0.7,
                    se: 0.01,
                },
            }],
            best_arm: "l6-all".to_owned(),
            uniform: Estimate { mean: 0.5, se: 0.0 },
            best: Estimate { mean: 0.7, se: 0.0 },
            policies: vec![sum_up(PolicyKind::Thompson, &runs)],
            runs,
        };
        let lines = report.lines();
        assert_eq!(lines[1], "l6-all            0.7000 ± 0.0100  best");
        assert_eq!(
            lines[4],
            "thompson          0.6200 ± 0.0200    +12.00 ± 2.00 pp        45.0 ± 5.0 %        1 of 2"
        );
    }
}
