//! Policy files and settings as people write them, good and bad.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail the test"
)]

#[path = "config/pages.rs"]
mod pages;
#[path = "config/upstream.rs"]
mod upstream;
#[path = "config/wrong.rs"]
mod wrong;

use std::path::Path;

use pointsman::config::compile::{Source, compile};
use pointsman::config::{load, settings};
use pointsman::experiment::Experiment;
use pointsman::experiment::reward::{Learn, RewardKind};
use pointsman::experiment::shadow::{ShadowRule, ShadowTerms};
use pointsman::policy::{KINDS, Memory};
use proptest::prelude::*;

fn settings() -> settings::Settings {
    settings::parse("pointsman.toml", "", &[]).unwrap()
}

fn source(stem: &str, text: &str) -> Source {
    Source {
        file: format!("policies/{stem}.toml"),
        stem: stem.to_owned(),
        text: text.to_owned(),
    }
}

/// Every problem of these files, as it is shown.
fn problems(files: &[(&str, &str)]) -> Vec<String> {
    let sources: Vec<Source> = files
        .iter()
        .map(|(stem, text)| source(stem, text))
        .collect();
    let problems = compile(&sources, &settings()).expect_err("there is a problem");
    problems.iter().map(ToString::to_string).collect()
}

const GOOD: &str = r#"
[match]
path = "/v1/stars"
[policy.thompson]
[reward]
kind = "binary"
window = "24h"
[[arm]]
name = "a"
endpoints = ["http://127.0.0.1:9001"]
[[arm]]
name = "b"
endpoints = ["http://127.0.0.1:9002"]
"#;

fn compiled(text: &str) -> std::sync::Arc<Experiment> {
    let loaded = compile(&[source("good", text)], &settings());
    let loaded = loaded.unwrap_or_else(|problems| {
        panic!(
            "{}",
            problems.iter().map(ToString::to_string).collect::<String>()
        )
    });
    std::sync::Arc::clone(&loaded.experiments[0])
}

#[test]
fn the_shipped_policies_compile_together_and_cover_every_kind() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    let loaded = load::policies(&[folder], &settings()).unwrap();
    for kind in KINDS {
        assert!(
            loaded
                .experiments
                .iter()
                .any(|experiment| experiment.policy.kind() == kind.name),
            "no policy file shows {}",
            kind.name
        );
    }
}

#[test]
fn the_example_of_every_kind_compiles() {
    for kind in KINDS {
        let mut text = GOOD.replace("[policy.thompson]", kind.example);
        if kind.context {
            text.push_str("[context.length]\nheader = \"x-length\"\ntype = \"number\"\n");
        }
        assert_eq!(compiled(&text).policy.kind(), kind.name);
    }
}

#[test]
fn what_cannot_be_kept_is_refused() {
    let context = "[context.a]\nheader = \"x-a\"\ntype = \"category\"\nbuckets = 120\n";
    let refusal = |policy: &str, reward: &str| {
        let text = GOOD
            .replace("[policy.thompson]", policy)
            .replace("window = \"24h\"", &format!("window = \"24h\"\n{reward}"));
        match compile(&[source("bad", &(text + context))], &settings()) {
            Ok(_) => String::new(),
            Err(problems) => problems[0].to_string(),
        }
    };
    let error = refusal("[policy.logistic_thompson]", "aggregate = \"last\"");
    assert!(error.contains("cannot take back"), "{error}");
    let close = "aggregate = \"last\"\nlearn = \"close\"";
    assert_eq!(refusal("[policy.logistic_thompson]", close), "");
    assert_eq!(refusal("[policy.lin_ucb]", "aggregate = \"last\""), "");
    let arm = |index| format!("[[arm]]\nname = \"x{index}\"\nendpoints = [\"http://h:1\"]\n");
    let arms = (0..20).map(arm).collect::<Vec<_>>().concat();
    let long = "[policy.lin_ucb]\nhalf_life = \"24h\"";
    let text = GOOD.replace("[policy.thompson]", long) + &arms + context;
    let problems = compile(&[source("bad", &text)], &settings()).unwrap_err();
    assert!(
        problems[0].to_string().contains("MiB to forget by age"),
        "{}",
        problems[0]
    );
    assert_eq!(
        refusal("[policy.lin_ucb]\nsliding_window = \"24h\"", ""),
        ""
    );
}

#[test]
fn what_is_left_out_has_its_documented_default() {
    let experiment = compiled(GOOD);
    assert_eq!(experiment.name.as_str(), "good");
    assert_eq!(
        (
            experiment.baseline,
            experiment.declared_epoch,
            experiment.warm_up
        ),
        (0, 1, 0)
    );
    assert_eq!(experiment.floor, 0.01);
    assert_eq!(experiment.reward.kind, RewardKind::Binary);
    assert_eq!(experiment.reward.learn, Learn::Arrival);
    let with_default = compiled(&GOOD.replace("window = \"24h\"", "window = \"24h\"\ndefault = 0"));
    assert_eq!(
        (with_default.reward.learn, with_default.reward.default),
        (Learn::Close, Some(0.0))
    );
    let fixed = compiled(&GOOD.replace("policy.thompson", "policy.fixed"));
    assert_eq!(fixed.floor, 0.0);
}

#[test]
fn shadows_are_all_arms_unless_the_file_names_them() {
    let with = |shadow: &str| GOOD.replace("[reward]", &format!("{shadow}\n[reward]"));
    assert_eq!(compiled(GOOD).shadow, None);
    let label = "[label]\nprediction = \"/p\"\n";
    let rule = compiled(&with(&format!("{label}[shadow]")))
        .shadow
        .clone()
        .unwrap();
    let wanted = ShadowRule {
        arms: vec![0, 1],
        fraction: 1.0,
        concurrency: 16,
        timeout: 10_000,
        body_limit: 1_048_576,
        terms: ShadowTerms { learn: false },
    };
    assert_eq!(rule, wanted);
    let text = "[shadow]\narms = [\"b\"]\nfraction = 0\nconcurrency = 1\ntimeout = \"5ms\"\nbody_limit = 0\nlearn = true";
    let text = with(&format!("{label}{text}"));
    // An arm that only shadows.
    let text = text.replace(":9002\"]", ":9002\"]\nweight = 0");
    let rule = compiled(&text).shadow.clone().unwrap();
    assert_eq!(
        (&rule.arms[..], rule.fraction, rule.body_limit),
        (&[1][..], 0.0, 0)
    );
    assert_eq!(
        (rule.concurrency, rule.timeout, rule.terms.learn),
        (1, 5, true)
    );
    let loaded = compile(&[source("good", &with("[shadow]"))], &settings()).unwrap();
    let told = loaded.warnings[0].to_string();
    assert!(told.contains("there is no [label]"), "{told}");
    assert_eq!(loaded.warnings.len(), 1);
}

#[test]
fn a_changed_text_is_a_changed_version_and_an_arms_version_is_another_arm() {
    let (first, second) = (compiled(GOOD), compiled(&format!("{GOOD}# a comment\n")));
    assert_ne!(first.version, second.version);
    assert_eq!(first.arms[0].id, second.arms[0].id);
    let new_model = compiled(&GOOD.replace("name = \"a\"", "name = \"a\"\nversion = \"2\""));
    assert_ne!(first.arms[0].id, new_model.arms[0].id);
}

/// What a file says so that the combination would be taken where it makes sense.
const PRIOR: &str = "name = \"b\"\nprior = { alpha = 2.0, beta = 3.0 }";

#[test]
fn every_combination_that_the_table_does_not_have_is_refused() {
    for kind in KINDS.iter().filter(|kind| !kind.context) {
        let policy = |more: &str| {
            let head = format!("[policy.{}]\n{more}\n", kind.name);
            GOOD.replace("[policy.thompson]\n", &head)
        };
        let mut combinations: Vec<(bool, String, String)> = [
            ("floor", "floor = 0.1"),
            ("warm_up", "warm_up = 5"),
            ("half_life", "half_life = \"24h\""),
            ("sliding_window", "sliding_window = \"7d\""),
            ("prior", "prior = { alpha = 2.0, beta = 3.0 }"),
        ]
        .map(|(key, given)| (kind.takes(key), policy(given), key.to_owned()))
        .into();
        let own_prior = policy("").replace("name = \"b\"", PRIOR);
        combinations.push((kind.takes("prior"), own_prior, "prior".to_owned()));
        let sticky = policy("").replace("[reward]", "[unit]\nheader = \"x-user\"\n[reward]");
        combinations.push((kind.unit, sticky, "unit".to_owned()));
        for (word, reward) in [
            ("binary", "kind = \"binary\""),
            ("bounded", "kind = \"bounded\"\nmin = -1\nmax = 2.5"),
            ("real", "kind = \"real\""),
        ] {
            let more = if kind.name == "softmax" {
                "temperature = 1"
            } else {
                ""
            };
            let text = policy(more).replace("kind = \"binary\"", reward);
            combinations.push((kind.rewards.contains(&word), text, word.to_owned()));
        }
        for (taken, text, what) in combinations {
            if taken {
                assert_eq!(compiled(&text).policy.kind(), kind.name, "{what}");
                continue;
            }
            let shown = problems(&[("bad", &text)]);
            let name = kind.name;
            let [problem] = &shown[..] else {
                panic!("{name} with {what}: {shown:#?}");
            };
            assert!(
                problem.contains(&format!("`{name}` takes no"))
                    || problem.contains(&format!("`{name}` does not learn from {what} rewards")),
                "{problem}"
            );
            assert!(
                problem.contains(&what) && problem.contains("help: "),
                "{problem}"
            );
        }
    }
}

#[test]
fn what_a_policy_remembers_is_what_its_file_says() {
    let memory = |keys: &str| {
        let head = format!("[policy.thompson]\n{keys}\n");
        let text = GOOD.replace("[policy.thompson]\n", &head);
        compiled(&text).policy.statistics().memory
    };
    assert_eq!(memory(""), Memory::Forever);
    assert_eq!(memory("half_life = \"1d\""), Memory::HalfLife(86_400_000));
    assert_eq!(
        memory("sliding_window = \"2d\""),
        Memory::SlidingWindow(2 * 86_400_000)
    );
}

#[test]
fn a_key_is_the_header_that_the_file_names() {
    let text = GOOD.replace(
        "[reward]\n",
        "[reward]\nkey = { header = \"X-Amzn-SageMaker-Inference-Id\" }\n",
    );
    let settings = "[auth]\nclient_token = \"let-me-in\"\n";
    let settings = settings::parse("pointsman.toml", settings, &[]).unwrap();
    let loaded = compile(&[source("good", &text)], &settings).unwrap();
    assert_eq!(
        loaded.experiments[0].reward_key.as_deref(),
        Some("x-amzn-sagemaker-inference-id")
    );
    assert_eq!(compiled(GOOD).reward_key, None);
}

#[test]
fn the_reward_may_be_a_metric() {
    let named = |metric: &str| {
        let text = format!("[reward]\nmetric = \"{metric}\"\n");
        GOOD.replace("[reward]\n", &text)
    };
    let experiment = compiled(&named("revenue"));
    let metric = experiment.reward_metric.as_ref().map(ToString::to_string);
    assert_eq!(metric.as_deref(), Some("revenue"));
    // Rewards mean another thing then.
    let before = compiled(GOOD).reward_meaning();
    assert_eq!(
        experiment.reward_meaning(),
        format!("{before} metric revenue")
    );
    let told = |text: &str| problems(&[("good", text)]).join("\n");
    assert!(told(&named("in euros")).contains("`metric` is no name"));
    let labelled = named("revenue") + "[label]\nprediction = \"/x\"\n";
    assert!(told(&labelled).contains("the reward is their score, and not a metric"));
}

#[test]
fn all_mistakes_of_all_files_are_told_at_once() {
    let bad = GOOD
        .replace("binary", "binry")
        .replace("24h", "soon")
        .replace("[[arm]]\nname = \"b\"", "[[arm]]\nnme = \"b\"");
    let other = GOOD.replace("/v1/stars", "nowhere");
    let shown = problems(&[("bad", &bad), ("other", &other)]);
    assert!(shown.len() >= 5, "{shown:#?}");
    assert!(
        shown
            .iter()
            .any(|problem| problem.starts_with("policies/other.toml:3:8")),
        "{shown:#?}"
    );
}

#[test]
fn a_problem_looks_like_this() {
    let shown = problems(&[(
        "bad",
        &GOOD.replace("kind = \"binary\"", "kind = \"binry\""),
    )]);
    let wanted = "policies/bad.toml:6:8: error: `kind` cannot be \"binry\"\n  |\n6 | kind = \"binry\"\n  |        ^^^^^^^\n  help: did you mean \"binary\"? it takes one of `binary`, `bounded` and `real`";
    assert_eq!(shown, [wanted]);
}

#[test]
fn experiments_that_match_the_same_requests_are_refused_unless_one_is_more_specific() {
    let with = |stem: &str, matching: &str| {
        (
            stem.to_owned(),
            GOOD.replace("path = \"/v1/stars\"", matching),
        )
    };
    let tie = [
        ("path = \"/a\"", "path = \"/a\""),
        ("path = \"/a/*\"", "path = \"/a/*\"\n"),
        (
            "path = \"/a\"\nmethods = [\"GET\", \"POST\"]",
            "path = \"/a\"\nmethods = [\"POST\"]",
        ),
        (
            "path = \"/a\"\nheaders = { x = \"1\" }",
            "path = \"/a\"\nheaders = { y = \"1\" }",
        ),
    ];
    for (first, second) in tie {
        let (first, second) = (with("one", first), with("two", second));
        let shown = problems(&[(&first.0, &first.1), (&second.0, &second.1)]).join("\n");
        assert!(shown.contains("matches the same requests"), "{shown}");
    }
    let apart = [
        ("path = \"/a\"", "path = \"/a/*\""),
        ("path = \"/a/*\"", "path = \"/a/b/*\""),
        ("path = \"/a\"", "path = \"/a\"\nhost = \"h\""),
        (
            "path = \"/a\"\nmethods = [\"GET\"]",
            "path = \"/a\"\nmethods = [\"POST\"]",
        ),
        (
            "path = \"/a\"\nheaders = { x = \"1\" }",
            "path = \"/a\"\nheaders = { x = \"2\" }",
        ),
        ("path = \"/a\"", "path = \"/a\"\nheaders = { x = \"2\" }"),
    ];
    for (general, specific) in apart {
        let (general, specific) = (with("general", general), with("specific", specific));
        let sources = [
            source(&general.0, &general.1),
            source(&specific.0, &specific.1),
        ];
        assert!(
            compile(&sources, &settings()).is_ok(),
            "{general:?} {specific:?}"
        );
    }
    let shown = problems(&[
        ("one", GOOD),
        (
            "two",
            &format!("name = \"one\"\n{}", GOOD.replace("/v1", "/v2")),
        ),
    ])
    .join("\n");
    assert!(
        shown.contains("two experiments are called `one`"),
        "{shown}"
    );
}

proptest! {
    #[test]
    fn no_text_makes_the_compiler_panic(text in "\\PC{0,200}") {
        drop(compile(&[source("soup", &text)], &settings()));
    }

    #[test]
    fn no_mutilated_file_makes_the_compiler_panic(start in 0..200_usize, length in 0..40_usize, patch in "[\\[\\]{}\"=.a-z0-9\n ]{0,12}") {
        let mut text: Vec<char> = GOOD.chars().collect();
        let start = start.min(text.len());
        let end = (start + length).min(text.len());
        text.splice(start..end, patch.chars());
        drop(compile(&[source("soup", &text.into_iter().collect::<String>())], &settings()));
    }
}
