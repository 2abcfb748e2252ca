//! Environment files: what the world of a simulation is like, checked against the policy files that are to live in it.
//!
//! Every problem is told at once and at its place. Not here: drawing rewards (`world`).

use std::io;
use std::sync::Arc;

use super::dataset::Dataset;
use super::fields::ENVIRONMENT;
use crate::document::{Document, Problem, Problems, Section, did_you_mean, quoted};
use crate::experiment::Experiment;
use crate::experiment::reward::RewardKind;

/// A checked environment file.
#[derive(Debug, Clone)]
pub struct Environment {
    /// What rewards come from.
    pub kind: Kind,
    /// The arms, by the names that policy files give them.
    pub arms: Vec<String>,
    /// Of each arm, the rounds until a reward arrives.
    pub delays: Vec<Delay>,
    /// Whether rewards of 0 and below are never posted.
    pub silent: bool,
    /// How long a round lasts, in milliseconds.
    pub round: u64,
    /// What should be looked at, but does not keep the world from being played.
    pub warnings: Vec<Problem>,
}

/// What rewards come from.
#[derive(Debug, Clone)]
pub enum Kind {
    /// 1 with the mean as probability, else 0.
    Bernoulli(Vec<Phase>),
    /// Normal around the mean, with a standard deviation for each arm.
    Gaussian(Vec<Phase>, Vec<f64>),
    /// Rows of a file: the arm that is called like the label is right.
    Dataset {
        /// The rows.
        dataset: Arc<Dataset>,
        /// What the right arm earns.
        right: f64,
        /// What the others earn.
        wrong: f64,
    },
}

/// A stretch of rounds in which the means stay.
#[derive(Debug, Clone, PartialEq)]
pub struct Phase {
    /// Its first round.
    pub from: u64,
    /// The mean reward of each arm.
    pub means: Vec<f64>,
}

/// Rounds from a decision to its reward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Delay {
    /// Of rewards above 0.
    pub rewarded: u64,
    /// Of the others.
    pub otherwise: u64,
}

/// Reads the text of `file` for these experiments. `open` reads the file that a dataset names.
///
/// # Errors
///
/// Every problem, of the environment and between it and the policy files.
pub fn parse(
    file: &str,
    text: &str,
    experiments: &[Arc<Experiment>],
    open: &dyn Fn(&str) -> io::Result<String>,
) -> Result<Environment, Vec<Problem>> {
    let problems = Problems::default();
    let document = Document::parse(file, text, &problems);
    let environment = (!document.is_broken())
        .then(|| {
            let reading = Reading {
                top: document.section(ENVIRONMENT, &problems),
                experiments,
                problems: &problems,
            };
            reading.environment(open)
        })
        .flatten();
    match environment {
        Some(environment) if !problems.has_errors() => Ok(Environment {
            warnings: problems.into_sorted(),
            ..environment
        }),
        _ => Err(problems.into_sorted()),
    }
}

struct Reading<'d> {
    top: Section<'d>,
    experiments: &'d [Arc<Experiment>],
    problems: &'d Problems,
}

impl Reading<'_> {
    /// Looks at everything before it gives up.
    fn environment(&self, open: &dyn Fn(&str) -> io::Result<String>) -> Option<Environment> {
        let word = self.top.string("kind").unwrap_or_default();
        self.misplaced(word);
        let (kind, arms) = match word {
            "bernoulli" | "gaussian" => self.means(word)?,
            "dataset" => self.dataset(open)?,
            _ => return None,
        };
        Some(Environment {
            delays: self.delays(&arms),
            silent: self.top.string("post") == Some("rewarded"),
            round: self.top.duration("round").unwrap_or(1_000),
            kind,
            arms,
            warnings: Vec::new(),
        })
    }

    /// Refuses keys that another kind takes.
    fn misplaced(&self, kind: &str) {
        let only: &[(&str, &[&str])] = &[
            ("means", &["bernoulli", "gaussian"]),
            ("phase", &["bernoulli", "gaussian"]),
            ("sd", &["gaussian"]),
            ("file", &["dataset"]),
            ("header", &["dataset"]),
            ("reward", &["dataset"]),
        ];
        let known = ["bernoulli", "gaussian", "dataset"].contains(&kind);
        for (key, kinds) in only {
            if known && self.top.has(key) && !kinds.contains(&kind) {
                let message = format!("a {kind} environment has no `{key}`");
                let help = format!(
                    "leave it out, or use a kind that takes it: {}",
                    quoted(kinds)
                );
                self.top.reject_key(key, message, help);
            }
        }
        if !known {
            return;
        }
        for needed in match kind {
            "dataset" => ["file"],
            _ => ["means"],
        } {
            if !self.top.has(needed) {
                let message = format!("a {kind} environment needs `{needed}`");
                let help = match needed {
                    "file" => "name the CSV file, as in file = \"digits.csv\"",
                    _ => {
                        "give the mean reward of every arm, as in means = { ARM = 0.55, OTHER = 0.5 }"
                    }
                };
                self.top.reject("kind", message, help);
            }
        }
    }

    fn means(&self, word: &str) -> Option<(Kind, Vec<String>)> {
        let given = self.top.numbers("means");
        let table = self.top.section_as_open("means");
        let named = table.as_ref().map(Section::given).unwrap_or_default();
        if let Some(table) = &table {
            self.compare_arms(table, &named);
        }
        for experiment in self.experiments {
            let kind = experiment.reward.kind;
            let fits = match word {
                "bernoulli" => kind.check(0.0).is_ok() && kind.check(1.0).is_ok(),
                _ => kind != RewardKind::Binary,
            };
            if !fits {
                self.unfit(word, experiment);
            }
        }
        self.compare_features("kind", &[]);
        let (arms, means): (Vec<_>, Vec<_>) = given.into_iter().unzip();
        if word == "bernoulli"
            && let Some(table) = &table
        {
            probabilities(table, &arms, &means);
        }
        let phases = self.phases(word, Phase { from: 0, means }, &arms);
        let deviations = self.per_arm("sd", &arms, 1.0);
        if arms.len() != named.len() || arms.is_empty() {
            if self.top.has("means") && named.is_empty() {
                let help = "give the mean reward of every arm of the policy file";
                self.top.reject("means", "there is no arm", help);
            }
            return None;
        }
        let kind = if word == "bernoulli" {
            Kind::Bernoulli(phases)
        } else {
            Kind::Gaussian(phases, deviations)
        };
        Some((kind, arms))
    }

    /// The arms of the environment and of every policy file must be the same.
    fn compare_arms(&self, table: &Section<'_>, named: &[String]) {
        for experiment in self.experiments {
            let arms: Vec<&str> = arm_names(experiment);
            for name in named.iter().filter(|name| !arms.contains(&name.as_str())) {
                let meant = did_you_mean(name, &arms)
                    .map_or(String::new(), |word| format!("did you mean `{word}`? "));
                table.reject_key(
                    name,
                    format!("{} has no arm `{name}`", experiment.file),
                    format!("{meant}its arms are {}", quoted(&arms)),
                );
            }
            let missing: Vec<&str> = arms
                .into_iter()
                .filter(|arm| !named.iter().any(|name| name == arm))
                .collect();
            if !missing.is_empty() {
                table.reject_section(
                    format!("{} of {} has no mean", quoted(&missing), experiment.file),
                    "give a mean reward for every arm of the policy file",
                );
            }
        }
    }

    fn unfit(&self, word: &str, experiment: &Experiment) {
        let rewards = match (word, experiment.reward.kind) {
            ("bernoulli", _) => "rewards of a bernoulli environment are 0 or 1",
            _ => "rewards of a gaussian environment are any number",
        };
        let wanted = match experiment.reward.kind {
            RewardKind::Bounded { min, max } => format!("in [{min}, {max}]"),
            RewardKind::Binary => "0 or 1 (binary)".to_owned(),
            RewardKind::Real => "any number".to_owned(),
        };
        self.top.reject(
            "kind",
            format!("{rewards}, but those of {} are {wanted}", experiment.file),
            "change the environment's kind, or the policy file's [reward]",
        );
    }

    /// The phases, the first included.
    fn phases(&self, word: &str, first: Phase, arms: &[String]) -> Vec<Phase> {
        let known: Vec<&str> = arms.iter().map(String::as_str).collect();
        let mut phases = vec![first];
        for section in self.top.sections("phase") {
            let last = &phases[phases.len() - 1];
            let mut means = last.means.clone();
            if let Some(table) = section.section_as_open("means") {
                let given = section.numbers("means");
                unknown_arms(&table, &known);
                let (names, values): (Vec<_>, Vec<_>) = given.into_iter().unzip();
                if word == "bernoulli" {
                    probabilities(&table, &names, &values);
                }
                for (name, mean) in names.iter().zip(values) {
                    if let Some(index) = arms.iter().position(|arm| arm == name) {
                        means[index] = mean;
                    }
                }
            }
            let Some(from) = section.integer("from") else {
                continue;
            };
            if from as u64 <= last.from {
                let message = format!(
                    "this phase begins at {from}, not after the one before it, at {}",
                    last.from
                );
                section.reject("from", message, "phases stand in the order of their rounds");
            }
            phases.push(Phase {
                from: from as u64,
                means,
            });
        }
        phases
    }

    /// One number for all arms, or one for each; arms that are not named have the default.
    fn per_arm(&self, key: &'static str, arms: &[String], default: f64) -> Vec<f64> {
        if let Some(table) = self.top.section_as_open(key) {
            let known: Vec<&str> = arms.iter().map(String::as_str).collect();
            unknown_arms(&table, &known);
        }
        let given = self.top.numbers(key);
        let one = self.top.one_number(key).unwrap_or(default);
        arms.iter()
            .map(|arm| {
                let own = given.iter().find(|(name, _)| name == arm);
                own.map_or(one, |(_, value)| *value)
            })
            .collect()
    }

    fn delays(&self, arms: &[String]) -> Vec<Delay> {
        let by_outcome = ["delay_if_rewarded", "delay_otherwise"];
        if self.top.has("delay")
            && let Some(other) = by_outcome.into_iter().find(|key| self.top.has(key))
        {
            self.top.reject_key(
                other,
                format!("`{other}` and `delay` say the same thing twice"),
                "give either `delay`, or `delay_if_rewarded` and `delay_otherwise`",
            );
        }
        let (rewarded, otherwise) = if by_outcome.iter().any(|key| self.top.has(key)) {
            (
                self.per_arm("delay_if_rewarded", arms, 0.0),
                self.per_arm("delay_otherwise", arms, 0.0),
            )
        } else {
            let all = self.per_arm("delay", arms, 0.0);
            (all.clone(), all)
        };
        rewarded
            .into_iter()
            .zip(otherwise)
            .map(|(rewarded, otherwise)| Delay {
                rewarded: rewarded as u64,
                otherwise: otherwise as u64,
            })
            .collect()
    }

    fn dataset(&self, open: &dyn Fn(&str) -> io::Result<String>) -> Option<(Kind, Vec<String>)> {
        let (right, wrong) = self.right_and_wrong();
        let path = self.top.string("file")?;
        let text = match open(path) {
            Ok(text) => text,
            Err(error) => {
                let message = format!("`{path}` cannot be read: {error}");
                let help = "the path is relative to the environment file; the file is UTF-8";
                self.top.reject("file", message, help);
                return None;
            }
        };
        let dataset = match Dataset::parse(path, &text, self.top.boolean("header")) {
            Ok(dataset) => dataset,
            Err(problems) => {
                for problem in problems {
                    self.problems.push(problem);
                }
                return None;
            }
        };
        self.compare_labels(path, &dataset.labels);
        self.compare_features("file", &dataset.columns);
        let arms = dataset.labels.clone();
        let kind = Kind::Dataset {
            dataset: Arc::new(dataset),
            right,
            wrong,
        };
        Some((kind, arms))
    }

    /// A policy that looks at the context sees the columns that are called like its features, and nothing of the others.
    fn compare_features(&self, key: &str, columns: &[String]) {
        let known: Vec<&str> = columns.iter().map(String::as_str).collect();
        for experiment in self.experiments {
            let features = experiment
                .context
                .iter()
                .flat_map(|rule| rule.features())
                .map(|feature| &*feature.name);
            let missing: Vec<&str> = features.filter(|name| !known.contains(name)).collect();
            if missing.is_empty() {
                continue;
            }
            let message = format!(
                "{} of {} will always be missing: {}",
                quoted(&missing),
                experiment.file,
                if columns.is_empty() {
                    "this world has no features"
                } else {
                    "no column is called so"
                }
            );
            let meant: Vec<&str> = missing
                .iter()
                .filter_map(|name| did_you_mean(name, &known))
                .collect();
            let help = match (columns.is_empty(), meant.is_empty()) {
                (true, _) => "a dataset has features: its columns".to_owned(),
                (false, true) => "name the features of [context] like the columns".to_owned(),
                (false, false) => format!("did you mean {}?", quoted(&meant)),
            };
            self.top.warn(key, message, help);
        }
    }

    fn right_and_wrong(&self) -> (f64, f64) {
        let table = self.top.section("reward");
        let value = |key, default| {
            let value = table.as_ref().and_then(|table| table.number(key));
            value.unwrap_or(default)
        };
        let (right, wrong) = (value("right", 1.0), value("wrong", 0.0));
        for experiment in self.experiments {
            for value in [right, wrong] {
                if let Err(error) = experiment.reward.kind.check(value) {
                    let message = format!("{error}, says {}", experiment.file);
                    let help = "give `reward = { right = …, wrong = … }` that the policy file's [reward] allows";
                    let key = if table.is_some() { "reward" } else { "kind" };
                    self.top.reject(key, message, help);
                }
            }
        }
        (right, wrong)
    }

    fn compare_labels(&self, path: &str, labels: &[String]) {
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        for experiment in self.experiments {
            let arms: Vec<&str> = arm_names(experiment);
            let without = |all: &[&'_ str], some: &[&str]| -> Vec<String> {
                all.iter()
                    .filter(|name| !some.contains(name))
                    .map(|name| (*name).to_owned())
                    .collect()
            };
            let told = |names: &[String]| {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                match &names[..] {
                    [first @ .., _] if names.len() > 10 => {
                        format!("{} and {} more", quoted(&first[..9]), names.len() - 9)
                    }
                    _ => quoted(&names),
                }
            };
            let no_arm = without(&labels, &arms);
            if !no_arm.is_empty() {
                let message = format!("{} has no arm {}", experiment.file, told(&no_arm));
                let help =
                    format!("the arms are called like the labels in the last column of {path}");
                self.top.reject("file", message, help);
            }
            let no_label = without(&arms, &labels);
            if !no_label.is_empty() {
                let message = format!(
                    "no row of {path} has the label {}, which {} has as an arm",
                    told(&no_label),
                    experiment.file
                );
                self.top
                    .reject("file", message, "leave the arm out of the policy file");
            }
        }
    }
}

fn arm_names(experiment: &Experiment) -> Vec<&str> {
    experiment
        .arms
        .iter()
        .map(|arm| arm.name.as_str())
        .collect()
}

/// Refuses names that are no arm of the environment.
fn unknown_arms(table: &Section<'_>, known: &[&str]) {
    for name in table.given() {
        if !known.contains(&name.as_str()) {
            let meant = did_you_mean(&name, known)
                .map_or(String::new(), |word| format!("did you mean `{word}`? "));
            table.reject_key(
                &name,
                format!("there is no arm `{name}`"),
                format!("{meant}the arms are {}", quoted(known)),
            );
        }
    }
}

/// Means of bernoulli rewards are probabilities.
fn probabilities(table: &Section<'_>, names: &[String], means: &[f64]) {
    for (name, mean) in names.iter().zip(means) {
        if !(0.0..=1.0).contains(mean) {
            table.reject(
                name,
                format!("the mean {mean} of `{name}` is no probability"),
                "the mean of a bernoulli reward is the probability of a 1: from 0 to 1",
            );
        }
    }
}
