//! What is made from the tables of keys: reference pages, commented settings, the schema.

use std::fs;
use std::path::{Path, PathBuf};

use pointsman::config::reference;
use pointsman::config::settings::parse;

use super::settings;

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
    let parsed = parse("pointsman.toml", &uncommented, &[]);
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
