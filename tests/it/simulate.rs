//! `pointsman simulate` as a user runs it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

const EVEN: &str = "[policy.fixed]";
const THOMPSON: &str = "[policy.thompson]";

/// A folder with two policy files and an environment.
fn folder(environment: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (name, policy) in [("even", EVEN), ("thompson", THOMPSON)] {
        let arm = |name: &str| {
            format!("[[arm]]\nname = \"{name}\"\nendpoints = [\"http://127.0.0.1:1\"]\n")
        };
        let text = format!(
            "[match]\npath = \"/v1/stars\"\n{policy}\n[reward]\nkind = \"binary\"\nwindow = \"1h\"\n{}{}",
            arm("small"),
            arm("large")
        );
        fs::write(folder.path().join(format!("{name}.toml")), text).unwrap();
    }
    fs::write(folder.path().join("env.toml"), environment).unwrap();
    folder
}

const WORLD: &str = "kind = \"bernoulli\"\nmeans = { small = 0.4, large = 0.6 }\n";

fn simulate(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .arg("simulate")
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    assert!(
        output.stderr.is_empty(),
        "no progress bar off a terminal: {output:?}"
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn policies_are_compared_in_the_same_world() {
    let folder = folder(WORLD);
    let arguments = [
        "even.toml",
        "./thompson.toml",
        "--env",
        "env.toml",
        "--horizon",
        "1000",
        "--format",
        "json",
    ];
    let report = json(&simulate(folder.path(), &arguments));
    let [even, thompson] = &report.as_array().unwrap()[..] else {
        panic!("{report}");
    };
    assert_eq!(even["policy"], "even.toml");
    assert_eq!(thompson["policy"], "./thompson.toml");
    assert_eq!(
        (even["horizon"].as_u64(), even["seeds"].as_u64()),
        (Some(1000), Some(20))
    );
    let regret = |report: &Value| report["regret"]["mean"].as_f64().unwrap();
    let error = even["regret"]["se"].as_f64().unwrap();
    assert!((regret(even) - 100.0).abs() < 5.0 * error, "{even}");
    assert!(regret(thompson) < 0.5 * regret(even));
    assert!(thompson["share"]["large"].as_f64().unwrap() > 0.8);
    assert!(thompson["decisions_per_second"].as_f64().unwrap() > 0.0);

    let again = json(&simulate(folder.path(), &arguments));
    assert_eq!(again[1]["curve"], thompson["curve"]);
    let one = json(&simulate(
        folder.path(),
        &[
            "even.toml",
            "--env",
            "env.toml",
            "--format",
            "json",
            "--seeds",
            "1",
        ],
    ));
    assert_eq!(one["horizon"], 10_000);
    assert!(one["regret"]["se"].is_null());
}

#[test]
fn delays_and_publishing_can_be_set() {
    let folder = folder(&format!("{WORLD}delay = 5\n"));
    let regret = |more: &[&str]| {
        let mut arguments = vec![
            "thompson.toml",
            "--env",
            "env.toml",
            "--horizon",
            "2000",
            "--format",
            "json",
        ];
        arguments.extend(more);
        json(&simulate(folder.path(), &arguments))["regret"]["mean"]
            .as_f64()
            .unwrap()
    };
    let own = regret(&[]);
    assert_eq!(own, regret(&["--delay", "5"]));
    assert!(regret(&["--delay", "1500"]) > 3.0 * own);
    assert!(regret(&["--publish-every", "1000"]) > 2.0 * own);
}

#[test]
fn the_table_names_what_was_compared_and_warns_of_late_rewards() {
    let folder = folder(&format!("{WORLD}delay = 90\nround = \"1m\"\n"));
    let output = simulate(
        folder.path(),
        &["even.toml", "--env", "env.toml", "--horizon", "500"],
    );
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    for part in [
        "500 rounds, 20 seeds",
        "even.toml",
        "small",
        "large",
        "note: 100.0 % of the rewards of even.toml",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains('\x1b'), "no colour off a terminal");
}

#[test]
fn a_plot_can_be_written_to_a_file() {
    let folder = folder(WORLD);
    let output = simulate(
        folder.path(),
        &[
            "even.toml",
            "thompson.toml",
            "--env",
            "env.toml",
            "--horizon",
            "500",
            "--format",
            "svg",
            "--out",
            "plot.svg",
        ],
    );
    assert!(
        output.status.success() && output.stdout.is_empty(),
        "{output:?}"
    );
    let svg = fs::read_to_string(folder.path().join("plot.svg")).unwrap();
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    assert_eq!(svg.matches("<polyline").count(), 2);
}

#[test]
fn every_problem_of_every_file_is_told() {
    let folder = folder("kind = \"bernoulli\"\nmeans = { smal = 0.4, large = 0.6 }\n");
    fs::write(folder.path().join("bad.toml"), "[match]\npath = \"x\"\n").unwrap();
    let output = simulate(
        folder.path(),
        &["even.toml", "bad.toml", "none.toml", "--env", "env.toml"],
    );
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    for part in [
        "bad.toml:2:8: error",
        "none.toml",
        "env.toml:2:11: error",
        "did you mean `small`?",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(output.stdout.is_empty());
    let missing = simulate(folder.path(), &["even.toml", "--env", "nowhere.toml"]);
    assert_eq!(missing.status.code(), Some(1));
    for usage in [
        &["even.toml"][..],
        &["--env", "env.toml"],
        &["even.toml", "--env", "env.toml", "--seeds", "0"],
    ] {
        assert_eq!(simulate(folder.path(), usage).status.code(), Some(64));
    }
}

#[test]
fn the_shipped_environments_run_with_the_demos_policy_file() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    for environment in ["bernoulli", "switch", "delayed"] {
        let file = format!("environments/{environment}.toml");
        let arguments = [
            "policies/star-rating.toml",
            "--env",
            &file,
            "--horizon",
            "200",
            "--seeds",
            "2",
            "--format",
            "json",
        ];
        let report = json(&simulate(&root, &arguments));
        assert_eq!(report["share"].as_object().unwrap().len(), 4);
    }
}
