//! Every wait ends: for a client's first byte, its head, its body, its next request; for an endpoint's connection, head and body.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread::{self, sleep};
use std::time::Duration;

use super::{GET, OK, endings, one_arm};
use crate::harness::Proxy;
use crate::harness::http::Client;
use crate::harness::upstream::Upstream;

const SHORT: &str = "[limits]\nheader_timeout = \"400ms\"\nkeep_alive_timeout = \"400ms\"\nprogress_timeout = \"400ms\"\nbody_timeout = \"400ms\"\n";

fn short(tables: &str) -> (Proxy, Upstream) {
    let upstream = Upstream::raw(OK);
    (one_arm(SHORT, tables, &[upstream.address]), upstream)
}

#[test]
fn a_silent_connection_is_closed_without_a_word() {
    let (proxy, _upstream) = short("");
    assert_eq!(proxy.client().rest(), b"");
}

#[test]
fn a_head_that_does_not_arrive_is_a_408_dripping_or_not() {
    let (proxy, upstream) = short("");
    for drips in [0, 10] {
        let mut client = proxy.client();
        client.raw(b"GET /v1/stars HTTP/1.1\r\nx-drip: ");
        for _ in 0..drips {
            sleep(Duration::from_millis(60));
            client.raw(b"x");
        }
        let answer = client.receive(false).unwrap();
        assert_eq!(
            (answer.status, answer.header("connection")),
            (408, Some("close"))
        );
        assert_eq!(client.rest(), b"");
    }
    assert!(upstream.received().is_empty());
}

#[test]
fn a_body_without_progress_is_a_408_and_not_the_arms_failure() {
    let (proxy, upstream) = short("");
    for framing in [
        "content-length: 10\r\n\r\nabc",
        "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ] {
        let mut client = proxy.client();
        client.raw(format!("POST /v1/stars HTTP/1.1\r\nhost: a\r\n{framing}").as_bytes());
        let answer = client.receive(false).unwrap();
        assert_eq!(
            (answer.status, answer.header("connection")),
            (408, Some("close"))
        );
    }
    assert_eq!(endings(&proxy, 2), ["aborted", "aborted"]);
    assert_eq!(proxy.arms("stars", "failures"), [0.0]);
    assert!(upstream.received().is_empty(), "no request was whole");
}

#[test]
fn a_body_that_is_read_for_a_value_has_to_come_in_time() {
    let (proxy, upstream) = short("[unit]\njson = \"/user\"\n");
    let mut client = proxy.client();
    client.raw(b"POST /v1/stars HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n");
    for _ in 0..12 {
        sleep(Duration::from_millis(60));
        client.raw(b" ");
    }
    assert_eq!(client.receive(false).unwrap().status, 408);
    assert!(upstream.received().is_empty());
}

#[test]
fn an_idle_connection_is_closed_after_its_last_answer() {
    let (proxy, _upstream) = short("");
    let mut client = proxy.client();
    for _ in 0..3 {
        assert_eq!(client.get("/v1/stars").unwrap().status, 200);
        sleep(Duration::from_millis(100));
    }
    assert_eq!(client.rest(), b"");
}

#[test]
fn a_client_that_takes_nothing_is_given_up() {
    let (told, cut) = mpsc::channel();
    let upstream = Upstream::behaving(move |_, stream| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000000\r\n\r\n")
            .unwrap();
        while stream.write_all(&vec![b'x'; 65_536]).is_ok() {}
        told.send(()).unwrap();
        false
    });
    let proxy = one_arm(SHORT, "", &[upstream.address]);
    let mut client = proxy.client();
    client.raw(GET);
    cut.recv_timeout(Duration::from_mins(1)).unwrap();
    assert_eq!(endings(&proxy, 1), ["aborted"]);
}

/// A listener that lets nobody in any more, and what fills it.
fn full() -> (socket2::Socket, SocketAddr, Vec<TcpStream>) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let mut fill = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        fill.push(stream);
    }
    (socket, address, fill)
}

#[test]
fn an_endpoint_that_does_not_let_us_in_is_given_up() {
    let (_socket, address, _fill) = full();
    let tables = "[upstream]\nconnect_timeout = \"300ms\"\n[upstream.retry]\nattempts = 0\n";
    let proxy = one_arm("", tables, &[address]);
    let answer = proxy.client().post("/v1/stars", "{}").unwrap();
    assert_eq!(answer.status, 502);
    assert!(answer.text().contains("in time"), "{}", answer.text());
    // Nothing was sent, so another endpoint may be asked.
    let live = Upstream::raw(OK);
    let tables = "[upstream]\nconnect_timeout = \"300ms\"\n";
    let proxy = one_arm("", tables, &[address, live.address]);
    for _ in 0..4 {
        let answer = proxy.client().post("/v1/stars", "{}").unwrap();
        assert_eq!(answer.status, 200);
    }
}

#[test]
fn connections_that_are_being_opened_are_bounded() {
    let (_socket, address, _fill) = full();
    let tables =
        "[upstream]\nconnect_timeout = \"20s\"\nmax_pending = 1\n[upstream.retry]\nattempts = 0\n";
    let proxy = one_arm("", tables, &[address]);
    let mut waits = proxy.client();
    waits.raw(GET);
    // Whichever of both comes second is turned away at once.
    let mut second = proxy.client();
    second.raw(GET);
    let (sender, receiver) = mpsc::channel();
    for mut client in [waits, second] {
        let sender = sender.clone();
        thread::spawn(move || sender.send(client.receive(false).unwrap()));
    }
    let first = receiver.recv_timeout(Duration::from_secs(15)).unwrap();
    assert!(super::is_overload(&first), "{first:?}");
}

#[test]
fn a_head_that_drips_does_not_put_the_end_off() {
    let dripping = Upstream::behaving(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nx-drip: ").unwrap();
        while stream.write_all(b"x").is_ok() {
            sleep(Duration::from_millis(50));
        }
        false
    });
    let tables = "[upstream]\nresponse_timeout = \"500ms\"\n[upstream.retry]\nattempts = 0\n";
    let proxy = one_arm("", tables, &[dripping.address]);
    let answer = proxy.client().get("/v1/stars").unwrap();
    assert_eq!(answer.status, 504);
    assert_eq!(endings(&proxy, 1), ["failed"]);
}

#[test]
fn interim_responses_do_not_put_the_end_off() {
    let dripping = Upstream::behaving(|_, stream| {
        for _ in 0..60 {
            if stream
                .write_all(b"HTTP/1.1 102 Processing\r\n\r\n")
                .is_err()
            {
                return false;
            }
            sleep(Duration::from_millis(50));
        }
        stream.write_all(OK).is_ok()
    });
    let tables = "[upstream]\nresponse_timeout = \"500ms\"\n[upstream.retry]\nattempts = 0\n";
    let proxy = one_arm("", tables, &[dripping.address]);
    let mut client = proxy.client();
    client.raw(GET);
    let answer = loop {
        let answer = client.receive_head().unwrap();
        if answer.0 != 102 {
            break answer;
        }
    };
    assert_eq!(answer.0, 504);
}

#[test]
fn silence_within_a_response_ends_it_and_the_client_sees_that() {
    for head in [
        "transfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n",
        "content-length: 100\r\n\r\nfirst",
        "\r\nfirst",
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\n{head}");
        let silent = Upstream::behaving(move |_, stream| {
            stream.write_all(answer.as_bytes()).unwrap();
            thread::park();
            false
        });
        let tables = "[upstream]\nidle_timeout = \"400ms\"\n";
        let proxy = one_arm("", tables, &[silent.address]);
        let mut client = proxy.client();
        client.raw(GET);
        let (status, headers) = client.receive_head().unwrap();
        assert_eq!(status, 200);
        let rest = client.rest();
        let text = String::from_utf8_lossy(&rest);
        assert!(text.contains("first"), "what came is passed on: {text}");
        assert!(!text.contains("0\r\n\r\n"), "{text}");
        let length = headers.iter().find(|(name, _)| name == "content-length");
        assert!(length.is_none_or(|(_, value)| value == "100"));
        assert_eq!(endings(&proxy, 1), ["failed"]);
    }
}

/// Sends an event every 100 ms, so many times.
fn dripping(count: usize) -> Upstream {
    Upstream::behaving(move |_, stream| {
        let mut write = |bytes: &[u8]| stream.write_all(bytes).is_ok();
        write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            && (0..count).all(|_| {
                sleep(Duration::from_millis(100));
                write(b"5\r\nevent\r\n")
            })
            && write(b"0\r\n\r\n")
    })
}

#[test]
fn a_response_that_keeps_coming_may_take_as_long_as_it_likes() {
    let upstream = dripping(20);
    let tables = "[upstream]\nresponse_timeout = \"1s\"\nidle_timeout = \"1s\"\n";
    let proxy = one_arm("", tables, &[upstream.address]);
    let answer = proxy.client().get("/v1/stars").unwrap();
    assert_eq!(answer.body.len(), 100);
    assert_eq!(endings(&proxy, 1), ["answered"]);
}

#[test]
fn a_total_time_is_kept_where_it_is_asked_for() {
    let upstream = dripping(1_000);
    let proxy = one_arm(
        "",
        "[upstream]\ntotal_timeout = \"1s\"\n",
        &[upstream.address],
    );
    let mut client = proxy.client();
    client.raw(GET);
    assert_eq!(client.receive_head().unwrap().0, 200);
    let rest = client.rest();
    assert!(!rest.ends_with(b"0\r\n\r\n"), "the cut is visible");
    assert_eq!(endings(&proxy, 1), ["failed"]);
    // Before the head it is a 504; a retry does not start the time anew.
    let hanging = Upstream::behaving(|_, _| {
        thread::park();
        false
    });
    let proxy = one_arm(
        "",
        "[upstream]\ntotal_timeout = \"1s\"\n",
        &[hanging.address],
    );
    let mut client = Client::connect(proxy.proxy).unwrap();
    assert_eq!(client.get("/v1/stars").unwrap().status, 504);
    assert_eq!(hanging.received().len(), 1);
}
