//! Decisions that were drawn among the arms that were available.

use super::*;
use crate::engine::contextual::Workspace;
use crate::engine::decide::{decide_among, own_probabilities};
use crate::engine::fixture;
use crate::engine::snapshot::Serving;
use crate::policy::fixed::Fixed;
use crate::verify::{Kind, verify};

const ALL: [f64; 3] = [0.2, 0.3, 0.5];

/// The experiment of these journals as it serves allocation 7.
fn serving() -> Serving {
    let mut experiment = fixture::experiment(Arc::new(Fixed), &[1.0; 3]);
    experiment.id = EXPERIMENT;
    for (arm, id) in experiment.arms.iter_mut().zip(ARMS) {
        arm.id = id;
    }
    fixture::serving(experiment, ALL.to_vec())
}

/// What a server would have drawn and logged without arm `lost`.
fn without(lost: usize, counter: u64, unit: Option<UnitHash>) -> LoggedDecision {
    let (serving, keys) = (serving(), secret().draw_keys());
    let mut workspace = Workspace::default();
    let available = |arm: usize| arm != lost;
    let sequence = sequence(counter);
    let among = decide_among(&serving, unit, sequence, &keys, &mut workspace, &available);
    assert!(among.own && among.draw.arm != lost);
    let mut logged = drawn(counter, unit);
    logged.decision.arm = ARMS[among.draw.arm];
    logged.decision.propensity = among.draw.propensity;
    logged.allocation_version = 7;
    logged.context = LoggedContext::of(None, own_probabilities(&serving, &workspace));
    logged
}

fn journal_of(all: &[LoggedDecision]) -> MemoryStorage {
    let decided = all.iter().cloned().map(Event::Decided);
    let events: Vec<_> = std::iter::once(allocation(7, ALL)).chain(decided).collect();
    journal(&events)
}

/// What verification says of draws.
fn verified(storage: &MemoryStorage) -> Vec<Kind> {
    let found = verify(storage, &[], &mut |_| ()).unwrap();
    let kinds = found.problems.iter().map(|problem| problem.kind);
    kinds
        .filter(|kind| matches!(kind, Kind::Propensity | Kind::Probabilities))
        .collect()
}

#[test]
fn they_are_drawn_again_from_what_was_left_and_verify_agrees() {
    let all: Vec<_> = (0..60)
        .map(|counter| {
            let unit = (counter % 2 == 1).then(|| unit(counter));
            without(counter as usize % 3, counter, unit)
        })
        .collect();
    let storage = journal_of(&all);
    assert_eq!(verified(&storage), []);
    for logged in &all {
        let inspection = look(&id_of(&logged.decision), &storage);
        assert_eq!(inspection.problems, []);
        assert_eq!(inspection.evidence.record.as_ref(), Some(logged));
        let Redraw::Drawn { source, drawn, .. } = &inspection.redraw else {
            panic!("{:?}", inspection.redraw);
        };
        let decision = logged.decision;
        assert_eq!(*drawn, Some((decision.arm, decision.propensity)));
        assert_eq!(*source, Source::Remaining);
        let text = render(&inspection, false);
        assert!(
            text.contains("those of allocation 7 over the arms that were available"),
            "{text}"
        );
        assert!(!text.contains("context"), "{text}");
        let json: Value = serde_json::from_str(&to_json(&inspection)).unwrap();
        assert_eq!(json["draw"]["source"], "remaining");
        assert_eq!(json["record"]["context"], Value::Null);
    }
}

/// Probabilities that fit the draw and add up to 1, and are not those of the allocation.
#[test]
fn both_tell_what_was_not_left_of_the_allocation() {
    let mut forged = without(0, 1, None);
    let own = &mut forged.context.as_mut().unwrap().probabilities;
    own[0].1 = 0.25;
    own[1].1 = 0.75;
    let shares: Vec<f64> = own.iter().map(|(_, share)| *share).collect();
    let arms = own.iter().map(|(arm, _)| *arm);
    let keys = secret().draw_keys();
    let (arm, propensity) = draw_from(&shares, arms, None, sequence(1), &keys).unwrap();
    forged.decision.arm = own[arm].0;
    forged.decision.propensity = propensity;
    let storage = journal_of(std::slice::from_ref(&forged));
    assert_eq!(verified(&storage), [Kind::Probabilities]);
    let inspection = look(&id_of(&forged.decision), &storage);
    assert_eq!(codes(&inspection), ["not_remaining"]);
    // Without the allocation the draw itself can still be made again.
    let storage = journal(&[Event::Decided(forged.clone())]);
    assert_eq!(look(&id_of(&forged.decision), &storage).problems, []);
    assert_eq!(verified(&storage), []);
}

/// A decision that says nothing of its own is held against the allocation that it names.
#[test]
fn without_its_own_probabilities_the_draw_does_not_hold() {
    let mut silent = without(0, 1, None);
    silent.context = None;
    let storage = journal_of(std::slice::from_ref(&silent));
    assert_eq!(verified(&storage), [Kind::Propensity]);
    assert!(!look(&id_of(&silent.decision), &storage).holds());
}
