//! Metrics in Prometheus' text format. Handles are resolved when a policy is compiled, because a labelled look-up costs
//! half a microsecond and a held handle six nanoseconds; nothing on the request path names a metric.
//!
//! There is no global recorder: every server (and every test) has its own.

use std::sync::RwLock;

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder, Unit};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use crate::experiment::decision::Reason;
use crate::experiment::id::Name;

/// Upper bounds of latency buckets in seconds: models answer in milliseconds or, when they write text, in a minute.
const LATENCY_BUCKETS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0, 120.0,
];

/// Upper bounds of the proxy's own share in seconds.
const OVERHEAD_BUCKETS: &[f64] = &[
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05,
    0.1, 1.0,
];

const COUNTERS: &[(&str, &str)] = &[
    (
        "pointsman_requests_total",
        "Requests that were forwarded to an arm, by the status the client got.",
    ),
    (
        "pointsman_failures_total",
        "Exchanges that count as the arm's failure: no whole answer, or one (of a gRPC call too) that says that the server is at fault.",
    ),
    ("pointsman_decisions_total", "Decisions by reason."),
    (
        "pointsman_rewards_total",
        "Posted rewards by what became of them.",
    ),
    (
        "pointsman_unit_missing_total",
        "Requests without the unit that the policy file asks for.",
    ),
    (
        "pointsman_reward_key_missing_total",
        "Decisions without the key, of 1 to 256 bytes, that the policy file asks for in [reward].",
    ),
    (
        "pointsman_reward_keys_evicted_total",
        "Clients' keys that can no longer be rewarded, because newer ones exceed limits.reward_keys.",
    ),
    (
        "pointsman_journal_dropped_total",
        "Decisions and outcomes that the journal's full queue could not take.",
    ),
    (
        "pointsman_shadow_total",
        "Copies of requests for arms that shadow: answered, failed, or skipped before they were sent.",
    ),
    (
        "pointsman_unmatched_total",
        "Requests that belong to no experiment.",
    ),
    (
        "pointsman_passed_through_total",
        "Requests that belong to no experiment and went to the default upstream, by the class of the status the client got.",
    ),
    ("pointsman_config_reloads_total", "Reloads by outcome."),
    (
        "pointsman_tls_reloads_total",
        "Reloads of the certificate by outcome.",
    ),
];

const GAUGES: &[(&str, &str)] = &[
    (
        "pointsman_reward_sum",
        "Sum of the counted rewards of the epoch.",
    ),
    (
        "pointsman_arm_posterior_mean",
        "Posterior mean of the arm's reward.",
    ),
    (
        "pointsman_arm_probability_best",
        "Posterior probability that the arm is best.",
    ),
    (
        "pointsman_arm_allocation",
        "Probability with which the arm is drawn.",
    ),
    (
        "pointsman_arm_healthy",
        "1 if one of the arm's endpoints is available, 0 if none is and the arm is not drawn.",
    ),
    (
        "pointsman_learner_lag_seconds",
        "Age of the oldest committed reward that no snapshot holds yet, when last published.",
    ),
    (
        "pointsman_config_last_reload_successful",
        "1 if the last reload succeeded, 0 if the old policies still serve.",
    ),
    (
        "pointsman_config_last_reload_success_timestamp_seconds",
        "When policies last changed successfully.",
    ),
    (
        "pointsman_tls_last_reload_successful",
        "1 if the certificate's files are what serves, 0 if an old certificate still serves.",
    ),
    (
        "pointsman_tls_certificate_expiry_timestamp_seconds",
        "When the certificate that serves expires.",
    ),
    ("pointsman_connections", "Open client connections."),
    (
        "pointsman_journal_writable",
        "1 if the last group commit reached the disk.",
    ),
    ("pointsman_build_info", "1, with the version as a label."),
];

const HISTOGRAMS: &[(&str, &str)] = &[
    (
        "pointsman_upstream_request_duration_seconds",
        "From forwarding a request to the end of the arm's response.",
    ),
    (
        "pointsman_overhead_seconds",
        "From a request's head to its forwarding: what the proxy itself costs.",
    ),
    (
        "pointsman_journal_fsync_duration_seconds",
        "Duration of a group commit's fsync.",
    ),
];

const METADATA: Metadata<'static> = Metadata::new("pointsman", Level::INFO, None);

/// The server's metrics: makes handles and renders them.
#[derive(Debug)]
pub struct Metrics {
    recorder: Recording,
    handle: PrometheusHandle,
}

/// The exporter's recorder has no `Debug` of its own.
struct Recording(PrometheusRecorder);

impl std::fmt::Debug for Recording {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("PrometheusRecorder")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// An empty registry with every metric described.
    pub fn new() -> Self {
        let buckets = |builder: PrometheusBuilder, name: &str, bounds: &[f64]| {
            // Only an empty list of bounds is an error.
            builder
                .set_buckets_for_metric(Matcher::Full(name.to_owned()), bounds)
                .unwrap_or_default()
        };
        let builder = PrometheusBuilder::new();
        let builder = buckets(
            builder,
            "pointsman_upstream_request_duration_seconds",
            LATENCY_BUCKETS,
        );
        let builder = buckets(builder, "pointsman_overhead_seconds", OVERHEAD_BUCKETS);
        let builder = buckets(
            builder,
            "pointsman_journal_fsync_duration_seconds",
            LATENCY_BUCKETS,
        );
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        for (name, description) in COUNTERS {
            recorder.describe_counter((*name).into(), None, (*description).into());
        }
        for (name, description) in GAUGES {
            recorder.describe_gauge((*name).into(), None, (*description).into());
        }
        for (name, description) in HISTOGRAMS {
            recorder.describe_histogram((*name).into(), Some(Unit::Seconds), (*description).into());
        }
        let metrics = Self {
            recorder: Recording(recorder),
            handle,
        };
        metrics
            .gauge(
                "pointsman_build_info",
                &[("version", env!("CARGO_PKG_VERSION"))],
            )
            .set(1.0);
        metrics
    }

    /// The counter `name` with these labels.
    pub fn counter(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Counter {
        self.recorder
            .0
            .register_counter(&key(name, labels), &METADATA)
    }

    /// The gauge `name` with these labels.
    pub fn gauge(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Gauge {
        self.recorder
            .0
            .register_gauge(&key(name, labels), &METADATA)
    }

    /// The histogram `name` with these labels.
    pub fn histogram(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Histogram {
        self.recorder
            .0
            .register_histogram(&key(name, labels), &METADATA)
    }

    /// Everything in Prometheus' text format. Takes milliseconds when samples have piled up.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Folds pending histogram samples; without it they pile up until the next scrape.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// The handles of one arm.
    pub fn arm(&self, experiment: &Name, arm: &Name) -> ArmMetrics {
        let labels = [("experiment", experiment.as_str()), ("arm", arm.as_str())];
        let decisions = Reason::ALL.map(|reason| {
            self.counter(
                "pointsman_decisions_total",
                &[labels[0], labels[1], ("reason", reason.as_str())],
            )
        });
        ArmMetrics {
            decisions,
            requests_ok: self.counter(
                "pointsman_requests_total",
                &[labels[0], labels[1], ("code", "200")],
            ),
            requests_other: RwLock::default(),
            failures: self.counter("pointsman_failures_total", &labels),
            duration: self.histogram("pointsman_upstream_request_duration_seconds", &labels),
            posterior_mean: self.gauge("pointsman_arm_posterior_mean", &labels),
            reward_sum: self.gauge("pointsman_reward_sum", &labels),
        }
    }

    /// The handles of one arm that shadows.
    pub fn shadow(&self, experiment: &Name, arm: &Name) -> ShadowMetrics {
        let counter = |outcome| {
            let labels = [
                ("experiment", experiment.as_str()),
                ("arm", arm.as_str()),
                ("outcome", outcome),
            ];
            self.counter("pointsman_shadow_total", &labels)
        };
        ShadowMetrics {
            answered: counter("answered"),
            failed: counter("failed"),
            skipped: counter("skipped"),
        }
    }

    /// Counts one answer of an arm.
    pub fn count_request(&self, experiment: &Name, arm: &Name, metrics: &ArmMetrics, code: u16) {
        if code == 200 {
            metrics.requests_ok.increment(1);
            return;
        }
        let known = metrics.requests_other.read().ok().and_then(|codes| {
            codes
                .iter()
                .find(|(known, _)| *known == code)
                .map(|(_, counter)| counter.clone())
        });
        let counter = known.unwrap_or_else(|| {
            let text = code.to_string();
            let labels = [
                ("experiment", experiment.as_str()),
                ("arm", arm.as_str()),
                ("code", text.as_str()),
            ];
            let counter = self.counter("pointsman_requests_total", &labels);
            if let Ok(mut codes) = metrics.requests_other.write() {
                codes.push((code, counter.clone()));
            }
            counter
        });
        counter.increment(1);
    }
}

fn key(name: &'static str, labels: &[(&'static str, &str)]) -> Key {
    let labels: Vec<Label> = labels
        .iter()
        .map(|(name, value)| Label::new(*name, (*value).to_owned()))
        .collect();
    Key::from_parts(name, labels)
}

/// The handles of one arm, resolved when its policy file is compiled.
#[derive(Debug)]
pub struct ArmMetrics {
    /// By [`Reason::code`].
    pub decisions: [Counter; 5],
    requests_ok: Counter,
    /// Codes other than 200, as they turn up; at most one entry a status code.
    requests_other: RwLock<Vec<(u16, Counter)>>,
    /// Exchanges that failed.
    pub failures: Counter,
    /// Seconds from forwarding to the response's end.
    pub duration: Histogram,
    /// Belief about the mean.
    pub posterior_mean: Gauge,
    /// Σr of counted rewards.
    pub reward_sum: Gauge,
}

/// The handles of one arm that shadows. Each copy counts in one of them.
#[derive(Debug)]
pub struct ShadowMetrics {
    /// The arm answered.
    pub answered: Counter,
    /// It did not, or not well.
    pub failed: Counter,
    /// Nothing was sent: too much was under way, or the body was too long or broke off.
    pub skipped: Counter,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_code_and_renders_with_help() {
        let metrics = Metrics::new();
        let (experiment, arm) = (Name::new("stars").unwrap(), Name::new("a").unwrap());
        let handles = metrics.arm(&experiment, &arm);
        for code in [200, 200, 503, 503, 503] {
            metrics.count_request(&experiment, &arm, &handles, code);
        }
        let text = metrics.render();
        assert!(
            text.contains(
                "pointsman_requests_total{experiment=\"stars\",arm=\"a\",code=\"200\"} 2"
            ),
            "{text}"
        );
        assert!(
            text.contains(
                "pointsman_requests_total{experiment=\"stars\",arm=\"a\",code=\"503\"} 3"
            ),
            "{text}"
        );
        assert!(
            text.contains("# TYPE pointsman_requests_total counter"),
            "{text}"
        );
    }
}
