//! Policy files and settings as people write them, good and bad.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail the test"
)]

#[path = "config/upstream.rs"]
mod upstream;

use std::fs;
use std::path::{Path, PathBuf};

use pointsman::config::compile::{Source, compile};
use pointsman::config::{load, reference, settings};
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

/// What is replaced by what, and what the problem must say.
const BAD: &[(&str, &str, &[&str])] = &[
    (
        "[reward]",
        "[shadow]\nfracton = 0.5\n[reward]",
        &[
            "bad.toml:6:1",
            "unknown key `fracton`",
            "did you mean `fraction`?",
        ],
    ),
    (
        "[reward]",
        "[shadow]\nfraction = 1.5\n[reward]",
        &["`fraction` cannot be 1.5", "at most 1"],
    ),
    (
        "[reward]",
        "[shadow]\nconcurrency = 0\n[reward]",
        &["`concurrency` cannot be 0"],
    ),
    (
        "[reward]",
        "[shadow]\narms = []\n[reward]",
        &["bad.toml:6:8", "no arm shadows"],
    ),
    (
        "[reward]",
        "[shadow]\narms = [\"b\", \"bb\"]\n[reward]",
        &[
            "bad.toml:6:14",
            "there is no arm `bb`",
            "did you mean `b`?",
            "the arms are `a` and `b`",
        ],
    ),
    (
        "[reward]",
        "[shadow]\narms = [\"b\", \"b\"]\n[reward]",
        &["bad.toml:6:14", "`b` is named twice"],
    ),
    (
        "[reward]\nkind = \"binary\"\nwindow = \"24h\"\n[[arm]]\nname = \"a\"",
        "[shadow]\narms = [\"b\"]\n[reward]\nkind = \"binary\"\nwindow = \"24h\"\n[[arm]]\nname = \"a\"\nweight = 0",
        &["nothing can be shadowed", "weight = 0 keeps clients away"],
    ),
    (
        "[reward]",
        "[shadow]\nlearn = true\n[reward]",
        &["bad.toml:6:9", "`learn = true` needs [label]"],
    ),
    (
        "[policy.thompson]\n[reward]",
        "[policy.exp3]\n[label]\nprediction = \"/p\"\n[shadow]\nlearn = true\n[reward]",
        &["`exp3` weights each reward by the probability of its draw"],
    ),
    (
        "[policy.thompson]\n[reward]",
        "[policy.lin_ucb]\n[context.x]\ntype = \"number\"\nheader = \"x\"\n[label]\nprediction = \"/p\"\n[shadow]\nlearn = true\n[reward]",
        &["`lin_ucb` learns from contexts"],
    ),
    (
        "[reward]",
        "[label]\nprediction = \"/p\"\n[shadow]\nlearn = true\n[reward]\ndefault = 0",
        &["`default` is credited", "two yardsticks"],
    ),
    (
        "[reward]",
        "[label]\nprediction = \"/p\"\n[shadow]\nlearn = true\n[reward]\nlearn = \"close\"",
        &["holds rewards back"],
    ),
    (
        "[reward]",
        "[label]\nprediction = \"/p\"\n[shadow]\nlearn = true\n[reward]\non_failure = 0",
        &["`on_failure` is credited"],
    ),
    (
        "kind = \"binary\"",
        "kind = \"binry\"",
        &[
            "policies/bad.toml:6:8",
            "`kind` cannot be \"binry\"",
            "did you mean \"binary\"?",
            "^^^^^^^",
        ],
    ),
    (
        "window = \"24h\"",
        "widow = \"24h\"",
        &[
            "bad.toml:7:1",
            "unknown key `widow` in [reward]",
            "did you mean `window`?",
        ],
    ),
    ("window = \"24h\"", "", &["`window` is missing in [reward]"]),
    (
        "window = \"24h\"",
        "window = \"1 day\"",
        &["`window` cannot be \"1 day\"", "\"10m\""],
    ),
    ("window = \"24h\"", "window = \"0s\"", &["above zero"]),
    (
        "window = \"24h\"",
        "window = 24",
        &["`window` cannot be 24", "a duration"],
    ),
    (
        "window = \"24h\"",
        "window = \"24h\"\nkey = { header = \"x-request-id\" }",
        &["bad.toml:8:7", "need a client token", "auth.client_token"],
    ),
    (
        "window = \"24h\"",
        "window = \"24h\"\nkey = { header = \"a b\" }",
        &["`a b` cannot be the name of a header"],
    ),
    (
        "window = \"24h\"",
        "window = \"24h\"\nkey = { query = \"id\" }",
        &["unknown key `query`", "`header` is missing"],
    ),
    (
        "window = \"24h\"",
        "window = \"90d\"",
        &["longer than the journal's retention", "data.retention"],
    ),
    (
        "[policy.thompson]",
        "[policy.thomson]",
        &[
            "bad.toml:4:9",
            "there is no policy `thomson`",
            "did you mean `thompson`?",
        ],
    ),
    (
        "[policy.thompson]",
        "[policy.thompson]\n[policy.fixed]",
        &["more than one policy"],
    ),
    ("[policy.thompson]", "[policy]", &["there is no policy"]),
    ("[policy.thompson]", "", &["`policy` is missing"]),
    (
        "[policy.thompson]",
        "[policy.thompson]\nfloor = 0.5",
        &["leaves nothing to the policy", "0.5"],
    ),
    (
        "[policy.thompson]",
        "[policy.thompson]\nfloor = -0.1",
        &["`floor` cannot be -0.1", "at least 0"],
    ),
    (
        "[policy.thompson]",
        "[policy.thompson]\nfloor = nan",
        &["`floor` cannot be nan"],
    ),
    (
        "[policy.thompson]",
        "[policy.thompson]\nepsilon = 0.1",
        &[
            "bad.toml:5:1",
            "`thompson` takes no `epsilon`",
            "`epsilon` is for `epsilon_greedy`",
        ],
    ),
    (
        "[policy.thompson]",
        "[policy.thompson]\nepsilo = 0.1",
        &["unknown key `epsilo` in [policy.thompson]"],
    ),
    (
        "[policy.thompson]",
        "[policy.thompson]\nhalf_life = \"23h\"",
        &[
            "bad.toml:5:13",
            "a half-life of 23h is shorter than the reward's window of 24h",
            "give `half_life` at least that",
        ],
    ),
    (
        "[policy.thompson]",
        "[policy.ucb]\nsliding_window = \"60m\"",
        &[
            "bad.toml:5:18",
            "a sliding window of 60m is shorter than the reward's window of 24h",
        ],
    ),
    (
        "[policy.thompson]",
        "[policy.top_two]\nhalf_life = \"2d\"\nsliding_window = \"2d\"",
        &["bad.toml:6:1", "not both", "leave one of them out"],
    ),
    (
        "[policy.thompson]",
        "[policy.thompson]\nhalf_life = \"0s\"",
        &["`half_life` cannot be \"0s\"", "above zero"],
    ),
    (
        "[policy.thompson]",
        "[policy.fixed]\nwarm_up = 100",
        &["`fixed` takes no `warm_up`", "`fixed` takes `floor`"],
    ),
    (
        "[policy.thompson]",
        "[policy.softmax]\nhalf_life = \"7d\"",
        &["`softmax` takes no `half_life`", "`half_life` is for"],
    ),
    (
        "[policy.thompson]",
        "[policy.softmax]\ntemperature = 0",
        &["`temperature` cannot be 0", "above 0"],
    ),
    (
        "[policy.thompson]",
        "[policy.top_two]\nbeta = 0.0",
        &["`beta` cannot be 0.0", "above 0 and at most 1"],
    ),
    (
        "[policy.thompson]",
        "[policy.epsilon_greedy]\ndecay = -5",
        &["`decay` cannot be -5", "above 0"],
    ),
    (
        "[policy.thompson]",
        "[policy.ucb]\nvariant = \"ucb1\"",
        &["`variant` cannot be \"ucb1\"", "`tuned` and `kl`"],
    ),
    (
        "[policy.thompson]",
        "[policy.exp3]\nhorizon = 0",
        &["`horizon` cannot be 0", "a whole number from 1"],
    ),
    (
        "[policy.thompson]",
        "[policy.exp3]\nprior = { alpha = 1.0, beta = 1.0 }",
        &["`exp3` takes no `prior`"],
    ),
    (
        "[policy.thompson]",
        "[policy.epsilon_greedy]\nepsilon = 1.5",
        &["`epsilon` cannot be 1.5"],
    ),
    (
        "[policy.thompson]",
        "[policy.thompson]\nprior = { alpha = 0.0, beta = 1.0 }",
        &["`alpha` cannot be 0.0", "above 0"],
    ),
    (
        "[policy.thompson]",
        "[policy.thompson]\nprior = { mean = 0.0 }",
        &["prior of a binary reward"],
    ),
    ("path = \"/v1/stars\"", "path = \"v1\"", &["starts with /"]),
    (
        "path = \"/v1/stars\"",
        "path = \"/-/rewards\"",
        &["reserved"],
    ),
    (
        "path = \"/v1/stars\"",
        "path = \"/a/*/b\"",
        &["* stands only at the end"],
    ),
    (
        "path = \"/v1/stars\"",
        "path = \"/a/../b\"",
        &["dot segments"],
    ),
    (
        "path = \"/v1/stars\"",
        "path = \"/v1/stars\"\nmethods = [\"post\"]",
        &["`post` is not a method"],
    ),
    (
        "path = \"/v1/stars\"",
        "path = \"/v1/stars\"\nmethods = \"POST\"",
        &["`methods` cannot be \"POST\"", "a list of texts"],
    ),
    (
        "path = \"/v1/stars\"",
        "path = \"/v1/stars\"\nheaders = { \"a b\" = \"x\" }",
        &["`a b` is not a header"],
    ),
    ("name = \"b\"", "name = \"a\"", &["two arms are called `a`"]),
    (
        "name = \"b\"",
        "name = \"b_2\"",
        &["`b_2` is no name", "letters, digits and inner hyphens"],
    ),
    (
        "name = \"b\"",
        "name = \"b\"\nbaseline = true\nendpoints = [\"http://h:1\"]\n[[arm]]\nname = \"c\"\nbaseline = true",
        &["second baseline"],
    ),
    (
        "name = \"b\"",
        "name = \"b\"\nweight = -1",
        &["`weight` cannot be -1"],
    ),
    (
        "\"http://127.0.0.1:9002\"",
        "\"https://user@127.0.0.1\"",
        &["`https://user@127.0.0.1` is not an endpoint"],
    ),
    (
        "\"http://127.0.0.1:9002\"",
        "\"http://h:80\", \"http://h\"",
        &["`http://h` is given twice"],
    ),
    (
        "\"http://127.0.0.1:9002\"",
        "\"127.0.0.1:9002\"",
        &["http://HOST:PORT or https://HOST:PORT"],
    ),
    (
        "\"http://127.0.0.1:9002\"",
        "\"http://h:1/path\"",
        &["without a path"],
    ),
    ("\"http://127.0.0.1:9002\"", "", &["there is no endpoint"]),
    (
        "kind = \"binary\"",
        "kind = \"bounded\"",
        &["bounded rewards need `min`"],
    ),
    (
        "kind = \"binary\"",
        "kind = \"bounded\"\nmin = 1\nmax = 1",
        &["max = 1 is not above min = 1"],
    ),
    (
        "kind = \"binary\"",
        "kind = \"binary\"\nmin = 0",
        &["binary rewards have no `min`"],
    ),
    (
        "kind = \"binary\"",
        "kind = \"binary\"\ndefault = 0.5",
        &["`default`", "not 0 or 1"],
    ),
    (
        "kind = \"binary\"",
        "kind = \"binary\"\naggregate = \"sum\"",
        &["binary rewards have no sum"],
    ),
    (
        "[reward]",
        "[label]\nprediction = \"stars\"\n[reward]",
        &["`stars` is not a JSON pointer"],
    ),
    (
        "[reward]",
        "[label]\nprediction = \"/s\"\ncompare = \"absolute_error\"\n[reward]",
        &["needs bounded rewards"],
    ),
    (
        "[reward]",
        "[label]\nprediction = \"/s\"\ncompare = \"equal\"\n[reward]",
        &["did you mean \"equals\"?", "`within`"],
    ),
    ("[reward]", "[unit]\n[reward]", &["exactly one source"]),
    (
        "[reward]",
        "[unit]\nheader = \"a\"\nquery = \"b\"\n[reward]",
        &["exactly one source"],
    ),
    (
        "[reward]",
        "[unit]\nheader = \"a\"\nissue = true\n[reward]",
        &["only a cookie can be issued"],
    ),
    (
        "[reward]",
        "[guardrail.latency]\n[reward]",
        &["unknown key `guardrail` at the top of the file"],
    ),
    ("[reward]", "[reward", &["bad.toml:5:8"]),
    (
        "kind = \"binary\"",
        "kind = \"binary\"\nkind = \"real\"",
        &["duplicate key"],
    ),
];

#[test]
fn every_mistake_is_told_where_it_is_with_what_would_be_right() {
    for (found, wrong, wanted) in BAD {
        let text = GOOD.replacen(found, wrong, 1);

        assert_ne!(text, GOOD, "{found} is not in the good file");
        let shown = problems(&[("bad", &text)]).join("\n");
        for part in *wanted {
            assert!(
                shown.contains(part),
                "{wrong:?} should tell {part:?}:\n{shown}"
            );
        }
    }
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

/// The committed page is what the code says; `POINTSMAN_WRITE_DOCS=1` writes it.
fn page_is_current(name: &str, text: &str) {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs")
        .join(name);
    if std::env::var_os("POINTSMAN_WRITE_DOCS").is_some() {
        fs::write(&path, text).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == text,
        "docs/{name} is out of date: POINTSMAN_WRITE_DOCS=1 cargo test --test config"
    );
}

#[test]
fn the_reference_pages_are_current() {
    page_is_current("policy-file.md", &reference::policy_file_reference());
    page_is_current("settings.md", &reference::settings_reference());
}

#[test]
fn the_commented_settings_are_the_defaults() {
    let commented = reference::commented_settings();
    let uncommented: String = commented
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(setting)
                if setting.contains(" = ")
                    && !setting.starts_with("api = ")
                    && !setting.ends_with('.')
                    && !setting.ends_with('…')
                    && !setting.contains('<') =>
            {
                setting
            }
            _ => line,
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    let parsed = settings::parse("pointsman.toml", &uncommented, &[]);
    let parsed = parsed.unwrap_or_else(|problems| panic!("{}\n{uncommented}", problems[0]));
    assert_eq!(format!("{parsed:?}"), format!("{:?}", settings()));
}

#[test]
fn the_schema_knows_every_key_of_the_shipped_policies() {
    fn check(value: &toml::Value, schema: &serde_json::Value, path: &str) {
        match value {
            toml::Value::Table(table) => {
                let schema = schema.get("oneOf").map_or(schema, |options| &options[1]);
                for (key, value) in table {
                    let inner = &schema["properties"][key];
                    let inner = if inner.is_null() {
                        &schema["additionalProperties"]
                    } else {
                        inner
                    };
                    assert!(inner.is_object(), "{path}.{key} is not in the schema");
                    check(value, inner, &format!("{path}.{key}"));
                }
            }
            toml::Value::Array(items) => items
                .iter()
                .for_each(|item| check(item, &schema["items"], path)),
            _ => {}
        }
    }
    let schema = reference::schema();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("policies")).unwrap() {
        let path = entry.unwrap().path();
        let value: toml::Value = toml::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        check(&value, &schema, &path.display().to_string());
    }
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
