//! Where requests go and by which rules: what forwarding needs to know of an arm, or of the default upstream, which is none.

use std::sync::Arc;

use super::endpoint::{Budget, Ejections};
use super::tls;
use super::upstream::{ArmLoad, EndpointState, Endpoints};
use crate::experiment::Endpoint;
use crate::experiment::upstream::{HostRule, PathRewrite, Protocol, UpstreamRule};

/// How endpoints are reached.
#[derive(Debug)]
pub struct Access {
    /// The rules.
    pub rule: UpstreamRule,
    /// Retries that are allowed.
    pub budget: Budget,
}

impl Access {
    /// By these rules.
    pub fn new(rule: UpstreamRule) -> Self {
        Self {
            budget: Budget::new(&rule.retry),
            rule,
        }
    }
}

/// Where requests of one kind go.
#[derive(Debug)]
pub struct Target {
    /// Its replicas.
    pub endpoints: Vec<Arc<EndpointState>>,
    /// Which `Host` they see.
    pub host: HostRule,
    /// What becomes of the path.
    pub path: Option<PathRewrite>,
    /// What outlives reloads of it.
    pub load: Arc<ArmLoad>,
    /// Places of its endpoints that may be ejected.
    pub ejections: Ejections,
}

impl Target {
    /// A target with these endpoints. Those that were known before keep their state.
    ///
    /// # Errors
    ///
    /// A file that TLS to an endpoint needs.
    pub fn new(
        known: &Endpoints,
        endpoints: &[Endpoint],
        (host, path, protocol): (HostRule, Option<PathRewrite>, Protocol),
        rule: &UpstreamRule,
        load: Arc<ArmLoad>,
    ) -> Result<Self, tls::Error> {
        let states = endpoints.iter();
        let states = states.map(|endpoint| known.state(endpoint, protocol, rule));
        Ok(Self {
            endpoints: states.collect::<Result<_, _>>()?,
            host,
            path,
            load,
            ejections: Ejections::new(endpoints.len(), &rule.ejection),
        })
    }

    /// Whether one of its endpoints may get requests.
    pub fn is_available(&self, now: u64) -> bool {
        self.endpoints
            .iter()
            .any(|state| state.standing.is_available(now))
    }
}
