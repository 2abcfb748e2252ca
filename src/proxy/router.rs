//! Which experiment a request belongs to, and everything about it that can be worked out before the first request: header
//! values, metric handles, endpoints.
//!
//! The cost of a look-up does not grow with the number of experiments: paths are keys of hash maps.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use metrics::{Counter, Histogram};

use super::access::{Access, Target};
use super::client::field;
use super::headers;
use super::shadow::RouteShadow;
use super::tls;
use super::upstream::Endpoints;
use crate::experiment::{Experiment, PathRule};
use crate::http1::head::Request;
use crate::telemetry::metrics::{ArmMetrics, Metrics};

/// Experiments by path. The keys are the policy files', so that a hash that anybody can compute lets nobody make them collide.
type Paths = HashMap<Box<[u8]>, Vec<usize>, BuildHasherDefault<PathHasher>>;

/// FNV-1a (Fowler, Noll and Vo, 1991): a multiplication a byte, which for short keys is less than a keyed hash needs to begin.
#[derive(Debug)]
pub struct PathHasher(u64);

impl Default for PathHasher {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for PathHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Compiled routes, in the order of the published experiments.
#[derive(Debug, Default)]
pub struct Router {
    /// One for each published experiment, at the same index.
    pub routes: Vec<Route>,
    exact: Paths,
    /// Keys end in `/`.
    prefixes: Paths,
}

/// What a request to one experiment needs.
#[derive(Debug)]
pub struct Route {
    methods: Vec<String>,
    host: Option<String>,
    headers: Vec<(String, String)>,
    /// The arms, in the experiment's order.
    pub arms: Vec<RouteArm>,
    /// Who shadows, if anybody does.
    pub shadow: Option<RouteShadow>,
    /// The header that holds the client's own key, and the count of requests without one; if the policy file asks for it.
    pub reward_key: Option<(String, Counter)>,
    /// Requests without a unit.
    pub unit_missing: Counter,
    /// Seconds that the proxy itself takes.
    pub overhead: Histogram,
    /// Whether some arm may have no available endpoint, so that a draw has to look.
    pub is_degraded: AtomicBool,
    /// How endpoints are reached.
    pub access: Access,
}

/// What a request to one arm needs.
#[derive(Debug)]
pub struct RouteArm {
    /// Where its requests go.
    pub target: Target,
    /// Its handles.
    pub metrics: Arc<ArmMetrics>,
    /// What a response says of the decision for it beside the id and the reason: the experiment, the arm, the policy file's version.
    pub fields: [(&'static [u8], String); 3],
    /// The same as lines of HTTP/1.1.
    pub lines: Box<[u8]>,
    /// What takes the place of the text at [`UpstreamRule::model_field`](crate::experiment::upstream::UpstreamRule::model_field).
    pub model: Option<String>,
}

impl Router {
    /// Compiles `experiments`, which are sorted most specific first. Endpoints that were known before keep their state.
    ///
    /// # Errors
    ///
    /// A file that TLS to an endpoint needs.
    pub fn build(
        experiments: &[Arc<Experiment>],
        endpoints: &Endpoints,
        metrics: &Metrics,
    ) -> Result<Self, tls::Error> {
        let mut router = Self::default();
        for (index, experiment) in experiments.iter().enumerate() {
            let (map, path) = match &experiment.matcher.path {
                PathRule::Exact(path) => (&mut router.exact, path),
                PathRule::Prefix(path) => (&mut router.prefixes, path),
            };
            map.entry(path.as_bytes().into()).or_default().push(index);
            router
                .routes
                .push(Route::build(experiment, endpoints, metrics)?);
        }
        Ok(router)
    }

    /// Has every draw look which arms can be reached, until they all can. Arms of several experiments may share an endpoint.
    pub fn look_again(&self) {
        for route in &self.routes {
            route.is_degraded.store(true, Ordering::Release);
        }
    }

    /// The index of the experiment that this request belongs to: exact path first, then the longest prefix; among equals
    /// the most specific, which comes first.
    pub fn find(&self, request: &Request) -> Option<usize> {
        let path = request.path_bytes();
        let first_match = |indices: &Vec<usize>| {
            indices
                .iter()
                .copied()
                .find(|index| self.routes[*index].matches(request))
        };
        if let Some(index) = self.exact.get(path).and_then(first_match) {
            return Some(index);
        }
        if self.prefixes.is_empty() {
            return None;
        }
        // `/a/*` does not match `/a/` itself without a segment behind it being empty: the rest may be empty only
        // after the slash.
        memchr::memrchr_iter(b'/', path)
            .find_map(|slash| self.prefixes.get(&path[..=slash]).and_then(first_match))
    }
}

impl Route {
    fn build(
        experiment: &Experiment,
        endpoints: &Endpoints,
        metrics: &Metrics,
    ) -> Result<Self, tls::Error> {
        let matcher = &experiment.matcher;
        let name = [("experiment", experiment.name.as_str())];
        let arms = experiment.arms.iter().map(|arm| {
            let way = (arm.host.clone(), arm.path.clone(), arm.protocol);
            let load = endpoints.arm(experiment.id, arm.id);
            let rule = &experiment.upstream;
            let fields = [
                (headers::EXPERIMENT, experiment.name.to_string()),
                (headers::ARM, arm.name.to_string()),
                (headers::POLICY_VERSION, experiment.version.to_string()),
            ];
            let mut lines = Vec::new();
            for (name, value) in &fields {
                field(&mut lines, name, value.as_bytes());
            }
            Ok(RouteArm {
                target: Target::new(endpoints, &arm.endpoints, way, rule, load)?,
                metrics: Arc::new(metrics.arm(&experiment.name, &arm.name)),
                fields,
                lines: lines.into(),
                model: arm.model.clone(),
            })
        });
        Ok(Self {
            methods: matcher.methods.clone(),
            host: matcher.host.clone(),
            headers: matcher.headers.clone(),
            arms: arms.collect::<Result<_, _>>()?,
            shadow: experiment.shadow.as_ref().map(|rule| {
                let slots = endpoints.shadow_slots(experiment.id);
                RouteShadow::build(rule, experiment, slots, metrics)
            }),
            reward_key: experiment.reward_key.as_ref().map(|header| {
                let missing = metrics.counter("pointsman_reward_key_missing_total", &name);
                (header.clone(), missing)
            }),
            unit_missing: metrics.counter("pointsman_unit_missing_total", &name),
            overhead: metrics.histogram("pointsman_overhead_seconds", &name),
            // Endpoints may be known from before.
            is_degraded: AtomicBool::new(true),
            access: Access::new(experiment.upstream.clone()),
        })
    }

    fn matches(&self, request: &Request) -> bool {
        (self.methods.is_empty()
            || self
                .methods
                .iter()
                .any(|method| method.as_bytes() == request.method_bytes()))
            && self.host.as_ref().is_none_or(|host| {
                host_of(request).is_some_and(|given| given.eq_ignore_ascii_case(host.as_bytes()))
            })
            && self.headers.iter().all(|(name, value)| {
                let mut given = request.fields.all(name.as_bytes());
                given.any(|given| given == value.as_bytes())
            })
    }
}

/// The request's host without its port.
fn host_of(request: &Request) -> Option<&[u8]> {
    let host = request.host()?;
    let end = if host.first() == Some(&b'[') {
        host.iter().position(|byte| *byte == b']')? + 1
    } else {
        host.iter()
            .position(|byte| *byte == b':')
            .unwrap_or(host.len())
    };
    Some(&host[..end])
}
