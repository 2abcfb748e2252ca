//! What `[context.NAME]` finds in requests, and where it goes.

use serde_json::{Value, json};

use crate::harness::http::Answer;
use crate::harness::upstream::Upstream;
use crate::harness::{Proxy, eventually, journal, stars};

const POLICY: &str = r#"
[policy.epsilon_greedy]
epsilon = 0.1
[context.category]
type = "category"
header = "X-Category"
values = ["clothing", "movies"]
[context.page]
type = "number"
query = "page"
[context.prime]
type = "boolean"
cookie = "prime"
[context.words]
type = "length"
json = "/review/text"
[context.stars]
type = "category"
json = "/review/stars"
buckets = 8
[context.size]
type = "length"
body = true
"#;

/// The journal's line of this type about a decision.
fn line(proxy: &Proxy, kind: &str, id: &str) -> Value {
    eventually("the journal has it", || {
        journal(&proxy.data())
            .into_iter()
            .find(|line| line["type"] == kind && line["id"] == id)
    })
}

fn context_of(proxy: &Proxy, answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{answer:?}");
    line(proxy, "decision", &answer.decision())["context"].clone()
}

#[test]
fn a_requests_context_is_in_its_decisions_line_and_the_request_goes_on_unchanged() {
    let a = Upstream::json("{}");
    let proxy = Proxy::stars(POLICY, &[&a, &a]);
    let body = "{\"review\": {\"text\": \"größer ★\",  \"stars\": 5}, \"more\": [1, 2]}";
    let answer = proxy
        .client()
        .send(
            "POST",
            "/v1/stars?x=%20&page=2.5",
            &[("x-category", "movies"), ("cookie", "a=b; prime=true")],
            body.as_bytes(),
        )
        .unwrap();
    assert_eq!(
        context_of(&proxy, &answer),
        json!({
            "category": "movies", "page": 2.5, "prime": true, "words": 8.0, "stars": "5",
            "size": body.len() as f64,
        })
    );
    let received = a.received().pop().unwrap();
    assert_eq!(received.body, body.as_bytes());
    assert_eq!(received.header("x-category"), Some("movies"));
    assert!(
        received.head.contains("/v1/stars?x=%20&page=2.5"),
        "{received:?}"
    );
    // What is drawn from does not depend on the context here, so the `allocation` record has it.
    let decision = line(&proxy, "decision", &answer.decision());
    assert_eq!(decision["probabilities"], Value::Null);
}

#[test]
fn what_a_request_does_not_have_is_left_out_and_refuses_nothing() {
    let a = Upstream::json("{}");
    let proxy = Proxy::stars(POLICY, &[&a, &a]);
    let context = |path: &str, headers: &[(&str, &str)], body: &[u8]| {
        let answer = proxy.client().send("POST", path, headers, body).unwrap();
        context_of(&proxy, &answer)
    };
    let odd = [
        ("x-category", "\"books\" \\ caf\u{e9}"),
        ("cookie", "prime=maybe"),
    ];
    assert_eq!(
        context("/v1/stars?page=two", &odd, b"{\"review\": {\"stars\": ["),
        json!({"category": "\"books\" \\ caf\u{e9}", "size": 22.0})
    );
    assert_eq!(context("/v1/stars", &[], b""), json!({"size": 0.0}));
    assert_eq!(
        context(
            "/v1/stars?page=inf",
            &[],
            b"{\"review\": {\"text\": 7, \"stars\": {}}}"
        ),
        json!({"size": 36.0})
    );
}

#[test]
fn a_body_that_is_looked_at_has_a_limit() {
    let a = Upstream::json("{}");
    let in_body = "[policy.epsilon_greedy]\n[context.size]\ntype = \"length\"\nbody = true\n";
    let elsewhere = "[policy.epsilon_greedy]\n[context.zone]\ntype = \"category\"\nheader = \"x-zone\"\nbuckets = 2\n";
    for (policy, wanted) in [(in_body, 413), (elsewhere, 200)] {
        let mut proxy = Proxy::prepare(
            &[("stars", &stars(policy, &[&a]))],
            "[limits]\nbuffered_body = 1000\n",
        );
        proxy.run();
        let post = |length: usize| {
            let body = "x".repeat(length);
            proxy.client().post("/v1/stars", &body).unwrap()
        };
        assert_eq!(post(1000).status, 200);
        assert_eq!(post(1001).status, wanted, "{policy}");
    }
}

#[test]
fn whoever_asks_for_a_decision_states_its_context() {
    let a = Upstream::json("{}");
    let policy = format!(
        "[unit]\nheader = \"x-user-id\"\n{POLICY}[context.user]\ntype = \"category\"\nunit = true\nbuckets = 4\n"
    );
    let proxy = Proxy::stars(&policy, &[&a, &a]);
    let ask = |context: Value| {
        let body = json!({"experiment": "stars", "unit": "zoe", "context": context});
        let body = body.to_string();
        proxy.client().post("/-/decisions", &body).unwrap()
    };
    let answer = ask(json!({
        "category": "clothing", "page": 3, "prime": false, "words": "four", "stars": true, "size": 120,
    }));
    assert_eq!(answer.status, 201, "{answer:?}");
    let id = answer.json()["decision_id"].as_str().unwrap().to_owned();
    assert_eq!(
        line(&proxy, "decision", &id)["context"],
        json!({
            "category": "clothing", "page": 3.0, "prime": false, "words": 4.0, "stars": "true",
            "size": 120.0, "user": "zoe",
        })
    );
    let partly = ask(json!({"words": 17, "page": "4", "prime": [], "user": "yan"}));
    let id = partly.json()["decision_id"].as_str().unwrap().to_owned();
    assert_eq!(
        line(&proxy, "decision", &id)["context"],
        json!({"words": 17.0, "page": 4.0, "user": "yan"})
    );
    let unknown = ask(json!({"categry": "clothing"}));
    assert_eq!(unknown.status, 400);
    let told = unknown.text();
    for part in ["categry", "category, page, prime, words, stars, size, user"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert_eq!(ask(json!([1])).status, 400);
}

#[test]
fn contexts_survive_the_end_of_the_process() {
    let a = Upstream::json("{}");
    let mut proxy = Proxy::stars(POLICY, &[&a, &a]);
    let answer = proxy
        .client()
        .send(
            "POST",
            "/v1/stars?page=7",
            &[("x-category", "movies")],
            b"{}",
        )
        .unwrap();
    let (id, context) = (answer.decision(), context_of(&proxy, &answer));
    assert_eq!(
        context,
        json!({"category": "movies", "page": 7.0, "size": 2.0})
    );
    proxy.kill();
    proxy.run();
    let rewarded = proxy.reward(&json!({"decision_id": id, "reward": 1}).to_string());
    // A policy without contexts has none to lose.
    assert_eq!(
        rewarded.json(),
        json!({"results": [{"status": "accepted"}]})
    );
    assert_eq!(line(&proxy, "reward", &id)["context"], Value::Null);
    let policy = journal(&proxy.data())
        .into_iter()
        .find(|line| line["type"] == "policy")
        .unwrap();
    assert_eq!(
        policy["context"][1],
        json!({
            "name": "page", "source": {"query": "page"},
            "encoding": {"number": {"center": 0.0, "scale": 1.0, "log": false, "missing": 0.0}},
        })
    );
}

const CONTEXTUAL: &str = r#"
[policy.lin_ucb]
floor = 0.1
[context.category]
type = "category"
header = "x-category"
values = ["clothing", "movies"]
"#;

fn ask_about(proxy: &Proxy, category: &str) -> Answer {
    let headers = [("x-category", category)];
    proxy
        .client()
        .send("POST", "/v1/stars", &headers, b"{}")
        .unwrap()
}

fn reward(proxy: &Proxy, id: &str, value: f64) -> Value {
    let body = json!({"decision_id": id, "reward": value});
    proxy.reward(&body.to_string()).json()
}

#[test]
fn a_contextual_policy_learns_from_a_reward_after_a_kill() {
    let a = Upstream::json("{}");
    let mut proxy = Proxy::stars(CONTEXTUAL, &[&a, &a]);
    let id = ask_about(&proxy, "movies").decision();
    let decision = line(&proxy, "decision", &id);
    assert_eq!(decision["context"], json!({"category": "movies"}));
    let arm = decision["arm"].as_str().unwrap().to_owned();
    assert_eq!(decision["probabilities"][&arm], decision["propensity"]);
    proxy.kill();
    proxy.run();
    assert_eq!(
        reward(&proxy, &id, 1.0),
        json!({"results": [{"status": "accepted"}]})
    );
    assert_eq!(
        line(&proxy, "reward", &id)["context"],
        json!({"category": "movies"})
    );
    // The arm that was rewarded is now the best for movies: it gets all but the other's floor.
    for restart in [false, true] {
        if restart {
            proxy.kill();
            proxy.run();
        }
        eventually("the arm is preferred", || {
            let id = ask_about(&proxy, "movies").decision();
            let decision = line(&proxy, "decision", &id);
            let share = decision["probabilities"][&arm].as_f64().unwrap();
            ((share - 0.9).abs() < 1e-9).then_some(())
        });
    }
}

#[test]
fn a_reward_whose_context_was_pushed_out_counts_and_is_said_not_to_be_learned() {
    let a = Upstream::json("{}");
    let mut proxy = Proxy::prepare(
        &[("stars", &stars(CONTEXTUAL, &[&a, &a]))],
        "[limits]\ncontexts = 1\n",
    );
    proxy.run();
    let ids = ["movies", "clothing"].map(|category| {
        let id = ask_about(&proxy, category).decision();
        line(&proxy, "decision", &id);
        id
    });
    assert_eq!(
        reward(&proxy, &ids[0], 1.0),
        json!({"results": [{"status": "accepted", "learned": false}]})
    );
    assert_eq!(
        reward(&proxy, &ids[1], 1.0),
        json!({"results": [{"status": "accepted"}]})
    );
    assert_eq!(
        reward(&proxy, &ids[0], 1.0),
        json!({"results": [{"status": "duplicate"}]})
    );
    assert_eq!(proxy.rewards("stars", 2.0).iter().sum::<f64>(), 2.0);
}
