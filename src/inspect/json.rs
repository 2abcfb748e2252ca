//! An inspection for programs. Names and types are promised; fields may be added.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Inspection;
use super::redraw::{Chance, Redraw};
use crate::engine::event::Rewarded;
use crate::experiment::context;
use crate::experiment::decision::{Label, LoggedDecision, Outcome, Reason};
use crate::experiment::id::{ArmId, Name};

#[derive(Serialize)]
struct Report<'a> {
    decision_id: &'a str,
    ok: bool,
    problems: Vec<Value>,
    signature: &'static str,
    decision: Fields,
    record: Option<Record>,
    outcome: Option<Ended>,
    rewards: Vec<Judged<'a>>,
    policy: Option<Value>,
    allocation: Option<Value>,
    draw: Option<Draw>,
}

/// What the id says.
#[derive(Serialize)]
struct Fields {
    experiment: String,
    experiment_id: String,
    arm: String,
    arm_id: String,
    propensity: f64,
    reason: &'static str,
    at: String,
    epoch: u16,
    policy_version: String,
    origin: String,
    worker: u16,
    counter: u64,
}

#[derive(Serialize)]
struct Record {
    allocation_version: String,
    unit: Option<String>,
    context: Option<Map<String, Value>>,
    instead_of: Option<String>,
    answered_by: Option<String>,
}

#[derive(Serialize)]
struct Ended {
    at: String,
    ending: &'static str,
    status: Option<u16>,
    latency_micros: u64,
    prediction: Option<Value>,
}

#[derive(Serialize)]
struct Judged<'a> {
    at: String,
    status: &'static str,
    /// `null` when there is none.
    reward: f64,
    label: Option<Value>,
    metric: Option<&'a str>,
    reward_id: Option<&'a str>,
    client_at: Option<String>,
}

#[derive(Serialize)]
struct Draw {
    /// Where the probabilities are: `allocation` or `context`.
    source: &'static str,
    probabilities: Vec<Value>,
    /// `null` for a unit.
    uniform: Option<f64>,
    arm: Option<String>,
    arm_id: Option<String>,
    propensity: Option<f64>,
    /// Whether arm and propensity are those of the record.
    same: bool,
}

/// The inspection as JSON, without a line feed at its end.
pub fn to_json(inspection: &Inspection) -> String {
    let evidence = &inspection.evidence;
    let problem =
        |problem: &super::Problem| json!({"code": problem.code(), "message": problem.to_string()});
    let report = Report {
        decision_id: &inspection.id,
        ok: inspection.holds(),
        problems: inspection.problems.iter().map(problem).collect(),
        signature: inspection.signature.as_str(),
        decision: fields(inspection),
        record: evidence.record.as_ref().map(|logged| record(inspection, logged)),
        outcome: evidence.outcome.as_ref().map(ended),
        rewards: evidence.rewards.iter().map(reward).collect(),
        policy: evidence.policy.as_ref().map(|policy| {
            let arm = |(id, name, version): &(ArmId, Name, String)| {
                json!({"arm": name.as_str(), "arm_id": digits(*id), "version": version})
            };
            let arms: Vec<Value> = policy.arms.iter().map(arm).collect();
            json!({"policy_version": policy.version.to_string(), "at": policy.at.to_string(), "arms": arms})
        }),
        allocation: evidence.allocation.as_ref().map(|allocation| {
            let arms = shares(inspection, &allocation.probabilities);
            json!({"allocation_version": allocation.version.to_string(), "at": allocation.at.to_string(), "arms": arms})
        }),
        draw: draw(inspection),
    };
    // Strings and numbers are all there is, and memory takes every write.
    serde_json::to_string_pretty(&report).unwrap_or_default()
}

fn digits(arm: ArmId) -> String {
    format!("{:08x}", arm.0)
}

fn shares(inspection: &Inspection, probabilities: &[(ArmId, f64)]) -> Vec<Value> {
    let share = |(arm, probability): &(ArmId, f64)| json!({"arm": inspection.arm(*arm), "arm_id": digits(*arm), "probability": probability});
    probabilities.iter().map(share).collect()
}

fn fields(inspection: &Inspection) -> Fields {
    let decision = &inspection.decision;
    Fields {
        experiment: inspection.experiment(),
        experiment_id: format!("{:08x}", decision.experiment.0),
        arm: inspection.arm(decision.arm),
        arm_id: digits(decision.arm),
        propensity: decision.propensity,
        reason: decision.reason.as_str(),
        at: decision.at.to_string(),
        epoch: decision.epoch,
        policy_version: decision.policy_version.to_string(),
        origin: format!("{:016x}", decision.sequence.origin),
        worker: decision.sequence.worker,
        counter: decision.sequence.counter,
    }
}

fn record(inspection: &Inspection, logged: &LoggedDecision) -> Record {
    let evidence = &inspection.evidence;
    let id = |decision: &_| inspection.keys.encode(decision).to_string();
    Record {
        allocation_version: logged.allocation_version.to_string(),
        unit: logged.unit.map(|unit| format!("{:016x}", unit.0)),
        context: logged
            .context
            .as_ref()
            .and_then(|logged| logged.found())
            .map(|context| {
                let names = context.names.iter().map(ToString::to_string);
                names.zip(context.values.iter().map(value)).collect()
            }),
        instead_of: evidence.instead_of.as_ref().map(id),
        answered_by: evidence.answered_by.as_ref().map(id),
    }
}

fn value(value: &context::Value) -> Value {
    match value {
        context::Value::Missing => Value::Null,
        context::Value::Number(number) => json!(number),
        context::Value::Boolean(truth) => json!(truth),
        context::Value::Text(text) => json!(text),
    }
}

fn label(label: &Label) -> Value {
    match label {
        Label::Number(number) => json!(number),
        Label::Text(text) => json!(text),
        Label::Boolean(truth) => json!(truth),
    }
}

fn ended(outcome: &Outcome) -> Ended {
    Ended {
        at: outcome.at.to_string(),
        ending: outcome.ending.as_str(),
        status: outcome.status,
        latency_micros: outcome.latency_micros,
        prediction: outcome.prediction.as_ref().map(label),
    }
}

fn reward(rewarded: &Rewarded) -> Judged<'_> {
    Judged {
        at: rewarded.received.to_string(),
        status: rewarded.verdict.as_str(),
        reward: rewarded.value,
        label: rewarded.label.as_ref().map(label),
        metric: rewarded.metric.as_ref().map(Name::as_str),
        reward_id: rewarded.id.as_deref(),
        client_at: rewarded.at.map(|at| at.to_string()),
    }
}

fn draw(inspection: &Inspection) -> Option<Draw> {
    let Redraw::Drawn {
        source,
        probabilities,
        chance,
        drawn,
    } = &inspection.redraw
    else {
        return None;
    };
    let logged = inspection.evidence.record.as_ref()?.decision;
    debug_assert_eq!(
        logged.reason,
        Reason::Sampled,
        "nothing else is drawn again"
    );
    Some(Draw {
        source: source.as_str(),
        probabilities: shares(inspection, probabilities),
        uniform: match chance {
            Chance::Uniform(uniform) => Some(*uniform),
            Chance::Unit(_) => None,
        },
        arm: drawn.map(|(arm, _)| inspection.arm(arm)),
        arm_id: drawn.map(|(arm, _)| digits(arm)),
        propensity: drawn.map(|(_, propensity)| propensity),
        same: *drawn == Some((logged.arm, logged.propensity)),
    })
}
