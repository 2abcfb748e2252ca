//! Judging posted rewards: which decision they belong to is in the decision id, so what is left is whether they count.
//!
//! Precedence: invalid, retired, ignored, late, duplicate, accepted. A value that cannot be a reward is invalid first of all;
//! one that would only take an aggregate out of its range is invalid last, because the aggregate matters only to items that
//! would otherwise count.
//!
//! Judging changes nothing. What a group of rewards would change is kept in a [`Tentative`] beside the state until
//! the journal holds the group, so that items of one group see each other and a failed commit leaves no trace.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::aggregate::{Entry, Item, Refusal, id_hash, item_range};
use super::event::{Rewarded, Verdict};
use super::fold::State;
use super::history::History;
use super::keys::{FreshKeys, Subject};
use super::predictions::Prediction;
use crate::clock::Timestamp;
use crate::experiment::context::Context;
use crate::experiment::decision::{Decision, Ending, Label, LoggedDecision, Outcome, Reason};
use crate::experiment::id::{Name, SequenceKey};
use crate::experiment::reward::{Aggregate, LabelRule, RewardKind};

/// A reward or label as a client posted it for a decision.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim<D = Decision> {
    /// What the decision id says; or, before [`State::resolve`], how the client has named the decision.
    pub decision: D,
    /// When it was received, by the server's clock.
    pub received: Timestamp,
    /// The client's own time.
    pub at: Option<Timestamp>,
    /// A named secondary outcome; never learned.
    pub metric: Option<Name>,
    /// The client's idempotency key.
    pub id: Option<Box<str>>,
    /// What was posted.
    pub posted: Posted,
}

impl<D> Claim<D> {
    /// The same of this decision.
    pub(super) fn of<E>(self, decision: E) -> Claim<E> {
        Claim {
            decision,
            received: self.received,
            at: self.at,
            metric: self.metric,
            id: self.id,
            posted: self.posted,
        }
    }
}

impl From<Claim> for Claim<Subject> {
    fn from(claim: Claim) -> Self {
        let subject = Subject::Decision(claim.decision);
        claim.of(subject)
    }
}

/// A reward, or the truth from which it follows.
#[derive(Debug, Clone, PartialEq)]
pub enum Posted {
    /// The reward itself; finite.
    Reward(f64),
    /// The true label, to be compared with the arm's prediction.
    Label(Label),
}

/// What is to be done with a claim.
#[derive(Debug, Clone, PartialEq)]
pub enum Judgement {
    /// To be journalled with this verdict.
    Judged(Box<Rewarded>),
    /// A label whose prediction is not there yet: to be judged again when it is, or when it has waited long enough.
    Wait(Box<Claim>),
    /// Not to be journalled; the text says why.
    Invalid(String),
}

/// What a group of events that is not yet durable would change.
#[derive(Debug, Default)]
pub struct Tentative {
    /// A tree, because most groups are small.
    claimed: BTreeSet<SequenceKey>,
    entries: HashMap<SequenceKey, Entry>,
    metrics: HashSet<(SequenceKey, u64)>,
    predictions: HashMap<SequenceKey, Option<Label>>,
    contexts: HashMap<SequenceKey, Box<Context>>,
    pub(super) keys: FreshKeys,
}

impl Tentative {
    /// Forgets everything: the group was committed, or given up.
    pub fn clear(&mut self) {
        self.claimed.clear();
        self.entries.clear();
        self.metrics.clear();
        self.predictions.clear();
        self.contexts.clear();
        self.keys.clear();
    }

    /// Takes note of an outcome that stands before the claims of its group.
    pub fn note(&mut self, state: &State, outcome: &Outcome) {
        let decision = &outcome.decision;
        let Some(history) = state.current(decision) else {
            return;
        };
        if decision.reason != Reason::Sampled {
            return;
        }
        if history.label.is_some() {
            self.predictions
                .insert(decision.sequence, outcome.prediction.clone());
        }
        let credited =
            outcome.ending == Ending::Failed && history.failure_credit(outcome).is_some();
        if credited && history.rule.aggregate == Aggregate::First {
            self.claimed.insert(decision.sequence);
        } else if credited {
            let mut entry = Entry::new(None);
            entry.settled = true;
            self.entries.insert(decision.sequence, entry);
        }
    }

    /// Takes note of a decision that stands before the claims of its group.
    pub fn note_decision(&mut self, state: &State, logged: &LoggedDecision) {
        self.keys.note(logged);
        let decision = &logged.decision;
        let (Some(logged), Some(history)) = (&logged.context, state.current(decision)) else {
            return;
        };
        if history.statistics.regression.is_some() && decision.reason == Reason::Sampled {
            let context = Box::new(logged.context.clone());
            self.contexts.insert(decision.sequence, context);
        }
    }

    /// Adds the context of a decision, found in the journal. See [`State::lacks_context`].
    pub fn recall_context(&mut self, sequence: SequenceKey, context: Context) {
        self.contexts.insert(sequence, Box::new(context));
    }

    /// Adds what a decision's exchange ended with, found in the journal. See [`State::lacks_prediction`].
    pub fn recall_prediction(&mut self, sequence: SequenceKey, prediction: Option<Label>) {
        self.predictions.insert(sequence, prediction);
    }

    /// What the decision was made upon, if the policy learns from that and it is remembered.
    fn context(&self, history: &History, decision: &Decision) -> Option<Box<Context>> {
        history.statistics.regression?;
        let own = self.contexts.get(&decision.sequence).cloned();
        own.or_else(|| history.contexts.get(decision).cloned().map(Box::new))
    }

    fn prediction(&self, history: &History, decision: &Decision) -> Prediction {
        match self.predictions.get(&decision.sequence) {
            Some(Some(label)) => Prediction::Known(label.clone()),
            Some(None) => Prediction::Absent,
            None => history.predictions.get(decision),
        }
    }

    fn entry(&self, history: &History, decision: &Decision) -> Option<Entry> {
        self.entries
            .get(&decision.sequence)
            .or_else(|| history.entries.get(&(decision.at, decision.sequence)))
            .cloned()
    }
}

/// Why a claim does not become an accepted reward.
enum Refused {
    As(Verdict),
    Waiting,
    Invalid(String),
}

impl State {
    /// Judges a claim at `now`, and notes in `tentative` what accepting it would change.
    pub fn judge(&self, tentative: &mut Tentative, claim: Claim, now: Timestamp) -> Judgement {
        match self.value(tentative, &claim, now) {
            Ok(value) => {
                let context = self
                    .current(&claim.decision)
                    .filter(|_| claim.metric.is_none())
                    .and_then(|history| tentative.context(history, &claim.decision));
                judged(claim, value, context, Verdict::Accepted)
            }
            Err(Refused::As(verdict)) => {
                let value = match claim.posted {
                    Posted::Reward(value) => value,
                    Posted::Label(_) => 0.0,
                };
                judged(claim, value, None, verdict)
            }
            Err(Refused::Waiting) => Judgement::Wait(Box::new(claim)),
            Err(Refused::Invalid(error)) => Judgement::Invalid(error),
        }
    }

    /// Whether a reward for this decision would teach the policy more if the context of the decision were known. It has been pushed out
    /// of memory, or never was in it.
    pub fn lacks_context(&self, tentative: &Tentative, claim: &Claim) -> bool {
        let decision = &claim.decision;
        let Some(history) = self.current(decision) else {
            return false;
        };
        history.statistics.regression.is_some()
            && decision.reason == Reason::Sampled
            && claim.metric.is_none()
            && !self.is_late(history, claim)
            && !tentative.contexts.contains_key(&decision.sequence)
            && history.contexts.get(decision).is_none()
    }

    /// Whether a label could be scored if the arm's prediction were known, and it has been pushed out of memory.
    pub fn lacks_prediction(&self, tentative: &Tentative, claim: &Claim) -> bool {
        let decision = &claim.decision;
        let Some(history) = self.current(decision) else {
            return false;
        };
        matches!(claim.posted, Posted::Label(_))
            && history.label.is_some()
            && decision.reason == Reason::Sampled
            && !self.is_late(history, claim)
            && tentative.prediction(history, decision) == Prediction::Lost
    }

    /// Whether an accepted reward counts without teaching the policy what it is posted for: the policy learns from contexts, and this
    /// decision's was lost.
    pub fn is_unlearned(&self, rewarded: &Rewarded) -> bool {
        let lost = rewarded.context.is_none() && rewarded.metric.is_none();
        let learns_from_it = || {
            let history = self.current(&rewarded.decision);
            history.is_some_and(|history| history.statistics.regression.is_some())
        };
        rewarded.verdict == Verdict::Accepted && lost && learns_from_it()
    }

    /// The history in which a decision of the current epoch counts while its policy file is in force and its arm has not begun anew.
    pub(super) fn current(&self, decision: &Decision) -> Option<&History> {
        self.experiments
            .get(&decision.experiment)
            .filter(|history| !history.retired && history.epoch == decision.epoch)
            .filter(|history| !history.has_waived(decision) && !history.orders.have_reset(decision))
    }

    /// The value with which the claim is accepted.
    fn value(
        &self,
        tentative: &mut Tentative,
        claim: &Claim,
        now: Timestamp,
    ) -> Result<f64, Refused> {
        let decision = &claim.decision;
        let Some(history) = self.current(decision) else {
            return Err(Refused::As(Verdict::Retired));
        };
        check(history, claim).map_err(Refused::Invalid)?;
        if decision.reason != Reason::Sampled {
            return Err(Refused::As(Verdict::Ignored));
        }
        if self.is_late(history, claim) {
            return Err(Refused::As(Verdict::Late));
        }
        if let (Some(metric), Posted::Reward(value)) = (&claim.metric, &claim.posted) {
            let hash = id_hash(metric.as_str(), claim.id.as_deref());
            let known = history
                .metrics
                .contains(&(decision.at, decision.sequence, hash));
            return if known || !tentative.metrics.insert((decision.sequence, hash)) {
                Err(Refused::As(Verdict::Duplicate))
            } else {
                Ok(*value)
            };
        }
        if history.rule.aggregate == Aggregate::First {
            if tentative.claimed.contains(&decision.sequence) || history.claims.contains(decision) {
                return Err(Refused::As(Verdict::Duplicate));
            }
            let value = self.score(tentative, history, claim, now)?;
            history
                .rule
                .kind
                .check(value)
                .map_err(|error| Refused::Invalid(error.to_string()))?;
            tentative.claimed.insert(decision.sequence);
            return Ok(value);
        }
        self.aggregated(tentative, history, claim, now)
    }

    fn aggregated(
        &self,
        tentative: &mut Tentative,
        history: &History,
        claim: &Claim,
        now: Timestamp,
    ) -> Result<f64, Refused> {
        let decision = &claim.decision;
        let refused = |refusal| match refusal {
            Refusal::Duplicate => Refused::As(Verdict::Duplicate),
            Refusal::Invalid(error) => Refused::Invalid(error),
        };
        let entry = tentative
            .entry(history, decision)
            .unwrap_or_else(|| Entry::new(history.place(decision)));
        if entry.settled {
            return Err(Refused::As(Verdict::Duplicate));
        }
        let id = claim.id.as_deref().map(|id| id_hash("", Some(id)));
        entry.admits(id).map_err(refused)?;
        let value = self.score(tentative, history, claim, now)?;
        let item = Item {
            id,
            at: claim.at.unwrap_or(claim.received),
            value,
        };
        let next = entry
            .with(item, history.rule.aggregate, history.rule.kind)
            .map_err(refused)?;
        tentative.entries.insert(decision.sequence, next);
        Ok(value)
    }

    /// Whether the window that held when the decision was made had closed at receipt.
    fn is_late(&self, history: &History, claim: &Claim) -> bool {
        let decision = &claim.decision;
        let window = history.rule_of(decision).window;
        claim.received > decision.at.plus(window)
            || history.has_closed(decision, window, self.advanced)
    }

    /// The posted reward, or the score of the posted label.
    fn score(
        &self,
        tentative: &Tentative,
        history: &History,
        claim: &Claim,
        now: Timestamp,
    ) -> Result<f64, Refused> {
        let (label, rule) = match (&claim.posted, &history.label) {
            (Posted::Reward(value), _) => return Ok(*value),
            (Posted::Label(label), Some(rule)) => (label, rule),
            (Posted::Label(_), None) => return Err(Refused::Invalid(no_label_rule(history))),
        };
        match tentative.prediction(history, &claim.decision) {
            Prediction::Known(prediction) => {
                compare(rule, history.rule.kind, &prediction, label).map_err(Refused::Invalid)
            }
            // An outcome is offered before the client can see the response's end, so an old decision has none to wait for.
            Prediction::Awaited if now < claim.decision.at.plus(self.limits.label_wait) => {
                Err(Refused::Waiting)
            }
            Prediction::Awaited | Prediction::Absent | Prediction::Lost => {
                Err(Refused::As(Verdict::Unscored))
            }
        }
    }
}

fn judged(claim: Claim, value: f64, context: Option<Box<Context>>, verdict: Verdict) -> Judgement {
    let label = match claim.posted {
        Posted::Label(label) => Some(label),
        Posted::Reward(_) => None,
    };
    Judgement::Judged(Box::new(Rewarded {
        decision: claim.decision,
        received: claim.received,
        at: claim.at,
        metric: claim.metric,
        id: claim.id,
        value,
        label,
        context,
        verdict,
    }))
}

/// What is wrong with a claim whatever became of its decision.
fn check(history: &History, claim: &Claim) -> Result<(), String> {
    let aggregate = history.rule.aggregate;
    let value = match (&claim.posted, &claim.metric) {
        (Posted::Label(_), Some(_)) => {
            return Err("a named metric takes a \"reward\", not a \"label\"".to_owned());
        }
        (Posted::Label(_), None) if history.label.is_none() => {
            return Err(no_label_rule(history));
        }
        (Posted::Label(_), None) => None,
        (Posted::Reward(value), _) => Some(*value),
    };
    let range = if claim.metric.is_some() {
        RewardKind::Real
    } else {
        item_range(aggregate, history.rule.kind)
    };
    if let Some(value) = value {
        range.check(value).map_err(|error| error.to_string())?;
    }
    let needs_id = matches!(aggregate, Aggregate::Sum | Aggregate::Mean);
    if needs_id && claim.metric.is_none() && claim.id.is_none() {
        let word = if aggregate == Aggregate::Sum {
            "sum"
        } else {
            "mean"
        };
        return Err(format!(
            "experiment {} aggregates rewards by {word}: give each an \"id\" of its own, so that a repeated post is not counted twice",
            history.name
        ));
    }
    Ok(())
}

fn no_label_rule(history: &History) -> String {
    format!(
        "experiment {} has no [label] in its policy file, so a label cannot be scored: post a \"reward\"",
        history.name
    )
}

fn compare(
    rule: &LabelRule,
    kind: RewardKind,
    prediction: &Label,
    label: &Label,
) -> Result<f64, String> {
    rule.score(kind, prediction, label).ok_or_else(|| {
        format!(
            "the label is {} and the arm's prediction is {}: `compare` needs two numbers",
            describe(label),
            describe(prediction)
        )
    })
}

fn describe(label: &Label) -> &'static str {
    match label {
        Label::Number(_) => "a number",
        Label::Text(_) => "a text",
        Label::Boolean(_) => "a truth value",
    }
}
