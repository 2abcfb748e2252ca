//! When a request is sent again, and when it must not be.

use std::collections::HashSet;
use std::io::{BufReader, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{OK, endings, lines, one_arm};
use crate::harness::free_address;
use crate::harness::upstream::{Upstream, read_request};

/// Reads each request whole and ends the connection without a word.
fn closing() -> Upstream {
    Upstream::behaving(|_, _| false)
}

#[test]
fn a_refused_request_goes_to_another_endpoint_of_the_arm_under_the_same_decision() {
    let live = Upstream::raw(OK);
    let proxy = one_arm("", "", &[free_address(), live.address]);
    let mut client = proxy.client();
    let mut ids = HashSet::new();
    for round in 0..10 {
        let method = if round % 2 == 0 { "POST" } else { "GET" };
        let answer = client.send(method, "/v1/stars", &[], b"").unwrap();
        assert_eq!(answer.status, 200, "{round}");
        assert_eq!(answer.header("x-pointsman-reason"), None);
        ids.insert(answer.decision());
    }
    assert_eq!(live.received().len(), 10);
    assert_eq!(endings(&proxy, 10), ["answered"; 10]);
    let decisions = lines(&proxy, "decision", 10);
    let journalled: HashSet<String> = decisions
        .iter()
        .map(|line| line["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!((decisions.len(), journalled), (10, ids));
}

#[test]
fn a_pooled_connection_that_was_closed_is_no_error_for_anybody() {
    for resets in [false, true] {
        let closed = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&closed);
        let upstream = Upstream::connections(move |_, stream| {
            let mut reader = BufReader::new(stream);
            read_request(&mut reader).unwrap();
            reader.get_mut().write_all(OK).unwrap();
            if resets {
                socket2::SockRef::from(reader.get_ref())
                    .set_linger(Some(std::time::Duration::ZERO))
                    .unwrap();
            }
            drop(reader);
            count.fetch_add(1, Ordering::Release);
        });
        let proxy = one_arm("", "", &[upstream.address]);
        let mut client = proxy.client();
        for round in 0..200 {
            let method = if round % 2 == 0 { "POST" } else { "GET" };
            let answer = client.send(method, "/v1/stars", &[], b"{}").unwrap();
            assert_eq!(answer.status, 200, "{round} {answer:?}");
            // An endpoint whose idle connections end has closed it before the next request comes.
            while closed.load(Ordering::Acquire) <= round {
                std::thread::yield_now();
            }
        }
    }
}

#[test]
fn a_get_on_a_connection_that_ends_under_it_is_sent_again_and_a_post_is_not() {
    // Answers the first request of each connection, reads the second and leaves.
    let seconds = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seconds);
    let upstream = Upstream::connections(move |_, stream| {
        let mut reader = BufReader::new(stream);
        read_request(&mut reader).unwrap();
        reader.get_mut().write_all(OK).unwrap();
        if read_request(&mut reader).is_some() {
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    let proxy = one_arm("", "[upstream.retry]\nattempts = 0\n", &[upstream.address]);
    let mut client = proxy.client();
    assert_eq!(client.get("/v1/stars").unwrap().status, 200);
    // A pooled connection that turns out to be closed does not count as a try.
    assert_eq!(client.get("/v1/stars").unwrap().status, 200);
    assert_eq!(seconds.load(Ordering::Relaxed), 1);
    let answer = client.post("/v1/stars", "{}").unwrap();
    assert_eq!(answer.status, 502, "it may have been seen");
    assert_eq!(seconds.load(Ordering::Relaxed), 2);
}

#[test]
fn a_post_that_reached_an_endpoint_is_never_sent_twice() {
    let reset = Upstream::behaving(|_, stream| {
        socket2::SockRef::from(&*stream)
            .set_linger(Some(std::time::Duration::ZERO))
            .unwrap();
        false
    });
    let half = Upstream::behaving(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 O").unwrap();
        false
    });
    let unavailable =
        Upstream::raw(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n");
    for (broken, status) in [
        (closing(), 502),
        (reset, 502),
        (half, 502),
        (unavailable, 503),
    ] {
        let other = Upstream::raw(OK);
        let proxy = one_arm("", "", &[broken.address, other.address]);
        let mut statuses = Vec::new();
        for _ in 0..4 {
            let answer = proxy.client().post("/v1/stars", "{}").unwrap();
            statuses.push(answer.status);
        }
        let failed = statuses.iter().filter(|given| **given == status).count();
        assert_eq!(failed, broken.received().len(), "{statuses:?}");
        assert!(failed > 0);
        assert_eq!(broken.received().len() + other.received().len(), 4);
    }
}

#[test]
fn a_post_that_is_said_to_be_harmless_is_sent_again() {
    let (broken, other) = (closing(), Upstream::raw(OK));
    let tables = "[upstream.retry]\nidempotent = true\n";
    let proxy = one_arm("", tables, &[broken.address, other.address]);
    for _ in 0..4 {
        let answer = proxy.client().post("/v1/stars", "{\"a\": 1}").unwrap();
        assert_eq!(answer.status, 200);
    }
    assert!(!broken.received().is_empty());
    let bodies = other.received();
    assert!(bodies.iter().all(|request| request.body == b"{\"a\": 1}"));
    assert_eq!(bodies.len(), 4);
}

#[test]
fn a_get_is_tried_as_often_as_the_policy_file_says() {
    for attempts in [0, 1, 3] {
        let broken = closing();
        let tables = format!("[upstream.retry]\nattempts = {attempts}\n");
        let proxy = one_arm("", &tables, &[broken.address]);
        let answer = proxy.client().get("/v1/stars").unwrap();
        assert_eq!(answer.status, 502);
        assert_eq!(broken.received().len(), attempts + 1);
        assert_eq!(endings(&proxy, 1), ["failed"], "one decision, one outcome");
    }
}

/// Answers with these statuses in turn, the last for ever.
fn statuses(statuses: &'static [u16]) -> Upstream {
    let next = AtomicUsize::new(0);
    Upstream::behaving(move |_, stream| {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let status = statuses[number.min(statuses.len() - 1)];
        write!(
            stream,
            "HTTP/1.1 {status} Status\r\ncontent-length: 4\r\n\r\n{number:04}"
        )
        .is_ok()
    })
}

#[test]
fn statuses_that_call_for_another_try() {
    let cases: [(&str, &[u16], u16, usize); 6] = [
        ("", &[503, 200], 200, 2),
        ("", &[502, 504, 200], 200, 3),
        // The last answer is passed on as it is.
        ("", &[503, 503, 503, 200], 503, 3),
        ("", &[500, 200], 500, 1),
        ("[upstream.retry]\nstatuses = []\n", &[503, 200], 503, 1),
        ("[upstream.retry]\nstatuses = [429]\n", &[429, 200], 200, 2),
    ];
    for (tables, given, status, tries) in cases {
        let upstream = statuses(given);
        let proxy = one_arm("", tables, &[upstream.address]);
        let answer = proxy.client().get("/v1/stars").unwrap();
        assert_eq!(answer.status, status, "{given:?}");
        assert_eq!(answer.text(), format!("{:04}", tries - 1));
        assert_eq!(upstream.received().len(), tries, "{given:?}");
    }
}

#[test]
fn a_body_that_is_not_at_hand_any_more_is_not_sent_again() {
    let (broken, other) = (closing(), Upstream::raw(OK));
    let proxy = one_arm("", "", &[broken.address, other.address]);
    let body = vec![b'x'; 1 << 20];
    let mut failed = 0;
    for _ in 0..4 {
        let mut client = proxy.client();
        let answer = client.send("PUT", "/v1/stars", &[], &body).unwrap();
        failed += usize::from(answer.status == 502);
    }
    assert_eq!(failed, broken.received().len());
    assert!(failed > 0);
    let whole = other.received();
    assert!(whole.iter().all(|request| request.body.len() == 1 << 20));
    assert_eq!(whole.len() + failed, 4);
}

#[test]
fn what_was_passed_on_is_not_begun_again() {
    let cut = Upstream::behaving(|_, stream| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
            .unwrap();
        false
    });
    let other = Upstream::raw(OK);
    let proxy = one_arm("", "", &[cut.address, other.address]);
    let mut cuts = 0;
    for _ in 0..4 {
        let mut client = proxy.client();
        client.raw(b"GET /v1/stars HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let all = String::from_utf8(client.rest()).unwrap();
        assert_eq!(all.matches("HTTP/1.1").count(), 1, "{all}");
        cuts += usize::from(all.ends_with("half"));
    }
    assert_eq!(cuts, cut.received().len());
    assert!(cuts > 0);
}
