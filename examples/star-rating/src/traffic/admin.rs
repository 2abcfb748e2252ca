//! What the proxy believes of its arms, read from its admin API.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// A request that takes longer has failed: the admin listener answers from memory.
const TIMEOUT: Duration = Duration::from_secs(5);

/// One experiment as `GET /api/v1/experiments/{name}` shows it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Experiment {
    /// The policy version: changes with the policy file.
    pub version: String,
    /// Counts the changes of the allocation.
    pub allocation_version: u64,
    /// How arms are chosen.
    pub policy: PolicyKind,
    /// In the order of the policy file.
    pub arms: Vec<Arm>,
}

/// The part of a policy that is shown.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PolicyKind {
    /// `fixed`, `epsilon_greedy`, `thompson`, ...
    pub kind: String,
}

/// One arm of an experiment.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Arm {
    /// The arm's name.
    pub name: String,
    /// The probability with which it is chosen now.
    pub allocation: f64,
    /// The posterior probability that it is the best one.
    pub probability_best: Option<f64>,
    /// Decisions with a counted reward.
    pub rewards: u64,
    /// The sum of these rewards.
    pub reward_sum: f64,
}

impl Experiment {
    /// All rewards that the arms have.
    pub fn rewards(&self) -> u64 {
        self.arms.iter().map(|arm| arm.rewards).sum()
    }

    /// The arm of this name.
    pub fn arm(&self, name: &str) -> Option<&Arm> {
        self.arms.iter().find(|arm| arm.name == name)
    }
}

/// The admin listener of a running proxy.
#[derive(Debug, Clone)]
pub struct Admin {
    http: reqwest::Client,
    base: String,
}

impl Admin {
    /// The listener at `base`, for example `http://127.0.0.1:9901`.
    ///
    /// # Errors
    /// When the HTTP client cannot be set up.
    pub fn at(base: &str) -> Result<Self> {
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .build()
            .context("cannot set up the HTTP client")?;
        Ok(Self {
            http,
            base: base.to_owned(),
        })
    }

    /// Whether the proxy takes traffic; an error is a no.
    pub async fn is_ready(&self) -> bool {
        let answer = self.http.get(format!("{}/-/ready", self.base)).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    /// One experiment.
    ///
    /// # Errors
    /// When the proxy is away or does not know it.
    pub async fn experiment(&self, name: &str) -> Result<Experiment> {
        let url = format!("{}/api/v1/experiments/{name}", self.base);
        let answer = self
            .http
            .get(&url)
            .send()
            .await
            .with_context(|| format!("GET {url}"))?;
        let status = answer.status();
        if !status.is_success() {
            bail!("GET {url}: HTTP {}", status.as_u16());
        }
        answer
            .json()
            .await
            .with_context(|| format!("GET {url}: not the JSON that was expected"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_form_is_read_and_more_is_ignored() {
        let experiment: Experiment = serde_json::from_str(
            r#"{"name": "star-rating", "version": "0123456789ab", "epoch": 0, "allocation_version": 7,
                "policy": {"kind": "thompson", "floor": 0.01},
                "arms": [{"name": "a", "allocation": 0.25, "probability_best": null, "posterior": {"kind": "beta"},
                          "decisions": 12, "rewards": 10, "reward_sum": 6.0, "defaults": 0, "failures": 0,
                          "enabled": true, "healthy": true}],
                "last_reload": {"successful": true}}"#,
        )
        .unwrap();
        assert_eq!(experiment.rewards(), 10);
        assert_eq!(experiment.arm("a").unwrap().probability_best, None);
        assert_eq!(experiment.arm("b"), None);
    }
}
