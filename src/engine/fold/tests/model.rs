//! Random histories, against a model that recomputes everything and against their own replay.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::engine::credited::{Aggregated, Rules};

/// A step of a random history.
#[derive(Debug, Clone)]
enum Step {
    Decide(u64),
    Fail(u64),
    Post {
        counter: u64,
        after: u64,
        id: Option<u64>,
        at: Option<u64>,
        value: f64,
    },
    Advance(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let value = prop_oneof![Just(0.1), Just(-0.7), Just(3.0), Just(2.0), -2.0..7.0];
    let post = (
        0..8_u64,
        0..HOUR + 5000,
        prop::option::of(0..4_u64),
        prop::option::of(0..5_u64),
        value,
    )
        .prop_map(|(counter, after, id, at, value)| Step::Post {
            counter,
            after,
            id,
            at,
            value,
        });
    prop_oneof![
        2 => (0..8_u64).prop_map(Step::Decide),
        1 => (0..8_u64).prop_map(Step::Fail),
        8 => post,
        1 => (0..HOUR).prop_map(Step::Advance),
    ]
}

fn aggregates() -> impl Strategy<Value = Aggregate> {
    prop::sample::select(vec![
        Aggregate::First,
        Aggregate::Last,
        Aggregate::Sum,
        Aggregate::Mean,
        Aggregate::Max,
    ])
}

/// One accepted item as the model keeps it: order of `last`, id, value.
type Accepted = (Timestamp, Option<u64>, f64);

fn model_value(aggregate: Aggregate, items: &[Accepted]) -> f64 {
    let quantum = (1_u64 << 32) as f64;
    let total: i128 = items
        .iter()
        .map(|item| (item.2 * quantum).round_ties_even() as i128)
        .sum();
    match aggregate {
        Aggregate::First => items[0].2,
        Aggregate::Last => {
            items
                .iter()
                .fold(
                    items[0],
                    |last, item| if item.0 >= last.0 { *item } else { last },
                )
                .2
        }
        Aggregate::Max => items.iter().map(|item| item.2).fold(f64::MIN, f64::max),
        Aggregate::Sum => total as f64 / quantum,
        Aggregate::Mean => total as f64 / quantum / items.len() as f64,
    }
}

/// Runs steps through judge and fold; gives the state, the journal, and what the model says was rewarded.
fn run(steps: &[Step], rule: RewardRule) -> (State, Vec<Event>, BTreeMap<u64, Vec<Accepted>>) {
    let mut state = state(rule, None);
    let mut journal = vec![
        Event::Started {
            at: at(0),
            origin: ORIGIN,
        },
        Event::PolicyAdopted(Box::new(adopted(rule, None))),
    ];
    let mut model: BTreeMap<u64, Vec<Accepted>> = BTreeMap::new();
    let (mut made, mut failed) = (BTreeSet::new(), BTreeSet::new());
    let mut now = 0;
    for step in steps {
        match step {
            Step::Decide(counter) => {
                let known = state.remembers(&decision(*counter, counter * 7000));
                if known && made.insert(*counter) {
                    let event = decided(decision(*counter, counter * 7000));
                    state.apply(&event);
                    journal.push(event);
                }
            }
            Step::Fail(counter) => {
                let known = state.remembers(&decision(*counter, counter * 7000));
                if known && failed.insert(*counter) {
                    let event = ended(decision(*counter, counter * 7000), 10, Ending::Failed, None);
                    state.apply(&event);
                    journal.push(event);
                }
            }
            Step::Post {
                counter,
                after,
                id,
                at: client,
                value,
            } => {
                let mut claim = claim(decision(*counter, counter * 7000), *after, *id, *value);
                claim.at = client.map(at);
                let order = claim.at.unwrap_or(claim.received);
                if let Ok(event) = post(&mut state, claim) {
                    let accepted = matches!(&event, Event::Rewarded(rewarded) if rewarded.verdict == Verdict::Accepted);
                    journal.push(event);
                    if accepted {
                        model
                            .entry(*counter)
                            .or_default()
                            .push((order, *id, *value));
                    }
                }
            }
            Step::Advance(by) => {
                now += by;
                state.advance(at(now));
            }
        }
    }
    (state, journal, model)
}

type Sums = BTreeMap<ArmId, Moments>;

/// Rewards by arm, and all credits by arm, summed over single decisions; and whether all that was credited was decided.
fn credits(journal: &[Event], now: Timestamp) -> (Sums, Sums, bool) {
    let mut rules = Rules::default();
    let mut decisions: BTreeMap<SequenceKey, Decision> = BTreeMap::new();
    let mut several: BTreeMap<SequenceKey, (Decision, Aggregated)> = BTreeMap::new();
    let mut failures: BTreeMap<SequenceKey, (Decision, f64)> = BTreeMap::new();
    for event in journal {
        match event {
            Event::PolicyAdopted(adopted) => rules.adopt(adopted),
            Event::Decided(logged) => {
                decisions.insert(logged.decision.sequence, logged.decision);
            }
            Event::Ended(outcome) => {
                let decision = outcome.decision;
                let first = !several.contains_key(&decision.sequence);
                if let Some(value) = rules.failure_credit(outcome).filter(|_| first) {
                    failures.insert(decision.sequence, (decision, value));
                }
            }
            Event::Rewarded(rewarded) if rewarded.verdict == Verdict::Accepted => {
                let decision = rewarded.decision;
                let known = several.entry(decision.sequence);
                let (_, value) = known.or_insert((decision, Aggregated::default()));
                value.add(rewarded, rules.of(&decision).unwrap());
            }
            _ => {}
        }
    }
    let (mut rewards, mut learned) = (Sums::new(), Sums::new());
    for (decision, value) in several.values() {
        let value = value.value().unwrap();
        rewards.entry(decision.arm).or_default().add(value, 1);
        learned.entry(decision.arm).or_default().add(value, 1);
    }
    for (decision, value) in failures.values() {
        learned.entry(decision.arm).or_default().add(*value, 1);
    }
    let credited = |key: &SequenceKey| several.contains_key(key) || failures.contains_key(key);
    for decision in decisions.values().filter(|made| !credited(&made.sequence)) {
        if let Some(value) = rules.default_credit(decision, now) {
            learned.entry(decision.arm).or_default().add(value, 1);
        }
    }
    let mut keys = several.keys().chain(failures.keys());
    let whole = keys.all(|key| decisions.contains_key(key));
    (rewards, learned, whole)
}

proptest! {
    #[test]
    fn aggregates_agree_with_a_model_that_recomputes_them(
        steps in prop::collection::vec(step(), 0..120),
        aggregate in aggregates(),
        bounded in any::<bool>(),
        learn in prop::sample::select(vec![Learn::Arrival, Learn::Close]),
    ) {
        let kind = if bounded { RewardKind::Bounded { min: 0.0, max: 6.0 } } else { RewardKind::Real };
        let (mut state, _, model) = run(&steps, RewardRule { kind, learn, ..rule(aggregate) });
        state.advance(at(90 * HOUR));
        let mut expected: BTreeMap<ArmId, Moments> = BTreeMap::new();
        for (counter, items) in &model {
            let ids: Vec<_> = items.iter().filter_map(|item| item.1).collect();
            prop_assert!(aggregate == Aggregate::First || ids.iter().collect::<BTreeSet<_>>().len() == ids.len());
            let value = model_value(aggregate, items);
            prop_assert!(kind.check(value).is_ok());
            expected.entry(decision(*counter, 0).arm).or_default().add(value, 1);
        }
        for arm in 0..3 {
            let tally = state.tally(experiment(), ArmId(arm));
            let expected = expected.get(&ArmId(arm)).copied().unwrap_or_default();
            prop_assert_eq!(tally.rewards, expected);
            prop_assert_eq!(tally.learned, expected);
        }
    }

    #[test]
    fn the_recovered_state_is_the_live_state(
        steps in prop::collection::vec(step(), 0..120),
        aggregate in aggregates(),
        default in prop::option::of(Just(0.5)),
        on_failure in prop::option::of(Just(-1.0)),
        learn in prop::sample::select(vec![Learn::Arrival, Learn::Close]),
    ) {
        let rule = RewardRule { default, learn, on_failure, ..rule(aggregate) };
        let (mut live, journal, _) = run(&steps, rule);
        let mut recovered = State::new(Limits::default());
        for event in &journal {
            recovered.apply(event);
        }
        let now = at(90 * HOUR);
        live.advance(now);
        recovered.advance(now);
        live.take_changed();
        recovered.take_changed();
        prop_assert_eq!(live, recovered);
    }

    /// Decision by decision it is the same as in sum. Where a reward stands for a decision that was never journalled, it stands in the way of
    /// one default credit of its bucket (see `closing`), so then only rewards are compared.
    #[test]
    fn what_single_decisions_are_credited_with_adds_up_to_the_tallies(
        steps in prop::collection::vec(step(), 0..120),
        aggregate in aggregates(),
        default in prop::option::of(Just(0.5)),
        on_failure in prop::option::of(Just(-1.0)),
    ) {
        let rule = RewardRule { default, on_failure, ..rule(aggregate) };
        let (mut state, journal, _) = run(&steps, rule);
        let now = at(90 * HOUR);
        state.advance(now);
        let (rewards, learned, whole) = credits(&journal, now);
        for arm in (0..3).map(ArmId) {
            let tally = state.tally(experiment(), arm);
            prop_assert_eq!(tally.rewards, rewards.get(&arm).copied().unwrap_or_default());
            if whole {
                prop_assert_eq!(tally.learned, learned.get(&arm).copied().unwrap_or_default());
            }
        }
    }

    #[test]
    fn the_order_of_rewards_and_their_repetitions_do_not_matter(
        values in prop::collection::vec((0..4_u64, -3.0..3.0), 1..30),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..90),
        aggregate in prop::sample::select(vec![Aggregate::Sum, Aggregate::Mean, Aggregate::Max, Aggregate::Last]),
    ) {
        let claims: Vec<_> = values.iter().enumerate().map(|(index, (counter, value))| {
            let mut claim = claim(decision(*counter, 0), 5, Some(index as u64), *value);
            claim.at = Some(at(index as u64));
            claim
        }).collect();
        let mut straight = state(rule(aggregate), None);
        for claim in &claims {
            verdict(&mut straight, claim.clone());
        }
        let mut shuffled = state(rule(aggregate), None);
        for index in &order {
            verdict(&mut shuffled, index.get(&claims).clone());
        }
        for claim in claims.iter().rev() {
            verdict(&mut shuffled, claim.clone());
        }
        for arm in 0..3 {
            prop_assert_eq!(straight.tally(experiment(), ArmId(arm)), shuffled.tally(experiment(), ArmId(arm)));
        }
    }
}
