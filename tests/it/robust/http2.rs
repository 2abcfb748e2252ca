//! HTTP/2 with prior knowledge, to clients and to endpoints, and what lies between it and HTTP/1.1.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use http::Response;
use http_body_util::BodyExt;
use tokio::sync::Notify;

use super::{GET, OK, echo_chunks, endings, one_arm};
use crate::harness::Proxy;
use crate::harness::streams::{connect, data, echo, frames, request, run, upstream, whole};
use crate::harness::upstream::Upstream;

const HTTP2: &str = "[upstream]\nprotocol = \"http2\"\n";

/// Servers whose endpoint echoes: over HTTP/1.1, and over HTTP/2.
fn echoing() -> Vec<Proxy> {
    vec![
        one_arm("", "", &[echo_chunks().address]),
        one_arm("", HTTP2, &[upstream(echo)]),
    ]
}

#[test]
fn bodies_and_trailers_stream_both_ways() {
    for proxy in echoing() {
        run(async {
            let mut client = connect(proxy.proxy).await;
            for _ in 0..3 {
                let (filler, body) = frames();
                let mut asked = request("POST", "/v1/stars", body);
                asked
                    .headers_mut()
                    .insert("te", "trailers".parse().unwrap());
                let answer = client.send_request(asked).await.unwrap();
                assert_eq!(answer.status(), 200);
                assert_eq!(answer.headers()["x-pointsman-arm"], "a");
                let mut body = answer.into_body();
                for round in 0..20 {
                    let text = format!("round {round}");
                    filler.data(text.as_bytes());
                    assert_eq!(data(&mut body).await, text);
                }
                filler.trailer("x-check", "abc");
                drop(filler);
                let last = body.frame().await.unwrap().unwrap();
                assert_eq!(last.into_trailers().unwrap()["x-check"], "abc");
                assert!(body.frame().await.is_none());
            }
        });
        assert_eq!(endings(&proxy, 3), ["answered"; 3]);
    }
}

#[test]
fn clients_of_http_1_1_reach_endpoints_of_http_2() {
    let proxy = one_arm("", HTTP2, &[upstream(echo)]);
    let mut client = proxy.client();
    for _ in 0..3 {
        let answer = client.post("/v1/stars", "{\"a\": 1}").unwrap();
        assert_eq!(answer.text(), "{\"a\": 1}");
        assert_eq!(client.get("/v1/stars").unwrap().text(), "");
    }
    client.raw(b"POST /v1/stars HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n");
    assert_eq!(client.receive_head().unwrap().0, 200);
    for round in 0..20 {
        let chunk = format!("round {round:04}");
        client.raw(format!("a\r\n{chunk}\r\n").as_bytes());
        assert_eq!(client.receive_chunk().unwrap(), chunk.as_bytes());
    }
    client.raw(b"0\r\nx-check: abc\r\n\r\n");
    assert_eq!(client.rest(), b"0\r\nx-check: abc\r\n\r\n");
    assert_eq!(endings(&proxy, 7), ["answered"; 7]);
}

#[test]
fn endpoints_of_http_2_get_what_was_sent() {
    let (told, got) = mpsc::channel();
    let address = upstream(move |asked| {
        let (parts, _) = asked.into_parts();
        told.send((parts.method, parts.uri, parts.headers)).unwrap();
        Box::pin(async {
            Response::builder()
                .status(418)
                .header("x-kept", "1")
                .header("x-pointsman-arm", "forged")
                .body(whole(b"tea"))
                .unwrap()
        })
    });
    let proxy = one_arm("", HTTP2, &[address]);
    let headers = [
        ("x-custom", "kept"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("cookie", "a=1; b=2"),
    ];
    let answer = proxy
        .client()
        .send("PUT", "/v1/stars?q=1", &headers, b"{}")
        .unwrap();
    assert_eq!(
        (answer.status, answer.text().as_str(), answer.arm().as_str()),
        (418, "tea", "a")
    );
    assert_eq!(answer.header("x-kept"), Some("1"));
    let (method, uri, headers) = got.recv().unwrap();
    assert_eq!(
        (method.as_str(), uri.path_and_query().unwrap().as_str()),
        ("PUT", "/v1/stars?q=1")
    );
    assert_eq!(uri.authority().unwrap(), "127.0.0.1");
    assert_eq!(headers["x-custom"], "kept");
    assert_eq!(headers["cookie"], "a=1; b=2");
    assert_eq!(headers["content-length"], "2");
    assert_eq!(headers["x-forwarded-host"], "127.0.0.1");
    for gone in ["connection", "x-hop", "transfer-encoding"] {
        assert!(!headers.contains_key(gone), "{gone}");
    }
}

#[test]
fn endpoints_of_http_1_1_get_what_was_sent() {
    let endpoint = Upstream::raw(
        b"HTTP/1.1 418 Teapot\r\nconnection: keep-alive\r\nkeep-alive: timeout=5\r\nx-kept: 1\r\ncontent-length: 3\r\n\r\ntea",
    );
    let proxy = one_arm("", "", &[endpoint.address]);
    run(async {
        let mut client = connect(proxy.proxy).await;
        let mut asked = request("PUT", "/v1/stars?q=1", whole(b"{}"));
        asked.headers_mut().append("cookie", "a=1".parse().unwrap());
        asked.headers_mut().append("cookie", "b=2".parse().unwrap());
        let answer = client.send_request(asked).await.unwrap();
        assert_eq!(answer.status(), 418);
        assert_eq!(answer.headers()["x-kept"], "1");
        assert_eq!(answer.headers()["content-length"], "3");
        assert!(!answer.headers().contains_key("connection"));
        assert_eq!(
            answer.into_body().collect().await.unwrap().to_bytes(),
            "tea"
        );
    });
    let received = endpoint.received().remove(0);
    assert!(received.head.starts_with("PUT /v1/stars?q=1 HTTP/1.1\r\n"));
    assert_eq!(received.body, b"{}");
    assert_eq!(received.header("host"), Some("pointsman.example"));
    assert_eq!(received.header("cookie"), Some("a=1; b=2"));
    assert_eq!(
        received.header("x-forwarded-host"),
        Some("pointsman.example")
    );
}

#[test]
fn a_stream_that_waits_holds_up_no_other() {
    let (endpoint, release) = Upstream::gated(OK);
    let proxy = one_arm("", "", &[endpoint.address]);
    run(async {
        let mut client = connect(proxy.proxy).await;
        let mut waits = request("GET", "/v1/stars", whole(b""));
        waits.headers_mut().insert("x-wait", "1".parse().unwrap());
        let waiting = tokio::spawn(client.send_request(waits));
        for _ in 0..10 {
            let asked = request("GET", "/v1/stars", whole(b""));
            assert_eq!(client.send_request(asked).await.unwrap().status(), 200);
        }
        assert!(!waiting.is_finished());
        release.send(()).unwrap();
        assert_eq!(waiting.await.unwrap().unwrap().status(), 200);
    });
}

#[test]
fn answers_without_a_body_end() {
    let endpoint = Upstream::behaving(|request, stream| {
        let answer: &[u8] = if request.head.starts_with("HEAD") {
            b"HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n"
        } else {
            b"HTTP/1.1 204 No Content\r\n\r\n"
        };
        stream.write_all(answer).is_ok()
    });
    let proxy = one_arm("", "", &[endpoint.address]);
    run(async {
        let mut client = connect(proxy.proxy).await;
        for (method, status) in [("HEAD", 200), ("DELETE", 204), ("HEAD", 200)] {
            let asked = request(method, "/v1/stars", whole(b""));
            let answer = client.send_request(asked).await.unwrap();
            assert_eq!(answer.status(), status);
            if method == "HEAD" {
                assert_eq!(answer.headers()["content-length"], "1234");
            }
            assert!(
                answer
                    .into_body()
                    .collect()
                    .await
                    .unwrap()
                    .to_bytes()
                    .is_empty()
            );
        }
    });
    assert_eq!(endings(&proxy, 3), ["answered"; 3]);
}

#[test]
fn a_response_that_breaks_off_is_seen_to_on_either_side() {
    let cut = Upstream::behaving(|_, stream| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")
            .unwrap();
        false
    });
    let failing = upstream(|_| {
        Box::pin(async {
            let (filler, body) = frames();
            filler.data(b"first");
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(100)).await;
                filler.fail();
            });
            Response::new(body)
        })
    });
    for proxy in [
        one_arm("", "", &[cut.address]),
        one_arm("", HTTP2, &[failing]),
    ] {
        run(async {
            let mut client = connect(proxy.proxy).await;
            let asked = request("GET", "/v1/stars", whole(b""));
            // A reset may overtake what came before it, the head too.
            if let Ok(answer) = client.send_request(asked).await {
                let mut body = answer.into_body();
                while body.frame().await.unwrap().is_ok() {}
            }
        });
        let mut client = proxy.client();
        client.raw(GET);
        assert_eq!(client.receive_head().unwrap().0, 200);
        assert_eq!(client.receive_chunk().unwrap(), b"first");
        assert_eq!(client.rest(), b"");
        assert_eq!(endings(&proxy, 2), ["failed"; 2]);
    }
}

#[test]
fn a_stream_that_is_reset_is_told_to_the_endpoint() {
    let (told, ends) = mpsc::channel();
    let told = Arc::new(told);
    let over_http_1 = {
        let told = Arc::clone(&told);
        Upstream::behaving(move |_, stream| {
            let mut byte = [0];
            while matches!(stream.read(&mut byte), Ok(1..)) {}
            told.send(Instant::now()).unwrap();
            false
        })
    };
    let over_http_2 = upstream(move |_| {
        let told = Arc::clone(&told);
        Box::pin(async move {
            let (filler, body) = frames();
            filler.data(b"first");
            tokio::spawn(async move {
                filler.gone().await;
                told.send(Instant::now()).unwrap();
            });
            Response::new(body)
        })
    });
    for proxy in [
        one_arm("", "", &[over_http_1.address]),
        one_arm("", HTTP2, &[over_http_2]),
    ] {
        let left = run(async {
            let mut client = connect(proxy.proxy).await;
            let answer = client.send_request(request("GET", "/v1/stars", whole(b"")));
            // One endpoint never answers, the other does not end.
            let answered = tokio::time::timeout(Duration::from_millis(500), answer).await;
            drop(answered);
            let left = Instant::now();
            // The connection lives on: the stream alone is gone.
            let asked = request("GET", "/nowhere", whole(b""));
            assert_eq!(client.send_request(asked).await.unwrap().status(), 404);
            left
        });
        let after = ends.recv_timeout(Duration::from_secs(20)).unwrap() - left;
        assert!(after < Duration::from_secs(2 + 3), "{after:?}");
        assert_eq!(endings(&proxy, 1), ["aborted"]);
    }
}

#[test]
fn an_answer_before_the_body_is_passed_on() {
    let early = Upstream::answering_early(
        b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\n\r\nbig",
    );
    let early_too = upstream(|_| {
        Box::pin(async { Response::builder().status(413).body(whole(b"big")).unwrap() })
    });
    for proxy in [
        one_arm("", "", &[early.address]),
        one_arm("", HTTP2, &[early_too]),
    ] {
        run(async {
            let mut client = connect(proxy.proxy).await;
            let (filler, body) = frames();
            filler.data(&vec![b'x'; 100_000]);
            let asked = request("POST", "/v1/stars", body);
            let answer = client.send_request(asked).await.unwrap();
            assert_eq!(answer.status(), 413);
            assert_eq!(
                answer.into_body().collect().await.unwrap().to_bytes(),
                "big"
            );
            drop(filler);
        });
        assert_eq!(endings(&proxy, 1), ["answered"]);
    }
}

#[test]
fn an_endpoint_that_ends_its_connections_costs_no_request() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || serve_one_each(listener));
    let proxy = one_arm("", HTTP2, &[address]);
    let mut client = proxy.client();
    for round in 0..20 {
        let method = if round % 2 == 0 { "POST" } else { "GET" };
        let answer = client.send(method, "/v1/stars", &[], b"{}").unwrap();
        assert_eq!(answer.status, 200, "{round}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Serves one request of each connection, then says that there will be no more.
fn serve_one_each(listener: std::net::TcpListener) {
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    listener.set_nonblocking(true).unwrap();
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let served = Arc::new(Notify::new());
                let one = Arc::clone(&served);
                let service = hyper::service::service_fn(move |asked| {
                    let (one, answer) = (Arc::clone(&one), echo(asked));
                    async move {
                        one.notify_one();
                        Ok::<_, std::io::Error>(answer.await)
                    }
                });
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let connection = builder.serve_connection(TokioIo::new(stream), service);
                let mut connection = std::pin::pin!(connection);
                tokio::select! {
                    _ = connection.as_mut() => return,
                    () = served.notified() => connection.as_mut().graceful_shutdown(),
                }
                connection.await.ok();
            });
        }
    });
}

/// Reads one frame: its type, its flags, its payload.
pub(super) fn frame(stream: &mut TcpStream) -> Option<(u8, u8, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload).ok()?;
    Some((head[3], head[4], payload))
}

const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

/// Starts a connection and gives the server's settings.
pub(crate) fn settings(stream: &mut TcpStream) -> Vec<(u16, u32)> {
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .unwrap();
    loop {
        let (kind, flags, payload) = frame(stream).unwrap();
        if (kind, flags) == (SETTINGS, 0) {
            stream.write_all(b"\0\0\0\x04\x01\0\0\0\0").unwrap();
            let two = |at: &[u8]| u16::from_be_bytes([at[0], at[1]]);
            return payload
                .chunks(6)
                .map(|pair| {
                    (
                        two(pair),
                        u32::from(two(&pair[2..])) << 16 | u32::from(two(&pair[4..])),
                    )
                })
                .collect();
        }
    }
}

#[test]
fn limits_are_announced() {
    let proxy = one_arm(
        "[limits]\nstreams = 7\nheader_bytes = 5000\n",
        "",
        &[echo_chunks().address],
    );
    let mut stream = TcpStream::connect(proxy.proxy).unwrap();
    let settings = settings(&mut stream);
    // RFC 9113 §6.5.2.
    for expected in [(3, 7), (6, 5_000)] {
        assert!(settings.contains(&expected), "{settings:?}");
    }
}

/// Answers pings until there is a GOAWAY and then the end. Whether there was one.
pub(crate) fn until_the_end(stream: &mut TcpStream) -> bool {
    let mut goes = false;
    while let Some((kind, flags, payload)) = frame(stream) {
        goes |= kind == GOAWAY;
        if (kind, flags) == (PING, 0) {
            let answer = [b"\0\0\x08\x06\x01\0\0\0\0", payload.as_slice()].concat();
            stream.write_all(&answer).ok();
        }
    }
    goes
}

#[test]
fn draining_says_goodbye_and_finishes_what_was_begun() {
    let (release, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let endpoint = Upstream::behaving(move |_, stream| {
        gate.lock().unwrap().recv().unwrap();
        stream.write_all(OK).is_ok()
    });
    let mut proxy = one_arm("", "", &[endpoint.address]);
    let mut idle = TcpStream::connect(proxy.proxy).unwrap();
    idle.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    settings(&mut idle);
    run(async {
        let mut client = connect(proxy.proxy).await;
        let waiting = tokio::spawn(client.send_request(request("GET", "/v1/stars", whole(b""))));
        while endpoint.received().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        proxy.signal("TERM");
        assert!(
            tokio::task::spawn_blocking(move || until_the_end(&mut idle))
                .await
                .unwrap()
        );
        // What was begun goes on.
        release.send(()).unwrap();
        let answer = waiting.await.unwrap().unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "{}");
    });
    assert_eq!(proxy.wait(), 0);
    assert_eq!(endings(&proxy, 1), ["answered"]);
}

#[test]
fn an_idle_connection_is_ended() {
    let settings_of_limits =
        "[limits]\nkeep_alive_timeout = \"500ms\"\nheader_timeout = \"500ms\"\n";
    let proxy = one_arm(settings_of_limits, "", &[echo_chunks().address]);
    let mut idle = TcpStream::connect(proxy.proxy).unwrap();
    idle.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    settings(&mut idle);
    assert!(until_the_end(&mut idle));
    // One that never says what it is, too.
    let mut silent = TcpStream::connect(proxy.proxy).unwrap();
    silent.write_all(b"PRI * HTTP/2.0\r\n").unwrap();
    silent
        .set_read_timeout(Some(Duration::from_mins(1)))
        .unwrap();
    let ended = silent.read_to_end(&mut Vec::new());
    assert!(ended.map_or_else(
        |error| error.kind() == std::io::ErrorKind::ConnectionReset,
        |_| true
    ));
}
