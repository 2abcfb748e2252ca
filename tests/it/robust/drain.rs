//! A clean end: nobody new is let in, who waits is told, who is served is served to the end.

use std::io::Write;
use std::net::TcpStream;

use super::{GET, OK, endings, one_arm};
use crate::harness::upstream::Upstream;
use crate::harness::{Proxy, eventually};

fn until_nobody_listens(proxy: &Proxy) {
    eventually("nobody listens any more", || {
        TcpStream::connect(proxy.proxy).is_err().then_some(())
    });
}

#[test]
fn idle_connections_are_closed_and_a_request_in_flight_is_the_last_of_its_own() {
    let (upstream, release) = Upstream::gated(OK);
    let mut proxy = one_arm("", "", &[upstream.address]);
    let mut idle = proxy.client();
    assert_eq!(idle.get("/v1/stars").unwrap().status, 200);
    let mut silent = proxy.client();
    let mut waiting = proxy.client();
    waiting.raw(b"GET /v1/stars HTTP/1.1\r\nhost: a\r\nx-wait: 1\r\n\r\n");
    eventually("it is in flight", || {
        (upstream.received().len() == 2).then_some(())
    });
    proxy.signal("TERM");
    assert_eq!(idle.rest(), b"");
    assert_eq!(silent.rest(), b"");
    until_nobody_listens(&proxy);
    release.send(()).unwrap();
    let answer = waiting.receive(false).unwrap();
    assert_eq!(
        (answer.status, answer.header("connection")),
        (200, Some("close"))
    );
    assert_eq!(waiting.rest(), b"");
    assert_eq!(proxy.wait(), 0);
    assert_eq!(endings(&proxy, 2), ["answered"; 2]);
}

#[test]
fn a_request_that_has_begun_to_arrive_is_served() {
    let upstream = Upstream::raw(OK);
    let mut proxy = one_arm("", "", &[upstream.address]);
    let mut client = proxy.client();
    client.raw(b"POST /v1/stars HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nab");
    // It is there for sure once a later one was answered.
    assert_eq!(proxy.client().get("/v1/stars").unwrap().status, 200);
    proxy.signal("TERM");
    until_nobody_listens(&proxy);
    client.raw(b"cd");
    let answer = client.receive(false).unwrap();
    assert_eq!(
        (answer.status, answer.header("connection")),
        (200, Some("close"))
    );
    assert_eq!(proxy.wait(), 0);
}

#[test]
fn until_the_drain_begins_connections_live_on() {
    let upstream = Upstream::raw(OK);
    let text = super::policy("", &[("a", &[upstream.address])]);
    let mut proxy = Proxy::prepare(&[("stars", &text)], "");
    proxy
        .environment
        .push(("POINTSMAN_SHUTDOWN_DRAIN_DELAY", "3s".into()));
    proxy.run();
    let mut client = proxy.client();
    assert_eq!(client.get("/v1/stars").unwrap().status, 200);
    proxy.signal("TERM");
    eventually("it is unready", || {
        (proxy.admin().get("/-/ready")?.status == 503).then_some(())
    });
    // Load balancers have not noticed yet.
    let answer = client.get("/v1/stars").unwrap();
    assert_eq!((answer.status, answer.header("connection")), (200, None));
    assert_eq!(proxy.client().get("/v1/stars").unwrap().status, 200);
    assert_eq!(client.rest(), b"");
    assert_eq!(proxy.wait(), 0);
}

#[test]
fn an_endless_response_is_cut_when_the_drain_has_lasted_long_enough() {
    let upstream = Upstream::behaving(|_, stream| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            .unwrap();
        while stream.write_all(b"1\r\nx\r\n").is_ok() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        false
    });
    let mut proxy = one_arm("drain_timeout = \"500ms\"\n", "", &[upstream.address]);
    let mut client = proxy.client();
    client.raw(GET);
    assert_eq!(client.receive_head().unwrap().0, 200);
    assert_eq!(client.receive_chunk().unwrap(), b"x");
    proxy.signal("TERM");
    let rest = client.rest();
    assert!(!rest.ends_with(b"0\r\n\r\n"), "the cut is visible");
    proxy.wait();
    assert_eq!(endings(&proxy, 1), ["aborted"]);
}
