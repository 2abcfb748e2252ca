//! One process takes the place of another where clients speak TLS or HTTP/2, or the API has a port of its own.

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use http::Response;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use serde_json::json;

use super::http2::{settings, until_the_end};
use super::tls::Secured;
use super::{OK, endings, one_arm, policy};
use crate::handover::{end, says, successor};
use crate::harness::http::Client;
use crate::harness::streams::{Frames, connect, request, run, whole};
use crate::harness::tls::shown;
use crate::harness::upstream::Upstream;
use crate::harness::{Proxy, eventually, free_address};

const WAITS: &[u8] = b"GET /v1/stars HTTP/1.1\r\nhost: a\r\nx-wait: 1\r\n\r\n";

fn until_in_flight(upstream: &Upstream) {
    eventually("it is in flight", || {
        let received = upstream.received();
        let waits = received
            .iter()
            .any(|asked| asked.header("x-wait").is_some());
        waits.then_some(())
    });
}

#[test]
fn clients_over_tls_do_not_notice() {
    let (upstream, release) = Upstream::gated(OK);
    let mut secured = Secured::start("", "", &upstream);
    let mut waiting = secured.dial().connect(secured.proxy.proxy).unwrap();
    waiting.raw(WAITS);
    until_in_flight(&upstream);
    let (stop, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let (dial, address) = (secured.dial(), secured.proxy.proxy);
        let (stop, served) = (&stop, &served);
        for keeps in [true, false] {
            let dial = dial.clone();
            scope.spawn(move || {
                let mut kept = None;
                while !stop.load(Ordering::Relaxed) {
                    let mut client = kept
                        .take()
                        .unwrap_or_else(|| dial.connect(address).expect("nobody is refused"));
                    let answer = client.get("/v1/stars").expect("every request is answered");
                    assert_eq!(answer.status, 200, "{answer:?}");
                    served.fetch_add(1, Ordering::Relaxed);
                    if keeps && answer.header("connection") != Some("close") {
                        kept = Some(client);
                    }
                }
            });
        }
        let more = || {
            let before = served.load(Ordering::Relaxed);
            eventually("clients are served", || {
                (served.load(Ordering::Relaxed) >= before + 30).then_some(())
            });
        };
        more();
        // Replaced while the successor starts: it shows what is there then.
        let second = secured.authority.sign("localhost");
        secured.replace(&second);
        let (child, log) = successor(&secured.proxy, "successor.log");
        says(&log, "waiting for the data directory");
        eventually("the old process drains", || {
            secured.proxy.log().contains("draining").then_some(())
        });
        more();
        let shows = shown(&secured.dial().connect(address).unwrap());
        assert_eq!(shows, second.der());
        release.send(()).unwrap();
        assert_eq!(waiting.receive(false).unwrap().status, 200);
        assert_eq!(secured.proxy.wait(), 0, "{}", secured.proxy.log());
        says(&log, "ready");
        more();
        stop.store(true, Ordering::Relaxed);
        end(child);
    });
}

#[test]
fn clients_of_http_2_are_told_to_go_and_finish_what_they_have_begun() {
    let (upstream, release) = Upstream::gated(OK);
    let mut proxy = one_arm("", "", &[upstream.address]);
    let mut idle = TcpStream::connect(proxy.proxy).unwrap();
    idle.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    settings(&mut idle);
    run(async {
        let mut client = connect(proxy.proxy).await;
        let mut asked = request("GET", "/v1/stars", whole(b""));
        asked.headers_mut().insert("x-wait", "1".parse().unwrap());
        let waiting = tokio::spawn(client.send_request(asked));
        while upstream.received().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let (child, log) = successor(&proxy, "successor.log");
        let goes = tokio::task::spawn_blocking(move || until_the_end(&mut idle));
        assert!(goes.await.unwrap(), "GOAWAY comes before the end");
        // Who connects now reaches the successor, whose rewards have to wait for the other's end.
        let (mut second, answer) = served_anew(proxy.proxy).await;
        assert_eq!(answer.status(), 200);
        let id = answer.headers()["x-pointsman-decision"].to_str().unwrap();
        let reward = json!({"decision_id": id, "reward": 1}).to_string();
        let asked = request("POST", "/-/rewards", whole(reward.as_bytes()));
        let answer = second.send_request(asked).await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["retry-after"]),
            (503, &"1".parse().unwrap())
        );
        assert!(!waiting.is_finished());
        release.send(()).unwrap();
        let answer = waiting.await.unwrap().unwrap();
        assert_eq!(answer.status(), 200);
        let ended = tokio::task::spawn_blocking(move || {
            assert_eq!(proxy.wait(), 0, "{}", proxy.log());
            says(&log, "ready");
            proxy
        });
        let proxy = ended.await.unwrap();
        // The successor's own connections live on.
        let asked = request("GET", "/v1/stars", whole(b""));
        assert_eq!(second.send_request(asked).await.unwrap().status(), 200);
        // Its connection has to be told of the end, and to agree.
        tokio::task::spawn_blocking(move || end(child))
            .await
            .unwrap();
        assert_eq!(endings(&proxy, 3), ["answered"; 3]);
    });
}

/// A new connection, and its first answer. A worker of the old process may just have accepted it: then it is told to go before it has begun anything.
async fn served_anew(address: SocketAddr) -> (SendRequest<Frames>, Response<Incoming>) {
    loop {
        let mut client = connect(address).await;
        let asked = request("GET", "/v1/stars", whole(b""));
        match client.send_request(asked).await {
            Ok(answer) => return (client, answer),
            Err(error) => assert!(error.is_canceled(), "{error:?}"),
        }
    }
}

fn post(address: SocketAddr, path: &str, body: &str) -> crate::harness::http::Answer {
    let mut client = Client::connect(address).expect("nobody is refused");
    client.post(path, body).expect("every request is answered")
}

#[test]
fn a_port_of_its_own_for_the_api_is_handed_over_too() {
    let (upstream, release) = Upstream::gated(OK);
    let api = free_address();
    let text = policy("", &[("a", &[upstream.address])]);
    let mut proxy = Proxy::prepare(&[("stars", &text)], "");
    let setting = ("POINTSMAN_LISTEN_API", api.to_string().into());
    proxy.environment.push(setting);
    proxy.run();
    let requests = proxy.proxy;
    let separate = || {
        assert_eq!(post(requests, "/v1/stars", "{}").status, 200);
        assert_eq!(post(requests, "/-/rewards", "{}").status, 404);
        assert_eq!(post(api, "/v1/stars", "{}").status, 404);
        assert_eq!(
            Client::connect(api)
                .unwrap()
                .get("/-/ready")
                .unwrap()
                .status,
            200
        );
    };
    separate();
    let id = post(requests, "/v1/stars", "{}").decision();
    let reward = json!({"decision_id": id, "reward": 1}).to_string();
    let mut waiting = proxy.client();
    waiting.raw(WAITS);
    until_in_flight(&upstream);
    let (child, log) = successor(&proxy, "successor.log");
    says(&log, "waiting for the data directory");
    eventually("the old process drains", || {
        proxy.log().contains("draining").then_some(())
    });
    separate();
    let refused = post(api, "/-/rewards", &reward);
    assert_eq!(
        (refused.status, refused.header("retry-after")),
        (503, Some("1"))
    );
    release.send(()).unwrap();
    assert_eq!(waiting.receive(false).unwrap().status, 200);
    assert_eq!(proxy.wait(), 0, "{}", proxy.log());
    says(&log, "ready");
    separate();
    assert_eq!(post(api, "/-/rewards", &reward).statuses(), ["accepted"]);
    proxy.rewards("stars", 1.0);
    end(child);
}
