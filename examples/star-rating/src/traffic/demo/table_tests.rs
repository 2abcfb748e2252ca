use std::sync::Arc;

use super::super::view::Event;
use super::*;
use crate::reviews::Domain;
use crate::traffic::admin::{Arm, Experiment, PolicyKind};
use crate::traffic::standing::Counterfactual;
use crate::traffic::stream::Item;
use crate::traffic::tally::{Answered, Outcome};

fn arm(
    name: &str,
    allocation: f64,
    probability_best: Option<f64>,
    rewards: u64,
    reward_sum: f64,
) -> Arm {
    Arm {
        name: name.to_owned(),
        allocation,
        probability_best,
        rewards,
        reward_sum,
    }
}

fn outcome(arm: &str, predicted: u8, milliseconds: u64) -> Outcome {
    Outcome {
        item: 0,
        domain: Domain::Clothing,
        stars: 5,
        latency: Duration::from_millis(milliseconds),
        answer: Ok(Answered {
            arm: arm.to_owned(),
            predicted,
            decision_id: String::new(),
        }),
    }
}

/// Two arms, no table of predictions; l6-all is ahead.
fn view() -> View {
    view_under(false)
}

fn view_under(contextual: bool) -> View {
    let arms = ["l3-all".to_owned(), "l6-all".to_owned()];
    let items: Arc<[Item]> = Arc::from([]);
    let counterfactual = Counterfactual::new(None, &arms, &items);
    let mut view = View::new(
        &arms,
        contextual,
        counterfactual,
        Some(Duration::from_mins(3)),
        None,
    );
    for share in [0.5, 0.6, 0.9] {
        view.look(Experiment {
            version: "0123456789ab".to_owned(),
            allocation_version: 3,
            policy: PolicyKind {
                kind: "thompson".to_owned(),
            },
            arms: vec![
                arm("l3-all", 1.0 - share, Some(0.045), 400, 200.0),
                arm("l6-all", share, Some(0.955), 1600, 960.0),
            ],
        });
    }
    for _ in 0..400 {
        view.add(&outcome("l3-all", 4, 20));
        view.add(&outcome("l6-all", 5, 40));
    }
    view.elapsed = Duration::from_secs(61);
    view.events.push(Event {
        at: Duration::from_secs(5),
        text: "something happened".to_owned(),
        warning: true,
    });
    view
}

fn text(lines: &[Line], columns: usize) -> Vec<String> {
    lines
        .iter()
        .map(|line| line.render(columns, false))
        .collect()
}

#[test]
fn a_frame_at_80_columns() {
    let lines = text(&frame(&view(), 80), 80);
    assert_eq!(
        lines,
        [
            "Pointsman  star-rating  thompson  policy 0123456789ab  1:01 of 3:00  13.1/s",
            "accuracy so far 0.500   uniform split ~0.500   best arm ~1.000 (l6-all)",
            "",
            "arm     share  requests  reward rate, 95 % CS  P(best)  p50ms  p99ms  trend",
            "l3-all   10 %       400  0.500 [0.422,0.578]     0.045     20     20  ▅▄▁",
            "l6-all   90 %       400  0.600 [0.559,0.640]     0.955     40     40  ▅▅█",
            "",
            "0:05  something happened",
        ]
    );
}

#[test]
fn a_wide_frame_has_room_for_the_history() {
    let lines = text(&frame(&view(), 120), 120);
    assert!(lines[3].ends_with("share over time"), "{lines:?}");
    assert!(lines.iter().all(|line| line.chars().count() <= 120));
}

#[test]
fn colours_mark_the_leader_and_the_warning() {
    let lines: Vec<String> = frame(&view(), 80)
        .iter()
        .map(|line| line.render(80, true))
        .collect();
    assert!(
        lines[5].starts_with("\x1b[32ml6-all") && !lines[4].contains('\x1b'),
        "{lines:?}"
    );
    assert!(lines[7].contains("\x1b[33msomething"), "{lines:?}");
}

#[test]
fn before_the_first_answer_there_are_dashes() {
    let arms = ["a".to_owned()];
    let items: Arc<[Item]> = Arc::from([]);
    let view = View::new(
        &arms,
        false,
        Counterfactual::new(None, &arms, &items),
        None,
        Some(10),
    );
    let lines = text(&frame(&view, 80), 80);
    assert_eq!(lines[0], "Pointsman  star-rating  ?  policy ?  0:00  0.0/s");
    assert_eq!(
        lines[4],
        "a        -         0  -                           -      -      -  "
    );
    assert_eq!(plain_line(&view), "0:00  0 requests  a - -");
}

#[test]
fn the_plain_line_says_it_all_in_one() {
    assert_eq!(
        plain_line(&view()),
        "1:01  800 requests  accuracy 0.500 (uniform 0.500)  l3-all 10 % 0.500  l6-all 90 % 0.600"
    );
}

#[test]
fn the_summary_compares_and_checks_the_count() {
    let mut view = view();
    view.reloads = 1;
    let lines = text(&summary(&view, 1900, 100, 100), 200);
    assert_eq!(
        lines[1],
        "800 reviews rated in 1:01 (13.1/s), 0 failed; 1 policy reload, 0 restarts"
    );
    assert_eq!(
        lines[2],
        "1,900 true ratings acknowledged; the proxy has counted 2,000 (100 of them in earlier runs)"
    );
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("a uniform split         0.5000  (estimated")),
        "{lines:?}"
    );
    assert!(
        lines
            .last()
            .unwrap()
            .starts_with("+0.0 points on the uniform split, 0 %"),
        "{lines:?}"
    );
    let lines = text(&summary(&view, 1900, 0, 100), 200);
    assert!(lines[2].ends_with("but 1,900 were expected"), "{lines:?}");
}

/// The view of a policy that looks at the review: movies go to l3-all.
fn contextual_view() -> View {
    let mut view = view_under(true);
    for number in 0..100 {
        let to_l3 = number % 10 > 0;
        let outcome = outcome(
            if to_l3 { "l3-all" } else { "l6-all" },
            if to_l3 { 5 } else { 4 },
            20,
        );
        view.add(&Outcome {
            domain: Domain::Movies,
            ..outcome
        });
    }
    view.look(view.experiment.clone().unwrap());
    view
}

#[test]
fn under_a_contextual_policy_shares_are_what_was_sent_by_category() {
    let lines = text(&frame(&contextual_view(), 100), 100);
    // Of the last 500: 400 of clothing, half and half, and 100 of movies.
    assert!(lines[4].starts_with("l3-all   58 %"), "{lines:?}");
    assert_eq!(
        lines[7..10],
        [
            "share lately of    l3-all    l6-all",
            "clothing             50 %      50 %",
            "movies               90 %      10 %",
        ]
    );
}

#[test]
fn the_summary_says_what_context_earned() {
    let lines = text(&summary(&contextual_view(), 2000, 0, 100), 200);
    let last = &lines[lines.len() - 2..];
    // Clothing, eight ninths: l6-all is always right; movies: l3-all is. Arms got both, so nothing of it is a surprise.
    assert_eq!(
        last,
        [
            "context, learning included: -34.4 points on the best arm alone",
            "the best arm of each category, had it been known: 1.0000, +11.1 points (l6-all for clothing, l3-all for movies)",
        ]
    );
}
