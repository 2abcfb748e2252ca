//! Requests that match no experiment: without a default upstream they are not found, with one they are passed through as they are.

use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr};

use super::{OK, echo_chunks, is_overload, policy};
use crate::harness::http::{Answer, Client};
use crate::harness::upstream::{Upstream, read_request};
use crate::harness::{Proxy, eventually, free_address, journal, streams};

/// A server whose one experiment is never asked, unless a test does so, and these further settings of `[default]`.
fn passing_to(address: SocketAddr, keys: &str, settings: &str, arm: SocketAddr) -> Proxy {
    let text = policy("", &[("a", &[arm])]);
    let settings = format!("{settings}\n[default]\nupstream = \"http://{address}\"\n{keys}\n");
    let mut proxy = Proxy::prepare(&[("stars", &text)], &settings);
    proxy.run();
    proxy
}

fn passing(address: SocketAddr) -> Proxy {
    passing_to(address, "", "", free_address())
}

/// The value of a counter.
fn counter(proxy: &Proxy, name: &str) -> f64 {
    let text = proxy.admin().get("/metrics").unwrap().text();
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.trim().parse().unwrap())
}

fn has_nothing_of_ours(answer: &Answer) -> bool {
    let mut names = answer.headers.iter().map(|(name, _)| name);
    !names.any(|name| name.starts_with("x-pointsman") || name == "set-cookie")
}

fn is_problem(answer: &Answer, status: u16) -> bool {
    answer.status == status
        && answer.header("content-type") == Some("application/problem+json")
        && answer.json()["status"] == status
        && has_nothing_of_ours(answer)
}

#[test]
fn without_a_default_upstream_they_are_not_found() {
    let arm = Upstream::raw(OK);
    let proxy = super::one_arm("", "", &[arm.address]);
    let answer = proxy.client().get("/elsewhere").unwrap();
    assert!(is_problem(&answer, 404), "{answer:?}");
    assert_eq!(arm.received().len(), 0);
    assert_eq!(counter(&proxy, "pointsman_unmatched_total"), 1.0);
}

#[test]
fn they_arrive_as_they_were_sent_and_so_do_their_answers() {
    let upstream = Upstream::behaving(|request, stream| {
        let head = format!(
            "HTTP/1.1 203 Echoed\r\nx-kept: 1\r\nx-kept: 2\r\nx-pointsman-arm: forged\r\nx-pointsman-decision: forged\r\nconnection: x-hop\r\nx-hop: 1\r\ncontent-length: {}\r\n\r\n",
            request.body.len()
        );
        stream
            .write_all(&[head.as_bytes(), &request.body].concat())
            .is_ok()
    });
    let proxy = passing(upstream.address);
    let body: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    let headers = [
        ("x-custom", "kept"),
        ("x-pointsman-arm", "forged"),
        ("x-pointsman-force", "a"),
        ("connection", "x-hop"),
        ("x-hop", "gone"),
    ];
    let mut client = proxy.client();
    for _ in 0..2 {
        let answer = client
            .send("PATCH", "/else/where?q=1&r=a%2Fb", &headers, &body)
            .unwrap();
        assert_eq!(answer.status, 203);
        assert!(answer.body == body, "{} bytes", answer.body.len());
        assert!(has_nothing_of_ours(&answer), "{:?}", answer.headers);
        let kept = answer.headers.iter().filter(|(name, _)| name == "x-kept");
        assert_eq!(kept.count(), 2);
        assert_eq!(answer.header("x-hop"), None);
    }
    for got in upstream.received() {
        let line = got.head.lines().next();
        assert_eq!(line, Some("PATCH /else/where?q=1&r=a%2Fb HTTP/1.1"));
        assert!(got.body == body, "{} bytes", got.body.len());
        assert_eq!(got.header("x-custom"), Some("kept"));
        assert_eq!(got.header("host"), Some("127.0.0.1"));
        assert_eq!(got.header("x-forwarded-for"), Some("127.0.0.1"));
        assert_eq!(got.header("x-request-id").unwrap().len(), 32);
        for gone in [
            "x-pointsman-arm",
            "x-pointsman-force",
            "x-hop",
            "connection",
        ] {
            assert_eq!(got.header(gone), None, "{gone}");
        }
    }
}

#[test]
fn nothing_is_decided_or_journalled() {
    let (upstream, arm) = (Upstream::raw(OK), Upstream::raw(OK));
    let mut proxy = passing_to(upstream.address, "", "", arm.address);
    let mut client = proxy.client();
    for number in 0..20 {
        let answer = client.get(&format!("/elsewhere/{number}")).unwrap();
        assert_eq!(answer.status, 200);
    }
    assert_eq!(client.get("/v1/stars").unwrap().arm(), "a");
    assert_eq!(upstream.received().len(), 20);
    assert_eq!(arm.received().len(), 1);
    let passed = "pointsman_passed_through_total{code=\"2xx\"}";
    assert_eq!(counter(&proxy, passed), 20.0);
    assert_eq!(counter(&proxy, "pointsman_unmatched_total"), 20.0);
    // What is stopped has written all that it ever will.
    proxy.signal("TERM");
    assert_eq!(proxy.wait(), 0);
    let lines = journal(&proxy.data());
    for kind in ["decision", "outcome"] {
        let told = lines.iter().filter(|line| line["type"] == kind);
        assert_eq!(told.count(), 1, "{kind}");
    }
}

#[test]
fn an_experiment_that_matches_comes_first() {
    let (upstream, arm) = (Upstream::json("\"default\""), Upstream::json("\"arm\""));
    let proxy = passing_to(upstream.address, "", "", arm.address);
    let mut client = proxy.client();
    assert_eq!(client.get("/v1/stars").unwrap().text(), "\"arm\"");
    assert_eq!(client.get("/v1/star").unwrap().text(), "\"default\"");
    assert_eq!(client.get("/v1/stars/").unwrap().text(), "\"default\"");
    // A new experiment takes its requests from the next one on.
    let text = policy("", &[("a", &[arm.address])]).replace("/v1/stars", "/v1/star");
    proxy.write_policy("star", &text);
    assert_eq!(proxy.reload().status, 200);
    assert_eq!(client.get("/v1/star").unwrap().text(), "\"arm\"");
}

#[test]
fn reserved_paths_are_never_passed_through() {
    let upstream = Upstream::raw(OK);
    let proxy = passing(upstream.address);
    let mut client = proxy.client();
    for (path, status) in [
        ("/-/healthy", 200),
        ("/-/nothing", 404),
        ("/-/rewards", 405),
        ("/ofrep/v1/nothing", 404),
    ] {
        assert_eq!(client.get(path).unwrap().status, status, "{path}");
    }
    // Nor are bad ones.
    for path in ["/a/../-/rewards", "/a%2fb", "/a/%2e%2e/b"] {
        assert_eq!(client.get(path).unwrap().status, 400, "{path}");
        client = proxy.client();
    }
    assert_eq!(upstream.received().len(), 0);
}

#[test]
fn each_listener_keeps_to_its_own() {
    let (upstream, api) = (Upstream::raw(OK), free_address());
    let arm = policy("", &[("a", &[free_address()])]);
    let mut proxy = Proxy::prepare(&[("stars", &arm)], "");
    proxy.environment.extend([
        ("POINTSMAN_LISTEN_API", api.to_string().into()),
        (
            "POINTSMAN_DEFAULT_UPSTREAM",
            format!("http://{}", upstream.address).into(),
        ),
    ]);
    proxy.run();
    let mut requests = proxy.client();
    assert_eq!(requests.get("/-/healthy").unwrap().status, 404);
    assert_eq!(requests.post("/-/rewards", "{}").unwrap().status, 404);
    let mut reserved = Client::connect(api).unwrap();
    assert_eq!(reserved.get("/elsewhere").unwrap().status, 404);
    assert_eq!(reserved.get("/-/healthy").unwrap().status, 200);
    assert_eq!(upstream.received().len(), 0);
    assert_eq!(requests.get("/elsewhere").unwrap().status, 200);
    assert_eq!(upstream.received().len(), 1);
}

#[test]
fn bodies_stream_both_ways_with_their_trailers() {
    let upstream = echo_chunks();
    let proxy = passing(upstream.address);
    let mut client = proxy.client();
    client.raw(b"POST /elsewhere HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
    assert_eq!(client.receive_head().unwrap().0, 200);
    for round in 0..20 {
        let chunk = format!("round {round:04}");
        client.raw(format!("a\r\n{chunk}\r\n").as_bytes());
        assert_eq!(client.receive_chunk().unwrap(), chunk.as_bytes());
    }
    client.raw(b"0\r\nx-sum: 1\r\n\r\n");
    let last = b"0\r\nx-sum: 1\r\n\r\n";
    assert_eq!(client.bytes(last.len()), last);
}

#[test]
fn http2_passes_through_at_either_side() {
    let over_http2 = passing_to(
        streams::upstream(streams::echo),
        "protocol = \"http2\"",
        "",
        free_address(),
    );
    streams::run(async {
        let mut sender = streams::connect(over_http2.proxy).await;
        let (filler, body) = streams::frames();
        let asked = sender.send_request(streams::request("POST", "/elsewhere", body));
        filler.data(b"first");
        let answer = asked.await.unwrap();
        assert_eq!(answer.status(), 200);
        let names = answer.headers().keys();
        assert_eq!(
            names
                .filter(|name| name.as_str().starts_with("x-pointsman"))
                .count(),
            0
        );
        let mut body = answer.into_body();
        assert_eq!(streams::data(&mut body).await, "first");
        filler.data(b"second");
        assert_eq!(streams::data(&mut body).await, "second");
        filler.trailer("x-sum", "2");
        let frame = http_body_util::BodyExt::frame(&mut body)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(frame.into_trailers().unwrap()["x-sum"], "2");
    });
    let answer = over_http2.client().post("/elsewhere", "one").unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "one"));
}

#[test]
fn the_host_may_be_the_endpoints_own() {
    let upstream = Upstream::raw(OK);
    let proxy = passing_to(upstream.address, "host = \"endpoint\"", "", free_address());
    assert_eq!(proxy.client().get("/elsewhere").unwrap().status, 200);
    let host = upstream.address.to_string();
    assert_eq!(upstream.received()[0].header("host"), Some(host.as_str()));
}

#[test]
fn websockets_are_tunnelled() {
    let upstream = Upstream::connections(|_, stream| {
        let mut reader = BufReader::new(stream);
        let request = read_request(&mut reader).unwrap();
        assert_eq!(request.header("upgrade"), Some("websocket"));
        let switch = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n";
        reader.get_mut().write_all(switch).unwrap();
        let mut five = [0; 5];
        reader.read_exact(&mut five).unwrap();
        reader.get_mut().write_all(&five).unwrap();
        reader.get_ref().shutdown(Shutdown::Write).unwrap();
    });
    let proxy = passing(upstream.address);
    let mut client = proxy.client();
    client.raw(b"GET /elsewhere HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
    assert_eq!(client.receive_head().unwrap().0, 101);
    client.raw(b"hello");
    assert_eq!(client.bytes(5), b"hello");
    assert_eq!(client.rest(), b"");
    assert_eq!(
        counter(&proxy, "pointsman_passed_through_total{code=\"1xx\"}"),
        1.0
    );
}

#[test]
fn an_upstream_that_fails_is_a_problem_of_its_kind() {
    let refusing = passing(free_address());
    let mut client = refusing.client();
    for _ in 0..2 {
        let answer = client.post("/elsewhere", "{}").unwrap();
        assert!(is_problem(&answer, 502), "{answer:?}");
    }
    assert_eq!(
        counter(&refusing, "pointsman_passed_through_total{code=\"5xx\"}"),
        2.0
    );
    let silent = Upstream::behaving(|_, _| true);
    let hanging = passing_to(
        silent.address,
        "response_timeout = \"300ms\"",
        "",
        free_address(),
    );
    let answer = hanging.client().post("/elsewhere", "{}").unwrap();
    assert!(is_problem(&answer, 504), "{answer:?}");
    assert_eq!(silent.received().len(), 1);
    // A request that was seen is not sent again, unless its method allows that.
    let closing = Upstream::behaving(|_, _| false);
    let proxy = passing(closing.address);
    let answer = proxy.client().post("/elsewhere", "{}").unwrap();
    assert!(is_problem(&answer, 502), "{answer:?}");
    assert_eq!(closing.received().len(), 1);
    let answer = proxy.client().get("/elsewhere").unwrap();
    assert!(is_problem(&answer, 502), "{answer:?}");
    assert_eq!(closing.received().len(), 4, "two more tries");
}

#[test]
fn what_the_upstream_answers_is_the_answer() {
    let upstream =
        Upstream::raw(b"HTTP/1.1 503 Later\r\nretry-after: 7\r\ncontent-length: 4\r\n\r\nbusy");
    let proxy = passing(upstream.address);
    let answer = proxy.client().get("/elsewhere").unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (503, "busy"));
    assert_eq!(answer.header("retry-after"), Some("7"));
    assert_eq!(upstream.received().len(), 1);
}

#[test]
fn an_answer_that_breaks_off_is_seen_to() {
    let upstream = Upstream::raw(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
    let proxy = passing_to(
        upstream.address,
        "idle_timeout = \"300ms\"",
        "",
        free_address(),
    );
    let mut client = proxy.client();
    client.raw(b"GET /elsewhere HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(client.receive_head().unwrap().0, 200);
    assert_eq!(client.rest(), b"half");
}

#[test]
fn a_clients_own_bad_body_is_its_own_fault() {
    let upstream = Upstream::raw(OK);
    let proxy = passing(upstream.address);
    let mut client = proxy.client();
    client.raw(b"POST /elsewhere HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n");
    let answer = client.receive(false).unwrap();
    assert!(is_problem(&answer, 400), "{answer:?}");
    assert_eq!(upstream.received().len(), 0);
}

#[test]
fn they_count_among_the_requests_in_flight() {
    let (upstream, release) = Upstream::gated(OK);
    let proxy = passing_to(
        upstream.address,
        "",
        "[limits]\nin_flight = 1\n",
        free_address(),
    );
    let mut first = proxy.client();
    first.raw(b"GET /elsewhere HTTP/1.1\r\nhost: a\r\nx-wait: 1\r\n\r\n");
    eventually("the first is in flight", || {
        (upstream.received().len() == 1).then_some(())
    });
    let answer = proxy.client().get("/elsewhere").unwrap();
    assert!(is_overload(&answer), "{answer:?}");
    release.send(()).unwrap();
    assert_eq!(first.receive(false).unwrap().status, 200);
}

#[test]
fn a_server_does_not_start_without_the_authorities_that_it_is_told_of() {
    let settings =
        "[default]\nupstream = \"https://localhost:1\"\nca_file = \"/nowhere/authorities.pem\"\n";
    let text = policy("", &[("a", &[free_address()])]);
    let proxy = Proxy::prepare(&[("stars", &text)], settings);
    let output = proxy.command().output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        told.contains("[default]") && told.contains("/nowhere/authorities.pem"),
        "{told}"
    );
}
