//! HTTP/2 endpoints that say that they have not processed a request: it is sent again, whatever its method (RFC 9113 §8.7). Where they do not say
//! so, what may have been seen is not.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use super::{endings, lines, one_arm};
use crate::harness::Proxy;
use crate::harness::frames::{
    CANCEL, ENHANCE_YOUR_CALM, INTERNAL_ERROR, NO_ERROR, Peer, REFUSED_STREAM, upstream,
};

/// An endpoint that is let rest at its first failure.
const STRICT: &str = "[upstream]\nprotocol = \"http2\"\n[upstream.ejection]\nconsecutive_failures = 1\nmax_share = 1\n";
const HTTP2: &str = "[upstream]\nprotocol = \"http2\"\n";

/// An endpoint that does `behave` with each whole request, which has so many before it on its connection, and counts them.
fn counting(
    behave: impl Fn((usize, usize), &mut Peer, u32) + Send + Sync + 'static,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let address = upstream(move |connection, peer| {
        let mut before = 0;
        while let Some(stream) = peer.request() {
            counter.fetch_add(1, Ordering::Relaxed);
            behave((connection, before), peer, stream);
            before += 1;
        }
    });
    (address, count)
}

fn post(proxy: &Proxy) -> u16 {
    proxy.client().post("/v1/stars", "{}").unwrap().status
}

#[test]
fn a_refused_stream_is_opened_again() {
    let (address, count) = counting(|(_, before), peer, stream| {
        if before == 0 {
            peer.reset(stream, REFUSED_STREAM);
        } else {
            peer.answer(stream);
        }
    });
    let proxy = one_arm("", HTTP2, &[address]);
    assert_eq!(post(&proxy), 200);
    assert_eq!(count.load(Ordering::Relaxed), 2);
    assert_eq!(endings(&proxy, 1), ["answered"]);
    assert_eq!(lines(&proxy, "decision", 1).len(), 1);
}

#[test]
fn one_that_is_always_refused_is_tried_as_often_as_the_policy_file_allows() {
    let (address, count) = counting(|_, peer, stream| peer.reset(stream, REFUSED_STREAM));
    let proxy = one_arm("", HTTP2, &[address]);
    assert_eq!(post(&proxy), 502);
    assert_eq!(count.load(Ordering::Relaxed), 3);
    assert_eq!(endings(&proxy, 1), ["failed"]);
}

#[test]
fn other_resets_say_nothing_of_what_was_processed() {
    for code in [NO_ERROR, INTERNAL_ERROR, CANCEL, ENHANCE_YOUR_CALM] {
        let (address, count) = counting(move |_, peer, stream| peer.reset(stream, code));
        let proxy = one_arm("", HTTP2, &[address]);
        assert_eq!(post(&proxy), 502, "{code}");
        assert_eq!(count.load(Ordering::Relaxed), 1, "{code}");
        // Where it does no harm, it is sent again all the same.
        assert_eq!(proxy.client().get("/v1/stars").unwrap().status, 502);
        assert_eq!(count.load(Ordering::Relaxed), 4, "{code}");
    }
}

#[test]
fn a_stream_above_the_last_one_of_a_goodbye_goes_to_another_connection() {
    for code in [NO_ERROR, ENHANCE_YOUR_CALM] {
        let (address, count) = counting(move |(connection, _), peer, stream| {
            if connection == 0 {
                peer.goodbye(0, code);
                peer.linger();
            } else {
                peer.answer(stream);
            }
        });
        let proxy = one_arm("", HTTP2, &[address]);
        assert_eq!(post(&proxy), 200);
        assert_eq!(count.load(Ordering::Relaxed), 2);
        assert_eq!(endings(&proxy, 1), ["answered"]);
    }
}

#[test]
fn a_goodbye_on_a_used_connection_is_no_failure_of_the_endpoint() {
    // Each connection serves one request and says goodbye at the second one.
    let (address, count) = counting(|(_, before), peer, stream| {
        if before == 0 {
            peer.answer(stream);
        } else {
            peer.goodbye(stream - 2, NO_ERROR);
            peer.linger();
        }
    });
    let proxy = one_arm("", STRICT, &[address]);
    let mut client = proxy.client();
    for round in 0..20 {
        let answer = client.post("/v1/stars", "{}").unwrap();
        assert_eq!(answer.status, 200, "{round}");
    }
    assert_eq!(count.load(Ordering::Relaxed), 39);
    assert_eq!(endings(&proxy, 20), ["answered"; 20]);
}

#[test]
fn a_goodbye_that_names_the_stream_says_nothing_of_what_was_processed() {
    let (address, count) = counting(|_, peer, stream| peer.goodbye(stream, NO_ERROR));
    // The connection ends with it.
    let ending = upstream(|_, peer| {
        if let Some(stream) = peer.request() {
            peer.goodbye(stream, NO_ERROR);
        }
    });
    let proxy = one_arm("", HTTP2, &[ending]);
    assert_eq!(post(&proxy), 502);
    // One that stays open may yet answer, and is waited for.
    let tables = "[upstream]\nprotocol = \"http2\"\nresponse_timeout = \"500ms\"\n";
    let proxy = one_arm("", tables, &[address]);
    assert_eq!(post(&proxy), 504);
    assert_eq!(count.load(Ordering::Relaxed), 1);
}

#[test]
fn what_was_begun_before_a_goodbye_is_finished() {
    let address = upstream(|connection, peer| {
        while let Some(stream) = peer.request() {
            if connection == 0 {
                peer.goodbye(stream, NO_ERROR);
            }
            peer.answer(stream);
        }
    });
    let proxy = one_arm("", STRICT, &[address]);
    for _ in 0..3 {
        assert_eq!(post(&proxy), 200);
    }
}

#[test]
fn connections_that_end_without_a_word_cost_nobody_a_request() {
    let (told, ended) = mpsc::channel();
    let (let_go, may_end) = mpsc::channel::<()>();
    let may_end = Mutex::new(may_end);
    let address = upstream(move |_, peer| {
        if let Some(stream) = peer.request() {
            peer.answer(stream);
            may_end.lock().unwrap().recv().unwrap();
            peer.end();
            told.send(()).unwrap();
        }
    });
    let proxy = one_arm("", STRICT, &[address]);
    let mut client = proxy.client();
    for round in 0..50 {
        let answer = client.post("/v1/stars", "{}").unwrap();
        assert_eq!(answer.status, 200, "{round}");
        let_go.send(()).unwrap();
        ended.recv().unwrap();
    }
}

#[test]
fn a_body_that_is_gone_is_not_sent_again() {
    let heads = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&heads);
    let address = upstream(move |_, peer| {
        while let Some(stream) = peer.head() {
            counter.fetch_add(1, Ordering::Relaxed);
            peer.reset(stream, REFUSED_STREAM);
        }
    });
    let proxy = one_arm("", HTTP2, &[address]);
    let mut client = proxy.client();
    client.raw(
        b"POST /v1/stars HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
    );
    let answer = client.receive(false).unwrap();
    assert_eq!(answer.status, 502);
    assert_eq!(heads.load(Ordering::Relaxed), 1);
}
