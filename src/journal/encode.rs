//! From an event to its line. Written by hand straight into the buffer: a decision costs a few hundred nanoseconds.
//!
//! Lines name experiments and arms, so that nobody who reads them with `jq` or DuckDB needs a join; the names
//! come from a [`Directory`]. What replay needs of a decision is in its id alone.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::RECORD_VERSION;
use super::context::{arm_key, write_context, write_unnamed_key};
use super::scalar::{TimeWriter, write_decimal, write_hex, write_json};
use crate::clock::Timestamp;
use crate::decision_id::{DecisionId, Keys};
use crate::engine::event::{Event, PolicyAdopted, Rewarded};
use crate::engine::orders::Ordered;
use crate::experiment::decision::{Decision, Label, LoggedDecision, Outcome, Shadowed};
use crate::experiment::id::{ArmId, ExperimentId, Name, SequenceKey};
use crate::experiment::reward::{
    Aggregate, Compare, Goal, LabelRule, Learn, RewardKind, RewardRule,
};

/// Greatest integer that JavaScript and pandas read exactly from a JSON number.
const MAX_EXACT: u64 = (1 << 53) - 1;

/// The names behind the ids, as the `policy` records have given them. Names are never forgotten, because a reward may come
/// long after its experiment is gone.
#[derive(Debug, Clone, Default)]
pub struct Directory {
    experiments: BTreeMap<ExperimentId, Name>,
    arms: BTreeMap<(ExperimentId, ArmId), ArmEntry>,
}

#[derive(Debug, Clone)]
struct ArmEntry {
    name: Name,
    /// `,"experiment":"…","arm":"…"`, ready to be copied into a line.
    fields: Box<[u8]>,
    /// `"…":`, its key among probabilities.
    key: Box<[u8]>,
}

impl Directory {
    /// Learns the names in a `policy` record.
    pub fn adopt(&mut self, policy: &PolicyAdopted) {
        self.experiments
            .insert(policy.experiment, policy.name.clone());
        for (arm, name, version) in &policy.arms {
            let fields = format!(",\"experiment\":\"{}\",\"arm\":\"{name}\"", policy.name);
            let entry = ArmEntry {
                name: name.clone(),
                fields: fields.into_bytes().into_boxed_slice(),
                key: arm_key(&policy.name, *arm, name, version),
            };
            self.arms.insert((policy.experiment, *arm), entry);
        }
    }

    /// The experiment's name, if a policy record has told it.
    pub fn experiment(&self, id: ExperimentId) -> Option<&Name> {
        self.experiments.get(&id)
    }

    /// The arm's name, if a policy record has told it.
    pub fn arm(&self, experiment: ExperimentId, arm: ArmId) -> Option<&Name> {
        self.arms.get(&(experiment, arm)).map(|entry| &entry.name)
    }
}

/// Writes events as lines.
#[derive(Debug, Clone)]
pub struct Encoder {
    signed: RefCell<Signed>,
    directory: Directory,
    time: TimeWriter,
}

/// Ids of recent decisions: the outcome of one is written soon after it, and needs not be signed again.
#[derive(Debug, Clone)]
struct Signed {
    keys: Keys,
    /// By the last digits of the decision's counter.
    recent: Vec<Option<(Decision, DecisionId)>>,
}

impl Signed {
    /// Decisions that are remembered: of one worker, those in flight at a time.
    const RECENT: usize = 512;

    fn new(keys: Keys) -> Self {
        Self {
            keys,
            recent: vec![None; Self::RECENT],
        }
    }

    fn place(&mut self, decision: &Decision) -> &mut Option<(Decision, DecisionId)> {
        &mut self.recent[decision.sequence.counter as usize % Self::RECENT]
    }

    fn id(&mut self, decision: &Decision) -> DecisionId {
        match self.place(decision) {
            Some((known, id)) if known == decision => *id,
            _ => {
                let id = self.keys.encode(decision);
                *self.place(decision) = Some((*decision, id));
                id
            }
        }
    }
}

impl Encoder {
    /// An encoder that signs decision ids with `keys` and starts with the names in `directory` (from recovery).
    pub fn new(keys: Keys, directory: Directory) -> Self {
        Self {
            signed: RefCell::new(Signed::new(keys)),
            directory,
            time: TimeWriter::new(),
        }
    }

    /// `id` was signed for this decision with the same keys.
    pub fn note_signed(&self, decision: &Decision, id: DecisionId) {
        *self.signed.borrow_mut().place(decision) = Some((*decision, id));
    }

    /// The names learned so far.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Appends the line of `event`, line feed included, to `lines`; and learns the names if it is a policy.
    pub fn encode(&mut self, event: &Event, lines: &mut Vec<u8>) {
        match event {
            Event::Started { at, origin } => {
                self.open(lines, "start", *at);
                push(lines, ",\"origin\":\"");
                write_hex(lines, u128::from(*origin), 16);
                push(lines, "\"");
            }
            Event::PolicyAdopted(policy) => {
                self.directory.adopt(policy);
                self.policy(lines, policy);
            }
            Event::PolicyRetired { at, experiment } => {
                self.open(lines, "retire", *at);
                self.experiment(lines, *experiment);
            }
            Event::Allocated {
                at,
                experiment,
                epoch,
                version,
                probabilities,
            } => {
                self.open(lines, "allocation", *at);
                self.experiment(lines, *experiment);
                push(lines, ",\"epoch\":");
                write_decimal(lines, u64::from(*epoch));
                push(lines, ",\"allocation_version\":\"");
                write_decimal(lines, *version);
                push(lines, "\"");
                self.probabilities(lines, *experiment, probabilities);
            }
            Event::Decided(decision) => self.decision(lines, decision),
            Event::Ended(outcome) => self.outcome(lines, outcome),
            Event::Shadowed(shadowed) => self.shadowed(lines, shadowed),
            Event::Rewarded(reward) => self.reward(lines, reward),
            Event::Ordered(ordered) => self.order(lines, ordered),
        }
        push(lines, "}\n");
    }

    /// `{"type":"…","v":1,"at":"…"`. The type is first, so that a reader knows it without parsing the rest.
    fn open(&mut self, line: &mut Vec<u8>, kind: &str, at: Timestamp) {
        push(line, "{\"type\":\"");
        push(line, kind);
        push(line, "\",\"v\":");
        write_decimal(line, u64::from(RECORD_VERSION));
        push(line, ",\"at\":\"");
        self.time.write(line, at);
        push(line, "\"");
    }

    /// Name and id of an experiment; an experiment that no policy record has named is called by its id.
    fn experiment(&self, line: &mut Vec<u8>, experiment: ExperimentId) {
        push(line, ",\"experiment\":\"");
        match self.directory.experiment(experiment) {
            Some(name) => push(line, name.as_str()),
            None => write_hex(line, u128::from(experiment.0), 8),
        }
        push(line, "\",\"experiment_id\":\"");
        write_hex(line, u128::from(experiment.0), 8);
        push(line, "\"");
    }

    fn probabilities(
        &self,
        line: &mut Vec<u8>,
        experiment: ExperimentId,
        probabilities: &[(ArmId, f64)],
    ) {
        push(line, ",\"arms\":[");
        for (index, (arm, probability)) in probabilities.iter().enumerate() {
            push(line, if index == 0 { "{" } else { ",{" });
            self.arm(line, experiment, *arm);
            push(line, ",\"probability\":");
            write_json(line, probability);
            push(line, "}");
        }
        push(line, "]");
    }

    /// Name and id of an arm; an arm that no policy record has named is called by its id.
    fn arm(&self, line: &mut Vec<u8>, experiment: ExperimentId, arm: ArmId) {
        push(line, "\"arm\":\"");
        match self.directory.arm(experiment, arm) {
            Some(name) => push(line, name.as_str()),
            None => write_hex(line, u128::from(arm.0), 8),
        }
        push(line, "\",\"arm_id\":\"");
        write_hex(line, u128::from(arm.0), 8);
        push(line, "\"");
    }

    fn order(&mut self, line: &mut Vec<u8>, ordered: &Ordered) {
        self.open(line, "operator", ordered.at);
        self.experiment(line, ordered.experiment);
        push(line, ",\"order\":\"");
        push(line, ordered.order.as_str());
        push(line, "\"");
        if let Some(arm) = ordered.order.arm() {
            push(line, ",");
            self.arm(line, ordered.experiment, arm);
        }
        if let Some(reason) = &ordered.reason {
            push(line, ",\"reason\":");
            write_json(line, &**reason);
        }
    }

    fn policy(&mut self, line: &mut Vec<u8>, policy: &PolicyAdopted) {
        self.open(line, "policy", policy.at);
        self.experiment(line, policy.experiment);
        push(line, ",\"policy_version\":\"");
        write_version(line, policy.version.0);
        push(line, "\",\"epoch\":");
        write_decimal(line, u64::from(policy.epoch));
        push(line, ",\"declared_epoch\":");
        write_decimal(line, u64::from(policy.declared_epoch));
        push(line, ",\"reward_meaning\":");
        write_json(line, policy.reward_meaning.as_str());
        write_reward_rule(line, &policy.reward, policy.metric.as_ref());
        if let Some(label) = &policy.label {
            write_label_rule(line, label);
        }
        if let Some(shadow) = &policy.shadow {
            push(line, ",\"shadow\":");
            write_json(line, shadow);
        }
        if !policy.statistics.is_scalar() {
            push(line, ",\"statistics\":");
            write_json(line, &policy.statistics);
        }
        if let Some(context) = &policy.context {
            push(line, ",\"context\":");
            write_json(line, context.features());
        }
        push(line, ",\"arms\":[");
        for (index, (arm, name, version)) in policy.arms.iter().enumerate() {
            push(
                line,
                if index == 0 {
                    "{\"arm\":\""
                } else {
                    ",{\"arm\":\""
                },
            );
            push(line, name.as_str());
            push(line, "\",\"arm_id\":\"");
            write_hex(line, u128::from(arm.0), 8);
            push(line, "\",\"version\":");
            write_json(line, version.as_str());
            push(line, "}");
        }
        push(line, "],\"text\":");
        write_json(line, &*policy.text);
    }

    /// `,"id":"…"` and the names of experiment and arm.
    fn identity(&self, line: &mut Vec<u8>, decision: &Decision) {
        self.id(line, decision);
        self.names(line, decision.experiment, decision.arm);
    }

    fn id(&self, line: &mut Vec<u8>, decision: &Decision) {
        push(line, ",\"id\":\"");
        let id = self.signed.borrow_mut().id(decision);
        line.extend_from_slice(id.as_bytes());
        push(line, "\"");
    }

    fn names(&self, line: &mut Vec<u8>, experiment: ExperimentId, arm: ArmId) {
        if let Some(entry) = self.directory.arms.get(&(experiment, arm)) {
            line.extend_from_slice(&entry.fields);
        } else {
            push(line, ",\"experiment\":\"");
            write_hex(line, u128::from(experiment.0), 8);
            push(line, "\",\"arm\":\"");
            write_hex(line, u128::from(arm.0), 8);
            push(line, "\"");
        }
    }

    fn decision(&mut self, line: &mut Vec<u8>, logged: &LoggedDecision) {
        let decision = &logged.decision;
        self.open(line, "decision", decision.at);
        self.identity(line, decision);
        push(line, ",\"propensity\":");
        write_json(line, &decision.propensity);
        push(line, ",\"reason\":\"");
        push(line, decision.reason.as_str());
        push(line, "\",\"epoch\":");
        write_decimal(line, u64::from(decision.epoch));
        push(line, ",\"policy_version\":\"");
        write_version(line, decision.policy_version.0);
        push(line, "\",\"allocation_version\":\"");
        write_decimal(line, logged.allocation_version);
        push(line, "\"");
        if let Some(unit) = logged.unit {
            push(line, ",\"unit\":\"");
            write_hex(line, u128::from(unit.0), 16);
            push(line, "\"");
        }
        if let Some(sequence) = logged.instead_of {
            push(line, ",\"instead_of\":\"");
            write_hex(line, sequence_number(sequence), 32);
            push(line, "\"");
        }
        if let Some(key) = logged.key {
            push(line, ",\"key\":\"");
            write_hex(line, u128::from_be_bytes(key.0), 32);
            push(line, "\"");
        }
        if let Some(logged) = &logged.context {
            if let Some(context) = logged.found() {
                write_context(line, context);
            }
            self.drawn_from(line, decision, &logged.probabilities);
        }
    }

    /// `,"probabilities":{…}`: what was drawn from, where that is not the allocation.
    fn drawn_from(&self, line: &mut Vec<u8>, decision: &Decision, probabilities: &[(ArmId, f64)]) {
        if probabilities.is_empty() {
            return;
        }
        // Names say which arms are meant only beside the experiment's name.
        let arms = &self.directory.arms;
        let named = arms.contains_key(&(decision.experiment, decision.arm));
        push(line, ",\"probabilities\":{");
        for (index, (arm, probability)) in probabilities.iter().enumerate() {
            if index > 0 {
                push(line, ",");
            }
            match arms.get(&(decision.experiment, *arm)) {
                Some(entry) if named => line.extend_from_slice(&entry.key),
                _ => write_unnamed_key(line, *arm),
            }
            write_json(line, probability);
        }
        push(line, "}");
    }

    fn outcome(&mut self, line: &mut Vec<u8>, outcome: &Outcome) {
        self.open(line, "outcome", outcome.at);
        self.identity(line, &outcome.decision);
        write_ending(line, outcome);
    }

    fn shadowed(&mut self, line: &mut Vec<u8>, shadowed: &Shadowed) {
        let outcome = &shadowed.outcome;
        self.open(line, "shadow", outcome.at);
        self.id(line, &outcome.decision);
        self.names(line, outcome.decision.experiment, shadowed.arm);
        // The id has the arm that served, and a name alone does not say which version of an arm is meant.
        push(line, ",\"arm_id\":\"");
        write_hex(line, u128::from(shadowed.arm.0), 8);
        push(line, "\"");
        write_ending(line, outcome);
    }

    fn reward(&mut self, line: &mut Vec<u8>, rewarded: &Rewarded) {
        self.open(line, "reward", rewarded.received);
        self.identity(line, &rewarded.decision);
        push(line, ",\"status\":\"");
        push(line, rewarded.verdict.as_str());
        push(line, "\",\"reward\":");
        write_json(line, &rewarded.value);
        if let Some(label) = &rewarded.label {
            push(line, ",\"label\":");
            write_label(line, label);
        }
        if let Some(metric) = &rewarded.metric {
            push(line, ",\"metric\":\"");
            push(line, metric.as_str());
            push(line, "\"");
        }
        if let Some(id) = &rewarded.id {
            push(line, ",\"reward_id\":");
            write_json(line, &**id);
        }
        if let Some(at) = rewarded.at {
            push(line, ",\"client_at\":\"");
            // Not the shared writer: the clients' times would push the server's second out of it.
            TimeWriter::new().write(line, at);
            push(line, "\"");
        }
        if let Some(context) = &rewarded.context {
            write_context(line, context);
        }
    }
}

fn push(line: &mut Vec<u8>, text: &str) {
    line.extend_from_slice(text.as_bytes());
}

fn write_version(line: &mut Vec<u8>, version: [u8; 6]) {
    for byte in version {
        write_hex(line, u128::from(byte), 2);
    }
}

/// The three numbers of a sequence key as one: origin, worker, counter from high to low bits.
fn sequence_number(sequence: SequenceKey) -> u128 {
    u128::from(sequence.origin) << 64
        | u128::from(sequence.worker) << 48
        | u128::from(sequence.counter & ((1 << 48) - 1))
}

fn write_label(line: &mut Vec<u8>, label: &Label) {
    match label {
        Label::Number(number) => write_json(line, number),
        Label::Text(text) => write_json(line, &**text),
        Label::Boolean(truth) => write_json(line, truth),
    }
}

/// How an exchange ended, and what came of it.
fn write_ending(line: &mut Vec<u8>, outcome: &Outcome) {
    push(line, ",\"ending\":\"");
    push(line, outcome.ending.as_str());
    push(line, "\"");
    if let Some(status) = outcome.status {
        push(line, ",\"status\":");
        write_decimal(line, u64::from(status));
    }
    push(line, ",\"latency_micros\":");
    write_decimal(line, outcome.latency_micros.min(MAX_EXACT));
    if let Some(prediction) = &outcome.prediction {
        push(line, ",\"prediction\":");
        write_label(line, prediction);
    }
}

fn write_reward_rule(line: &mut Vec<u8>, rule: &RewardRule, metric: Option<&Name>) {
    push(line, ",\"reward\":{\"kind\":\"");
    push(line, rule.kind.as_str());
    push(line, "\"");
    if let RewardKind::Bounded { min, max } = rule.kind {
        push(line, ",\"min\":");
        write_json(line, &min);
        push(line, ",\"max\":");
        write_json(line, &max);
    }
    push(line, ",\"window_millis\":\"");
    write_decimal(line, rule.window);
    push(line, "\",\"aggregate\":\"");
    push(line, aggregate_word(rule.aggregate));
    push(line, "\",\"goal\":\"");
    push(line, goal_word(rule.goal));
    push(line, "\",\"learn\":\"");
    push(line, learn_word(rule.learn));
    push(line, "\"");
    if let Some(default) = rule.default {
        push(line, ",\"default\":");
        write_json(line, &default);
    }
    if let Some(on_failure) = rule.on_failure {
        push(line, ",\"on_failure\":");
        write_json(line, &on_failure);
    }
    if let Some(metric) = metric {
        push(line, ",\"metric\":");
        write_json(line, metric.as_str());
    }
    push(line, "}");
}

fn write_label_rule(line: &mut Vec<u8>, rule: &LabelRule) {
    push(line, ",\"label\":{\"prediction\":");
    write_json(line, rule.prediction.as_str());
    push(line, ",\"compare\":\"");
    match rule.compare {
        Compare::Equals => push(line, "equals\"}"),
        Compare::AbsoluteError => push(line, "absolute_error\"}"),
        Compare::Within(tolerance) => {
            push(line, "within\",\"tolerance\":");
            write_json(line, &tolerance);
            push(line, "}");
        }
    }
}

pub(super) const fn aggregate_word(aggregate: Aggregate) -> &'static str {
    match aggregate {
        Aggregate::First => "first",
        Aggregate::Last => "last",
        Aggregate::Sum => "sum",
        Aggregate::Mean => "mean",
        Aggregate::Max => "max",
    }
}

pub(super) const fn goal_word(goal: Goal) -> &'static str {
    match goal {
        Goal::Maximize => "maximize",
        Goal::Minimize => "minimize",
    }
}

pub(super) const fn learn_word(learn: Learn) -> &'static str {
    match learn {
        Learn::Arrival => "arrival",
        Learn::Close => "close",
    }
}
