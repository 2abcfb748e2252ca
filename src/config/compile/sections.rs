//! `[unit]`, `[reward]` and `[label]`: what concerns several of their keys.

use crate::config::matching;
use crate::document::Section;
use crate::experiment::id::Name;
use crate::experiment::reward::{
    Aggregate, Compare, Goal, LabelRule, Learn, RewardKind, RewardRule,
};
use crate::experiment::{MissingUnit, UnitRule, UnitSource};

pub(super) fn unit(section: &Section<'_>) -> Option<UnitRule> {
    let sources: Vec<&str> = ["header", "cookie", "query", "json"]
        .into_iter()
        .filter(|key| section.has(key))
        .collect();
    let [key] = sources[..] else {
        section.reject_section(
            "a unit has exactly one source",
            "give one of `header`, `cookie`, `query` and `json`",
        );
        return None;
    };
    let value = section.string(key)?;
    let issue = section.boolean("issue").unwrap_or(false);
    if issue && key != "cookie" {
        section.reject(
            "issue",
            "only a cookie can be issued",
            "leave `issue` out, or use `cookie`",
        );
    }
    let source = match key {
        "json" => UnitSource::Json(pointer(section, key, value)?),
        "query" if !value.is_empty() => UnitSource::Query(value.to_owned()),
        "header" if matching::is_header_name(value) => {
            UnitSource::Header(value.to_ascii_lowercase())
        }
        "cookie" if matching::is_header_name(value) => UnitSource::Cookie {
            name: value.to_owned(),
            issue,
        },
        _ => {
            section.reject(
                key,
                format!("`{value}` cannot be the name of a {key}"),
                "names are letters, digits and hyphens",
            );
            return None;
        }
    };
    let missing = if section.string("missing") == Some("baseline") {
        MissingUnit::Baseline
    } else {
        MissingUnit::Random
    };
    Some(UnitRule {
        source,
        missing,
        reallocate: section.duration("reallocate").unwrap_or(600_000),
        salt: section.string("salt").unwrap_or_default().to_owned(),
    })
}

/// A JSON pointer (RFC 6901): empty, or `/` and segments in which `~` is written `~0` and `/` is written `~1`.
pub(super) fn pointer(section: &Section<'_>, key: &str, text: &str) -> Option<String> {
    let escapes = text
        .split('~')
        .skip(1)
        .all(|rest| rest.starts_with(['0', '1']));
    if (text.is_empty() || text.starts_with('/')) && escapes {
        return Some(text.to_owned());
    }
    section.reject(
        key,
        format!("`{text}` is not a JSON pointer"),
        "a JSON pointer starts with /, as in \"/user/id\" or \"/predictions/0\"",
    );
    None
}

pub(super) fn reward(section: &Section<'_>) -> Option<RewardRule> {
    let kind = reward_kind(section)?;
    let aggregate = match section.string("aggregate") {
        Some("last") => Aggregate::Last,
        Some("sum") => Aggregate::Sum,
        Some("mean") => Aggregate::Mean,
        Some("max") => Aggregate::Max,
        _ => Aggregate::First,
    };
    if (aggregate, kind) == (Aggregate::Sum, RewardKind::Binary) {
        section.reject(
            "aggregate",
            "binary rewards have no sum",
            "use \"max\", or bounded rewards",
        );
    }
    let value = |key: &str| {
        let value = section.number(key)?;
        if let Err(error) = kind.check(value) {
            section.reject(
                key,
                format!("`{key}`: {error}"),
                "it is a reward like any other",
            );
        }
        Some(value)
    };
    let (default, on_failure) = (value("default"), value("on_failure"));
    let learn = match section.string("learn") {
        Some("close") => Learn::Close,
        Some("arrival") => Learn::Arrival,
        _ if default.is_some() => Learn::Close,
        _ => Learn::Arrival,
    };
    let goal = if section.string("goal") == Some("minimize") {
        Goal::Minimize
    } else {
        Goal::Maximize
    };
    Some(RewardRule {
        kind,
        window: section.duration("window")?,
        default,
        aggregate,
        goal,
        learn,
        on_failure,
    })
}

/// The metric under which the reward is posted. The truth has no name, so there can be no labels then.
pub(super) fn reward_metric(section: &Section<'_>, has_label: bool) -> Option<Name> {
    if has_label {
        section.reject_key(
            "metric",
            "where clients post labels, the reward is their score, and not a metric",
            "leave out `metric`, or [label]",
        );
    }
    let metric = Name::new(section.string("metric")?);
    metric
        .map_err(|error| section.reject("metric", "`metric` is no name", error.to_string()))
        .ok()
}

/// The header of `key`, in lower case.
pub(super) fn reward_key(section: &Section<'_>, has_token: bool) -> Option<String> {
    if !has_token {
        section.reject(
            "key",
            "rewards by key need a client token: keys may be guessed, decision ids cannot",
            "set auth.client_token in pointsman.toml (or POINTSMAN_AUTH_CLIENT_TOKEN), or leave `key` out",
        );
    }
    let key = section.section("key")?;
    let header = key.string("header")?;
    if !matching::is_header_name(header) {
        key.reject(
            "header",
            format!("`{header}` cannot be the name of a header"),
            "names are letters, digits and hyphens",
        );
        return None;
    }
    Some(header.to_ascii_lowercase())
}

fn reward_kind(section: &Section<'_>) -> Option<RewardKind> {
    let word = section.string("kind")?;
    if word == "bounded" {
        for key in ["min", "max"].into_iter().filter(|key| !section.has(key)) {
            section.reject(
                "kind",
                format!("bounded rewards need `{key}`"),
                "give the least reward as `min` and the greatest as `max`",
            );
        }
        let (min, max) = (section.number("min")?, section.number("max")?);
        if min >= max {
            section.reject(
                "max",
                format!("max = {max} is not above min = {min}"),
                "`min` is the least reward, `max` the greatest",
            );
            return None;
        }
        return Some(RewardKind::Bounded { min, max });
    }
    for key in ["min", "max"].into_iter().filter(|key| section.has(key)) {
        section.reject_key(
            key,
            format!("{word} rewards have no `{key}`"),
            "leave it out, or use kind = \"bounded\"",
        );
    }
    match word {
        "binary" => Some(RewardKind::Binary),
        "real" => Some(RewardKind::Real),
        _ => None,
    }
}

pub(super) fn label(section: &Section<'_>, reward: Option<RewardKind>) -> Option<LabelRule> {
    let prediction = section
        .string("prediction")
        .and_then(|text| pointer(section, "prediction", text));
    let compare = match (section.section("compare"), section.string("compare")) {
        (Some(table), _) => Compare::Within(table.number("within")?),
        (None, Some("absolute_error")) => Compare::AbsoluteError,
        _ => Compare::Equals,
    };
    match (compare, reward) {
        (Compare::AbsoluteError, Some(RewardKind::Binary | RewardKind::Real)) => {
            section.reject(
                "compare",
                "\"absolute_error\" needs bounded rewards",
                "use kind = \"bounded\" with min and max, or compare = { within = 1 }",
            );
        }
        (Compare::Equals | Compare::Within(_), Some(RewardKind::Bounded { min, max }))
            if min > 0.0 || max < 1.0 =>
        {
            section.reject(
                "compare",
                "the scores 0 and 1 are not within the reward's min and max",
                "use kind = \"binary\", or compare = \"absolute_error\"",
            );
        }
        _ => {}
    }
    Some(LabelRule {
        prediction: prediction?,
        compare,
    })
}
