//! The JSON Schema and the reference of the files that people write, from the same tables that read them.

use serde_json::{Map, Value, json};

use super::{fields, settings};
use crate::document::{Default, Field, Kind, quoted};
use crate::policy;

/// The JSON Schema (draft 2020-12) of a policy file.
pub fn schema() -> Value {
    let mut schema = object(fields::POLICY_FILE);
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("Pointsman policy file");
    let kinds: Map<String, Value> = policy::KINDS
        .iter()
        .map(|kind| {
            let mut table = object(kind.fields);
            table["description"] = json!(kind.summary);
            (kind.name.to_owned(), table)
        })
        .collect();
    schema["properties"]["policy"] = json!({
        "type": "object",
        "description": "How arms are chosen: exactly one [policy.KIND].",
        "properties": kinds,
        "additionalProperties": false,
        "minProperties": 1,
        "maxProperties": 1,
    });
    schema
}

fn object(fields: &[Field]) -> Value {
    let properties: Map<String, Value> = fields
        .iter()
        .map(|field| (field.key.to_owned(), property(field)))
        .collect();
    let required: Vec<&str> = fields
        .iter()
        .filter(|field| field.default == Default::Required)
        .map(|field| field.key)
        .collect();
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

fn property(field: &Field) -> Value {
    let mut property = value(field.kind);
    property["description"] = json!(field.doc);
    if let Default::Is(text) = field.default
        && let Ok(value) = serde_json::from_str::<Value>(text)
    {
        property["default"] = value;
    }
    property
}

fn value(kind: Kind) -> Value {
    match kind {
        Kind::Text => json!({ "type": "string" }),
        Kind::Choice(words) => json!({ "enum": words }),
        Kind::Boolean => json!({ "type": "boolean" }),
        Kind::Integer(low, high) => json!({ "type": "integer", "minimum": low, "maximum": high }),
        Kind::Number(range) => {
            let mut number = json!({ "type": "number" });
            if range.low > f64::MIN {
                number[if range.low_included {
                    "minimum"
                } else {
                    "exclusiveMinimum"
                }] = json!(range.low);
            }
            if range.high < f64::MAX {
                number[if range.high_included {
                    "maximum"
                } else {
                    "exclusiveMaximum"
                }] = json!(range.high);
            }
            number
        }
        Kind::Duration { .. } => json!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$" }),
        Kind::Texts => json!({ "type": "array", "items": { "type": "string" } }),
        Kind::Integers(low, high) => {
            json!({ "type": "array", "items": { "type": "integer", "minimum": low, "maximum": high } })
        }
        Kind::TextMap => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
        Kind::Table(fields) => object(fields),
        Kind::Tables(fields) => json!({ "type": "array", "items": object(fields) }),
        Kind::ChoiceOrTable(words, fields) => {
            json!({ "oneOf": [{ "enum": words }, object(fields)] })
        }
        Kind::PerKey(kind) => json!({ "type": "object", "additionalProperties": value(*kind) }),
        Kind::OneOrPerKey(kind) => {
            json!({ "oneOf": [value(*kind), value(Kind::PerKey(kind))] })
        }
        Kind::Open => json!({ "type": "object" }),
    }
}

/// `docs/policy-file.md`: every key of a policy file.
pub fn policy_file_reference() -> String {
    let mut page = String::from(
        "# The policy file\n\n\
         One TOML file in the policies folder is one experiment. This page is made from the tables that read the files\n\
         (`POINTSMAN_WRITE_DOCS=1 cargo test --test config` writes it anew). Unknown keys are errors.\n\n",
    );
    section(&mut page, "The top of the file", "", fields::POLICY_FILE);
    page.push_str("\n## Policies\n\nExactly one of these tables.\n\n");
    combinations(&mut page);
    for kind in policy::KINDS {
        page.push_str(&format!(
            "\n### `[policy.{}]`\n\n{}.\n\n{}\n\n",
            kind.name, kind.summary, kind.guide
        ));
        rows(&mut page, kind.fields);
        page.push_str(&format!("\n```toml\n{}\n```\n", kind.example.trim()));
    }
    page
}

/// Which policy takes what. Everything else is refused.
fn combinations(page: &mut String) {
    let shared = [
        policy::WARM_UP.key,
        policy::HALF_LIFE.key,
        policy::SLIDING_WINDOW.key,
        policy::prior::PRIOR.key,
    ];
    let heads: Vec<String> = shared.iter().map(|key| format!("`{key}`")).collect();
    page.push_str(&format!(
        "| policy | rewards | `floor` by default | {} | `[unit]` | context |\n|---|---|---|{}---|---|\n",
        heads.join(" | "),
        "---|".repeat(shared.len())
    ));
    let mark = |taken: bool| if taken { "yes" } else { "—" };
    for kind in policy::KINDS {
        let floor = if kind.explores {
            "0"
        } else {
            "min(0.01, 0.1 / arms)"
        };
        let taken: Vec<&str> = shared.iter().map(|key| mark(kind.takes(key))).collect();
        page.push_str(&format!(
            "| `{}` | {} | {floor} | {} | {} | {} |\n",
            kind.name,
            kind.rewards.join(", "),
            taken.join(" | "),
            mark(kind.unit),
            mark(kind.context),
        ));
    }
    page.push_str(
        "\nEvery policy takes a `floor`, and `goal` and `weight` work under each. `prior` stands for a prior in the policy's table and for those of \
         single arms (only without a context). What a row does not have is an error.\n",
    );
}

/// `docs/settings.md`: every key of `pointsman.toml`.
pub fn settings_reference() -> String {
    let mut page = String::from(
        "# pointsman.toml\n\n\
         How the server runs. Every key may be left out. Each can be set by an environment variable as well\n\
         (`listen.proxy` by `POINTSMAN_LISTEN_PROXY`); flags beat variables, which beat the file. This page is made from the\n\
         tables that read the file (`POINTSMAN_WRITE_DOCS=1 cargo test --test config` writes it anew).\n",
    );
    for field in settings::FIELDS {
        if let Kind::Table(fields) = field.kind {
            section(&mut page, &format!("`[{}]`", field.key), field.doc, fields);
        }
    }
    page
}

/// Adds a section of a reference to `page` and, after it, the sections within it.
pub fn section(page: &mut String, title: &str, doc: &str, fields: &'static [Field]) {
    section_within(page, title, doc, fields, "");
}

/// `path` is what the tables within it are called by, with a dot at its end; of the top of a file it is empty.
fn section_within(page: &mut String, title: &str, doc: &str, fields: &'static [Field], path: &str) {
    page.push_str(&format!("\n## {title}\n\n"));
    if !doc.is_empty() {
        page.push_str(&format!("{doc}\n\n"));
    }
    rows(page, fields);
    for field in fields {
        let name = format!("{path}{}", field.key);
        let (title, inner) = match field.kind {
            Kind::Table(inner) => (format!("`[{name}]`"), inner),
            Kind::Tables(inner) => (format!("`[[{name}]]`"), inner),
            Kind::PerKey(Kind::Table(inner)) => (format!("`[{name}.NAME]`"), *inner),
            _ => continue,
        };
        section_within(page, &title, field.doc, inner, &format!("{name}."));
    }
}

fn rows(page: &mut String, fields: &[Field]) {
    page.push_str("| key | takes | default | meaning |\n|---|---|---|---|\n");
    for field in fields {
        let takes = match field.kind {
            Kind::Table(_) => "a table".to_owned(),
            Kind::Tables(_) => "an array of tables".to_owned(),
            Kind::PerKey(Kind::Table(_)) => "a table for each name".to_owned(),
            Kind::ChoiceOrTable(words, inner) => {
                let example: Vec<String> = inner
                    .iter()
                    .map(|field| format!("{} = …", field.key))
                    .collect();
                format!("{}, or `{{ {} }}`", quoted(words), example.join(", "))
            }
            kind => kind.describe(),
        };
        let default = match field.default {
            Default::Required => "required".to_owned(),
            Default::Is(text) => format!("`{text}`"),
            Default::Depends(words) => words.to_owned(),
            Default::Off => "—".to_owned(),
        };
        let doc = field.doc.replace('|', "\\|");
        page.push_str(&format!(
            "| `{}` | {takes} | {default} | {doc} |\n",
            field.key
        ));
    }
}

/// A commented `pointsman.toml`: every key with its default, commented out.
pub fn commented_settings() -> String {
    let mut text = String::from(
        "# How Pointsman runs. Every key may be left out; the values shown are the defaults.\n\
         # Environment variables beat this file: listen.proxy is POINTSMAN_LISTEN_PROXY, and so on.\n",
    );
    for section in settings::FIELDS {
        let Kind::Table(fields) = section.kind else {
            continue;
        };
        text.push_str(&format!("\n# {}\n[{}]\n", section.doc, section.key));
        for field in fields {
            let value = match field.default {
                Default::Is(value) | Default::Depends(value) => value,
                _ => "\"0.0.0.0:8081\"",
            };
            text.push_str(&format!("# {}\n# {} = {value}\n", field.doc, field.key));
        }
    }
    text
}
