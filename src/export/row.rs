//! A row: a decision and all that is known of it. Every form takes its fields from here, in this order.

use std::sync::Arc;

use super::gather::Fate;
use crate::clock::Timestamp;
use crate::experiment::context::{Context, Value};
use crate::experiment::decision::{Label, LoggedDecision};
use crate::journal::scalar::write_json;

/// A decision and all that is known of it.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// The decision id as its client got it.
    pub id: &'a str,
    /// The experiment's name.
    pub experiment: &'a str,
    /// The arm's name.
    pub arm: &'a str,
    /// The decision's record.
    pub logged: &'a LoggedDecision,
    /// What it was drawn from, if that is known and it was drawn.
    pub distribution: Option<&'a Distribution>,
    /// What became of it.
    pub fate: Fate<'a>,
}

/// The probability of each arm that could be drawn.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Distribution {
    /// By name.
    pub arms: Vec<(Arc<str>, f64)>,
    /// The same as a JSON object.
    pub json: Vec<u8>,
}

/// An arm's name, and the same as a key of a JSON object: `"name":`.
#[derive(Debug, Clone)]
pub(super) struct ArmName {
    pub(super) text: Arc<str>,
    key: Arc<[u8]>,
}

impl ArmName {
    pub(super) fn new(text: &str) -> Self {
        let mut key = Vec::new();
        write_json(&mut key, text);
        key.push(b':');
        Self {
            text: text.into(),
            key: key.into(),
        }
    }
}

impl Distribution {
    pub(super) fn clear(&mut self) {
        self.arms.clear();
        self.json.clear();
        self.json.extend_from_slice(b"{}");
    }

    /// Adds an arm, if it could be drawn.
    pub(super) fn add(&mut self, arm: &ArmName, probability: f64) {
        if probability > 0.0 {
            self.json.pop();
            if !self.arms.is_empty() {
                self.json.push(b',');
            }
            self.json.extend_from_slice(&arm.key);
            write_json(&mut self.json, &probability);
            self.json.push(b'}');
            self.arms.push((Arc::clone(&arm.text), probability));
        }
    }
}

/// The value of a field.
#[derive(Debug, Clone, Copy)]
pub enum Cell<'a> {
    /// There is none.
    Missing,
    /// A text.
    Text(&'a str),
    /// A number.
    Number(f64),
    /// A count.
    Whole(u64),
    /// A number in so many hexadecimal digits.
    Hexadecimal(u128, u32),
    /// A number that counts up for ever: too great for JSON's numbers.
    Version(u64),
    /// A time.
    Time(Timestamp),
    /// A prediction or a label.
    Label(&'a Label),
    /// A JSON object.
    Json(&'a [u8]),
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Texts, and what is written as one.
    Text,
    /// JSON objects.
    Json,
    /// Numbers.
    Number,
    /// Counts.
    Whole,
    /// Times.
    Time,
}

/// The fields that every row has, in order.
pub(super) const COLUMNS: [(&str, Kind); 22] = [
    ("decision_id", Kind::Text),
    ("at", Kind::Time),
    ("experiment", Kind::Text),
    ("epoch", Kind::Whole),
    ("policy_version", Kind::Text),
    ("allocation_version", Kind::Whole),
    ("arm", Kind::Text),
    ("arm_id", Kind::Text),
    ("propensity", Kind::Number),
    ("reason", Kind::Text),
    ("unit", Kind::Text),
    ("instead_of", Kind::Text),
    ("ending", Kind::Text),
    ("status", Kind::Whole),
    ("latency_micros", Kind::Whole),
    ("prediction", Kind::Text),
    ("reward", Kind::Number),
    ("rewards", Kind::Whole),
    ("on_failure", Kind::Number),
    ("default", Kind::Number),
    ("label", Kind::Text),
    ("probabilities", Kind::Json),
];

impl<'a> Row<'a> {
    /// The context, if there is one.
    pub fn context(&self) -> Option<&'a Context> {
        self.logged.context.as_ref()?.found()
    }

    /// The values of [`COLUMNS`].
    pub(super) fn cells(&self) -> [Cell<'a>; COLUMNS.len()] {
        let logged = self.logged;
        let decision = &logged.decision;
        let fate = &self.fate;
        let number = |value: Option<f64>| value.map_or(Cell::Missing, Cell::Number);
        let label = |label: Option<&'a Label>| label.map_or(Cell::Missing, Cell::Label);
        let version = decision.policy_version.0;
        let version = version
            .iter()
            .fold(0, |number, byte| number << 8 | u128::from(*byte));
        let (ending, status, latency) =
            fate.outcome
                .map_or([Cell::Missing; 3].into(), |(ending, status, micros)| {
                    let status = status.map(u64::from);
                    (
                        Cell::Text(ending.as_str()),
                        status.map_or(Cell::Missing, Cell::Whole),
                        Cell::Whole(micros),
                    )
                });
        [
            Cell::Text(self.id),
            Cell::Time(decision.at),
            Cell::Text(self.experiment),
            Cell::Whole(u64::from(decision.epoch)),
            Cell::Hexadecimal(version, 12),
            Cell::Version(logged.allocation_version),
            Cell::Text(self.arm),
            Cell::Hexadecimal(u128::from(decision.arm.0), 8),
            Cell::Number(decision.propensity),
            Cell::Text(decision.reason.as_str()),
            logged.unit.map_or(Cell::Missing, |unit| {
                Cell::Hexadecimal(u128::from(unit.0), 16)
            }),
            logged.instead_of.map_or(Cell::Missing, |key| {
                let worker = u128::from(key.worker) << 48;
                let low = worker | u128::from(key.counter);
                Cell::Hexadecimal(u128::from(key.origin) << 64 | low, 32)
            }),
            ending,
            status,
            latency,
            label(fate.prediction),
            number(fate.reward),
            Cell::Whole(u64::from(fate.rewards)),
            number(fate.on_failure),
            number(fate.default),
            label(fate.label),
            self.distribution
                .map_or(Cell::Missing, |distribution| Cell::Json(&distribution.json)),
        ]
    }
}

/// Writes those features of a context that `wanted` says, as a JSON object. Missing ones are left out.
pub(super) fn write_context(
    line: &mut Vec<u8>,
    context: &Context,
    wanted: impl Fn(&str) -> bool,
) -> bool {
    line.push(b'{');
    let empty = line.len();
    for (name, value) in context.names.iter().zip(&context.values) {
        if matches!(value, Value::Missing) || !wanted(name) {
            continue;
        }
        if line.len() > empty {
            line.push(b',');
        }
        write_json(line, &**name);
        line.push(b':');
        match value {
            Value::Missing => {}
            Value::Number(number) => write_json(line, number),
            Value::Boolean(truth) => write_json(line, truth),
            Value::Text(text) => write_json(line, &**text),
        }
    }
    line.push(b'}');
    line.len() > empty + 1
}

/// Writes a label as JSON.
pub(super) fn write_label(line: &mut Vec<u8>, label: &Label) {
    match label {
        Label::Number(number) => write_json(line, number),
        Label::Text(text) => write_json(line, &**text),
        Label::Boolean(truth) => write_json(line, truth),
    }
}
