//! Arms whose endpoints are lost, and that come back.

use super::*;
use crate::chance::DrawKeys;
use crate::engine::contextual::Workspace;
use crate::engine::decide::decide;
use crate::experiment::decision::Reason;
use crate::experiment::id::SequenceKey;
use crate::policy::best::probability_best;
use crate::policy::thompson::Thompson;

const FLOOR: f64 = 0.1;

/// Thompson sampling over three arms with a floor.
fn three(text: &str) -> Experiment {
    let mut stars = experiment("stars", text, &["a", "b", "c"]);
    stars.policy = Arc::new(Thompson::default());
    stars.floor = FLOOR;
    stars
}

fn tell(learner: &Learner<&'static str>, stars: &Experiment, arms: &[(usize, bool)]) {
    let arms = arms.iter().map(|(arm, up)| (stars.arms[*arm].id, *up));
    learner.availability().tell(stars.id, arms);
}

fn healthy(serving: &Serving) -> Vec<bool> {
    serving.arms.iter().map(|arm| arm.healthy).collect()
}

/// The journal's allocations, in their order: version and number of arms of positive probability.
fn journalled(rig: &Rig) -> Vec<(String, usize)> {
    let written = rig.storage.contents().concat();
    let lines = String::from_utf8(written).unwrap();
    let json = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
    lines
        .lines()
        .filter(|line| line.contains("\"type\":\"allocation\""))
        .map(json)
        .map(|line| {
            let arms = line["arms"].as_array().unwrap();
            let drawn = arms.iter().filter(|arm| arm["probability"] != 0.0);
            (
                line["allocation_version"].as_str().unwrap().to_owned(),
                drawn.count(),
            )
        })
        .collect()
}

#[test]
fn the_rest_is_computed_anew_and_the_arm_comes_back() {
    let rig = Rig::new();
    let stars = Arc::new(three("1"));
    let (learner, _) = start(&rig, &[&stars]);
    for (counter, (arm, value)) in [(0, 1.0), (0, 1.0), (1, 1.0), (1, 0.0), (2, 0.0)]
        .into_iter()
        .enumerate()
    {
        let decision = rig.decision(&stars, arm, counter as u64);
        rig.reward(decision, value).unwrap();
    }
    let count = |serving: &Serving| -> u64 {
        serving
            .arms
            .iter()
            .map(|arm| arm.tally.learned.count())
            .sum()
    };
    let before = wait_for(&learner, |serving| count(serving) == 5);
    assert_eq!(healthy(&before), [true; 3]);
    tell(&learner, &stars, &[(0, false)]);
    let without = wait_for(&learner, |serving| {
        serving.allocation.probabilities[0] == 0.0
    });
    assert_eq!(healthy(&without), [false, true, true]);
    assert!(
        without.arms.iter().all(|arm| arm.enabled),
        "no order was given"
    );
    assert_eq!(without.allocation.version, before.allocation.version + 1);
    let posteriors: Vec<_> = without.arms[1..].iter().map(|arm| arm.posterior).collect();
    let best = probability_best(&posteriors, stars.reward.goal);
    for (index, best) in best.iter().enumerate() {
        let probability = without.allocation.probabilities[index + 1];
        assert_eq!(without.arms[index + 1].probability_best, *best);
        assert_eq!(probability, FLOOR + (1.0 - 2.0 * FLOOR) * best);
    }
    assert_eq!(without.arms[0].probability_best, 0.0);
    let renormalised =
        before.allocation.probabilities[1] / (1.0 - before.allocation.probabilities[0]);
    assert!((without.allocation.probabilities[1] - renormalised).abs() > 0.01);
    // Told again, nothing happens.
    tell(&learner, &stars, &[(0, false), (1, true)]);
    tell(&learner, &stars, &[(0, true)]);
    let after = wait_for(&learner, |serving| {
        serving.arms[0].healthy && serving.allocation.probabilities[0] > 0.0
    });
    assert_eq!(
        after.allocation.probabilities,
        before.allocation.probabilities
    );
    assert_eq!(after.allocation.version, before.allocation.version + 2);
    let journalled = journalled(&rig);
    let last: Vec<_> = journalled
        .iter()
        .rev()
        .map(|(_, drawn)| *drawn)
        .take(3)
        .collect();
    assert_eq!(last, [3, 2, 3]);
    assert_eq!(
        journalled.last().unwrap().0,
        after.allocation.version.to_string()
    );
    assert!(
        !String::from_utf8_lossy(&rig.storage.contents().concat())
            .contains("\"type\":\"operator\"")
    );
}

#[test]
fn one_arm_that_is_left_is_certain_and_with_none_the_baseline_serves() {
    let rig = Rig::new();
    let stars = Arc::new(three("1"));
    let (learner, _) = start(&rig, &[&stars]);
    tell(&learner, &stars, &[(0, false), (2, false)]);
    wait_for(&learner, |serving| {
        serving.allocation.probabilities == [0.0, 1.0, 0.0]
    });
    tell(&learner, &stars, &[(1, false)]);
    let none = wait_for(&learner, |serving| {
        serving.allocation.probabilities == [0.0; 3]
    });
    assert_eq!(healthy(&none), [false; 3]);
    let sequence = SequenceKey {
        origin: 1,
        worker: 0,
        counter: 1,
    };
    let keys = DrawKeys::derive(&[1; 32]);
    let draw = decide(&none, None, sequence, &keys, &mut Workspace::default());
    assert_eq!((draw.arm, draw.reason), (stars.baseline, Reason::Fallback));
    tell(&learner, &stars, &[(2, true)]);
    wait_for(&learner, |serving| {
        serving.allocation.probabilities == [0.0, 0.0, 1.0]
    });
}

/// Sticky units of a bandit move at most once in a while, but not from an arm that cannot serve them.
#[test]
fn sticky_units_do_not_wait() {
    let rig = Rig::new();
    let stars = Arc::new(sticky("1"));
    let (learner, _) = start(&rig, &[&stars]);
    let first = serving(&learner, 0);
    let favoured = usize::from(first.allocation.probabilities[0] < 0.5);
    assert_eq!(first.allocation.version, 1);
    tell(&learner, &stars, &[(favoured, false)]);
    let moved = wait_for(&learner, |serving| serving.allocation.version == 2);
    assert_eq!(moved.allocation.probabilities[favoured], 0.0);
    assert_eq!(moved.allocation.probabilities[1 - favoured], 1.0);
    tell(&learner, &stars, &[(favoured, true)]);
    let back = wait_for(&learner, |serving| serving.allocation.version == 3);
    assert_eq!(
        back.allocation.probabilities,
        first.allocation.probabilities
    );
}

#[test]
fn it_stays_through_reloads_and_not_through_restarts() {
    let mut rig = Rig::new();
    let stars = Arc::new(three("1"));
    let (learner, _) = start(&rig, &[&stars]);
    tell(&learner, &stars, &[(1, false)]);
    let without = wait_for(&learner, |serving| {
        serving.allocation.probabilities[1] == 0.0
    });
    let adopt = |experiment: Experiment| {
        let all = vec![Arc::new(experiment)];
        learner.adopt(all, Arc::new("second")).unwrap();
    };
    adopt(three("2"));
    let reloaded = serving(&learner, 0);
    assert_eq!(healthy(&reloaded), [true, false, true]);
    assert_eq!(
        reloaded.allocation.probabilities,
        without.allocation.probabilities
    );
    // The arm is known by its id, not by its place.
    let mut turned = three("3");
    turned.arms.rotate_left(1);
    adopt(turned);
    let turned = serving(&learner, 0);
    assert_eq!(healthy(&turned), [false, true, true]);
    assert_eq!(turned.allocation.probabilities[0], 0.0);
    // An arm that is gone and comes back is another one.
    let mut fewer = three("4");
    fewer.arms.remove(1);
    adopt(fewer);
    adopt(three("5"));
    assert_eq!(healthy(&serving(&learner, 0)), [true; 3]);
    tell(&learner, &stars, &[(1, false)]);
    let lost = wait_for(&learner, |serving| {
        serving.allocation.probabilities[1] == 0.0
    });
    learner.shutdown();
    rig.restart();
    let (learner, _) = start(&rig, &[&stars]);
    let restarted = serving(&learner, 0);
    assert_eq!(healthy(&restarted), [true; 3]);
    assert!(restarted.allocation.probabilities[1] > 0.0);
    assert_eq!(restarted.allocation.version, lost.allocation.version + 1);
}

/// What an operator has taken out stays out, whether it can be reached or not.
#[test]
fn orders_and_availability_are_two_things() {
    let rig = Rig::new();
    let stars = Arc::new(three("1"));
    let (learner, _) = start(&rig, &[&stars]);
    let order = |order| {
        learner
            .operator()
            .order(stars.id, order, None)
            .unwrap()
            .unwrap()
    };
    let disabled = order(Order::Disable(stars.arms[0].id));
    tell(&learner, &stars, &[(0, false)]);
    let both = wait_for(&learner, |serving| !serving.arms[0].healthy);
    assert!(!both.arms[0].enabled);
    let enabled = order(Order::Enable(stars.arms[0].id));
    assert!(enabled.arms[0].enabled && !enabled.arms[0].healthy);
    assert_eq!(enabled.allocation.probabilities[0], 0.0);
    assert_eq!(enabled.allocation.version, disabled.allocation.version);
    tell(&learner, &stars, &[(0, true)]);
    wait_for(&learner, |serving| {
        serving.allocation.probabilities[0] > 0.0
    });
}

/// A disk that takes nothing keeps no one from knowing that an arm is lost; its allocation follows as soon as it can be journalled.
#[test]
fn that_an_arm_is_lost_is_told_while_the_disk_fails() {
    let rig = Rig::new();
    let stars = Arc::new(three("1"));
    let (learner, _) = start(&rig, &[&stars]);
    rig.storage.set_faults(Faults {
        syncs: 1,
        creates: u32::MAX,
        ..Faults::default()
    });
    assert!(rig.reward(rig.decision(&stars, 0, 1), 1.0).is_err());
    let before = serving(&learner, 0);
    tell(&learner, &stars, &[(2, false)]);
    let told = wait_for(&learner, |serving| !serving.arms[2].healthy);
    assert_eq!(told.allocation.version, before.allocation.version);
    assert!(told.allocation.probabilities[2] > 0.0);
    rig.storage.set_faults(Faults::default());
    wait_for(&learner, |serving| {
        serving.allocation.probabilities[2] == 0.0
    });
}

/// An experiment that does not serve, and arms that it does not have, are nobody's business.
#[test]
fn what_is_not_known_changes_nothing() {
    let rig = Rig::new();
    let stars = Arc::new(three("1"));
    let (learner, log) = start(&rig, &[&stars]);
    learner
        .availability()
        .tell(ExperimentId(1), [(ArmId(1), false)]);
    learner.availability().tell(stars.id, [(ArmId(1), false)]);
    tell(&learner, &stars, &[(0, true)]);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(serving(&learner, 0).allocation.version, 1);
    assert_eq!(*log.lock().unwrap(), [vec![0]]);
}
