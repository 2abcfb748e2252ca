//! Endpoints whose answers are not what they say: the client never takes one for whole, and never gets what belongs to another.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{GET, OK, endings, one_arm};
use crate::harness::upstream::Upstream;

/// Answers its first request with these bytes and leaves, or stays; all others well.
fn lying_first(answer: &[u8], stays: bool) -> Upstream {
    let (answer, count) = (answer.to_vec(), AtomicUsize::new(0));
    Upstream::behaving(move |_, stream| {
        if count.fetch_add(1, Ordering::Relaxed) > 0 {
            return stream.write_all(OK).is_ok();
        }
        stream.write_all(&answer).is_ok() && stays
    })
}

#[test]
fn an_answer_that_is_not_http_is_a_502() {
    let flood = [
        b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(1_000),
        OK.to_vec(),
    ]
    .concat();
    let answers: [&[u8]; 14] = [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 20 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2x\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length : 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nno colon\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
        &flood,
    ];
    for answer in answers {
        let told = String::from_utf8_lossy(&answer[..answer.len().min(120)]).into_owned();
        let upstream = lying_first(answer, true);
        let proxy = one_arm("", "", &[upstream.address]);
        let mut client = proxy.client();
        client.raw(GET);
        let (mut status, mut headers) = client.receive_head().unwrap();
        while status == 103 {
            (status, headers) = client.receive_head().unwrap();
        }
        assert_eq!(status, 502, "{told}");
        assert!(
            headers
                .iter()
                .any(|(name, _)| name == "x-pointsman-decision")
        );
        assert_eq!(endings(&proxy, 1), ["failed"], "{told}");
        assert_eq!(
            upstream.received().len(),
            1,
            "an answer is an answer: {told}"
        );
        // The next request is another's.
        assert_eq!(proxy.client().get("/v1/stars").unwrap().text(), "{}");
    }
}

#[test]
fn a_body_that_breaks_off_or_breaks_its_framing_never_looks_whole() {
    let answers: [&[u8]; 6] = [
        b"content-length: 100\r\n\r\nfirst",
        b"transfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n",
        b"transfer-encoding: chunked\r\n\r\n5\r\nfirst\r\nzz\r\n",
        b"transfer-encoding: chunked\r\n\r\n5\r\nfirstXX0\r\n\r\n",
        b"transfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n0\r\n",
        b"transfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n0\r\nbad trailer\r\n\r\n",
    ];
    for answer in answers {
        let told = String::from_utf8_lossy(answer).into_owned();
        let upstream = lying_first(&[b"HTTP/1.1 200 OK\r\n", answer].concat(), false);
        let proxy = one_arm("", "", &[upstream.address]);
        let mut client = proxy.client();
        client.raw(GET);
        let (status, headers) = client.receive_head().unwrap();
        let rest = client.rest();
        assert_eq!(status, 200, "{told}");
        let is_chunked = headers.iter().any(|(name, _)| name == "transfer-encoding");
        let looks_whole = if is_chunked {
            rest.ends_with(b"0\r\n\r\n")
        } else {
            rest.len() >= 100
        };
        assert!(!looks_whole, "{told}: {}", String::from_utf8_lossy(&rest));
        assert_eq!(endings(&proxy, 1), ["failed"], "{told}");
        assert_eq!(proxy.client().get("/v1/stars").unwrap().text(), "{}");
    }
}

#[test]
fn what_comes_behind_an_answer_is_nobodys() {
    let second = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nstolen";
    for answer in [
        [OK, second].concat(),
        [b"HTTP/1.1 204 No Content\r\n\r\n".as_slice(), second].concat(),
        [
            b"HTTP/1.1 304 Not Modified\r\ncontent-length: 6\r\n\r\n".as_slice(),
            b"stolen",
        ]
        .concat(),
    ] {
        let upstream = lying_first(&answer, true);
        let proxy = one_arm("", "", &[upstream.address]);
        let mut client = proxy.client();
        let first = client.get("/v1/stars").unwrap();
        assert!(!first.text().contains("stolen"));
        for _ in 0..4 {
            assert_eq!(client.get("/v1/stars").unwrap().text(), "{}");
        }
    }
}

#[test]
fn a_response_that_speaks_before_it_is_asked_is_nobodys() {
    // The endpoint sends an answer on an idle connection.
    let upstream = Upstream::behaving(|_, stream| {
        stream.write_all(OK).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(30));
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nstolen")
            .is_ok()
    });
    let proxy = one_arm("", "", &[upstream.address]);
    let mut client = proxy.client();
    for _ in 0..5 {
        assert_eq!(client.get("/v1/stars").unwrap().text(), "{}");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}
