//! One draw and what it carries.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::context::Context;
use super::id::{ArmId, ExperimentId, KeyHash, PolicyVersion, SequenceKey, UnitHash};
use crate::clock::Timestamp;

/// Why this arm. Only `Sampled` decisions enter posteriors, tests and off-policy estimates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// Drawn from the allocation.
    Sampled,
    /// The request named the arm.
    Forced,
    /// The unit is held out and always gets the baseline.
    Holdout,
    /// The experiment is paused, or its unit is missing and the policy file asks for the baseline.
    Paused,
    /// No arm could be drawn, or the drawn arm failed: the baseline answers.
    Fallback,
}

impl Reason {
    /// Every reason, in the order of its code.
    pub const ALL: [Self; 5] = [
        Self::Sampled,
        Self::Forced,
        Self::Holdout,
        Self::Paused,
        Self::Fallback,
    ];

    /// The word on the wire, in metrics and in the journal.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sampled => "sampled",
            Self::Forced => "forced",
            Self::Holdout => "holdout",
            Self::Paused => "paused",
            Self::Fallback => "fallback",
        }
    }

    /// The code in a decision id: the index in [`Reason::ALL`].
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The reason with this code.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }

    /// The reason with this word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// What a decision id says: everything needed to credit a reward without a look-up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decision {
    /// Unique for ever.
    pub sequence: SequenceKey,
    /// When it was drawn, by the server's clock.
    pub at: Timestamp,
    /// The experiment.
    pub experiment: ExperimentId,
    /// The stretch of the experiment in which rewards mean the same thing.
    pub epoch: u16,
    /// The arm.
    pub arm: ArmId,
    /// The policy file that was in force.
    pub policy_version: PolicyVersion,
    /// The probability with which this arm was drawn, as used; 1 for reasons other than `sampled`.
    pub propensity: f64,
    /// Why this arm.
    pub reason: Reason,
}

/// A decision as the journal keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct LoggedDecision {
    /// What the id says.
    pub decision: Decision,
    /// The randomised unit, if it was not the request itself.
    pub unit: Option<UnitHash>,
    /// The allocation it was drawn from.
    pub allocation_version: u64,
    /// For a fallback: the decision whose arm failed.
    pub instead_of: Option<SequenceKey>,
    /// Where the policy file has `[context]`, or the decision was not drawn from what its allocation says.
    pub context: Option<Box<LoggedContext>>,
    /// The client's own key, where the policy file has `key` in `[reward]` and the request had one.
    pub key: Option<KeyHash>,
}

/// What a decision was made upon besides the arms.
#[derive(Debug, Clone, PartialEq)]
pub struct LoggedContext {
    /// What was found in the request; without names where the policy file asks for nothing. To be read through
    /// [`LoggedContext::found`].
    pub context: Context,
    /// What was drawn from, floor included, where that depends on the context, or an arm that the allocation draws was not
    /// available; else empty.
    pub probabilities: Vec<(ArmId, f64)>,
}

impl LoggedContext {
    /// What is to be kept of a decision that was made upon `context` and drawn from `probabilities` of its own; nothing if
    /// it had neither.
    pub fn of(context: Option<Context>, probabilities: Vec<(ArmId, f64)>) -> Option<Box<Self>> {
        if context.is_none() && probabilities.is_empty() {
            return None;
        }
        let nothing = || Context {
            names: Arc::from([]),
            values: Box::from([]),
        };
        Some(Box::new(Self {
            context: context.unwrap_or_else(nothing),
            probabilities,
        }))
    }

    /// What was found in the request; `None` where there was nothing to look for.
    pub fn found(&self) -> Option<&Context> {
        let nothing = self.context.names.is_empty() && !self.probabilities.is_empty();
        (!nothing).then_some(&self.context)
    }
}

/// How the exchange with an arm ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ending {
    /// The arm answered, with no status that counts as failure, and the whole response was passed on.
    Answered,
    /// The arm failed: no connection, no answer in time, a cut response, or a status that counts as failure.
    Failed,
    /// The client left, or its body was bad: says nothing about the arm.
    Aborted,
}

impl Ending {
    /// The word in the journal.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
        }
    }

    /// The ending with this word.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Answered, Self::Failed, Self::Aborted]
            .into_iter()
            .find(|ending| ending.as_str() == word)
    }
}

/// A value that a policy file extracts from a response, or that a client posts as the truth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Label {
    /// A number; numbers compare as numbers, so `5` equals `5.0`.
    Number(f64),
    /// A text.
    Text(Box<str>),
    /// A truth value.
    Boolean(bool),
}

/// How a shadow fared with a copy of a decision's request.
#[derive(Debug, Clone, PartialEq)]
pub struct Shadowed {
    /// The arm that shadowed; not the decision's.
    pub arm: ArmId,
    /// What became of the copy. It is never `aborted`: no client waits for it.
    pub outcome: Outcome,
}

/// What became of a decision's exchange.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The decision.
    pub decision: Decision,
    /// When the exchange ended.
    pub at: Timestamp,
    /// How it ended.
    pub ending: Ending,
    /// The arm's HTTP status, if it sent one.
    pub status: Option<u16>,
    /// Microseconds from forwarding to the end of the response.
    pub latency_micros: u64,
    /// The arm's prediction, where the policy file has `[label]`.
    pub prediction: Option<Label>,
}
