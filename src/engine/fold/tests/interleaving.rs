//! What the journal holds gives the same posteriors in any order, however often an event is repeated and whenever windows are closed.

use proptest::prelude::*;

use super::super::super::allocate::{Admission, arm_states};
use super::super::super::fixture;
use super::*;
use crate::policy::Memory;
use crate::policy::thompson::Thompson;

/// Counters from here on belong to decisions whose arm fails; a failure counts only in place of a reward, so those get none.
const FAILING: u64 = 10;

fn kept(reward: RewardRule) -> State {
    let mut state = State::new(Limits::default());
    state.apply(&Event::Started {
        at: at(0),
        origin: ORIGIN,
    });
    state.apply(&Event::PolicyAdopted(Box::new(PolicyAdopted {
        statistics: Statistics {
            memory: Memory::HalfLife(24 * HOUR),
            importance: Some(0.5),
            regression: None,
        },
        ..adopted(reward, None)
    })));
    state
}

fn accepted(rule: &RewardRule, counter: u64, index: u64, value: f64) -> Event {
    let decision = decision(counter, counter * 60_000);
    let aggregated = rule.aggregate != Aggregate::First;
    Event::Rewarded(Box::new(Rewarded {
        decision,
        received: decision.at.plus(5 + index),
        at: None,
        metric: None,
        id: aggregated.then(|| index.to_string().into()),
        // Where only the first counts a duplicate is identical, or it would not be one.
        value: if aggregated {
            value
        } else {
            counter as f64 / 4.0
        },
        label: None,
        context: None,
        verdict: Verdict::Accepted,
    }))
}

proptest! {
    #[test]
    fn any_interleaving_with_repetitions_gives_the_same_posteriors(
        values in prop::collection::vec((0..FAILING, -3.0..3.0), 1..30),
        order in prop::collection::vec((any::<prop::sample::Index>(), 0..3 * HOUR), 0..120),
        rest in any::<prop::sample::Index>(),
        aggregate in prop::sample::select(vec![Aggregate::First, Aggregate::Last, Aggregate::Sum, Aggregate::Mean, Aggregate::Max]),
        default in prop::option::of(Just(0.3)),
        learn in prop::sample::select(vec![Learn::Arrival, Learn::Close]),
    ) {
        let reward = RewardRule { default, learn, on_failure: Some(-1.0), ..rule(aggregate) };
        let decisions = (0..FAILING + 4).map(|counter| decided(decision(counter, counter * 60_000)));
        let failures = (FAILING..FAILING + 4).map(|counter| ended(decision(counter, counter * 60_000), 9, Ending::Failed, None));
        let rewards = values.iter().enumerate().map(|(index, (counter, value))| accepted(&reward, *counter, index as u64, *value));
        // Decisions and exchanges happen once; rewards may be read again.
        let once: Vec<_> = decisions.chain(failures).collect();
        let repeated: Vec<_> = rewards.collect();

        let mut straight = kept(reward);
        once.iter().chain(&repeated).for_each(|event| straight.apply(event));

        let mut shuffled = kept(reward);
        let mut left: Vec<_> = once.iter().chain(&repeated).collect();
        for (index, advance) in &order {
            let place = index.index(left.len() + repeated.len());
            if place < left.len() {
                shuffled.apply(left.swap_remove(place));
            } else {
                let seen = &repeated[place - left.len()];
                shuffled.apply(seen);
            }
            // Windows close after an hour and a quarter; ten minutes later they would be forgotten.
            shuffled.advance(at((*advance).min(HOUR)));
        }
        let turn = rest.index(left.len() + 1);
        left.rotate_left(turn);
        for event in left {
            shuffled.apply(event);
        }

        let now = at(4 * HOUR);
        let experiment_of_three = fixture::experiment(Arc::new(Thompson::default()), &[1.0; 3]);
        let [straight, shuffled] = [straight, shuffled].map(|mut state| {
            state.advance(now);
            let tallies = [0, 1, 2].map(|arm| state.tally(experiment(), ArmId(arm)));
            let (allotment, arms) = arm_states(&experiment_of_three, &tallies, &[Admission::FULL; 3], now);
            let posteriors: Vec<_> = arms.into_iter().map(|arm| arm.posterior).collect();
            (tallies, posteriors, allotment.probabilities)
        });
        prop_assert_eq!(straight, shuffled);
    }
}
