//! Rewards by the client's own key: which decision it names, for how long, and what it is told otherwise.

use proptest::prelude::*;

use super::*;
use crate::engine::keys::{RewardKeys, Subject};
use crate::experiment::id::KeyHash;

fn key(number: u8) -> KeyHash {
    KeyHash([number; 16])
}

fn keyed(decision: Decision, number: u8) -> Event {
    let Event::Decided(mut logged) = decided(decision) else {
        unreachable!();
    };
    logged.key = Some(key(number));
    Event::Decided(logged)
}

fn instead_of(event: Event, first: &Decision) -> Event {
    let Event::Decided(mut logged) = event else {
        unreachable!();
    };
    logged.instead_of = Some(first.sequence);
    logged.decision.reason = Reason::Fallback;
    Event::Decided(logged)
}

fn limited(keys: usize) -> State {
    let mut state = State::new(Limits {
        keys,
        ..Limits::default()
    });
    state.apply(&Event::Started {
        at: at(0),
        origin: ORIGIN,
    });
    let policy = adopted(rule(Aggregate::First), None);
    state.apply(&Event::PolicyAdopted(Box::new(policy)));
    state
}

fn by_key(number: u8) -> Claim<Subject> {
    Claim {
        decision: Subject::Key(experiment(), key(number)),
        received: at(5),
        at: None,
        metric: None,
        id: None,
        posted: Posted::Reward(1.0),
    }
}

fn found(state: &State, number: u8) -> Result<Decision, String> {
    let claim = state.resolve(&Tentative::default(), by_key(number))?;
    Ok(claim.decision)
}

fn error(state: &State, number: u8) -> String {
    found(state, number).unwrap_err()
}

#[test]
fn a_key_names_its_decision_and_the_decision_counts_once() {
    let mut state = limited(10);
    let made = decision(1, 0);
    state.apply(&keyed(made, 7));
    assert_eq!(found(&state, 7), Ok(made));
    let claim = state.resolve(&Tentative::default(), by_key(7)).unwrap();
    assert_eq!(verdict(&mut state, claim.clone()), Verdict::Accepted);
    assert_eq!(verdict(&mut state, claim), Verdict::Duplicate);
    let by_id = super::claim(made, 5, None, 1.0);
    assert_eq!(
        state.resolve(&Tentative::default(), by_id.clone().into()),
        Ok(by_id.clone())
    );
    assert_eq!(verdict(&mut state, by_id), Verdict::Duplicate);
    assert_eq!(state.tally(experiment(), made.arm).rewards.count(), 1);
}

#[test]
fn a_key_of_several_decisions_names_none() {
    let mut state = limited(10);
    state.apply(&keyed(decision(1, 0), 7));
    state.apply(&keyed(decision(2, 0), 7));
    state.apply(&keyed(decision(3, 0), 8));
    assert!(error(&state, 7).contains("several decisions"));
    assert_eq!(found(&state, 8), Ok(decision(3, 0)));
    // In an experiment of its own it would be another key, and so another hash.
    let other = Claim {
        decision: Subject::Key(ExperimentId(1), key(8)),
        ..by_key(8)
    };
    let refused = state.resolve(&Tentative::default(), other).unwrap_err();
    assert!(refused.contains("no experiment"), "{refused}");
}

#[test]
fn the_answer_of_the_baseline_takes_the_key_over() {
    let first = decision(1, 0);
    let second = Decision {
        reason: Reason::Fallback,
        ..decision(2, 3)
    };
    let events = [
        keyed(first, 7),
        instead_of(keyed(decision(2, 3), 7), &first),
    ];
    let mut state = limited(10);
    let mut fresh = Tentative::default();
    for event in &events {
        let Event::Decided(logged) = event else {
            unreachable!();
        };
        fresh.note_decision(&state, logged);
    }
    assert_eq!(state.resolve(&fresh, by_key(7)).unwrap().decision, second);
    state.apply(&events[0]);
    assert_eq!(found(&state, 7), Ok(first));
    let mut half = Tentative::default();
    let Event::Decided(logged) = &events[1] else {
        unreachable!();
    };
    half.note_decision(&state, logged);
    assert_eq!(state.resolve(&half, by_key(7)).unwrap().decision, second);
    state.apply(&events[1]);
    assert_eq!(found(&state, 7), Ok(second));
    let claim = state.resolve(&Tentative::default(), by_key(7)).unwrap();
    assert_eq!(verdict(&mut state, claim), Verdict::Ignored);
}

#[test]
fn decisions_of_the_same_group_are_found_and_forgotten_with_it() {
    let state = limited(10);
    let mut tentative = Tentative::default();
    let note = |tentative: &mut Tentative, counter| {
        let Event::Decided(logged) = keyed(decision(counter, 0), 7) else {
            unreachable!();
        };
        tentative.note_decision(&state, &logged);
    };
    note(&mut tentative, 1);
    let claim = state.resolve(&tentative, by_key(7)).unwrap();
    assert_eq!(claim.decision, decision(1, 0));
    note(&mut tentative, 2);
    assert!(state.resolve(&tentative, by_key(7)).is_err());
    tentative.clear();
    let refused = state.resolve(&tentative, by_key(7)).unwrap_err();
    assert!(refused.contains("no keys at all"), "{refused}");
}

#[test]
fn keys_are_remembered_for_the_window_and_ten_minutes() {
    let mut state = limited(10);
    state.apply(&keyed(decision(1, 0), 1));
    let linger = 600_000;
    state.advance(at(HOUR + linger));
    assert_eq!(found(&state, 1), Ok(decision(1, 0)));
    // In whole stretches of ten minutes.
    state.advance(at(HOUR + 2 * linger));
    assert!(error(&state, 1).contains("its window has closed"));
    assert_eq!(state.experiments[&experiment()].keys, RewardKeys::default());
}

#[test]
fn the_oldest_keys_are_evicted_and_it_is_told() {
    let mut state = limited(2);
    for counter in [3, 1, 2, 4] {
        let number = counter as u8;
        state.apply(&keyed(decision(counter, counter * 1000), number));
    }
    for evicted in [1, 2] {
        let why = error(&state, evicted);
        assert!(
            why.contains("2 keys of decisions since") && why.contains("limits.reward_keys is 2"),
            "{why}"
        );
        assert!(why.len() < 400, "{why}");
    }
    assert_eq!(found(&state, 3), Ok(decision(3, 3000)));
    assert_eq!(found(&state, 4), Ok(decision(4, 4000)));
    assert_eq!(state.take_evicted(), [(name(), 2)]);
    assert_eq!(state.take_evicted(), []);
    state.advance(at(3 * HOUR));
    assert!(!error(&state, 1).contains("evicted"));
}

#[test]
fn rewards_of_an_old_epoch_are_told_so_by_key_as_by_id() {
    let mut state = limited(10);
    state.apply(&keyed(decision(1, 0), 1));
    let mut next = adopted(rule(Aggregate::Max), None);
    next.epoch = 2;
    state.apply(&Event::PolicyAdopted(Box::new(next)));
    let claim = state.resolve(&Tentative::default(), by_key(1)).unwrap();
    assert_eq!(verdict(&mut state, claim), Verdict::Retired);
}

#[derive(Debug, Clone)]
enum Step {
    /// Counter, time behind the newest, key, whether in place of the decision before.
    Decide(u64, u8, bool),
    Advance(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..400_000_u64, 0..5_u8, any::<bool>())
            .prop_map(|(behind, key, instead)| Step::Decide(behind, key, instead)),
        2 => (0..HOUR / 2).prop_map(Step::Advance),
    ]
}

proptest! {
    /// The newest keys whose stretch is remembered, whenever the state is advanced and so whenever it forgets.
    #[test]
    fn what_is_remembered_does_not_depend_on_when_it_is_forgotten(
        steps in prop::collection::vec(step(), 0..60),
        limit in 1..8_usize,
    ) {
        let (mut live, mut recovered) = (limited(limit), limited(limit));
        let mut model: Vec<(Decision, u8)> = Vec::new();
        let mut last: Option<(Decision, u8)> = None;
        let mut now = 1_000_000;
        for (counter, step) in (1..).zip(&steps) {
            match step {
                Step::Decide(behind, number, instead) => {
                    let made = decision(counter, now - behind);
                    let mut event = keyed(made, *number);
                    if let (true, Some((first, same))) = (*instead, last)
                        && model.iter().any(|(kept, _)| kept.sequence == first.sequence)
                    {
                        let Event::Decided(logged) = &mut event else { unreachable!() };
                        logged.key = Some(key(same));
                        logged.instead_of = Some(first.sequence);
                        model.retain(|(kept, _)| kept.sequence != first.sequence);
                        model.push((made, same));
                    } else {
                        model.push((made, *number));
                    }
                    last = model.last().copied();
                    live.apply(&event);
                    recovered.apply(&event);
                    model.sort_by_key(|(made, _)| (made.at, made.sequence));
                    while model.len() > limit {
                        model.remove(0);
                    }
                }
                Step::Advance(by) => {
                    now += by;
                    live.advance(at(now));
                }
            }
        }
        live.advance(at(now));
        recovered.advance(at(now));
        let kept = |state: &State| state.experiments[&experiment()].keys.clone();
        let (mut live_keys, mut recovered_keys) = (kept(&live), kept(&recovered));
        live_keys.take_untold();
        recovered_keys.take_untold();
        prop_assert_eq!(live_keys, recovered_keys);
        for number in 0..5 {
            let made: Vec<_> = model
                .iter()
                .filter(|(made, same)| *same == number && made.at.plus(HOUR + 600_000) > at(now))
                .map(|(made, _)| *made)
                .collect();
            match found(&live, number) {
                Ok(found) if made.len() == 1 => prop_assert_eq!(found, made[0]),
                // Some stretches are remembered a little longer.
                Ok(found) => prop_assert!(made.is_empty() && model.iter().any(|(made, _)| *made == found)),
                Err(why) if why.contains("several") => prop_assert!(model.iter().filter(|(_, same)| *same == number).count() > 1),
                Err(_) => prop_assert!(made.is_empty()),
            }
        }
    }
}
