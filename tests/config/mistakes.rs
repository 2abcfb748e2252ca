//! What may be wrong with `[upstream]`, and what is told of it.

use super::with;
use crate::problems;

/// What stands at the file's end, and what the problem must say.
const BAD: &[(&str, &[&str])] = &[
    (
        "[upstream]\ntimeout = \"1s\"",
        &["unknown key `timeout` in [upstream]", "`total_timeout`"],
    ),
    (
        "[upstream]\nconnect_timeout = \"0s\"",
        &["`connect_timeout` cannot be \"0s\"", "above zero"],
    ),
    (
        "[upstream]\ntotal_timeout = \"1000d\"",
        &[
            "bad.toml:15:17",
            "`total_timeout` is longer than a year",
            "365d",
        ],
    ),
    (
        "[upstream]\nprotocol = \"h2\"",
        &["`protocol` cannot be \"h2\"", "`auto`, `http1` and `http2`"],
    ),
    (
        "[upstream]\nprotocol = \"http3\"",
        &["`protocol` cannot be", "did you mean"],
    ),
    (
        "[upstream]\nhost = \"http://h\"",
        &["`http://h` is not a host", "without scheme and path"],
    ),
    ("[upstream]\nhost = \"\"", &["`` is not a host"]),
    (
        "[upstream]\nhost = \"h:99999\"",
        &["`h:99999` is not a host"],
    ),
    ("[upstream]\nhost = \"h\\r\\nx: y\"", &["is not a host"]),
    (
        "[upstream]\ndeadline_header = \"a b\"",
        &["`a b` cannot be the name of a header"],
    ),
    (
        "[upstream]\ndeadline_header = \"Content-Length\"",
        &["`Content-Length` has a meaning of its own"],
    ),
    (
        "[upstream]\ndeadline_header = \"x-pointsman-arm\"",
        &["has a meaning of its own"],
    ),
    (
        "[upstream]\nrewrite_path = \"/\"",
        &["`rewrite_path` cannot be \"/\"", "`from` and `to`"],
    ),
    (
        "[upstream]\nrewrite_path = { from = \"/v1/\" }",
        &["`to` is missing in [upstream.rewrite_path]"],
    ),
    (
        "[upstream]\nrewrite_path = { from = \"/v1\", to = \"/\" }",
        &[
            "bad.toml:15:25",
            "`/v1` cannot be the start of a path",
            "starts and ends with /",
        ],
    ),
    (
        "[upstream]\nrewrite_path = { from = \"/v1/\", to = \"v2/\" }",
        &["`v2/` cannot be the start of a path"],
    ),
    (
        "[upstream]\nrewrite_path = { from = \"/v1/\", to = \"//\" }",
        &["no empty segments"],
    ),
    (
        "[upstream]\nrewrite_path = { from = \"/v1/\", to = \"/../\" }",
        &["no dot segments"],
    ),
    (
        "[upstream]\nrewrite_path = { from = \"/v1/\", to = \"/%2E%2e/\" }",
        &["no encoded dots"],
    ),
    (
        "[upstream]\nrewrite_path = { from = \"/v1/\", to = \"/a b/\" }",
        &["percent-encoded"],
    ),
    (
        "[upstream]\nrewrite_path = { from = \"/v1/\", to = \"/a%4/\" }",
        &["percent-encoded"],
    ),
    (
        "[upstream]\nrewrite_path = { from = \"/v1/\", to = \"/a?b/\" }",
        &["no query"],
    ),
    (
        "[upstream]\nrewrite_path = { from = \"/v2/\", to = \"/\" }",
        &[
            "no request of this experiment has a path that starts with `/v2/`",
            "[match]",
        ],
    ),
    (
        "[upstream]\nmodel_field = \"model\"",
        &["`model` is not a JSON pointer"],
    ),
    (
        "[upstream]\nmodel_field = \"\"",
        &["the body as a whole", "\"/model\""],
    ),
    (
        "[upstream]\nmodel_field = \"/model\"",
        &["bad.toml:15:15", "no arm has a `model`"],
    ),
    (
        "[upstream]\nmax_in_flight = -1",
        &["`max_in_flight` cannot be -1", "from 0 to"],
    ),
    (
        "[upstream]\nmax_pending = 0",
        &["`max_pending` cannot be 0", "from 1 to"],
    ),
    ("[upstream]\nslow_start = 5", &["`slow_start` cannot be 5"]),
    (
        "[upstream.retry]\nattempts = 11",
        &["`attempts` cannot be 11", "from 0 to 10"],
    ),
    (
        "[upstream.retry]\nstatuses = [502, 200]",
        &[
            "`statuses` cannot be [502, 200]",
            "a list of whole numbers from 400 to 599",
        ],
    ),
    (
        "[upstream.retry]\nstatuses = 502",
        &["`statuses` cannot be 502"],
    ),
    (
        "[upstream.retry]\nstatuses = [\"502\"]",
        &["`statuses` cannot be"],
    ),
    (
        "[upstream.retry]\nstatuses = [502, 503, 502]",
        &["bad.toml:15:23", "502 is given twice"],
    ),
    (
        "[upstream.retry]\nbudget = 1.5",
        &["`budget` cannot be 1.5", "at most 1"],
    ),
    (
        "[upstream.retry]\nbudget_per_second = -1",
        &["`budget_per_second` cannot be -1"],
    ),
    (
        "[upstream.retry]\nbuget = 1",
        &[
            "unknown key `buget` in [upstream.retry]",
            "did you mean `budget`?",
        ],
    ),
    (
        "[upstream.health]\ninterval = \"1s\"",
        &["bad.toml:14:1", "needs `path` or `grpc`"],
    ),
    (
        "[upstream.health]\npath = \"/\"\ngrpc = \"\"",
        &["bad.toml:16:1", "exclude each other"],
    ),
    (
        "[upstream.health]\npath = \"healthz\"",
        &["`healthz` cannot be asked for", "starts with /"],
    ),
    (
        "[upstream.health]\npath = \"/a b\"",
        &["`/a b` cannot be asked for"],
    ),
    (
        "[upstream.health]\npath = \"/a#b\"",
        &["cannot be asked for"],
    ),
    (
        "[upstream.health]\npath = \"/a\\r\\nx: y\"",
        &["cannot be asked for"],
    ),
    (
        "[upstream.health]\ngrpc = \"a b\"",
        &["`a b` cannot be the name of a service"],
    ),
    (
        "[upstream]\nprotocol = \"http1\"\n[upstream.health]\ngrpc = \"\"",
        &["`a` speaks HTTP/1.1", "\"http2\""],
    ),
    (
        "[upstream.health]\npath = \"/\"\ntimeout = \"6s\"",
        &["bad.toml:16:11", "longer than the `interval`"],
    ),
    (
        "[upstream.health]\npath = \"/\"\nhealthy = 0",
        &["`healthy` cannot be 0"],
    ),
    (
        "[upstream.health]\npath = \"/\"\nunhealthy = 101",
        &["`unhealthy` cannot be 101"],
    ),
    (
        "[upstream.ejection]\nconsecutive_failures = -1",
        &["`consecutive_failures` cannot be -1"],
    ),
    (
        "[upstream.ejection]\nsuccess_rate = 0",
        &["`success_rate` cannot be 0", "above 0"],
    ),
    (
        "[upstream.ejection]\nminimum_requests = 5",
        &["bad.toml:15:1", "says nothing without `success_rate`"],
    ),
    (
        "[upstream.ejection]\nsuccess_rate = 0.5\nminimum_requests = 0",
        &["`minimum_requests` cannot be 0"],
    ),
    (
        "[upstream.ejection]\nbase = \"10m\"\nmax = \"1m\"",
        &["bad.toml:16:7", "`max`, is shorter than the first"],
    ),
    (
        "[upstream.ejection]\ninterval = \"0s\"",
        &["`interval` cannot be \"0s\""],
    ),
    (
        "[upstream.ejection]\nmax_share = 2",
        &["`max_share` cannot be 2", "at most 1"],
    ),
    (
        "[upstream.tls]",
        &["bad.toml:14:1", "no arm has an https:// endpoint"],
    ),
    (
        "[upstream.tls]\nca_file = \"\"",
        &["`ca_file` is empty", "PEM"],
    ),
    (
        "[upstream.tls]\ncertificate = \"c.pem\"",
        &["bad.toml:15:1", "`certificate` needs `key`"],
    ),
    (
        "[upstream.tls]\nkey = \"c.key\"",
        &["`key` needs `certificate`"],
    ),
    (
        "[upstream.tls]\nserver_name = \"h:1\"",
        &["`h:1` is not the name of a server"],
    ),
    (
        "[upstream.tls]\nverify = \"no\"",
        &["`verify` cannot be \"no\"", "true or false"],
    ),
    // These stand in the second arm.
    (
        "protocol = \"http\"",
        &["bad.toml:14:12", "`protocol` cannot be \"http\""],
    ),
    ("host = \"a/b\"", &["bad.toml:14:8", "`a/b` is not a host"]),
    (
        "rewrite_path = { from = \"/v2/\", to = \"/\" }",
        &["no request of this experiment"],
    ),
    (
        "model = \"m\"",
        &[
            "bad.toml:14:1",
            "`model` needs `model_field` in [upstream]",
            "\"/model\"",
        ],
    ),
    (
        "model = \"\"\n[upstream]\nmodel_field = \"/model\"",
        &["`model` is empty"],
    ),
];

#[test]
fn every_mistake_is_told_where_it_is_with_what_would_be_right() {
    for (wrong, wanted) in BAD {
        let shown = problems(&[("bad", &with("", "", wrong))]).join("\n");
        for part in *wanted {
            assert!(
                shown.contains(part),
                "{wrong:?} should tell {part:?}:\n{shown}"
            );
        }
        assert!(shown.contains("help"), "{shown}");
    }
}

#[test]
fn what_is_wrong_with_the_field_is_told_once() {
    let more = "model = \"m\"\n[upstream]\nmodel_field = \"model\"\n";
    let shown = problems(&[("bad", &with("", "", more))]);
    assert_eq!(shown.len(), 1, "{shown:#?}");
}
