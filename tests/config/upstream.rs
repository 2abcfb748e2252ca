//! `[upstream]`, endpoints, and what arms say instead.

mod mistakes;

use pointsman::config::compile::compile;
use pointsman::experiment::upstream::{
    EjectionRule, Endpoint, HealthRule, HostRule, PathRewrite, Probe, Protocol, RetryRule, Scheme,
    TlsRule, UpstreamRule,
};

use super::{GOOD, compiled, settings, source};

const FULL: &str = r#"
[upstream]
connect_timeout = "2s"
response_timeout = "3s"
idle_timeout = "4s"
total_timeout = "5s"
deadline_header = "X-Deadline-Ms"
protocol = "http2"
host = "endpoint"
rewrite_path = { from = "/v1/", to = "/" }
model_field = "/model"
max_in_flight = 7
max_pending = 8
slow_start = "9s"
[upstream.retry]
attempts = 3
idempotent = true
statuses = [500, 503]
budget = 0.5
budget_per_second = 1
[upstream.health]
path = "/healthz?full=1"
interval = "10s"
timeout = "2s"
healthy = 1
unhealthy = 4
[upstream.ejection]
consecutive_failures = 0
success_rate = 0.5
minimum_requests = 30
interval = "20s"
base = "15s"
max = "60s"
max_share = 1.0
[upstream.tls]
ca_file = "ca.pem"
server_name = "Models.example.org"
certificate = "client.pem"
key = "client.key"
"#;

/// The good file with `more`, in which `found` is replaced by `new`.
fn with(found: &str, new: &str, more: &str) -> String {
    assert!(GOOD.contains(found), "{found} is not in the good file");
    GOOD.replacen(found, new, 1) + more
}

const B: &str = "endpoints = [\"http://127.0.0.1:9002\"]";

#[test]
fn what_is_left_out_has_its_documented_default() {
    assert_eq!(compiled(GOOD).upstream, UpstreamRule::default());
    let tables = "[upstream]\n[upstream.retry]\n[upstream.ejection]\n";
    let experiment = compiled(&with("", "", tables));
    assert_eq!(experiment.upstream, UpstreamRule::default());
    let arm = &experiment.arms[0];
    assert_eq!((arm.protocol, &arm.host), (Protocol::Auto, &HostRule::Keep));
    assert_eq!((&arm.path, &arm.model), (&None, &None));
    let asked = compiled(&with("", "", "[upstream.health]\ngrpc = \"\"\n"));
    let wanted = HealthRule {
        probe: Probe::Grpc {
            service: String::new(),
        },
        interval: 5_000,
        timeout: 1_000,
        healthy: 2,
        unhealthy: 3,
    };
    assert_eq!(asked.upstream.health, Some(wanted));
}

#[test]
fn every_key_is_read_and_arms_say_otherwise() {
    let own = "endpoints = [\"https://b.example.org\"]\nprotocol = \"http1\"\nhost = \"b:8443\"\n\
               rewrite_path = { from = \"/\", to = \"/b/\" }\nmodel = \"small\"";
    let experiment = compiled(&with(B, own, FULL));
    let rewrite = PathRewrite {
        from: "/v1/".into(),
        to: "/".into(),
    };
    let wanted = UpstreamRule {
        connect_timeout: 2_000,
        response_timeout: 3_000,
        idle_timeout: 4_000,
        total_timeout: Some(5_000),
        deadline_header: Some("x-deadline-ms".into()),
        protocol: Protocol::Http2,
        host: HostRule::Endpoint,
        path: Some(rewrite.clone()),
        model_field: Some("/model".into()),
        max_in_flight: 7,
        max_pending: 8,
        slow_start: 9_000,
        retry: RetryRule {
            attempts: 3,
            idempotent: true,
            statuses: vec![500, 503],
            budget: 0.5,
            budget_per_second: 1.0,
        },
        health: Some(HealthRule {
            probe: Probe::Http {
                path: "/healthz?full=1".into(),
            },
            interval: 10_000,
            timeout: 2_000,
            healthy: 1,
            unhealthy: 4,
        }),
        ejection: EjectionRule {
            consecutive_failures: 0,
            success_rate: Some(0.5),
            minimum_requests: 30,
            interval: 20_000,
            base: 15_000,
            max: 60_000,
            max_share: 1.0,
        },
        tls: TlsRule {
            ca_file: Some("ca.pem".into()),
            server_name: Some("models.example.org".into()),
            verify: true,
            certificate: Some("client.pem".into()),
            key: Some("client.key".into()),
        },
    };
    assert_eq!(experiment.upstream, wanted);
    let [a, b] = &experiment.arms[..] else {
        panic!("two arms")
    };
    assert_eq!(
        (a.protocol, &a.host),
        (Protocol::Http2, &HostRule::Endpoint)
    );
    assert_eq!((&a.path, &a.model), (&Some(rewrite), &None));
    assert_eq!(
        (b.protocol, &b.host),
        (Protocol::Http1, &HostRule::Fixed("b:8443".into()))
    );
    let own = PathRewrite {
        from: "/".into(),
        to: "/b/".into(),
    };
    assert_eq!((&b.path, b.model.as_deref()), (&Some(own), Some("small")));
    let endpoint = Endpoint {
        scheme: Scheme::Https,
        host: "b.example.org".into(),
        port: 443,
    };
    assert_eq!(b.endpoints, [endpoint]);
}

#[test]
fn what_is_dangerous_or_odd_is_a_warning() {
    let secure = B.replace("http:", "https:");
    for (more, wanted) in [
        (
            "[upstream.tls]\nverify = false\n",
            "certificates of endpoints are not verified",
        ),
        (
            "[upstream]\nhost = \"endpoints\"\n",
            "did you mean \"endpoint\"?",
        ),
    ] {
        let loaded = compile(&[source("good", &with(B, &secure, more))], &settings()).unwrap();
        let [warning] = &loaded.warnings[..] else {
            panic!("{more}: {:?}", loaded.warnings)
        };
        assert!(warning.to_string().contains(wanted), "{warning}");
    }
    let plain = with(
        B,
        &secure,
        "[upstream]\nhost = \"models.example.org:8443\"\n",
    );
    assert!(
        compile(&[source("good", &plain)], &settings())
            .unwrap()
            .warnings
            .is_empty()
    );
}

#[test]
fn a_time_may_be_a_year_and_no_longer() {
    for (time, taken) in [("365d", true), ("366d", false)] {
        for key in [
            "connect_timeout",
            "response_timeout",
            "idle_timeout",
            "total_timeout",
            "slow_start",
        ] {
            let text = with("", "", &format!("[upstream]\n{key} = \"{time}\"\n"));
            assert_eq!(
                compile(&[source("a", &text)], &settings()).is_ok(),
                taken,
                "{key} {time}"
            );
        }
    }
}

#[test]
fn prefixes_meet_a_prefix_from_both_sides() {
    for (path, from, taken) in [
        ("/v1/*", "/v1/", true),
        ("/v1/*", "/", true),
        ("/v1/*", "/v1/models/", true),
        ("/v1/*", "/v2/", false),
        ("/v1", "/v1/", false),
        ("/*", "/a/", true),
    ] {
        let more = format!("[upstream]\nrewrite_path = {{ from = \"{from}\", to = \"/x/\" }}\n");
        let text = with("/v1/stars", path, &more);
        assert_eq!(
            compile(&[source("a", &text)], &settings()).is_ok(),
            taken,
            "{path} {from}"
        );
    }
}
