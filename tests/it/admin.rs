//! What people and scrapers see.

use serde_json::json;

use crate::harness::upstream::Upstream;
use crate::harness::{Proxy, eventually, stars};

#[test]
fn metrics_have_their_names_and_bounded_labels() {
    let a = Upstream::json("{}");
    let proxy = Proxy::stars("[policy.thompson]\n", &[&a]);
    let id = proxy.client().post("/v1/stars", "{}").unwrap().decision();
    proxy.reward(&json!({"decision_id": id, "reward": 1}).to_string());
    let wanted = [
        "pointsman_requests_total{experiment=\"stars\",arm=\"a\",code=\"200\"} 1",
        "pointsman_decisions_total{experiment=\"stars\",arm=\"a\",reason=\"sampled\"} 1",
        "pointsman_rewards_total{experiment=\"stars\",arm=\"a\",status=\"accepted\"} 1",
        "pointsman_upstream_request_duration_seconds_count{experiment=\"stars\",arm=\"a\"} 1",
        "pointsman_overhead_seconds_count{experiment=\"stars\"} 1",
        "pointsman_reward_sum{experiment=\"stars\",arm=\"a\"} 1",
        "pointsman_arm_probability_best{experiment=\"stars\",arm=\"a\"} 1",
        "pointsman_arm_allocation{experiment=\"stars\",arm=\"a\"} 1",
        "pointsman_arm_healthy{experiment=\"stars\",arm=\"a\"} 1",
        "pointsman_arm_posterior_mean{experiment=\"stars\",arm=\"a\"} 0.66",
        "pointsman_config_last_reload_successful 1",
        "pointsman_config_last_reload_success_timestamp_seconds ",
        "pointsman_journal_fsync_duration_seconds_count ",
        "pointsman_journal_dropped_total 0",
        "pointsman_build_info{version=",
        "pointsman_learner_lag_seconds ",
    ];
    eventually("every metric is there", || {
        let text = proxy.admin().get("/metrics").unwrap().text();
        wanted.iter().all(|line| text.contains(line)).then_some(())
    });
    assert!(!proxy.admin().get("/metrics").unwrap().text().contains(&id));
}

#[test]
fn experiments_are_listed_and_described() {
    let a = Upstream::json("{}");
    let proxy = Proxy::stars("[policy.thompson]\nfloor = 0.1\n", &[&a, &a]);
    let list = proxy.admin().get("/api/v1/experiments").unwrap().json();
    assert_eq!(list["experiments"][0]["name"], "stars");
    let experiment = proxy.experiment("stars");
    assert_eq!(experiment["policy"]["kind"], "thompson");
    assert_eq!(experiment["epoch"], 1);
    let arm = &experiment["arms"][0];
    let keys = [
        "name",
        "allocation",
        "probability_best",
        "posterior",
        "decisions",
        "rewards",
        "reward_sum",
        "defaults",
        "failures",
        "enabled",
        "healthy",
    ];
    for key in keys {
        assert!(!arm[key].is_null(), "{key} in {arm}");
    }
    assert_eq!(arm["posterior"]["kind"], "beta");
    assert_eq!(
        proxy
            .admin()
            .get("/api/v1/experiments/nope")
            .unwrap()
            .status,
        404
    );
    assert_eq!(proxy.admin().get("/api/v1/nope").unwrap().status, 404);
}

#[test]
fn the_admin_token_guards_what_changes_and_what_is_learned_but_not_metrics() {
    let a = Upstream::json("{}");
    let text = stars("[policy.fixed]\n", &[&a]);
    let mut proxy = Proxy::prepare(&[("stars", &text)], "[auth]\nadmin_token = \"s3cret\"\n");
    proxy.run();
    let get = |path: &str, headers: &[(&str, &str)]| {
        proxy
            .admin()
            .send("GET", path, headers, b"")
            .unwrap()
            .status
    };
    assert_eq!(get("/metrics", &[]), 200);
    assert_eq!(get("/-/healthy", &[]), 200);
    assert_eq!(get("/api/v1/experiments", &[]), 401);
    assert_eq!(
        get("/api/v1/experiments", &[("authorization", "Bearer s3cret")]),
        200
    );
    assert_eq!(proxy.reload().status, 401);
}

#[test]
fn other_sites_cannot_use_somebodys_browser() {
    let a = Upstream::json("{}");
    let proxy = Proxy::stars("[policy.fixed]\n", &[&a]);
    let with = |headers: &[(&str, &str)]| {
        proxy
            .admin()
            .send("POST", "/-/reload", headers, b"")
            .unwrap()
            .status
    };
    assert_eq!(with(&[]), 200);
    assert_eq!(with(&[("origin", "http://evil.example")]), 403);
    let mut rebound = proxy.admin();
    rebound.raw(b"GET /api/v1/experiments HTTP/1.1\r\nhost: evil.example\r\n\r\n");
    assert_eq!(rebound.receive(false).unwrap().status, 403);
}
