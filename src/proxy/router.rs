//! Which experiment a request belongs to, and everything about it that can be worked out before the first request: header
//! values, metric handles, endpoints.
//!
//! The cost of a look-up does not grow with the number of experiments: paths are keys of hash maps.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HOST, HeaderName, HeaderValue};
use http::request::Parts;
use metrics::{Counter, Histogram};

use super::headers;
use super::shadow::RouteShadow;
use super::upstream::{EndpointState, Endpoints};
use crate::experiment::{Experiment, PathRule, UnitSource};
use crate::telemetry::metrics::{ArmMetrics, Metrics};

/// Compiled routes, in the order of the published experiments.
#[derive(Debug, Default)]
pub struct Router {
    /// One for each published experiment, at the same index.
    pub routes: Vec<Route>,
    exact: HashMap<String, Vec<usize>>,
    /// Keys end in `/`.
    prefixes: HashMap<String, Vec<usize>>,
}

/// What a request to one experiment needs.
#[derive(Debug)]
pub struct Route {
    methods: Vec<http::Method>,
    host: Option<String>,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The arms, in the experiment's order.
    pub arms: Vec<RouteArm>,
    /// The experiment's name, for the response.
    pub experiment_header: HeaderValue,
    /// The policy version, for the response.
    pub version_header: HeaderValue,
    /// The header that holds the unit, if a header does.
    pub unit_header: Option<HeaderName>,
    /// Who shadows, if anybody does.
    pub shadow: Option<RouteShadow>,
    /// The header that holds the client's own key, and the count of requests without one; if the policy file asks for it.
    pub reward_key: Option<(HeaderName, Counter)>,
    /// Requests without a unit.
    pub unit_missing: Counter,
    /// Seconds that the proxy itself takes.
    pub overhead: Histogram,
    /// Time to connect.
    pub connect_timeout: Duration,
    /// Time to the response's head.
    pub response_timeout: Duration,
    /// Longest silence within a response.
    pub idle_timeout: Duration,
}

/// What a request to one arm needs.
#[derive(Debug)]
pub struct RouteArm {
    /// The arm's replicas.
    pub endpoints: Vec<Arc<EndpointState>>,
    /// Its handles.
    pub metrics: ArmMetrics,
    /// Its name, for the response.
    pub header: HeaderValue,
}

impl Router {
    /// Compiles `experiments`, which are sorted most specific first. Endpoints that were known before keep their state.
    pub fn build(
        experiments: &[Arc<Experiment>],
        endpoints: &Endpoints,
        metrics: &Metrics,
    ) -> Self {
        let mut router = Self::default();
        for (index, experiment) in experiments.iter().enumerate() {
            let (map, path) = match &experiment.matcher.path {
                PathRule::Exact(path) => (&mut router.exact, path),
                PathRule::Prefix(path) => (&mut router.prefixes, path),
            };
            map.entry(path.clone()).or_default().push(index);
            router
                .routes
                .push(Route::build(experiment, endpoints, metrics));
        }
        router
    }

    /// The index of the experiment that this request belongs to: exact path first, then the longest prefix; among equals
    /// the most specific, which comes first.
    pub fn find(&self, parts: &Parts) -> Option<usize> {
        let path = parts.uri.path();
        let first_match = |indices: &Vec<usize>| {
            indices
                .iter()
                .copied()
                .find(|index| self.routes[*index].matches(parts))
        };
        if let Some(index) = self.exact.get(path).and_then(first_match) {
            return Some(index);
        }
        if self.prefixes.is_empty() {
            return None;
        }
        // `/a/*` does not match `/a/` itself without a segment behind it being empty: the rest may be empty only
        // after the slash.
        path.rmatch_indices('/')
            .find_map(|(slash, _)| self.prefixes.get(&path[..=slash]).and_then(first_match))
    }
}

impl Route {
    fn build(experiment: &Experiment, endpoints: &Endpoints, metrics: &Metrics) -> Self {
        let matcher = &experiment.matcher;
        let name = [("experiment", experiment.name.as_str())];
        let arms = experiment.arms.iter().map(|arm| RouteArm {
            endpoints: arm
                .endpoints
                .iter()
                .map(|endpoint| endpoints.state(endpoint))
                .collect(),
            metrics: metrics.arm(&experiment.name, &arm.name),
            header: headers::value(arm.name.as_str()),
        });
        Self {
            methods: matcher
                .methods
                .iter()
                .filter_map(|method| method.parse().ok())
                .collect(),
            host: matcher.host.clone(),
            headers: matcher
                .headers
                .iter()
                .filter_map(|(name, value)| {
                    Some((name.parse().ok()?, HeaderValue::from_str(value).ok()?))
                })
                .collect(),
            arms: arms.collect(),
            experiment_header: headers::value(experiment.name.as_str()),
            version_header: headers::value(&experiment.version.to_string()),
            unit_header: match experiment.unit.as_ref().map(|unit| &unit.source) {
                Some(UnitSource::Header(name)) => name.parse().ok(),
                _ => None,
            },
            shadow: experiment.shadow.as_ref().map(|rule| {
                let slots = endpoints.shadow_slots(experiment.id);
                RouteShadow::build(rule, experiment, slots, metrics)
            }),
            reward_key: experiment.reward_key.as_ref().and_then(|header| {
                let missing = metrics.counter("pointsman_reward_key_missing_total", &name);
                Some((header.parse().ok()?, missing))
            }),
            unit_missing: metrics.counter("pointsman_unit_missing_total", &name),
            overhead: metrics.histogram("pointsman_overhead_seconds", &name),
            connect_timeout: Duration::from_millis(experiment.upstream.connect_timeout),
            response_timeout: Duration::from_millis(experiment.upstream.response_timeout),
            idle_timeout: Duration::from_millis(experiment.upstream.idle_timeout),
        }
    }

    fn matches(&self, parts: &Parts) -> bool {
        (self.methods.is_empty() || self.methods.contains(&parts.method))
            && self.host.as_ref().is_none_or(|host| {
                host_of(parts).is_some_and(|given| given.eq_ignore_ascii_case(host))
            })
            && self.headers.iter().all(|(name, value)| {
                parts
                    .headers
                    .get_all(name)
                    .iter()
                    .any(|given| given == value)
            })
    }
}

/// The request's host without its port.
fn host_of(parts: &Parts) -> Option<&str> {
    let host = parts.headers.get(HOST)?.to_str().ok()?;
    let end = if host.starts_with('[') {
        host.find(']')? + 1
    } else {
        host.find(':').unwrap_or(host.len())
    };
    Some(&host[..end])
}
