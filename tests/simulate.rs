//! Environment files as people write them, good and bad, and the shipped ones.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail the test"
)]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use pointsman::config::compile::{Source, compile};
use pointsman::config::{load, settings};
use pointsman::experiment::Experiment;
use pointsman::simulate::environment::{self, Delay, Environment, Kind};

fn experiment(reward: &str, arms: &[&str]) -> Arc<Experiment> {
    let mut text =
        format!("[match]\npath = \"/\"\n[policy.fixed]\n[reward]\nwindow = \"1d\"\n{reward}\n");
    for arm in arms {
        text.push_str(&format!(
            "[[arm]]\nname = \"{arm}\"\nendpoints = [\"http://127.0.0.1:1\"]\n"
        ));
    }
    let source = Source {
        file: "policies/stars.toml".to_owned(),
        stem: "stars".to_owned(),
        text,
    };
    let settings = settings::parse("", "", &[]).unwrap();
    let loaded = compile(&[source], &settings).unwrap_or_else(|problems| {
        let all: String = problems.iter().map(ToString::to_string).collect();
        panic!("{all}")
    });
    Arc::clone(&loaded.experiments[0])
}

const BINARY: &str = "kind = \"binary\"";

fn read(text: &str, reward: &str) -> Result<Environment, Vec<String>> {
    let open = |path: &str| match path {
        "stars.csv" => Ok("length,y\n10,small\n200,large\n".to_owned()),
        "other.csv" => Ok("length,y\n10,small\n200,huge\n".to_owned()),
        "bad.csv" => Ok("length,y\n10\n200,large\n".to_owned()),
        _ => Err(std::io::Error::from(std::io::ErrorKind::NotFound)),
    };
    let experiments = [experiment(reward, &["small", "large"])];
    environment::parse("env.toml", text, &experiments, &open)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

/// Every problem of a text, joined.
fn problems(text: &str, reward: &str) -> String {
    read(text, reward)
        .expect_err("there is a problem")
        .join("\n")
}

#[test]
fn everything_that_can_be_said_is_read() {
    let text = r#"
kind = "gaussian"
description = "All of it"
means = { large = 2, small = 1.5 }
sd = { small = 0.5 }
delay_if_rewarded = 3
delay_otherwise = { large = 7 }
post = "rewarded"
round = "1m"
[[phase]]
from = 10
means = { small = 4 }
"#;
    let environment = read(text, "kind = \"real\"").unwrap();
    assert_eq!(environment.arms, ["large", "small"]);
    assert_eq!(environment.round, 60_000);
    assert!(environment.silent);
    let delay = |rewarded, otherwise| Delay {
        rewarded,
        otherwise,
    };
    assert_eq!(environment.delays, [delay(3, 7), delay(3, 0)]);
    let Kind::Gaussian(phases, deviations) = environment.kind else {
        panic!("{:?}", environment.kind);
    };
    assert_eq!(deviations, [1.0, 0.5]);
    let phases: Vec<_> = phases
        .iter()
        .map(|phase| (phase.from, phase.means.clone()))
        .collect();
    assert_eq!(phases, [(0, vec![2.0, 1.5]), (10, vec![2.0, 4.0])]);
}

#[test]
fn every_problem_is_told_at_once_and_at_its_place() {
    let text = r#"kind = "bernoulli"
means = { smal = 0.5, large = 1.5 }
delay = { large = -1 }
raund = "1s"
sd = 2.0
post = "rewardet"
[[phase]]
from = 5
means = { larg = 0.5 }
[[phase]]
from = 5
means = { large = "x" }
"#;
    let told = problems(text, BINARY);
    for part in [
        "env.toml:2:11: error: policies/stars.toml has no arm `smal`",
        "did you mean `small`?",
        "env.toml:2:9: error: `small` of policies/stars.toml has no mean",
        "error: the mean 1.5 of `large` is no probability",
        "env.toml:3:19: error: `large` cannot be -1",
        "env.toml:4:1: error: unknown key `raund`",
        "did you mean `round`?",
        "env.toml:5:1: error: a bernoulli environment has no `sd`",
        "did you mean \"rewarded\"?",
        "env.toml:9:11: error: there is no arm `larg`",
        "env.toml:11:8: error: this phase begins at 5, not after the one before it, at 5",
        "env.toml:12:19: error: `large` cannot be \"x\"",
    ] {
        assert!(told.contains(part), "{part} is not in\n{told}");
    }
}

#[test]
fn means_and_files_belong_to_their_kinds() {
    for (text, reward, part) in [
        ("", BINARY, "`kind` is missing"),
        ("kind = \"bernouli\"", BINARY, "did you mean \"bernoulli\"?"),
        ("kind = \"bernoulli\"", BINARY, "needs `means`"),
        ("kind = \"bernoulli\"\nmeans = {}", BINARY, "has no mean"),
        ("kind = \"dataset\"", BINARY, "needs `file`"),
        (
            "kind = \"dataset\"\nfile = \"stars.csv\"\nmeans = { small = 1 }",
            BINARY,
            "a dataset environment has no `means`",
        ),
        (
            "kind = \"gaussian\"\nmeans = { small = 1, large = 2 }",
            BINARY,
            "rewards of a gaussian environment are any number, but those of policies/stars.toml are 0 or 1 (binary)",
        ),
        (
            "kind = \"bernoulli\"\nmeans = { small = 1, large = 0 }",
            "kind = \"bounded\"\nmin = 1\nmax = 5",
            "but those of policies/stars.toml are in [1, 5]",
        ),
        (
            "kind = \"bernoulli\"\nmeans = { small = 1, large = 0 }\ndelay = 1\ndelay_otherwise = 2",
            BINARY,
            "say the same thing twice",
        ),
        (
            "kind = \"dataset\"\nfile = \"none.csv\"",
            BINARY,
            "`none.csv` cannot be read",
        ),
        (
            "kind = \"dataset\"\nfile = \"bad.csv\"",
            BINARY,
            "bad.csv:2:1: error: 1 values where the first line has 2",
        ),
        (
            "kind = \"dataset\"\nfile = \"stars.csv\"\nreward = { right = 7 }",
            BINARY,
            "reward 7 is not 0 or 1",
        ),
        ("kind = ", BINARY, "env.toml:1:"),
    ] {
        let told = problems(text, reward);
        assert!(told.contains(part), "{part} is not in\n{told}");
    }
}

#[test]
fn labels_and_arms_must_be_the_same() {
    let told = problems("kind = \"dataset\"\nfile = \"other.csv\"", BINARY);
    assert!(
        told.contains("policies/stars.toml has no arm `huge`"),
        "{told}"
    );
    assert!(
        told.contains("no row of other.csv has the label `large`"),
        "{told}"
    );
    let environment = read(
        "kind = \"dataset\"\nfile = \"stars.csv\"\ndelay = { large = 2 }",
        BINARY,
    );
    assert_eq!(environment.unwrap().arms, ["small", "large"]);
}

#[test]
fn the_shipped_environments_fit_the_demos_policy_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let settings = settings::parse("", "", &[]).unwrap();
    let policy = root.join("policies/star-rating.toml");
    let experiments = load::policies(&[policy], &settings).unwrap().experiments;
    let mut count = 0;
    for entry in fs::read_dir(root.join("environments")).unwrap() {
        let path = entry.unwrap().path();
        let open = |file: &str| fs::read_to_string(root.join("environments").join(file));
        let text = fs::read_to_string(&path).unwrap();
        if let Err(problems) = environment::parse("shipped", &text, &experiments, &open) {
            let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
            panic!("{}: {}", path.display(), all.join("\n"));
        }
        count += 1;
    }
    assert!(count >= 3);
}

#[test]
fn the_reference_of_the_environment_file_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/simulate.md");
    let committed = fs::read_to_string(&path).unwrap();
    let reference = pointsman::simulate::environment_reference();
    let heading = "\n## The environment file\n";
    let prose = committed
        .split_once(heading)
        .map_or(committed.as_str(), |(prose, _)| prose);
    let current = format!("{prose}{reference}");
    if std::env::var_os("POINTSMAN_WRITE_DOCS").is_some() {
        fs::write(&path, &current).unwrap();
        return;
    }
    assert!(
        committed == current,
        "docs/simulate.md is out of date: POINTSMAN_WRITE_DOCS=1 cargo test --test simulate"
    );
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "(kind = \"(bernoulli|gaussian|dataset)\"\n)?(means|delay|sd|phase|file|reward) = [\\[\\]{}\"=.a-z0-9\n, ]{0,60}") {
        drop(read(&text, BINARY));
    }
}
