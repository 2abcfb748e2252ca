//! `[context.NAME]` as people write it, good and bad.

use std::sync::Arc;

use super::super::{Source as File, compile};
use super::*;
use crate::config::settings;
use crate::experiment::Experiment;

fn text(context: &str) -> String {
    format!(
        "[match]\npath = \"/v1/stars\"\n[policy.epsilon_greedy]\n{context}\n\
         [reward]\nkind = \"binary\"\nwindow = \"24h\"\n[[arm]]\nname = \"a\"\nendpoints = [\"http://h:1\"]\n"
    )
}

/// The experiment, or every problem as it is shown.
fn compiled(context: &str) -> Result<Arc<Experiment>, String> {
    let file = File {
        file: "policies/stars.toml".to_owned(),
        stem: "stars".to_owned(),
        text: text(context),
    };
    let settings = settings::parse("pointsman.toml", "", &[]).unwrap();
    match compile(&[file], &settings) {
        Ok(loaded) => Ok(Arc::clone(&loaded.experiments[0])),
        Err(problems) => {
            let shown: Vec<String> = problems.iter().map(ToString::to_string).collect();
            Err(shown.join("\n"))
        }
    }
}

const ALL: &str = r#"
[unit]
cookie = "uid"
[context.zone]
type = "category"
header = "X-Zone"
values = ["eu", "us"]
[context.category]
type = "category"
query = "category"
buckets = 4
[context.words-2]
type = "length"
json = "/text"
center = 5
scale = 2.5
log = true
missing = 1
[context.size]
type = "length"
body = true
[context.prime]
type = "boolean"
cookie = "prime"
[context.user]
type = "category"
unit = true
buckets = 2
[context.age]
type = "number"
json = ""
"#;

#[test]
fn features_are_read_in_the_order_of_the_file() {
    let experiment = compiled(ALL).unwrap();
    let rule = experiment.context.as_ref().unwrap();
    let plain = Scale {
        center: 0.0,
        scale: 1.0,
        log: false,
        missing: 0.0,
    };
    let words = Scale {
        center: 5.0,
        scale: 2.5,
        log: true,
        missing: 1.0,
    };
    let wanted = [
        (
            "zone",
            Source::Header("x-zone".into()),
            Encoding::OneHot(vec!["eu".into(), "us".into()]),
        ),
        (
            "category",
            Source::Query("category".into()),
            Encoding::Hashed(4),
        ),
        (
            "words-2",
            Source::Json("/text".into()),
            Encoding::Length(words),
        ),
        ("size", Source::Body, Encoding::Length(plain)),
        ("prime", Source::Cookie("prime".into()), Encoding::Boolean),
        ("user", Source::Unit, Encoding::Hashed(2)),
        ("age", Source::Json("".into()), Encoding::Number(plain)),
    ];
    let wanted: Vec<Feature> = wanted
        .into_iter()
        .map(|(name, source, encoding)| Feature {
            name: name.into(),
            source,
            encoding,
        })
        .collect();
    assert_eq!(rule.features(), wanted);
    assert_eq!(rule.dimension(), 1 + 3 + 4 + 1 + 1 + 1 + 2 + 1);
    assert!(compiled("").unwrap().context.is_none());
}

/// A `[context]`, and what its problem must say.
const BAD: &[(&str, &[&str])] = &[
    (
        "[context.a]\ntype = \"boolean\"",
        &[
            "stars.toml:4:1",
            "this feature has no source",
            "exactly one of `header`, `query`, `cookie`, `json`, `body` and `unit`",
        ],
    ),
    (
        "[context.a]\ntype = \"boolean\"\nheader = \"a\"\nquery = \"b\"",
        &[
            "stars.toml:7:1",
            "2 sources: `header` and `query`",
            "exactly one of",
        ],
    ),
    (
        "[context.a]\nheader = \"a\"",
        &[
            "stars.toml:4:1",
            "`type` is missing in [context.a]",
            "one of `number`",
        ],
    ),
    (
        "[context.a]\nheader = \"a\"\ntype = \"bool\"",
        &[
            "stars.toml:6:8",
            "`type` cannot be \"bool\"",
            "one of `number`",
        ],
    ),
    (
        "[context.a]\ntype = \"category\"\nheader = \"a\"",
        &[
            "stars.toml:5:8",
            "needs `values` or `buckets`",
            "buckets = 16",
        ],
    ),
    (
        "[context.a]\ntype = \"category\"\nheader = \"a\"\nvalues = [\"x\"]\nbuckets = 4",
        &[
            "stars.toml:8:1",
            "`values` and `buckets` exclude each other",
        ],
    ),
    (
        "[context.a]\ntype = \"category\"\nheader = \"a\"\nvalues = []",
        &["stars.toml:7:10", "there is no value"],
    ),
    (
        "[context.a]\ntype = \"category\"\nheader = \"a\"\nvalues = [\"x\", \"y\", \"x\"]",
        &["stars.toml:7:21", "`x` is given twice"],
    ),
    (
        "[context.a]\ntype = \"category\"\nheader = \"a\"\nbuckets = 1",
        &["`buckets` cannot be 1", "from 2 to 1024"],
    ),
    (
        "[context.a]\ntype = \"category\"\nheader = \"a\"\nbuckets = 4\nscale = 2.0",
        &[
            "stars.toml:8:1",
            "a feature of type \"category\" has no `scale`",
        ],
    ),
    (
        "[context.a]\ntype = \"number\"\nheader = \"a\"\nvalues = [\"x\"]",
        &[
            "a feature of type \"number\" has no `values`",
            "\"category\"",
        ],
    ),
    (
        "[context.a]\ntype = \"boolean\"\nheader = \"a\"\nmissing = 1.0",
        &["a feature of type \"boolean\" has no `missing`"],
    ),
    (
        "[context.a]\ntype = \"number\"\nheader = \"a\"\nscale = 0.0",
        &["stars.toml:7:9", "`scale` cannot be 0.0", "above 0"],
    ),
    (
        "[context.a]\ntype = \"number\"\nheader = \"a\"\ncenter = inf",
        &["`center` cannot be inf"],
    ),
    (
        "[context.a]\ntype = \"number\"\nbody = true",
        &["stars.toml:5:8", "only the length", "type = \"length\""],
    ),
    (
        "[context.a]\ntype = \"length\"\nbody = false",
        &["stars.toml:6:8", "says nothing", "`body = true`"],
    ),
    (
        "[context.a]\ntype = \"category\"\nbuckets = 2\nunit = true",
        &["stars.toml:7:8", "no [unit]", "add [unit]"],
    ),
    (
        "[context.a]\ntype = \"number\"\njson = \"stars\"",
        &["`stars` is not a JSON pointer"],
    ),
    (
        "[context.a]\ntype = \"number\"\nheader = \"a b\"",
        &["`a b` cannot be the name of a header"],
    ),
    (
        "[context.a]\ntype = \"number\"\nquery = \"\"",
        &["cannot be the name of a query"],
    ),
    (
        "[context.A]\ntype = \"number\"\nquery = \"a\"",
        &[
            "stars.toml:4:10",
            "`A` cannot be the name of a feature",
            "lower-case",
        ],
    ),
    (
        "[context.a]\ntype = \"number\"\nquery = \"a\"\n[context.a]\ntype = \"number\"\nquery = \"b\"",
        &["stars.toml:7", "duplicate key"],
    ),
    (
        "[context]",
        &[
            "stars.toml:4:1",
            "there is no feature",
            "[context.category]",
        ],
    ),
    (
        "[context]\na = 1",
        &["stars.toml:5:5", "`a` cannot be 1", "a table with `type`"],
    ),
    (
        "[context.a]\ntype = \"number\"\nheder = \"a\"",
        &[
            "stars.toml:6:1",
            "unknown key `heder` in [context.a]",
            "did you mean `header`?",
        ],
    ),
];

#[test]
fn every_mistake_is_told_where_it_is_with_what_would_be_right() {
    for (context, wanted) in BAD {
        let shown = compiled(context).expect_err(context);
        for part in *wanted {
            assert!(
                shown.contains(part),
                "{context}\nshould tell {part:?}:\n{shown}"
            );
        }
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let bad = "[context.a]\ntype = \"boolean\"\nmissing = 1\n[context.B]\ntype = \"number\"\nscale = -1\nquery = \"b\"\n\
               [context.c]\ntype = \"category\"\nunit = true\n[context.d]\ntype = \"boolean\"\nbody = true\n";
    let shown = compiled(bad).unwrap_err();
    for part in [
        "no source",
        "has no `missing`",
        "`B` cannot be the name",
        "`scale` cannot be -1",
        "no [unit]",
        "needs `values` or `buckets`",
        "only the length",
    ] {
        assert!(shown.contains(part), "should tell {part:?}:\n{shown}");
    }
}

#[test]
fn the_feature_with_which_there_are_too_many_numbers_is_told() {
    let wide = |places: usize| {
        format!(
            "[context.a]\ntype = \"number\"\nquery = \"a\"\n[context.b]\ntype = \"category\"\nquery = \"b\"\nbuckets = {places}\n"
        )
    };
    assert_eq!(
        compiled(&wide(126))
            .unwrap()
            .context
            .as_ref()
            .unwrap()
            .dimension(),
        128
    );
    let shown = compiled(&wide(127)).unwrap_err();
    for part in [
        "stars.toml:7:1",
        "with `b` a context makes 129 numbers",
        "limits.features = 128",
    ] {
        assert!(shown.contains(part), "{part}:\n{shown}");
    }
    let long = format!(
        "[context.a]\ntype = \"category\"\nquery = \"a\"\nvalues = [\"{}\"]",
        "x".repeat(129)
    );
    assert!(
        compiled(&long)
            .unwrap_err()
            .contains("129 bytes is never met")
    );
}
