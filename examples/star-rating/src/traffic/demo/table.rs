//! The live table, the plain line for logs, and the summary, as text. Pure: a view in, lines out.

use std::time::Duration;

use super::view::{ArmView, View};
use crate::traffic::paint::{Line, Tone, grouped, sparkline};
use crate::traffic::standing::Standing;

/// How many of the last events are under the table.
const SHOWN_EVENTS: usize = 5;
/// Characters of a policy version that are shown.
const SHOWN_VERSION: usize = 12;
/// The narrowest sparkline.
const NARROWEST: usize = 6;

/// One frame of the live table, meant for `columns` columns.
pub fn frame(view: &View, columns: usize) -> Vec<Line> {
    let mut lines = vec![headline(view), standing(view), Line::default()];
    lines.extend(arms(view, columns, true));
    lines.push(Line::default());
    lines.extend(categories(view));
    let hidden = view.events.len().saturating_sub(SHOWN_EVENTS);
    for event in &view.events[hidden..] {
        let tone = if event.warning {
            Tone::Warning
        } else {
            Tone::Plain
        };
        lines.push(
            Line::default()
                .with(Tone::Dim, &format!("{}  ", clock(event.at)))
                .with(tone, &event.text),
        );
    }
    lines
}

/// The state on one line, for where there is no terminal.
pub fn plain_line(view: &View) -> String {
    let mut parts = vec![format!(
        "{}  {} requests",
        clock(view.elapsed),
        grouped(view.tally.answered())
    )];
    if let Some(standing) = view.standing() {
        parts.push(format!(
            "accuracy {:.3} (uniform {:.3})",
            standing.earned, standing.uniform
        ));
    }
    for arm in &view.arms {
        let share = arm
            .shares
            .last()
            .map_or_else(|| "-".to_owned(), |share| percent(*share));
        let rate = view
            .reward_rate(&arm.name)
            .map_or_else(|| "-".to_owned(), |(mean, ..)| format!("{mean:.3}"));
        parts.push(format!("{} {share} {rate}", arm.name));
    }
    parts.join("  ")
}

fn headline(view: &View) -> Line {
    let (kind, version) = view.experiment.as_ref().map_or(("?", "?"), |experiment| {
        let end = experiment.version.len().min(SHOWN_VERSION);
        (
            experiment.policy.kind.as_str(),
            experiment.version.get(..end).unwrap_or("?"),
        )
    });
    let elapsed = match view.planned {
        Some(planned) => format!("{} of {}", clock(view.elapsed), clock(planned)),
        None => clock(view.elapsed),
    };
    let seconds = view.elapsed.as_secs_f64().max(0.001);
    let mut line = Line::default()
        .with(Tone::Bold, "Pointsman")
        .with(
            Tone::Plain,
            &format!("  star-rating  {kind}  policy {version}"),
        )
        .with(
            Tone::Plain,
            &format!(
                "  {elapsed}  {:.1}/s",
                view.tally.answered() as f64 / seconds
            ),
        );
    if view.tally.failed > 0 {
        line = line.with(
            Tone::Warning,
            &format!("  {} failed", grouped(view.tally.failed)),
        );
    }
    line
}

fn standing(view: &View) -> Line {
    let Some(standing) = view.standing() else {
        return Line::default().with(
            Tone::Dim,
            "accuracy so far: waiting for every arm's first answers",
        );
    };
    let about = if standing.exact { "" } else { "~" };
    let tone = if standing.earned >= standing.uniform {
        Tone::Good
    } else {
        Tone::Warning
    };
    Line::plain("accuracy so far ")
        .with(tone, &format!("{:.3}", standing.earned))
        .with(
            Tone::Plain,
            &format!("   uniform split {about}{:.3}", standing.uniform),
        )
        .with(
            Tone::Plain,
            &format!(
                "   best arm {about}{:.3} ({})",
                standing.best, standing.best_arm
            ),
        )
}

fn arms(view: &View, columns: usize, live: bool) -> Vec<Line> {
    let width = view
        .arms
        .iter()
        .map(|arm| arm.name.chars().count())
        .max()
        .unwrap_or(0)
        .max(3);
    let head = format!(
        "{:<width$}  {:>5}  {:>8}  {:<20}  {:>7}  {:>5}  {:>5}",
        "arm", "share", "requests", "reward rate, 95 % CS", "P(best)", "p50ms", "p99ms"
    );
    let graph = columns
        .saturating_sub(head.chars().count() + 2)
        .max(NARROWEST);
    let title = if graph >= 15 {
        "share over time"
    } else {
        "trend"
    };
    let head = if live {
        format!("{head}  {title}")
    } else {
        head
    };
    let leader = leader(view);
    let mut lines = vec![Line::default().with(Tone::Dim, &head)];
    for arm in &view.arms {
        let tone = if leader == Some(arm.name.as_str()) {
            Tone::Good
        } else {
            Tone::Plain
        };
        let mut line = Line::default().with(tone, &row(view, arm, width));
        if live {
            line = line.with(tone, &format!("  {}", sparkline(&arm.shares, graph)));
        }
        lines.push(line);
    }
    lines
}

/// Who got the last requests of each category, with an empty line; nothing under a policy that does not look at the review.
fn categories(view: &View) -> Vec<Line> {
    let Some(categories) = view.shares_by_category() else {
        return Vec::new();
    };
    let mut head = "share lately of".to_owned();
    for arm in &view.arms {
        head.push_str(&format!("  {:>8}", arm.name));
    }
    let mut lines = vec![Line::default().with(Tone::Dim, &head)];
    for (domain, shares) in categories {
        let mut line = Line::plain(&format!("{:<15}", domain.name()));
        for (arm, share) in view.arms.iter().zip(shares) {
            let width = arm.name.chars().count().max(8);
            let tone = if share > 0.5 { Tone::Good } else { Tone::Plain };
            line = line.with(tone, &format!("  {:>width$}", percent(share)));
        }
        lines.push(line);
    }
    lines.push(Line::default());
    lines
}

fn row(view: &View, arm: &ArmView, width: usize) -> String {
    let dash = || "-".to_owned();
    let counts = view.tally.arms.get(&arm.name);
    let latency = |quantile| {
        counts
            .and_then(|counts| counts.latency(quantile))
            .map_or_else(dash, |milliseconds| format!("{milliseconds:.0}"))
    };
    let share = arm.shares.last().map_or_else(dash, |share| percent(*share));
    let rate = view
        .reward_rate(&arm.name)
        .map_or_else(dash, |(mean, low, high)| {
            format!("{mean:.3} [{low:.3},{high:.3}]")
        });
    let believed = view
        .experiment
        .as_ref()
        .and_then(|experiment| experiment.arm(&arm.name));
    let best = believed
        .and_then(|arm| arm.probability_best)
        .map_or_else(dash, |best| format!("{best:.3}"));
    format!(
        "{:<width$}  {share:>5}  {:>8}  {rate:<20}  {best:>7}  {:>5}  {:>5}",
        arm.name,
        grouped(counts.map_or(0, |counts| counts.requests)),
        latency(0.5),
        latency(0.99)
    )
}

/// The arm with the greatest share, if one stands out.
fn leader(view: &View) -> Option<&str> {
    let share = |arm: &ArmView| arm.shares.last().copied().unwrap_or(0.0);
    let leader = view
        .arms
        .iter()
        .max_by(|a, b| share(a).total_cmp(&share(b)))?;
    (share(leader) > 1.5 / view.arms.len() as f64).then_some(leader.name.as_str())
}

/// What is printed at the end. `acknowledged`: labels that the proxy has confirmed; `before`: rewards from earlier runs.
pub fn summary(view: &View, acknowledged: u64, before: u64, columns: usize) -> Vec<Line> {
    let tally = &view.tally;
    let seconds = view.elapsed.as_secs_f64().max(0.001);
    let times =
        |count: u32, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let mut lines = vec![
        Line::default().with(Tone::Bold, "Summary"),
        Line::plain(&format!(
            "{} reviews rated in {} ({:.1}/s), {} failed; {}, {}",
            grouped(tally.answered()),
            clock(view.elapsed),
            tally.answered() as f64 / seconds,
            grouped(tally.failed),
            times(view.reloads, "policy reload"),
            times(view.restarts, "restart"),
        )),
        rewards(view, acknowledged, before),
        Line::default(),
    ];
    lines.extend(arms(view, columns, false));
    lines.push(Line::default());
    lines.extend(categories(view));
    lines.extend(earned(view));
    lines
}

fn rewards(view: &View, acknowledged: u64, before: u64) -> Line {
    let Some(experiment) = &view.experiment else {
        return Line::default().with(
            Tone::Warning,
            "the proxy could not be asked for its rewards",
        );
    };
    let known = experiment.rewards();
    let line = Line::plain(&format!(
        "{} true ratings acknowledged; the proxy has counted {}",
        grouped(acknowledged),
        grouped(known)
    ));
    if known == acknowledged + before {
        let earlier = if before > 0 {
            format!(" ({} of them in earlier runs)", grouped(before))
        } else {
            String::new()
        };
        line.with(Tone::Plain, &earlier)
    } else {
        line.with(
            Tone::Warning,
            &format!(", but {} were expected", grouped(acknowledged + before)),
        )
    }
}

fn earned(view: &View) -> Vec<Line> {
    let Some(standing) = view.standing() else {
        return vec![Line::plain(
            "Too little traffic to compare with a uniform split.",
        )];
    };
    let how = if standing.exact {
        "exact: all arms' answers are known"
    } else {
        "estimated from each arm's own reviews"
    };
    let mut lines = vec![
        Line::plain("accuracy earned         ")
            .with(Tone::Bold, &format!("{:.4}", standing.earned)),
        Line::plain(&format!(
            "a uniform split         {:.4}  ({how})",
            standing.uniform
        )),
        Line::plain(&format!(
            "the best arm alone      {:.4}  ({})",
            standing.best, standing.best_arm
        )),
    ];
    if let Some(share) = standing.share_of_the_gain() {
        let points = (standing.earned - standing.uniform) * 100.0;
        lines.push(Line::plain(&format!(
            "{points:+.1} points on the uniform split, {:.0} % of what the best arm would have gained",
            share * 100.0
        )));
    }
    if view.shares_by_category().is_some() {
        lines.extend(earned_by_context(&standing));
    }
    lines
}

/// What looking at the review made.
fn earned_by_context(standing: &Standing) -> [Line; 2] {
    let arms: Vec<String> = standing
        .best_arms
        .iter()
        .map(|(domain, arm)| format!("{arm} for {}", domain.name()))
        .collect();
    [
        Line::plain(&format!(
            "context, learning included: {:+.1} points on the best arm alone",
            (standing.earned - standing.best) * 100.0
        )),
        Line::plain(&format!(
            "the best arm of each category, had it been known: {:.4}, {:+.1} points ({})",
            standing.by_category,
            (standing.by_category - standing.best) * 100.0,
            arms.join(", ")
        )),
    ]
}

/// Minutes and seconds.
fn clock(time: Duration) -> String {
    format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60)
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
