//! From runs to a report: means over seeds with their standard errors. Written as JSON as it is; `text` makes tables of it.

use serde::Serialize;

use crate::predict::Table;
use crate::reviews::Domain;
use crate::traffic::mix::Mix;
use crate::traffic::policy_file::PolicyKind;
use crate::traffic::recent::Recent;

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
    /// What the best arm of each category, each on its own, would have earned on the same reviews.
    pub by_category: f64,
    /// Share of right answers in the last fifth of the requests.
    pub late: f64,
    /// What the best arm alone would have earned there.
    pub late_best: f64,
    /// The best arm's share of the last tenth of the requests.
    pub best_arm_share: f64,
    /// The arms' shares of the last tenth, by category.
    pub shares: Vec<CategoryShares<f64>>,
    /// Requests without an answer.
    pub failed: u64,
    /// Labels that the proxy counted.
    pub rewards: u64,
}

/// The arms' shares of the requests of one category.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CategoryShares<Share> {
    /// The kind of review.
    pub category: Domain,
    /// In the order of the arms.
    pub shares: Vec<Share>,
}

impl CategoryShares<f64> {
    /// Shares of these requests, by the categories that they have.
    pub fn of(recent: &Recent) -> Vec<Self> {
        let of_category = |category| {
            let shares = recent.shares(Some(category))?;
            Some(Self { category, shares })
        };
        Domain::ALL.into_iter().filter_map(of_category).collect()
    }
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

/// One arm's accuracy on the mix and on its parts, from the held-out reviews of the table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ArmAccuracy {
    /// The arm's name.
    pub name: String,
    /// Share of right answers, with the standard error of a stratified sample.
    pub accuracy: Estimate,
    /// Share of right answers by the categories that the mix has.
    pub categories: Vec<CategoryAccuracy>,
}

/// An accuracy on one category.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CategoryAccuracy {
    /// The kind of review.
    pub category: Domain,
    /// Share of right answers.
    pub accuracy: Estimate,
}

/// The accuracy of every arm on `mix`, as the table has it.
pub fn arm_accuracies(table: &Table, arms: &[String], mix: &Mix) -> Option<Vec<ArmAccuracy>> {
    arms.iter()
        .map(|name| {
            let column = table.variants.iter().position(|variant| variant == name)?;
            let categories: Vec<CategoryAccuracy> = Domain::ALL
                .into_iter()
                .filter(|domain| mix.share(*domain) > 0.0)
                .map(|category| CategoryAccuracy {
                    category,
                    accuracy: accuracy(table, column, category),
                })
                .collect();
            Some(ArmAccuracy {
                name: name.clone(),
                accuracy: stratified(&categories, mix),
                categories,
            })
        })
        .collect()
}

fn accuracy(table: &Table, column: usize, domain: Domain) -> Estimate {
    let rows: Vec<bool> = table
        .rows
        .iter()
        .filter(|row| Domain::of_category(&row.product_category) == domain)
        .map(|row| row.answers[column].stars == row.star_rating)
        .collect();
    let count = rows.len().max(1) as f64;
    let mean = rows.iter().filter(|right| **right).count() as f64 / count;
    Estimate {
        mean,
        se: (mean * (1.0 - mean) / count).sqrt(),
    }
}

fn stratified(categories: &[CategoryAccuracy], mix: &Mix) -> Estimate {
    let parts = categories.iter().map(|part| {
        let share = mix.share(part.category);
        (share * part.accuracy.mean, share * part.accuracy.se)
    });
    let (mean, variance) = parts.fold((0.0, 0.0), |(mean, variance), (part, error)| {
        (mean + part, variance + error.powi(2))
    });
    Estimate {
        mean,
        se: variance.sqrt(),
    }
}

/// The arm with the greatest accuracy on the mix.
pub fn best(arms: &[ArmAccuracy]) -> Option<&str> {
    let best = arms
        .iter()
        .max_by(|one, other| one.accuracy.mean.total_cmp(&other.accuracy.mean))?;
    Some(&best.name)
}

/// The arm with the greatest accuracy on one category, and that accuracy.
pub fn best_on(arms: &[ArmAccuracy], category: Domain) -> Option<(&str, Estimate)> {
    let on = |arm: &'_ ArmAccuracy| {
        let mut parts = arm.categories.iter();
        let part = parts.find(|part| part.category == category);
        part.map(|part| part.accuracy)
    };
    arms.iter()
        .filter_map(|arm| Some((arm.name.as_str(), on(arm)?)))
        .max_by(|one, other| one.1.mean.total_cmp(&other.1.mean))
}

/// One policy over all seeds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PolicyResult {
    /// The policy's name.
    pub policy: &'static str,
    /// Accuracy earned.
    pub accuracy: Estimate,
    /// Whether it looks at the review.
    pub contextual: bool,
    /// Accuracy above a uniform split of the same reviews, compared seed by seed.
    pub gain: Estimate,
    /// Accuracy above what the best arm alone would have earned on the same reviews, compared seed by seed.
    pub over_best: Estimate,
    /// The same in the last fifth of the requests.
    pub late_over_best: Estimate,
    /// The best arm's share of the last tenth of the requests.
    pub best_arm_share: Estimate,
    /// Seeds in which the best arm had at least half of the last tenth.
    pub seeds_with_majority: usize,
    /// The arms' shares of the last tenth, by category.
    pub shares: Vec<CategoryShares<Estimate>>,
}

/// The best policy that looks at the review, over the best one that does not, both of which had to learn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Lead {
    /// The policy that looks at the review.
    pub contextual: &'static str,
    /// The policy that does not.
    pub plain: &'static str,
    /// How much more accuracy it earned, compared seed by seed.
    pub difference: Estimate,
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
    /// What the best arm of each category, each on its own, would have earned.
    pub by_category: Estimate,
    /// One per policy.
    pub policies: Vec<PolicyResult>,
    /// What looking at the review made, if policies of both sorts ran.
    pub lead: Option<Lead>,
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
        contextual: kind.is_contextual(),
        accuracy: over(&|run| run.accuracy),
        gain: over(&|run| run.accuracy - run.uniform),
        over_best: over(&|run| run.accuracy - run.best),
        late_over_best: over(&|run| run.late - run.late_best),
        best_arm_share: over(&|run| run.best_arm_share),
        seeds_with_majority: runs.iter().filter(|run| run.best_arm_share >= 0.5).count(),
        shares: shares(&runs),
    }
}

/// Mean shares of the runs, by the categories that all of them have.
fn shares(runs: &[&Run]) -> Vec<CategoryShares<Estimate>> {
    let of_category = |category| {
        let found: Option<Vec<&[f64]>> = runs
            .iter()
            .map(|run| {
                let mut parts = run.shares.iter();
                let part = parts.find(|part| part.category == category);
                part.map(|part| part.shares.as_slice())
            })
            .collect();
        let found = found?;
        let shares = (0..found.first()?.len())
            .map(|arm| Estimate::of(&found.iter().map(|shares| shares[arm]).collect::<Vec<_>>()))
            .collect();
        Some(CategoryShares { category, shares })
    };
    Domain::ALL.into_iter().filter_map(of_category).collect()
}

/// The best of the policies that look at the review over the best of those that do not; `None` unless there are both.
pub fn lead(kinds: &[PolicyKind], runs: &[Run]) -> Option<Lead> {
    let accuracies = |kind: PolicyKind| -> Vec<f64> {
        let of_kind = runs.iter().filter(|run| run.policy == kind.name());
        of_kind.map(|run| run.accuracy).collect()
    };
    // Runs of all policies come in the order of the seeds, so their lists pair.
    let best = |contextual: bool| {
        kinds
            .iter()
            .filter(|kind| kind.is_contextual() == contextual)
            .map(|kind| (kind.name(), accuracies(*kind)))
            .max_by(|one, other| {
                let mean = |list: &[f64]| Estimate::of(list).mean;
                mean(&one.1).total_cmp(&mean(&other.1))
            })
    };
    let (contextual, with) = best(true)?;
    let (plain, without) = best(false)?;
    let differences: Vec<f64> = with.iter().zip(&without).map(|(a, b)| a - b).collect();
    Some(Lead {
        contextual,
        plain,
        difference: Estimate::of(&differences),
    })
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
            by_category: 0.75,
            late: accuracy + 0.05,
            late_best: 0.7,
            best_arm_share: share,
            shares: vec![CategoryShares {
                category: Domain::Movies,
                shares: vec![share, 1.0 - share],
            }],
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
        let close = |estimate: Estimate, mean: f64| (estimate.mean - mean).abs() < 1e-12;
        assert!(
            close(result.over_best, -0.08) && close(result.late_over_best, -0.03),
            "{result:?}"
        );
        assert_eq!(result.shares[0].category, Domain::Movies);
        assert!(
            close(result.shares[0].shares[0], 0.45) && close(result.shares[0].shares[1], 0.55),
            "{result:?}"
        );
    }

    #[test]
    fn the_lead_is_of_the_best_with_context_over_the_best_without_seed_by_seed() {
        let kinds = [
            PolicyKind::Fixed,
            PolicyKind::LinThompson,
            PolicyKind::Thompson,
            PolicyKind::EpsilonGreedyLinear,
        ];
        let runs = [
            run("fixed", 1, 0.5, 0.25),
            run("lin_thompson", 1, 0.70, 0.5),
            run("thompson", 1, 0.60, 0.5),
            run("epsilon_greedy_linear", 1, 0.65, 0.5),
            run("fixed", 2, 0.5, 0.25),
            run("lin_thompson", 2, 0.74, 0.5),
            run("thompson", 2, 0.64, 0.5),
            run("epsilon_greedy_linear", 2, 0.65, 0.5),
        ];
        let found = lead(&kinds, &runs).unwrap();
        assert_eq!(
            (found.contextual, found.plain),
            ("lin_thompson", "thompson")
        );
        assert!((found.difference.mean - 0.1).abs() < 1e-12, "{found:?}");
        // Both moved alike from seed to seed.
        assert!(found.difference.se < 1e-12, "{found:?}");
        assert_eq!(lead(&kinds[..1], &runs), None);
    }

    #[test]
    fn arms_are_weighted_by_the_mix() {
        let row = |category: &str, predicted: u8| Row {
            review_id: String::new(),
            product_category: category.to_owned(),
            star_rating: 5,
            characters: 10,
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
        assert_eq!(best_on(&arms, Domain::Clothing).unwrap().1.mean, 0.75);
        assert_eq!(best_on(&arms, Domain::Electronics), None);
        assert_eq!(best(&arms), Some("a"));
        assert_eq!(arm_accuracies(&table, &["b".to_owned()], &mix), None);
    }
}
