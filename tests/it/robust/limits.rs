//! Nothing grows without bound, and whoever is beyond a bound is told so at once.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, mpsc};

use super::{GET, OK, endings, is_overload, one_arm};
use crate::harness::eventually;
use crate::harness::upstream::Upstream;

/// An upstream that answers a request when it is let.
fn held() -> (Upstream, mpsc::Sender<()>) {
    let (sender, receiver) = mpsc::channel();
    let receiver = Arc::new(Mutex::new(receiver));
    let upstream = Upstream::behaving(move |_, stream| {
        receiver.lock().unwrap().recv().is_ok() && stream.write_all(OK).is_ok()
    });
    (upstream, sender)
}

#[test]
fn connections_beyond_the_limit_are_closed_at_once() {
    let upstream = Upstream::raw(OK);
    let proxy = one_arm("[limits]\nconnections = 2\n", "", &[upstream.address]);
    let mut clients: Vec<_> = (0..2).map(|_| proxy.client()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/v1/stars").unwrap().status, 200);
    }
    assert_eq!(proxy.client().rest(), b"");
    // Those that are open are unhurt, and the place of one that leaves is free again.
    assert_eq!(clients[0].get("/v1/stars").unwrap().status, 200);
    clients.pop();
    eventually("a new one is served", || {
        let mut stream = TcpStream::connect(proxy.proxy).unwrap();
        stream.write_all(GET).ok()?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).ok()?;
        (&answer == b"HTTP/1.1 200").then_some(())
    });
}

#[test]
fn requests_in_flight_beyond_the_limit_are_told_when_to_come_again() {
    for (settings, tables) in [
        ("[limits]\nin_flight = 1\n", ""),
        ("", "[upstream]\nmax_in_flight = 1\n"),
    ] {
        let (upstream, release) = held();
        let proxy = one_arm(settings, tables, &[upstream.address]);
        let mut first = proxy.client();
        first.raw(GET);
        eventually("it is in flight", || {
            (upstream.received().len() == 1).then_some(())
        });
        let mut second = proxy.client();
        for _ in 0..3 {
            let answer = second.get("/v1/stars").unwrap();
            assert!(is_overload(&answer), "{answer:?}");
        }
        // The API and what was taken before are unhurt.
        assert_eq!(proxy.client().get("/-/healthy").unwrap().status, 200);
        release.send(()).unwrap();
        assert_eq!(first.receive(false).unwrap().status, 200);
        release.send(()).unwrap();
        eventually("there is room again", || {
            (second.get("/v1/stars")?.status == 200).then_some(())
        });
        assert_eq!(upstream.received().len(), 2);
    }
}

#[test]
fn heads_are_bounded_in_bytes_and_in_number() {
    let upstream = Upstream::raw(OK);
    let settings = "[limits]\nheaders = 10\nheader_bytes = 2048\n";
    let proxy = one_arm(settings, "", &[upstream.address]);
    let long = "x".repeat(3_000);
    let many = "x-a: b\r\n".repeat(11);
    let cases = [
        (
            format!("GET /v1/stars HTTP/1.1\r\nhost: a\r\nx-long: {long}\r\n\r\n"),
            431,
        ),
        (
            format!("GET /v1/stars HTTP/1.1\r\nhost: a\r\n{many}\r\n"),
            431,
        ),
        (
            format!("GET /v1/stars?{long} HTTP/1.1\r\nhost: a\r\n\r\n"),
            414,
        ),
        // It need not have ended to be too long.
        (
            format!("GET /v1/stars HTTP/1.1\r\nhost: a\r\nx-long: {long}"),
            431,
        ),
        (format!("GET /v1/stars?{long}"), 414),
    ];
    for (head, status) in cases {
        let mut client = proxy.client();
        client.raw(head.as_bytes());
        let answer = client.receive(false).unwrap();
        assert_eq!(
            (answer.status, answer.header("connection")),
            (status, Some("close")),
            "{head}"
        );
    }
    assert!(upstream.received().is_empty());
    let nine = "x-a: b\r\n".repeat(9);
    let mut client = proxy.client();
    client.raw(format!("GET /v1/stars HTTP/1.1\r\nhost: a\r\n{nine}\r\n").as_bytes());
    assert_eq!(client.receive(false).unwrap().status, 200);
}

#[test]
fn a_body_is_read_for_a_value_only_up_to_the_limit() {
    let upstream = Upstream::raw(OK);
    let settings = "[limits]\nbuffered_body = 1000\n";
    let proxy = one_arm(settings, "[unit]\njson = \"/user\"\n", &[upstream.address]);
    // Told by its head, before a byte of it came.
    let mut client = proxy.client();
    client.raw(b"POST /v1/stars HTTP/1.1\r\nhost: a\r\ncontent-length: 1001\r\n\r\n");
    assert_eq!(client.receive(false).unwrap().status, 413);
    // And found out on the way.
    let mut client = proxy.client();
    client.raw(b"POST /v1/stars HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1000\r\n");
    client.raw(&[b' '; 4096]);
    assert_eq!(client.receive(false).unwrap().status, 413);
    assert!(upstream.received().is_empty());
    let body = format!("{{\"user\": \"{}\"}}", "x".repeat(900));
    let answer = proxy.client().post("/v1/stars", &body).unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(upstream.received()[0].body, body.as_bytes());
}

#[test]
fn a_body_that_nobody_looks_into_has_no_limit() {
    let upstream = Upstream::raw(OK);
    let settings = "[limits]\nbuffered_body = 1000\n";
    let proxy = one_arm(settings, "", &[upstream.address]);
    let body = "x".repeat(3 << 20);
    assert_eq!(proxy.client().post("/v1/stars", &body).unwrap().status, 200);
    assert!(upstream.received()[0].body == body.as_bytes());
}

#[test]
fn heads_of_responses_are_bounded() {
    let many = "x-a: b\r\n".repeat(300);
    let long = format!("x-long: {}\r\n", "x".repeat(10_000));
    for extra in [many, long] {
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n{extra}\r\n{{}}");
        let upstream = Upstream::raw(answer.as_bytes());
        let settings = "[limits]\nresponse_header_bytes = 8192\n";
        let proxy = one_arm(settings, "", &[upstream.address]);
        assert_eq!(proxy.client().get("/v1/stars").unwrap().status, 502);
        assert_eq!(endings(&proxy, 1), ["failed"]);
        assert_eq!(upstream.received().len(), 1, "an answer is an answer");
    }
}
