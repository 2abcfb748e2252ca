//! From a matched request to its decision: the draw itself is the [engine's](crate::engine::decide); here it is given what it draws among,
//! and its decision is counted and offered to the journal.

use std::sync::atomic::Ordering;

use super::router::Route;
use super::worker::Worker;
use crate::clock::Timestamp;
use crate::decision_id::DecisionId;
use crate::engine::decide::{Draw, decide, decide_among, own_probabilities};
use crate::engine::snapshot::Serving;
use crate::experiment::context::Context;
use crate::experiment::decision::{Decision, LoggedContext, LoggedDecision, Reason};
use crate::experiment::id::{SequenceKey, UnitHash};
use crate::telemetry::metrics::ArmMetrics;

/// Draws an arm and makes the decision that says so. Does not record it.
pub(super) fn draw(
    worker: &Worker,
    (serving, route): (&Serving, &Route),
    unit: Option<UnitHash>,
    baseline: bool,
    context: Option<Context>,
) -> (Draw, Decision, Option<Box<LoggedContext>>) {
    let mut workspace = worker.workspace.borrow_mut();
    let workspace = &mut *workspace;
    if let (Some(rule), Some(context)) = (&serving.experiment.context, &context) {
        rule.encode(context, &mut workspace.features);
    }
    let sequence = worker.next_sequence();
    let keys = &worker.shared.draw_keys;
    let (draw, own) = if baseline {
        let draw = Draw {
            arm: serving.experiment.baseline,
            propensity: 1.0,
            reason: Reason::Paused,
        };
        (draw, false)
    } else if route.is_degraded.load(Ordering::Relaxed) {
        let now = worker.timers.now();
        let available = |arm: usize| route.arms[arm].target.is_available(now);
        let among = decide_among(serving, unit, sequence, keys, workspace, &available);
        (among.draw, among.own)
    } else {
        let draw = decide(serving, unit, sequence, keys, workspace);
        let depends = serving.allocation.contextual.is_some();
        (draw, depends && draw.reason == Reason::Sampled)
    };
    let logged = if own || context.is_some() {
        let own = if own {
            own_probabilities(serving, workspace)
        } else {
            Vec::new()
        };
        LoggedContext::of(context, own)
    } else {
        None
    };
    let decision = decision_of(serving, draw, sequence, worker.now());
    (draw, decision, logged)
}

/// The decision that says what was drawn.
pub(super) fn decision_of(
    serving: &Serving,
    draw: Draw,
    sequence: SequenceKey,
    at: Timestamp,
) -> Decision {
    let experiment = &serving.experiment;
    Decision {
        sequence,
        at,
        experiment: experiment.id,
        epoch: serving.epoch,
        arm: experiment.arms[draw.arm].id,
        policy_version: experiment.version,
        propensity: draw.propensity,
        reason: draw.reason,
    }
}

/// Counts a decision, signs it, and offers it to the journal.
pub(super) fn record(worker: &Worker, metrics: &ArmMetrics, logged: LoggedDecision) -> DecisionId {
    metrics.decisions[usize::from(logged.decision.reason.code())].increment(1);
    let id = worker.shared.keys.encode(&logged.decision);
    worker.record_signed(logged, id);
    id
}
