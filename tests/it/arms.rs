//! What an operator may order while it runs, and what is reported of each arm.

use serde_json::{Value, json};

use crate::harness::http::Answer;
use crate::harness::upstream::Upstream;
use crate::harness::{Proxy, eventually, journal, stars};

fn order(proxy: &Proxy, path: &str, body: &str) -> Answer {
    let path = format!("/api/v1/experiments/stars/{path}");
    proxy.admin().post(&path, body).unwrap()
}

fn ordered(proxy: &Proxy, path: &str) -> Value {
    let answer = order(proxy, path, "");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn decide(proxy: &Proxy) -> Answer {
    proxy.client().post("/v1/stars", "{}").unwrap()
}

fn reason(answer: &Answer) -> &str {
    answer.header("x-pointsman-reason").unwrap_or("sampled")
}

fn reward(proxy: &Proxy, id: &str) -> Vec<String> {
    let body = json!({"decision_id": id, "reward": 1}).to_string();
    proxy.reward(&body).statuses()
}

#[test]
fn a_disabled_arm_gets_nothing_from_the_answer_on_and_after_a_kill() {
    let a = Upstream::json("{}");
    let mut proxy = Proxy::stars("[policy.thompson]\nfloor = 0.1\n", &[&a, &a, &a]);
    let answer = order(&proxy, "arms/b/disable", "{\"reason\": \"out of memory\"}");
    assert_eq!(answer.status, 200, "{answer:?}");
    let arms = &answer.json()["arms"];
    assert_eq!(arms[1]["enabled"], false);
    assert_eq!(arms[1]["allocation"], 0.0);
    // What is left is computed anew, floor and all.
    for index in [0, 2] {
        assert_eq!(arms[index]["enabled"], true);
        let share = arms[index]["allocation"].as_f64().unwrap();
        assert!((share - 0.5).abs() < 1e-12, "{arms}");
    }
    for ended in [false, true] {
        if ended {
            proxy.kill();
            proxy.run();
        }
        assert_eq!(proxy.experiment("stars")["arms"][1]["enabled"], false);
        for _ in 0..30 {
            assert_ne!(decide(&proxy).arm(), "b");
        }
    }
    let written: Vec<_> = journal(&proxy.data())
        .into_iter()
        .filter(|line| line["type"] == "operator")
        .collect();
    assert_eq!(written[0]["order"], "disable");
    assert_eq!(written[0]["arm"], "b");
    assert_eq!(written[0]["reason"], "out of memory");
    let again = ordered(&proxy, "arms/b/enable");
    assert_eq!(again["arms"][1]["enabled"], true);
    assert!(again["arms"][1]["allocation"].as_f64().unwrap() > 0.3);
    eventually("it is drawn again", || {
        (decide(&proxy).arm() == "b").then_some(())
    });
}

#[test]
fn with_no_arm_left_the_baseline_serves_as_a_fallback() {
    let a = Upstream::json("{}");
    let proxy = Proxy::stars("[policy.thompson]\n", &[&a, &a]);
    assert!(ordered(&proxy, "arms/a/disable")["note"].is_null());
    let only = decide(&proxy);
    assert_eq!((only.arm().as_str(), reason(&only)), ("b", "sampled"));
    let none = ordered(&proxy, "arms/b/disable");
    assert!(
        none["note"].as_str().unwrap().contains("fallback"),
        "{none}"
    );
    let answer = decide(&proxy);
    assert_eq!((answer.arm().as_str(), reason(&answer)), ("a", "fallback"));
    assert_eq!(reward(&proxy, &answer.decision()), ["ignored"]);
    assert!(ordered(&proxy, "arms/b/enable")["note"].is_null());
    assert_eq!(reason(&decide(&proxy)), "sampled");
}

#[test]
fn a_paused_experiment_serves_the_baseline_until_it_is_resumed() {
    let a = Upstream::json("{}");
    let mut proxy = Proxy::stars(
        "[policy.fixed]\n# weight a = 0\n# weight b = 1\n",
        &[&a, &a],
    );
    assert_eq!(ordered(&proxy, "pause")["paused"], true);
    for ended in [false, true] {
        if ended {
            proxy.kill();
            proxy.run();
        }
        assert_eq!(proxy.experiment("stars")["paused"], true);
        let answer = decide(&proxy);
        assert_eq!((answer.arm().as_str(), reason(&answer)), ("a", "paused"));
        assert_eq!(reward(&proxy, &answer.decision()), ["ignored"]);
    }
    // A reload is not an operator's word.
    proxy.write_policy(
        "stars",
        &stars(
            "# changed\n[policy.fixed]\n# weight a = 0\n# weight b = 1\n",
            &[&a, &a],
        ),
    );
    assert_eq!(proxy.reload().status, 200);
    assert_eq!(reason(&decide(&proxy)), "paused");
    assert_eq!(ordered(&proxy, "resume")["paused"], false);
    let answer = decide(&proxy);
    assert_eq!((answer.arm().as_str(), reason(&answer)), ("b", "sampled"));
}

#[test]
fn a_reset_arm_begins_anew() {
    let a = Upstream::json("{}");
    let mut proxy = Proxy::stars("[policy.thompson]\n", &[&a]);
    let ids: Vec<String> = (0..3).map(|_| decide(&proxy).decision()).collect();
    assert_eq!(reward(&proxy, &ids[0]), ["accepted"]);
    proxy.rewards("stars", 1.0);
    let fresh = ordered(&proxy, "arms/a/reset")["arms"][0].clone();
    for field in ["decisions", "rewards", "defaults", "failures"] {
        assert_eq!(fresh[field], 0, "{field}");
    }
    assert_eq!(fresh["posterior"]["alpha"], 1.0);
    // Decisions of the same millisecond belong to the past as well.
    std::thread::sleep(std::time::Duration::from_millis(5));
    let new = decide(&proxy).decision();
    for ended in [false, true] {
        if ended {
            proxy.kill();
            proxy.run();
        }
        assert_eq!(reward(&proxy, &ids[0]), ["retired"]);
        assert_eq!(reward(&proxy, &ids[1]), ["retired"]);
        let wanted = if ended { "duplicate" } else { "accepted" };
        assert_eq!(reward(&proxy, &new), [wanted]);
        assert_eq!(proxy.rewards("stars", 1.0), [1.0]);
        eventually("the new decision is counted", || {
            (proxy.arms("stars", "decisions") == [1.0]).then_some(())
        });
    }
}

#[test]
fn orders_are_for_the_admin_alone_and_about_what_there_is() {
    let a = Upstream::json("{}");
    let text = stars("[policy.fixed]\n", &[&a, &a]);
    let mut proxy = Proxy::prepare(&[("stars", &text)], "[auth]\nadmin_token = \"s3cret\"\n");
    proxy.run();
    let bearer = ("authorization", "Bearer s3cret");
    let send = |method: &str, path: &str, headers: &[(&str, &str)], body: &str| {
        let path = format!("/api/v1/experiments/{path}");
        let answer = proxy.admin().send(method, &path, headers, body.as_bytes());
        answer.unwrap().status
    };
    assert_eq!(send("POST", "stars/pause", &[], ""), 401);
    let foreign = [bearer, ("origin", "http://evil.example")];
    assert_eq!(send("POST", "stars/pause", &foreign, ""), 403);
    assert_eq!(send("GET", "stars/pause", &[bearer], ""), 405);
    for path in [
        "moons/pause",
        "stars/arms/z/disable",
        "moons/arms/a/disable",
        "stars/stop",
        "stars/arms/a/pause",
    ] {
        assert_eq!(send("POST", path, &[bearer], ""), 404, "{path}");
    }
    for body in [
        "{",
        "{\"why\": \"x\"}",
        &format!("{{\"reason\": \"{}\"}}", "x".repeat(201)),
    ] {
        assert_eq!(send("POST", "stars/pause", &[bearer], body), 400, "{body}");
    }
    assert_eq!(
        send("POST", "stars/pause", &[bearer], &" ".repeat(5_000)),
        413
    );
    assert_eq!(reason(&decide(&proxy)), "sampled");
    assert_eq!(send("POST", "stars/pause", &[bearer], "{}"), 200);
    assert_eq!(reason(&decide(&proxy)), "paused");
}

#[test]
fn a_metric_that_the_policy_file_names_is_the_reward() {
    let a = Upstream::json("{}");
    let policy = |metric: &str| {
        let policy = format!(
            "[policy.thompson]\n[reward]\nkind = \"real\"\nwindow = \"1h\"\naggregate = \"sum\"\n{metric}"
        );
        stars(&policy, &[&a])
    };
    let mut proxy = Proxy::start(&[("stars", &policy("metric = \"revenue\"\n"))]);
    let id = decide(&proxy).decision();
    let items = json!([
        {"decision_id": id, "metric": "revenue", "reward": 12.5, "id": "x"},
        {"decision_id": id, "metric": "revenue", "reward": 12.5, "id": "x"},
        {"decision_id": id, "metric": "revenue", "reward": 7.5, "id": "y"},
        {"decision_id": id, "metric": "clicks", "reward": 3},
        {"decision_id": id, "reward": 1, "id": "z"},
    ]);
    let answer = proxy.reward(&items.to_string());
    let wanted = ["accepted", "duplicate", "accepted", "accepted", "invalid"];
    assert_eq!(answer.statuses(), wanted);
    assert!(answer.text().contains("learns from the metric revenue"));
    for ended in [false, true] {
        if ended {
            proxy.kill();
            proxy.run();
        }
        proxy.rewards("stars", 1.0);
        assert_eq!(proxy.arms("stars", "reward_sum"), [20.0]);
        let metrics = proxy.experiment("stars")["arms"][0]["metrics"].clone();
        assert_eq!(
            metrics,
            json!({"clicks": {"count": 1, "sum": 3.0, "mean": 3.0}})
        );
        assert_eq!(
            proxy.reward(&items[0].to_string()).statuses(),
            ["duplicate"]
        );
    }
    // Another metric is another meaning: what was earned so far does not count towards it.
    proxy.write_policy("stars", &policy("metric = \"clicks\"\n"));
    assert_eq!(proxy.reload().status, 200);
    assert_eq!(proxy.experiment("stars")["epoch"], 2);
    let old = json!({"decision_id": id, "metric": "clicks", "reward": 1, "id": "x"}).to_string();
    assert_eq!(proxy.reward(&old).statuses(), ["retired"]);
    let new = decide(&proxy).decision();
    let item = json!({"decision_id": new, "metric": "clicks", "reward": 4, "id": "x"}).to_string();
    assert_eq!(proxy.reward(&item).statuses(), ["accepted"]);
    proxy.rewards("stars", 1.0);
    assert_eq!(proxy.arms("stars", "reward_sum"), [4.0]);
}

#[test]
fn named_metrics_are_reported_for_each_arm() {
    let a = Upstream::json("{}");
    let mut proxy = Proxy::stars("[policy.thompson]\n", &[&a]);
    let (first, second) = (decide(&proxy).decision(), decide(&proxy).decision());
    let items = json!([
        {"decision_id": first, "metric": "revenue", "reward": 12.5},
        {"decision_id": first, "metric": "revenue", "reward": 12.5},
        {"decision_id": second, "metric": "revenue", "reward": 7.5},
        {"decision_id": second, "metric": "clicks", "reward": 3},
    ]);
    assert_eq!(
        proxy.reward(&items.to_string()).statuses(),
        ["accepted", "duplicate", "accepted", "accepted"]
    );
    let wanted = json!({
        "revenue": {"count": 2, "sum": 20.0, "mean": 10.0},
        "clicks": {"count": 1, "sum": 3.0, "mean": 3.0},
    });
    for ended in [false, true] {
        if ended {
            proxy.kill();
            proxy.run();
        }
        eventually("the metrics are there", || {
            (proxy.experiment("stars")["arms"][0]["metrics"] == wanted).then_some(())
        });
    }
    assert_eq!(proxy.arms("stars", "rewards"), [0.0]);
    let many: Vec<_> = (0..40)
        .map(|number| json!({"decision_id": first, "metric": format!("m{number}"), "reward": 1}))
        .collect();
    assert_eq!(proxy.reward(&json!(many).to_string()).status, 200);
    eventually("the rest is counted", || {
        let arm = proxy.experiment("stars")["arms"][0].clone();
        (arm["metrics_not_summed"] == 10 && arm["metrics"].as_object().unwrap().len() == 32)
            .then_some(())
    });
}
