//! A clean end, and starts that never happen.

use std::io::Write;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::harness::upstream::Upstream;
use crate::harness::{Proxy, eventually, journal, stars};

#[test]
fn requests_in_flight_finish_and_everything_is_written() {
    for signal in ["TERM", "INT"] {
        let a = Upstream::behaving(|_, stream| {
            std::thread::sleep(Duration::from_millis(600));
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
                .is_ok()
        });
        let mut proxy = Proxy::stars("[policy.fixed]\n", &[&a]);
        let statuses: Vec<u16> = std::thread::scope(|scope| {
            let requests: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| proxy.client().post("/v1/stars", "{}").unwrap().status))
                .collect();
            eventually("all are in flight", || {
                (a.received().len() == 8).then_some(())
            });
            proxy.signal(signal);
            requests
                .into_iter()
                .map(|request| request.join().unwrap())
                .collect()
        });
        assert_eq!(statuses, [200; 8]);
        assert_eq!(proxy.wait(), 0, "{}", proxy.log());
        let lines = journal(&proxy.data());
        assert_eq!(
            lines
                .iter()
                .filter(|line| line["ending"] == "answered")
                .count(),
            8
        );
        assert_eq!(lines.last().unwrap()["type"], "commit");
    }
}

#[test]
fn readiness_falls_first_and_requests_are_taken_until_the_drain_delay_has_passed() {
    let a = Upstream::json("{}");
    let text = stars("[policy.fixed]\n", &[&a]);
    let mut proxy = Proxy::prepare(&[("stars", &text)], "");
    let config = proxy.directory.path().join("pointsman.toml");
    let settings = std::fs::read_to_string(&config)
        .unwrap()
        .replace("drain_delay = \"0s\"", "drain_delay = \"6s\"");
    std::fs::write(&config, settings).unwrap();
    proxy.run();
    proxy.signal("TERM");
    eventually("unready", || {
        (proxy.client().get("/-/ready").unwrap().status == 503).then_some(())
    });
    assert_eq!(proxy.client().post("/v1/stars", "{}").unwrap().status, 200);
    assert_eq!(proxy.client().get("/-/healthy").unwrap().status, 200);
    assert_eq!(proxy.wait(), 0);
}

#[test]
fn half_a_request_to_the_admin_listener_does_not_keep_the_server() {
    let a = Upstream::json("{}");
    let mut proxy = Proxy::stars("[policy.fixed]\n", &[&a]);
    let mut half = proxy.admin();
    half.raw(b"GET /metrics HTTP/1.1\r\nhost: localh");
    proxy.signal("TERM");
    assert_eq!(proxy.wait(), 0);
}

#[test]
fn a_second_signal_cuts_what_is_open_and_loses_nothing_that_was_acknowledged() {
    let a = Upstream::behaving(|_, _| {
        std::thread::park();
        true
    });
    let b = Upstream::json("{}");
    let other = stars("[policy.thompson]\n", &[&b]).replace("/v1/stars", "/v2/stars");
    let mut proxy = Proxy::start(&[
        ("stars", &stars("[policy.fixed]\n", &[&a])),
        ("other", &other),
    ]);
    let id = proxy.client().post("/v2/stars", "{}").unwrap().decision();
    let body = json!({"decision_id": id, "reward": 1}).to_string();
    assert_eq!(proxy.reward(&body).statuses(), ["accepted"]);
    let mut hanging = proxy.client();
    hanging.raw(b"POST /v1/stars HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n");
    eventually("it is in flight", || {
        (a.received().len() == 1).then_some(())
    });
    proxy.signal("TERM");
    eventually("it drains", || {
        proxy.log().contains("draining").then_some(())
    });
    proxy.signal("TERM");
    assert_eq!(proxy.wait(), 1);
    proxy.run();
    assert_eq!(proxy.arms("other", "rewards"), [1.0]);
}

/// Runs `serve` and gives its exit code and what it said.
fn refuse(mut command: Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn bad_starts_end_with_a_message_that_says_what_to_do() {
    let a = Upstream::json("{}");
    let good = stars("[policy.fixed]\n", &[&a]);
    // A bad policy file.
    let proxy = Proxy::prepare(&[("stars", &good.replace("fixed", "fixd"))], "");
    let (code, told) = refuse(proxy.command());
    assert_eq!(code, Some(1));
    assert!(
        told.contains("stars.toml:") && told.contains("fixd") && told.contains('^'),
        "{told}"
    );
    // A bad setting.
    let proxy = Proxy::prepare(&[("stars", &good)], "[workers]\ncuont = 2\n");
    let (code, told) = refuse(proxy.command());
    assert_eq!(code, Some(1));
    assert!(told.contains("cuont") && told.contains("count"), "{told}");
    // A port in use.
    let proxy = Proxy::prepare(&[("stars", &good)], "");
    let taken = std::net::TcpListener::bind(proxy.proxy).unwrap();
    let (code, told) = refuse(proxy.command());
    assert_eq!(code, Some(1));
    assert!(
        told.contains(&proxy.proxy.to_string()) && told.contains("in use"),
        "{told}"
    );
    drop(taken);
    // A data directory that is a file.
    let proxy = Proxy::prepare(&[("stars", &good)], "");
    std::fs::write(proxy.data(), "").unwrap();
    let (code, told) = refuse(proxy.command());
    assert_eq!(code, Some(1));
    assert!(told.contains("data"), "{told}");
    // No policies folder.
    let proxy = Proxy::prepare(&[], "");
    std::fs::remove_dir(proxy.policies()).unwrap();
    let (code, told) = refuse(proxy.command());
    assert_eq!(code, Some(1));
    assert!(told.contains("policies"), "{told}");
    // An admin listener for everybody without a token.
    let proxy = Proxy::prepare(&[("stars", &good)], "");
    let mut command = proxy.command();
    command.env("POINTSMAN_LISTEN_ADMIN", "0.0.0.0:0");
    let (code, told) = refuse(command);
    assert_eq!(code, Some(1));
    assert!(told.contains("admin_token"), "{told}");
    // Usage.
    let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
    command.arg("serv");
    assert_eq!(refuse(command).0, Some(64));
}

#[test]
fn a_reward_that_was_acknowledged_before_the_end_is_there_after_it() {
    let a = Upstream::json("{}");
    let mut proxy = Proxy::stars("[policy.thompson]\n", &[&a]);
    let id = proxy.client().post("/v1/stars", "{}").unwrap().decision();
    assert_eq!(
        proxy
            .reward(&json!({"decision_id": id, "reward": 1}).to_string())
            .statuses(),
        ["accepted"]
    );
    proxy.signal("TERM");
    assert_eq!(proxy.wait(), 0);
    proxy.run();
    assert_eq!(proxy.arms("stars", "rewards"), [1.0]);
    assert_eq!(proxy.arms("stars", "decisions"), [1.0]);
}
