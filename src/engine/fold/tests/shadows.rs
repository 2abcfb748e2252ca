//! Shadows: one label scores every arm that answered, whatever comes first, and apart from the rest.

use proptest::prelude::*;

use super::*;
use crate::engine::snapshot::ShadowTally;
use crate::experiment::decision::Shadowed;
use crate::experiment::shadow::ShadowTerms;
use crate::policy::Memory;

fn label_rule() -> LabelRule {
    LabelRule {
        prediction: "/stars".to_owned(),
        compare: Compare::Within(1.0),
    }
}

fn policy(aggregate: Aggregate, learn: bool) -> PolicyAdopted {
    let reward = RewardRule {
        kind: RewardKind::Bounded { min: 0.0, max: 3.0 },
        ..rule(aggregate)
    };
    PolicyAdopted {
        shadow: Some(ShadowTerms { learn }),
        ..adopted(reward, Some(label_rule()))
    }
}

fn start(policy: PolicyAdopted) -> Vec<Event> {
    let started = Event::Started {
        at: at(0),
        origin: ORIGIN,
    };
    vec![started, Event::PolicyAdopted(Box::new(policy))]
}

fn fold(events: &[Event]) -> State {
    let mut state = State::new(Limits::default());
    for event in events {
        state.apply(event);
    }
    state
}

fn shadowed(decision: Decision, arm: u32, prediction: Option<Label>) -> Event {
    let outcome = Outcome {
        decision,
        at: decision.at.plus(3),
        ending: Ending::Answered,
        status: Some(200),
        latency_micros: 3000,
        prediction,
    };
    Event::Shadowed(Box::new(Shadowed {
        arm: ArmId(arm),
        outcome,
    }))
}

fn failed(decision: Decision, arm: u32) -> Event {
    let Event::Shadowed(mut shadowed) = shadowed(decision, arm, None) else {
        unreachable!()
    };
    shadowed.outcome.ending = Ending::Failed;
    Event::Shadowed(shadowed)
}

fn stars(number: u64) -> Label {
    Label::Number(number as f64)
}

fn labelled(decision: Decision, after: u64, id: Option<u64>, label: Label) -> Claim {
    Claim {
        posted: Posted::Label(label),
        ..claim(decision, after, id, 0.0)
    }
}

fn shown(state: &State, arm: u32) -> ShadowTally {
    state.tally(experiment(), ArmId(arm)).shadow
}

#[test]
fn one_label_scores_every_arm_that_answered_and_touches_nothing_else() {
    let mut state = fold(&start(policy(Aggregate::First, false)));
    let served = decision(0, 0);
    state.apply(&decided(served));
    state.apply(&ended(served, 1, Ending::Answered, Some(stars(5))));
    state.apply(&shadowed(served, 1, Some(stars(4))));
    state.apply(&shadowed(served, 2, Some(stars(1))));
    state.apply(&shadowed(served, 3, None));
    state.apply(&shadowed(served, 4, Some(Label::Text("four".into()))));
    state.apply(&failed(served, 5));
    assert_eq!(
        (shown(&state, 1).answers, shown(&state, 1).scores.count()),
        (1, 0)
    );
    for wanted in [Verdict::Accepted, Verdict::Duplicate] {
        let claim = labelled(served, 10, None, stars(4));
        assert_eq!(verdict(&mut state, claim), wanted);
        let scores = |arm| (shown(&state, arm).answers, shown(&state, arm).scores.mean());
        assert_eq!(scores(1), (1, Some(1.0)));
        assert_eq!(scores(2), (1, Some(0.0)));
        assert_eq!(scores(3), (1, None));
        assert_eq!(scores(4), (1, None));
        assert_eq!(scores(5), (0, None));
        for arm in 1..=5 {
            let tally = Tally {
                shadow: shown(&state, arm),
                ..Tally::default()
            };
            assert_eq!(state.tally(experiment(), ArmId(arm)), tally);
        }
    }
    assert_eq!(shown(&state, 0), ShadowTally::default());
    assert_eq!(state.tally(experiment(), ArmId(0)).learned.count(), 1);
}

#[test]
fn nothing_but_an_accepted_label_scores() {
    let mut state = fold(&start(policy(Aggregate::First, true)));
    let (rewarded, unscored) = (decision(0, 0), decision(3, 0));
    for served in [rewarded, unscored] {
        state.apply(&shadowed(served, 1, Some(stars(5))));
    }
    state.apply(&ended(rewarded, 1, Ending::Answered, Some(stars(5))));
    state.apply(&ended(unscored, 1, Ending::Failed, None));
    assert_eq!(
        verdict(&mut state, claim(rewarded, 5, None, 1.0)),
        Verdict::Accepted
    );
    let duplicate = labelled(rewarded, 6, None, stars(5));
    assert_eq!(verdict(&mut state, duplicate), Verdict::Duplicate);
    let late = labelled(unscored, HOUR + 1, None, stars(5));
    assert_eq!(verdict(&mut state, late), Verdict::Late);
    let unscored = labelled(unscored, 60_000, None, stars(5));
    assert_eq!(verdict(&mut state, unscored), Verdict::Unscored);
    assert_eq!(
        (shown(&state, 1).answers, shown(&state, 1).scores.count()),
        (2, 0)
    );
    // A decision that was not sampled, or of another epoch, has no shadows.
    let forced = Decision {
        reason: Reason::Forced,
        ..decision(6, 0)
    };
    state.apply(&shadowed(forced, 1, Some(stars(5))));
    let old = Decision {
        epoch: 9,
        ..decision(9, 0)
    };
    state.apply(&shadowed(old, 1, Some(stars(5))));
    assert_eq!(shown(&state, 1).answers, 2);
}

#[test]
fn a_shadows_scores_are_learned_only_under_a_file_that_says_so() {
    for learn in [false, true] {
        let mut state = fold(&start(policy(Aggregate::Last, learn)));
        let served = decision(0, 0);
        state.apply(&decided(served));
        state.apply(&ended(served, 1, Ending::Answered, Some(stars(1))));
        state.apply(&shadowed(served, 1, Some(stars(5))));
        let learned = |state: &State| state.tally(experiment(), ArmId(1)).learned;
        // The later label takes the place of the earlier one.
        for (after, label, score) in [(5, 5, 1.0), (6, 1, 0.0)] {
            verdict(&mut state, labelled(served, after, None, stars(label)));
            let mut wanted = Moments::default();
            wanted.add(score, 1);
            assert_eq!(shown(&state, 1).scores, wanted);
            assert_eq!(
                learned(&state),
                if learn { wanted } else { Moments::default() }
            );
        }
        let tally = state.tally(experiment(), ArmId(1));
        assert_eq!(
            (tally.decisions, tally.rewards.count(), tally.waiting),
            (0, 0, 0)
        );
        // A decision under a file without `learn` teaches nothing, whatever the file says when its label comes.
        let mut next = policy(Aggregate::Last, !learn);
        next.version = PolicyVersion([2; 6]);
        state.apply(&Event::PolicyAdopted(Box::new(next)));
        let before = learned(&state).count();
        let served = decision(3, 1);
        state.apply(&ended(served, 1, Ending::Answered, Some(stars(1))));
        verdict(&mut state, labelled(served, 5, None, stars(5)));
        state.apply(&shadowed(served, 1, Some(stars(5))));
        assert_eq!(learned(&state).count(), before + u64::from(learn));
    }
}

#[test]
fn what_is_learned_ages_with_the_rest() {
    let mut adopted = policy(Aggregate::First, true);
    adopted.statistics.memory = Memory::SlidingWindow(2 * HOUR);
    let statistics = adopted.statistics;
    let mut state = fold(&start(adopted));
    let served = decision(0, 0);
    state.apply(&decided(served));
    state.apply(&ended(served, 1, Ending::Answered, Some(stars(1))));
    verdict(&mut state, labelled(served, 5, None, stars(5)));
    state.apply(&shadowed(served, 1, Some(stars(5))));
    let count = |now| {
        let tally = state.tally(experiment(), ArmId(1));
        tally.detail.at(&statistics, now).earned.count
    };
    assert_eq!(count(at(HOUR)), 1.0);
    assert_eq!(count(at(3 * HOUR)), 0.0);
}

#[test]
fn memory_is_bounded_and_given_back_after_the_window() {
    let mut state = State::new(Limits {
        predictions: 4,
        ..Limits::default()
    });
    for event in start(policy(Aggregate::First, false)) {
        state.apply(&event);
    }
    let empty = {
        let mut empty = state.clone();
        empty.advance(at(3 * HOUR));
        empty.experiments[&experiment()].shadows.clone()
    };
    for counter in 0..6 {
        let served = decision(3 * counter, counter);
        state.apply(&shadowed(served, 1, Some(stars(5))));
    }
    for counter in 0..6 {
        let served = decision(3 * counter, counter);
        state.apply(&ended(served, 1, Ending::Answered, Some(stars(1))));
        verdict(&mut state, labelled(served, 5, None, stars(5)));
    }
    // The first two were pushed out by the others, and each label pushes something out again.
    let scored = shown(&state, 1).scores.count();
    assert!((1..=4).contains(&scored), "{scored}");
    assert_eq!(shown(&state, 1).answers, 6);
    state.advance(at(3 * HOUR));
    assert_eq!(state.experiments[&experiment()].shadows, empty);
    assert_eq!(shown(&state, 1).scores.count(), scored);
}

#[derive(Debug, Clone)]
enum Op {
    Label {
        id: Option<u64>,
        at: u64,
        label: Label,
    },
    Shadow {
        arm: u32,
        prediction: Option<Label>,
    },
}

fn any_label() -> impl Strategy<Value = Label> {
    prop_oneof![
        8 => (0..6_u64).prop_map(stars),
        1 => Just(Label::Text("x".into())),
    ]
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (0..6_u64, 0..50_u64, any_label()).prop_map(|(id, at, label)| Op::Label {
            id: Some(id),
            at,
            label
        }),
        (10..13_u32, proptest::option::weighted(0.9, any_label()))
            .prop_map(|(arm, prediction)| Op::Shadow { arm, prediction }),
    ]
}

fn any_aggregate() -> impl Strategy<Value = Aggregate> {
    prop_oneof![
        Just(Aggregate::First),
        Just(Aggregate::Last),
        Just(Aggregate::Sum),
        Just(Aggregate::Mean),
        Just(Aggregate::Max),
    ]
}

/// What a shadow's score is, written down without regard to how it is kept.
fn naive(aggregate: Aggregate, prediction: &Label, labels: &[(u64, Label)]) -> Option<f64> {
    let score = |label: &Label| {
        let kind = RewardKind::Bounded { min: 0.0, max: 3.0 };
        label_rule().score(kind, prediction, label)
    };
    if aggregate == Aggregate::Last {
        let latest = labels.iter().max_by_key(|(at, _)| *at);
        return latest.and_then(|(_, label)| score(label));
    }
    let scores: Vec<f64> = labels
        .iter()
        .filter_map(|(_, label)| score(label))
        .collect();
    if scores.is_empty() {
        return None;
    }
    let sum: f64 = scores.iter().sum();
    Some(match aggregate {
        Aggregate::Max => scores.iter().copied().fold(0.0, f64::max),
        Aggregate::Sum => sum.min(3.0),
        Aggregate::Mean => sum / scores.len() as f64,
        _ => scores[0],
    })
}

proptest! {
    #[test]
    fn shadows_and_labels_in_any_order_make_the_same_sums(
        aggregate in any_aggregate(),
        learn in any::<bool>(),
        ops in prop::collection::vec((0..4_u64, any_op()), 1..60),
        places in prop::collection::vec(any::<prop::sample::Index>(), 60),
    ) {
        let mut journal = start(policy(aggregate, learn));
        let mut live = fold(&journal);
        for counter in 0..4 {
            for event in [
                decided(decision(counter, counter)),
                ended(decision(counter, counter), 1, Ending::Answered, Some(stars(3))),
            ] {
                live.apply(&event);
                journal.push(event);
            }
        }
        let (mut shadows, mut accepted) = (Vec::new(), Vec::new());
        for (counter, op) in &ops {
            let served = decision(*counter, *counter);
            let event = match op {
                Op::Label { id, at: time, label } => {
                    let claim = Claim { at: Some(at(*time)), ..labelled(served, 50, *id, label.clone()) };
                    let Ok(event) = post(&mut live, claim) else { continue };
                    if matches!(&event, Event::Rewarded(rewarded) if rewarded.verdict == Verdict::Accepted) {
                        accepted.push((*counter, (*time, label.clone())));
                    }
                    event
                }
                Op::Shadow { arm, prediction } => {
                    if shadows.iter().any(|(known, known_arm, _)| (known, known_arm) == (counter, arm)) {
                        continue;
                    }
                    shadows.push((*counter, *arm, prediction.clone()));
                    let event = shadowed(served, *arm, prediction.clone());
                    live.apply(&event);
                    event
                }
            };
            journal.push(event);
        }
        prop_assert_eq!(&fold(&journal), &live);

        let (moved, mut others): (Vec<_>, Vec<_>) =
            journal[2..].iter().cloned().partition(|event| matches!(event, Event::Shadowed(_)));
        for (event, place) in moved.into_iter().zip(&places) {
            others.insert(place.index(others.len() + 1), event);
        }
        let reordered = fold(&[&journal[..2], &others[..]].concat());
        prop_assert_eq!(reordered.tallies(experiment()), live.tallies(experiment()));

        for arm in 10..13 {
            let mut wanted = ShadowTally::default();
            for (counter, _, prediction) in shadows.iter().filter(|(_, known, _)| *known == arm) {
                wanted.answers += 1;
                let labels: Vec<_> = accepted.iter().filter(|(of, _)| of == counter).map(|(_, label)| label.clone()).collect();
                if let Some(score) = prediction.as_ref().and_then(|prediction| naive(aggregate, prediction, &labels)) {
                    wanted.scores.add(score, 1);
                }
            }
            prop_assert_eq!(shown(&live, arm), wanted);
            let learned = if learn { wanted.scores } else { Moments::default() };
            prop_assert_eq!(live.tally(experiment(), ArmId(arm)).learned, learned);
        }
    }
}
