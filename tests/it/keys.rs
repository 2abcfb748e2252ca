//! Rewards by a key that the client has chosen.

use serde_json::{Value, json};

use crate::harness::http::Answer;
use crate::harness::upstream::Upstream;
use crate::harness::{Proxy, eventually, free_address, journal, stars, stars_at};

const KEYED: &str = "[policy.thompson]\n[reward]\nkind = \"binary\"\nwindow = \"1h\"\nkey = { header = \"X-Request-Id\" }\n";
const TOKEN: &str = "[auth]\nclient_token = \"let-me-in\"\n";
const BEARER: (&str, &str) = ("authorization", "Bearer let-me-in");

fn start(policy: &str, settings: &str) -> Proxy {
    let mut proxy = Proxy::prepare(&[("stars", policy)], settings);
    proxy.run();
    proxy
}

fn decide(proxy: &Proxy, key: &str) -> Answer {
    let headers = [("x-request-id", key)];
    let answer = proxy.client().send("POST", "/v1/stars", &headers, b"{}");
    answer.unwrap()
}

fn post(proxy: &Proxy, path: &str, body: &Value) -> Answer {
    let body = body.to_string();
    let answer = proxy
        .client()
        .send("POST", path, &[BEARER], body.as_bytes());
    answer.unwrap()
}

fn by_key(key: &str) -> Value {
    json!({"experiment": "stars", "key": key, "reward": 1})
}

fn reward(proxy: &Proxy, key: &str) -> Answer {
    post(proxy, "/-/rewards", &by_key(key))
}

fn error(answer: &Answer) -> String {
    let error = &answer.json()["results"][0]["error"];
    error.as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_reward_by_key_and_by_id_counts_once() {
    let a = Upstream::json("{}");
    let proxy = start(&stars(KEYED, &[&a, &a]), TOKEN);
    let first = decide(&proxy, "order-1").decision();
    let second = decide(&proxy, "order-2").decision();
    assert_eq!(reward(&proxy, "order-1").statuses(), ["accepted"]);
    let items = json!([
        {"decision_id": first, "reward": 1},
        by_key("order-1"),
        {"decision_id": second, "reward": 0},
        by_key("order-2"),
        {"experiment": "stars", "key": "order-2", "metric": "clicks", "reward": 3},
    ]);
    assert_eq!(
        post(&proxy, "/-/rewards", &items).statuses(),
        [
            "duplicate",
            "duplicate",
            "accepted",
            "duplicate",
            "accepted"
        ]
    );
    assert_eq!(proxy.rewards("stars", 2.0).iter().sum::<f64>(), 2.0);
    // The key itself is nobody's business but the client's.
    let lines = journal(&proxy.data());
    let decisions: Vec<_> = lines
        .iter()
        .filter(|line| line["type"] == "decision")
        .collect();
    assert!(
        decisions
            .iter()
            .all(|line| line["key"].as_str().unwrap().len() == 32)
    );
    assert_ne!(decisions[0]["key"], decisions[1]["key"]);
    let text: Vec<String> = lines.iter().map(ToString::to_string).collect();
    assert!(!text.concat().contains("order-1"));
    assert_eq!(
        a.received()[0].header("x-request-id"),
        Some("order-1"),
        "the arm gets it as it was"
    );
}

#[test]
fn what_names_no_decision_is_told_why() {
    let a = Upstream::json("{}");
    let proxy = start(&stars(KEYED, &[&a, &a]), TOKEN);
    let none = reward(&proxy, "order-1");
    assert_eq!(none.status, 400);
    assert!(error(&none).contains("no keys at all"), "{none:?}");
    decide(&proxy, "order-1");
    decide(&proxy, "order-1");
    let twice = reward(&proxy, "order-1");
    assert_eq!(twice.status, 400);
    assert!(error(&twice).contains("several decisions"), "{twice:?}");
    let unknown = reward(&proxy, "order-9");
    assert!(
        error(&unknown).contains("no decision with this key"),
        "{unknown:?}"
    );
    let item = json!({"experiment": "moons", "key": "order-1", "reward": 1});
    let elsewhere = post(&proxy, "/-/rewards", &item);
    assert!(error(&elsewhere).contains("no experiment"), "{elsewhere:?}");
    // Too long, and left out: decided, counted, without a key.
    assert_eq!(decide(&proxy, &"x".repeat(257)).status, 200);
    let bare = proxy.client().post("/v1/stars", "{}").unwrap();
    assert_eq!(bare.status, 200);
    eventually("missing keys are counted", || {
        let metrics = proxy.admin().get("/metrics").unwrap().text();
        metrics
            .contains("pointsman_reward_key_missing_total{experiment=\"stars\"} 2")
            .then_some(())
    });
    let item = json!({"decision_id": bare.decision(), "reward": 1});
    assert_eq!(post(&proxy, "/-/rewards", &item).statuses(), ["accepted"]);
}

#[test]
fn keys_are_known_after_a_restart_and_after_a_kill() {
    let a = Upstream::json("{}");
    let mut proxy = start(&stars(KEYED, &[&a, &a]), TOKEN);
    let id = decide(&proxy, "order-1").decision();
    decide(&proxy, "order-2");
    assert_eq!(reward(&proxy, "order-1").statuses(), ["accepted"]);
    for ended_well in [false, true] {
        if ended_well {
            proxy.signal("TERM");
            assert_eq!(proxy.wait(), 0);
        } else {
            proxy.kill();
        }
        proxy.run();
        assert_eq!(reward(&proxy, "order-1").statuses(), ["duplicate"]);
        let item = json!({"decision_id": id, "reward": 1});
        assert_eq!(post(&proxy, "/-/rewards", &item).statuses(), ["duplicate"]);
    }
    assert_eq!(reward(&proxy, "order-2").statuses(), ["accepted"]);
    proxy.rewards("stars", 2.0);
    // Seen once before the restart and once after it.
    decide(&proxy, "order-2");
    assert!(error(&reward(&proxy, "order-2")).contains("several decisions"));
}

#[test]
fn keys_are_taken_from_holders_of_the_client_token_alone() {
    let a = Upstream::json("{}");
    let policy = stars(KEYED, &[&a, &a]);
    let mut proxy = Proxy::prepare(&[("stars", &policy)], "");
    let refused = proxy.command().output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("auth.client_token"), "{told}");
    // A decision that was made while there was a token cannot be rewarded by key without one.
    proxy.write_policy("stars", &stars("[policy.thompson]\n", &[&a, &a]));
    proxy.run();
    let id = proxy.client().post("/v1/stars", "{}").unwrap().decision();
    let mixed = json!([{"decision_id": id, "reward": 1}, by_key("order-1")]).to_string();
    for body in [by_key("order-1").to_string(), mixed] {
        let refused = proxy.reward(&body);
        assert_eq!(refused.status, 401);
        assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
        let detail = refused.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("auth.client_token"), "{detail}");
    }
    let decision = json!({"experiment": "stars", "key": "order-1"}).to_string();
    let refused = proxy.client().post("/-/decisions", &decision).unwrap();
    assert_eq!(refused.status, 401);
    // Nothing of the mixed post was taken.
    let item = json!({"decision_id": id, "reward": 1}).to_string();
    assert_eq!(proxy.reward(&item).statuses(), ["accepted"]);

    let proxy = start(&policy, TOKEN);
    decide(&proxy, "order-1");
    assert_eq!(proxy.reward(&by_key("order-1").to_string()).status, 401);
    assert_eq!(reward(&proxy, "order-1").statuses(), ["accepted"]);
}

#[test]
fn evicted_keys_are_counted_and_told_of() {
    let a = Upstream::json("{}");
    let settings = format!("{TOKEN}[limits]\nreward_keys = 3\n");
    let mut proxy = start(&stars(KEYED, &[&a, &a]), &settings);
    for number in 1..=5 {
        decide(&proxy, &format!("order-{number}"));
        // Keys of one millisecond have no oldest to speak of.
        std::thread::sleep(std::time::Duration::from_millis(3));
    }
    let check = |proxy: &Proxy| {
        let evicted = reward(proxy, "order-2");
        assert!(
            error(&evicted).contains("2 keys of decisions since"),
            "{evicted:?}"
        );
    };
    // What is not yet in the journal has not yet pushed anything out.
    eventually("evictions are counted", || {
        let metrics = proxy.admin().get("/metrics").unwrap().text();
        metrics
            .contains("pointsman_reward_keys_evicted_total{experiment=\"stars\"} 2")
            .then_some(())
    });
    check(&proxy);
    assert_eq!(reward(&proxy, "order-3").statuses(), ["accepted"]);
    proxy.kill();
    proxy.run();
    check(&proxy);
    assert_eq!(reward(&proxy, "order-3").statuses(), ["duplicate"]);
    assert_eq!(reward(&proxy, "order-4").statuses(), ["accepted"]);
}

#[test]
fn a_decision_without_a_request_may_state_its_key() {
    let a = Upstream::json("{}");
    let other = stars("[policy.fixed]\n", &[&a]).replace("/v1/stars", "/v1/moons");
    let mut proxy = Proxy::prepare(
        &[("stars", &stars(KEYED, &[&a, &a])), ("moons", &other)],
        TOKEN,
    );
    proxy.run();
    let decide = |experiment: &str, key: &str| {
        let body = json!({"experiment": experiment, "key": key});
        post(&proxy, "/-/decisions", &body)
    };
    assert_eq!(decide("stars", "order-1").status, 201);
    assert_eq!(reward(&proxy, "order-1").statuses(), ["accepted"]);
    for key in ["", &"x".repeat(257)] {
        let refused = decide("stars", key);
        assert_eq!(refused.status, 400);
        assert!(refused.text().contains("1 to 256"), "{refused:?}");
    }
    let refused = decide("moons", "order-1");
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("takes no keys"), "{refused:?}");
}

#[test]
fn the_answer_of_the_baseline_is_what_the_key_names() {
    let a = Upstream::json("{}");
    let nobody = free_address().to_string();
    let fixed = KEYED.replace(
        "[policy.thompson]\n",
        "[policy.fixed]\n# weight a = 0\n# weight b = 1\n",
    );
    let endpoints = [a.address.to_string(), nobody];
    let endpoints: Vec<_> = endpoints.iter().map(String::as_str).collect();
    let proxy = start(&stars_at(&fixed, &endpoints), TOKEN);
    let answer = decide(&proxy, "order-1");
    assert_eq!(answer.header("x-pointsman-reason"), Some("fallback"));
    assert_eq!(answer.arm(), "a");
    // Recorded, not learned: as by the id that the client got.
    assert_eq!(reward(&proxy, "order-1").statuses(), ["ignored"]);
    let item = json!({"decision_id": answer.decision(), "reward": 1});
    assert_eq!(post(&proxy, "/-/rewards", &item).statuses(), ["ignored"]);
}
