//! How a connection begins says what is spoken on it, however its bytes arrive.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::Duration;

use super::http2::frame;
use super::{OK, one_arm};
use crate::harness::upstream::Upstream;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// `GET /v1/stars` on the first stream, behind empty settings: fields of the static table, and literals (RFC 7541 §6).
const REQUEST: &[u8] =
    b"\0\0\0\x04\0\0\0\0\0\0\0\x10\x01\x05\0\0\0\x01\x82\x86\x04\x09/v1/stars\x01\x01a";

fn connect(proxy: &crate::harness::Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.proxy).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_mins(1)))
        .unwrap();
    stream
}

/// Waits for the head of the answer, which has to be a 200.
fn answered(stream: &mut TcpStream) {
    loop {
        let (kind, _, payload) = frame(stream).expect("an answer");
        if kind == 1 {
            assert_eq!(payload[0], 0x88, "{payload:?}");
            return;
        }
    }
}

#[test]
fn http_2_is_known_wherever_its_start_is_split() {
    let upstream = Upstream::raw(OK);
    let proxy = one_arm("", "", &[upstream.address]);
    let all = [PREFACE, REQUEST].concat();
    for split in [1, 12, 13, 14, 15, 18, 23, 24, 30] {
        let mut stream = connect(&proxy);
        let (first, rest) = all.split_at(split);
        stream.write_all(first).unwrap();
        sleep(Duration::from_millis(60));
        stream.write_all(rest).unwrap();
        answered(&mut stream);
    }
    let mut stream = connect(&proxy);
    for byte in &all {
        stream.write_all(std::slice::from_ref(byte)).unwrap();
        sleep(Duration::from_millis(2));
    }
    answered(&mut stream);
    assert_eq!(upstream.received().len(), 10);
}

#[test]
fn what_only_begins_like_it_is_refused_at_once() {
    let upstream = Upstream::raw(OK);
    let proxy = one_arm("", "", &[upstream.address]);
    let all = |start: &[u8], rest: &[u8]| {
        let mut stream = connect(&proxy);
        stream.write_all(start).unwrap();
        sleep(Duration::from_millis(60));
        stream.write_all(rest).ok();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok();
        answer
    };
    for (start, rest) in [
        (&b"PRI * HTTP/1.1\r\nhost: a\r\n\r\n"[..], &b""[..]),
        (b"PRI ", b"/v1/stars HTTP/2.1\r\nhost: a\r\n\r\n"),
        (b"P", b"RI * HTTP/2.\r\n\r\n"),
    ] {
        let answer = String::from_utf8(all(start, rest)).unwrap();
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(["400", "405", "501", "505"].contains(&status), "{answer}");
    }
    // Nothing of HTTP/1.1 is said to who has begun HTTP/2, however wrongly (RFC 9113 §3.4).
    for rest in [&b"\r\n\r\nSN\r\n\r\n"[..], b"\r\nhost: a\r\n\r\n"] {
        let answer = all(b"PRI * HTTP/2.0", rest);
        assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");
    }
    // A method may begin with the same letter.
    let post = all(
        b"P",
        b"OST /v1/stars HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
    );
    assert!(post.starts_with(b"HTTP/1.1 200"));
}
