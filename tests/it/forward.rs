//! What happens to a request and to a response on their way.

use std::io::Write;

use serde_json::json;

use crate::harness::http::Client;
use crate::harness::upstream::Upstream;
use crate::harness::{Proxy, eventually, journal};

const FIXED: &str = "[policy.fixed]\n";

#[test]
fn a_request_arrives_as_it_was_sent() {
    let a = Upstream::json("{\"ok\": true}");
    let proxy = Proxy::stars(FIXED, &[&a]);
    let headers = [
        ("x-custom", "kept"),
        ("x-pointsman-arm", "forged"),
        ("connection", "x-hop, keep-alive"),
        ("x-hop", "gone"),
        ("te", "gzip"),
        ("accept-encoding", "br"),
    ];
    let body = "{\"text\": \"schön\"}".as_bytes();
    let answer = proxy
        .client()
        .send("PUT", "/v1/stars?q=1&r=a%2Fb", &headers, body)
        .unwrap();
    assert_eq!(answer.json(), json!({"ok": true}));
    let got = a.received().remove(0);
    assert!(
        got.head
            .starts_with("PUT /v1/stars?q=1&r=a%2Fb HTTP/1.1\r\n"),
        "{}",
        got.head
    );
    assert_eq!(got.body, body);
    assert_eq!(
        (got.header("x-custom"), got.header("host")),
        (Some("kept"), Some("127.0.0.1"))
    );
    assert_eq!(got.header("accept-encoding"), Some("br"));
    for gone in ["x-pointsman-arm", "x-hop", "te", "connection"] {
        assert_eq!(got.header(gone), None, "{gone}");
    }
    assert_eq!(got.header("x-request-id").unwrap().len(), 32);
    assert_eq!(got.header("traceparent").unwrap().len(), 55);
}

#[test]
fn a_response_arrives_as_it_was_sent_with_our_headers_in_place_of_forged_ones() {
    let a = Upstream::raw(
        b"HTTP/1.1 418 Teapot\r\nx-pointsman-arm: forged\r\nx-kept: 1\r\nx-kept: 2\r\nconnection: x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\ncontent-length: 3\r\n\r\nabc",
    );
    let proxy = Proxy::stars(FIXED, &[&a]);
    let answer = proxy.client().post("/v1/stars", "{}").unwrap();
    assert_eq!(
        (answer.status, answer.text().as_str(), answer.arm().as_str()),
        (418, "abc", "a")
    );
    let kept: Vec<_> = answer
        .headers
        .iter()
        .filter(|(name, _)| name == "x-kept")
        .map(|(_, value)| value.as_str())
        .collect();
    assert_eq!(kept, ["1", "2"]);
    for gone in ["x-hop", "keep-alive"] {
        assert_eq!(answer.header(gone), None, "{gone}");
    }
    assert_eq!(
        answer
            .headers
            .iter()
            .filter(|(name, _)| name == "x-pointsman-arm")
            .count(),
        1
    );
}

#[test]
fn bodies_stream_both_ways() {
    let (hold, release) = std::sync::mpsc::channel::<()>();
    let release = std::sync::Mutex::new(release);
    let a = Upstream::behaving(move |request, stream| {
        assert_eq!(request.body, b"hello world");
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")
            .unwrap();
        release.lock().unwrap().recv().unwrap();
        stream.write_all(b"6\r\nsecond\r\n0\r\n\r\n").is_ok()
    });
    let proxy = Proxy::stars(FIXED, &[&a]);
    let mut client = proxy.client();
    client.raw(
        b"POST /v1/stars HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n6\r\nhello \r\n",
    );
    client.raw(b"5\r\nworld\r\n0\r\n\r\n");
    let (status, _) = client.receive_head().unwrap();
    assert_eq!(status, 200);
    // The second chunk has not been sent yet: nothing waits for it.
    assert_eq!(client.receive_chunk().unwrap(), b"first");
    hold.send(()).unwrap();
    assert_eq!(client.receive_chunk().unwrap(), b"second");
    assert_eq!(client.receive_chunk(), None);
}

#[test]
fn connections_are_reused_on_both_sides_and_stale_ones_do_no_harm() {
    let a = Upstream::behaving(|request, stream| {
        let answered = stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
            .is_ok();
        answered && request.header("x-close").is_none()
    });
    let proxy = Proxy::stars(FIXED, &[&a]);
    let mut client = proxy.client();
    for round in 0..30 {
        // The upstream closes this connection without saying so.
        assert_eq!(
            client
                .send("POST", "/v1/stars", &[("x-close", "1")], b"{}")
                .unwrap()
                .status,
            200,
            "{round}"
        );
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn the_least_busy_endpoint_of_an_arm_is_chosen() {
    let (first, second) = (Upstream::json("{}"), Upstream::json("{}"));
    let text = format!(
        "[match]\npath = \"/v1/stars\"\n[policy.fixed]\n[reward]\nkind = \"binary\"\nwindow = \"1h\"\n[[arm]]\nname = \"a\"\nendpoints = [\"http://{}\", \"http://{}\"]\n",
        first.address, second.address
    );
    let proxy = Proxy::start(&[("stars", &text)]);
    let mut client = proxy.client();
    for _ in 0..40 {
        client.post("/v1/stars", "{}").unwrap();
    }
    let counts = (first.received().len(), second.received().len());
    assert_eq!(counts, (20, 20), "ties rotate");
}

#[test]
fn paths_match_most_specific_first_and_by_segment() {
    let upstreams: Vec<Upstream> = (0..5)
        .map(|index| Upstream::json(&index.to_string()))
        .collect();
    let policy = |matching: &str, index: usize| {
        format!(
            "[match]\n{matching}\n[policy.fixed]\n[reward]\nkind = \"binary\"\nwindow = \"1h\"\n[[arm]]\nname = \"a\"\nendpoints = [\"http://{}\"]\n",
            upstreams[index].address
        )
    };
    let proxy = Proxy::start(&[
        ("any", &policy("path = \"/a/*\"", 0)),
        ("longer", &policy("path = \"/a/b/*\"", 1)),
        ("exact", &policy("path = \"/a/b/c\"", 2)),
        (
            "tenant",
            &policy(
                "path = \"/a/b/c\"\nheaders = { \"x-tenant\" = \"acme\" }",
                3,
            ),
        ),
        ("get", &policy("path = \"/g\"\nmethods = [\"GET\"]", 4)),
    ]);
    let ask = |method: &str, path: &str, headers: &[(&str, &str)]| {
        let answer = proxy.client().send(method, path, headers, b"").unwrap();
        (
            answer.status,
            answer.header("x-pointsman-experiment").map(str::to_owned),
        )
    };
    let found = |name: &str| (200, Some(name.to_owned()));
    assert_eq!(ask("POST", "/a/x", &[]), found("any"));
    assert_eq!(ask("POST", "/a/b/x/y", &[]), found("longer"));
    assert_eq!(ask("POST", "/a/b/c?x=/a", &[]), found("exact"));
    assert_eq!(
        ask("POST", "/a/b/c", &[("x-tenant", "acme")]),
        found("tenant")
    );
    assert_eq!(ask("GET", "/g", &[]), found("get"));
    for path in ["/a", "/b", "/ab/c", "/g", "/-/nothing"] {
        assert_eq!(ask("POST", path, &[]), (404, None), "{path}");
    }
    for path in ["/a/../g", "/a/%2e%2e/g", "/a%2fb", "/a/b%5cc"] {
        assert_eq!(ask("GET", path, &[]), (400, None), "{path}");
    }
    let problem = proxy.client().post("/nowhere", "").unwrap();
    assert_eq!(
        problem.header("content-type"),
        Some("application/problem+json")
    );
    assert_eq!(problem.json()["status"], 404);
}

#[test]
fn an_arm_that_fails_is_told_apart_from_a_client_that_fails() {
    let hangs = Upstream::behaving(|request, stream| {
        if request.header("x-do") == Some("answer") {
            return stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
                .is_ok();
        }
        if request.header("x-do") == Some("cut") {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
                .unwrap();
            return false;
        }
        if request.header("x-do") == Some("garbage") {
            stream.write_all(b"this is not HTTP\r\n\r\n").unwrap();
            return false;
        }
        std::thread::park();
        true
    });
    let policy = "[policy.fixed]\n[upstream]\nresponse_timeout = \"2s\"\n";
    let proxy = Proxy::stars(policy, &[&hangs]);
    let ask = |what: &str| {
        proxy
            .client()
            .send("POST", "/v1/stars", &[("x-do", what)], b"{}")
            .unwrap()
    };
    let hung = ask("hang");
    assert_eq!(
        (hung.status, hung.header("content-type")),
        (504, Some("application/problem+json"))
    );
    assert!(hung.header("x-pointsman-decision").is_some());
    assert_eq!(ask("garbage").status, 502);
    assert_eq!(ask("answer").status, 200);
    // A cut response never looks complete.
    let mut client = proxy.client();
    client.raw(b"POST /v1/stars HTTP/1.1\r\nhost: a\r\nx-do: cut\r\ncontent-length: 0\r\n\r\n");
    assert!(
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| client.receive(false))).is_err()
    );
    // A client whose own body is bad gets a 400 and charges nobody.
    let mut client = proxy.client();
    client.raw(b"POST /v1/stars HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n");
    assert_eq!(client.receive(false).unwrap().status, 400);
    eventually("failures are tallied", || {
        (proxy.arms("stars", "failures") == [3.0]).then_some(())
    });
    let endings: Vec<String> = journal(&proxy.data())
        .iter()
        .filter(|line| line["type"] == "outcome")
        .map(|line| line["ending"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        endings.iter().filter(|ending| *ending == "failed").count(),
        3,
        "{endings:?}"
    );
}

#[test]
fn a_client_that_stops_sending_is_told_so_and_charges_nobody() {
    let a = Upstream::json("{}");
    let proxy = Proxy::stars(
        "[policy.fixed]\n[upstream]\nresponse_timeout = \"2s\"\n",
        &[&a],
    );
    let mut client = proxy.client();
    client.raw(b"POST /v1/stars HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabc");
    assert_eq!(client.receive(false).unwrap().status, 408);
    // One that sends slowly, but sends, is waited for.
    let mut client = proxy.client();
    client.raw(b"POST /v1/stars HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n");
    for _ in 0..10 {
        std::thread::sleep(std::time::Duration::from_millis(300));
        client.raw(b"x");
    }
    assert_eq!(client.receive(false).unwrap().status, 200);
    eventually("both exchanges have ended", || {
        let lines = journal(&proxy.data());
        (lines
            .iter()
            .filter(|line| line["type"] == "outcome")
            .count()
            == 2)
            .then_some(())
    });
    assert_eq!(proxy.arms("stars", "failures"), [0.0]);
}

#[test]
fn a_connection_that_still_carries_a_request_serves_nobody_else() {
    // Answers at the request's head, before its body has come.
    let a = Upstream::answering_early(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}");
    let proxy = Proxy::stars(
        "[policy.fixed]\n[upstream]\nresponse_timeout = \"2s\"\n",
        &[&a],
    );
    let mut stalled = proxy.client();
    stalled.raw(b"POST /v1/stars HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabc");
    assert_eq!(stalled.receive(false).unwrap().status, 200);
    for _ in 0..5 {
        let answer = proxy.client().send("GET", "/v1/stars", &[], b"").unwrap();
        assert_eq!(answer.status, 200);
    }
}

#[test]
fn head_requests_and_empty_answers_end() {
    let a = Upstream::behaving(|request, stream| {
        let answer: &[u8] = if request.head.starts_with("HEAD") {
            b"HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n"
        } else {
            b"HTTP/1.1 204 No Content\r\n\r\n"
        };
        stream.write_all(answer).is_ok()
    });
    let proxy = Proxy::stars(FIXED, &[&a]);
    let mut client = proxy.client();
    for _ in 0..3 {
        let head = client.send("HEAD", "/v1/stars", &[], b"").unwrap();
        assert_eq!(
            (head.status, head.header("content-length")),
            (200, Some("1234"))
        );
        assert_eq!(
            client.send("DELETE", "/v1/stars", &[], b"").unwrap().status,
            204
        );
    }
    eventually("every exchange has ended well", || {
        let lines = journal(&proxy.data());
        (lines
            .iter()
            .filter(|line| line["ending"] == "answered")
            .count()
            == 6)
            .then_some(())
    });
}

#[test]
fn ambiguous_requests_are_refused_before_they_reach_anybody() {
    let a = Upstream::json("{}");
    let proxy = Proxy::stars(FIXED, &[&a]);
    let heads: &[&str] = &[
        "POST /v1/stars HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
        "POST /v1/stars HTTP/1.1\r\nhost: a\r\nhost: b\r\ncontent-length: 0\r\n\r\n",
        "POST /v1/stars HTTP/1.1\r\nhost: a/b\r\ncontent-length: 0\r\n\r\n",
        "POST /v1/stars HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        "POST /v1/stars HTTP/1.1\r\nhost: a\r\ncontent-length: 3, 4\r\n\r\nabcd",
        "GET http://b/v1/stars HTTP/1.1\r\nhost: a\r\n\r\n",
        "CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n",
    ];
    for head in heads {
        let mut client = Client::connect(proxy.proxy).unwrap();
        client.raw(head.as_bytes());
        let answer = client.receive(false).unwrap();
        assert!((400..500).contains(&answer.status), "{head}: {answer:?}");
    }
    assert!(a.received().is_empty());
}
