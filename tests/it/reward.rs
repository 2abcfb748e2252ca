//! What a posted reward does, and what is answered.

use std::io::Write;

use serde_json::{Value, json};

use crate::harness::upstream::Upstream;
use crate::harness::{Proxy, eventually};

fn decide(proxy: &Proxy) -> (String, String) {
    let answer = proxy.client().post("/v1/stars", "{}").unwrap();
    (answer.decision(), answer.arm())
}

fn reward(id: &str, value: impl Into<Value>) -> String {
    json!({"decision_id": id, "reward": value.into()}).to_string()
}

#[test]
fn a_reward_counts_once_and_moves_the_posterior() {
    let a = Upstream::json("{}");
    let proxy = Proxy::stars("[policy.thompson]\n", &[&a, &a]);
    let before = proxy.arms("stars", "allocation");
    assert!(before.iter().all(|share| (share - 0.5).abs() < 1e-12));
    let (id, arm) = decide(&proxy);
    assert_eq!(proxy.reward(&reward(&id, 1.0)).statuses(), ["accepted"]);
    assert_eq!(proxy.reward(&reward(&id, 1.0)).statuses(), ["duplicate"]);
    let index = usize::from(arm == "b");
    // Beta(2, 1) against Beta(1, 1): P(best) = 2/3; floor 0.01 for two arms.
    let wanted = 0.01 + 0.98 * (2.0 / 3.0);
    eventually("the snapshot follows", || {
        ((proxy.arms("stars", "allocation")[index] - wanted).abs() < 1e-6).then_some(())
    });
    assert_eq!(proxy.arms("stars", "rewards")[index], 1.0);
    assert_eq!(proxy.arms("stars", "reward_sum").iter().sum::<f64>(), 1.0);
    let best = proxy.arms("stars", "probability_best");
    assert!((best[index] - 2.0 / 3.0).abs() < 1e-6, "{best:?}");
}

#[test]
fn batches_are_arrays_or_lines_and_are_judged_item_by_item() {
    let a = Upstream::json("{}");
    let proxy = Proxy::stars("[policy.thompson]\n", &[&a, &a]);
    let ids: Vec<String> = (0..4).map(|_| decide(&proxy).0).collect();
    let item = |id: &str| json!({"decision_id": id, "reward": 1});
    let array = json!([item(&ids[0]), item(&ids[1]), item(&ids[0])]).to_string();
    let answer = proxy.reward(&array);
    assert_eq!(
        (answer.status, answer.statuses()),
        (
            200,
            vec!["accepted".into(), "accepted".into(), "duplicate".into()]
        )
    );
    let lines = format!(
        "{}\n{}\n",
        item(&ids[2]),
        json!({"decision_id": ids[3], "reward": "1"})
    );
    let content_type = [("content-type", "application/x-ndjson")];
    let answer = proxy
        .client()
        .send("POST", "/-/rewards", &content_type, lines.as_bytes())
        .unwrap();
    assert_eq!(
        (answer.status, answer.statuses()),
        (207, vec!["accepted".into(), "invalid".into()])
    );
    assert!(
        answer.json()["results"][1]["error"]
            .as_str()
            .unwrap()
            .contains("reward"),
        "{answer:?}"
    );
    assert_eq!(proxy.reward(&reward(&ids[3], 0)).statuses(), ["accepted"]);
}

#[test]
fn bad_rewards_are_refused_and_change_nothing() {
    let a = Upstream::json("{}");
    let proxy = Proxy::stars("[policy.thompson]\n", &[&a, &a]);
    let other = Proxy::stars("[policy.thompson]\n", &[&a, &a]);
    let (id, _) = decide(&proxy);
    let mut forged = id.clone().into_bytes();
    forged[20] = if forged[20] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).unwrap();
    let bodies = [
        String::new(),
        "[]".into(),
        "nonsense".into(),
        "{".into(),
        "{}".into(),
        reward(&id, 0.5),
        reward(&id, true),
        reward(&id, "1"),
        reward(&id, Value::Null),
        format!("{{\"decision_id\": \"{id}\", \"reward\": 1e999}}"),
        format!("{{\"decision_id\": \"{id}\", \"reward\": NaN}}"),
        reward(&forged, 1),
        reward(&id[..60], 1),
        reward("", 1),
        reward(&decide(&other).0, 1),
        json!({"decision_id": id, "rewards": 1}).to_string(),
        json!({"decision_id": id, "reward": 1, "label": 5}).to_string(),
        json!({"decision_id": id, "reward": 1, "at": "yesterday"}).to_string(),
        json!({"decision_id": id, "reward": 1, "id": "x".repeat(200)}).to_string(),
        json!({"decision_id": id, "label": 5}).to_string(),
        format!("{}{}", "[".repeat(5_000), "]".repeat(5_000)),
    ];
    for body in &bodies {
        let answer = proxy.reward(body);
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
    }
    assert_eq!(proxy.arms("stars", "rewards"), [0.0, 0.0]);
    assert_eq!(proxy.reward(&reward(&id, 1)).statuses(), ["accepted"]);
    let large = format!("[{}]", vec![reward(&id, 1); 60_000].join(","));
    assert_eq!(proxy.reward(&large).status, 413);
    assert_eq!(proxy.client().get("/-/rewards").unwrap().status, 405);
}

#[test]
fn late_rewards_are_told_so() {
    let a = Upstream::json("{}");
    let proxy = Proxy::stars(
        "[policy.thompson]\n[reward]\nkind = \"binary\"\nwindow = \"1s\"\n",
        &[&a, &a],
    );
    let (id, _) = decide(&proxy);
    std::thread::sleep(std::time::Duration::from_millis(1_200));
    assert_eq!(proxy.reward(&reward(&id, 1)).statuses(), ["late"]);
    assert_eq!(proxy.arms("stars", "rewards"), [0.0, 0.0]);
}

#[test]
fn labels_are_scored_against_the_prediction() {
    let right = Upstream::json(
        "{\"predicted_label\": 5, \"probabilities\": [0.1, 0.9]}\n{\"predicted_label\": 1}\n",
    );
    let wrong = Upstream::json("{\"predicted_label\": 2}");
    let policy =
        "[policy.thompson]\n[label]\nprediction = \"/predicted_label\"\ncompare = \"equals\"\n";
    let proxy = Proxy::stars(policy, &[&right, &wrong]);
    let mut sums = [0.0, 0.0];
    for _ in 0..20 {
        let (id, arm) = decide(&proxy);
        let answer = proxy.reward(&json!({"decision_id": id, "label": 5.0}).to_string());
        assert_eq!(answer.statuses(), ["accepted"], "{answer:?}");
        sums[usize::from(arm == "b")] += f64::from(u8::from(arm == "a"));
    }
    proxy.rewards("stars", 20.0);
    assert_eq!(proxy.arms("stars", "reward_sum"), sums);
    assert_eq!(
        right.received()[0].header("accept-encoding"),
        Some("identity")
    );
}

#[test]
fn labels_are_scored_as_the_policy_file_says() {
    let four = Upstream::json("{\"stars\": [{\"label\": 4}]}");
    let scored = |rule: &str, labels: &[(Value, &str, Option<f64>)]| {
        let policy = format!("[policy.thompson]\n[label]\nprediction = \"/stars/0/label\"\n{rule}");
        let proxy = Proxy::stars(&policy, &[&four]);
        let mut sum = 0.0;
        for (label, status, value) in labels {
            let body = json!({"decision_id": decide(&proxy).0, "label": label}).to_string();
            assert_eq!(proxy.reward(&body).statuses(), [*status], "{rule} {label}");
            sum += value.unwrap_or(0.0);
        }
        let counted = labels.iter().filter(|label| label.2.is_some()).count();
        proxy.rewards("stars", counted as f64);
        assert_eq!(proxy.arms("stars", "reward_sum"), [sum], "{rule}");
    };
    scored(
        "compare = { within = 1 }\n",
        &[
            (json!(5), "accepted", Some(1.0)),
            (json!(2.5), "accepted", Some(0.0)),
            (json!("4"), "invalid", None),
        ],
    );
    scored(
        "compare = \"absolute_error\"\n[reward]\nkind = \"bounded\"\nmin = 1\nmax = 5\nwindow = \"1h\"\n",
        &[
            (json!(4), "accepted", Some(5.0)),
            (json!(2.5), "accepted", Some(3.5)),
            (json!(100), "accepted", Some(1.0)),
            (json!(true), "invalid", None),
        ],
    );
}

/// Up to the limit a response is looked into, and beyond it none is: it passes all the same, as it comes.
#[test]
fn responses_are_looked_into_up_to_a_limit_and_not_delayed() {
    let (hold, release) = std::sync::mpsc::channel::<()>();
    let release = std::sync::Mutex::new(release);
    let upstream = Upstream::behaving(move |request, stream| {
        let padding = "x".repeat(if request.body == b"long" { 300 } else { 0 });
        let rest = format!("5, \"padding\": \"{padding}\"}}");
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\n{\"label\":\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        release.lock().unwrap().recv().unwrap();
        let chunk = format!("{:x}\r\n{rest}\r\n0\r\n\r\n", rest.len());
        stream.write_all(chunk.as_bytes()).is_ok()
    });
    let policy = "[policy.fixed]\n[label]\nprediction = \"/label\"\n";
    let text = crate::harness::stars(policy, &[&upstream]);
    let mut proxy = Proxy::prepare(&[("stars", &text)], "[limits]\nlabel_response = 200\n");
    proxy.run();
    for (body, status) in [("short", "accepted"), ("long", "unscored")] {
        let mut client = proxy.client();
        let length = body.len();
        let request =
            format!("POST /v1/stars HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n{body}");
        client.raw(request.as_bytes());
        let (_, headers) = client.receive_head().unwrap();
        // The arm has not sent the label yet, and what it has sent is here.
        assert_eq!(client.receive_chunk().unwrap(), b"{\"label\":");
        hold.send(()).unwrap();
        while client.receive_chunk().is_some() {}
        let id = headers
            .iter()
            .find(|(name, _)| name == "x-pointsman-decision");
        let label = json!({"decision_id": id.unwrap().1, "label": 5}).to_string();
        assert_eq!(proxy.reward(&label).statuses(), [status], "{body}");
    }
    proxy.rewards("stars", 1.0);
}

#[test]
fn one_of_fifty_concurrent_posts_of_a_reward_counts() {
    let a = Upstream::json("{}");
    let proxy = Proxy::stars("[policy.thompson]\n", &[&a, &a]);
    let (id, _) = decide(&proxy);
    let body = reward(&id, 1);
    let statuses: Vec<String> = std::thread::scope(|scope| {
        let posts: Vec<_> = (0..50)
            .map(|_| scope.spawn(|| proxy.reward(&body).statuses().remove(0)))
            .collect();
        posts.into_iter().map(|post| post.join().unwrap()).collect()
    });
    assert_eq!(
        statuses
            .iter()
            .filter(|status| *status == "accepted")
            .count(),
        1
    );
    assert_eq!(
        statuses
            .iter()
            .filter(|status| *status == "duplicate")
            .count(),
        49
    );
    proxy.rewards("stars", 1.0);
}

#[test]
fn the_client_token_guards_rewards_and_decisions() {
    let a = Upstream::json("{}");
    let text = crate::harness::stars("[policy.thompson]\n", &[&a, &a]);
    let mut proxy = Proxy::prepare(
        &[("stars", &text)],
        "[auth]\nclient_token = \"let-me-in\"\n",
    );
    proxy.run();
    let (id, _) = decide(&proxy);
    let refused = proxy.reward(&reward(&id, 1));
    assert_eq!(
        (refused.status, refused.header("www-authenticate")),
        (401, Some("Bearer"))
    );
    let post = |token: &str| {
        proxy
            .client()
            .send(
                "POST",
                "/-/rewards",
                &[("authorization", token)],
                reward(&id, 1).as_bytes(),
            )
            .unwrap()
            .status
    };
    assert_eq!(post("Bearer wrong"), 401);
    assert_eq!(post("Bearer let-me-in"), 200);
    assert_eq!(
        proxy
            .client()
            .post("/-/decisions", "{\"experiment\": \"stars\"}")
            .unwrap()
            .status,
        401
    );
}

#[test]
fn bounded_and_real_rewards_have_their_own_posteriors() {
    let a = Upstream::json("{}");
    let bounded =
        "[policy.thompson]\n[reward]\nkind = \"bounded\"\nmin = 1\nmax = 5\nwindow = \"1h\"\n";
    let proxy = Proxy::stars(bounded, &[&a, &a]);
    let (id, arm) = decide(&proxy);
    assert_eq!(proxy.reward(&reward(&id, 5.5)).status, 400);
    assert_eq!(proxy.reward(&reward(&id, 4)).statuses(), ["accepted"]);
    eventually("the posterior has it", || {
        let experiment = proxy.experiment("stars");
        let posterior = &experiment["arms"][usize::from(arm == "b")]["posterior"];
        (posterior["kind"] == "beta"
            && posterior["alpha"] == json!(1.75)
            && posterior["beta"] == json!(1.25))
        .then_some(())
    });
    let real = "[policy.thompson]\n[reward]\nkind = \"real\"\nwindow = \"1h\"\n";
    let proxy = Proxy::stars(real, &[&a, &a]);
    let (id, arm) = decide(&proxy);
    assert_eq!(proxy.reward(&reward(&id, -12.5)).statuses(), ["accepted"]);
    eventually("the posterior has it", || {
        let arm = &proxy.experiment("stars")["arms"][usize::from(arm == "b")];
        (arm["posterior"]["kind"] == "student_t" && arm["reward_sum"] == json!(-12.5)).then_some(())
    });
}
