//! Arrows only point downwards: a module uses only modules of its own layer or below.

use std::fs;
use std::path::Path;

/// From the bottom to the top. Modules on one line may use each other.
const LAYERS: &[&[&str]] = &[
    &["clock", "chance", "document"],
    &["experiment", "policy", "stats"],
    &["engine", "json"],
    &["decision_id", "secret"],
    &["config", "journal", "rewards"],
    &["simulate", "inspect", "verify", "export"],
    &["http1"],
    &["ledger", "learner", "handover"],
    &["telemetry", "proxy"],
    &["reload"],
    &["admin"],
    &["app"],
    &["cli"],
];

/// Nouns and chance are one floor: an id needs a hash, a hash needs an id.
const SAME_FLOOR: &[(&str, &str)] = &[("chance", "experiment"), ("document", "policy")];

fn layer_of(module: &str) -> usize {
    LAYERS
        .iter()
        .position(|layer| layer.contains(&module))
        .unwrap_or_else(|| panic!("src/{module} has no layer: add it to tests/it/layers.rs"))
}

fn check(path: &Path, module: &str, violations: &mut Vec<String>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            check(&entry.unwrap().path(), module, violations);
        }
        return;
    }
    if path.extension().is_none_or(|extension| extension != "rs") {
        return;
    }
    for line in fs::read_to_string(path).unwrap().lines() {
        let Some((_, used)) = line.split_once("crate::") else {
            continue;
        };
        if line.trim_start().starts_with("//") {
            continue;
        }
        let used: String = used
            .chars()
            .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
            .collect();
        let exempt = SAME_FLOOR.contains(&(module, used.as_str()));
        if !used.is_empty() && layer_of(&used) > layer_of(module) && !exempt {
            violations.push(format!("{}: {}", path.display(), line.trim()));
        }
    }
}

#[test]
fn modules_use_only_what_is_below_them() {
    let mut violations = Vec::new();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap() {
        let path = entry.unwrap().path();
        let module = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if module != "lib" && module != "main" {
            check(&path, &module, &mut violations);
        }
    }
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}
