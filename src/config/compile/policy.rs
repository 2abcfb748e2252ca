//! `[policy.KIND]`: which policy, and whether it goes with the rest of the file.
//!
//! What a kind takes is in its registry entry, so that each combination that does not make sense is refused here for all kinds alike.

use std::sync::Arc;

use super::File;
use crate::document::{Section, did_you_mean, quoted};
use crate::experiment::reward::{Aggregate, Learn, RewardKind, RewardRule};
use crate::policy::{
    self, HALF_LIFE, KINDS, Policy, PolicyKind, Regression, SLIDING_WINDOW, Setting, Statistics,
    prior,
};

impl File<'_> {
    /// The policy, its floor and its warm-up.
    pub(super) fn policy(
        &self,
        rewards: Option<&Section<'_>>,
        reward: Option<RewardKind>,
        arms: &[Section<'_>],
    ) -> Option<(Arc<dyn Policy>, f64, u64)> {
        let table = self.section.section_as_open("policy")?;
        let kind = self.kind(&table)?;
        let section =
            table.section_explained(kind.name, kind.fields, &|key| misplaced(kind, key))?;
        let floor = floor(kind, &section, arms.len());
        if let Some(rewards) = rewards {
            check_memory(&section, rewards);
        }
        self.check_file(kind, reward, arms);
        let warm_up = section.integer(policy::WARM_UP.key).unwrap_or(0) as u64;
        let setting = Setting {
            reward: reward?,
            arms: arms.len(),
        };
        Some(((kind.build)(&section, setting)?, floor, warm_up))
    }

    fn kind(&self, table: &Section<'_>) -> Option<&'static PolicyKind> {
        let given = table.given();
        let known: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
        for name in given.iter().filter(|name| !known.contains(&name.as_str())) {
            let meant = did_you_mean(name, &known)
                .map_or(String::new(), |word| format!("did you mean `{word}`? "));
            table.reject_key(
                name,
                format!("there is no policy `{name}`"),
                format!("{meant}this version has {}", quoted(&known)),
            );
        }
        if given.len() != 1 {
            let message = if given.is_empty() {
                "there is no policy"
            } else {
                "there is more than one policy"
            };
            self.section.reject(
                "policy",
                message,
                format!(
                    "give exactly one [policy.KIND], with KIND one of {}",
                    quoted(&known)
                ),
            );
        }
        PolicyKind::find(given.first()?)
    }

    /// Whether the policy goes with the reward, the arms, the context and the unit.
    fn check_file(&self, kind: &PolicyKind, reward: Option<RewardKind>, arms: &[Section<'_>]) {
        let name = kind.name;
        if let Some(reward) = reward.filter(|reward| !kind.rewards.contains(&reward.as_str())) {
            self.section.reject(
                "policy",
                format!("`{name}` does not learn from {} rewards", reward.as_str()),
                format!(
                    "it takes {} rewards; {} rewards are for {}",
                    quoted(kind.rewards),
                    reward.as_str(),
                    kinds(|other| other.rewards.contains(&reward.as_str()))
                ),
            );
        }
        let priors = |kind: &PolicyKind| kind.takes(prior::PRIOR.key) && !kind.context;
        if !priors(kind) {
            for arm in arms.iter().filter(|arm| arm.has("prior")) {
                arm.reject_key(
                    "prior",
                    format!("`{name}` takes no prior"),
                    format!("leave it out; an arm's prior is for {}", kinds(priors)),
                );
            }
        }
        if kind.context && !self.section.has("context") {
            self.section.reject(
                "policy",
                format!("`{name}` looks at the request, and there is no [context.NAME]"),
                "say in [context.NAME] what it is to look at",
            );
        }
        if !kind.unit && self.section.has("unit") {
            self.section.reject(
                "unit",
                format!("`{name}` takes no unit"),
                format!(
                    "leave [unit] out, so that each request is drawn by itself; units are for {}",
                    kinds(|other| other.unit)
                ),
            );
        }
    }
}

/// Most memory that the sums over contexts of one experiment may take, in bytes.
const REGRESSION_MEMORY: u64 = 256 << 20;

/// Whether what the fold is to keep can be kept: that corrected rewards can be undone, and that it fits.
pub(super) fn check_statistics(
    top: &Section<'_>,
    statistics: Statistics,
    reward: &RewardRule,
    arms: usize,
    dimension: usize,
) {
    let corrects = reward.aggregate != Aggregate::First && reward.learn == Learn::Arrival;
    if matches!(statistics.regression, Some(Regression::Logistic { .. })) && corrects {
        top.reject(
            "policy",
            "a logistic regression cannot take back what a later reward corrects",
            "use aggregate = \"first\", learn = \"close\" in [reward], or a policy with a linear regression",
        );
    }
    let sums = (dimension * (dimension + 3) / 2 * size_of::<f64>()) as u64;
    let needed = sums * arms as u64 * statistics.memory.buckets();
    if statistics.regression.is_some() && needed > REGRESSION_MEMORY {
        let (needed, most) = (needed >> 20, REGRESSION_MEMORY >> 20);
        top.reject(
            "policy",
            format!("{arms} arms and {dimension} numbers a context may need {needed} MiB to forget by age, more than {most} MiB"),
            "use fewer features, a sliding_window in place of a half_life, or neither",
        );
    }
}

/// What to say of a key that other policies take and this one does not.
fn misplaced(kind: &PolicyKind, key: &str) -> Option<(String, String)> {
    KINDS.iter().any(|other| other.takes(key)).then(|| {
        let taken: Vec<&str> = kind.fields.iter().map(|field| field.key).collect();
        (
            format!("`{}` takes no `{key}`", kind.name),
            format!(
                "`{key}` is for {}; `{}` takes {}",
                kinds(|other| other.takes(key)),
                kind.name,
                quoted(&taken)
            ),
        )
    })
}

/// The names of some kinds, in words.
fn kinds(which: impl Fn(&PolicyKind) -> bool) -> String {
    let names: Vec<&str> = KINDS
        .iter()
        .filter(|kind| which(kind))
        .map(|kind| kind.name)
        .collect();
    quoted(&names)
}

fn floor(kind: &PolicyKind, section: &Section<'_>, arms: usize) -> f64 {
    let floor = section
        .number(policy::FLOOR.key)
        .unwrap_or_else(|| kind.default_floor(arms));
    if arms > 0 && floor * arms as f64 >= 1.0 {
        let message = format!("a floor of {floor} for {arms} arms leaves nothing to the policy");
        section.reject(
            policy::FLOOR.key,
            message,
            format!("it is below 1 / {arms} = {:.4}", 1.0 / arms as f64),
        );
    }
    floor
}

/// What is forgotten before it can have been rewarded is never learned.
fn check_memory(section: &Section<'_>, rewards: &Section<'_>) {
    let Some(window) = rewards.duration("window") else {
        return;
    };
    for (key, words) in [
        (HALF_LIFE.key, "half-life"),
        (SLIDING_WINDOW.key, "sliding window"),
    ] {
        if section.duration(key).is_some_and(|span| span < window) {
            let shown =
                |section: &Section<'_>, key| section.string(key).unwrap_or_default().to_owned();
            let (span, window) = (shown(section, key), shown(rewards, "window"));
            section.reject(
                key,
                format!("a {words} of {span} is shorter than the reward's window of {window}"),
                format!(
                    "rewards may come {window} after their decision, when it would count for little or nothing: give `{key}` at least that, \
                     or shorten `window` in [reward]"
                ),
            );
        }
    }
}
