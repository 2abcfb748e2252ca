//! `pointsman export` of the journal of a server, and what other tools make of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::harness::upstream::Upstream;
use crate::harness::{Proxy, eventually, python};

fn command(data: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
    command.args(["export", "--data"]).arg(data).args(more);
    command
}

fn export(data: &Path, more: &[&str]) -> Output {
    command(data, more).output().unwrap()
}

fn rows(data: &Path, more: &[&str]) -> Vec<Value> {
    let output = export(data, &[&["--format", "jsonl"], more].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// What a client saw: arm and reward by decision id.
type Seen = BTreeMap<String, (String, Option<f64>)>;

const CONTEXTUAL: &str = "[policy.lin_thompson]\n[context.category]\ntype = \"category\"\nheader = \"x-category\"\nvalues = [\"clothing\", \"movies\"]\n";

/// Arm `b` is right for movies, arm `a` for the rest. Every fifth decision is not rewarded.
fn traffic(proxy: &Proxy, rounds: usize) -> Seen {
    let mut client = proxy.client();
    let mut seen = Seen::new();
    for round in 0..rounds {
        let category = ["clothing", "movies"][round % 2];
        let headers = [("x-category", category)];
        let answer = client.send("POST", "/v1/stars", &headers, b"{}").unwrap();
        let right = (answer.arm() == "b") == (category == "movies");
        let reward = (round % 5 != 4).then(|| f64::from(u8::from(right)));
        if let Some(reward) = reward {
            let body = json!({"decision_id": answer.decision(), "reward": reward}).to_string();
            assert_eq!(proxy.reward(&body).statuses(), ["accepted"]);
        }
        seen.insert(answer.decision(), (answer.arm(), reward));
    }
    seen
}

fn served() -> (Proxy, Seen) {
    let upstream = Upstream::json("{}");
    let proxy = Proxy::stars(CONTEXTUAL, &[&upstream, &upstream]);
    let seen = traffic(&proxy, 400);
    eventually("all is in the journal", || {
        let rows = rows(&proxy.data(), &[]);
        let ended = rows.iter().filter(|row| !row["ending"].is_null()).count();
        (ended == 400).then_some(())
    });
    (proxy, seen)
}

/// While the server runs.
#[test]
fn rows_are_what_the_clients_saw() {
    let (proxy, seen) = served();
    let data = proxy.data();
    let all = rows(&data, &[]);
    assert_eq!(all.len(), seen.len());
    for row in &all {
        let (arm, reward) = &seen[row["decision_id"].as_str().unwrap()];
        assert_eq!(row["arm"], **arm);
        assert_eq!(row["reward"].as_f64(), *reward);
        assert_eq!(row["status"], 200);
        assert_eq!(row["experiment"], "stars");
        let drawn_with = row["probabilities"][arm].as_f64().unwrap();
        assert_eq!(row["propensity"].as_f64(), Some(drawn_with));
        assert!(row["context"]["category"].is_string(), "{row}");
    }
    assert_eq!(rows(&data, &["--reason", "sampled"]).len(), all.len());
    assert_eq!(rows(&data, &["--since", "1h"]).len(), all.len());
    assert_eq!(rows(&data, &["--until", "1h"]).len(), 0);
    let middle = all[200]["at"].as_str().unwrap();
    let (before, after) = (
        rows(&data, &["--until", middle]),
        rows(&data, &["--since", middle]),
    );
    assert_eq!(before.len() + after.len(), all.len());
    assert_eq!(rows(&data, &["--experiment", "stars"]).len(), all.len());

    let output = export(&data, &["--format", "csv"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 401);
    assert!(
        text.lines()
            .next()
            .unwrap()
            .ends_with(",probabilities,context,context.category")
    );
    assert_eq!(text.matches(",movies\n").count(), 200);
}

#[test]
fn files_are_written_whole_and_not_over_others() {
    let (proxy, _) = served();
    let data = proxy.data();
    let out = proxy.directory.path().join("out");
    let folder = out.to_str().unwrap();
    let arguments = ["--format", "csv", "--out", folder];
    let output = export(&data, &arguments);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stdout.is_empty());
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.starts_with("400 rows: ") && told.trim_end().ends_with("stars.csv"),
        "{told}"
    );
    let names = || -> Vec<String> {
        let entries = fs::read_dir(&out).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    };
    assert_eq!(names(), ["stars.csv"]);

    fs::write(out.join("stars.csv"), "precious").unwrap();
    let output = export(&data, &arguments);
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("stars.csv is there: use --force"), "{told}");
    assert_eq!(
        fs::read_to_string(out.join("stars.csv")).unwrap(),
        "precious"
    );
    assert_eq!(names(), ["stars.csv"]);
    let output = export(&data, &[&arguments[..], &["--force"]].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = fs::read_to_string(out.join("stars.csv")).unwrap();
    assert_eq!(text.lines().count(), 401);
}

#[test]
fn what_is_wrong_is_told() {
    let (proxy, _) = served();
    let data = proxy.data();
    for (arguments, code, words) in [
        (&["--format", "xml"][..], 64, "xml"),
        (
            &["--format", "csv", "--since", "yesterday"],
            64,
            "how long ago",
        ),
        (
            &["--format", "csv", "--since", "1h", "--until", "2h"],
            64,
            "--until",
        ),
        (
            &["--format", "csv", "--experiment", "not/a/name"],
            64,
            "a name is",
        ),
        (
            &["--format", "csv", "--experiment", "star"],
            1,
            "it has stars",
        ),
        (&["--format", "parquet"], 64, "--out"),
    ] {
        let output = export(&data, arguments);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {told}");
        assert!(told.contains(words), "{arguments:?}: {told}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
    if !cfg!(feature = "parquet") {
        let folder = proxy.directory.path().join("parquet");
        let output = export(
            &data,
            &["--format", "parquet", "--out", folder.to_str().unwrap()],
        );
        assert_eq!(output.status.code(), Some(1));
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains("--features parquet"), "{told}");
        assert!(!folder.exists());
    }
    let output = export(&data.join("nowhere"), &["--format", "csv"]);
    assert_eq!(output.status.code(), Some(1));

    // A reader that has had enough: no error, no panic.
    let mut child = command(&data, &["--format", "jsonl"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut reader = BufReader::with_capacity(64, child.stdout.take().unwrap());
    reader.read_line(&mut line).unwrap();
    drop(reader);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

/// Scores every arm alike without learning, which shows how costs, probabilities and actions were read: then the mean loss is that of
/// cost / (arms × propensity). Then learns in one pass, and says which arm it likes best for each category.
const LEARN: &str = r#"
import json, sys
from vowpalwabbit import pyvw

path = sys.argv[1]
even = pyvw.Workspace("--dsjson --cb_explore_adf --cb_type ips --epsilon 1.0 --quiet -t -d " + path)
examples, loss = even.get_weighted_examples(), even.get_sum_loss()
even.finish()

model, predictions = path + ".model", path + ".predictions"
learner = pyvw.Workspace("--dsjson --cb_explore_adf --cb_type mtr --epsilon 0.05 -q CA --quiet -f " + model + " -d " + path)
learned = learner.get_weighted_examples()
learner.finish()
pyvw.Workspace("--dsjson --quiet -t -i " + model + " -p " + predictions + " -d " + path).finish()
best = {}
likes = [line for line in open(predictions) if line.strip()]
for line, liked in zip(open(path), likes, strict=True):
    asked = json.loads(line)["c"]
    arm = asked["_multi"][int(liked.split(":")[0])]["Arm"]["id"]
    best.setdefault(asked["Context"]["category"], set()).add(arm)
best = {category: sorted(arms) for category, arms in best.items()}
print(json.dumps({"examples": examples, "loss": loss, "learned": learned, "best": best}))
"#;

#[test]
fn vowpal_wabbit_learns_from_it() {
    let (proxy, seen) = served();
    let out = proxy.directory.path().join("out");
    let arguments = ["--format", "dsjson", "--out", out.to_str().unwrap()];
    let output = export(&proxy.data(), &arguments);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("left out: 80 decisions"), "{told}");

    let python = python::with(&["vowpalwabbit==9.11.9"]);
    let printed = python.run(LEARN, &out.join("stars.dsjson"));
    let report: Value = serde_json::from_str(printed.lines().last().unwrap()).unwrap();
    let rewarded = seen.values().filter(|(_, reward)| reward.is_some()).count();
    assert_eq!(rewarded, 320);
    assert_eq!(report["examples"], 320.0);
    assert_eq!(report["learned"], 320.0);
    let expected: f64 = rows(&proxy.data(), &[])
        .iter()
        .filter_map(|row| {
            let cost = -row["reward"].as_f64()?;
            Some(cost / (2.0 * row["propensity"].as_f64()?))
        })
        .sum();
    let loss = report["loss"].as_f64().unwrap();
    // It computes in single precision.
    assert!(
        (loss - expected).abs() < 1e-4 * expected.abs(),
        "{loss} {expected}"
    );
    assert_eq!(report["best"], json!({"clothing": ["a"], "movies": ["b"]}));
}

#[cfg(feature = "parquet")]
#[test]
fn parquet_reads_back_the_same() {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::{RowAccessor, RowFormatter};

    let (proxy, _) = served();
    let out = proxy.directory.path().join("out");
    let arguments = ["--format", "parquet", "--out", out.to_str().unwrap()];
    let output = export(&proxy.data(), &arguments);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let file = fs::File::open(out.join("stars.parquet")).unwrap();
    let reader = SerializedFileReader::new(file).unwrap();
    let names: Vec<String> = reader
        .metadata()
        .file_metadata()
        .schema_descr()
        .columns()
        .iter()
        .map(|column| column.name().to_owned())
        .collect();
    let place = |name: &str| names.iter().position(|other| other == name).unwrap();
    let expected = rows(&proxy.data(), &[]);
    let read: Vec<_> = reader
        .get_row_iter(None)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(read.len(), expected.len());
    for (row, expected) in read.iter().zip(&expected) {
        let text = |name: &str| row.get_string(place(name)).unwrap().as_str();
        assert_eq!(text("decision_id"), expected["decision_id"]);
        assert_eq!(text("context.category"), expected["context"]["category"]);
        assert_eq!(text("arm"), expected["arm"]);
        let number = |name: &str| row.get_double(place(name)).ok();
        assert_eq!(number("reward"), expected["reward"].as_f64());
        assert_eq!(number("propensity"), expected["propensity"].as_f64());
        assert_eq!(
            row.get_ulong(place("latency_micros")).ok(),
            expected["latency_micros"].as_u64()
        );
        let at = row.get_timestamp_millis(place("at")).unwrap();
        let at = pointsman::clock::Timestamp::from_millis(at as u64);
        assert_eq!(at.to_string(), expected["at"]);
        let probabilities = row.fmt(place("probabilities")).to_string();
        assert!(probabilities.contains("\"a\":"), "{probabilities}");
    }
}
