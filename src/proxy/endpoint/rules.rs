//! How endpoints are judged, as a policy file says it.

/// When an endpoint is taken out because of the answers that it gives to requests.
#[derive(Debug, Clone, PartialEq)]
pub struct EjectionRule {
    /// After this many failures in a row; 0: never.
    pub consecutive_failures: u32,
    /// When the share of successes within an interval falls below this.
    pub success_rate: Option<f64>,
    /// A success rate is judged from this many requests in the interval on.
    pub minimum_requests: u32,
    /// Length of an interval, in milliseconds. An endpoint that was back for as long is trusted one step more.
    pub interval: u64,
    /// How long the first ejection lasts, in milliseconds; each one that follows soon lasts twice as long as the one before.
    pub base: u64,
    /// The longest ejection, in milliseconds.
    pub max: u64,
    /// At most this share of the arm's endpoints, rounded down, is out at once.
    pub max_share: f64,
}

/// How endpoints are probed.
#[derive(Debug, Clone, PartialEq)]
pub struct HealthRule {
    /// Milliseconds from one probe to the next.
    pub interval: u64,
    /// A probe without an answer has failed after this, in milliseconds.
    pub timeout: u64,
    /// After this many successes in a row a failing endpoint passes again.
    pub healthy: u32,
    /// After this many failures in a row an endpoint is failing.
    pub unhealthy: u32,
}

/// When a request is sent again.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryRule {
    /// How often, at most.
    pub attempts: u32,
    /// Whether every request of the experiment may be sent twice.
    pub idempotent: bool,
    /// The answers after which it is sent again.
    pub statuses: Vec<u16>,
    /// The share of requests that may be sent again,
    pub budget: f64,
    /// and how many more in each second.
    pub budget_per_second: f64,
}
