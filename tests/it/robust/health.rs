//! Endpoints that are not well: checks and failures take them out, and their arm with them, and bring them back; the propensity says so.

use std::io::Write;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::Duration;

use http::Response;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::{OK, lines, one_arm, policy};
use crate::harness::streams::{frames, upstream};
use crate::harness::upstream::{Upstream, read_request};
use crate::harness::{Proxy, eventually, free_address, stars};

const CHECKS: &str = "[upstream.health]\npath = \"/health?deep=1\"\ninterval = \"100ms\"\ntimeout = \"100ms\"\nhealthy = 2\nunhealthy = 2\n";

/// What an endpoint does instead of giving a status.
const CLOSES: u16 = 0;
const HANGS: u16 = 1;

/// An endpoint with two switches: what its checks get, and what everybody else gets.
struct Endpoint {
    upstream: Upstream,
    check: Arc<AtomicU16>,
    answer: Arc<AtomicU16>,
}

impl Endpoint {
    fn new() -> Self {
        let [check, answer] = [200, 200].map(|status| Arc::new(AtomicU16::new(status)));
        let statuses = (Arc::clone(&check), Arc::clone(&answer));
        let upstream = Upstream::behaving(move |request, stream| {
            let is_check = request.head.starts_with("GET /health?deep=1 HTTP/1.1\r\n");
            let status = if is_check { &statuses.0 } else { &statuses.1 };
            match status.load(Ordering::Relaxed) {
                CLOSES => false,
                HANGS => {
                    thread::sleep(Duration::from_secs(1));
                    false
                }
                status => {
                    let answer = format!("HTTP/1.1 {status} Status\r\ncontent-length: 0\r\n\r\n");
                    stream.write_all(answer.as_bytes()).is_ok()
                }
            }
        });
        Self {
            upstream,
            check,
            answer,
        }
    }

    fn checks(&self, status: u16) {
        self.check.store(status, Ordering::Relaxed);
    }

    fn answers(&self, status: u16) {
        self.answer.store(status, Ordering::Relaxed);
    }

    /// How many requests it got that were no checks.
    fn served(&self) -> usize {
        let received = self.upstream.received();
        let checks = |head: &str| head.starts_with("GET /health");
        received
            .iter()
            .filter(|request| !checks(&request.head))
            .count()
    }
}

/// Waits until the admin API says of each arm whether it is healthy.
fn until_healthy(proxy: &Proxy, experiment: &str, expected: &[bool]) {
    eventually(&format!("{experiment}: {expected:?}"), || {
        let told = proxy.experiment(experiment);
        let arms = told["arms"].as_array().unwrap();
        let healthy: Vec<_> = arms.iter().map(|arm| arm["healthy"] == true).collect();
        (healthy == expected).then_some(())
    });
}

/// Arm, propensity and reason of each of so many new decisions.
fn decide(proxy: &Proxy, path: &str, count: usize) -> Vec<(String, f64, String)> {
    let mut ids = Vec::new();
    for _ in 0..count {
        let answer = proxy.client().post(path, "{}").unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        ids.push(answer.decision());
    }
    let find = |all: &[Value], id: &str| all.iter().find(|line| line["id"] == id).cloned();
    let decisions = eventually("all are journalled", || {
        let all = lines(proxy, "decision", count);
        let found: Option<Vec<Value>> = ids.iter().map(|id| find(&all, id)).collect();
        found
    });
    decisions
        .iter()
        .map(|line| {
            let text = |key: &str| line[key].as_str().unwrap().to_owned();
            (
                text("arm"),
                line["propensity"].as_f64().unwrap(),
                text("reason"),
            )
        })
        .collect()
}

fn is_all(decisions: &[(String, f64, String)], arm: &str, propensity: f64, reason: &str) {
    for decision in decisions {
        assert_eq!(decision, &(arm.into(), propensity, reason.into()));
    }
}

#[test]
fn an_arm_whose_checks_fail_is_not_drawn_until_they_pass_again() {
    let (a, b) = (Endpoint::new(), Endpoint::new());
    let text = stars(
        &format!("[policy.fixed]\n{CHECKS}"),
        &[&a.upstream, &b.upstream],
    );
    let proxy = Proxy::start(&[("stars", &text)]);
    let metric = |line: &str| {
        eventually(line, || {
            let metrics = proxy.admin().get("/metrics")?.text();
            metrics.lines().any(|found| found == line).then_some(())
        });
    };
    for failure in [500, 302, CLOSES, HANGS] {
        until_healthy(&proxy, "stars", &[true, true]);
        let drawn = decide(&proxy, "/v1/stars", 40);
        assert!(drawn.iter().any(|(arm, ..)| arm == "b"));
        assert!(drawn.iter().all(|(_, propensity, _)| *propensity == 0.5));
        b.checks(failure);
        until_healthy(&proxy, "stars", &[true, false]);
        assert_eq!(proxy.arms("stars", "allocation"), [1.0, 0.0]);
        metric("pointsman_arm_healthy{experiment=\"stars\",arm=\"b\"} 0");
        let before = b.served();
        is_all(&decide(&proxy, "/v1/stars", 30), "a", 1.0, "sampled");
        let body = json!({"experiment": "stars"}).to_string();
        let decided = proxy.client().post("/-/decisions", &body).unwrap().json();
        assert_eq!(
            (&decided["arm"], &decided["propensity"]),
            (&json!("a"), &json!(1.0))
        );
        assert_eq!(b.served(), before);
        b.checks(204);
        until_healthy(&proxy, "stars", &[true, true]);
        assert_eq!(proxy.arms("stars", "allocation"), [0.5, 0.5]);
        metric("pointsman_arm_healthy{experiment=\"stars\",arm=\"b\"} 1");
    }
}

#[test]
fn an_endpoint_that_refuses_leaves_and_the_rest_of_its_arm_serves() {
    let (a, well) = (Endpoint::new(), Endpoint::new());
    let refusing = free_address();
    let text = policy(
        CHECKS,
        &[
            ("a", &[a.upstream.address]),
            ("b", &[refusing, well.upstream.address]),
            ("c", &[refusing]),
        ],
    );
    let proxy = Proxy::start(&[("stars", &text)]);
    until_healthy(&proxy, "stars", &[true, true, false]);
    let tries = || {
        proxy
            .log()
            .matches("could not connect to an endpoint endpoint=")
            .count()
    };
    let before = tries();
    is_all(&decide(&proxy, "/v1/stars", 20), "b", 1.0, "sampled");
    assert_eq!(well.served(), 20);
    assert!(before > 0, "the log says why");
    let listener = TcpListener::bind(refusing).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut reader = std::io::BufReader::new(stream);
                while read_request(&mut reader).is_some() {
                    reader.get_mut().write_all(OK).unwrap();
                }
            });
        }
    });
    until_healthy(&proxy, "stars", &[true, true, true]);
    let drawn = decide(&proxy, "/v1/stars", 40);
    assert!(drawn.iter().any(|(arm, ..)| arm == "c"));
}

#[test]
fn with_no_arm_left_the_baseline_is_tried_all_the_same() {
    let (a, b) = (Endpoint::new(), Endpoint::new());
    let text = stars(
        &format!("[policy.fixed]\n{CHECKS}"),
        &[&a.upstream, &b.upstream],
    );
    let proxy = Proxy::start(&[("stars", &text)]);
    for endpoint in [&a, &b] {
        endpoint.checks(500);
    }
    until_healthy(&proxy, "stars", &[false, false]);
    is_all(&decide(&proxy, "/v1/stars", 10), "a", 1.0, "fallback");
    assert_eq!(b.served(), 0);
}

/// Policy files for these arms, each at a path of its own, with these tables.
fn experiments(tables: &[(&str, &str)], arms: &[&Upstream]) -> Proxy {
    let texts = tables.iter().map(|(name, tables)| {
        let text = stars(&format!("[policy.fixed]\n{tables}"), arms);
        (*name, text.replace("/v1/stars", &format!("/v1/{name}")))
    });
    let texts: Vec<(&str, String)> = texts.collect();
    let policies: Vec<_> = texts.iter().map(|(name, text)| (*name, &**text)).collect();
    Proxy::start(&policies)
}

#[test]
fn an_endpoint_of_several_experiments_leaves_them_all() {
    let (a, b) = (Endpoint::new(), Endpoint::new());
    let tables = [("stars", CHECKS), ("other", CHECKS)];
    let proxy = experiments(&tables, &[&a.upstream, &b.upstream]);
    let drawn = decide(&proxy, "/v1/other", 40);
    assert!(drawn.iter().any(|(arm, ..)| arm == "b"));
    // Every draw looks at the start; this is behind that.
    thread::sleep(Duration::from_millis(500));
    b.checks(500);
    for experiment in ["stars", "other"] {
        until_healthy(&proxy, experiment, &[true, false]);
        let path = format!("/v1/{experiment}");
        is_all(&decide(&proxy, &path, 20), "a", 1.0, "sampled");
    }
    b.checks(200);
    until_healthy(&proxy, "other", &[true, true]);
}

#[test]
fn each_experiment_goes_by_its_own_checks() {
    let (a, b) = (Endpoint::new(), Endpoint::new());
    // What `/ready` gets is what everybody gets.
    let ready = CHECKS.replace("/health?deep=1", "/ready");
    let tables = [("deep", CHECKS), ("ready", &ready), ("none", "")];
    let proxy = experiments(&tables, &[&a.upstream, &b.upstream]);
    b.checks(500);
    until_healthy(&proxy, "deep", &[true, false]);
    b.checks(200);
    until_healthy(&proxy, "deep", &[true, true]);
    b.answers(404);
    until_healthy(&proxy, "ready", &[true, false]);
    for (experiment, well) in [("deep", true), ("ready", false), ("none", true)] {
        until_healthy(&proxy, experiment, &[true, well]);
    }
    b.answers(200);
    until_healthy(&proxy, "ready", &[true, true]);
}

#[test]
fn a_reload_does_not_forget_who_is_ill() {
    let (a, b) = (Endpoint::new(), Endpoint::new());
    let text = |policy: &str| stars(&format!("{policy}{CHECKS}"), &[&a.upstream, &b.upstream]);
    let proxy = Proxy::start(&[("stars", &text("[policy.fixed]\n"))]);
    b.checks(500);
    until_healthy(&proxy, "stars", &[true, false]);
    for policy in ["[policy.thompson]\n", "[policy.fixed]\n"] {
        proxy.write_policy("stars", &text(policy));
        assert_eq!(proxy.reload().status, 200);
        is_all(&decide(&proxy, "/v1/stars", 20), "a", 1.0, "sampled");
    }
    assert_eq!(b.served(), 0);
    b.checks(200);
    until_healthy(&proxy, "stars", &[true, true]);
}

#[test]
fn grpc_servers_are_asked_for_their_health() {
    let a = Endpoint::new();
    let status = Arc::new(AtomicU16::new(1));
    let told = Arc::clone(&status);
    let address = upstream(move |asked| {
        let status = told.load(Ordering::Relaxed) as u8;
        Box::pin(async move {
            let path = asked.uri().path().to_owned();
            let headers = asked.headers().clone();
            let body = asked.into_body().collect().await.unwrap().to_bytes();
            let (filler, answer) = frames();
            let is_question = path == "/grpc.health.v1.Health/Check"
                && headers["content-type"] == "application/grpc"
                && headers["te"] == "trailers"
                && body[..] == *b"\0\0\0\0\x07\x0a\x05stars";
            if is_question {
                filler.data(&[0, 0, 0, 0, 2, 8, status]);
                filler.trailer("grpc-status", "0");
            } else {
                filler.data(b"{}");
            }
            Response::new(answer)
        })
    });
    let tables = CHECKS.replace("path = \"/health?deep=1\"", "grpc = \"stars\"");
    let tables = format!("[upstream]\nprotocol = \"http2\"\n{tables}");
    let text = policy(&tables, &[("a", &[a.upstream.address]), ("b", &[address])]);
    let proxy = Proxy::start(&[("stars", &text)]);
    // The baseline speaks no HTTP/2.
    until_healthy(&proxy, "stars", &[false, true]);
    // NOT_SERVING.
    status.store(2, Ordering::Relaxed);
    until_healthy(&proxy, "stars", &[false, false]);
    status.store(1, Ordering::Relaxed);
    until_healthy(&proxy, "stars", &[false, true]);
    is_all(&decide(&proxy, "/v1/stars", 5), "b", 1.0, "sampled");
}

/// How often each endpoint was asked, after so many requests of which none is sent twice.
fn served(proxy: &Proxy, endpoints: &[&Endpoint], count: usize) -> Vec<usize> {
    let before: Vec<_> = endpoints.iter().map(|endpoint| endpoint.served()).collect();
    let mut client = proxy.client();
    for _ in 0..count {
        client.post("/v1/stars", "{}").unwrap();
    }
    let since = endpoints.iter().zip(before);
    since
        .map(|(endpoint, before)| endpoint.served() - before)
        .collect()
}

#[test]
fn an_endpoint_that_fails_in_a_row_is_let_rest() {
    let (well, ill) = (Endpoint::new(), Endpoint::new());
    let tables = "[upstream.ejection]\nconsecutive_failures = 3\nbase = \"1m\"\n";
    let proxy = one_arm("", tables, &[well.upstream.address, ill.upstream.address]);
    assert_eq!(served(&proxy, &[&well, &ill], 20), [10, 10]);
    // Not in a row.
    for status in [500, 500, 200, 500, 500, 200] {
        ill.answers(status);
        assert_eq!(served(&proxy, &[&ill], 2), [1]);
    }
    ill.answers(503);
    assert_eq!(served(&proxy, &[&well, &ill], 60), [57, 3]);
    assert_eq!(proxy.log().matches("is let rest").count(), 1);
}

#[test]
fn what_a_client_breaks_off_ejects_nobody() {
    let (well, slow) = (Endpoint::new(), Endpoint::new());
    let tables = "[upstream.ejection]\nconsecutive_failures = 1\nbase = \"1m\"\n";
    let proxy = one_arm("", tables, &[well.upstream.address, slow.upstream.address]);
    for endpoint in [&well, &slow] {
        endpoint.answers(HANGS);
    }
    for _ in 0..6 {
        let mut client = proxy.client();
        client.raw(super::GET);
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(super::endings(&proxy, 6), ["aborted"; 6]);
    for endpoint in [&well, &slow] {
        endpoint.answers(200);
    }
    let served = served(&proxy, &[&well, &slow], 20);
    assert_eq!(served, [10, 10]);
}

#[test]
fn an_endpoint_that_has_rested_is_asked_again_and_rests_longer_the_next_time() {
    let (well, ill) = (Endpoint::new(), Endpoint::new());
    let tables = "[upstream.ejection]\nconsecutive_failures = 1\ninterval = \"1h\"\nbase = \"400ms\"\nmax = \"600ms\"\n";
    let proxy = one_arm("", tables, &[well.upstream.address, ill.upstream.address]);
    ill.answers(500);
    let rests = |count| {
        eventually(&format!("it rests {count} times"), || {
            served(&proxy, &[&ill], 1);
            (proxy.log().matches("is let rest").count() == count).then_some(())
        });
    };
    for count in 1..=3 {
        rests(count);
    }
    let log = proxy.log();
    let times: Vec<_> = log
        .lines()
        .filter_map(|line| line.split_once("milliseconds=")?.1.split(' ').next())
        .collect();
    assert_eq!(times, ["400", "600", "600"], "{log}");
    ill.answers(200);
    eventually("it serves again", || {
        (served(&proxy, &[&well, &ill], 10) == [5, 5]).then_some(())
    });
}

#[test]
fn no_more_than_their_share_of_an_arms_endpoints_rests() {
    let endpoints: Vec<Endpoint> = (0..5).map(|_| Endpoint::new()).collect();
    let addresses: Vec<_> = endpoints
        .iter()
        .map(|endpoint| endpoint.upstream.address)
        .collect();
    for endpoint in &endpoints {
        endpoint.answers(500);
    }
    let of = |share: &str| {
        format!(
            "[upstream.ejection]\nconsecutive_failures = 1\nbase = \"1m\"\nmax_share = {share}\n"
        )
    };
    // Rounded down.
    for (share, resting) in [("0.5", 2), ("0.2", 1), ("0.0", 0)] {
        let proxy = one_arm("", &of(share), &addresses);
        let endpoints: Vec<_> = endpoints.iter().collect();
        let served = served(&proxy, &endpoints, 100);
        let once = served.iter().filter(|count| **count == 1).count();
        assert_eq!(once, resting, "{share}: {served:?}");
    }
    // A lone endpoint serves on, however ill.
    let proxy = one_arm("", &of("0.5"), &addresses[..1]);
    assert_eq!(served(&proxy, &[&endpoints[0]], 20), [20]);
}

#[test]
fn an_arm_whose_only_endpoint_rests_leaves_the_draw() {
    let (a, b) = (Endpoint::new(), Endpoint::new());
    let tables = "[upstream.ejection]\nconsecutive_failures = 2\nbase = \"2s\"\nmax_share = 1.0\n";
    let text = stars(
        &format!("[policy.fixed]\n{tables}"),
        &[&a.upstream, &b.upstream],
    );
    let proxy = Proxy::start(&[("stars", &text)]);
    b.answers(500);
    eventually("it rests", || {
        proxy.client().post("/v1/stars", "{}").unwrap();
        proxy.log().contains("is let rest").then_some(())
    });
    until_healthy(&proxy, "stars", &[true, false]);
    b.answers(200);
    until_healthy(&proxy, "stars", &[true, true]);
    // A request may have been under way while the last one was judged.
    assert!((2..=3).contains(&b.served()));
    // The workers' clocks go in steps, and not the same ones.
    eventually("both are drawn", || {
        let drawn = decide(&proxy, "/v1/stars", 40);
        let evenly = drawn.iter().all(|(_, propensity, _)| *propensity == 0.5);
        (evenly && drawn.iter().any(|(arm, ..)| arm == "b")).then_some(())
    });
}

#[test]
fn an_endpoint_that_succeeds_too_rarely_is_let_rest() {
    let well = Endpoint::new();
    let turn = AtomicU16::new(0);
    let flaky = Upstream::behaving(move |_, stream| {
        let status = 200 + 300 * (turn.fetch_add(1, Ordering::Relaxed) % 2);
        let answer = format!("HTTP/1.1 {status} Status\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(answer.as_bytes()).is_ok()
    });
    for (rate, most) in [("0.8", 12), ("0.2", 100)] {
        let tables = format!(
            "[upstream.ejection]\nsuccess_rate = {rate}\nminimum_requests = 10\ninterval = \"1m\"\nbase = \"1m\"\n"
        );
        let proxy = one_arm("", &tables, &[well.upstream.address, flaky.address]);
        let before = flaky.received().len();
        served(&proxy, &[], 200);
        let got = flaky.received().len() - before;
        assert!((10..=most).contains(&got), "{rate}: {got}");
        assert_eq!(got == 100, most == 100);
    }
}

#[test]
fn an_endpoint_that_returns_starts_with_a_part_of_its_share() {
    for (slow_start, expected) in [("1h", 5..=40), ("0s", 100..=200)] {
        let (well, ill) = (Endpoint::new(), Endpoint::new());
        let tables = format!(
            "[upstream]\nslow_start = \"{slow_start}\"\n[upstream.ejection]\nconsecutive_failures = 1\nbase = \"200ms\"\n"
        );
        let proxy = one_arm("", &tables, &[well.upstream.address, ill.upstream.address]);
        assert_eq!(served(&proxy, &[&ill], 100), [50], "a new one need not");
        ill.answers(500);
        eventually("it rests", || {
            served(&proxy, &[&ill], 1);
            proxy.log().contains("is let rest").then_some(())
        });
        ill.answers(200);
        eventually("it is back", || {
            (served(&proxy, &[&ill], 1) == [1]).then_some(())
        });
        let share = served(&proxy, &[&ill], 400)[0];
        assert!(expected.contains(&share), "{slow_start}: {share}");
    }
}
