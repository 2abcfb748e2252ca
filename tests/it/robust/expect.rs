//! `Expect: 100-continue` (RFC 9110 §10.1.1) and other responses before the response.

use std::io::{BufReader, Read, Write};

use super::{OK, one_arm, read_head};
use crate::harness::http::Client;
use crate::harness::streams;
use crate::harness::upstream::Upstream;

const HEAD: &[u8] =
    b"POST /v1/stars HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Reads a head, writes `first`, reads a body of five bytes, answers.
fn upstream(first: &'static [u8]) -> Upstream {
    Upstream::connections(move |_, stream| {
        let mut reader = BufReader::new(stream);
        while read_head(&mut reader).is_some() {
            reader.get_mut().write_all(first).unwrap();
            let mut body = [0; 5];
            if reader.read_exact(&mut body).is_err() {
                return;
            }
            assert_eq!(&body, b"hello");
            reader.get_mut().write_all(OK).unwrap();
        }
    })
}

/// Sends the body once it is asked for, and expects the answer right behind.
fn go_on(client: &mut Client) {
    assert_eq!(client.receive_head().unwrap().0, 100);
    client.raw(b"hello");
    assert_eq!(client.receive(false).unwrap().status, 200);
}

#[test]
fn the_endpoints_word_is_passed_on() {
    let upstream = upstream(CONTINUE);
    let proxy = one_arm("", "", &[upstream.address]);
    let mut client = proxy.client();
    for _ in 0..3 {
        client.raw(HEAD);
        go_on(&mut client);
    }
}

#[test]
fn it_is_given_for_an_endpoint_that_does_not_know_it() {
    let upstream = upstream(b"");
    let proxy = one_arm("", "", &[upstream.address]);
    let mut client = proxy.client();
    for _ in 0..2 {
        client.raw(HEAD);
        go_on(&mut client);
    }
}

#[test]
fn it_is_given_where_the_proxy_itself_wants_the_body() {
    let upstream = Upstream::raw(OK);
    let tables = "[unit]\njson = \"/user\"\n";
    let proxy = one_arm(
        "[limits]\nbody_timeout = \"5s\"\n",
        tables,
        &[upstream.address],
    );
    let mut client = proxy.client();
    client.raw(HEAD);
    go_on(&mut client);
    let received = upstream.received().remove(0);
    assert_eq!(received.body, b"hello");
    assert_eq!(received.header("expect"), None, "nobody waits any more");
    client.raw(
        b"POST /-/rewards HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n",
    );
    assert_eq!(client.receive_head().unwrap().0, 100);
    client.raw(b"hello");
    assert_eq!(client.receive(false).unwrap().status, 400, "no JSON");
}

#[test]
fn it_is_given_once_where_the_proxy_has_the_body_and_the_endpoint_takes_its_time() {
    let upstream = Upstream::connections(|_, stream| {
        let mut reader = BufReader::new(stream);
        let head = read_head(&mut reader).unwrap();
        assert!(!head.to_ascii_lowercase().contains("expect"), "{head}");
        let mut body = [0; 5];
        reader.read_exact(&mut body).unwrap();
        // Longer than an endpoint is given to tell a client to go on.
        std::thread::sleep(std::time::Duration::from_millis(1_500));
        reader.get_mut().write_all(OK).unwrap();
    });
    let proxy = one_arm("", "[unit]\njson = \"/user\"\n", &[upstream.address]);
    let mut client = proxy.client();
    client.raw(HEAD);
    go_on(&mut client);
}

#[test]
fn it_is_given_for_an_endpoint_of_http_2() {
    let tables = "[upstream]\nprotocol = \"http2\"\nresponse_timeout = \"5s\"\n";
    let proxy = one_arm("", tables, &[streams::upstream(streams::echo)]);
    let mut client = proxy.client();
    for _ in 0..2 {
        client.raw(HEAD);
        assert_eq!(client.receive_head().unwrap().0, 100);
        client.raw(b"hello");
        let answer = client.receive(false).unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
        client = proxy.client();
    }
}

#[test]
fn a_refusal_comes_instead_of_it() {
    let refusing = Upstream::answering_early(
        b"HTTP/1.1 417 Expectation Failed\r\ncontent-length: 2\r\n\r\nno",
    );
    let proxy = one_arm("", "", &[refusing.address]);
    let mut client = proxy.client();
    client.raw(HEAD);
    let answer = client.receive(false).unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (417, "no"));
    // Whether the client sends the body all the same cannot be known.
    assert_eq!(answer.header("connection"), Some("close"));
    // Ours are no different.
    let mut client = proxy.client();
    client.raw(
        b"POST /nowhere HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n",
    );
    let answer = client.receive(false).unwrap();
    assert_eq!(
        (answer.status, answer.header("connection")),
        (404, Some("close"))
    );
}

#[test]
fn a_client_that_does_not_wait_gets_its_answer() {
    let upstream = upstream(CONTINUE);
    let proxy = one_arm("", "", &[upstream.address]);
    let mut client = proxy.client();
    client.raw(&[HEAD, b"hello"].concat());
    let mut answer = client.receive_head().unwrap();
    while answer.0 == 100 {
        answer = client.receive_head().unwrap();
    }
    assert_eq!(answer.0, 200);
}

#[test]
fn hints_are_passed_on_but_to_clients_that_do_not_know_them() {
    let upstream = Upstream::raw(
        &[
            b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".as_slice(),
            OK,
        ]
        .concat(),
    );
    let proxy = one_arm("", "", &[upstream.address]);
    let mut client = proxy.client();
    client.raw(super::GET);
    let (status, headers) = client.receive_head().unwrap();
    assert_eq!(status, 103);
    assert!(headers.contains(&("link".into(), "</a>".into())));
    assert_eq!(client.receive(false).unwrap().status, 200);
    let mut client = proxy.client();
    client.raw(b"GET /v1/stars HTTP/1.0\r\nhost: a\r\n\r\n");
    assert_eq!(client.receive(false).unwrap().status, 200);
}
