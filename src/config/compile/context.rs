//! `[context.NAME]`: what is looked at besides the arms, and how it becomes numbers.

use super::sections::pointer;
use crate::config::{fields, matching};
use crate::document::{Section, quoted};
use crate::experiment::context::{ContextRule, Encoding, Feature, MAX_TEXT, Scale, Source};

const SOURCES: &[&str] = &["header", "query", "cookie", "json", "body", "unit"];
const SCALING: &[&str] = &["center", "scale", "log", "missing"];
const PLACES: &[&str] = &["values", "buckets"];
const MAX_NAME: usize = 63;

/// Reads all features of a policy file, in its order; `limit` is the most numbers that they may make.
pub(super) fn read(top: &Section<'_>, limit: usize) -> Option<ContextRule> {
    let table = top.section_as_open("context")?;
    let names = table.given();
    if names.is_empty() {
        table.reject_section(
            "there is no feature",
            "give at least one table such as [context.category]",
        );
        return None;
    }
    let mut features = Vec::new();
    let mut dimension = 1;
    for name in &names {
        check_name(&table, name);
        let Some(section) = table.section_as(name, fields::FEATURE) else {
            continue;
        };
        let Some(feature) = feature(name, &section, top.has("unit")) else {
            continue;
        };
        let before = dimension;
        dimension += feature.encoding.width();
        if before <= limit && dimension > limit {
            section.reject_section(
                format!("with `{name}` a context makes {dimension} numbers, the intercept included, which is more than limits.features = {limit}"),
                "leave features out, give categories fewer values or buckets, or raise limits.features in pointsman.toml",
            );
        }
        features.push(feature);
    }
    (features.len() == names.len() && dimension <= limit).then(|| ContextRule::new(features))
}

fn check_name(table: &Section<'_>, name: &str) {
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(plain) {
        table.reject_key(
            name,
            format!("`{name}` cannot be the name of a feature"),
            format!("names are 1 to {MAX_NAME} lower-case letters, digits, _ and -"),
        );
    }
}

fn feature(name: &str, section: &Section<'_>, has_unit: bool) -> Option<Feature> {
    let source = source(section, has_unit);
    let encoding = encoding(section);
    if let (Some(Source::Body), Some(encoding)) = (&source, &encoding)
        && !matches!(encoding, Encoding::Length(_))
    {
        section.reject(
            "type",
            "of the body as a whole there is only the length",
            "use type = \"length\", or json = \"/…\" for a value in the body",
        );
    }
    Some(Feature {
        name: name.into(),
        source: source?,
        encoding: encoding?,
    })
}

fn source(section: &Section<'_>, has_unit: bool) -> Option<Source> {
    let given: Vec<&str> = SOURCES
        .iter()
        .copied()
        .filter(|key| section.has(key))
        .collect();
    let help = || format!("give exactly one of {}", quoted(SOURCES));
    let key = match given[..] {
        [key] => key,
        [] => {
            section.reject_section("this feature has no source", help());
            return None;
        }
        [.., last] => {
            let message = format!(
                "this feature has {} sources: {}",
                given.len(),
                quoted(&given)
            );
            section.reject_key(last, message, help());
            return None;
        }
    };
    match key {
        "body" | "unit" if section.boolean(key)? => {
            if key == "body" {
                return Some(Source::Body);
            }
            if !has_unit {
                section.reject(
                    "unit",
                    "this experiment has no [unit]",
                    "add [unit], or take the feature from elsewhere",
                );
            }
            Some(Source::Unit)
        }
        "body" | "unit" => {
            section.reject(
                key,
                format!("`{key} = false` says nothing"),
                format!("`{key} = true`, or another one of {}", quoted(SOURCES)),
            );
            None
        }
        _ => named(section, key),
    }
}

/// A source that is a text.
fn named(section: &Section<'_>, key: &str) -> Option<Source> {
    let text = section.string(key)?;
    match key {
        "json" => Some(Source::Json(pointer(section, key, text)?.into())),
        "query" if !text.is_empty() => Some(Source::Query(text.into())),
        "header" if matching::is_header_name(text) => {
            Some(Source::Header(text.to_ascii_lowercase().into()))
        }
        "cookie" if matching::is_header_name(text) => Some(Source::Cookie(text.into())),
        _ => {
            section.reject(
                key,
                format!("`{text}` cannot be the name of a {key}"),
                "names are letters, digits and hyphens",
            );
            None
        }
    }
}

fn encoding(section: &Section<'_>) -> Option<Encoding> {
    let kind = section.string("type")?;
    let foreign = match kind {
        "number" | "length" => PLACES.to_vec(),
        "category" => SCALING.to_vec(),
        "boolean" => [PLACES, SCALING].concat(),
        _ => return None,
    };
    for key in foreign.into_iter().filter(|key| section.has(key)) {
        let of = if PLACES.contains(&key) {
            "it is for type = \"category\""
        } else {
            "it is for numbers and lengths"
        };
        section.reject_key(
            key,
            format!("a feature of type \"{kind}\" has no `{key}`"),
            format!("leave it out: {of}"),
        );
    }
    match kind {
        "number" => Some(Encoding::Number(scale(section))),
        "length" => Some(Encoding::Length(scale(section))),
        "boolean" => Some(Encoding::Boolean),
        _ => category(section),
    }
}

fn scale(section: &Section<'_>) -> Scale {
    Scale {
        center: section.number("center").unwrap_or(0.0),
        scale: section.number("scale").unwrap_or(1.0),
        log: section.boolean("log").unwrap_or(false),
        missing: section.number("missing").unwrap_or(0.0),
    }
}

fn category(section: &Section<'_>) -> Option<Encoding> {
    match (section.has("values"), section.has("buckets")) {
        (true, true) => {
            section.reject_key(
                "buckets",
                "`values` and `buckets` exclude each other",
                "give `values` where they are known, else `buckets`",
            );
            None
        }
        (false, false) => {
            section.reject(
                "type",
                "a category needs `values` or `buckets`",
                "give the known values, as in values = [\"clothing\", \"movies\"], or where they are not known, buckets = 16",
            );
            None
        }
        (false, true) => Some(Encoding::Hashed(section.integer("buckets")? as usize)),
        (true, false) => values(section).map(Encoding::OneHot),
    }
}

fn values(section: &Section<'_>) -> Option<Vec<Box<str>>> {
    let texts = section.strings("values");
    if texts.is_empty() {
        section.reject(
            "values",
            "there is no value",
            "give at least one, or `buckets`",
        );
        return None;
    }
    for (index, text) in texts.iter().enumerate() {
        if texts[..index].contains(text) {
            section.reject_item(
                "values",
                index,
                format!("`{text}` is given twice"),
                "leave one out",
            );
        } else if text.len() > MAX_TEXT {
            section.reject_item(
                "values",
                index,
                format!("a value of {} bytes is never met", text.len()),
                format!("texts of requests are cut after {MAX_TEXT} bytes"),
            );
        }
    }
    Some(texts.into_iter().map(Into::into).collect())
}

#[cfg(test)]
mod tests;
