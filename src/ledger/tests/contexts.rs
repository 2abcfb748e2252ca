//! Rewards of a policy that learns from contexts, through the whole ledger.

use super::*;
use crate::experiment::context::{Context, ContextRule, Encoding, Feature, Source, Value};
use crate::experiment::decision::LoggedContext;
use crate::policy::{Regression, Statistics};

/// All arms alike; the fold keeps sums over contexts for it.
#[derive(Debug)]
struct Learning;

impl Policy for Learning {
    fn kind(&self) -> &'static str {
        "learning"
    }

    fn statistics(&self) -> Statistics {
        Statistics {
            regression: Some(Regression::Linear),
            ..Statistics::SCALAR
        }
    }

    fn distribution(&self, evidence: &Evidence<'_>) -> Vec<f64> {
        Greedy.distribution(evidence)
    }

    fn posterior(&self, arm: &ArmEvidence, reward: RewardKind) -> Posterior {
        Greedy.posterior(arm, reward)
    }
}

fn rule() -> ContextRule {
    ContextRule::new(vec![Feature {
        name: "category".into(),
        source: Source::Header("x-category".into()),
        encoding: Encoding::Hashed(4),
    }])
}

fn learning() -> Arc<Experiment> {
    Arc::new(Experiment {
        policy: Arc::new(Learning),
        context: Some(Arc::new(rule())),
        ..experiment("stars", "1", &["a", "b"])
    })
}

fn context() -> Context {
    rule().context(vec![Value::Text("movies".into())].into())
}

fn with_context(decision: Decision) -> Event {
    let Event::Decided(mut logged) = logged(decision) else {
        unreachable!();
    };
    logged.context = Some(Box::new(LoggedContext {
        context: context(),
        probabilities: vec![(decision.arm, 1.0)],
    }));
    Event::Decided(logged)
}

/// The contexts in the journal's accepted rewards.
fn journalled(rig: &Rig) -> Vec<Option<Context>> {
    let mut contexts = Vec::new();
    crate::journal::scan(&rig.storage, |event| {
        if let Event::Rewarded(rewarded) = event
            && rewarded.verdict == Verdict::Accepted
        {
            contexts.push(rewarded.context.map(|context| *context));
        }
    })
    .unwrap();
    contexts
}

#[test]
fn a_reward_in_its_decisions_group_has_its_context() {
    let rig = Rig::new();
    let stars = learning();
    rig.adopt(&[&stars]);
    let decision = rig.decision(&stars, 1, 1);
    assert!(
        rig.handle
            .recorder(0)
            .unwrap()
            .offer(with_context(decision))
    );
    assert_eq!(rig.reward(decision, 1.0), judged(Verdict::Accepted));
    assert_eq!(journalled(&rig), [Some(context())]);
}

#[test]
fn a_reward_after_a_restart_has_its_context() {
    let mut rig = Rig::new();
    let stars = learning();
    rig.adopt(&[&stars]);
    let decision = rig.decision(&stars, 1, 1);
    assert!(
        rig.handle
            .recorder(0)
            .unwrap()
            .offer(with_context(decision))
    );
    rig.restart();
    rig.adopt(&[&stars]);
    assert_eq!(rig.reward(decision, 1.0), judged(Verdict::Accepted));
    assert_eq!(journalled(&rig), [Some(context())]);
}

#[test]
fn a_reward_whose_context_was_lost_is_accepted_and_said_not_to_be_learned() {
    let rig = Rig::with(|config| config.limits.contexts = 1);
    let stars = learning();
    rig.adopt(&[&stars]);
    let decisions: Vec<_> = (1..=3)
        .map(|counter| rig.decision(&stars, 1, counter))
        .collect();
    let recorder = rig.handle.recorder(0).unwrap();
    for decision in &decisions[1..] {
        assert!(recorder.offer(with_context(*decision)));
    }
    // Everything offered is durable when an adoption is answered.
    rig.adopt(&[&stars]);
    let lost = Ok(vec![Answer::Unlearned]);
    assert_eq!(rig.reward(decisions[0], 1.0), lost);
    assert_eq!(rig.reward(decisions[0], 1.0), judged(Verdict::Duplicate));
    assert_eq!(rig.reward(decisions[1], 1.0), lost);
    assert_eq!(rig.reward(decisions[2], 1.0), judged(Verdict::Accepted));
    assert_eq!(journalled(&rig), [None, None, Some(context())]);
    assert_eq!(rig.tallies(&stars)[1].rewards.count(), 3);
}

#[test]
fn other_policies_and_named_metrics_have_no_context_to_lose() {
    let rig = Rig::new();
    let greedy = Arc::new(Experiment {
        context: Some(Arc::new(rule())),
        ..experiment("stars", "2", &["a", "b"])
    });
    rig.adopt(&[&greedy]);
    let decision = rig.decision(&greedy, 1, 1);
    assert!(
        rig.handle
            .recorder(0)
            .unwrap()
            .offer(with_context(decision))
    );
    assert_eq!(rig.reward(decision, 1.0), judged(Verdict::Accepted));
    assert_eq!(journalled(&rig), [None]);
    rig.adopt(&[&learning()]);
    let mut claim = rig.claim(decision, Posted::Reward(1.0));
    claim.metric = Some(name("revenue"));
    assert_eq!(
        rig.handle.post(vec![Ok(claim.into())]).wait(),
        judged(Verdict::Accepted)
    );
}
