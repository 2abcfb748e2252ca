//! What is drawn, and what is said and logged of it.

use std::collections::HashMap;

use serde_json::json;

use crate::harness::upstream::Upstream;
use crate::harness::{Proxy, eventually, journal};

const HALF_PERCENT: &str = "[policy.fixed]\n# weight a = 99.5\n# weight b = 0.5\n";
const ZERO: &str = "[policy.fixed]\n# weight a = 1\n# weight b = 0\n";

#[test]
fn a_decision_is_told_to_the_client_and_to_the_journal_alike() {
    let (a, b) = (Upstream::json("{}"), Upstream::json("{}"));
    let proxy = Proxy::stars(
        "[policy.fixed]\n# weight a = 3\n# weight b = 1\n",
        &[&a, &b],
    );
    let answer = proxy.client().post("/v1/stars", "{}").unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-pointsman-experiment"), Some("stars"));
    assert_eq!(answer.header("x-pointsman-reason"), None);
    let version = answer.header("x-pointsman-policy-version").unwrap();
    assert_eq!(version.len(), 12);
    let id = answer.decision();
    assert!(
        id.len() <= 96
            && id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)),
        "{id}"
    );
    let line = eventually("the decision is in the journal", || {
        journal(&proxy.data())
            .into_iter()
            .find(|line| line["type"] == "decision" && line["id"] == id.as_str())
    });
    assert_eq!(line["arm"], answer.arm());
    assert_eq!(line["experiment"], "stars");
    assert_eq!(line["reason"], "sampled");
    let wanted = if answer.arm() == "a" { 0.75 } else { 0.25 };
    assert_eq!(line["propensity"], json!(wanted));
}

#[test]
fn weights_are_honoured_exactly() {
    let (a, b) = (Upstream::json("{}"), Upstream::json("{}"));
    let proxy = Proxy::stars(HALF_PERCENT, &[&a, &b]);
    let allocation = proxy.arms("stars", "allocation");
    assert!(
        (allocation[0] - 0.995).abs() < 1e-12 && (allocation[1] - 0.005).abs() < 1e-12,
        "{allocation:?}"
    );
    let mut client = proxy.client();
    let drawn = (0..4_000)
        .filter(|_| client.post("/v1/stars", "{}").unwrap().arm() == "b")
        .count();
    // 20 expected, standard error 4.5.
    assert!((2..=45).contains(&drawn), "{drawn}");
}

#[test]
fn weight_zero_takes_an_arm_out() {
    let (a, b) = (Upstream::json("{}"), Upstream::json("{}"));
    for policy in [
        ZERO,
        "[policy.thompson]\n# weight b = 0\n",
        "[policy.epsilon_greedy]\nepsilon = 0.5\n# weight b = 0\n",
    ] {
        let proxy = Proxy::stars(policy, &[&a, &b]);
        assert_eq!(proxy.arms("stars", "allocation"), [1.0, 0.0], "{policy}");
        let mut client = proxy.client();
        assert!((0..200).all(|_| client.post("/v1/stars", "{}").unwrap().arm() == "a"));
    }
}

#[test]
fn a_unit_keeps_its_arm_and_units_split_by_weight() {
    let (a, b) = (Upstream::json("{}"), Upstream::json("{}"));
    let policy = "[unit]\nheader = \"x-user-id\"\n[policy.fixed]\n# weight a = 1\n# weight b = 1\n";
    let mut proxy = Proxy::stars(policy, &[&a, &b]);
    let arm_of = |proxy: &Proxy, user: usize| {
        let user = format!("user-{user}");
        proxy
            .client()
            .send("POST", "/v1/stars", &[("x-user-id", &user)], b"{}")
            .unwrap()
            .arm()
    };
    let first: Vec<String> = (0..300).map(|user| arm_of(&proxy, user)).collect();
    let again: Vec<String> = (0..300).map(|user| arm_of(&proxy, user)).collect();
    assert_eq!(first, again);
    let in_a = first.iter().filter(|arm| *arm == "a").count();
    // 150 expected, standard error 8.7.
    assert!((105..=195).contains(&in_a), "{in_a}");
    proxy.kill();
    proxy.run();
    assert_eq!(
        (0..50).map(|user| arm_of(&proxy, user)).collect::<Vec<_>>(),
        first[..50]
    );
}

#[test]
fn units_come_from_cookies_queries_and_bodies() {
    let (a, b) = (Upstream::json("{}"), Upstream::json("{}"));
    let policy = |unit: &str| format!("[unit]\n{unit}\n[policy.fixed]\n");
    let spread = |arms: Vec<String>| arms.iter().filter(|arm| *arm == "a").count();

    let proxy = Proxy::stars(&policy("query = \"user\""), &[&a, &b]);
    let arms = |user: &str| {
        proxy
            .client()
            .post(&format!("/v1/stars?x=1&user={user}"), "{}")
            .unwrap()
            .arm()
    };
    assert_eq!(arms("zoe"), arms("zoe"));
    assert!((5..60).contains(&spread(
        (0..64).map(|user| arms(&format!("u{user}"))).collect()
    )));

    let proxy = Proxy::stars(&policy("json = \"/user/id\""), &[&a, &b]);
    let arms = |user: &str| {
        proxy
            .client()
            .post("/v1/stars", &json!({"user": {"id": user}}).to_string())
            .unwrap()
            .arm()
    };
    assert_eq!(arms("zoe"), arms("zoe"));
    assert!((5..60).contains(&spread(
        (0..64).map(|user| arms(&format!("u{user}"))).collect()
    )));
    let body = json!({"user": {"id": "zoe"}}).to_string();
    assert!(
        a.received()
            .iter()
            .chain(&b.received())
            .any(|request| request.body == body.as_bytes())
    );

    let proxy = Proxy::stars(&policy("cookie = \"uid\"\nissue = true"), &[&a, &b]);
    let answer = proxy.client().post("/v1/stars", "{}").unwrap();
    let cookie = answer
        .header("set-cookie")
        .unwrap()
        .split(';')
        .next()
        .unwrap()
        .to_owned();
    for _ in 0..8 {
        let next = proxy
            .client()
            .send("POST", "/v1/stars", &[("cookie", &cookie)], b"{}")
            .unwrap();
        assert_eq!(
            (next.arm(), next.header("set-cookie")),
            (answer.arm(), None)
        );
    }
}

#[test]
fn a_missing_unit_is_counted_and_follows_the_policy_file() {
    let (a, b) = (Upstream::json("{}"), Upstream::json("{}"));
    let policy = "[unit]\nheader = \"x-user-id\"\nmissing = \"baseline\"\n[policy.fixed]\n# weight a = 1\n# weight b = 9\n";
    let proxy = Proxy::stars(policy, &[&a, &b]);
    let answer = proxy.client().post("/v1/stars", "{}").unwrap();
    assert_eq!(
        (answer.arm().as_str(), answer.header("x-pointsman-reason")),
        ("a", Some("paused"))
    );
    let metrics = proxy.admin().get("/metrics").unwrap().text();
    assert!(
        metrics.contains("pointsman_unit_missing_total{experiment=\"stars\"} 1"),
        "{metrics}"
    );
}

#[test]
fn decisions_can_be_asked_for_without_proxying() {
    let a = Upstream::json("{}");
    let proxy = Proxy::stars(
        "[unit]\nheader = \"x-user-id\"\n[policy.fixed]\n",
        &[&a, &a],
    );
    let ask = |body: &str| proxy.client().post("/-/decisions", body).unwrap();
    let mut arms = HashMap::new();
    for user in 0..40 {
        let body = json!({"experiment": "stars", "unit": format!("u{user}")}).to_string();
        let answer = ask(&body);
        assert_eq!(answer.status, 201, "{answer:?}");
        let decision = answer.json();
        assert_eq!(decision["propensity"], json!(0.5));
        assert_eq!(decision["arm"], ask(&body).json()["arm"]);
        let proxied = proxy
            .client()
            .send(
                "POST",
                "/v1/stars",
                &[("x-user-id", &format!("u{user}"))],
                b"{}",
            )
            .unwrap();
        assert_eq!(decision["arm"], proxied.arm());
        *arms
            .entry(decision["arm"].as_str().unwrap().to_owned())
            .or_insert(0) += 1;
        let rewarded =
            proxy.reward(&json!({"decision_id": decision["decision_id"], "reward": 1}).to_string());
        assert_eq!(rewarded.statuses(), ["accepted"]);
    }
    assert_eq!(arms.len(), 2);
    assert_eq!(ask("{\"experiment\": \"nope\"}").status, 404);
    assert_eq!(ask("{\"experiment\": ").status, 400);
    assert_eq!(ask("{\"experiment\": \"stars\", \"units\": 1}").status, 400);
}

#[test]
fn an_arm_that_cannot_be_reached_falls_back_to_the_baseline_and_stays_charged() {
    let a = Upstream::json("{}");
    let nobody = crate::harness::free_address().to_string();
    let policy = "[policy.fixed]\n# weight a = 1\n# weight b = 1\n";
    let text = crate::harness::stars_at(policy, &[&a.address.to_string(), &nobody]);
    let proxy = Proxy::start(&[("stars", &text)]);
    let mut client = proxy.client();
    let answers: Vec<_> = (0..60)
        .map(|_| client.post("/v1/stars", "{}").unwrap())
        .collect();
    assert!(
        answers
            .iter()
            .all(|answer| answer.status == 200 && answer.arm() == "a")
    );
    let fallbacks = answers
        .iter()
        .filter(|answer| answer.header("x-pointsman-reason") == Some("fallback"))
        .count();
    assert!((10..=50).contains(&fallbacks), "{fallbacks}");
    eventually("the failures are tallied", || {
        (proxy.arms("stars", "failures") == [0.0, fallbacks as f64]).then_some(())
    });
    let decisions = proxy.arms("stars", "decisions");
    assert_eq!(decisions, [(60 - fallbacks) as f64, fallbacks as f64]);
    let fallback = answers
        .iter()
        .find(|answer| answer.header("x-pointsman-reason").is_some())
        .unwrap();
    let reward =
        proxy.reward(&json!({"decision_id": fallback.decision(), "reward": 1}).to_string());
    assert_eq!(reward.statuses(), ["ignored"]);
    let lines = journal(&proxy.data());
    assert!(
        lines
            .iter()
            .any(|line| line["reason"] == "fallback" && line["instead_of"].is_string()),
        "{lines:?}"
    );
}
