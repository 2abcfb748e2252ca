//! Policy files to experiments: all of them, or every problem of all of them.

mod arm;
mod context;
mod policy;
mod sections;
mod shadow;
mod upstream;

use std::sync::Arc;

use super::load::Loaded;
use super::settings::Settings;
use super::{fields, matching};
use crate::document::{Document, Problem, Problems, Section};
use crate::experiment::id::{ExperimentId, Name, PolicyVersion};
use crate::experiment::reward::RewardKind;
use crate::experiment::{Arm, Experiment, Matcher, UpstreamRule};
use arm::arm;
use sections::{label, reward, reward_key, reward_metric, unit};

/// A policy file as it was read.
#[derive(Debug, Clone)]
pub struct Source {
    /// The path as it was given, for messages.
    pub file: String,
    /// The file's name without `.toml`: the experiment's name unless the file has one.
    pub stem: String,
    /// Its text.
    pub text: String,
}

/// Compiles policy files that serve together.
///
/// # Errors
///
/// Every problem of every file, and between files.
pub fn compile(sources: &[Source], settings: &Settings) -> Result<Loaded, Vec<Problem>> {
    let problems = Problems::default();
    let documents: Vec<Document<'_>> = sources
        .iter()
        .map(|source| Document::parse(&source.file, &source.text, &problems))
        .collect();
    let mut compiled: Vec<(Section<'_>, Arc<Experiment>)> = Vec::new();
    for (source, document) in sources.iter().zip(&documents) {
        if document.is_broken() {
            continue;
        }
        let section = document.section(fields::POLICY_FILE, &problems);
        if let Some(experiment) = (File {
            section: section.clone(),
            source,
            settings,
        })
        .experiment()
        {
            compiled.push((section, Arc::new(experiment)));
        }
    }
    together(&compiled);
    if problems.has_errors() {
        return Err(problems.into_sorted());
    }
    let mut experiments: Vec<_> = compiled
        .into_iter()
        .map(|(_, experiment)| experiment)
        .collect();
    experiments.sort_by(|a, b| {
        let order = |experiment: &Experiment| {
            (
                matching::specificity(&experiment.matcher),
                experiment.name.clone(),
            )
        };
        order(a).cmp(&order(b))
    });
    Ok(Loaded {
        experiments,
        warnings: problems.into_sorted(),
    })
}

/// What one file cannot know: names, hashes and matches of the others.
fn together(compiled: &[(Section<'_>, Arc<Experiment>)]) {
    for (index, (section, experiment)) in compiled.iter().enumerate() {
        for (_, other) in &compiled[..index] {
            if experiment.name == other.name {
                let message = format!(
                    "two experiments are called `{}`; the other is in {}",
                    experiment.name, other.file
                );
                section.reject("name", message, "give one of them another `name`");
            } else if experiment.id == other.id {
                let message = format!(
                    "the names `{}` and `{}` have the same hash",
                    experiment.name, other.name
                );
                section.reject("name", message, "give one of them another `name`");
            }
            if matching::tie(&experiment.matcher, &other.matcher) {
                let message = format!(
                    "`{}` ({}) matches the same requests, and neither is more specific",
                    other.name, other.file
                );
                section.reject("match", message, "make one of them more specific: a longer path, a host, more headers, or methods");
            }
        }
    }
}

/// One file under compilation.
struct File<'d> {
    section: Section<'d>,
    source: &'d Source,
    settings: &'d Settings,
}

impl File<'_> {
    /// Looks at every section before it gives up.
    fn experiment(&self) -> Option<Experiment> {
        let top = &self.section;
        let name = self.name();
        let matcher = top
            .section("match")
            .and_then(|section| matching::read(&section));
        let unit = top.section("unit").map(|section| unit(&section));
        let context = top
            .has("context")
            .then(|| context::read(top, self.settings.limits.features).map(Arc::new));
        let rewards = top.section("reward");
        let reward = rewards.as_ref().and_then(|section| {
            self.check_retention(section);
            reward(section)
        });
        let has_token = !self.settings.auth.client_token.is_empty();
        let reward_key = rewards
            .as_ref()
            .filter(|section| section.has("key"))
            .map(|section| reward_key(section, has_token));
        let reward_metric = rewards
            .as_ref()
            .filter(|section| section.has("metric"))
            .map(|section| reward_metric(section, top.has("label")));
        let label = top
            .section("label")
            .map(|section| label(&section, reward.as_ref().map(|reward| reward.kind)));
        let kind = reward.as_ref().map(|reward| reward.kind);
        let alternatives = top.sections("arm");
        let (upstream, arms) = self.reach(&alternatives, name.as_ref(), kind, matcher.as_ref());
        let policy = self.policy(rewards.as_ref(), kind, &alternatives);
        let shadow = top.section("shadow").map(|section| {
            let facts = shadow::Facts {
                arms: arms.as_ref().map(|(arms, _)| &arms[..]),
                reward: reward.as_ref(),
                has_label: top.has("label"),
                policy: policy.as_ref().map(|(policy, ..)| &**policy),
            };
            shadow::read(&section, &facts)
        });
        let (arms, baseline) = arms?;
        let name = name?;
        let (policy, floor, warm_up) = policy?;
        let reward = reward?;
        let context = context.map_or(Some(None), |context| context.map(Some))?;
        let dimension = context.as_ref().map_or(1, |rule| rule.dimension());
        let statistics = policy.statistics();
        policy::check_statistics(top, statistics, &reward, arms.len(), dimension);
        Some(Experiment {
            id: ExperimentId::of(&name),
            version: PolicyVersion::of(&name, &self.source.text),
            description: top.string("description").unwrap_or_default().to_owned(),
            file: self.source.file.clone(),
            text: Arc::from(self.source.text.as_str()),
            declared_epoch: top.integer("epoch").map_or(1, |epoch| epoch as u16),
            matcher: matcher?,
            unit: unit.map_or(Some(None), |unit| unit.map(Some))?,
            reward,
            reward_metric: reward_metric.map_or(Some(None), |metric| metric.map(Some))?,
            reward_key: reward_key.map_or(Some(None), |key| key.map(Some))?,
            context,
            label: label.map_or(Some(None), |label| label.map(Some))?,
            shadow: shadow.map_or(Some(None), |shadow| shadow.map(Some))?,
            name,
            arms,
            baseline,
            policy,
            floor,
            warm_up,
            upstream,
        })
    }

    fn name(&self) -> Option<Name> {
        let given = self.section.string("name");
        let name = Name::new(given.unwrap_or(&self.source.stem));
        if let (Err(error), None) = (&name, given) {
            let message = format!("the file's stem `{}` is no name", self.source.stem);
            self.section.reject_section(
                message,
                format!("{error}; rename the file or give a `name`"),
            );
        } else if let Err(error) = &name {
            self.section
                .reject("name", "`name` is no name", error.to_string());
        }
        name.ok()
    }

    /// The journal must reach back as far as a reward may.
    fn check_retention(&self, reward: &Section<'_>) {
        let retention = self.settings.data.retention;
        if reward
            .duration("window")
            .is_some_and(|window| window > retention)
        {
            let help = format!(
                "shorten it, or raise data.retention (now {} h) in pointsman.toml",
                retention / 3_600_000
            );
            reward.reject(
                "window",
                "the window is longer than the journal's retention",
                help,
            );
        }
    }

    /// The arms and how they are reached: each of the two says something about the other.
    fn reach(
        &self,
        sections: &[Section<'_>],
        experiment: Option<&Name>,
        reward: Option<RewardKind>,
        matcher: Option<&Matcher>,
    ) -> (UpstreamRule, Option<(Vec<Arm>, usize)>) {
        let section = self.section.section("upstream");
        let upstream = section
            .as_ref()
            .map_or_else(UpstreamRule::default, |section| {
                upstream::read(section, matcher)
            });
        let facts = arm::Facts {
            experiment,
            reward,
            matcher,
            upstream: &upstream,
            has_model_field: section
                .as_ref()
                .is_some_and(|section| section.has("model_field")),
        };
        let arms = self.arms(sections, &facts);
        if let (Some(section), Some((arms, _))) = (&section, &arms) {
            upstream::check_arms(section, &upstream, arms);
        }
        (upstream, arms)
    }

    fn arms(&self, sections: &[Section<'_>], facts: &arm::Facts<'_>) -> Option<(Vec<Arm>, usize)> {
        let top = &self.section;
        let limit = self.settings.limits.arms;
        if top.has("arm") && sections.is_empty() {
            top.reject(
                "arm",
                "there is no arm",
                "an experiment has at least one [[arm]]",
            );
        }
        if sections.len() > limit {
            top.reject(
                "arm",
                format!(
                    "{} arms are more than limits.arms = {limit}",
                    sections.len()
                ),
                "leave some out",
            );
        }
        let arms: Vec<Option<Arm>> = sections.iter().map(|section| arm(section, facts)).collect();
        for (index, arm) in arms.iter().enumerate() {
            let Some(arm) = arm else { continue };
            let earlier = arms[..index].iter().flatten();
            if earlier.clone().any(|other| other.name == arm.name) {
                sections[index].reject(
                    "name",
                    format!("two arms are called `{}`", arm.name),
                    "every arm has a name of its own",
                );
            } else if earlier.clone().any(|other| other.id == arm.id) {
                sections[index].reject(
                    "name",
                    "this name has the same hash as another arm's",
                    "give it another name",
                );
            }
        }
        let baselines: Vec<usize> = (0..sections.len())
            .filter(|index| sections[*index].boolean("baseline") == Some(true))
            .collect();
        if let [_, second, ..] = baselines[..] {
            sections[second].reject(
                "baseline",
                "there is a second baseline",
                "exactly one arm is the baseline",
            );
        }
        let all: Option<Vec<Arm>> = arms.into_iter().collect();
        let arms = all.filter(|arms| !arms.is_empty())?;
        if arms.iter().all(|arm| arm.weight == 0.0) {
            sections[0].reject(
                "weight",
                "every weight is 0",
                "at least one arm needs a weight above 0",
            );
        }
        Some((arms, baselines.first().copied().unwrap_or(0)))
    }
}
