use std::path::Path;

use super::*;
use crate::experiment::Endpoint;
use crate::experiment::upstream::{HostRule, Protocol};

fn over(path: &str, value: &str) -> (String, String) {
    (path.to_owned(), value.to_owned())
}

#[test]
fn an_empty_file_gives_the_documented_defaults() {
    let settings = parse("pointsman.toml", "", &[]).unwrap();
    assert_eq!(settings.listen.proxy.to_string(), "0.0.0.0:8080");
    assert_eq!(settings.listen.admin.to_string(), "127.0.0.1:9901");
    assert_eq!(
        settings.auth.secret_path(&settings.data.dir),
        Path::new("data/secret")
    );
    assert_eq!(
        (settings.limits.reward_body, settings.limits.reward_items),
        (4 << 20, 10_000)
    );
    assert_eq!(
        (
            settings.shutdown.drain_delay,
            settings.shutdown.drain_timeout
        ),
        (5_000, 25_000)
    );
    assert_eq!(settings.data.fsync, Durability::Group);
    assert_eq!((&settings.tls, &settings.default_upstream), (&None, &None));
    let forwarding = Forwarding {
        mode: ForwardingMode::Append,
        style: ForwardingStyle::XForwarded,
        via: false,
    };
    assert_eq!(settings.forwarding, forwarding);
    assert_eq!(
        settings.take_over.socket_path(&settings.data.dir),
        Path::new("data/take-over.sock")
    );
    let limits = &settings.limits;
    assert_eq!(
        (limits.in_flight, limits.buffered_bytes),
        (10_000, 256 << 20)
    );
    assert_eq!(
        (limits.streams, limits.upstream_idle, limits.headers),
        (128, 256, 100)
    );
    assert_eq!(
        (limits.response_headers, limits.response_header_bytes),
        (256, 65_536)
    );
    assert_eq!(
        (limits.keep_alive_timeout, limits.progress_timeout),
        (60_000, 30_000)
    );
}

#[test]
fn flags_beat_the_environment_which_beats_the_file() {
    let text = "[listen]\nproxy = \"1.1.1.1:1\"\nadmin = \"127.0.0.1:1\"\n[workers]\ncount = 1\n";
    let environment = from_environment(|name| match name {
        "POINTSMAN_LISTEN_PROXY" => Some("2.2.2.2:2".to_owned()),
        "POINTSMAN_WORKERS_COUNT" => Some("2".to_owned()),
        _ => None,
    });
    let overrides = [environment, vec![over("listen.proxy", "3.3.3.3:3")]].concat();
    let settings = parse("pointsman.toml", text, &overrides).unwrap();
    assert_eq!(settings.listen.proxy.to_string(), "3.3.3.3:3");
    assert_eq!(settings.listen.admin.to_string(), "127.0.0.1:1");
    assert_eq!(settings.workers.count, 2);
}

#[test]
fn every_problem_is_told_with_its_place() {
    let text = "[listen]\nproxy = \"nowhere\"\n[workers]\ncuont = 2\n[limits]\narms = 0\n";
    let problems = parse(
        "pointsman.toml",
        text,
        &[over("shutdown.drain_delay", "soon")],
    )
    .unwrap_err();
    let shown: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(problems.len(), 4, "{shown:#?}");
    assert!(
        shown.iter().any(
            |text| text.contains("pointsman.toml:4:1") && text.contains("did you mean `count`")
        ),
        "{shown:#?}"
    );
    assert!(
        shown
            .iter()
            .any(|text| text.contains("shutdown.drain_delay:1:")),
        "{shown:#?}"
    );
}

#[test]
fn an_override_cannot_bring_keys_of_its_own() {
    assert!(parse("f", "", &[over("workers.count", "1\n[auth]\nopen = true")]).is_err());
    assert!(parse("f", "", &[over("auth.open", "true\n")]).is_err());
    assert!(parse("f", "", &[over("auth.client_token", "a b")]).is_err());
    let settings = parse("f", "", &[over("auth.client_token", "s3cret")]).unwrap();
    assert!(!format!("{settings:?}").contains("s3cret"));
}

#[test]
fn an_open_admin_listener_needs_a_token() {
    let bare = "[listen]\nadmin = \"0.0.0.0:9901\"\n";
    assert!(
        parse("f", bare, &[]).unwrap_err()[0]
            .to_string()
            .contains("admin_token")
    );
    assert!(parse("f", &format!("{bare}[auth]\nadmin_token = \"x\"\n"), &[]).is_ok());
}

#[test]
fn tls_forwarding_and_what_is_left_are_read() {
    let text = r#"
        [tls]
        certificate = "c.pem"
        key = "k.pem"
        client_ca = "ca.pem"
        client_certificate = "optional"
        [forwarding]
        mode = "replace"
        headers = "both"
        via = true
        [default]
        upstream = "https://h:8443"
        protocol = "http2"
        host = "endpoint"
        connect_timeout = "3s"
        idle_timeout = "5m"
        ca_file = "endpoint-ca.pem"
        [take_over]
        socket = "/run/pointsman.sock"
    "#;
    let settings = parse("f", text, &[over("forwarding.mode", "off")]).unwrap();
    let tls = Tls {
        certificate: "c.pem".into(),
        key: "k.pem".into(),
        client_ca: Some("ca.pem".into()),
        client_required: false,
    };
    assert_eq!(settings.tls, Some(tls));
    let forwarding = Forwarding {
        mode: ForwardingMode::Off,
        style: ForwardingStyle::Both,
        via: true,
    };
    assert_eq!(settings.forwarding, forwarding);
    let default = settings.default_upstream.unwrap();
    assert_eq!(Ok(default.endpoint), Endpoint::parse("https://h:8443"));
    let rule = default.rule;
    assert_eq!(
        (rule.protocol, rule.host),
        (Protocol::Http2, HostRule::Endpoint)
    );
    assert_eq!(
        (
            rule.connect_timeout,
            rule.response_timeout,
            rule.idle_timeout
        ),
        (3_000, 60_000, 300_000)
    );
    assert_eq!(
        (rule.tls.ca_file, rule.tls.verify),
        (Some("endpoint-ca.pem".into()), true)
    );
    assert!(rule.retry.statuses.is_empty());
    assert_eq!(
        settings.take_over.socket_path(&settings.data.dir),
        Path::new("/run/pointsman.sock")
    );
    let required = parse(
        "f",
        "[tls]\ncertificate = \"c\"\nkey = \"k\"\nclient_ca = \"a\"\n",
        &[],
    )
    .unwrap();
    assert!(required.tls.is_some_and(|tls| tls.client_required));
}

#[test]
fn every_wrong_value_is_told_with_what_would_be_right() {
    let long = format!("[take_over]\nsocket = \"/{}\"", "s".repeat(107));
    for (text, wanted) in [
        ("[tls]\ncertificate = \"c\"", "`certificate` needs `key`"),
        ("[tls]\nkey = \"k\"", "`key` needs `certificate`"),
        (
            "[tls]\nclient_ca = \"a\"",
            "`client_ca` needs `certificate` and `key`",
        ),
        (
            "[tls]\nclient_certificate = \"optional\"",
            "says nothing without `client_ca`",
        ),
        (
            "[tls]\nclient_certificate = \"maybe\"",
            "`client_certificate` cannot be \"maybe\"",
        ),
        ("[forwarding]\nmode = \"add\"", "`mode` cannot be \"add\""),
        (
            "[forwarding]\nheaders = \"forward\"",
            "did you mean \"forwarded\"?",
        ),
        ("[forwarding]\nvia = \"pointsman\"", "`via` cannot be"),
        ("[default]\nupstream = \"h:1\"", "`h:1` is not an endpoint"),
        ("[default]\nupstream = \"http://h/path\"", "without a path"),
        (
            "[default]\nupstream = [\"http://h\"]",
            "`upstream` cannot be",
        ),
        (
            "[default]\nupstream = \"http://h\"\nca_file = \"a\"",
            "says nothing without an https:// `upstream`",
        ),
        (
            "[default]\nprotocol = \"http3\"",
            "`protocol` cannot be \"http3\"",
        ),
        ("[default]\nhost = \"kept\"", "`host` cannot be \"kept\""),
        ("[default]\nresponse_timeout = \"0s\"", "above zero"),
        (
            "[default]\nidle_timeout = \"366d\"",
            "`idle_timeout` is longer than a year",
        ),
        (
            "[default]\nupstreams = \"http://h\"",
            "did you mean `upstream`",
        ),
        (&long, "`socket` has 108 bytes"),
        (
            "[limits]\nbuffered_bytes = 1000",
            "one body may have 65536 bytes",
        ),
        (
            "[limits]\nbuffered_bytes = 0",
            "`buffered_bytes` cannot be 0",
        ),
        ("[limits]\nin_flight = 0", "`in_flight` cannot be 0"),
        ("[limits]\nstreams = 0", "`streams` cannot be 0"),
        ("[limits]\nstreams = 65536", "`streams` cannot be 65536"),
        (
            "[limits]\nupstream_idle = -1",
            "`upstream_idle` cannot be -1",
        ),
        (
            "[limits]\nresponse_headers = 0",
            "`response_headers` cannot be 0",
        ),
        (
            "[limits]\nresponse_header_bytes = 100",
            "`response_header_bytes` cannot be 100",
        ),
        ("[limits]\nkeep_alive_timeout = \"0s\"", "above zero"),
        (
            "[limits]\nprogress_timeout = \"366d\"",
            "`progress_timeout` is longer than a year",
        ),
    ] {
        let problems = parse("pointsman.toml", text, &[]).unwrap_err();
        let shown: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert!(
            shown.len() == 1 && shown[0].contains(wanted) && shown[0].contains("help: "),
            "{text} should tell {wanted}: {shown:#?}"
        );
    }
}
