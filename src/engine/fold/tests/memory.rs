//! What is kept beyond counts and sums: rewards by the age of their decisions, importance-weighted sums, decisions in flight.

use proptest::prelude::*;

use super::super::super::allocate::{Admission, arm_states};
use super::super::super::fixture;
use super::super::super::learned::Discounted;
use super::*;
use crate::policy::thompson::Thompson;
use crate::policy::{ArmPrior, Memory, Posterior};

const ARM: ArmId = ArmId(0);
const DAY: u64 = 24 * HOUR;

/// Rewards of the last day, with a half-life of four days.
const FADING: Statistics = Statistics {
    memory: Memory::HalfLife(4 * DAY),
    importance: None,
    regression: None,
};

fn day(aggregate: Aggregate) -> RewardRule {
    RewardRule {
        window: DAY,
        ..rule(aggregate)
    }
}

fn keeping(statistics: Statistics, reward: RewardRule) -> State {
    let mut state = State::new(Limits::default());
    for origin in [ORIGIN, ORIGIN + 1] {
        state.apply(&Event::Started { at: at(0), origin });
    }
    state.apply(&Event::PolicyAdopted(Box::new(PolicyAdopted {
        statistics,
        ..adopted(reward, None)
    })));
    state
}

/// A decision of the first arm.
fn first(counter: u64, made: u64) -> Decision {
    Decision {
        arm: ARM,
        ..decision(counter, made)
    }
}

fn counted(state: &State, statistics: Statistics, now: u64) -> Discounted {
    state
        .tally(experiment(), ARM)
        .detail
        .at(&statistics, at(now))
}

#[test]
fn a_late_reward_weighs_by_the_age_of_its_decision() {
    let (mut prompt, mut late) = (
        keeping(FADING, day(Aggregate::First)),
        keeping(FADING, day(Aggregate::First)),
    );
    for state in [&mut prompt, &mut late] {
        state.apply(&decided(first(0, 0)));
        state.apply(&decided(first(1, 20 * HOUR)));
    }
    verdict(&mut prompt, claim(first(0, 0), 1, None, 1.0));
    verdict(&mut late, claim(first(1, 20 * HOUR), 1, None, 5.0));
    verdict(&mut late, claim(first(0, 0), DAY, None, 1.0));
    verdict(&mut prompt, claim(first(1, 20 * HOUR), DAY, None, 5.0));
    // Neither when the rewards came nor in which order matters.
    assert_eq!(
        prompt.tally(experiment(), ARM),
        late.tally(experiment(), ARM)
    );
    for (now, age) in [(2 * DAY, 2.0), (4 * DAY, 4.0), (11 * DAY, 11.0)] {
        let discounted = counted(&late, FADING, now);
        let weight = |days: f64| 0.5_f64.powf(days / 4.0);
        let expected = weight(age) + weight(age - 20.0 / 24.0);
        // A bucket is an eighth of a day wide and weighs as its middle does: an error of at most 1.1 %.
        assert!((discounted.earned.count / expected - 1.0).abs() < 0.011);
        let mean = (weight(age) + 5.0 * weight(age - 20.0 / 24.0)) / expected;
        assert!((discounted.earned.mean().unwrap() / mean - 1.0).abs() < 0.011);
    }
}

#[test]
fn a_prior_stays_as_it_is_when_everything_else_is_forgotten() {
    let prior = ArmPrior::Beta {
        alpha: 2.0,
        beta: 3.0,
    };
    for (memory, forgotten) in [
        (Memory::HalfLife(DAY), 41 * DAY + HOUR),
        (Memory::SlidingWindow(2 * DAY), 2 * DAY + 2 * HOUR),
    ] {
        let statistics = memory.into();
        let binary = RewardRule {
            kind: RewardKind::Binary,
            ..day(Aggregate::First)
        };
        let mut state = keeping(statistics, binary);
        for counter in 0..300 {
            state.apply(&decided(first(counter, counter)));
            verdict(&mut state, claim(first(counter, counter), 5, None, 1.0));
        }
        let experiment_of_three = fixture::experiment(
            Arc::new(Thompson {
                prior: Some(prior),
                memory,
            }),
            &[1.0; 3],
        );
        let mut last = f64::INFINITY;
        for step in 0..20 {
            let now = forgotten * step / 19;
            state.advance(at(now));
            let tallies = [0, 1, 2].map(|arm| state.tally(experiment(), ArmId(arm)));
            let (allotment, arms) = arm_states(
                &experiment_of_three,
                &tallies,
                &[Admission::FULL; 3],
                at(now),
            );
            let probabilities = allotment.probabilities;
            let Posterior::Beta { alpha, beta, .. } = arms[0].posterior else {
                panic!("{:?}", arms[0].posterior);
            };
            assert!(
                alpha >= 2.0 && beta == 3.0 && alpha <= last,
                "{alpha} {beta}"
            );
            last = alpha;
            // Counts of the epoch are not forgotten, nor is the arm's age.
            assert_eq!(tallies[0].learned.count(), 300);
            if step == 0 {
                assert!(alpha > 300.0 && probabilities[0] > 0.99);
            }
            if step == 19 {
                assert_eq!(alpha, 2.0);
                assert!((probabilities[0] - 1.0 / 3.0).abs() < 1e-9);
                // And no memory is used for what no longer counts.
                assert_eq!(*tallies[0].detail, *Tally::default().detail);
            }
        }
    }
}

#[test]
fn a_default_weighs_as_a_reward_for_the_same_decision_would() {
    let closing = RewardRule {
        default: Some(0.25),
        learn: Learn::Close,
        ..day(Aggregate::First)
    };
    let arriving = RewardRule {
        default: None,
        learn: Learn::Arrival,
        ..closing
    };
    for memory in [Memory::HalfLife(DAY), Memory::SlidingWindow(3 * DAY)] {
        let statistics = memory.into();
        let mut states = [closing, closing, arriving].map(|rule| keeping(statistics, rule));
        for counter in 0..40 {
            let decision = first(counter, counter * HOUR);
            for (index, state) in states.iter_mut().enumerate() {
                state.advance(decision.at);
                state.apply(&decided(decision));
                if index > 0 {
                    verdict(state, claim(decision, HOUR, None, 0.25));
                }
            }
        }
        for now in [66 * HOUR, 80 * HOUR, 95 * HOUR] {
            let [defaulted, rewarded, arrived] = states.each_mut().map(|state| {
                state.advance(at(now));
                counted(state, statistics, now).earned
            });
            assert!(defaulted.count > 1.0);
            // Both are learned at the close, and so by the same bucket.
            assert_eq!(defaulted.count, rewarded.count);
            assert!((defaulted.sum - rewarded.sum).abs() < 1e-12);
            // Learned on arrival, a reward has its decision's own time: less than a bucket apart.
            let apart = arrived.count / rewarded.count - 1.0;
            assert!(apart.abs() < 0.04, "{arrived:?} {rewarded:?}");
        }
    }
}

#[test]
fn a_correction_replaces_what_it_corrects_where_that_was_counted() {
    let weighted = Statistics {
        importance: Some(0.1),
        ..FADING
    };
    for learn in [Learn::Arrival, Learn::Close] {
        let last = RewardRule {
            learn,
            ..day(Aggregate::Last)
        };
        let (mut corrected, mut right) = (keeping(weighted, last), keeping(weighted, last));
        for (counter, made) in [(0, 0), (1, 11 * HOUR), (2, 23 * HOUR)] {
            let decision = first(counter, made);
            for state in [&mut corrected, &mut right] {
                state.apply(&decided(decision));
            }
            // Twelve hours later the buckets are others.
            verdict(&mut corrected, claim(decision, HOUR, Some(1), 7.5));
            verdict(&mut corrected, claim(decision, 13 * HOUR, Some(2), 2.25));
            verdict(&mut right, claim(decision, 14 * HOUR, Some(2), 2.25));
        }
        for now in [24 * HOUR, 30 * HOUR, 80 * HOUR] {
            corrected.advance(at(now));
            right.advance(at(now));
            let [corrected, right] =
                [&corrected, &right].map(|state| state.tally(experiment(), ARM));
            assert_eq!(corrected, right);
            if now == 80 * HOUR || learn == Learn::Arrival {
                assert_eq!((right.learned.count(), right.learned.sum()), (3, 6.75));
            }
        }
    }
}

#[test]
fn importance_weighs_rewards_defaults_and_failures_by_their_logged_propensities() {
    let weighted = Statistics {
        importance: Some(0.05),
        ..Statistics::SCALAR
    };
    let crediting = RewardRule {
        default: Some(0.2),
        on_failure: Some(-1.0),
        learn: Learn::Close,
        ..day(Aggregate::Last)
    };
    let drawn = |counter: u64, propensity: f64| Decision {
        propensity,
        ..first(counter, counter)
    };
    let (rewarded, unrewarded, failed, corrected) =
        (drawn(0, 0.25), drawn(1, 0.5), drawn(2, 0.2), drawn(3, 0.95));
    let weight = |decision: Decision| 1.0 / (decision.propensity + 0.05);
    let mut state = keeping(weighted, crediting);
    for decision in [rewarded, unrewarded, failed, corrected] {
        state.apply(&decided(decision));
    }
    verdict(&mut state, claim(rewarded, 5, None, 3.0));
    verdict(&mut state, claim(corrected, 5, Some(0), 9.0));
    state.apply(&ended(failed, 5, Ending::Failed, None));
    state.advance(at(HOUR));
    assert_eq!(counted(&state, weighted, HOUR), Discounted::default());
    verdict(&mut state, claim(corrected, HOUR, Some(1), 4.0));
    let expected = [
        (weight(rewarded), 3.0),
        (weight(unrewarded), 0.2),
        (weight(failed), -1.0),
        (weight(corrected), 4.0),
    ];
    for now in [26 * HOUR, 90 * DAY] {
        state.advance(at(now));
        let sums = counted(&state, weighted, now).importance;
        let weights: f64 = expected.iter().map(|(weight, _)| weight).sum();
        let rewards: f64 = expected.iter().map(|(weight, value)| weight * value).sum();
        // In fixed point: 2^-32 for each credit.
        assert!((sums.weights - weights).abs() < 1e-8);
        assert!((sums.rewards - rewards).abs() < 1e-8);
    }
}

#[test]
fn a_decision_is_in_flight_until_something_is_learned_of_it() {
    for (default, learn, after_reward) in [
        (None, Learn::Arrival, 1),
        (Some(0.0), Learn::Arrival, 1),
        (None, Learn::Close, 2),
        (Some(0.0), Learn::Close, 2),
    ] {
        let reward = RewardRule {
            default,
            learn,
            ..day(Aggregate::Last)
        };
        let mut state = keeping(Statistics::SCALAR, reward);
        let waiting = |state: &State| state.tally(experiment(), ARM).waiting;
        for counter in 0..2 {
            state.apply(&decided(first(counter, counter)));
            assert_eq!(waiting(&state), counter + 1);
        }
        verdict(&mut state, claim(first(0, 0), 9, Some(0), 1.0));
        assert_eq!(waiting(&state), after_reward);
        verdict(&mut state, claim(first(0, 0), 10, Some(1), 2.0));
        assert_eq!(waiting(&state), after_reward);
        let mut retired = state.clone();
        retired.apply(&Event::PolicyRetired {
            at: at(20),
            experiment: experiment(),
        });
        // The unrewarded one has been given up; the reward will still be learned.
        assert_eq!(waiting(&retired), after_reward - 1);
        for state in [&mut state, &mut retired] {
            state.advance(at(3 * DAY));
            assert_eq!(waiting(state), 0);
        }
        assert_eq!(
            state.tally(experiment(), ARM).learned.count(),
            1 + u64::from(default.is_some())
        );
    }
}

/// What happens to one of sixteen decisions, of two replicas in turn.
#[derive(Debug, Clone)]
struct Happening {
    counter: u64,
    after: u64,
    /// The value of a reward; `None`: the arm fails.
    value: Option<f64>,
}

fn happening() -> impl Strategy<Value = Happening> {
    let value = prop::option::weighted(0.9, prop_oneof![Just(0.1), Just(-0.7), -2.0..7.0]);
    (0..16_u64, 1..DAY, value).prop_map(|(counter, after, value)| Happening {
        counter,
        after,
        value,
    })
}

proptest! {
    #[test]
    fn the_sums_of_two_replicas_are_those_of_one_that_saw_both(
        happenings in prop::collection::vec(happening(), 0..60),
        default in prop::option::of(Just(0.3)),
        learn in prop::sample::select(vec![Learn::Arrival, Learn::Close]),
        aggregate in prop::sample::select(vec![Aggregate::First, Aggregate::Last, Aggregate::Max]),
        memory in prop::sample::select(vec![Memory::Forever, Memory::HalfLife(DAY), Memory::SlidingWindow(2 * DAY)]),
        now in 0..6 * DAY,
    ) {
        let statistics = Statistics { memory, importance: Some(0.02), regression: None };
        let reward = RewardRule { default, learn, on_failure: Some(-1.0), ..day(aggregate) };
        let made_by = |counter: u64| {
            let mut decision = first(counter, counter * 3 * HOUR);
            decision.sequence.origin = ORIGIN + counter % 2;
            decision.propensity = (counter + 1) as f64 / 17.0;
            decision
        };
        let mut both = keeping(statistics, reward);
        let mut replicas = [both.clone(), both.clone()];
        for counter in 0..16 {
            let event = decided(made_by(counter));
            both.apply(&event);
            replicas[counter as usize % 2].apply(&event);
        }
        for (index, happening) in happenings.iter().enumerate() {
            let decision = made_by(happening.counter);
            let replica = &mut replicas[happening.counter as usize % 2];
            let event = if let Some(value) = happening.value {
                post(replica, claim(decision, happening.after, Some(index as u64), value)).ok()
            } else {
                Some(ended(decision, happening.after, Ending::Failed, None))
            };
            if let Some(event) = event {
                if happening.value.is_none() {
                    replica.apply(&event);
                }
                both.apply(&event);
            }
        }
        both.advance(at(now));
        for replica in &mut replicas {
            replica.advance(at(now));
        }
        let whole = both.tally(experiment(), ARM);
        let [one, other] = [&replicas[0], &replicas[1]].map(|replica| replica.tally(experiment(), ARM));
        let (mut learned, mut rewards) = (one.learned, one.rewards);
        learned.merge(&other.learned);
        rewards.merge(&other.rewards);
        prop_assert_eq!((learned, rewards), (whole.learned, whole.rewards));
        prop_assert_eq!(
            (one.decisions + other.decisions, one.defaults + other.defaults, one.failures + other.failures),
            (whole.decisions, whole.defaults, whole.failures)
        );
        prop_assert_eq!(one.waiting + other.waiting, whole.waiting);
        prop_assert_eq!(one.detail.plus(&other.detail), (*whole.detail).clone());
    }
}
