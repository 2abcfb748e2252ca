//! The server over real sockets, with the tiny model or one that waits to be told.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use star_rating::head::Prediction;
use star_rating::serve::queue::{Predictor, Queue};
use star_rating::serve::{bind, serve};
use tokio::sync::oneshot;

use crate::client::{Connection, ask};
use crate::tiny;

struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Server {
    fn start(predictor: Predictor, capacity: usize) -> Self {
        let (sender, receiver) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
                sender.send(listener.local_addr().unwrap()).unwrap();
                let queue = Queue::start(&predictor, 1, capacity).unwrap();
                let stop = async { stopped.await.unwrap_or_default() };
                serve(listener, "tiny", queue, stop).await.unwrap();
            });
        });
        Self {
            address: receiver.recv().unwrap(),
            stop,
            thread,
        }
    }

    fn tiny(name: &str) -> Self {
        let model = tiny::model(name);
        Self::start(Arc::new(move |text| model.predict(text)), 8)
    }

    fn stop(self) {
        self.stop.send(()).unwrap();
        self.thread.join().unwrap();
    }
}

#[test]
fn both_forms_are_answered_over_one_connection() {
    let server = Server::tiny("forms");
    let mut connection = Connection::open(server.address);
    connection.send(
        "POST /v1/stars HTTP/1.1\r\ncontent-type: application/jsonlines",
        "{\"features\": [\"the dress is good\"]}\n{\"features\": [\"the movie is bad\"]}\n",
    );
    let lines = connection.receive();
    assert_eq!(lines.status, 200, "{lines:?}");
    assert_eq!(lines.header("content-type"), Some("application/jsonlines"));
    assert!(
        lines
            .header("server-timing")
            .unwrap()
            .contains("model;dur=")
    );
    let labels: Vec<u64> = lines
        .body
        .lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line.pointer("/predicted_label").unwrap().as_u64().unwrap()
        })
        .collect();
    assert_eq!(labels.len(), 2);
    assert!(labels.iter().all(|label| (1..=5).contains(label)));

    connection.send(
        "POST /v1/stars HTTP/1.1\r\ncontent-type: application/json",
        r#"{"review_headline": "", "review_body": "the dress is good"}"#,
    );
    let plain = connection.receive();
    assert_eq!(plain.status, 200, "{plain:?}");
    assert_eq!(plain.json()["predicted_label"], labels[0]);
    assert_eq!(plain.json()["variant"], "tiny");
    assert_eq!(plain.json()["probabilities"].as_array().unwrap().len(), 5);
    assert!(plain.json()["latency_ms"].as_f64().unwrap() > 0.0);
    server.stop();
}

#[test]
fn health_and_wrong_turns() {
    let server = Server::tiny("health");
    for (head, status) in [
        ("GET /ping HTTP/1.1", 200),
        ("GET /health HTTP/1.1", 200),
        ("GET /v1/stars HTTP/1.1", 405),
        ("POST /ping HTTP/1.1", 405),
        ("GET /nowhere HTTP/1.1", 404),
        ("POST /v1/stars HTTP/1.1\r\ncontent-encoding: gzip", 415),
    ] {
        let answer = ask(server.address, head, "");
        assert_eq!(answer.status, status, "{head}: {answer:?}");
    }
    let answer = ask(server.address, "GET /v1/stars HTTP/1.1", "");
    assert_eq!(answer.header("allow"), Some("POST"));
    server.stop();
}

#[test]
fn bad_bodies_get_400_and_a_reason() {
    let server = Server::tiny("bad");
    for (body, expected) in [
        ("", "the body is empty"),
        ("{", "item 1"),
        ("{\"features\": [\"good\"]}\n{\"feature\": 1}", "item 2"),
        ("{\"text\": \"\"}", "the text is empty"),
    ] {
        let answer = ask(server.address, "POST /v1/stars HTTP/1.1", body);
        assert_eq!(answer.status, 400, "{answer:?}");
        let message = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(message.contains(expected), "{body}: {message}");
    }
    server.stop();
}

#[test]
fn long_bodies_get_413_announced_or_not() {
    let server = Server::tiny("long");
    let mut announced = Connection::open(server.address);
    announced.send_raw("POST /v1/stars HTTP/1.1\r\nhost: test\r\ncontent-length: 1048577\r\n\r\n");
    assert_eq!(announced.receive().status, 413);

    let mut chunked = Connection::open(server.address);
    chunked.send_raw("POST /v1/stars HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n");
    let chunk = "x".repeat(1 << 16);
    for _ in 0..16 {
        chunked.send_raw(&format!("10000\r\n{chunk}\r\n"));
    }
    // One byte more than fits, and no end yet: nothing is left unread that could reset the connection.
    chunked.send_raw("1\r\nx\r\n");
    assert_eq!(chunked.receive().status, 413);
    server.stop();
}

/// A model that says when it starts and waits to be told to go on.
fn gated() -> (Predictor, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (started, starts) = mpsc::channel();
    let (go, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let predictor: Predictor = Arc::new(move |_: &str| {
        started.send(())?;
        gate.lock().unwrap().recv()?;
        Ok(Prediction {
            probabilities: [0.0, 0.0, 0.0, 0.0, 1.0],
        })
    });
    (predictor, starts, go)
}

const HEAD: &str = "POST /v1/stars HTTP/1.1";
const BODY: &str = r#"{"text": "good"}"#;

#[test]
fn a_full_queue_gets_503_and_recovers() {
    let (predictor, starts, go) = gated();
    let server = Server::start(predictor, 1);
    let mut first = Connection::open(server.address);
    first.send(HEAD, BODY);
    starts.recv().unwrap();
    // One runs. Of the next, one may wait, and all the others are refused at once.
    let mut others: Vec<Connection> = (0..3).map(|_| Connection::open(server.address)).collect();
    let mut refused = 0;
    for other in &mut others {
        other.send(HEAD, BODY);
    }
    let waiting = std::thread::spawn(move || {
        let answers: Vec<_> = others.iter_mut().map(Connection::receive).collect();
        answers
    });
    // A later request is refused too, which shows that the queue is full by now.
    loop {
        let mut probe = Connection::open(server.address);
        probe.send(HEAD, BODY);
        let answer = probe.receive();
        if answer.status == 503 {
            assert_eq!(answer.header("retry-after"), Some("1"));
            assert!(
                answer.json()["error"]
                    .as_str()
                    .unwrap()
                    .contains("try again")
            );
            break;
        }
    }
    for _ in 0..4 {
        go.send(()).ok();
    }
    assert_eq!(first.receive().status, 200);
    for answer in waiting.join().unwrap() {
        match answer.status {
            200 => {}
            503 => refused += 1,
            status => panic!("unexpected status {status}"),
        }
    }
    assert!(refused >= 2, "{refused}");
    drop(go);
    server.stop();
}

#[test]
fn requests_in_flight_finish_when_the_server_stops() {
    let (predictor, starts, go) = gated();
    let server = Server::start(predictor, 4);
    let mut connection = Connection::open(server.address);
    connection.send(HEAD, BODY);
    starts.recv().unwrap();
    server.stop.send(()).unwrap();
    go.send(()).unwrap();
    assert_eq!(connection.receive().json()["predicted_label"], 5);
    server.thread.join().unwrap();
}

#[test]
fn a_failing_model_is_a_500_and_the_next_request_works() {
    let server = Server::start(
        Arc::new(|text: &str| match text {
            "fail" => anyhow::bail!("no"),
            "panic" => panic!("a test of panics"),
            _ => Ok(Prediction {
                probabilities: [1.0, 0.0, 0.0, 0.0, 0.0],
            }),
        }),
        4,
    );
    for text in ["fail", "panic"] {
        let answer = ask(server.address, HEAD, &format!("{{\"text\": \"{text}\"}}"));
        assert_eq!(answer.status, 500, "{answer:?}");
    }
    assert_eq!(ask(server.address, HEAD, BODY).json()["predicted_label"], 1);
    server.stop();
}
