//! Connections that become `WebSocket`s are tunnelled (RFC 6455 over RFC 9110 §7.8), and nothing else is upgraded.

use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc;

use super::{OK, endings, lines, one_arm};
use crate::harness::http::Client;
use crate::harness::upstream::{Upstream, read_request};
use crate::harness::{Proxy, eventually};

const HANDSHAKE: &[u8] = b"GET /v1/stars HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const SWITCH: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nhello";

/// Switches, says hello, and goes on with the connection.
fn switching(go_on: impl Fn(&mut BufReader<TcpStream>) + Send + Sync + 'static) -> Upstream {
    Upstream::connections(move |_, stream| {
        let mut reader = BufReader::new(stream);
        let request = read_request(&mut reader).unwrap();
        assert_eq!(request.header("upgrade"), Some("websocket"));
        assert_eq!(
            request.header("connection").map(str::to_ascii_lowercase),
            Some("upgrade".into())
        );
        assert_eq!(
            request.header("sec-websocket-key"),
            Some("dGhlIHNhbXBsZSBub25jZQ==")
        );
        reader.get_mut().write_all(SWITCH).unwrap();
        go_on(&mut reader);
    })
}

fn echo(reader: &mut BufReader<TcpStream>) {
    let mut bytes = [0; 4_096];
    while let Ok(length @ 1..) = reader.read(&mut bytes) {
        if reader.get_mut().write_all(&bytes[..length]).is_err() {
            return;
        }
    }
    reader.get_ref().shutdown(Shutdown::Write).ok();
}

/// Opens one, with `early` right behind the request.
fn open(proxy: &Proxy, early: &[u8]) -> Client {
    let mut client = proxy.client();
    client.raw(&[HANDSHAKE, early].concat());
    let (status, headers) = client.receive_head().unwrap();
    assert_eq!(status, 101);
    let has = |name: &str, value: &str| {
        headers
            .iter()
            .any(|(key, found)| key == name && found.eq_ignore_ascii_case(value))
    };
    assert!(has("upgrade", "websocket") && has("connection", "upgrade"));
    assert!(has("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert!(has("x-pointsman-arm", "a"));
    assert_eq!(client.bytes(5), b"hello");
    client
}

#[test]
fn bytes_go_both_ways_until_the_client_ends() {
    let upstream = switching(echo);
    let proxy = one_arm("", "", &[upstream.address]);
    let mut client = open(&proxy, b"early");
    assert_eq!(client.bytes(5), b"early");
    for round in 0..20 {
        let text = format!("{round:06}");
        client.raw(text.as_bytes());
        assert_eq!(client.bytes(6), text.as_bytes());
    }
    let large: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    std::thread::scope(|scope| {
        let mut writer = client.writer();
        let to_write = &large;
        scope.spawn(move || writer.write_all(to_write).unwrap());
        assert!(client.bytes(large.len()) == large);
    });
    // Its end reaches the arm, whose end reaches the client.
    client.end();
    assert_eq!(client.rest(), b"");
    let outcomes = lines(&proxy, "outcome", 1);
    assert_eq!(
        (&outcomes[0]["ending"], &outcomes[0]["status"]),
        (&"answered".into(), &101.into())
    );
}

#[test]
fn the_arms_end_reaches_the_client() {
    let upstream = switching(|reader| {
        reader.get_mut().write_all(b"bye").unwrap();
    });
    let proxy = one_arm("", "", &[upstream.address]);
    let mut client = open(&proxy, b"");
    assert_eq!(client.rest(), b"bye");
    client.end();
    assert_eq!(endings(&proxy, 1), ["answered"]);
}

#[test]
fn the_clients_leaving_reaches_the_arm() {
    let (told, ends) = mpsc::channel();
    let upstream = switching(move |reader| {
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).ok();
        told.send(rest).unwrap();
    });
    let proxy = one_arm("", "", &[upstream.address]);
    let mut client = open(&proxy, b"");
    client.raw(b"last");
    drop(client);
    assert_eq!(ends.recv().unwrap(), b"last");
    assert_eq!(endings(&proxy, 1).len(), 1);
}

#[test]
fn silence_ends_it_where_the_policy_file_says_so() {
    let upstream = switching(echo);
    let tables = "[upstream]\nidle_timeout = \"500ms\"\n";
    let proxy = one_arm("", tables, &[upstream.address]);
    let mut client = open(&proxy, b"");
    for _ in 0..8 {
        client.raw(b"x");
        assert_eq!(client.bytes(1), b"x");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(client.rest(), b"");
}

#[test]
fn draining_waits_for_it() {
    let upstream = switching(echo);
    let mut proxy = one_arm("", "", &[upstream.address]);
    let mut client = open(&proxy, b"");
    proxy.signal("TERM");
    eventually("nobody listens any more", || {
        TcpStream::connect(proxy.proxy).is_err().then_some(())
    });
    for _ in 0..10 {
        client.raw(b"still here");
        assert_eq!(client.bytes(10), b"still here");
    }
    client.end();
    assert_eq!(client.rest(), b"");
    assert_eq!(proxy.wait(), 0);
}

#[test]
fn draining_does_not_wait_for_ever() {
    let upstream = switching(echo);
    let mut proxy = one_arm("drain_timeout = \"500ms\"\n", "", &[upstream.address]);
    let mut client = open(&proxy, b"");
    proxy.signal("TERM");
    assert_eq!(client.rest(), b"");
    proxy.wait();
}

#[test]
fn an_arm_that_does_not_switch_answers_like_any_other() {
    let upstream = Upstream::raw(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno");
    let proxy = one_arm("", "", &[upstream.address]);
    let mut client = proxy.client();
    for _ in 0..2 {
        client.raw(HANDSHAKE);
        let answer = client.receive(false).unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (403, "no"));
    }
}

#[test]
fn nothing_else_is_upgraded() {
    let upstream = Upstream::raw(OK);
    let proxy = one_arm("", "", &[upstream.address]);
    let requests = [
        "GET /v1/stars HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n",
        "GET /v1/stars HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: TLS/1.0\r\n\r\n",
        "GET /v1/stars HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket, h2c\r\n\r\n",
        "GET /v1/stars HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\n\r\n",
        "GET /v1/stars HTTP/1.0\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        "POST /v1/stars HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\ncontent-length: 2\r\n\r\n{}",
    ];
    for request in requests {
        let mut client = proxy.client();
        client.raw(request.as_bytes());
        assert_eq!(client.receive(false).unwrap().status, 200, "{request}");
    }
    let received = upstream.received();
    assert_eq!(received.len(), requests.len());
    for request in received {
        for name in ["upgrade", "connection", "http2-settings"] {
            assert_eq!(request.header(name), None, "{}", request.head);
        }
    }
}
