//! Changing policies while requests flow.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use crate::harness::upstream::Upstream;
use crate::harness::{Proxy, eventually, stars};

fn version(proxy: &Proxy) -> String {
    proxy.experiment("stars")["version"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[test]
fn a_changed_file_is_noticed_and_posteriors_stay() {
    let (a, b) = (Upstream::json("{}"), Upstream::json("{}"));
    let proxy = Proxy::stars("[policy.thompson]\n", &[&a, &b]);
    for _ in 0..10 {
        let id = proxy.client().post("/v1/stars", "{}").unwrap().decision();
        assert_eq!(
            proxy
                .reward(&json!({"decision_id": id, "reward": 1}).to_string())
                .status,
            200
        );
    }
    let before = (proxy.rewards("stars", 10.0), version(&proxy));
    proxy.write_policy(
        "stars",
        &stars("[policy.epsilon_greedy]\nepsilon = 0.2\n", &[&a, &b, &a]),
    );
    eventually("the file is noticed", || {
        (version(&proxy) != before.1).then_some(())
    });
    let experiment = proxy.experiment("stars");
    assert_eq!(experiment["policy"]["kind"], "epsilon_greedy");
    assert_eq!(experiment["epoch"], 1);
    assert_eq!(experiment["last_reload"]["successful"], true);
    let rewards = proxy.arms("stars", "rewards");
    assert_eq!((&rewards[..2], rewards[2]), (&before.0[..], 0.0));
    // An arm that goes and comes back has kept its history.
    proxy.write_policy("stars", &stars("[policy.thompson]\n", &[&a]));
    assert_eq!(proxy.reload().status, 200);
    assert_eq!(proxy.arms("stars", "rewards"), before.0[..1]);
    proxy.write_policy("stars", &stars("[policy.thompson]\n", &[&a, &b]));
    assert_eq!(proxy.reload().status, 200);
    assert_eq!(proxy.arms("stars", "rewards"), before.0);
}

#[test]
fn a_bad_file_changes_nothing_and_says_so_everywhere() {
    let a = Upstream::json("{}");
    let good = stars("[policy.thompson]\n", &[&a]);
    let proxy = Proxy::start(&[("stars", &good)]);
    let before = version(&proxy);
    proxy.write_policy(
        "stars",
        &good.replace("binary", "boolean").replace("window", "widow"),
    );
    let answer = proxy.reload();
    assert_eq!(answer.status, 422, "{answer:?}");
    let errors = answer.json()["errors"].as_array().unwrap().clone();
    assert!(errors.len() >= 2, "{errors:?}");
    assert!(
        errors
            .iter()
            .any(|error| error.as_str().unwrap().contains("widow")),
        "{errors:?}"
    );
    assert_eq!(version(&proxy), before);
    assert_eq!(proxy.client().post("/v1/stars", "{}").unwrap().status, 200);
    let experiment = proxy.experiment("stars");
    assert_eq!(experiment["last_reload"]["successful"], false);
    let metrics = proxy.admin().get("/metrics").unwrap().text();
    assert!(
        metrics.contains("pointsman_config_last_reload_successful 0"),
        "{metrics}"
    );
    assert!(proxy.log().contains("widow"));
    proxy.write_policy("stars", &good);
    assert_eq!(proxy.reload().status, 200);
    let metrics = proxy.admin().get("/metrics").unwrap().text();
    assert!(
        metrics.contains("pointsman_config_last_reload_successful 1"),
        "{metrics}"
    );
}

#[test]
fn a_new_meaning_of_rewards_starts_a_new_epoch() {
    let a = Upstream::json("{}");
    let proxy = Proxy::stars("[policy.thompson]\n", &[&a]);
    let decide = || proxy.client().post("/v1/stars", "{}").unwrap().decision();
    let post = |id: &str| {
        proxy
            .reward(&json!({"decision_id": id, "reward": 1}).to_string())
            .statuses()
            .remove(0)
    };
    let old = decide();
    assert_eq!(post(&decide()), "accepted");
    let bounded =
        "[policy.thompson]\n[reward]\nkind = \"bounded\"\nmin = 0\nmax = 2\nwindow = \"1h\"\n";
    proxy.write_policy("stars", &stars(bounded, &[&a]));
    assert_eq!(proxy.reload().status, 200);
    assert_eq!(proxy.experiment("stars")["epoch"], 2);
    assert_eq!(proxy.arms("stars", "rewards"), [0.0]);
    assert_eq!(post(&old), "retired");
    assert_eq!(post(&decide()), "accepted");
    proxy.write_policy("stars", &format!("epoch = 7\n{}", stars(bounded, &[&a])));
    assert_eq!(proxy.reload().status, 200);
    assert_eq!(proxy.experiment("stars")["epoch"], 7);
    assert_eq!(proxy.arms("stars", "rewards"), [0.0]);
    // After another meaning the number runs ahead of the file's; raising the file's still starts anew.
    let wider = bounded.replace("max = 2", "max = 3");
    proxy.write_policy("stars", &format!("epoch = 7\n{}", stars(&wider, &[&a])));
    assert_eq!(proxy.reload().status, 200);
    assert_eq!(proxy.experiment("stars")["epoch"], 8);
    proxy.write_policy("stars", &format!("epoch = 8\n{}", stars(&wider, &[&a])));
    assert_eq!(proxy.reload().status, 200);
    assert_eq!(proxy.experiment("stars")["epoch"], 9);
}

#[test]
fn files_come_and_go_and_sighup_reloads() {
    let a = Upstream::json("{}");
    let proxy = Proxy::stars("[policy.fixed]\n", &[&a]);
    let second = stars("[policy.fixed]\n", &[&a]).replace("/v1/stars", "/v2/stars");
    proxy.write_policy("second", &second);
    proxy.signal("HUP");
    eventually("the new file serves", || {
        (proxy.client().post("/v2/stars", "{}").unwrap().status == 200).then_some(())
    });
    let id = proxy.client().post("/v2/stars", "{}").unwrap().decision();
    fs::remove_file(proxy.policies().join("second.toml")).unwrap();
    eventually("the file is gone", || {
        (proxy.client().post("/v2/stars", "{}").unwrap().status == 404).then_some(())
    });
    let answer = proxy.reward(&json!({"decision_id": id, "reward": 1}).to_string());
    assert_eq!(answer.statuses(), ["retired"]);
}

#[test]
fn what_was_given_up_with_its_file_does_not_count_when_the_file_returns() {
    let a = Upstream::json("{}");
    let policy = "[policy.thompson]\n[reward]\nkind = \"binary\"\nwindow = \"4s\"\ndefault = 0\n";
    let proxy = Proxy::stars(policy, &[&a]);
    let text = stars(policy, &[&a]);
    let decide = || proxy.client().post("/v1/stars", "{}").unwrap().decision();
    let post = |id: &str| {
        let body = json!({"decision_id": id, "reward": 1}).to_string();
        proxy.reward(&body).statuses().remove(0)
    };
    let before: Vec<String> = (0..4).map(|_| decide()).collect();
    eventually("the decisions are in the journal", || {
        (proxy.arms("stars", "decisions") == [4.0]).then_some(())
    });
    fs::remove_file(proxy.policies().join("stars.toml")).unwrap();
    assert_eq!(proxy.reload().status, 200);
    proxy.write_policy("stars", &text);
    assert_eq!(proxy.reload().status, 200);
    assert!(before.iter().all(|id| post(id) == "retired"));
    assert_eq!(post(&decide()), "accepted");
    let _unrewarded = decide();
    eventually("the window has closed", || {
        (proxy.arms("stars", "defaults") == [1.0]).then_some(())
    });
    assert_eq!(proxy.arms("stars", "rewards"), [1.0]);
}

#[test]
fn a_config_map_swap_is_noticed_each_time() {
    let a = Upstream::json("{}");
    let text = |round: usize| {
        format!(
            "description = \"round {round}\"\n{}",
            stars("[policy.fixed]\n", &[&a])
        )
    };
    let mut proxy = Proxy::prepare(&[], "");
    let folder = proxy.policies();
    let publish = |round: usize| {
        let name = format!("..round-{round}");
        fs::create_dir(folder.join(&name)).unwrap();
        fs::write(folder.join(&name).join("stars.toml"), text(round)).unwrap();
        symlink(&name, folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    };
    publish(0);
    symlink("..data/stars.toml", folder.join("stars.toml")).unwrap();
    proxy.run();
    for round in 1..4 {
        publish(round);
        let wanted = json!(format!("round {round}"));
        eventually("the swap is noticed", || {
            (proxy.experiment("stars")["description"] == wanted).then_some(())
        });
    }
}

#[test]
fn no_request_fails_while_policies_change() {
    let a = Upstream::json("{}");
    let proxy = Proxy::stars("[policy.fixed]\n", &[&a]);
    std::thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            let mut client = proxy.client();
            (0..2_000)
                .filter(|_| client.post("/v1/stars", "{}").unwrap().status != 200)
                .count()
        });
        for round in 0..20 {
            let text = format!(
                "description = \"{round}\"\n{}",
                stars("[policy.fixed]\n", &[&a])
            );
            proxy.write_policy("stars", &text);
            assert_eq!(proxy.reload().status, 200);
        }
        assert_eq!(traffic.join().unwrap(), 0);
    });
}
