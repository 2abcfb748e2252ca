//! However badly an arm is, it gets not much more than was asked of it.

use std::thread;
use std::time::Instant;

use super::{OK, one_arm, policy};
use crate::harness::Proxy;
use crate::harness::upstream::Upstream;

/// No endpoint is let rest, so that only the budget keeps retries down.
const TABLES: &str =
    "[upstream.ejection]\nconsecutive_failures = 0\n[upstream.retry]\nattempts = 3\n";

const CLIENTS: usize = 4;
const EACH: usize = 150;

/// Sends so many requests on several connections at a time, and gives how often they were sent to the endpoints, and how many seconds that took.
fn sends(proxy: &Proxy, method: &str, endpoints: &[&Upstream]) -> (usize, f64) {
    let started = Instant::now();
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                for _ in 0..EACH {
                    let answer = proxy.client().send(method, "/v1/stars", &[], b"").unwrap();
                    assert!([502, 503].contains(&answer.status), "{answer:?}");
                }
            });
        }
    });
    let got = endpoints.iter().map(|endpoint| endpoint.received().len());
    (got.sum(), started.elapsed().as_secs_f64())
}

/// What reads a request and leaves, and what answers that it cannot.
fn failing() -> [Upstream; 2] {
    [
        Upstream::behaving(|_, _| false),
        Upstream::raw(b"HTTP/1.1 503 Unavailable\r\ncontent-length: 0\r\n\r\n"),
    ]
}

#[test]
fn retries_stay_within_their_budget() {
    let [closing, unavailable] = failing();
    let proxy = one_arm("", TABLES, &[closing.address, unavailable.address]);
    let (sent, seconds) = sends(&proxy, "GET", &[&closing, &unavailable]);
    let retries = sent - CLIENTS * EACH;
    // A fifth of the requests, and ten a second of which ten seconds may come at once.
    let most = 0.2 * (CLIENTS * EACH) as f64 + 10.0 * (seconds + 10.0);
    assert!(retries as f64 <= most, "{retries} in {seconds} s");
    assert!(retries >= 100, "what is allowed is used: {retries}");
}

#[test]
fn a_budget_of_nothing_allows_nothing() {
    let [closing, unavailable] = failing();
    let tables = format!("{TABLES}budget = 0.0\nbudget_per_second = 0.0\n");
    let proxy = one_arm("", &tables, &[closing.address, unavailable.address]);
    let (sent, _) = sends(&proxy, "GET", &[&closing, &unavailable]);
    assert_eq!(sent, CLIENTS * EACH);
}

#[test]
fn what_must_not_be_sent_twice_is_not_whatever_the_budget() {
    let [closing, unavailable] = failing();
    let tables = format!("{TABLES}budget = 1.0\nbudget_per_second = 1000.0\n");
    let proxy = one_arm("", &tables, &[closing.address, unavailable.address]);
    let (sent, _) = sends(&proxy, "POST", &[&closing, &unavailable]);
    assert_eq!(sent, CLIENTS * EACH);
}

#[test]
fn each_experiment_has_a_budget_of_its_own() {
    let [closing, _] = failing();
    let well = Upstream::raw(OK);
    let tables = "[upstream.ejection]\nconsecutive_failures = 0\n[upstream.retry]\nbudget = 0.0\nbudget_per_second = 0.1\n";
    let stars = policy(tables, &[("a", &[closing.address])]);
    let other = policy(tables, &[("a", &[closing.address, well.address])])
        .replace("/v1/stars", "/v1/other");
    let proxy = Proxy::start(&[("stars", &stars), ("other", &other)]);
    // This experiment's one retry of ten seconds is soon spent.
    for _ in 0..5 {
        assert_eq!(proxy.client().get("/v1/stars").unwrap().status, 502);
    }
    assert!(closing.received().len() < 10);
    let mut client = proxy.client();
    for _ in 0..2 {
        // One of both goes to the endpoint first that answers.
        assert_eq!(client.get("/v1/other").unwrap().status, 200);
    }
}
