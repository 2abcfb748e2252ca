//! Experiments as JSON: what is drawn with, what is believed, and what that rests on.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::{Admin, problem};
use crate::engine::measures::Measures;
use crate::engine::snapshot::{Serving, ShadowTally};
use crate::experiment::Endpoint;
use crate::experiment::id::Name;
use crate::policy::Posterior;
use crate::stats::moments::Moments;

/// `GET /api/v1/experiments`
pub(super) async fn list(State(admin): State<Admin>) -> Json<Value> {
    let published = admin.published();
    let experiments: Vec<Value> = published
        .experiments
        .iter()
        .map(|serving| describe(serving, &admin))
        .collect();
    Json(json!({ "experiments": experiments }))
}

/// `GET /api/v1/experiments/{name}`
pub(super) async fn one(State(admin): State<Admin>, Path(name): Path<String>) -> Response {
    let published = admin.published();
    match published
        .experiments
        .iter()
        .find(|serving| serving.experiment.name.as_str() == name)
    {
        Some(serving) => Json(describe(serving, &admin)).into_response(),
        None => problem(
            StatusCode::NOT_FOUND,
            "Not found",
            "there is no experiment of this name",
        ),
    }
}

pub(super) fn describe(serving: &Serving, admin: &Admin) -> Value {
    let experiment = &serving.experiment;
    let arms: Vec<Value> = (0..experiment.arms.len())
        .map(|index| describe_arm(serving, index))
        .collect();
    json!({
        "name": experiment.name.as_str(),
        "description": experiment.description,
        "version": experiment.version.to_string(),
        "epoch": serving.epoch,
        "allocation_version": serving.allocation.version,
        "paused": serving.paused,
        "policy": { "kind": experiment.policy.kind(), "floor": experiment.floor, "warm_up": experiment.warm_up, "contextual": serving.allocation.contextual.is_some() },
        "reward": { "kind": experiment.reward.kind.as_str(), "window_ms": experiment.reward.window, "metric": experiment.reward_metric.as_ref().map(Name::as_str) },
        "baseline": experiment.arms[experiment.baseline].name.as_str(),
        "arms": arms,
        "last_reload": admin.reloads.last(),
    })
}

fn describe_arm(serving: &Serving, index: usize) -> Value {
    let arm = &serving.experiment.arms[index];
    let state = &serving.arms[index];
    let endpoints: Vec<String> = arm.endpoints.iter().map(Endpoint::url).collect();
    let mut described = json!({
        "name": arm.name.as_str(),
        "version": arm.version,
        "endpoints": endpoints,
        "weight": arm.weight,
        "allocation": serving.allocation.probabilities.get(index),
        "probability_best": state.probability_best,
        "posterior": describe_posterior(&state.posterior),
        "decisions": state.tally.decisions,
        "rewards": state.tally.rewards.count(),
        "reward_sum": state.tally.rewards.sum(),
        "defaults": state.tally.defaults,
        "failures": state.tally.failures,
        "metrics": describe_measures(&state.tally.measures),
        "metrics_not_summed": state.tally.measures.unsummed(),
        "enabled": state.enabled,
        "healthy": state.healthy,
    });
    let shadow = &state.tally.shadow;
    if *shadow != ShadowTally::default() {
        described["shadow"] = json!({
            "answers": shadow.answers,
            "scored": shadow.scores.count(),
            "mean": shadow.scores.mean(),
        });
    }
    described
}

/// Named secondary outcomes: `{"NAME": {"count", "sum", "mean"}}`.
fn describe_measures(measures: &Measures) -> Value {
    let describe = |(name, moments): (&Name, &Moments)| {
        let (count, sum) = (moments.count(), moments.sum());
        let mean = (count > 0).then(|| sum / count as f64);
        let value = json!({ "count": count, "sum": sum, "mean": mean });
        (name.as_str().to_owned(), value)
    };
    Value::Object(measures.iter().map(describe).collect())
}

fn describe_posterior(posterior: &Posterior) -> Value {
    match *posterior {
        Posterior::Beta {
            alpha,
            beta,
            min,
            max,
        } => {
            json!({ "kind": "beta", "alpha": alpha, "beta": beta, "min": min, "max": max, "mean": posterior.mean() })
        }
        Posterior::StudentT {
            location,
            scale,
            degrees,
        } => {
            json!({ "kind": "student_t", "location": location, "scale": scale, "degrees": degrees, "mean": location })
        }
    }
}
