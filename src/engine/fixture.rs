//! An experiment for tests.

use std::sync::Arc;

use super::snapshot::{Allocation, Serving};
use crate::experiment::id::{ArmId, ExperimentId, Name, PolicyVersion};
use crate::experiment::reward::{Aggregate, Goal, Learn, RewardKind, RewardRule};
use crate::experiment::upstream::{HostRule, Protocol};
use crate::experiment::{Arm, Experiment, Matcher, PathRule, UpstreamRule};
use crate::policy::Policy;

/// An experiment with an arm for each weight.
pub(crate) fn experiment(policy: Arc<dyn Policy>, weights: &[f64]) -> Experiment {
    let name = Name::new("fixture").unwrap();
    let arm = |(index, weight): (usize, &f64)| {
        let arm = Name::new(&format!("arm-{index}")).unwrap();
        Arm {
            id: ArmId::of(&name, &arm, ""),
            name: arm,
            version: String::new(),
            endpoints: Vec::new(),
            weight: *weight,
            prior: None,
            protocol: Protocol::Auto,
            host: HostRule::Keep,
            path: None,
            model: None,
        }
    };
    Experiment {
        id: ExperimentId::of(&name),
        description: String::new(),
        file: "fixture.toml".into(),
        text: Arc::from(""),
        version: PolicyVersion::of(&name, ""),
        declared_epoch: 0,
        matcher: Matcher {
            path: PathRule::Exact("/".into()),
            methods: Vec::new(),
            host: None,
            headers: Vec::new(),
        },
        unit: None,
        reward: RewardRule {
            kind: RewardKind::Binary,
            window: 1000,
            default: None,
            aggregate: Aggregate::First,
            goal: Goal::Maximize,
            learn: Learn::Arrival,
            on_failure: None,
        },
        reward_metric: None,
        reward_key: None,
        label: None,
        shadow: None,
        context: None,
        arms: weights.iter().enumerate().map(arm).collect(),
        baseline: 0,
        policy,
        floor: 0.0,
        warm_up: 0,
        upstream: UpstreamRule::default(),
        name,
    }
}

/// That experiment, serving this allocation.
pub(crate) fn serving(experiment: Experiment, probabilities: Vec<f64>) -> Serving {
    Serving {
        experiment: Arc::new(experiment),
        epoch: 0,
        allocation: Arc::new(Allocation {
            version: 1,
            probabilities,
            contextual: None,
        }),
        arms: Vec::new(),
        paused: false,
    }
}
