//! An operator's orders, and named secondary outcomes.

use proptest::prelude::*;

use super::contexts::{LEARNING, upon};
use super::*;
use crate::engine::measures::MAX_METRICS;
use crate::engine::orders::{Order, Ordered};

fn ordered(order: Order, when: u64) -> Event {
    Event::Ordered(Box::new(Ordered {
        at: at(when),
        experiment: experiment(),
        order,
        reason: None,
    }))
}

fn orders(state: &State) -> crate::engine::orders::Orders {
    state.standing(experiment()).unwrap().orders
}

#[test]
fn orders_hold_until_they_are_taken_back_and_through_epochs() {
    let mut state = state(rule(Aggregate::First), None);
    let arm = ArmId(1);
    for (order, undo) in [
        (Order::Pause, Order::Resume),
        (Order::Disable(arm), Order::Enable(arm)),
    ] {
        assert!(state.is_news(experiment(), order) && !state.is_news(experiment(), undo));
        state.apply(&ordered(order, 1));
        assert!(!state.is_news(experiment(), order) && state.is_news(experiment(), undo));
    }
    state.take_changed();
    let mut next = adopted(rule(Aggregate::Max), None);
    next.epoch = 2;
    state.apply(&Event::PolicyAdopted(Box::new(next)));
    assert!(orders(&state).paused && orders(&state).disabled.contains(&arm));
    state.apply(&ordered(Order::Resume, 2));
    state.apply(&ordered(Order::Enable(arm), 2));
    assert!(!orders(&state).paused && orders(&state).disabled.is_empty());
    assert!(!state.is_news(ExperimentId(1), Order::Pause));
    state.apply(&Event::Ordered(Box::new(Ordered {
        at: at(3),
        experiment: ExperimentId(1),
        order: Order::Pause,
        reason: None,
    })));
}

#[test]
fn an_arm_that_begins_anew_has_no_past() {
    let closing = RewardRule {
        default: Some(0.0),
        learn: Learn::Close,
        on_failure: Some(-1.0),
        ..rule(Aggregate::First)
    };
    let mut state = state(closing, None);
    let other = decision(1, 0);
    // Arm 0, four times: rewarded, unrewarded, failed later, journalled later.
    let made = [0, 3, 6, 9].map(|counter| decision(counter, 10));
    for decision in [other, made[0], made[1], made[2]] {
        state.apply(&decided(decision));
    }
    for decision in [other, made[0]] {
        verdict(&mut state, claim(decision, 5, None, 1.0));
    }
    let before = state.tally(experiment(), other.arm);
    let arm = made[0].arm;
    state.apply(&ordered(Order::Reset(arm), 10));
    assert_eq!(state.tally(experiment(), arm), Tally::default());
    state.apply(&decided(made[3]));
    state.apply(&ended(made[2], 20, Ending::Failed, None));
    assert_eq!(
        verdict(&mut state, claim(made[1], 30, None, 1.0)),
        Verdict::Retired
    );
    assert_eq!(state.tally(experiment(), arm), Tally::default());
    assert_eq!(state.tally(experiment(), other.arm), before);
    let new = decision(12, 11);
    state.apply(&decided(new));
    assert_eq!(
        verdict(&mut state, claim(new, 1, None, 4.0)),
        Verdict::Accepted
    );
    state.apply(&decided(decision(15, 12)));
    state.advance(at(3 * HOUR));
    let tally = state.tally(experiment(), arm);
    assert_eq!(
        (
            tally.decisions,
            tally.defaults,
            tally.failures,
            tally.waiting
        ),
        (2, 1, 0, 0)
    );
    assert_eq!((tally.learned.count(), tally.learned.sum()), (2, 4.0));
    // A later reset at an earlier time does not bring anything back.
    state.apply(&ordered(Order::Reset(arm), 5));
    assert_eq!(
        verdict(&mut state, claim(made[1], 30, None, 1.0)),
        Verdict::Retired
    );
}

#[test]
fn a_reset_arm_learns_nothing_from_old_contexts() {
    let policy = PolicyAdopted {
        context: Some(contexts::rule_of(&["category"])),
        statistics: LEARNING,
        ..adopted(
            RewardRule {
                default: Some(0.0),
                ..rule(Aggregate::First)
            },
            None,
        )
    };
    let fold = |reset: bool| {
        let mut state = State::new(Limits::default());
        state.apply(&Event::Started {
            at: at(0),
            origin: ORIGIN,
        });
        state.apply(&Event::PolicyAdopted(Box::new(policy.clone())));
        if reset {
            state.apply(&Event::Decided(upon(decision(0, 1))));
            state.apply(&ordered(Order::Reset(ArmId(0)), 2));
        }
        state.apply(&Event::Decided(upon(decision(3, 3))));
        state.advance(at(3 * HOUR));
        state.tally(experiment(), ArmId(0))
    };
    assert_eq!(fold(true), fold(false));
    assert_eq!(fold(true).defaults, 1);
}

#[test]
fn named_metrics_are_summed_by_arm_up_to_so_many_names() {
    let mut state = state(rule(Aggregate::First), None);
    let mut measure = |counter, name: &str, value| {
        let claim = Claim {
            metric: Some(Name::new(name).unwrap()),
            ..claim(decision(counter, 0), 1, None, value)
        };
        assert_eq!(verdict(&mut state, claim), Verdict::Accepted);
    };
    measure(0, "clicks", 3.0);
    measure(3, "clicks", 0.5);
    measure(1, "clicks", -7.0);
    for number in 1..MAX_METRICS {
        measure(0, &format!("metric-{number}"), 1.0);
    }
    measure(0, "one-too-many", 1.0);
    measure(3, "one-too-many", 1.0);
    measure(6, "clicks", 1.0);
    let sums = |arm| {
        let tally = state.tally(experiment(), ArmId(arm));
        let of_clicks = tally
            .measures
            .iter()
            .find(|(name, _)| name.as_str() == "clicks")
            .map(|(_, moments)| (moments.count(), moments.sum()));
        (
            of_clicks,
            tally.measures.iter().count(),
            tally.measures.unsummed(),
        )
    };
    assert_eq!(sums(0), (Some((3, 4.5)), MAX_METRICS, 2));
    assert_eq!(sums(1), (Some((1, -7.0)), 1, 0));
    assert_eq!(sums(2), (None, 0, 0));
    assert_eq!(
        state.take_changed().into_iter().collect::<Vec<_>>(),
        [experiment()]
    );
}

#[derive(Debug, Clone)]
enum Step {
    /// Made now, journalled when its turn comes.
    Make,
    Journal,
    Fail(prop::sample::Index),
    Post(prop::sample::Index, Option<u64>, f64, bool),
    Advance(u64),
    Reset(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let value = prop_oneof![Just(0.1), Just(-0.7), Just(3.0)];
    let post = (
        any::<prop::sample::Index>(),
        prop::option::of(0..4_u64),
        value,
        prop::bool::weighted(0.2),
    );
    prop_oneof![
        6 => Just(Step::Make),
        6 => Just(Step::Journal),
        1 => any::<prop::sample::Index>().prop_map(Step::Fail),
        8 => post.prop_map(|(which, id, value, metric)| Step::Post(which, id, value, metric)),
        2 => (0..HOUR).prop_map(Step::Advance),
        2 => (0..3_u32).prop_map(Step::Reset),
    ]
}

/// Runs steps through judge and fold; gives the state and the journal.
fn run(steps: &[Step], rule: RewardRule) -> (State, Vec<Event>, u64) {
    let mut state = state(rule, None);
    let mut journal = vec![
        Event::Started {
            at: at(0),
            origin: ORIGIN,
        },
        Event::PolicyAdopted(Box::new(adopted(rule, None))),
    ];
    let (mut made, mut journalled): (Vec<Decision>, usize) = (Vec::new(), 0);
    let mut failed = std::collections::BTreeSet::new();
    let mut now = 1;
    for step in steps {
        now += 3;
        let event = match step {
            Step::Make => {
                made.push(decision(made.len() as u64, now));
                None
            }
            Step::Journal => {
                let next = made.get(journalled).copied();
                journalled += usize::from(next.is_some());
                next.filter(|decision| state.remembers(decision))
                    .map(decided)
            }
            Step::Fail(which) if !made.is_empty() => {
                let decision = *which.get(&made);
                let first = failed.insert(decision.sequence);
                let after = at(now).since(decision.at);
                (first && state.remembers(&decision))
                    .then(|| ended(decision, after, Ending::Failed, None))
            }
            Step::Post(which, id, value, metric) if !made.is_empty() => {
                let decision = *which.get(&made);
                let mut claim = claim(decision, at(now).since(decision.at), *id, *value);
                claim.metric = metric.then(|| Name::new("clicks").unwrap());
                journal.extend(post(&mut state, claim));
                None
            }
            Step::Advance(by) => {
                now += by;
                state.advance(at(now));
                None
            }
            Step::Reset(arm) => Some(ordered(Order::Reset(ArmId(*arm)), now)),
            Step::Fail(_) | Step::Post(..) => None,
        };
        if let Some(event) = event {
            state.apply(&event);
            journal.push(event);
        }
    }
    (state, journal, now)
}

fn folded(journal: &[Event], now: u64) -> State {
    let mut state = State::new(Limits::default());
    for event in journal {
        state.apply(event);
    }
    state.advance(at(now));
    state.take_changed();
    state
}

/// The journal without the resets, and without what they have made undone.
fn without_the_past(journal: &[Event]) -> Vec<Event> {
    let mut resets = std::collections::BTreeMap::new();
    for event in journal {
        if let Event::Ordered(ordered) = event {
            resets.insert(ordered.order.arm(), ordered.at);
        }
    }
    let is_past = |decision: &Decision| {
        let reset = resets.get(&Some(decision.arm));
        reset.is_some_and(|at| decision.at <= *at)
    };
    let kept = |event: &&Event| match event {
        Event::Decided(logged) => !is_past(&logged.decision),
        Event::Ended(outcome) => !is_past(&outcome.decision),
        Event::Rewarded(rewarded) => !is_past(&rewarded.decision),
        Event::Ordered(_) => false,
        _ => true,
    };
    journal.iter().filter(kept).cloned().collect()
}

proptest! {
    #[test]
    fn a_reset_leaves_what_was_never_there_and_recovery_agrees(
        steps in prop::collection::vec(step(), 0..120),
        aggregate in prop::sample::select(vec![Aggregate::First, Aggregate::Last, Aggregate::Max]),
        default in prop::option::of(Just(0.5)),
        on_failure in prop::option::of(Just(-1.0)),
        learn in prop::sample::select(vec![Learn::Arrival, Learn::Close]),
    ) {
        let rule = RewardRule { default, learn, on_failure, ..rule(aggregate) };
        let (mut live, journal, now) = run(&steps, rule);
        for later in [now, now + 90 * HOUR] {
            live.advance(at(later));
            live.take_changed();
            let recovered = folded(&journal, later);
            let fresh = folded(&without_the_past(&journal), later);
            for arm in (0..3).map(ArmId) {
                let tally = live.tally(experiment(), arm);
                prop_assert_eq!(&tally, &recovered.tally(experiment(), arm));
                prop_assert_eq!(&tally, &fresh.tally(experiment(), arm));
            }
        }
        prop_assert_eq!(live, folded(&journal, now + 90 * HOUR));
    }
}
