//! A changed policy learns from what was journalled before it, live as after a restart.

use super::*;
use crate::experiment::context::{ContextRule, Encoding, Feature, Source, Value};
use crate::experiment::decision::LoggedContext;
use crate::policy::{Memory, Regressed, Regression, Statistics};

/// Asks for everything that can be kept.
#[derive(Debug)]
pub(super) struct Keeping(pub(super) Statistics);

impl Policy for Keeping {
    fn kind(&self) -> &'static str {
        "keeping"
    }

    fn distribution(&self, evidence: &Evidence<'_>) -> Vec<f64> {
        Greedy.distribution(evidence)
    }

    fn statistics(&self) -> Statistics {
        self.0
    }

    fn posterior(&self, arm: &ArmEvidence, reward: RewardKind) -> Posterior {
        Greedy.posterior(arm, reward)
    }
}

pub(super) const ALL: Statistics = Statistics {
    memory: Memory::HalfLife(3_600_000),
    importance: Some(0.5),
    regression: Some(Regression::Linear),
};

pub(super) fn rule() -> ContextRule {
    ContextRule::new(vec![Feature {
        name: "prime".into(),
        source: Source::Header("x-prime".into()),
        encoding: Encoding::Boolean,
    }])
}

fn contextual(text: &str, statistics: Option<Statistics>) -> Arc<Experiment> {
    let mut stars = experiment("stars", text, &["a", "b"]);
    stars.context = Some(Arc::new(rule()));
    stars.reward.default = Some(0.0);
    stars.reward.learn = Learn::Close;
    if let Some(statistics) = statistics {
        stars.policy = Arc::new(Keeping(statistics));
    }
    Arc::new(stars)
}

/// Makes decisions for arm `b`, rewards the first `rewarded` of them, and waits until all windows have closed.
fn decide(rig: &Rig, experiment: &Experiment, counters: std::ops::Range<u64>, rewarded: u64) {
    let before = rig.tallies(&contextual("any", None))[1].learned.count();
    let recorder = rig.handle.recorder(0).unwrap();
    for counter in counters.clone() {
        let decision = rig.decision(experiment, 1, counter);
        assert!(recorder.offer(Event::Decided(LoggedDecision {
            decision,
            unit: None,
            allocation_version: 1,
            instead_of: None,
            key: None,
            context: Some(Box::new(LoggedContext {
                context: rule().context(vec![Value::Boolean(counter % 2 == 0)].into()),
                probabilities: Vec::new(),
            })),
        })));
        if counter < counters.start + rewarded {
            assert_eq!(rig.reward(decision, 1.0), judged(Verdict::Accepted));
        }
    }
    rig.clock.advance(2 * 3_600_000);
    let all = before + counters.count() as u64;
    while rig.tallies(&contextual("any", None))[1].learned.count() < all {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What arm `b` has learned, as plain numbers: n, Σ x₁, Σ r, Σ r x₁ of the regression, and the importance weights.
fn learned(tally: &Tally, rig: &Rig) -> Vec<f64> {
    let forever = Statistics {
        memory: Memory::SlidingWindow(u64::MAX / 2),
        ..ALL
    };
    let now = rig.handle.now();
    let sums = tally.detail.at(&forever, now);
    let Some(Regressed::Linear(linear)) = tally.detail.regressed(&forever, 2, now) else {
        panic!("no regression");
    };
    vec![
        linear.gram()[0],
        linear.gram()[1],
        linear.response()[0],
        linear.response()[1],
        sums.earned.count,
        sums.importance.weights,
        sums.importance.rewards,
    ]
}

#[test]
fn a_changed_policy_learns_from_the_journal() {
    let mut rig = Rig::new();
    let plain = contextual("plain", None);
    rig.adopt(&[&plain]);
    decide(&rig, &plain, 0..4, 2);
    let keeping = contextual("keeping", Some(ALL));
    // Four credits, two of them with x = 1; of the rewarded ones, one. Each weighs 1 / (0.5 + 0.5).
    let expected = [4.0, 2.0, 2.0, 1.0, 4.0, 4.0, 2.0];
    // Before it is adopted, as the learner asks; after; and after a restart.
    assert_eq!(learned(&rig.tallies(&keeping)[1], &rig), expected);
    assert_eq!(rig.tallies(&plain)[1].detail, Arc::default());
    rig.adopt(&[&keeping]);
    let live = rig.tallies(&keeping);
    assert_eq!(learned(&live[1], &rig), expected);
    rig.restart();
    assert_eq!(rig.tallies(&keeping), live);
    rig.adopt(&[&keeping]);
    assert_eq!(rig.tallies(&keeping), live);

    // What is learned under it goes on from there, and going back loses nothing of the counts.
    decide(&rig, &keeping, 8..9, 1);
    let after = learned(&rig.tallies(&keeping)[1], &rig);
    assert_eq!(after, [5.0, 3.0, 3.0, 2.0, 5.0, 5.0, 3.0]);
    rig.adopt(&[&plain]);
    assert_eq!(rig.tallies(&plain)[1].learned.count(), 5);
    assert_eq!(rig.tallies(&plain)[1].detail, Arc::default());
}

/// A process with a clock that is a day ahead, then one whose clock is right, then one a week later.
#[test]
fn a_clock_that_was_set_back_between_two_starts_costs_no_credit() {
    let mut rig = Rig::new();
    let plain = contextual("plain", None);
    rig.clock.advance(24 * 3_600_000);
    rig.restart();
    rig.adopt(&[&plain]);
    decide(&rig, &plain, 0..40, 20);
    rig.clock.set(Timestamp::from_millis(START));
    rig.restart();
    rig.adopt(&[&plain]);
    decide(&rig, &plain, 0..40, 20);
    let counts = |rig: &Rig| {
        let tally = rig.tallies(&plain).remove(1);
        (tally.decisions, tally.rewards.count(), tally.defaults)
    };
    // By this clock the windows of the first forty are open again.
    assert_eq!(counts(&rig), (80, 40, 20));
    rig.clock.advance(7 * 24 * 3_600_000);
    rig.restart();
    assert_eq!(counts(&rig), (80, 40, 40));
}

/// Decisions that a clock set back made after the latest closing are not credited when their experiment is retired.
#[test]
fn a_retirement_after_a_clock_was_set_back_gives_up_what_the_live_state_gave_up() {
    let mut rig = Rig::new();
    let plain = contextual("plain", None);
    rig.adopt(&[&plain]);
    decide(&rig, &plain, 0..4, 2);
    rig.clock.set(Timestamp::from_millis(START));
    rig.adopt(&[]);
    let live = rig.tallies(&plain);
    assert_eq!(live[1].defaults, 2);
    rig.clock.advance(24 * 3_600_000);
    rig.restart();
    assert_eq!(rig.tallies(&plain), live);
}
