//! The keys of an environment file. Reading and the reference in `docs/simulate.md` come from these tables.

use crate::document::{Default, Field, Kind, Range};

/// Longest delay, in rounds: longer than any horizon.
pub(super) const MAX_DELAY: i64 = 1_000_000_000_000;

const fn off(key: &'static str, kind: Kind, doc: &'static str) -> Field {
    Field {
        key,
        kind,
        default: Default::Off,
        doc,
    }
}

const fn is(key: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Field {
    Field {
        key,
        kind,
        default: Default::Is(default),
        doc,
    }
}

const MEANS: Kind = Kind::PerKey(&Kind::Number(Range::closed(-1e9, 1e9)));
const DELAY: Kind = Kind::OneOrPerKey(&Kind::Integer(0, MAX_DELAY));

/// The top of an environment file.
pub const ENVIRONMENT: &[Field] = &[
    Field {
        key: "kind",
        kind: Kind::Choice(&["bernoulli", "gaussian", "dataset"]),
        default: Default::Required,
        doc: "\"bernoulli\": rewards are 1 with the arm's mean as probability, else 0. \"gaussian\": normal around the arm's mean; with bounded rewards, cut off at the range. \"dataset\": each round is a row of a classification file, and the arm that is called like its label is right.",
    },
    off("description", Kind::Text, "One line for people."),
    Field {
        key: "means",
        kind: MEANS,
        default: Default::Depends("needed unless the kind is \"dataset\""),
        doc: "The mean reward of every arm of the policy file, as in { ARM = 0.55, OTHER = 0.5 }.",
    },
    is(
        "sd",
        Kind::OneOrPerKey(&Kind::Number(Range::closed(0.0, 1e9))),
        "1.0",
        "Of gaussian rewards: the standard deviation of all arms, or of each as in { ARM = 2.0 } (others keep 1).",
    ),
    off(
        "file",
        Kind::Text,
        "Of a dataset: the CSV file, beside this one unless the path says otherwise. The last column is the label.",
    ),
    Field {
        key: "header",
        kind: Kind::Boolean,
        default: Default::Depends("whether no feature in the first line is a number"),
        doc: "Of a dataset: whether the first line names the columns.",
    },
    is(
        "reward",
        Kind::Table(REWARD),
        "{ right = 1.0, wrong = 0.0 }",
        "Of a dataset: what the arm that is called like the row's label earns, and what the others earn.",
    ),
    is(
        "delay",
        DELAY,
        "0",
        "Rounds until a reward arrives: one number, or one for each arm as in { ARM = 10 } (others have 0). The reward of round t is seen by the decision of round t + 1 + delay.",
    ),
    off(
        "delay_if_rewarded",
        DELAY,
        "In place of `delay`: the delay of rewards above 0.",
    ),
    off(
        "delay_otherwise",
        DELAY,
        "In place of `delay`: the delay of rewards of 0 and below.",
    ),
    is(
        "post",
        Kind::Choice(&["all", "rewarded"]),
        "\"all\"",
        "Which rewards are posted: \"all\", or only the \"rewarded\" ones, above 0; the others then count as the `default` of the policy file says.",
    ),
    is(
        "round",
        Kind::Duration { zero: false },
        "\"1s\"",
        "How long a round lasts, for the windows and other times of the policy file.",
    ),
    off(
        "phase",
        Kind::Tables(PHASE),
        "How the world changes: from a round on, some arms have other means.",
    ),
];

const REWARD: &[Field] = &[
    is(
        "right",
        Kind::Number(Range::closed(-1e9, 1e9)),
        "1.0",
        "What the arm earns that is called like the row's label.",
    ),
    is(
        "wrong",
        Kind::Number(Range::closed(-1e9, 1e9)),
        "0.0",
        "What any other arm earns.",
    ),
];

/// `[[phase]]`.
pub const PHASE: &[Field] = &[
    Field {
        key: "from",
        kind: Kind::Integer(1, MAX_DELAY),
        default: Default::Required,
        doc: "The first round of the phase; rounds count from 0.",
    },
    Field {
        key: "means",
        kind: MEANS,
        default: Default::Required,
        doc: "The means of some or all arms from then on; the others keep theirs.",
    },
];
