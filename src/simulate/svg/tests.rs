use super::*;
use crate::simulate::summary::{Estimate, Regret};

fn summary(policy: &str, last: f64) -> Summary {
    let estimate = |mean| Estimate {
        mean,
        se: Some(0.1 * mean),
    };
    Summary {
        policy: policy.to_owned(),
        horizon: 1_000,
        seeds: 20,
        regret: Regret {
            estimate: estimate(last),
            p10: 0.0,
            p50: last,
            p90: 2.0 * last,
        },
        curve: (1..=100)
            .map(|point| Point {
                t: 10 * point,
                estimate: estimate(last * point as f64 / 100.0),
            })
            .collect(),
        share: vec![("a".to_owned(), 1.0)],
        reward: estimate(0.5),
        decisions_per_second: 1e6,
        late: 0.0,
    }
}

/// Whether the elements of a document open and close in order, with quoted attributes; text outside of tags is escaped.
fn is_well_formed(document: &str) -> bool {
    let mut open = Vec::new();
    let mut rest = document;
    while let Some(start) = rest.find('<') {
        let text = &rest[..start];
        let escaped = text.split('&').skip(1).all(|entity| {
            ["amp;", "lt;", "gt;", "quot;"]
                .iter()
                .any(|known| entity.starts_with(known))
        });
        let Some(end) = rest[start..].find('>') else {
            return false;
        };
        let tag = &rest[start + 1..start + end];
        rest = &rest[start + end + 1..];
        if text.contains('>') || !escaped || !tag.matches('"').count().is_multiple_of(2) {
            return false;
        }
        if let Some(name) = tag.strip_prefix('/') {
            if open.pop() != Some(name) {
                return false;
            }
        } else if !tag.ends_with('/') {
            open.push(tag.split_whitespace().next().unwrap_or_default());
        }
    }
    open.is_empty() && rest.trim().is_empty()
}

#[test]
fn the_check_for_form_can_fail() {
    for bad in [
        "<a>",
        "<a><b></a></b>",
        "<a x=\"1>2</a>",
        "<a>&x</a>",
        "<a/>text",
    ] {
        assert!(!is_well_formed(bad), "{bad}");
    }
    assert!(is_well_formed("<a x=\"1\"><b/>1 &lt; 2</a>\n"));
}

#[test]
fn a_plot_is_well_formed_whatever_the_files_are_called() {
    let frame = Frame {
        title: "a <b> & \"c\"",
        changes: &[500, 5_000],
    };
    let many: Vec<Summary> = (0..9)
        .map(|index| summary(&format!("p/{index}<&>.toml"), 30.0))
        .collect();
    for summaries in [&many[..], &many[..1], &[]] {
        let svg = plot(summaries, &frame);
        assert!(is_well_formed(&svg), "{svg}");
        assert_eq!(svg.matches("<polyline").count(), summaries.len());
        assert_eq!(svg.matches("<polygon").count(), summaries.len());
    }
    let svg = plot(&many, &frame);
    assert_eq!(
        svg.matches("class=\"change\"").count(),
        1,
        "the other is beyond the horizon"
    );
    assert!(svg.contains("prefers-color-scheme:dark"));
    assert!(!svg.contains("NaN") && !svg.contains("inf"));
}

#[test]
fn regret_that_is_nothing_has_an_axis_all_the_same() {
    let svg = plot(
        &[summary("none.toml", 0.0)],
        &Frame {
            title: "none",
            changes: &[],
        },
    );
    assert!(is_well_formed(&svg));
    assert!(!svg.contains("NaN"));
}

#[test]
fn ticks_are_round_numbers_that_reach_the_end() {
    let labels = |most: f64| -> Vec<String> {
        let axis = Axis::to(most, 0.0, 1.0);
        axis.ticks()
            .into_iter()
            .map(|tick| axis.label(tick))
            .collect()
    };
    assert_eq!(labels(58.0), ["0", "10", "20", "30", "40", "50", "60"]);
    assert_eq!(labels(10_000.0).last().unwrap(), "10,000");
    assert_eq!(labels(0.9).last().unwrap(), "1");
    assert_eq!(labels(0.9)[1], "0.2");
    assert_eq!(labels(1_234_567.0).last().unwrap(), "1,500,000");
}
