//! The keys of a policy file. Reading, the JSON Schema and the reference all come from these tables.

mod upstream;

use crate::document::{Default, Field, Kind, Range};
use crate::experiment::context::MAX_DIMENSION;
use crate::policy::prior;
use upstream::{PROTOCOLS, REWRITE_PATH, UPSTREAM};

const fn required(key: &'static str, kind: Kind, doc: &'static str) -> Field {
    Field {
        key,
        kind,
        default: Default::Required,
        doc,
    }
}

const fn optional(
    key: &'static str,
    kind: Kind,
    default: &'static str,
    doc: &'static str,
) -> Field {
    Field {
        key,
        kind,
        default: Default::Is(default),
        doc,
    }
}

const fn depends(key: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Field {
    Field {
        key,
        kind,
        default: Default::Depends(default),
        doc,
    }
}

const fn off(key: &'static str, kind: Kind, doc: &'static str) -> Field {
    Field {
        key,
        kind,
        default: Default::Off,
        doc,
    }
}

/// The top of a policy file.
pub const POLICY_FILE: &[Field] = &[
    depends(
        "name",
        Kind::Text,
        "the file's stem",
        "The experiment's name: letters, digits and inner hyphens, at most 63 of the first two.",
    ),
    optional("description", Kind::Text, "\"\"", "One line for people."),
    optional(
        "epoch",
        Kind::Integer(1, 65_535),
        "1",
        "Raising it starts a new epoch: every arm begins anew, and rewards of older decisions are retired.",
    ),
    required(
        "match",
        Kind::Table(MATCH),
        "Which requests belong to this experiment. Every given condition must hold; of several experiments the most specific wins: exact path, longer prefix, host, more headers, methods.",
    ),
    required(
        "policy",
        Kind::Open,
        "How arms are chosen: exactly one table [policy.KIND].",
    ),
    off(
        "unit",
        Kind::Table(UNIT),
        "What is randomised. Without it each request is drawn by itself; with it a unit keeps its arm while the allocation stands.",
    ),
    off(
        "context",
        Kind::PerKey(&Kind::Table(FEATURE)),
        "What is looked at besides the arms: a table [context.NAME] for each feature, NAME being lower-case letters, digits, _ and -. Contextual policies learn from it, and every decision's journal line carries it. A value that a request does not have is missing, which is no error.",
    ),
    required("reward", Kind::Table(REWARD), "What a reward is."),
    off(
        "label",
        Kind::Table(LABEL),
        "Lets clients post the true label instead of a reward; Pointsman compares it with the arm's prediction.",
    ),
    off(
        "shadow",
        Kind::Table(SHADOW),
        "Copies requests to arms that do not serve them and throws the responses away, so that one label scores every arm that answered. \
         An arm with weight = 0 gets no traffic under any policy and may shadow all the same. How to use it: docs/shadow.md.",
    ),
    required("arm", Kind::Tables(ARM), "The alternatives, 1 to 100."),
    off(
        "upstream",
        Kind::Table(UPSTREAM),
        "How the arms are reached: time-outs, protocol, what is rewritten, limits, retries, health. Every key may be left out.",
    ),
];

const MATCH: &[Field] = &[
    required(
        "path",
        Kind::Text,
        "The raw path without query: exact, or, ending in /*, anything below it. `/a/*` does not match `/a`.",
    ),
    depends("methods", Kind::Texts, "any", "HTTP methods, in capitals."),
    off("host", Kind::Text, "The request's host, without its port."),
    off(
        "headers",
        Kind::TextMap,
        "Headers that must have exactly these values.",
    ),
];

const UNIT: &[Field] = &[
    off(
        "header",
        Kind::Text,
        "The unit is the value of this request header. Give exactly one of header, cookie, query and json.",
    ),
    off(
        "cookie",
        Kind::Text,
        "The unit is the value of this cookie.",
    ),
    off(
        "query",
        Kind::Text,
        "The unit is the value of this query parameter.",
    ),
    off(
        "json",
        Kind::Text,
        "The unit is the text or number at this JSON pointer in the request's body, which is read whole for it (limits.buffered_body).",
    ),
    optional(
        "issue",
        Kind::Boolean,
        "false",
        "With cookie: set one where it is missing.",
    ),
    optional(
        "missing",
        Kind::Choice(&["random", "baseline"]),
        "\"random\"",
        "A request without a unit is drawn by itself and journalled without one (\"random\"), or gets the baseline and teaches nothing (\"baseline\"). Counted either way.",
    ),
    optional(
        "reallocate",
        Kind::Duration { zero: true },
        "\"10m\"",
        "A bandit moves units at most this often.",
    ),
    optional(
        "salt",
        Kind::Text,
        "\"\"",
        "A new salt randomises all units anew.",
    ),
];

/// A table of `[context]`.
pub const FEATURE: &[Field] = &[
    required(
        "type",
        Kind::Choice(&["number", "category", "boolean", "length"]),
        "\"number\": scaled. \"length\": the characters of a text (of the body the bytes), scaled. \"boolean\": 1 for true or 1, else 0. \"category\": a text with a place for each value. A request's texts are cut after 128 bytes.",
    ),
    off(
        "header",
        Kind::Text,
        "The feature is the value of this request header. Give exactly one of header, query, cookie, json, body and unit.",
    ),
    off(
        "query",
        Kind::Text,
        "The feature is the value of this query parameter.",
    ),
    off(
        "cookie",
        Kind::Text,
        "The feature is the value of this cookie.",
    ),
    off(
        "json",
        Kind::Text,
        "The feature is what is at this JSON pointer in the request's body, which is read whole for it (limits.buffered_body).",
    ),
    off(
        "body",
        Kind::Boolean,
        "true: the feature is the length of the body, which is read whole for it (limits.buffered_body).",
    ),
    off(
        "unit",
        Kind::Boolean,
        "true: the feature is the unit's key; needs [unit]. The journal's context then has the key as it is, unlike the decision's `unit`.",
    ),
    off(
        "values",
        Kind::Texts,
        "Of a category: its known values. Each has a place, and all others share one more; a missing one has none.",
    ),
    off(
        "buckets",
        Kind::Integer(2, MAX_DIMENSION as i64),
        "Of a category whose values are not known: so many places, each value in one by its hash.",
    ),
    optional(
        "center",
        Kind::Number(Range::ANY),
        "0.0",
        "Of a number or length: x = (value - center) / scale, at most 1e6 in magnitude.",
    ),
    optional(
        "scale",
        Kind::Number(Range::POSITIVE),
        "1.0",
        "Of a number or length: see center.",
    ),
    optional(
        "log",
        Kind::Boolean,
        "false",
        "Of a number or length: take ln(1 + value) first; values below 0 count as 0.",
    ),
    optional(
        "missing",
        Kind::Number(Range::ANY),
        "0.0",
        "Of a number or length: what a missing one counts as, before all this.",
    ),
];

const REWARD: &[Field] = &[
    required(
        "kind",
        Kind::Choice(&["binary", "bounded", "real"]),
        "\"binary\": 0 or 1. \"bounded\": in [min, max]; enters Beta posteriors as (r - min) / (max - min), which is approximate. \"real\": any number up to 1e9 in magnitude.",
    ),
    off(
        "min",
        Kind::Number(Range::closed(-1e9, 1e9)),
        "Least reward; for bounded ones, required.",
    ),
    off(
        "max",
        Kind::Number(Range::closed(-1e9, 1e9)),
        "Greatest reward; for bounded ones, required.",
    ),
    required(
        "window",
        Kind::Duration { zero: false },
        "How long after its decision a reward counts. Later ones are recorded.",
    ),
    off(
        "default",
        Kind::Number(Range::closed(-1e9, 1e9)),
        "Credited when the window closes without a reward. Without it such decisions are ignored.",
    ),
    optional(
        "aggregate",
        Kind::Choice(&["first", "last", "sum", "mean", "max"]),
        "\"first\"",
        "What several rewards for one decision make. \"sum\" and \"mean\" need an `id` with each reward; \"sum\" needs bounded or real rewards.",
    ),
    optional(
        "goal",
        Kind::Choice(&["maximize", "minimize"]),
        "\"maximize\"",
        "Whether more is better.",
    ),
    depends(
        "learn",
        Kind::Choice(&["arrival", "close"]),
        "\"close\" with a default, else \"arrival\"",
        "\"arrival\" learns a reward when it comes. \"close\" learns rewards and defaults together when the window closes, so that slow arms are not favoured or punished.",
    ),
    off(
        "on_failure",
        Kind::Number(Range::closed(-1e9, 1e9)),
        "Credited to a decision whose arm failed to answer. Without it such decisions are ignored.",
    ),
    off(
        "metric",
        Kind::Text,
        "The reward is what is posted as this \"metric\"; a reward without a metric is refused then. Other metrics are recorded and reported, and never learned from. Without it the reward is what is posted without a metric.",
    ),
    off(
        "key",
        Kind::Table(REWARD_KEY),
        "Lets clients post rewards by a key of their own instead of the decision id, until the window has closed and ten minutes more: {\"experiment\", \"key\", \"reward\"}. Needs auth.client_token. A key that several decisions have names none of them.",
    ),
];

const REWARD_KEY: &[Field] = &[required(
    "header",
    Kind::Text,
    "The request header with the key, such as \"x-request-id\" or \"x-amzn-sagemaker-inference-id\": 1 to 256 bytes. A request without one is decided as ever, and counted.",
)];

const LABEL: &[Field] = &[
    required(
        "prediction",
        Kind::Text,
        "JSON pointer of the prediction in the arm's response (of JSON lines, in the first). Such arms are asked for an unencoded body.",
    ),
    optional(
        "compare",
        Kind::ChoiceOrTable(&["equals", "absolute_error"], WITHIN),
        "\"equals\"",
        "\"equals\" and { within = N } give 1 or 0; \"absolute_error\" gives max - |error|, within [min, max], and needs bounded rewards. Numbers compare as numbers.",
    ),
];

const WITHIN: &[Field] = &[required(
    "within",
    Kind::Number(Range::NOT_NEGATIVE),
    "Greatest error that still counts as right.",
)];

const SHADOW: &[Field] = &[
    depends(
        "arms",
        Kind::Texts,
        "every arm",
        "The arms that shadow. None gets a copy of a request that it serves itself.",
    ),
    optional(
        "fraction",
        Kind::Number(Range::closed(0.0, 1.0)),
        "1.0",
        "The part of the sampled decisions whose requests are copied. Which ones follows from a keyed hash of the decision, so it can be recomputed.",
    ),
    optional(
        "concurrency",
        Kind::Integer(1, 10_000),
        "16",
        "Most copies under way for this experiment in one process, from the pick to the end of the response. Those beyond it are skipped and counted. \
         They take up to concurrency times body_limit bytes of memory.",
    ),
    optional(
        "timeout",
        Kind::Duration { zero: false },
        "\"10s\"",
        "How long a copy may take, from its sending to the end of its response; after that the shadow has failed. The client waits for none of it.",
    ),
    optional(
        "body_limit",
        Kind::Integer(0, 1 << 30),
        "1048576",
        "Bytes of a request's body that are copied aside. A request with a longer one is not shadowed, which is counted as skipped.",
    ),
    optional(
        "learn",
        Kind::Boolean,
        "false",
        "true: an arm's posterior learns its scores as a shadow, too. For policies without a context other than exp3, with rewards that are learned on \
         arrival, without default and on_failure. Tests and off-policy estimates never see them.",
    ),
];

const ARM: &[Field] = &[
    required(
        "name",
        Kind::Text,
        "The arm's name, unique in the file; the same grammar as the experiment's.",
    ),
    required(
        "endpoints",
        Kind::Texts,
        "Replicas of this arm as http://HOST:PORT or https://HOST:PORT (port 80 or 443 if left out), balanced by least requests in flight.",
    ),
    optional(
        "weight",
        Kind::Number(Range::closed(0.0, 1e9)),
        "1",
        "Its share under [policy.fixed] and during warm-up, relative to the others. 0 takes the arm out under every policy.",
    ),
    depends(
        "baseline",
        Kind::Boolean,
        "true for the first arm if no arm says so",
        "The arm that answers when nothing can be drawn, and that others are compared with. At most one.",
    ),
    off(
        "prior",
        Kind::Table(prior::FIELDS),
        "What an offline evaluation already knows of this arm.",
    ),
    optional(
        "version",
        Kind::Text,
        "\"\"",
        "A changed version is a new model behind the same name: it starts a new posterior.",
    ),
    depends(
        "protocol",
        PROTOCOLS,
        "[upstream]'s",
        "What is spoken with this arm's endpoints.",
    ),
    depends(
        "host",
        Kind::Text,
        "[upstream]'s",
        "The host that this arm's endpoints see: \"keep\", \"endpoint\" or a host.",
    ),
    depends(
        "rewrite_path",
        Kind::Table(REWRITE_PATH),
        "[upstream]'s",
        "What becomes of the path on the way to this arm. { from = \"/\", to = \"/\" } changes nothing.",
    ),
    off(
        "model",
        Kind::Text,
        "What replaces the text at model_field of [upstream] in requests to this arm. Other arms get what the client wrote.",
    ),
];
