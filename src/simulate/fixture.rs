//! Experiments for the simulation's own tests.

use std::sync::Arc;

use crate::config::compile::{Source, compile};
use crate::config::settings;
use crate::experiment::Experiment;

/// The experiment of a policy file with this policy table, these lines of `[reward]` (a window of a day is added), and these arms.
pub(super) fn experiment(policy: &str, reward: &str, arms: &[&str]) -> Arc<Experiment> {
    let window = if reward.contains("window") {
        ""
    } else {
        "window = \"1d\"\n"
    };
    let mut text = format!("[match]\npath = \"/\"\n{policy}\n[reward]\n{reward}\n{window}");
    for arm in arms {
        text.push_str(&format!(
            "[[arm]]\nname = \"{arm}\"\nendpoints = [\"http://127.0.0.1:1\"]\n"
        ));
    }
    let source = Source {
        file: "policies/fixture.toml".to_owned(),
        stem: "fixture".to_owned(),
        text,
    };
    let settings = settings::parse("", "", &[]).unwrap();
    let loaded = compile(&[source], &settings).unwrap_or_else(|problems| {
        panic!(
            "{}",
            problems.iter().map(ToString::to_string).collect::<String>()
        )
    });
    Arc::clone(&loaded.experiments[0])
}
