//! `pointsman inspect` on the journal of a running server.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::harness::upstream::Upstream;
use crate::harness::{Proxy, eventually};

/// A decision as its client saw it.
struct Seen {
    id: String,
    arm: String,
    /// Told by the decision API; a proxied response has it in the id alone.
    propensity: Option<f64>,
}

fn inspect(proxy: &Proxy, id: &str, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(["inspect", id, "--config"])
        .arg(proxy.directory.path().join("pointsman.toml"))
        .args(more)
        .output()
        .unwrap()
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Decides 200 times, mostly through the proxy and for one of 40 units, and rewards what arm `b` did.
fn decide(proxy: &Proxy) -> Vec<Seen> {
    let mut client = proxy.client();
    let mut seen = Vec::new();
    for round in 0..200 {
        let unit = format!("user-{}", round % 40);
        let decision = if round % 20 == 0 {
            let body = json!({"experiment": "stars", "unit": unit}).to_string();
            let answer = client.post("/-/decisions", &body).unwrap().json();
            Seen {
                id: answer["decision_id"].as_str().unwrap().to_owned(),
                arm: answer["arm"].as_str().unwrap().to_owned(),
                propensity: answer["propensity"].as_f64(),
            }
        } else {
            let category = ["clothing", "movies", "books"][round % 3];
            let headers = [("x-user-id", unit.as_str()), ("x-category", category)];
            let answer = client.send("POST", "/v1/stars", &headers, b"{}").unwrap();
            Seen {
                id: answer.decision(),
                arm: answer.arm(),
                propensity: None,
            }
        };
        let reward = u8::from(decision.arm == "b");
        let body = json!({"decision_id": decision.id, "reward": reward}).to_string();
        assert_eq!(proxy.reward(&body).statuses(), ["accepted"]);
        seen.push(decision);
    }
    seen
}

/// Every tenth decision comes out as it was told, while the server runs and nothing in its data directory changes.
fn every_tenth_holds(policy: &str, sticky: bool) {
    let upstream = Upstream::json("{}");
    let proxy = Proxy::stars(policy, &[&upstream, &upstream, &upstream]);
    let seen = decide(&proxy);
    let mut propensities = Vec::new();
    for decision in seen.iter().step_by(10) {
        // The decision is in the journal since its reward was accepted; of a proxied one the outcome may follow.
        let output = eventually("the outcome is in the journal", || {
            let output = inspect(&proxy, &decision.id, &["--format", "json"]);
            assert_eq!(output.status.code(), Some(0), "{output:?}");
            let complete = decision.propensity.is_some() || !report(&output)["outcome"].is_null();
            complete.then_some(output)
        });
        let report = report(&output);
        assert_eq!(report["ok"], true);
        assert_eq!(report["problems"], json!([]));
        assert_eq!(report["decision"]["arm"], decision.arm);
        assert_eq!(report["draw"]["arm"], decision.arm);
        assert_eq!(
            report["draw"]["propensity"],
            report["decision"]["propensity"]
        );
        if let Some(told) = decision.propensity {
            assert_eq!(report["draw"]["propensity"], told);
        }
        assert_eq!(report["record"]["unit"].is_string(), sticky, "{report}");
        assert_eq!(report["draw"]["uniform"].is_null(), sticky, "{report}");
        let source = if policy.contains("[context.") {
            "context"
        } else {
            "allocation"
        };
        assert_eq!(report["draw"]["source"], source);
        assert_eq!(report["rewards"][0]["status"], "accepted");
        propensities.push(report["draw"]["propensity"].to_string());
    }
    propensities.sort();
    propensities.dedup();
    assert!(
        propensities.len() > 3,
        "nothing was learned: {propensities:?}"
    );
}

#[test]
fn decisions_under_thompson_come_out_as_they_were_told() {
    every_tenth_holds("[policy.thompson]\n", false);
}

#[test]
fn sticky_decisions_come_out_as_they_were_told() {
    let policy = "[policy.thompson]\n[unit]\nheader = \"x-user-id\"\nreallocate = \"1ms\"\n";
    every_tenth_holds(policy, true);
}

const CATEGORY: &str = "[context.category]\ntype = \"category\"\nheader = \"x-category\"\nvalues = [\"clothing\", \"movies\"]\n";

/// Drawn from the probabilities in the decision's own record, with a unit and without.
#[test]
fn contextual_decisions_come_out_as_they_were_told() {
    every_tenth_holds(&format!("[policy.lin_thompson]\n{CATEGORY}"), false);
    let unit = "[unit]\nheader = \"x-user-id\"\nreallocate = \"1ms\"\n";
    every_tenth_holds(&format!("[policy.square_cb]\n{CATEGORY}{unit}"), true);
}

fn files(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn forged_and_foreign_ids_exit_with_1_and_say_why() {
    let upstream = Upstream::json("{}");
    let mut proxy = Proxy::stars("[policy.fixed]\n", &[&upstream, &upstream]);
    let id = proxy.client().post("/v1/stars", "{}").unwrap().decision();
    eventually("the decision is in the journal", || {
        let output = inspect(&proxy, &id, &[]);
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.code() == Some(0)).then(|| assert!(text.contains("\nok  "), "{text}"))
    });
    let last = if id.ends_with('A') { 'B' } else { 'A' };
    let forged = format!("{}{last}", &id[..79]);
    let output = inspect(&proxy, &forged, &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("signature    FORGED\n"), "{text}");
    assert!(
        text.contains("\nnot ok       the id is forged or was changed"),
        "{text}"
    );
    assert!(!text.contains('\x1b'), "{text}");
    for nonsense in ["x", "--no-id", ""] {
        let output = inspect(&proxy, nonsense, &[]);
        assert_eq!(output.status.code(), Some(1), "{nonsense}: {output:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.starts_with("error: not a decision id: "), "{text}");
        assert_eq!(text.matches("has 80 characters").count(), 1, "{text}");
    }

    // Another installation knows neither the key nor the decision, and one that never ran has no journal.
    let other = Proxy::stars("[policy.fixed]\n", &[&upstream, &upstream]);
    let output = inspect(&other, &id, &["--format", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let problems = report(&output)["problems"].clone();
    let codes: Vec<&Value> = problems
        .as_array()
        .unwrap()
        .iter()
        .map(|problem| &problem["code"])
        .collect();
    // One foreign key in 256 bears the number of ours.
    assert!(
        codes[0] == "unknown_key" || codes[0] == "forged",
        "{codes:?}"
    );
    assert_eq!(codes[1], "not_in_journal");
    let data = other.directory.path().join("nowhere").display().to_string();
    let output = inspect(&other, &id, &["--data", &data]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("no journal in") && text.contains("--data"),
        "{text}"
    );
    assert!(!Path::new(&data).exists());

    // A server that is stopped: nothing appears that was not there.
    proxy.kill();
    let before = files(&proxy.data());
    assert_eq!(inspect(&proxy, &id, &[]).status.code(), Some(0));
    assert_eq!(files(&proxy.data()), before);
}
