//! Endpoints that let us in and then neither read nor say anything.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Mutex;
use std::thread;

use super::{GET, OK, endings, one_arm, with_baseline};
use crate::harness::http::Answer;
use crate::harness::upstream::Upstream;
use crate::harness::{Proxy, eventually};

/// Much more than all sockets on the way hold.
const LARGE: usize = 64 << 20;

const SHORT: &str = "[upstream]\nresponse_timeout = \"700ms\"\n";

/// Lets everybody in, and keeps them.
fn silent() -> Upstream {
    let kept = Mutex::new(Vec::new());
    Upstream::connections(move |_, stream| kept.lock().unwrap().push(stream))
}

/// Sends a body that no socket holds, for as long as it is taken.
fn post_large(proxy: &Proxy) -> Answer {
    let mut client = proxy.client();
    let mut writer: TcpStream = client.writer();
    let sending = thread::spawn(move || {
        let head = format!("POST /v1/stars HTTP/1.1\r\nhost: a\r\ncontent-length: {LARGE}\r\n\r\n");
        let part = vec![b'x'; 65_536];
        let mut all =
            std::iter::once(head.as_bytes()).chain((0..LARGE / part.len()).map(|_| &part[..]));
        all.all(|bytes| writer.write_all(bytes).is_ok())
    });
    let answer = client.receive(false).unwrap();
    drop(client);
    assert!(!sending.join().unwrap(), "it was not all taken");
    answer
}

#[test]
fn an_endpoint_that_reads_nothing_is_a_504_in_time() {
    for protocol in ["http1", "http2"] {
        let tables = format!("{SHORT}protocol = \"{protocol}\"\n");
        let proxy = one_arm("", &tables, &[silent().address]);
        let mut client = proxy.client();
        client.raw(GET);
        assert_eq!(client.receive(false).unwrap().status, 504, "{protocol}");
        let answer = proxy.client().post("/v1/stars", "{}").unwrap();
        assert_eq!(answer.status, 504, "{protocol}");
        let answer = post_large(&proxy);
        assert_eq!(
            (answer.status, answer.header("connection")),
            (504, Some("close")),
            "{protocol}"
        );
        assert_eq!(endings(&proxy, 3), ["failed"; 3]);
        eventually("the failures are tallied", || {
            (proxy.arms("stars", "failures") == [3.0]).then_some(())
        });
    }
}

#[test]
fn the_baseline_answers_where_it_may_and_nobody_else_waits() {
    let a = Upstream::raw(OK);
    let proxy = with_baseline(SHORT, &[a.address], &[silent().address]);
    let answer = proxy.client().get("/v1/stars").unwrap();
    assert_eq!((answer.status, answer.arm().as_str()), (200, "a"));
    // A body that is gone cannot be sent to anybody else.
    assert_eq!(post_large(&proxy).status, 504);
    assert_eq!(a.received().len(), 1);
}
