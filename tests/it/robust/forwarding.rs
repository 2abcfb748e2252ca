//! What endpoints are told: of the client, of the host, of the path, of the time left.

use super::{OK, one_arm, policy};
use crate::harness::Proxy;
use crate::harness::upstream::{Received, Upstream};

/// What an endpoint gets of a request with these headers and settings.
fn forwarded(settings: &str, tables: &str, headers: &[(&str, &str)]) -> (Received, Upstream) {
    let upstream = Upstream::raw(OK);
    let proxy = one_arm(settings, tables, &[upstream.address]);
    let answer = proxy
        .client()
        .send("GET", "/v1/stars?q=/v1/", headers, b"")
        .unwrap();
    assert_eq!(answer.status, 200);
    (upstream.received().remove(0), upstream)
}

const SAID: &[(&str, &str)] = &[
    ("x-forwarded-for", "1.2.3.4"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "said.example"),
    ("forwarded", "for=1.2.3.4"),
];

fn told(received: &Received) -> [Option<&str>; 4] {
    [
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "forwarded",
    ]
    .map(|name| received.header(name))
}

#[test]
fn by_default_the_client_is_added_to_what_the_request_says() {
    let (received, _upstream) = forwarded("", "", SAID);
    assert_eq!(
        told(&received),
        [
            Some("1.2.3.4, 127.0.0.1"),
            Some("https"),
            Some("said.example"),
            Some("for=1.2.3.4")
        ]
    );
    let (received, _upstream) = forwarded("", "", &[]);
    assert_eq!(
        told(&received),
        [Some("127.0.0.1"), Some("http"), Some("127.0.0.1"), None]
    );
    assert_eq!(received.header("via"), None);
}

#[test]
fn what_the_request_says_is_replaced_where_clients_are_not_trusted() {
    let (received, _upstream) = forwarded("[forwarding]\nmode = \"replace\"\n", "", SAID);
    assert_eq!(
        told(&received),
        [Some("127.0.0.1"), Some("http"), Some("127.0.0.1"), None]
    );
    let settings = "[forwarding]\nmode = \"replace\"\nheaders = \"forwarded\"\nvia = true\n";
    let (received, _upstream) = forwarded(settings, "", SAID);
    assert_eq!(
        told(&received),
        [
            None,
            None,
            None,
            Some("for=127.0.0.1;host=\"127.0.0.1\";proto=http")
        ]
    );
    assert_eq!(received.header("via"), Some("1.1 pointsman"));
}

#[test]
fn both_forms_may_be_had_and_neither() {
    let settings = "[forwarding]\nheaders = \"both\"\n";
    let (received, _upstream) = forwarded(settings, "", SAID);
    assert_eq!(
        received.header("x-forwarded-for"),
        Some("1.2.3.4, 127.0.0.1")
    );
    assert_eq!(
        received.header("forwarded"),
        Some("for=1.2.3.4, for=127.0.0.1;host=\"127.0.0.1\";proto=http")
    );
    let settings = "[forwarding]\nmode = \"off\"\n";
    let (received, _upstream) = forwarded(settings, "", SAID);
    assert_eq!(
        told(&received),
        [
            Some("1.2.3.4"),
            Some("https"),
            Some("said.example"),
            Some("for=1.2.3.4")
        ]
    );
    let (received, _upstream) = forwarded(settings, "", &[]);
    assert_eq!(told(&received), [None; 4]);
}

#[test]
fn the_host_is_kept_or_the_endpoints_or_another() {
    let (received, _upstream) = forwarded("", "", &[]);
    assert_eq!(received.header("host"), Some("127.0.0.1"));
    let (received, upstream) = forwarded("", "[upstream]\nhost = \"endpoint\"\n", &[]);
    assert_eq!(
        received.header("host"),
        Some(upstream.address.to_string().as_str())
    );
    let tables = "[upstream]\nhost = \"model.example:8080\"\n";
    let (received, _upstream) = forwarded("", tables, &[]);
    assert_eq!(received.header("host"), Some("model.example:8080"));
    assert_eq!(received.header("x-forwarded-host"), Some("127.0.0.1"));
}

#[test]
fn an_arm_may_have_a_host_and_a_path_of_its_own() {
    let (a, b) = (Upstream::raw(OK), Upstream::raw(OK));
    let tables =
        "[upstream]\nhost = \"all.example\"\nrewrite_path = { from = \"/v1/\", to = \"/\" }\n";
    let mut text = policy(tables, &[("a", &[a.address]), ("b", &[b.address])]);
    text.push_str("host = \"b.example\"\nrewrite_path = { from = \"/v1/\", to = \"/b/c/\" }\n");
    let proxy = Proxy::start(&[("stars", &text.replace("weight = 0", "weight = 1"))]);
    for _ in 0..20 {
        proxy.client().get("/v1/stars?q=/v1/").unwrap();
    }
    for (upstream, host, target) in [
        (&a, "all.example", "GET /stars?q=/v1/ HTTP/1.1"),
        (&b, "b.example", "GET /b/c/stars?q=/v1/ HTTP/1.1"),
    ] {
        let received = upstream.received();
        assert!(!received.is_empty());
        for request in received {
            assert_eq!(request.header("host"), Some(host));
            assert_eq!(request.head.lines().next(), Some(target));
        }
    }
}

#[test]
fn a_path_is_rewritten_at_its_start_alone() {
    let tables = "[upstream]\nrewrite_path = { from = \"/v1/\", to = \"/models/x/\" }\n";
    let (received, _upstream) = forwarded("", tables, &[]);
    assert!(
        received
            .head
            .starts_with("GET /models/x/stars?q=/v1/ HTTP/1.1\r\n")
    );
    let tables = "[upstream]\nrewrite_path = { from = \"/v\", to = \"/\" }\n";
    // `from` goes by segments: it ends in /.
    let bad = Proxy::prepare(&[("stars", &policy(tables, &[("a", &[])]))], "");
    assert_eq!(bad.command().output().unwrap().status.code(), Some(1));
}

#[test]
fn endpoints_are_told_the_time_left() {
    let forged = [("x-time-left", "999999999")];
    for (rule, most) in [
        ("total_timeout = \"7s\"\n", 7_000),
        ("response_timeout = \"9s\"\n", 9_000),
    ] {
        let tables = format!("[upstream]\ndeadline_header = \"X-Time-Left\"\n{rule}");
        let (received, _upstream) = forwarded("", &tables, &forged);
        let named = received.head.to_ascii_lowercase();
        assert_eq!(named.matches("x-time-left").count(), 1, "{named}");
        let left: u64 = received.header("x-time-left").unwrap().parse().unwrap();
        assert!((1..=most).contains(&left), "{left}");
    }
}
