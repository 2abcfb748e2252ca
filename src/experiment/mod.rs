//! What is being tested: an experiment as proven, its arms, its unit, its reward.
//!
//! An [`Experiment`] is only made by `config::compile`, which has checked every field, so nothing downstream checks
//! again. It holds no state: what the arms have earned is in `engine`.

pub mod context;
pub mod decision;
pub mod id;
pub mod reward;
pub mod shadow;
pub mod upstream;

use std::sync::Arc;

use crate::policy::{ArmPrior, Policy};
use context::ContextRule;
use id::{ArmId, ExperimentId, Name, PolicyVersion};
use reward::{LabelRule, RewardKind, RewardRule};
use shadow::ShadowRule;

pub use upstream::{Endpoint, UpstreamRule};
use upstream::{HostRule, PathRewrite, Protocol};

/// A validated policy file.
#[derive(Debug)]
pub struct Experiment {
    /// The experiment's name.
    pub name: Name,
    /// Its named hash.
    pub id: ExperimentId,
    /// One line for people.
    pub description: String,
    /// The file's path as it was given, for messages.
    pub file: String,
    /// The file's text, journalled with the version.
    pub text: Arc<str>,
    /// Hash of the file.
    pub version: PolicyVersion,
    /// `epoch = N`: raising it starts a new epoch.
    pub declared_epoch: u16,
    /// Which requests belong here.
    pub matcher: Matcher,
    /// What is randomised; `None`: each request by itself.
    pub unit: Option<UnitRule>,
    /// What a reward is.
    pub reward: RewardRule,
    /// The metric that the reward is posted as; `None`: what is posted without a metric.
    pub reward_metric: Option<Name>,
    /// The request header (lower case) with the client's own key for a decision, by which it may post rewards.
    pub reward_key: Option<String>,
    /// How a posted label becomes a reward.
    pub label: Option<LabelRule>,
    /// Which requests are copied to other arms.
    pub shadow: Option<ShadowRule>,
    /// What is looked at besides the arms.
    pub context: Option<Arc<ContextRule>>,
    /// The alternatives, in the file's order; 1 to 100.
    pub arms: Vec<Arm>,
    /// Index of the arm that serves when nothing can be drawn.
    pub baseline: usize,
    /// The rule that turns evidence into an allocation.
    pub policy: Arc<dyn Policy>,
    /// Least probability of each eligible arm, mixed in additively.
    pub floor: f64,
    /// An arm is warm after this many credited decisions.
    pub warm_up: u64,
    /// How the arms are reached.
    pub upstream: UpstreamRule,
}

impl Experiment {
    /// The index of the arm with this id.
    pub fn arm_index(&self, id: ArmId) -> Option<usize> {
        self.arms.iter().position(|arm| arm.id == id)
    }

    /// What makes rewards mean the same thing: when this text changes, a new epoch starts. It is journalled, so its form is
    /// fixed; a part that is new is only written where a file uses it.
    pub fn reward_meaning(&self) -> String {
        let reward = &self.reward;
        let mut meaning = reward.kind.as_str().to_owned();
        if let RewardKind::Bounded { min, max } = reward.kind {
            meaning.push_str(&format!(" {min}..{max}"));
        }
        meaning.push_str(&format!(" {}", reward.aggregate.as_str()));
        if let Some(default) = reward.default {
            meaning.push_str(&format!(" default {default}"));
        }
        if let Some(label) = &self.label {
            meaning.push_str(&format!(" label {} {}", label.prediction, label.compare));
        }
        if let Some(metric) = &self.reward_metric {
            meaning.push_str(&format!(" metric {metric}"));
        }
        meaning
    }
}

/// One alternative.
#[derive(Debug, Clone)]
pub struct Arm {
    /// Its name.
    pub name: Name,
    /// Its named hash.
    pub id: ArmId,
    /// `version = "…"`; empty when the file gives none.
    pub version: String,
    /// Replicas of this arm.
    pub endpoints: Vec<Endpoint>,
    /// Its share under `fixed` and during warm-up, relative to the others; 0 takes it out.
    pub weight: f64,
    /// What an offline evaluation already knows of it.
    pub prior: Option<ArmPrior>,
    /// What is spoken with its endpoints: its own, else the experiment's. So are the next two.
    pub protocol: Protocol,
    /// Which `Host` its endpoints see.
    pub host: HostRule,
    /// What becomes of the path.
    pub path: Option<PathRewrite>,
    /// What replaces the text at the experiment's `model_field`.
    pub model: Option<String>,
}

/// A path, exact or as a prefix by segment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PathRule {
    /// The whole raw path.
    Exact(String),
    /// `/a/*`, kept as `/a/`: any path below it, but not `/a` itself.
    Prefix(String),
}

/// `[match]`, validated. All given conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matcher {
    /// The path.
    pub path: PathRule,
    /// Upper-case methods; empty: any.
    pub methods: Vec<String>,
    /// Host without port, lower case.
    pub host: Option<String>,
    /// Lower-case header names with the exact value each must have.
    pub headers: Vec<(String, String)>,
}

/// Where a unit's key is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnitSource {
    /// A request header (lower case).
    Header(String),
    /// A cookie; `issue` sets one where it is missing.
    Cookie {
        /// The cookie's name.
        name: String,
        /// Whether a missing cookie is made and set.
        issue: bool,
    },
    /// A query parameter.
    Query(String),
    /// A JSON pointer into the request's body.
    Json(String),
}

/// What happens to a request without a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingUnit {
    /// Drawn for this request alone, journalled without a unit.
    Random,
    /// The baseline serves; nothing is learned.
    Baseline,
}

/// `[unit]`, validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitRule {
    /// Where the key is found.
    pub source: UnitSource,
    /// What to do without one.
    pub missing: MissingUnit,
    /// A bandit moves sticky units at most this often, in milliseconds.
    pub reallocate: u64,
    /// A new one randomises all units anew.
    pub salt: String,
}
