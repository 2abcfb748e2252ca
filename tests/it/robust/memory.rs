//! Bodies that are read whole share a bounded memory; whoever would need more is told to come again, and what is done makes room.

use std::time::Duration;

use serde_json::json;

use super::{OK, is_overload, policy};
use crate::harness::http::Client;
use crate::harness::upstream::Upstream;
use crate::harness::{Proxy, eventually};

const SETTINGS: &str =
    "[limits]\nbuffered_body = 1000\nreward_body = 1000\nbuffered_bytes = 1000\n";

/// An experiment that reads bodies, at `/v1/stars`, and one that does not, at `/v1/other`.
fn start(more: &str, upstream: &Upstream) -> Proxy {
    let stars = policy("[unit]\njson = \"/user\"\n", &[("a", &[upstream.address])]);
    let other = policy("", &[("a", &[upstream.address])]).replace("/v1/stars", "/v1/other");
    let policies = [("stars", stars.as_str()), ("other", other.as_str())];
    let mut proxy = Proxy::prepare(&policies, &format!("{SETTINGS}{more}"));
    proxy.run();
    proxy
}

/// A client that has begun to send a body of so many bytes, for which there is room.
fn beginning(proxy: &Proxy, length: usize) -> Client {
    let head = format!(
        "POST /v1/stars HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
    );
    // The room of a request that was answered just now may still be taken.
    eventually("it may send its body", || {
        let mut client = proxy.client();
        client.raw(head.as_bytes());
        let (status, _) = client.receive_head().unwrap();
        assert!([100, 503].contains(&status), "{status}");
        (status == 100).then(|| {
            client.raw(b"{");
            client
        })
    })
}

fn body(length: usize) -> String {
    format!("{{\"user\":\"{}\"}}", "u".repeat(length - 11))
}

/// Waits until a body that needs all the memory is taken.
fn until_empty(proxy: &Proxy) {
    eventually("there is room again", || {
        let answer = proxy.client().post("/v1/stars", &body(1_000)).unwrap();
        assert!(answer.status == 200 || is_overload(&answer), "{answer:?}");
        (answer.status == 200).then_some(())
    });
}

#[test]
fn what_would_need_more_than_there_is_is_told_to_come_again() {
    let upstream = Upstream::raw(OK);
    let proxy = start("", &upstream);
    let post = |path: &str, body: &str| proxy.client().post(path, body).unwrap();
    let id = post("/v1/other", "{}").decision();
    let mut first = beginning(&proxy, 800);
    // Its length is told, or it might be anything.
    assert!(is_overload(&post("/v1/stars", &body(201))));
    let mut chunked = proxy.client();
    chunked.raw(b"POST /v1/stars HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n");
    assert!(is_overload(&chunked.receive(false).unwrap()));
    let reward = json!({"decision_id": id, "reward": 1, "note": "x".repeat(100)}).to_string();
    assert!(reward.len() > 200);
    assert!(is_overload(&post("/-/rewards", &reward)), "it is not lost");
    // What fits, and what is not read, is served meanwhile.
    assert_eq!(post("/v1/stars", &body(200)).status, 200);
    assert_eq!(post("/v1/other", &"x".repeat(5_000)).status, 200);
    assert_eq!(proxy.client().get("/-/healthy").unwrap().status, 200);
    first.raw(&body(800).as_bytes()[1..]);
    assert_eq!(first.receive(false).unwrap().status, 200);
    until_empty(&proxy);
    let reward = json!({"decision_id": id, "reward": 1}).to_string();
    assert_eq!(proxy.reward(&reward).statuses(), ["accepted"]);
}

#[test]
fn room_is_kept_until_the_answer_and_not_longer() {
    let (upstream, release) = Upstream::gated(OK);
    let proxy = start("", &upstream);
    let mut waiting = proxy.client();
    let body = body(900);
    waiting.raw(
        format!(
            "POST /v1/stars HTTP/1.1\r\nhost: a\r\nx-wait: 1\r\ncontent-length: 900\r\n\r\n{body}"
        )
        .as_bytes(),
    );
    eventually("the arm has it", || {
        (!upstream.received().is_empty()).then_some(())
    });
    let answer = proxy.client().post("/v1/stars", &body).unwrap();
    assert!(is_overload(&answer), "{answer:?}");
    release.send(()).unwrap();
    assert_eq!(waiting.receive(false).unwrap().status, 200);
    until_empty(&proxy);
}

#[test]
fn bodies_that_never_come_make_room() {
    let upstream = Upstream::raw(OK);
    let proxy = start(
        "body_timeout = \"500ms\"\nprogress_timeout = \"5s\"\n",
        &upstream,
    );
    // The client leaves, sends nonsense, or nothing more, or more than it said it would.
    drop(beginning(&proxy, 900));
    until_empty(&proxy);
    let mut silent = beginning(&proxy, 900);
    assert_eq!(silent.receive(false).unwrap().status, 408);
    until_empty(&proxy);
    for rest in ["zz\r\n", "3e9\r\n"] {
        eventually("its room is there, and taken", || {
            let mut client = proxy.client();
            client.raw(b"POST /v1/stars HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
            client.raw(rest.as_bytes());
            client.raw(&[b'x'; 1_001]);
            let answer = client.receive(false).unwrap();
            assert!(
                is_overload(&answer) || [400, 413].contains(&answer.status),
                "{answer:?}"
            );
            (answer.status != 503).then_some(())
        });
        until_empty(&proxy);
    }
    for _ in 0..20 {
        let answer = proxy.client().post("/v1/stars", &body(1_001)).unwrap();
        assert_eq!(answer.status, 413);
    }
    until_empty(&proxy);
}

#[test]
fn many_at_a_time_leave_nothing_behind() {
    let upstream = Upstream::raw(OK);
    let proxy = start("", &upstream);
    let statuses = std::thread::scope(|scope| {
        let posting: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = None;
                    let mut served = 0;
                    for _ in 0..50 {
                        let mut open = client.take().unwrap_or_else(|| proxy.client());
                        let answer = open.post("/v1/stars", &body(600)).unwrap();
                        assert!(answer.status == 200 || is_overload(&answer), "{answer:?}");
                        served += usize::from(answer.status == 200);
                        if answer.header("connection") != Some("close") {
                            client = Some(open);
                        }
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    served
                })
            })
            .collect();
        let served = posting.into_iter().map(|thread| thread.join().unwrap());
        served.sum::<usize>()
    });
    assert_eq!(upstream.received().len(), statuses);
    until_empty(&proxy);
}
