//! `model_field`: each arm is asked for its own model, and nothing else of the body changes.

use std::net::SocketAddr;
use std::sync::mpsc;

use http::Response;
use http_body_util::BodyExt;

use super::{OK, one_arm, policy, with_baseline};
use crate::harness::streams::{upstream, whole};
use crate::harness::upstream::Upstream;
use crate::harness::{Proxy, free_address, stars};

const FIELD: &str = "[upstream]\nmodel_field = \"/model\"\n";

/// Gives the arms of a policy file these models, in order.
fn with_models(mut text: String, models: &[(&str, &str)]) -> String {
    for (arm, model) in models {
        let name = format!("name = \"{arm}\"\n");
        assert!(text.contains(&name));
        text = text.replace(&name, &format!("{name}model = '{model}'\n"));
    }
    text
}

/// A server with one arm whose model is `large`.
fn large(settings: &str, tables: &str, address: SocketAddr) -> Proxy {
    let text = with_models(policy(tables, &[("a", &[address])]), &[("a", "large")]);
    let mut proxy = Proxy::prepare(&[("stars", &text)], settings);
    proxy.run();
    proxy
}

#[test]
fn each_arm_is_asked_for_its_own_model() {
    let [a, b, c] = [(); 3].map(|()| Upstream::raw(OK));
    let models = [("a", "small"), ("b", "the \"große\" one")];
    let text = stars(&format!("[policy.fixed]\n{FIELD}"), &[&a, &b, &c]);
    let proxy = Proxy::start(&[("stars", &with_models(text, &models))]);
    let body = " {\"messages\" : [ {\"model\":\"x\", \"n\":1.0e2} ],\r\n\t\"model\"  : \"their\\u0020own\", \"model2\":\"model\"}\n";
    let mut client = proxy.client();
    for _ in 0..60 {
        assert_eq!(client.post("/v1/stars", body).unwrap().status, 200);
    }
    let named = |model: &str| body.replace("\"their\\u0020own\"", model);
    for (upstream, expected) in [
        (a, named("\"small\"")),
        (b, named("\"the \\\"große\\\" one\"")),
        (c, body.to_owned()),
    ] {
        let received = upstream.received();
        assert!(!received.is_empty());
        for request in received {
            assert_eq!(String::from_utf8_lossy(&request.body), expected);
            let length = expected.len().to_string();
            assert_eq!(request.header("content-length"), Some(&*length));
            assert_eq!(request.header("transfer-encoding"), None);
        }
    }
}

#[test]
fn a_body_without_the_field_goes_as_it_came() {
    let a = Upstream::raw(OK);
    let proxy = large("", FIELD, a.address);
    let bodies: [&[u8]; 9] = [
        b"{\"messages\":[]}",
        b"{\"model\": 7}",
        b"{\"model\": null, \"a\": {\"model\": \"x\"}}",
        b"[\"model\"]",
        b"\"model\"",
        b"{\"model\": \"x\"",
        b"{\"model\": \"x\"} trailing",
        b"\x1f\x8b\x08\0\xff\xfe",
        b"",
    ];
    let mut client = proxy.client();
    for body in bodies {
        let answer = client.send("POST", "/v1/stars", &[], body).unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(a.received().last().unwrap().body, body);
    }
    assert_eq!(a.received().len(), bodies.len());
    // Without a body there is none.
    client.raw(super::GET);
    assert_eq!(client.receive(false).unwrap().status, 200);
    let head = a.received().last().unwrap().head.to_ascii_lowercase();
    assert!(!head.contains("content-length") && !head.contains("transfer-encoding"));
}

#[test]
fn a_chunked_body_is_sent_with_its_length() {
    let a = Upstream::raw(OK);
    let proxy = large("", FIELD, a.address);
    let mut client = proxy.client();
    client.raw(b"POST /v1/stars HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"mod\r\n9\r\nel\":\"x\"}\n\r\n0\r\n\r\n");
    assert_eq!(client.receive(false).unwrap().status, 200);
    let request = a.received().remove(0);
    assert_eq!(request.body, b"{\"model\":\"large\"}\n");
    assert_eq!(request.header("content-length"), Some("18"));
    assert_eq!(request.header("transfer-encoding"), None);
    // The connection is at the next request's start.
    assert_eq!(client.get("/v1/stars").unwrap().status, 200);
}

#[test]
fn endpoints_of_http_2_are_asked_for_it_too() {
    let (told, got) = mpsc::channel();
    let address = upstream(move |asked| {
        let told = told.clone();
        Box::pin(async move {
            let (parts, body) = asked.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            told.send((parts.headers["content-length"].clone(), body))
                .unwrap();
            Response::new(whole(b"{}"))
        })
    });
    let tables = format!("{FIELD}protocol = \"http2\"\n");
    let proxy = large("", &tables, address);
    let answer = proxy
        .client()
        .post("/v1/stars", "{\"model\":\"x\"}")
        .unwrap();
    assert_eq!(answer.status, 200);
    let (length, body) = got.recv().unwrap();
    assert_eq!(
        (length.to_str().unwrap(), &body[..]),
        ("17", &b"{\"model\":\"large\"}"[..])
    );
}

#[test]
fn the_baseline_that_answers_instead_is_asked_for_its_own() {
    let a = Upstream::raw(OK);
    let text = policy(FIELD, &[("a", &[a.address]), ("b", &[free_address()])]);
    let text = with_models(text, &[("b", "large")]);
    let proxy = Proxy::start(&[("stars", &text)]);
    let ask = || {
        let answer = proxy
            .client()
            .post("/v1/stars", "{\"model\":\"x\"}")
            .unwrap();
        assert_eq!((answer.status, answer.arm().as_str()), (200, "a"));
        String::from_utf8(a.received().pop().unwrap().body).unwrap()
    };
    assert_eq!(ask(), "{\"model\":\"x\"}");
    let text = text.replace("name = \"a\"\n", "name = \"a\"\nmodel = \"very small\"\n");
    proxy.write_policy("stars", &text);
    assert_eq!(proxy.reload().status, 200);
    assert_eq!(ask(), "{\"model\":\"very small\"}");
}

#[test]
fn a_longer_body_than_is_read_for_it_is_refused() {
    let a = Upstream::raw(OK);
    let settings = "[limits]\nbuffered_body = 1000\n";
    let proxy = large(settings, FIELD, a.address);
    let body = |length: usize| format!("{{\"model\":\"{}\"}}", "x".repeat(length - 12));
    let post = |body: &str| proxy.client().post("/v1/stars", body).unwrap().status;
    assert_eq!(post(&body(1_000)), 200);
    assert_eq!(a.received()[0].body, b"{\"model\":\"large\"}");
    assert_eq!(post(&body(1_001)), 413);
    assert_eq!(a.received().len(), 1);
}

#[test]
fn without_the_field_nothing_is_read() {
    let a = Upstream::raw(OK);
    let proxy = one_arm("[limits]\nbuffered_body = 1000\n", "", &[a.address]);
    let body = format!("{{\"model\":\"{}\"}}", "x".repeat(5_000));
    assert_eq!(proxy.client().post("/v1/stars", &body).unwrap().status, 200);
    assert_eq!(a.received()[0].body, body.as_bytes());
    let proxy = with_baseline("", &[free_address()], &[a.address]);
    assert_eq!(proxy.client().post("/v1/stars", &body).unwrap().status, 200);
    assert_eq!(a.received()[1].body, body.as_bytes());
}
