//! What survives the end of a process.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::harness::upstream::Upstream;
use crate::harness::{Proxy, eventually};

#[test]
fn the_same_posteriors_after_a_kill_and_nothing_counts_twice() {
    let (a, b) = (Upstream::json("{}"), Upstream::json("{}"));
    let mut proxy = Proxy::stars("[policy.thompson]\n", &[&a, &b]);
    let mut acknowledged = Vec::new();
    for round in 0..4 {
        for value in 0..15 {
            let id = proxy.client().post("/v1/stars", "{}").unwrap().decision();
            let body = json!({"decision_id": id, "reward": value % 2}).to_string();
            assert_eq!(proxy.reward(&body).statuses(), ["accepted"]);
            acknowledged.push(body);
        }
        proxy.rewards("stars", 15.0 * f64::from(round + 1));
        let before = (
            proxy.arms("stars", "reward_sum"),
            proxy.arms("stars", "rewards"),
        );
        let believed = proxy.experiment("stars")["arms"][0]["posterior"].clone();
        proxy.kill();
        proxy.run();
        assert_eq!(
            (
                proxy.arms("stars", "reward_sum"),
                proxy.arms("stars", "rewards")
            ),
            before
        );
        assert_eq!(proxy.experiment("stars")["arms"][0]["posterior"], believed);
        for body in &acknowledged {
            assert_eq!(proxy.reward(body).statuses(), ["duplicate"]);
        }
    }
}

#[test]
fn a_reward_may_come_after_the_restart() {
    let a = Upstream::json("{\"predicted_label\": \"x\"}");
    let policy =
        "[policy.thompson]\n[label]\nprediction = \"/predicted_label\"\ncompare = \"equals\"\n";
    let mut proxy = Proxy::stars(policy, &[&a]);
    let ids: Vec<String> = (0..2)
        .map(|_| proxy.client().post("/v1/stars", "{}").unwrap().decision())
        .collect();
    eventually("the outcomes are in the journal", || {
        let lines = crate::harness::journal(&proxy.data());
        (lines
            .iter()
            .filter(|line| line["type"] == "outcome")
            .count()
            == 2)
            .then_some(())
    });
    proxy.signal("TERM");
    assert_eq!(proxy.wait(), 0);
    proxy.run();
    assert_eq!(
        proxy
            .reward(&json!({"decision_id": ids[0], "label": "x"}).to_string())
            .statuses(),
        ["accepted"]
    );
    assert_eq!(
        proxy
            .reward(&json!({"decision_id": ids[1], "label": "y"}).to_string())
            .statuses(),
        ["accepted"]
    );
    proxy.rewards("stars", 2.0);
    assert_eq!(proxy.arms("stars", "reward_sum"), [1.0]);
}

#[test]
fn a_torn_tail_is_cut_and_the_rest_kept() {
    let a = Upstream::json("{}");
    let mut proxy = Proxy::stars("[policy.thompson]\n", &[&a]);
    let id = proxy.client().post("/v1/stars", "{}").unwrap().decision();
    assert_eq!(
        proxy
            .reward(&json!({"decision_id": id, "reward": 1}).to_string())
            .statuses(),
        ["accepted"]
    );
    proxy.kill();
    let mut segments: Vec<_> = std::fs::read_dir(proxy.data().join("journal"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    segments.retain(|path| path.is_file());
    segments.sort();
    let mut last = OpenOptions::new()
        .append(true)
        .open(segments.last().unwrap())
        .unwrap();
    last.write_all(b"{\"type\":\"reward\",\"v\":1,\"half")
        .unwrap();
    proxy.run();
    assert_eq!(proxy.arms("stars", "rewards"), [1.0]);
    assert!(proxy.log().contains("cut"), "{}", proxy.log());
}

#[test]
fn a_second_process_on_the_same_data_is_refused_and_told_who_holds_it() {
    let a = Upstream::json("{}");
    let proxy = Proxy::stars("[policy.fixed]\n", &[&a]);
    let ports = format!("{}", crate::harness::free_address());
    let output = proxy
        .command()
        .env("POINTSMAN_LISTEN_PROXY", &ports)
        .env(
            "POINTSMAN_LISTEN_ADMIN",
            crate::harness::free_address().to_string(),
        )
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains(&proxy.process_id().to_string()), "{told}");
    assert_eq!(proxy.client().post("/v1/stars", "{}").unwrap().status, 200);
}

#[test]
fn the_secret_is_made_once_and_readable_by_nobody_else() {
    let a = Upstream::json("{}");
    let mut proxy = Proxy::stars("[policy.fixed]\n", &[&a]);
    let path = proxy.data().join("secret");
    let secret = std::fs::read_to_string(&path).unwrap();
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    proxy.kill();
    proxy.run();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), secret);
}
