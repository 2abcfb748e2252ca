//! Sums over contexts: each credited decision is in them once, with the value it was credited with in the end.
//!
//! Features and rewards are such that all sums are exact, so what is expected can be added up in any order.

use proptest::prelude::*;

use super::contexts::{LEARNING, context, rule_of, upon};
use super::*;
use crate::policy::Regressed;
use crate::stats::linear::Linear;

fn policy(reward: RewardRule) -> PolicyAdopted {
    PolicyAdopted {
        context: Some(rule_of(&["category"])),
        statistics: LEARNING,
        ..adopted(reward, None)
    }
}

fn starts(reward: RewardRule) -> [Event; 2] {
    [
        Event::Started {
            at: at(0),
            origin: ORIGIN,
        },
        Event::PolicyAdopted(Box::new(policy(reward))),
    ]
}

fn learning(reward: RewardRule) -> State {
    let mut state = State::new(Limits::default());
    for event in &starts(reward) {
        state.apply(event);
    }
    state
}

fn with_default(default: f64) -> RewardRule {
    RewardRule {
        default: Some(default),
        learn: Learn::Close,
        ..rule(Aggregate::First)
    }
}

fn decide(state: &mut State, decision: Decision) {
    state.apply(&Event::Decided(upon(decision)));
}

/// The sums of an arm.
fn sums(state: &State, arm: ArmId) -> Arc<Linear> {
    let dimension = rule_of(&["category"]).dimension();
    let tally = state.tally(experiment(), arm);
    match tally.detail.regressed(&LEARNING, dimension, at(0)) {
        Some(Regressed::Linear(sums)) => sums,
        other => unreachable!("{other:?}"),
    }
}

/// What the sums should be: these decisions, each with its value.
fn expected(credits: &[(Decision, f64)]) -> Linear {
    let rule = rule_of(&["category"]);
    let mut sums = Linear::new(rule.dimension());
    let mut features = Vec::new();
    for (decision, value) in credits {
        rule.encode(&context(decision.sequence.counter), &mut features);
        sums.add(&features, *value);
    }
    sums
}

fn assert_sums(state: &State, credits: &[(Decision, f64)]) {
    for arm in (0..3).map(ArmId) {
        let own: Vec<_> = credits
            .iter()
            .copied()
            .filter(|(decision, _)| decision.arm == arm)
            .collect();
        assert_eq!(*sums(state, arm), expected(&own), "arm {arm:?}");
    }
}

#[test]
fn a_reward_is_learned_with_its_context_when_it_arrives() {
    let mut state = learning(rule(Aggregate::First));
    let decisions = [1, 2, 3, 4].map(|counter| decision(counter, counter));
    for decision in decisions {
        decide(&mut state, decision);
    }
    assert_sums(&state, &[]);
    for decision in [decisions[3], decisions[0]] {
        post(&mut state, claim(decision, 5, None, 0.25)).unwrap();
        post(&mut state, claim(decision, 6, None, 9.0)).unwrap();
    }
    assert_sums(&state, &[(decisions[0], 0.25), (decisions[3], 0.25)]);
    state.advance(at(10 * HOUR));
    assert_sums(&state, &[(decisions[0], 0.25), (decisions[3], 0.25)]);
}

#[test]
fn rewards_and_defaults_are_learned_when_the_window_closes() {
    let mut state = learning(with_default(-0.5));
    let decisions = [1, 2, 3].map(|counter| decision(counter, counter));
    for decision in decisions {
        decide(&mut state, decision);
    }
    post(&mut state, claim(decisions[1], 5, None, 2.0)).unwrap();
    assert_sums(&state, &[]);
    state.advance(at(2 * HOUR));
    let credits = [
        (decisions[0], -0.5),
        (decisions[1], 2.0),
        (decisions[2], -0.5),
    ];
    assert_sums(&state, &credits);
}

#[test]
fn a_decision_whose_window_had_closed_when_it_was_journalled_is_credited_too() {
    let mut state = learning(with_default(-0.5));
    state.advance(at(2 * HOUR));
    decide(&mut state, decision(1, 0));
    assert_sums(&state, &[(decision(1, 0), -0.5)]);
}

#[test]
fn an_accepted_reward_that_is_applied_after_the_close_takes_the_defaults_place() {
    let mut state = learning(with_default(-0.5));
    decide(&mut state, decision(1, 0));
    let mut other = state.clone();
    let accepted = post(&mut other, claim(decision(1, 0), 5, None, 2.0)).unwrap();
    state.advance(at(HOUR + HOUR / 32));
    assert_sums(&state, &[(decision(1, 0), -0.5)]);
    state.apply(&accepted);
    assert_sums(&state, &[(decision(1, 0), 2.0)]);
    other.advance(at(HOUR + HOUR / 32));
    assert_sums(&other, &[(decision(1, 0), 2.0)]);
}

#[test]
fn only_the_aggregate_of_several_rewards_is_learned() {
    let first = decision(1, 0);
    for learn in [Learn::Arrival, Learn::Close] {
        let mut state = learning(RewardRule {
            learn,
            ..rule(Aggregate::Sum)
        });
        decide(&mut state, first);
        for (id, value) in [(1, 0.25), (2, 2.0), (2, 7.0), (3, -0.5)] {
            post(&mut state, claim(first, id, Some(id), value)).unwrap();
        }
        state.advance(at(2 * HOUR));
        assert_sums(&state, &[(first, 1.75)]);
    }
}

#[test]
fn a_failure_is_learned_with_its_context_unless_a_reward_came_first() {
    let mut state = learning(RewardRule {
        on_failure: Some(-1.0),
        ..rule(Aggregate::First)
    });
    let decisions = [decision(1, 0), decision(2, 0)];
    for decision in decisions {
        decide(&mut state, decision);
    }
    post(&mut state, claim(decisions[1], 1, None, 0.5)).unwrap();
    for decision in decisions {
        state.apply(&ended(decision, 2, Ending::Failed, None));
    }
    assert_sums(&state, &[(decisions[0], -1.0), (decisions[1], 0.5)]);
}

#[test]
fn what_was_given_up_with_its_file_is_not_credited_by_default() {
    let mut state = learning(with_default(-0.5));
    decide(&mut state, decision(1, 0));
    state.apply(&Event::PolicyRetired {
        at: at(1),
        experiment: experiment(),
    });
    state.apply(&Event::PolicyAdopted(Box::new(policy(with_default(-0.5)))));
    decide(&mut state, decision(2, 2));
    state.advance(at(2 * HOUR));
    assert_sums(&state, &[(decision(2, 2), -0.5)]);
}

#[test]
fn a_reward_without_its_context_teaches_counts_and_sums_alone() {
    let mut state = learning(rule(Aggregate::First));
    let made = decision(1, 0);
    post(&mut state, claim(made, 5, None, 0.25)).unwrap();
    assert_sums(&state, &[]);
    let tally = state.tally(experiment(), made.arm);
    assert_eq!((tally.learned.count(), tally.learned.sum()), (1, 0.25));
}

/// What happens to a decision: when it is made, and after how long it is rewarded with how many quarters.
fn histories() -> impl Strategy<Value = Vec<(u64, Option<(u64, i32)>)>> {
    let reward = prop::option::of((0..2 * HOUR, -8..8));
    prop::collection::vec((0..3 * HOUR, reward), 0..40)
}

proptest! {
    #[test]
    fn every_credit_is_there_once_and_a_replay_has_the_same(
        history in histories(), default in prop::option::of(-4..4), close in any::<bool>(),
    ) {
        let reward = RewardRule {
            default: default.map(|quarters| f64::from(quarters) / 4.0),
            learn: if close { Learn::Close } else { Learn::Arrival },
            ..rule(Aggregate::First)
        };
        let mut live = learning(reward);
        let mut events = starts(reward).to_vec();
        let mut credits = Vec::new();
        // What happens, by time; decisions before rewards.
        let mut steps = Vec::new();
        for (counter, (made, rewarded)) in (1..).zip(&history) {
            let decision = decision(counter, *made);
            steps.push((*made, 0, decision, 0.0));
            if let Some((after, quarters)) = rewarded {
                steps.push((made + after, 1, decision, f64::from(*quarters) / 4.0));
            }
            let in_time = rewarded.filter(|(after, _)| *after <= HOUR);
            let value = in_time.map(|(_, quarters)| f64::from(quarters) / 4.0);
            credits.extend(value.or(reward.default).map(|value| (decision, value)));
        }
        steps.sort_by_key(|(time, kind, decision, _)| (*time, *kind, decision.sequence));
        for (time, kind, decision, value) in steps {
            live.advance(at(time));
            if kind == 0 {
                let event = Event::Decided(upon(decision));
                live.apply(&event);
                events.push(event);
            } else {
                let after = time - (decision.at.as_millis() - START);
                events.push(post(&mut live, claim(decision, after, None, value)).unwrap());
            }
        }
        let end = at(20 * HOUR);
        live.advance(end);
        assert_sums(&live, &credits);
        let mut replay = Replay::new(Limits::default(), end);
        for event in &events {
            replay.push(event);
        }
        assert_sums(&replay.finish(), &credits);
    }
}
