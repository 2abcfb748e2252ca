//! A client that leaves: its arm is told within two seconds, and nobody is charged.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use super::{GET, endings, one_arm};
use crate::harness::Proxy;
use crate::harness::upstream::Upstream;

/// What is promised, and what a busy machine may need on top.
const PROMISE: Duration = Duration::from_secs(2 + 3);

/// Waits until the peer leaves, and tells when.
fn tell_of_the_end(stream: &mut TcpStream, told: &Sender<Instant>) {
    let mut byte = [0; 4_096];
    while matches!(stream.read(&mut byte), Ok(1..)) {}
    told.send(Instant::now()).ok();
}

/// An endpoint that never answers. It tells when a request is there, and when its sender leaves.
fn hanging() -> (Upstream, Receiver<()>, Receiver<Instant>) {
    let (sender, ends) = mpsc::channel();
    let (reached, request) = mpsc::channel();
    let upstream = Upstream::behaving(move |_, stream| {
        reached.send(()).unwrap();
        tell_of_the_end(stream, &sender);
        false
    });
    (upstream, request, ends)
}

fn assert_told(left: Instant, ends: &Receiver<Instant>, proxy: &Proxy) {
    let told = ends.recv_timeout(Duration::from_secs(20)).unwrap();
    let after = told.duration_since(left);
    assert!(after < PROMISE, "told after {after:?}");
    assert_eq!(endings(proxy, 1), ["aborted"]);
    assert_eq!(proxy.arms("stars", "failures"), [0.0]);
}

#[test]
fn before_the_answer() {
    let (upstream, request, ends) = hanging();
    let proxy = one_arm("", "", &[upstream.address]);
    let mut client = proxy.client();
    client.raw(GET);
    request.recv().unwrap();
    let left = Instant::now();
    drop(client);
    assert_told(left, &ends, &proxy);
    assert_eq!(upstream.received().len(), 1, "nothing is tried again");
}

#[test]
fn amid_the_answer() {
    let (sender, ends) = mpsc::channel();
    let upstream = Upstream::behaving(move |_, stream| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")
            .unwrap();
        tell_of_the_end(stream, &sender);
        false
    });
    let proxy = one_arm("", "", &[upstream.address]);
    let mut client = proxy.client();
    client.raw(GET);
    client.receive_head().unwrap();
    assert_eq!(client.receive_chunk().unwrap(), b"first");
    let left = Instant::now();
    drop(client);
    assert_told(left, &ends, &proxy);
}

#[test]
fn amid_its_own_body() {
    let (sender, ends) = mpsc::channel();
    let (reached, head) = mpsc::channel();
    let upstream = Upstream::connections(move |_, mut stream| {
        let mut byte = [0; 1];
        stream.read_exact(&mut byte).unwrap();
        reached.send(()).unwrap();
        tell_of_the_end(&mut stream, &sender);
    });
    let proxy = one_arm("", "", &[upstream.address]);
    let mut client = proxy.client();
    client.raw(b"POST /v1/stars HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nhalf");
    head.recv().unwrap();
    let left = Instant::now();
    drop(client);
    assert_told(left, &ends, &proxy);
}

#[test]
fn with_a_reset() {
    let (upstream, request, ends) = hanging();
    let proxy = one_arm("", "", &[upstream.address]);
    let mut stream = TcpStream::connect(proxy.proxy).unwrap();
    stream.write_all(GET).unwrap();
    request.recv().unwrap();
    socket2::SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    let left = Instant::now();
    drop(stream);
    assert_told(left, &ends, &proxy);
}

#[test]
fn with_another_request_behind_the_one_that_waits() {
    let (upstream, request, ends) = hanging();
    let proxy = one_arm("", "", &[upstream.address]);
    let mut client = proxy.client();
    client.raw(GET);
    request.recv().unwrap();
    client.raw(GET);
    let left = Instant::now();
    drop(client);
    assert_told(left, &ends, &proxy);
    assert_eq!(upstream.received().len(), 1);
}
