//! What happened: the events that the journal keeps and the fold consumes. State is a fold of these and nothing else.
//!
//! These are values of the engine; how they are written as JSON lines is the journal's business.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::orders::Ordered;
use crate::clock::Timestamp;
use crate::experiment::Experiment;
use crate::experiment::context::{Context, ContextRule};
use crate::experiment::decision::{Decision, Label, LoggedDecision, Outcome, Shadowed};
use crate::experiment::id::{ArmId, ExperimentId, Name, PolicyVersion};
use crate::experiment::reward::{LabelRule, RewardRule};
use crate::experiment::shadow::ShadowTerms;
use crate::policy::Statistics;

/// Something that the journal accepted.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A process started and took `origin` for its sequence keys.
    Started {
        /// When.
        at: Timestamp,
        /// The random number of this process start.
        origin: u64,
    },
    /// A policy file came into force, or changed.
    PolicyAdopted(Box<PolicyAdopted>),
    /// An experiment's policy file is gone. Its history stays.
    PolicyRetired {
        /// When.
        at: Timestamp,
        /// Which.
        experiment: ExperimentId,
    },
    /// What is drawn from changed.
    Allocated {
        /// When.
        at: Timestamp,
        /// Which experiment.
        experiment: ExperimentId,
        /// Its epoch.
        epoch: u16,
        /// Raised by one at each change.
        version: u64,
        /// The probability of each arm, floor included.
        probabilities: Vec<(ArmId, f64)>,
    },
    /// A draw.
    Decided(LoggedDecision),
    /// An exchange ended.
    Ended(Outcome),
    /// A shadow answered the copy of a request, or failed to.
    Shadowed(Box<Shadowed>),
    /// A reward or label was judged.
    Rewarded(Box<Rewarded>),
    /// An operator has paused an experiment, taken an arm out, or the like.
    Ordered(Box<Ordered>),
}

impl Event {
    /// When it happened, by the server's clock.
    pub fn at(&self) -> Timestamp {
        match self {
            Self::Started { at, .. }
            | Self::PolicyRetired { at, .. }
            | Self::Allocated { at, .. } => *at,
            Self::PolicyAdopted(adopted) => adopted.at,
            Self::Decided(logged) => logged.decision.at,
            Self::Ended(outcome) => outcome.at,
            Self::Shadowed(shadowed) => shadowed.outcome.at,
            Self::Rewarded(rewarded) => rewarded.received,
            Self::Ordered(ordered) => ordered.at,
        }
    }
}

/// A policy file that came into force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PolicyAdopted {
    /// When.
    pub at: Timestamp,
    /// The experiment's name.
    pub name: Name,
    /// Its named hash.
    pub experiment: ExperimentId,
    /// Hash of the file.
    pub version: PolicyVersion,
    /// The epoch it belongs to.
    pub epoch: u16,
    /// `epoch = N` in the file.
    pub declared_epoch: u16,
    /// What makes rewards mean the same thing; a change starts an epoch.
    pub reward_meaning: String,
    /// The reward's rules while this version is in force.
    pub reward: RewardRule,
    /// How labels become rewards, if at all.
    pub label: Option<LabelRule>,
    /// What becomes of the shadows' answers, if there are shadows.
    pub shadow: Option<ShadowTerms>,
    /// What is looked at besides the arms.
    pub context: Option<Arc<ContextRule>>,
    /// What the fold keeps for the policy.
    pub statistics: Statistics,
    /// The arms: id, name, version.
    pub arms: Vec<(ArmId, Name, String)>,
    /// The file's text. Not in a checkpoint: the fold has no use for it.
    #[serde(skip)]
    pub text: Arc<str>,
    /// The metric that the reward is posted as. Last, because older checkpoints end before it.
    #[serde(default)]
    pub metric: Option<Name>,
}

impl PolicyAdopted {
    /// The adoption of `experiment` as it is, at `at`, into `epoch`.
    pub fn of(experiment: &Experiment, epoch: u16, at: Timestamp) -> Self {
        Self {
            at,
            name: experiment.name.clone(),
            experiment: experiment.id,
            version: experiment.version,
            epoch,
            declared_epoch: experiment.declared_epoch,
            reward_meaning: experiment.reward_meaning(),
            reward: experiment.reward,
            label: experiment.label.clone(),
            shadow: experiment.shadow.as_ref().map(|rule| rule.terms),
            context: experiment.context.clone(),
            statistics: experiment.policy.statistics(),
            arms: experiment
                .arms
                .iter()
                .map(|arm| (arm.id, arm.name.clone(), arm.version.clone()))
                .collect(),
            text: Arc::clone(&experiment.text),
            metric: experiment.reward_metric.clone(),
        }
    }
}

/// A reward or label as it was judged. It carries its decision, and so proves it by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Rewarded {
    /// What the decision id says.
    pub decision: Decision,
    /// When it was received, by the server's clock: lateness is judged by this.
    pub received: Timestamp,
    /// The client's own time, if given: recorded, and the order of `last`.
    pub at: Option<Timestamp>,
    /// A named secondary outcome; never learned.
    pub metric: Option<Name>,
    /// The client's idempotency key.
    pub id: Option<Box<str>>,
    /// The value: posted, or scored from the label.
    pub value: f64,
    /// The label, if one was posted.
    pub label: Option<Label>,
    /// What its decision was made upon, where the policy learns from that; a reward that counts without it teaches only counts and
    /// sums.
    pub context: Option<Box<Context>>,
    /// How it was judged. Replay never judges anew.
    pub verdict: Verdict,
}

/// How a reward was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Counted.
    Accepted,
    /// Counted before.
    Duplicate,
    /// A true id after its window: recorded, not counted.
    Late,
    /// Its experiment or epoch is gone: recorded, not counted.
    Retired,
    /// Not a `sampled` decision: recorded, not counted.
    Ignored,
    /// A label whose prediction is not known: not counted.
    Unscored,
}

impl Verdict {
    /// Every verdict.
    pub const ALL: [Self; 6] = [
        Self::Accepted,
        Self::Duplicate,
        Self::Late,
        Self::Retired,
        Self::Ignored,
        Self::Unscored,
    ];

    /// The word in answers, metrics and the journal.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
            Self::Late => "late",
            Self::Retired => "retired",
            Self::Ignored => "ignored",
            Self::Unscored => "unscored",
        }
    }
}
