//! From a line to its event. Unknown fields are ignored, so that an older release can read what a newer one has added;
//! unknown record types and newer record versions are errors, because skipping them would fold to a wrong state.
//!
//! A decision's fields are read from its id, whose signature is not checked: the journal has its own checksums, and
//! must be readable after a key has been retired. The names in a line are for people, but for those of arms and features that only have
//! names.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;

use super::RECORD_VERSION;
use super::context::{ContextItem, Memo, ProbabilitiesItem};
use super::encode::{aggregate_word, goal_word, learn_word};
use super::quick;
use super::scalar::{parse_decimal, parse_hex, parse_time};
use crate::decision_id::{InvalidDecisionId, decode_unverified};
use crate::engine::event::{Event, PolicyAdopted, Rewarded, Verdict};
use crate::engine::orders::{Order, Ordered};
use crate::experiment::context::ContextRule;
use crate::experiment::decision::{
    Ending, Label, LoggedContext, LoggedDecision, Outcome, Shadowed,
};
use crate::experiment::id::{
    ArmId, ExperimentId, KeyHash, Name, PolicyVersion, SequenceKey, UnitHash,
};
use crate::experiment::reward::{
    Aggregate, Compare, Goal, LabelRule, Learn, RewardKind, RewardRule,
};
use crate::experiment::shadow::ShadowTerms;
use crate::policy::Statistics;

/// Why a line is no record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Not the JSON that a record of its type has.
    #[error("not a record: {0}")]
    Json(#[from] serde_json::Error),
    /// A field holds something else.
    #[error("field `{field}` is not {expected}")]
    Field {
        /// The field.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// The decision id cannot be read.
    #[error("field `id`: {0}")]
    DecisionId(#[from] InvalidDecisionId),
    /// Written by a newer release.
    #[error(
        "record of type `{kind}`, version {version}, was written by a newer release: start that one, or a still newer one"
    )]
    Newer {
        /// The record's type.
        kind: String,
        /// The record's version.
        version: u32,
    },
}

/// Reads one line by itself. Whoever reads many takes a [`Decoder`], which is faster.
///
/// # Errors
///
/// See [`Decoder::decode`].
pub fn decode(line: &[u8]) -> Result<Event, RecordError> {
    Decoder::default().decode(line)
}

/// Reads lines one after the other. It remembers the policies, so that contexts share the names of their features, and have them
/// all in the order of the policy file.
#[derive(Debug, Default)]
pub struct Decoder {
    memo: Memo,
    seconds: quick::Seconds,
}

impl Decoder {
    /// Takes note of a policy whose record is not among the lines to come.
    pub fn adopt(&mut self, policy: &PolicyAdopted) {
        self.memo.adopt(policy);
    }

    /// Reads one line, with or without its line feed.
    ///
    /// # Errors
    ///
    /// See [`RecordError`]. Commit lines are not records; `reader` deals with them.
    pub fn decode(&mut self, line: &[u8]) -> Result<Event, RecordError> {
        if let Some(event) = quick::read(line, &mut self.seconds, &mut self.memo) {
            return Ok(event);
        }
        self.decode_any(line)
    }

    /// However it is spelled.
    pub(super) fn decode_any(&mut self, line: &[u8]) -> Result<Event, RecordError> {
        let head: Head<'_> = match Head::quick(line) {
            Some(head) => head,
            None => serde_json::from_slice(line)?,
        };
        if head.v > RECORD_VERSION {
            return Err(head.newer());
        }
        let memo = &mut self.memo;
        match &*head.kind {
            "decision" => serde_json::from_slice::<DecisionLine<'_>>(line)?.event(memo),
            "outcome" => serde_json::from_slice::<OutcomeLine<'_>>(line)?.event(),
            "shadow" => serde_json::from_slice::<ShadowLine<'_>>(line)?.event(),
            "reward" => serde_json::from_slice::<RewardLine<'_>>(line)?.event(memo),
            "allocation" => serde_json::from_slice::<AllocationLine<'_>>(line)?.event(),
            "policy" => serde_json::from_slice::<PolicyLine<'_>>(line)?.event(memo),
            "operator" => serde_json::from_slice::<OperatorLine<'_>>(line)?.event(),
            "retire" => serde_json::from_slice::<RetireLine<'_>>(line)?.event(),
            "start" => serde_json::from_slice::<StartLine<'_>>(line)?.event(),
            _ => Err(head.newer()),
        }
    }
}

/// What every record begins with.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    v: u32,
}

impl<'a> Head<'a> {
    /// The head as our own writer spells it; `None` if it is spelled otherwise.
    fn quick(line: &'a [u8]) -> Option<Self> {
        let rest = line.strip_prefix(b"{\"type\":\"")?;
        let end = rest
            .iter()
            .take(32)
            .position(|byte| !byte.is_ascii_lowercase())?;
        let version = rest[end..].strip_prefix(b"\",\"v\":1,")?;
        let kind = std::str::from_utf8(&rest[..end]).ok()?;
        (!version.is_empty()).then_some(Self {
            kind: Cow::Borrowed(kind),
            v: 1,
        })
    }

    fn newer(&self) -> RecordError {
        RecordError::Newer {
            kind: self.kind.to_string(),
            version: self.v,
        }
    }
}

#[derive(Deserialize)]
struct StartLine<'a> {
    at: &'a str,
    origin: &'a str,
}

impl StartLine<'_> {
    fn event(&self) -> Result<Event, RecordError> {
        Ok(Event::Started {
            at: parse_time("at", self.at)?,
            origin: parse_hex("origin", self.origin, 16)? as u64,
        })
    }
}

#[derive(Deserialize)]
struct RetireLine<'a> {
    at: &'a str,
    experiment_id: &'a str,
}

impl RetireLine<'_> {
    fn event(&self) -> Result<Event, RecordError> {
        Ok(Event::PolicyRetired {
            at: parse_time("at", self.at)?,
            experiment: experiment_id(self.experiment_id)?,
        })
    }
}

#[derive(Deserialize)]
struct OperatorLine<'a> {
    at: &'a str,
    experiment_id: &'a str,
    order: &'a str,
    arm_id: Option<&'a str>,
    #[serde(borrow)]
    reason: Option<Cow<'a, str>>,
}

impl OperatorLine<'_> {
    fn event(self) -> Result<Event, RecordError> {
        let arm = self.arm_id.map(arm_id).transpose()?;
        Ok(Event::Ordered(Box::new(Ordered {
            at: parse_time("at", self.at)?,
            experiment: experiment_id(self.experiment_id)?,
            order: Order::from_word(self.order, arm).ok_or(RecordError::Field {
                field: "order",
                expected: "pause or resume, or disable, enable or reset with an `arm_id`",
            })?,
            reason: self.reason.map(Into::into),
        })))
    }
}

#[derive(Deserialize)]
struct AllocationLine<'a> {
    at: &'a str,
    experiment_id: &'a str,
    epoch: u16,
    allocation_version: &'a str,
    #[serde(borrow)]
    arms: Vec<ProbabilityItem<'a>>,
}

#[derive(Deserialize)]
struct ProbabilityItem<'a> {
    arm_id: &'a str,
    probability: f64,
}

impl AllocationLine<'_> {
    fn event(&self) -> Result<Event, RecordError> {
        Ok(Event::Allocated {
            at: parse_time("at", self.at)?,
            experiment: experiment_id(self.experiment_id)?,
            epoch: self.epoch,
            version: parse_decimal("allocation_version", self.allocation_version)?,
            probabilities: self
                .arms
                .iter()
                .map(|item| Ok((arm_id(item.arm_id)?, item.probability)))
                .collect::<Result<_, RecordError>>()?,
        })
    }
}

#[derive(Deserialize)]
struct DecisionLine<'a> {
    id: &'a str,
    allocation_version: &'a str,
    unit: Option<&'a str>,
    instead_of: Option<&'a str>,
    key: Option<&'a str>,
    #[serde(borrow)]
    experiment: Option<Cow<'a, str>>,
    #[serde(borrow)]
    context: Option<ContextItem<'a>>,
    #[serde(borrow)]
    probabilities: Option<ProbabilitiesItem<'a>>,
}

impl DecisionLine<'_> {
    fn event(self, memo: &mut Memo) -> Result<Event, RecordError> {
        let decision = decode_unverified(self.id)?;
        let unit = self
            .unit
            .map(|text| parse_hex("unit", text, 16))
            .transpose()?;
        let instead_of = self
            .instead_of
            .map(|text| parse_hex("instead_of", text, 32))
            .transpose()?;
        let key = self
            .key
            .map(|text| parse_hex("key", text, 32))
            .transpose()?;
        let name = self.experiment.as_deref().unwrap_or_default();
        let probabilities = self
            .probabilities
            .map(|item| memo.probabilities(decision.experiment, name, &item))
            .transpose()?
            .unwrap_or_default();
        let context = self
            .context
            .map(|item| memo.context(decision.experiment, item));
        Ok(Event::Decided(LoggedDecision {
            decision,
            unit: unit.map(|hash| UnitHash(hash as u64)),
            allocation_version: parse_decimal("allocation_version", self.allocation_version)?,
            context: LoggedContext::of(context, probabilities),
            key: key.map(|hash| KeyHash(hash.to_be_bytes())),
            instead_of: instead_of.map(SequenceKey::from_number),
        }))
    }
}

#[derive(Deserialize)]
struct OutcomeLine<'a> {
    at: &'a str,
    id: &'a str,
    ending: &'a str,
    status: Option<u16>,
    latency_micros: u64,
    #[serde(borrow)]
    prediction: Option<LabelItem<'a>>,
}

impl OutcomeLine<'_> {
    fn event(self) -> Result<Event, RecordError> {
        self.outcome().map(Event::Ended)
    }

    fn outcome(self) -> Result<Outcome, RecordError> {
        Ok(Outcome {
            decision: decode_unverified(self.id)?,
            at: parse_time("at", self.at)?,
            ending: Ending::from_word(self.ending).ok_or(RecordError::Field {
                field: "ending",
                expected: "answered, failed or aborted",
            })?,
            status: self.status,
            latency_micros: self.latency_micros,
            prediction: self.prediction.map(LabelItem::label),
        })
    }
}

#[derive(Deserialize)]
struct ShadowLine<'a> {
    at: &'a str,
    id: &'a str,
    arm_id: &'a str,
    ending: &'a str,
    status: Option<u16>,
    latency_micros: u64,
    #[serde(borrow)]
    prediction: Option<LabelItem<'a>>,
}

impl ShadowLine<'_> {
    fn event(self) -> Result<Event, RecordError> {
        let arm = arm_id(self.arm_id)?;
        let outcome = OutcomeLine {
            at: self.at,
            id: self.id,
            ending: self.ending,
            status: self.status,
            latency_micros: self.latency_micros,
            prediction: self.prediction,
        };
        let outcome = outcome.outcome()?;
        Ok(Event::Shadowed(Box::new(Shadowed { arm, outcome })))
    }
}

#[derive(Deserialize)]
struct RewardLine<'a> {
    at: &'a str,
    id: &'a str,
    status: &'a str,
    reward: Option<f64>,
    #[serde(borrow)]
    label: Option<LabelItem<'a>>,
    metric: Option<&'a str>,
    #[serde(borrow)]
    reward_id: Option<Cow<'a, str>>,
    client_at: Option<&'a str>,
    #[serde(borrow)]
    context: Option<ContextItem<'a>>,
}

impl RewardLine<'_> {
    fn event(self, memo: &mut Memo) -> Result<Event, RecordError> {
        let decision = decode_unverified(self.id)?;
        Ok(Event::Rewarded(Box::new(Rewarded {
            decision,
            received: parse_time("at", self.at)?,
            at: self
                .client_at
                .map(|text| parse_time("client_at", text))
                .transpose()?,
            metric: self.metric.map(|text| name("metric", text)).transpose()?,
            id: self.reward_id.map(|id| id.into_owned().into_boxed_str()),
            value: self.reward.unwrap_or(f64::NAN),
            label: self.label.map(LabelItem::label),
            context: self
                .context
                .map(|item| Box::new(memo.context(decision.experiment, item))),
            verdict: Verdict::ALL
                .into_iter()
                .find(|verdict| verdict.as_str() == self.status)
                .ok_or(RecordError::Field {
                    field: "status",
                    expected: "the status of a reward",
                })?,
        })))
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum LabelItem<'a> {
    Boolean(bool),
    Number(f64),
    #[serde(borrow)]
    Text(Cow<'a, str>),
}

impl LabelItem<'_> {
    fn label(self) -> Label {
        match self {
            Self::Boolean(truth) => Label::Boolean(truth),
            Self::Number(number) => Label::Number(number),
            Self::Text(text) => Label::Text(text.into_owned().into_boxed_str()),
        }
    }
}

#[derive(Deserialize)]
struct PolicyLine<'a> {
    at: &'a str,
    experiment: &'a str,
    experiment_id: &'a str,
    policy_version: &'a str,
    epoch: u16,
    declared_epoch: u16,
    reward_meaning: String,
    #[serde(borrow)]
    reward: RewardRuleItem<'a>,
    #[serde(borrow)]
    label: Option<LabelRuleItem<'a>>,
    shadow: Option<ShadowTerms>,
    statistics: Option<Statistics>,
    context: Option<ContextRule>,
    #[serde(borrow)]
    arms: Vec<ArmItem<'a>>,
    text: String,
}

#[derive(Deserialize)]
struct ArmItem<'a> {
    arm: &'a str,
    arm_id: &'a str,
    version: String,
}

impl PolicyLine<'_> {
    fn event(self, memo: &mut Memo) -> Result<Event, RecordError> {
        let version = parse_hex("policy_version", self.policy_version, 12)? as u64;
        let mut policy_version = [0; 6];
        policy_version.copy_from_slice(&version.to_be_bytes()[2..]);
        let metric = self.reward.metric;
        let metric = metric.map(|metric| name("reward.metric", metric));
        let policy = PolicyAdopted {
            at: parse_time("at", self.at)?,
            name: name("experiment", self.experiment)?,
            experiment: experiment_id(self.experiment_id)?,
            version: PolicyVersion(policy_version),
            epoch: self.epoch,
            declared_epoch: self.declared_epoch,
            reward_meaning: self.reward_meaning,
            reward: self.reward.rule()?,
            label: self.label.map(LabelRuleItem::rule).transpose()?,
            shadow: self.shadow,
            context: self.context.map(Arc::new),
            statistics: self.statistics.unwrap_or_default(),
            arms: self
                .arms
                .into_iter()
                .map(|item| Ok((arm_id(item.arm_id)?, name("arm", item.arm)?, item.version)))
                .collect::<Result<_, RecordError>>()?,
            text: Arc::from(self.text),
            metric: metric.transpose()?,
        };
        memo.adopt(&policy);
        Ok(Event::PolicyAdopted(Box::new(policy)))
    }
}

#[derive(Deserialize)]
struct RewardRuleItem<'a> {
    kind: &'a str,
    min: Option<f64>,
    max: Option<f64>,
    window_millis: &'a str,
    aggregate: &'a str,
    goal: &'a str,
    learn: &'a str,
    default: Option<f64>,
    on_failure: Option<f64>,
    metric: Option<&'a str>,
}

impl RewardRuleItem<'_> {
    fn rule(&self) -> Result<RewardRule, RecordError> {
        let kind = match (self.kind, self.min, self.max) {
            ("binary", ..) => RewardKind::Binary,
            ("real", ..) => RewardKind::Real,
            ("bounded", Some(min), Some(max)) => RewardKind::Bounded { min, max },
            _ => {
                return Err(RecordError::Field {
                    field: "reward.kind",
                    expected: "binary, real, or bounded with min and max",
                });
            }
        };
        let aggregates = [
            Aggregate::First,
            Aggregate::Last,
            Aggregate::Sum,
            Aggregate::Mean,
            Aggregate::Max,
        ];
        Ok(RewardRule {
            kind,
            window: parse_decimal("reward.window_millis", self.window_millis)?,
            default: self.default,
            aggregate: word(
                "reward.aggregate",
                self.aggregate,
                &aggregates,
                aggregate_word,
            )?,
            goal: word(
                "reward.goal",
                self.goal,
                &[Goal::Maximize, Goal::Minimize],
                goal_word,
            )?,
            learn: word(
                "reward.learn",
                self.learn,
                &[Learn::Arrival, Learn::Close],
                learn_word,
            )?,
            on_failure: self.on_failure,
        })
    }
}

#[derive(Deserialize)]
struct LabelRuleItem<'a> {
    prediction: String,
    compare: &'a str,
    tolerance: Option<f64>,
}

impl LabelRuleItem<'_> {
    fn rule(self) -> Result<LabelRule, RecordError> {
        let compare = match (self.compare, self.tolerance) {
            ("equals", _) => Compare::Equals,
            ("absolute_error", _) => Compare::AbsoluteError,
            ("within", Some(tolerance)) => Compare::Within(tolerance),
            _ => {
                return Err(RecordError::Field {
                    field: "label.compare",
                    expected: "equals, absolute_error, or within with tolerance",
                });
            }
        };
        Ok(LabelRule {
            prediction: self.prediction,
            compare,
        })
    }
}

fn experiment_id(text: &str) -> Result<ExperimentId, RecordError> {
    Ok(ExperimentId(parse_hex("experiment_id", text, 8)? as u32))
}

fn arm_id(text: &str) -> Result<ArmId, RecordError> {
    Ok(ArmId(parse_hex("arm_id", text, 8)? as u32))
}

fn name(field: &'static str, text: &str) -> Result<Name, RecordError> {
    Name::new(text).map_err(|_| RecordError::Field {
        field,
        expected: "a name",
    })
}

/// The one of `all` that is spelled `text`.
fn word<T: Copy>(
    field: &'static str,
    text: &str,
    all: &[T],
    spell: fn(T) -> &'static str,
) -> Result<T, RecordError> {
    all.iter()
        .copied()
        .find(|value| spell(*value) == text)
        .ok_or(RecordError::Field {
            field,
            expected: "a word that this release knows",
        })
}
