//! Changes to a policy file that keep its comments: other endpoints, another policy, an edit while the proxy runs. And which headers it wants.
//!
//! This edits text. Whether the result is a valid policy file is for `pointsman check` and the proxy to say.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, value};

/// The policies that `demo` and `compare` can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum PolicyKind {
    /// Learns: each arm's share is the probability that it is the best.
    #[value(name = "thompson")]
    Thompson,
    /// Learns: the arm with the best average gets all but a tenth.
    #[value(name = "epsilon_greedy", alias = "epsilon-greedy")]
    EpsilonGreedy,
    /// Does not learn: the same share for every arm, an A/B test.
    #[value(name = "fixed")]
    Fixed,
    /// Learns which arm is best for which review, from category and length: Thompson sampling on a linear regression.
    #[value(name = "lin_thompson", aliases = ["lin-thompson", "contextual"])]
    LinThompson,
    /// Learns which arm is best for which review: the one with the best prediction gets all but a tenth.
    #[value(name = "epsilon_greedy_linear", alias = "epsilon-greedy-linear")]
    EpsilonGreedyLinear,
}

impl PolicyKind {
    /// The name in policy files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Thompson => "thompson",
            Self::EpsilonGreedy => "epsilon_greedy",
            Self::Fixed => "fixed",
            Self::LinThompson => "lin_thompson",
            Self::EpsilonGreedyLinear => "epsilon_greedy_linear",
        }
    }

    /// Whether it looks at the request.
    pub fn is_contextual(self) -> bool {
        matches!(self, Self::LinThompson | Self::EpsilonGreedyLinear)
    }
}

/// A policy file as text that can be changed.
#[derive(Debug, Clone)]
pub struct PolicyFile(DocumentMut);

impl PolicyFile {
    /// Reads a policy file.
    ///
    /// # Errors
    /// When it is not TOML or has no arms.
    pub fn parse(text: &str) -> Result<Self> {
        let document: DocumentMut = text.parse().context("the policy file is not TOML")?;
        let file = Self(document);
        ensure!(
            file.arms().is_some_and(|arms| !arms.is_empty()),
            "the policy file has no [[arm]]"
        );
        Ok(file)
    }

    /// The names of the arms, in the order of the file.
    pub fn arm_names(&self) -> Vec<String> {
        let arms = self.arms().into_iter().flatten();
        arms.filter_map(|arm| arm.get("name")?.as_str().map(str::to_owned))
            .collect()
    }

    /// The headers, by name, that a request must have to belong to this experiment.
    pub fn match_headers(&self) -> Vec<(String, String)> {
        let headers = self
            .0
            .get("match")
            .and_then(|matching| matching.get("headers")?.as_table_like());
        let headers = headers.into_iter().flat_map(|headers| headers.iter());
        headers
            .filter_map(|(name, value)| Some((name.to_owned(), value.as_str()?.to_owned())))
            .collect()
    }

    /// Sends every arm's requests to the addresses that `endpoints` gives for its name.
    ///
    /// # Errors
    /// When an arm has none.
    pub fn set_endpoints(&mut self, endpoints: &BTreeMap<String, Vec<String>>) -> Result<()> {
        for arm in self.arms_mut()?.iter_mut() {
            let name = arm.get("name").and_then(Item::as_str).unwrap_or_default();
            let Some(addresses) = endpoints.get(name) else {
                bail!("no model server for the arm {name:?}")
            };
            let addresses: toml_edit::Array = addresses.iter().map(String::as_str).collect();
            arm["endpoints"] = value(addresses);
        }
        Ok(())
    }

    /// Runs another policy; its parameters are the documented defaults. The same policy keeps its table.
    ///
    /// # Errors
    /// When `policy` is not a table, or the policy looks at requests and the file does not say at what.
    pub fn set_policy(&mut self, kind: PolicyKind) -> Result<()> {
        ensure!(
            !kind.is_contextual() || self.0.contains_key("context"),
            "{} needs a policy file with [context.NAME] tables, as policies/star-rating-by-category.toml has them",
            kind.name()
        );
        let policies = self.policies_mut()?;
        if policies.contains_key(kind.name()) {
            return Ok(());
        }
        policies.clear();
        let mut table = Table::new();
        if matches!(
            kind,
            PolicyKind::EpsilonGreedy | PolicyKind::EpsilonGreedyLinear
        ) {
            table["epsilon"] = value(0.1);
        }
        policies.insert(kind.name(), Item::Table(table));
        if kind == PolicyKind::Fixed {
            for arm in self.arms_mut()?.iter_mut() {
                arm["weight"] = value(1);
            }
        }
        Ok(())
    }

    /// Makes the change that the demo shows while the proxy runs: less exploration, or other weights with the same shares.
    /// Says what it did.
    ///
    /// # Errors
    /// When the file has no policy.
    pub fn explore_less(&mut self) -> Result<String> {
        let (kind, policy) = self
            .policies_mut()?
            .iter_mut()
            .next()
            .context("the policy file has no [policy.KIND]")?;
        let kind = kind.get().to_owned();
        let policy = policy
            .as_table_like_mut()
            .context("[policy.KIND] is not a table")?;
        let (parameter, default) = match kind.as_str() {
            "fixed" => return self.double_weights(),
            "epsilon_greedy" | "epsilon_greedy_linear" => ("epsilon", 0.1),
            _ => ("floor", 0.01),
        };
        let before = policy
            .get(parameter)
            .and_then(Item::as_float)
            .unwrap_or(default);
        let after = before / 2.0;
        policy.insert(parameter, value(after));
        Ok(format!("{parameter} {before} -> {after}"))
    }

    fn double_weights(&mut self) -> Result<String> {
        for arm in self.arms_mut()?.iter_mut() {
            let weight = arm.get("weight").and_then(|weight| {
                weight
                    .as_float()
                    .or(weight.as_integer().map(|weight| weight as f64))
            });
            arm["weight"] = value(2.0 * weight.unwrap_or(1.0));
        }
        Ok("all weights doubled, so the same shares".to_owned())
    }

    fn arms(&self) -> Option<&ArrayOfTables> {
        self.0.get("arm")?.as_array_of_tables()
    }

    fn arms_mut(&mut self) -> Result<&mut ArrayOfTables> {
        self.0
            .get_mut("arm")
            .and_then(Item::as_array_of_tables_mut)
            .context("the policy file has no [[arm]]")
    }

    fn policies_mut(&mut self) -> Result<&mut Table> {
        self.0
            .get_mut("policy")
            .and_then(Item::as_table_mut)
            .context("the policy file has no [policy.KIND]")
    }
}

impl std::fmt::Display for PolicyFile {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predict::{Table, committed_table};
    use crate::traffic::launch::committed_policy;
    use crate::traffic::proxy::CATEGORY_HEADER;
    use crate::variant::committed_directory;

    const FILE: &str = r#"# Which model?
description = "stars"

[match]
path = "/v1/stars"

[policy.thompson] # learns
floor = 0.02      # at least

[[arm]]
name = "a"
endpoints = ["http://127.0.0.1:9001"] # here
weight = 50
[[arm]]
name = "b"
endpoints = ["http://127.0.0.1:9002"]
"#;

    fn endpoints() -> BTreeMap<String, Vec<String>> {
        [
            ("a", "http://127.0.0.1:5001"),
            ("b", "http://127.0.0.1:5002"),
        ]
        .map(|(name, address)| (name.to_owned(), vec![address.to_owned()]))
        .into()
    }

    #[test]
    fn endpoints_change_and_comments_stay() {
        let mut file = PolicyFile::parse(FILE).unwrap();
        assert_eq!(file.arm_names(), ["a", "b"]);
        file.set_endpoints(&endpoints()).unwrap();
        let text = file.to_string();
        assert!(
            text.contains("# Which model?") && text.contains("[policy.thompson] # learns"),
            "{text}"
        );
        assert!(
            text.contains(r#"endpoints = ["http://127.0.0.1:5002"]"#),
            "{text}"
        );
        assert!(!text.contains("9001"), "{text}");
    }

    #[test]
    fn a_missing_server_is_named() {
        let mut file = PolicyFile::parse(FILE).unwrap();
        let error = file
            .set_endpoints(&BTreeMap::from([("a".to_owned(), vec![])]))
            .unwrap_err();
        assert!(error.to_string().contains("\"b\""), "{error}");
    }

    #[test]
    fn policies_are_swapped_whole() {
        let mut file = PolicyFile::parse(FILE).unwrap();
        file.set_policy(PolicyKind::Thompson).unwrap();
        assert_eq!(file.to_string(), FILE);
        file.set_policy(PolicyKind::EpsilonGreedy).unwrap();
        let text = file.to_string();
        assert!(
            text.contains("[policy.epsilon_greedy]\nepsilon = 0.1\n") && !text.contains("thompson"),
            "{text}"
        );
        file.set_policy(PolicyKind::Fixed).unwrap();
        let text = file.to_string();
        assert!(
            text.contains("[policy.fixed]") && !text.contains("epsilon"),
            "{text}"
        );
        assert_eq!(text.matches("weight = 1").count(), 2, "{text}");
    }

    #[test]
    fn a_policy_that_looks_at_requests_needs_to_know_at_what() {
        let mut file = PolicyFile::parse(FILE).unwrap();
        let error = file.set_policy(PolicyKind::LinThompson).unwrap_err();
        assert!(error.to_string().contains("[context.NAME]"), "{error}");
        assert_eq!(file.to_string(), FILE);
        let context = "[context.length]\njson = \"/features/0\"\ntype = \"length\"\n";
        let mut file = PolicyFile::parse(&format!("{FILE}{context}")).unwrap();
        file.set_policy(PolicyKind::EpsilonGreedyLinear).unwrap();
        let text = file.to_string();
        assert!(
            text.contains("[policy.epsilon_greedy_linear]\nepsilon = 0.1\n")
                && text.contains(context),
            "{text}"
        );
        assert_eq!(file.explore_less().unwrap(), "epsilon 0.1 -> 0.05");
    }

    #[test]
    fn the_edit_fits_the_policy() {
        let mut file = PolicyFile::parse(FILE).unwrap();
        assert_eq!(file.explore_less().unwrap(), "floor 0.02 -> 0.01");
        assert!(file.to_string().contains("floor = 0.01"), "{file}");
        file.set_policy(PolicyKind::EpsilonGreedy).unwrap();
        assert_eq!(file.explore_less().unwrap(), "epsilon 0.1 -> 0.05");
        assert!(
            file.to_string()
                .contains("[policy.epsilon_greedy]\nepsilon = 0.05\n"),
            "{file}"
        );
        file.set_policy(PolicyKind::Fixed).unwrap();
        file.explore_less().unwrap();
        assert_eq!(
            file.to_string().matches("weight = 2.0").count(),
            2,
            "{file}"
        );
    }

    #[test]
    fn every_arm_of_the_committed_files_has_a_variant_and_predictions() {
        let table = Table::load(&committed_table()).unwrap();
        let arms_of = |kind| {
            let text = std::fs::read_to_string(committed_policy(kind)).unwrap();
            PolicyFile::parse(&text).unwrap().arm_names()
        };
        let arms = arms_of(PolicyKind::Thompson);
        assert!(arms.len() >= 4, "{arms:?}");
        assert_eq!(arms, arms_of(PolicyKind::LinThompson));
        for arm in arms {
            assert!(
                committed_directory().join(format!("{arm}.toml")).is_file(),
                "{arm}"
            );
            assert!(table.variants.contains(&arm), "{arm}");
        }
    }

    #[test]
    fn the_committed_context_is_what_the_client_sends() {
        let text = std::fs::read_to_string(committed_policy(PolicyKind::LinThompson)).unwrap();
        let file = PolicyFile::parse(&text).unwrap();
        assert_eq!(
            file.match_headers(),
            [("x-experiment".to_owned(), "by-category".to_owned())]
        );
        let category = &file.0["context"]["category"];
        assert_eq!(category["header"].as_str(), Some(CATEGORY_HEADER));
        let values = category["values"].as_array().unwrap();
        let table = Table::load(&committed_table()).unwrap();
        for value in values {
            assert!(
                table
                    .rows
                    .iter()
                    .any(|row| Some(row.product_category.as_str()) == value.as_str()),
                "no review's category is {value}"
            );
        }
    }

    #[test]
    fn what_is_no_policy_file_is_refused() {
        assert!(PolicyFile::parse("a = ").is_err());
        assert!(
            PolicyFile::parse("a = 1")
                .unwrap_err()
                .to_string()
                .contains("[[arm]]")
        );
    }
}
