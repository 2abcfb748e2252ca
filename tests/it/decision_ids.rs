//! Decision ids that are old, foreign, cut, changed or late: each is answered as what it is.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::harness::Proxy;
use crate::harness::upstream::Upstream;

const KEYS: [&str; 2] = [
    "1111111111111111111111111111111111111111111111111111111111111111",
    "2222222222222222222222222222222222222222222222222222222222222222",
];
const UNITS: &str = "units 3333333333333333333333333333333333333333333333333333333333333333";

fn write_secret(data: &Path, keys: &[&str]) {
    fs::create_dir_all(data).unwrap();
    fs::write(
        data.join("secret"),
        format!("{}\n{UNITS}\n", keys.join("\n")),
    )
    .unwrap();
}

fn decide(proxy: &Proxy) -> String {
    proxy.client().post("/v1/stars", "{}").unwrap().decision()
}

fn post(proxy: &Proxy, id: &str) -> (u16, String, String) {
    let answer = proxy.reward(&json!({"decision_id": id, "reward": 1}).to_string());
    let result = answer.json()["results"][0].clone();
    let text = |field: &str| result[field].as_str().unwrap_or_default().to_owned();
    (answer.status, text("status"), text("error"))
}

#[test]
fn ids_of_an_old_key_count_until_the_key_is_removed() {
    let upstream = Upstream::json("{}");
    let policy = crate::harness::stars("[policy.thompson]\n", &[&upstream]);
    let mut proxy = Proxy::prepare(&[("stars", &policy)], "");
    write_secret(&proxy.data(), &KEYS[..1]);
    proxy.run();
    let (kept, given_up) = (decide(&proxy), decide(&proxy));
    assert_eq!(
        proxy
            .reward(&json!({"decision_id": kept, "reward": 1}).to_string())
            .statuses(),
        ["accepted"]
    );

    proxy.kill();
    write_secret(&proxy.data(), &[KEYS[1], KEYS[0]]);
    proxy.run();
    let old = decide(&proxy);
    assert_eq!(post(&proxy, &kept).1, "duplicate");
    assert_eq!(post(&proxy, &old).1, "accepted");
    let earlier = decide(&proxy);

    proxy.kill();
    write_secret(&proxy.data(), &KEYS[1..]);
    proxy.run();
    for id in [&kept, &given_up] {
        let (status, word, error) = post(&proxy, id);
        assert_eq!((status, word.as_str()), (400, "invalid"));
        assert!(error.contains("not in the secret file"), "{error}");
    }
    assert_eq!(post(&proxy, &old).1, "duplicate");
    assert_eq!(post(&proxy, &earlier).1, "accepted");
    proxy.rewards("stars", 3.0);
}

#[test]
fn what_is_wrong_with_an_id_is_told() {
    let upstream = Upstream::json("{}");
    let policy = "[policy.thompson]\n[reward]\nkind = \"binary\"\nwindow = \"1s\"\n";
    let proxy = Proxy::stars(policy, &[&upstream]);
    let elsewhere = Proxy::stars(policy, &[&upstream]);
    let id = decide(&proxy);
    let mut forged = id.clone();
    let last = if forged.pop() == Some('A') { 'B' } else { 'A' };
    forged.push(last);
    let foreign = decide(&elsewhere);
    for (id, wanted) in [
        (&id[..79], "80 characters, this has 79"),
        (&format!("{id}x"), "80 characters, this has 81"),
        (&id.replacen('E', "!", 1), "is not one of"),
        (&forged, "forged or was changed"),
        (&foreign, "not in the secret file"),
    ] {
        let (status, word, error) = post(&proxy, id);
        assert_eq!((status, word.as_str()), (400, "invalid"), "{id}");
        // One foreign key in 256 has the number of ours.
        assert!(
            error.contains(wanted) || *id == foreign && error.contains("forged"),
            "{id}: {error}"
        );
    }
    // Rewards count for a second after the decision, and are recorded after it.
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    assert_eq!(post(&proxy, &id), (200, "late".to_owned(), String::new()));
    assert_eq!(proxy.arms("stars", "rewards"), [0.0]);
}
