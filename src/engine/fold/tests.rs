//! The fold and the judge together, case by case; `model` has the random histories, `memory` what policies may ask for.

mod contexts;
mod interleaving;
mod keys;
mod memory;
mod model;
mod orders;
mod regression;
mod shadows;

use std::sync::Arc;

use super::super::attribute::{Claim, Judgement, Posted, Tentative};
use super::*;
use crate::engine::replay::Replay;
use crate::experiment::decision::Label;
use crate::experiment::id::{Name, SequenceKey};
use crate::experiment::reward::{
    Aggregate, Compare, Goal, LabelRule, Learn, RewardKind, RewardRule,
};
use crate::policy::Statistics;
use crate::stats::moments::Moments;

const HOUR: u64 = 3_600_000;
const START: u64 = 1_000 * HOUR;
const ORIGIN: u64 = 42;
const VERSION: PolicyVersion = PolicyVersion([1; 6]);

fn experiment() -> ExperimentId {
    ExperimentId::of(&name())
}

fn name() -> Name {
    Name::new("stars").unwrap()
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(START + millis)
}

fn rule(aggregate: Aggregate) -> RewardRule {
    RewardRule {
        kind: RewardKind::Real,
        window: HOUR,
        default: None,
        aggregate,
        goal: Goal::Maximize,
        learn: Learn::Arrival,
        on_failure: None,
    }
}

fn adopted(reward: RewardRule, label: Option<LabelRule>) -> PolicyAdopted {
    PolicyAdopted {
        metric: None,
        at: at(0),
        name: name(),
        experiment: experiment(),
        version: VERSION,
        epoch: 1,
        declared_epoch: 0,
        reward_meaning: format!(
            "{:?} {:?} {:?} {label:?}",
            reward.kind, reward.aggregate, reward.default
        ),
        reward,
        label,
        shadow: None,
        context: None,
        statistics: Statistics::SCALAR,
        arms: Vec::new(),
        text: Arc::from(""),
    }
}

fn state(reward: RewardRule, label: Option<LabelRule>) -> State {
    let mut state = State::new(Limits::default());
    state.apply(&Event::Started {
        at: at(0),
        origin: ORIGIN,
    });
    state.apply(&Event::PolicyAdopted(Box::new(adopted(reward, label))));
    state
}

fn decision(counter: u64, made: u64) -> Decision {
    Decision {
        sequence: SequenceKey {
            origin: ORIGIN,
            worker: 0,
            counter,
        },
        at: at(made),
        experiment: experiment(),
        epoch: 1,
        arm: ArmId(counter as u32 % 3),
        policy_version: VERSION,
        propensity: 0.5,
        reason: Reason::Sampled,
    }
}

fn decided(decision: Decision) -> Event {
    Event::Decided(LoggedDecision {
        decision,
        unit: None,
        allocation_version: 1,
        instead_of: None,
        key: None,
        context: None,
    })
}

fn ended(decision: Decision, after: u64, ending: Ending, prediction: Option<Label>) -> Event {
    Event::Ended(Outcome {
        decision,
        at: decision.at.plus(after),
        ending,
        status: None,
        latency_micros: 1,
        prediction,
    })
}

fn claim(decision: Decision, after: u64, id: Option<u64>, value: f64) -> Claim {
    Claim {
        decision,
        received: decision.at.plus(after),
        at: None,
        metric: None,
        id: id.map(|id| id.to_string().into()),
        posted: Posted::Reward(value),
    }
}

/// Judges and applies, as the ledger does; the journalled event if there is one.
fn post(state: &mut State, claim: Claim) -> Result<Event, String> {
    let now = claim.received;
    match state.judge(&mut Tentative::default(), claim, now) {
        Judgement::Judged(rewarded) => {
            let event = Event::Rewarded(rewarded);
            state.apply(&event);
            Ok(event)
        }
        Judgement::Wait(_) => Err("waits".to_owned()),
        Judgement::Invalid(error) => Err(error),
    }
}

fn verdict(state: &mut State, claim: Claim) -> Verdict {
    match post(state, claim).unwrap() {
        Event::Rewarded(rewarded) => rewarded.verdict,
        _ => unreachable!(),
    }
}

#[test]
fn verdicts_have_their_precedence() {
    let mut state = state(rule(Aggregate::First), None);
    let sampled = decision(1, 0);
    let forced = Decision {
        reason: Reason::Forced,
        ..sampled
    };
    let old = Decision { epoch: 7, ..forced };
    assert_eq!(
        verdict(&mut state, claim(old, 2 * HOUR, None, 1.0)),
        Verdict::Retired
    );
    assert_eq!(
        verdict(&mut state, claim(forced, 2 * HOUR, None, 1.0)),
        Verdict::Ignored
    );
    assert!(post(&mut state, claim(forced, 2 * HOUR, None, 1e10)).is_err());
    assert_eq!(
        verdict(&mut state, claim(sampled, HOUR, None, 1.0)),
        Verdict::Accepted
    );
    assert_eq!(
        verdict(&mut state, claim(sampled, HOUR, None, 1.0)),
        Verdict::Duplicate
    );
    assert_eq!(
        verdict(&mut state, claim(sampled, HOUR + 1, None, 1.0)),
        Verdict::Late
    );
    let tally = state.tally(experiment(), sampled.arm);
    assert_eq!(
        (
            tally.rewards.count(),
            tally.learned.count(),
            tally.decisions
        ),
        (1, 1, 0)
    );
    state.apply(&Event::PolicyRetired {
        at: at(1),
        experiment: experiment(),
    });
    assert_eq!(
        verdict(&mut state, claim(decision(2, 0), 1, None, 1.0)),
        Verdict::Retired
    );
}

#[test]
fn items_of_one_group_see_each_other_and_leave_no_trace_when_it_fails() {
    let state = state(rule(Aggregate::First), None);
    let mut tentative = Tentative::default();
    let judge = |tentative: &mut Tentative| match state.judge(
        tentative,
        claim(decision(1, 0), 1, None, 1.0),
        at(1),
    ) {
        Judgement::Judged(rewarded) => rewarded.verdict,
        other => unreachable!("{other:?}"),
    };
    assert_eq!(judge(&mut tentative), Verdict::Accepted);
    assert_eq!(judge(&mut tentative), Verdict::Duplicate);
    assert_eq!(judge(&mut Tentative::default()), Verdict::Accepted);
}

#[test]
fn lateness_goes_by_the_window_of_the_decision() {
    let mut state = state(rule(Aggregate::First), None);
    let mut shorter = adopted(
        RewardRule {
            window: 1000,
            ..rule(Aggregate::First)
        },
        None,
    );
    shorter.version = PolicyVersion([2; 6]);
    state.apply(&Event::PolicyAdopted(Box::new(shorter)));
    let unknown = |counter| Decision {
        policy_version: PolicyVersion([9; 6]),
        ..decision(counter, 0)
    };
    assert_eq!(
        verdict(&mut state, claim(decision(1, 0), HOUR, None, 1.0)),
        Verdict::Accepted
    );
    assert_eq!(
        verdict(&mut state, claim(unknown(2), HOUR, None, 1.0)),
        Verdict::Late
    );
    assert_eq!(
        verdict(&mut state, claim(unknown(3), 1000, None, 1.0)),
        Verdict::Accepted
    );
}

#[test]
fn epochs_follow_the_meaning_of_rewards() {
    let mut state = state(rule(Aggregate::First), None);
    verdict(&mut state, claim(decision(1, 0), 1, None, 1.0));
    let mut next = adopted(rule(Aggregate::Max), None);
    next.epoch = 2;
    state.apply(&Event::PolicyAdopted(Box::new(next)));
    assert_eq!(
        state.tally(experiment(), decision(1, 0).arm),
        Tally::default()
    );
    assert_eq!(
        verdict(&mut state, claim(decision(2, 0), 1, None, 1.0)),
        Verdict::Retired
    );
}

#[test]
fn defaults_are_credited_when_the_window_closes_and_not_before() {
    let closing = RewardRule {
        default: Some(0.0),
        learn: Learn::Close,
        ..rule(Aggregate::First)
    };
    let mut state = state(closing, None);
    (0..10).for_each(|counter| state.apply(&decided(decision(3 * counter, counter))));
    verdict(&mut state, claim(decision(3, 1), 5, None, 1.0));
    state.advance(at(HOUR + 9));
    let tally = state.tally(experiment(), ArmId(0));
    assert_eq!(
        (tally.decisions, tally.defaults, tally.learned.count()),
        (10, 0, 0)
    );
    assert_eq!(tally.rewards.count(), 1);
    for later in [2, 3, 90] {
        state.advance(at(later * HOUR));
        let tally = state.tally(experiment(), ArmId(0));
        assert_eq!(
            (tally.defaults, tally.learned.count(), tally.learned.sum()),
            (9, 10, 1.0)
        );
    }
    assert_eq!(
        verdict(&mut state, claim(decision(6, 2), 6, None, 1.0)),
        Verdict::Late
    );
}

#[test]
fn a_failure_is_the_reward_of_its_decision() {
    let failing = RewardRule {
        on_failure: Some(-1.0),
        default: Some(0.0),
        ..rule(Aggregate::Sum)
    };
    for aggregate in [Aggregate::First, Aggregate::Sum] {
        let mut state = state(
            RewardRule {
                aggregate,
                ..failing
            },
            None,
        );
        let (failed, rewarded) = (decision(0, 0), decision(3, 0));
        state.apply(&decided(failed));
        state.apply(&decided(rewarded));
        verdict(&mut state, claim(rewarded, 1, Some(1), 5.0));
        state.apply(&ended(failed, 2, Ending::Failed, None));
        state.apply(&ended(rewarded, 2, Ending::Failed, None));
        assert_eq!(
            verdict(&mut state, claim(failed, 3, Some(1), 5.0)),
            Verdict::Duplicate
        );
        state.advance(at(2 * HOUR));
        let tally = state.tally(experiment(), ArmId(0));
        assert_eq!(
            (tally.failures, tally.defaults, tally.rewards.count()),
            (2, 0, 1)
        );
        assert_eq!((tally.learned.count(), tally.learned.sum()), (2, 4.0));
    }
}

#[test]
fn a_label_waits_for_its_prediction_and_is_scored_by_it() {
    let label = LabelRule {
        prediction: "/stars".to_owned(),
        compare: Compare::Within(1.0),
    };
    let mut state = state(rule(Aggregate::First), Some(label));
    let post_label = |state: &State, counter, waited: u64| {
        let claim = Claim {
            posted: Posted::Label(Label::Number(4.0)),
            ..claim(decision(counter, 0), 10, None, 0.0)
        };
        state.judge(&mut Tentative::default(), claim, at(10 + waited))
    };
    assert!(matches!(post_label(&state, 0, 59_989), Judgement::Wait(_)));
    let unscored = |judgement| matches!(judgement, Judgement::Judged(rewarded) if rewarded.verdict == Verdict::Unscored);
    assert!(unscored(post_label(&state, 0, 59_990)));
    state.apply(&ended(
        decision(0, 0),
        5,
        Ending::Answered,
        Some(Label::Number(5.0)),
    ));
    state.apply(&ended(
        decision(1, 0),
        5,
        Ending::Answered,
        Some(Label::Number(2.0)),
    ));
    state.apply(&ended(decision(2, 0), 5, Ending::Answered, None));
    state.apply(&ended(
        decision(3, 0),
        5,
        Ending::Answered,
        Some(Label::Text("good".into())),
    ));
    for (counter, expected) in [(0, 1.0), (1, 0.0)] {
        let Judgement::Judged(rewarded) = post_label(&state, counter, 0) else {
            unreachable!()
        };
        assert_eq!(
            (rewarded.verdict, rewarded.value),
            (Verdict::Accepted, expected)
        );
    }
    assert!(unscored(post_label(&state, 2, 0)));
    assert!(
        matches!(post_label(&state, 3, 0), Judgement::Invalid(error) if error.contains("text"))
    );
}

#[test]
fn predictions_are_bounded_and_the_oldest_go_first() {
    let label = LabelRule {
        prediction: String::new(),
        compare: Compare::Equals,
    };
    let mut state = State::new(Limits {
        predictions: 2,
        ..Limits::default()
    });
    state.apply(&Event::PolicyAdopted(Box::new(adopted(
        rule(Aggregate::First),
        Some(label),
    ))));
    (0..3).for_each(|counter| {
        state.apply(&ended(
            decision(counter, counter),
            0,
            Ending::Answered,
            Some(Label::Boolean(true)),
        ));
    });
    let verdicts: Vec<_> = (0..3)
        .map(|counter| {
            verdict(
                &mut state,
                Claim {
                    posted: Posted::Label(Label::Boolean(true)),
                    ..claim(decision(counter, counter), 1, None, 0.0)
                },
            )
        })
        .collect();
    assert_eq!(
        verdicts,
        [Verdict::Unscored, Verdict::Accepted, Verdict::Accepted]
    );
}

#[test]
fn named_metrics_are_recorded_once_and_never_learned() {
    let mut state = state(rule(Aggregate::Sum), None);
    let metric = |id| Claim {
        metric: Some(Name::new("clicks").unwrap()),
        ..claim(decision(0, 0), 1, id, 3.0)
    };
    assert_eq!(verdict(&mut state, metric(None)), Verdict::Accepted);
    assert_eq!(verdict(&mut state, metric(None)), Verdict::Duplicate);
    assert_eq!(verdict(&mut state, metric(Some(1))), Verdict::Accepted);
    let tally = state.tally(experiment(), ArmId(0));
    assert_eq!(tally.measures.iter().count(), 1);
    let but_for_these = Tally {
        measures: Arc::default(),
        ..tally
    };
    assert_eq!(but_for_these, Tally::default());
}

#[test]
fn memory_is_given_back_after_the_window() {
    let mut state = state(rule(Aggregate::Last), None);
    let empty = {
        let mut empty = state.clone();
        empty.advance(at(3 * HOUR));
        empty
    };
    (0..100).for_each(|counter| {
        verdict(&mut state, claim(decision(counter, 0), 1, None, 0.0));
    });
    state.advance(at(3 * HOUR));
    let history = &state.experiments[&experiment()];
    assert!(history.entries.is_empty());
    assert_eq!(history.claims, empty.experiments[&experiment()].claims);
}

#[test]
fn a_replay_that_forgets_as_it_goes_agrees_with_the_live_state() {
    let closing = RewardRule {
        default: Some(0.0),
        learn: Learn::Close,
        on_failure: Some(-1.0),
        ..rule(Aggregate::Last)
    };
    let mut live = state(closing, None);
    let mut journal = vec![
        Event::Started {
            at: at(0),
            origin: ORIGIN,
        },
        Event::PolicyAdopted(Box::new(adopted(closing, None))),
    ];
    // A decision every ten seconds for three days, a reward for two of three up to the end of the window.
    for counter in 0..26_000 {
        let made = counter * 10_000;
        let decided = decided(decision(counter, made));
        live.apply(&decided);
        journal.push(decided);
        let earlier = counter.saturating_sub((counter * 7919) % 361);
        let delay = made - earlier * 10_000;
        if counter % 3 > 0
            && let Ok(event) = post(
                &mut live,
                claim(
                    decision(earlier, earlier * 10_000),
                    delay,
                    Some(counter),
                    (counter % 5) as f64,
                ),
            )
        {
            journal.push(event);
        } else {
            let failed = ended(decision(counter, made), 5, Ending::Failed, None);
            live.apply(&failed);
            journal.push(failed);
        }
        live.advance(at(made + 20));
    }
    let now = at(26_000 * 10_000 + HOUR / 2);
    let mut replay = Replay::new(Limits::default(), now);
    for event in &journal {
        replay.push(event);
    }
    let mut recovered = replay.finish();
    live.advance(now);
    live.take_changed();
    recovered.take_changed();
    assert_eq!(live, recovered);
    let [failing, rewarded, _] = [0, 1, 2].map(|arm| live.tally(experiment(), ArmId(arm)));
    assert!(failing.failures > 0 && rewarded.defaults > 0 && rewarded.rewards.count() > 0);
    assert!(rewarded.learned.count() < rewarded.decisions);
}
