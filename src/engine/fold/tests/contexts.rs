//! How long a decision's context is remembered, and which rewards get it.

use super::*;
use crate::experiment::context::{Context, ContextRule, Encoding, Feature, Source, Value};
use crate::experiment::decision::LoggedContext;
use crate::policy::{Regressed, Regression};

pub(super) const LEARNING: Statistics = Statistics {
    regression: Some(Regression::Linear),
    ..Statistics::SCALAR
};

/// Ten minutes beyond the window, in which duplicates are still told.
const LINGER: u64 = 600_000;

pub(super) fn rule_of(features: &[&str]) -> Arc<ContextRule> {
    let feature = |name: &&str| Feature {
        name: (*name).into(),
        source: Source::Header((*name).into()),
        encoding: Encoding::Hashed(4),
    };
    Arc::new(ContextRule::new(features.iter().map(feature).collect()))
}

fn policy(statistics: Statistics) -> PolicyAdopted {
    PolicyAdopted {
        context: Some(rule_of(&["category"])),
        statistics,
        ..adopted(rule(Aggregate::First), None)
    }
}

fn starts(statistics: Statistics) -> Vec<Event> {
    vec![
        Event::Started {
            at: at(0),
            origin: ORIGIN,
        },
        Event::PolicyAdopted(Box::new(policy(statistics))),
    ]
}

fn state_of(statistics: Statistics, contexts: usize) -> State {
    let mut state = State::new(Limits {
        contexts,
        ..Limits::default()
    });
    for event in &starts(statistics) {
        state.apply(event);
    }
    state
}

pub(super) fn context(counter: u64) -> Context {
    let text = Value::Text(format!("category-{counter}").into());
    rule_of(&["category"]).context(vec![text].into())
}

/// A decision upon a context that tells its counter.
pub(super) fn upon(decision: Decision) -> LoggedDecision {
    LoggedDecision {
        decision,
        unit: None,
        allocation_version: 1,
        instead_of: None,
        key: None,
        context: Some(Box::new(LoggedContext {
            context: context(decision.sequence.counter),
            probabilities: Vec::new(),
        })),
    }
}

fn decide(state: &mut State, decision: Decision) {
    state.apply(&Event::Decided(upon(decision)));
}

/// Judges a reward one millisecond after its decision and applies it.
fn reward(state: &mut State, decision: Decision) -> Rewarded {
    match post(state, claim(decision, 1, None, 1.0)).unwrap() {
        Event::Rewarded(rewarded) => *rewarded,
        other => unreachable!("{other:?}"),
    }
}

fn remembers(state: &State, decision: &Decision) -> bool {
    state.experiments[&experiment()]
        .contexts
        .get(decision)
        .is_some()
}

#[test]
fn a_reward_gets_the_context_of_its_decision() {
    let mut state = state_of(LEARNING, 10);
    for counter in 1..=3 {
        decide(&mut state, decision(counter, counter));
    }
    for counter in [2, 3, 1] {
        let rewarded = reward(&mut state, decision(counter, counter));
        assert_eq!(rewarded.context.as_deref(), Some(&context(counter)));
        assert!(!state.is_unlearned(&rewarded));
    }
    let again = reward(&mut state, decision(1, 1));
    assert_eq!((again.verdict, &again.context), (Verdict::Duplicate, &None));
    assert!(!state.is_unlearned(&again));
}

#[test]
fn a_context_is_remembered_as_long_as_its_decision_and_no_longer() {
    let mut state = state_of(LEARNING, 10);
    let (first, second) = (decision(1, 0), decision(2, HOUR));
    decide(&mut state, first);
    decide(&mut state, second);
    for (now, remembered) in [
        (HOUR, [true, true]),
        (HOUR + LINGER, [true, true]),
        (HOUR + LINGER + 1, [false, true]),
        (2 * HOUR + LINGER + 1, [false, false]),
    ] {
        state.advance(at(now));
        let found = [remembers(&state, &first), remembers(&state, &second)];
        assert_eq!(found, remembered, "{now}");
    }
}

#[test]
fn what_is_beyond_the_limit_is_pushed_out_oldest_first() {
    let mut state = state_of(LEARNING, 2);
    let decisions = [decision(1, 10), decision(2, 30), decision(3, 20)];
    for decision in decisions {
        decide(&mut state, decision);
    }
    let rewards = decisions.map(|decision| reward(&mut state, decision));
    assert!(
        rewards
            .iter()
            .all(|rewarded| rewarded.verdict == Verdict::Accepted)
    );
    let found = [0, 1, 2].map(|index| rewards[index].context.is_some());
    assert_eq!(found, [false, true, true]);
    let unlearned = [0, 1, 2].map(|index| state.is_unlearned(&rewards[index]));
    assert_eq!(unlearned, [true, false, false]);
    let tallies = decisions.map(|decision| state.tally(experiment(), decision.arm));
    assert!(tallies.iter().all(|tally| tally.learned.count() == 1));
}

#[test]
fn a_reward_in_its_decisions_group_gets_its_context() {
    let state = state_of(LEARNING, 10);
    let made = decision(1, 0);
    let mut tentative = Tentative::default();
    tentative.note_decision(&state, &upon(made));
    let judgement = state.judge(&mut tentative, claim(made, 1, None, 1.0), at(1));
    let Judgement::Judged(rewarded) = judgement else {
        unreachable!("{judgement:?}");
    };
    assert_eq!(rewarded.context.as_deref(), Some(&context(1)));
    assert!(!remembers(&state, &made));
    // The group failed, and the decision with it.
    let alone = state.judge(&mut Tentative::default(), claim(made, 1, None, 1.0), at(1));
    let Judgement::Judged(rewarded) = alone else {
        unreachable!("{alone:?}");
    };
    assert!(rewarded.context.is_none() && state.is_unlearned(&rewarded));
}

#[test]
fn a_replay_remembers_what_the_live_state_did() {
    let mut live = state_of(LEARNING, 2);
    let mut events = starts(LEARNING);
    for counter in 1..=3 {
        let event = Event::Decided(upon(decision(counter, counter)));
        live.apply(&event);
        events.push(event);
    }
    events.push(post(&mut live, claim(decision(2, 2), 5, None, 1.0)).unwrap());
    let now = at(HOUR / 2);
    live.advance(now);
    let limits = Limits {
        contexts: 2,
        ..Limits::default()
    };
    let mut replay = Replay::new(limits, now);
    for event in &events {
        replay.push(event);
    }
    let mut recovered = replay.finish();
    recovered.take_changed();
    live.take_changed();
    assert_eq!(recovered, live);
    for (counter, wanted) in [(1, None), (3, Some(context(3)))] {
        let rewarded = reward(&mut recovered, decision(counter, counter));
        assert_eq!(rewarded.context.map(|context| *context), wanted);
    }
}

#[test]
fn a_reward_that_was_accepted_with_its_context_brings_it_back() {
    // Another process wrote it, or the decision was never journalled.
    let mut state = state_of(LEARNING, 10);
    let rewarded = Rewarded {
        context: Some(Box::new(context(1))),
        ..reward(&mut state_of(LEARNING, 10), decision(1, 0))
    };
    state.apply(&Event::Rewarded(Box::new(rewarded)));
    assert!(remembers(&state, &decision(1, 0)));
}

#[test]
fn only_what_can_be_learned_is_remembered() {
    let mut scalar = state_of(Statistics::SCALAR, 10);
    decide(&mut scalar, decision(1, 0));
    assert!(!remembers(&scalar, &decision(1, 0)));
    let rewarded = reward(&mut scalar, decision(1, 0));
    assert!(rewarded.context.is_none() && !scalar.is_unlearned(&rewarded));

    let mut state = state_of(LEARNING, 10);
    for reason in [
        Reason::Forced,
        Reason::Holdout,
        Reason::Paused,
        Reason::Fallback,
    ] {
        let not_sampled = Decision {
            reason,
            ..decision(1, 0)
        };
        decide(&mut state, not_sampled);
        assert!(!remembers(&state, &not_sampled), "{reason}");
        let mut tentative = Tentative::default();
        tentative.note_decision(&state, &upon(not_sampled));
        let judgement = state.judge(&mut tentative, claim(not_sampled, 1, None, 1.0), at(1));
        let Judgement::Judged(rewarded) = judgement else {
            unreachable!("{judgement:?}");
        };
        assert_eq!(
            (rewarded.verdict, rewarded.context),
            (Verdict::Ignored, None)
        );
    }
    let of_an_older_epoch = Decision {
        epoch: 7,
        ..decision(2, 0)
    };
    decide(&mut state, of_an_older_epoch);
    assert!(!remembers(&state, &of_an_older_epoch));
}

#[test]
fn a_named_metric_neither_gets_nor_loses_a_context() {
    let mut state = state_of(LEARNING, 10);
    decide(&mut state, decision(1, 0));
    let measured = Claim {
        metric: Some(Name::new("revenue").unwrap()),
        ..claim(decision(1, 0), 1, None, 9.5)
    };
    let Event::Rewarded(rewarded) = post(&mut state, measured).unwrap() else {
        unreachable!();
    };
    assert_eq!(
        (rewarded.verdict, &rewarded.context),
        (Verdict::Accepted, &None)
    );
    assert!(!state.is_unlearned(&rewarded));
}

#[test]
fn a_policy_that_begins_to_learn_knows_no_earlier_contexts_and_one_that_stops_asks_for_none() {
    let mut state = state_of(Statistics::SCALAR, 10);
    decide(&mut state, decision(1, 0));
    state.apply(&Event::PolicyAdopted(Box::new(policy(LEARNING))));
    decide(&mut state, decision(2, 0));
    let rewards = [1, 2].map(|counter| reward(&mut state, decision(counter, 0)));
    assert_eq!(rewards[0].context, None);
    assert!(state.is_unlearned(&rewards[0]));
    assert_eq!(rewards[1].context.as_deref(), Some(&context(2)));
    decide(&mut state, decision(3, 0));
    state.apply(&Event::PolicyAdopted(Box::new(policy(Statistics::SCALAR))));
    let rewarded = reward(&mut state, decision(3, 0));
    assert!(rewarded.context.is_none() && !state.is_unlearned(&rewarded));
}

#[test]
fn a_context_outlives_a_change_of_what_is_looked_at() {
    let mut state = state_of(LEARNING, 10);
    decide(&mut state, decision(1, 0));
    let next = PolicyAdopted {
        context: Some(rule_of(&["zone", "category"])),
        ..policy(LEARNING)
    };
    let rule = next.context.clone().unwrap();
    state.apply(&Event::PolicyAdopted(Box::new(next)));
    let rewarded = reward(&mut state, decision(1, 0));
    let found = rewarded.context.unwrap();
    let mut features = Vec::new();
    rule.encode(&found, &mut features);
    let wanted = rule.context(vec![Value::Missing, context(1).values[0].clone()].into());
    let mut expected = Vec::new();
    rule.encode(&wanted, &mut expected);
    assert_eq!(features, expected);
    assert_eq!(features.iter().sum::<f64>(), 2.0);
}

#[test]
fn items_of_an_aggregate_all_have_their_context() {
    let mut state = State::new(Limits::default());
    let adopted = PolicyAdopted {
        context: Some(rule_of(&["category"])),
        statistics: LEARNING,
        ..adopted(rule(Aggregate::Sum), None)
    };
    state.apply(&Event::PolicyAdopted(Box::new(adopted)));
    decide(&mut state, decision(1, 0));
    for id in 0..3 {
        let claim = claim(decision(1, 0), 1 + id, Some(id), 0.25);
        let Event::Rewarded(rewarded) = post(&mut state, claim).unwrap() else {
            unreachable!();
        };
        assert_eq!(rewarded.context.as_deref(), Some(&context(1)));
    }
}

#[test]
fn a_decision_that_is_flushed_after_its_experiments_retirement_teaches_nothing_by_default() {
    let mut crediting = policy(LEARNING);
    (crediting.reward.default, crediting.reward.learn) = (Some(0.5), Learn::Close);
    let mut state = State::new(Limits::default());
    state.apply(&starts(LEARNING)[0]);
    state.apply(&Event::PolicyAdopted(Box::new(crediting)));
    decide(&mut state, decision(0, 0));
    reward(&mut state, decision(0, 0));
    state.apply(&Event::PolicyRetired {
        at: at(2),
        experiment: experiment(),
    });
    decide(&mut state, decision(3, 1));
    state.advance(at(2 * HOUR));
    let tally = state.tally(experiment(), decision(0, 0).arm);
    assert_eq!((tally.decisions, tally.learned.count()), (2, 1));
    let Some(Regressed::Linear(linear)) = tally.detail.regressed(&LEARNING, 5, at(2 * HOUR)) else {
        panic!("no regression");
    };
    assert_eq!(linear.gram()[0], 1.0);
}

/// One that has its own probabilities and no context, because an arm was not available.
#[test]
fn a_decision_without_a_context_is_not_taken_for_one_whose_context_is_empty() {
    let mut state = state_of(LEARNING, 10);
    let own = decision(1, 1);
    let logged = LoggedDecision {
        context: LoggedContext::of(None, vec![(own.arm, 1.0)]),
        ..upon(own)
    };
    state.apply(&Event::Decided(logged));
    assert!(!remembers(&state, &own));
    let rewarded = reward(&mut state, own);
    assert_eq!(
        (rewarded.verdict, rewarded.context),
        (Verdict::Accepted, None)
    );
}
