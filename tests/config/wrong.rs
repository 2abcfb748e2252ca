//! Mistakes of one key, and what is told of each.

use super::{GOOD, problems};

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
