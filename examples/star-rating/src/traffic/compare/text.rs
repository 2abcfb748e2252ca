//! The report of a comparison as lines of text. Pure: a report in, lines out.

use std::fmt::Write;

use super::report::{Estimate, PolicyResult, Report, best_on};
use crate::reviews::Domain;

/// The widest name, `(best arm by category)`.
const NAME: usize = 22;

/// The report as lines of text.
pub(super) fn lines(report: &Report) -> Vec<String> {
    let mut lines = arms(report);
    lines.push(String::new());
    lines.extend(policies(report));
    lines.push(String::new());
    lines.push("The last three rows, and the differences, count the same reviews as the policies' runs, so they pair seed by seed.".to_owned());
    lines.push("The share is the best arm's part of the last tenth of the requests.".to_owned());
    if report.policies.iter().any(|result| result.contextual) {
        lines.push(String::new());
        lines.extend(shares(report));
        lines.push(String::new());
        lines.extend(closing(report));
    }
    lines
}

/// The arms with their accuracies, the best of each column marked.
fn arms(report: &Report) -> Vec<String> {
    let categories = categories(report);
    let mut head = format!("{:<NAME$} {:>16} ", "arm", "accuracy ± SE");
    for category in &categories {
        head.push_str(&format!("  {:>14} ", category.name()));
    }
    let mut lines = vec![head.trim_end().to_owned()];
    for arm in &report.arms {
        let mark = |best: bool| if best { '*' } else { ' ' };
        let mut row = format!(
            "{:<NAME$} {:>16}{}",
            arm.name,
            accuracy(arm.accuracy),
            mark(arm.name == report.best_arm)
        );
        for part in &arm.categories {
            let best = best_on(&report.arms, part.category).map(|(name, _)| name);
            let shown = format!("{:.3} ± {:.3}", part.accuracy.mean, part.accuracy.se);
            row.push_str(&format!(
                "  {shown:>14}{}",
                mark(best == Some(arm.name.as_str()))
            ));
        }
        lines.push(row.trim_end().to_owned());
    }
    lines
}

fn policies(report: &Report) -> Vec<String> {
    let mut lines = vec![format!(
        "{:<NAME$} {:>16}  {:>15}  {:>15}  {:>16}  {:>10}",
        "policy",
        "accuracy ± SE",
        "over uniform",
        "over best arm",
        "best arm's share",
        ">= half in"
    )];
    for result in &report.policies {
        lines.push(format!(
            "{:<NAME$} {:>16}  {:>15}  {:>15}  {:>16}  {:>10}",
            result.policy,
            accuracy(result.accuracy),
            points(result.gain),
            points(result.over_best),
            percent(result.best_arm_share),
            format!("{} of {}", result.seeds_with_majority, report.seeds),
        ));
    }
    for (name, estimate) in [
        ("(uniform split)", report.uniform),
        ("(best arm alone)", report.best),
        ("(best arm by category)", report.by_category),
    ] {
        lines.push(format!("{name:<NAME$} {:>16}", accuracy(estimate)));
    }
    lines
}

/// Where the policies that look at the review sent each category in the end.
fn shares(report: &Report) -> Vec<String> {
    let mut head = format!("{:<36}", "share of the last tenth");
    for arm in &report.arms {
        head.push_str(&format!("  {:>14}", arm.name));
    }
    let mut lines = vec![head];
    for result in report.policies.iter().filter(|result| result.contextual) {
        for part in &result.shares {
            let mut row = format!("{:<NAME$}  {:<12}", result.policy, part.category.name());
            for share in &part.shares {
                row.push_str(&format!("  {:>14}", percent(*share)));
            }
            lines.push(row);
        }
    }
    lines
}

/// What looking at the review earns over the best single model.
fn closing(report: &Report) -> Vec<String> {
    let mut lines = vec![format!(
        "What context earns over the best single model, {} ({}):",
        report.best_arm,
        accuracy(report.best)
    )];
    let possible = report.by_category.mean - report.best.mean;
    let choice = categories(report).into_iter().filter_map(|category| {
        best_on(&report.arms, category).map(|(arm, _)| format!("{arm} for {}", category.name()))
    });
    let choice: Vec<String> = choice.collect();
    lines.push(format!(
        "  knowing the best arm of each category from the start: {:+.2} pp ({})",
        possible * 100.0,
        choice.join(", ")
    ));
    for result in report.policies.iter().filter(|result| result.contextual) {
        lines.push(format!("  {}", earned(result, possible)));
    }
    if let Some(lead) = &report.lead {
        lines.push(format!(
            "  {} over {}, the best policy here that does not look at the review: {}",
            lead.contextual,
            lead.plain,
            points(lead.difference)
        ));
    }
    lines
}

fn earned(result: &PolicyResult, possible: f64) -> String {
    let mut line = format!(
        "{}: {}, learning included; {} in the last fifth of the requests",
        result.policy,
        points(result.over_best),
        points(result.late_over_best)
    );
    if possible > 0.0 {
        // Writing to a text cannot fail.
        write!(
            line,
            " ({:.0} % of what the category is worth)",
            result.late_over_best.mean / possible * 100.0
        )
        .ok();
    }
    line
}

fn categories(report: &Report) -> Vec<Domain> {
    let arm = report.arms.first();
    let categories = arm.map(|arm| arm.categories.iter().map(|part| part.category).collect());
    categories.unwrap_or_default()
}

fn accuracy(estimate: Estimate) -> String {
    format!("{:.4} ± {:.4}", estimate.mean, estimate.se)
}

fn points(estimate: Estimate) -> String {
    format!(
        "{:+.2} ± {:.2} pp",
        estimate.mean * 100.0,
        estimate.se * 100.0
    )
}

fn percent(estimate: Estimate) -> String {
    format!(
        "{:.1} ± {:.1} %",
        estimate.mean * 100.0,
        estimate.se * 100.0
    )
}

#[cfg(test)]
mod tests {
    use super::super::report::{ArmAccuracy, CategoryAccuracy, CategoryShares, Lead};
    use super::*;

    fn estimate(mean: f64, se: f64) -> Estimate {
        Estimate { mean, se }
    }

    fn arm(name: &str, clothing: f64, movies: f64) -> ArmAccuracy {
        let part = |category, mean| CategoryAccuracy {
            category,
            accuracy: estimate(mean, 0.02),
        };
        ArmAccuracy {
            name: name.to_owned(),
            accuracy: estimate(f64::midpoint(clothing, movies), 0.014),
            categories: vec![
                part(Domain::Clothing, clothing),
                part(Domain::Movies, movies),
            ],
        }
    }

    fn result(policy: &'static str, contextual: bool, mean: f64) -> PolicyResult {
        let share = |category, first| CategoryShares {
            category,
            shares: vec![estimate(first, 0.05), estimate(1.0 - first, 0.05)],
        };
        PolicyResult {
            policy,
            contextual,
            accuracy: estimate(mean, 0.02),
            gain: estimate(mean - 0.5, 0.02),
            over_best: estimate(mean - 0.6, 0.01),
            late_over_best: estimate(mean - 0.55, 0.01),
            best_arm_share: estimate(0.45, 0.05),
            seeds_with_majority: 1,
            shares: vec![share(Domain::Clothing, 0.1), share(Domain::Movies, 0.9)],
        }
    }

    fn report(policies: Vec<PolicyResult>) -> Report {
        Report {
            requests: 100,
            seeds: 2,
            rate: Some(1000.0),
            answers: "replayed",
            arms: vec![arm("l6-all", 0.5, 0.7), arm("l6-clothing", 0.6, 0.4)],
            best_arm: "l6-all".to_owned(),
            uniform: estimate(0.5, 0.0),
            best: estimate(0.6, 0.0),
            by_category: estimate(0.65, 0.0),
            lead: Some(Lead {
                contextual: "lin_thompson",
                plain: "thompson",
                difference: estimate(0.04, 0.01),
            }),
            policies,
            runs: Vec::new(),
        }
    }

    #[test]
    fn tables_line_up_and_the_best_is_marked() {
        let lines = lines(&report(vec![result("thompson", false, 0.58)]));
        assert_eq!(
            lines[..3],
            [
                "arm                       accuracy ± SE         clothing           movies",
                "l6-all                  0.6000 ± 0.0140*   0.500 ± 0.020    0.700 ± 0.020*",
                "l6-clothing             0.5000 ± 0.0140    0.600 ± 0.020*   0.400 ± 0.020",
            ]
        );
        assert_eq!(
            lines[4..6],
            [
                "policy                    accuracy ± SE     over uniform    over best arm  best arm's share  >= half in",
                "thompson                0.5800 ± 0.0200  +8.00 ± 2.00 pp  -2.00 ± 1.00 pp      45.0 ± 5.0 %      1 of 2",
            ]
        );
        assert_eq!(lines[8], "(best arm by category)  0.6500 ± 0.0000");
        assert!(
            !lines.iter().any(|line| line.contains("context earns")),
            "{lines:?}"
        );
    }

    #[test]
    fn the_closing_says_what_context_earns() {
        let policies = vec![
            result("lin_thompson", true, 0.62),
            result("thompson", false, 0.58),
        ];
        let lines = lines(&report(policies));
        let from = lines
            .iter()
            .position(|line| line.starts_with("share of the last tenth"))
            .unwrap();
        assert_eq!(
            lines[from..],
            [
                "share of the last tenth                       l6-all     l6-clothing",
                "lin_thompson            clothing        10.0 ± 5.0 %    90.0 ± 5.0 %",
                "lin_thompson            movies          90.0 ± 5.0 %    10.0 ± 5.0 %",
                "",
                "What context earns over the best single model, l6-all (0.6000 ± 0.0000):",
                "  knowing the best arm of each category from the start: +5.00 pp (l6-clothing for clothing, l6-all for movies)",
                "  lin_thompson: +2.00 ± 1.00 pp, learning included; +7.00 ± 1.00 pp in the last fifth of the requests (140 % of what the category is worth)",
                "  lin_thompson over thompson, the best policy here that does not look at the review: +4.00 ± 1.00 pp",
            ]
        );
    }
}
