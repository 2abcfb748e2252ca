//! `[shadow]`: which arms, and whether what they are to teach can be learned.

use crate::document::{Section, did_you_mean, quoted};
use crate::experiment::Arm;
use crate::experiment::reward::{Learn, RewardRule};
use crate::experiment::shadow::{ShadowRule, ShadowTerms};
use crate::policy::Policy;

/// What the rest of the file says; `None` where it is wrong, which is told already.
pub(super) struct Facts<'a> {
    pub(super) arms: Option<&'a [Arm]>,
    pub(super) reward: Option<&'a RewardRule>,
    pub(super) has_label: bool,
    pub(super) policy: Option<&'a dyn Policy>,
}

pub(super) fn read(section: &Section<'_>, facts: &Facts<'_>) -> Option<ShadowRule> {
    let learn = section.boolean("learn").unwrap_or(false);
    if learn {
        check_learning(section, facts);
    } else if !facts.has_label {
        section.warn(
            "",
            "there is no [label], so nothing scores the shadows",
            "their status and latency are journalled all the same; with [label] their predictions are, too, and a posted label scores them",
        );
    }
    let arms = arms(section, facts.arms?)?;
    let bytes_or_count =
        |key, default| section.integer(key).map_or(default, |value| value as usize);
    Some(ShadowRule {
        arms,
        fraction: section.number("fraction").unwrap_or(1.0),
        concurrency: bytes_or_count("concurrency", 16),
        timeout: section.duration("timeout").unwrap_or(10_000),
        body_limit: bytes_or_count("body_limit", 1 << 20),
        terms: ShadowTerms { learn },
    })
}

/// A score as a shadow has no propensity, no context, and no share in what stands in for a missing reward.
fn check_learning(section: &Section<'_>, facts: &Facts<'_>) {
    if !facts.has_label {
        section.reject(
            "learn",
            "`learn = true` needs [label]: nothing else scores a shadow",
            "add [label], or leave `learn` out",
        );
    }
    if let Some(policy) = facts.policy {
        let (name, statistics) = (policy.kind(), policy.statistics());
        let why = if statistics.regression.is_some() {
            Some("learns from contexts")
        } else if statistics.importance.is_some() {
            Some("weights each reward by the probability of its draw, and a shadow was not drawn")
        } else {
            None
        };
        if let Some(why) = why {
            section.reject(
                "learn",
                format!("`{name}` {why}, so it cannot learn from shadows"),
                "leave `learn` out, or use a policy without a context other than `exp3`",
            );
        }
    }
    let Some(reward) = facts.reward else { return };
    let unlike = if reward.default.is_some() {
        "`default` is credited to decisions without a reward"
    } else if reward.learn == Learn::Close {
        "`learn = \"close\"` holds rewards back until the window closes"
    } else if reward.on_failure.is_some() {
        "`on_failure` is credited to decisions whose arm failed"
    } else {
        return;
    };
    section.reject(
        "learn",
        format!(
            "[reward] {unlike}, and not so with shadows: arms would be measured by two yardsticks"
        ),
        "leave `learn` out, or learn rewards on arrival, without `default` and `on_failure`",
    );
}

fn arms(section: &Section<'_>, arms: &[Arm]) -> Option<Vec<usize>> {
    let given = section.strings("arms");
    if section.has("arms") && given.is_empty() {
        section.reject(
            "arms",
            "no arm shadows",
            "name at least one arm, or leave `arms` out: then every arm does",
        );
        return None;
    }
    let known: Vec<&str> = arms.iter().map(|arm| arm.name.as_str()).collect();
    let mut found = Vec::new();
    for (index, name) in given.iter().enumerate() {
        match known.iter().position(|other| other == name) {
            Some(arm) if found.contains(&arm) => {
                section.reject_item(
                    "arms",
                    index,
                    format!("`{name}` is named twice"),
                    "leave one out",
                );
            }
            Some(arm) => found.push(arm),
            None => {
                let meant = did_you_mean(name, &known)
                    .map_or(String::new(), |word| format!("did you mean `{word}`? "));
                let help = format!("{meant}the arms are {}", quoted(&known));
                section.reject_item("arms", index, format!("there is no arm `{name}`"), help);
            }
        }
    }
    if found.len() < given.len() {
        return None;
    }
    if given.is_empty() {
        found = (0..arms.len()).collect();
    }
    let serves_beside = |shadow: usize| {
        let others = arms
            .iter()
            .enumerate()
            .filter(|(index, _)| *index != shadow);
        others.map(|(_, arm)| arm.weight).any(|weight| weight > 0.0)
    };
    if !found.iter().any(|shadow| serves_beside(*shadow)) {
        section.reject(
            "arms",
            "nothing can be shadowed: no arm gets requests but the one that would shadow",
            "an arm does not shadow itself: add an [[arm]] (weight = 0 keeps clients away from it), or name another one",
        );
        return None;
    }
    Some(found)
}
