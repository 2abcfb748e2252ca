//! The immutable state that serves requests.

use std::sync::Arc;

use super::contextual::Contextual;
use super::learned::Learned;
use super::measures::Measures;
use crate::experiment::Experiment;
use crate::policy::Posterior;
use crate::stats::moments::Moments;

/// One experiment as it serves: shared unchanged from snapshot to snapshot until something about it changes.
#[derive(Debug)]
pub struct Serving {
    /// The validated policy file.
    pub experiment: Arc<Experiment>,
    /// The stretch in which rewards mean the same thing.
    pub epoch: u16,
    /// What is drawn from.
    pub allocation: Arc<Allocation>,
    /// What the arms have earned, in the experiment's order of arms.
    pub arms: Vec<ArmState>,
    /// Whether every request gets the baseline, by an operator's word.
    pub paused: bool,
}

/// A distribution over an experiment's arms, as drawn from.
#[derive(Debug, Clone)]
pub struct Allocation {
    /// Raised by one whenever the probabilities change.
    pub version: u64,
    /// The probability of each arm in the experiment's order, floor included; 0 for arms that are not eligible. All
    /// 0 when no arm is eligible, else they sum to 1 within 1e-9. Where they depend on the request, those at a typical context.
    pub probabilities: Vec<f64>,
    /// Where they depend on the request.
    pub contextual: Option<Contextual>,
}

/// An arm's evidence and what is believed of it, for the admin API and metrics.
#[derive(Debug, Clone)]
pub struct ArmState {
    /// Tallies of the epoch.
    pub tally: Tally,
    /// Belief about the mean reward.
    pub posterior: Posterior,
    /// Posterior probability that this arm is best among the eligible; 0 for others.
    pub probability_best: f64,
    /// Whether the file and the operator let it be drawn.
    pub enabled: bool,
    /// Whether one of its endpoints is available, so that it can be drawn.
    pub healthy: bool,
}

/// What an arm has earned in an epoch. Additive.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// `sampled` decisions that the journal holds.
    pub decisions: u64,
    /// Decisions whose window is open and of which nothing was learned yet: not credited, or with a reward that is learned when the
    /// window closes. Those of other replicas count from their reward on.
    pub waiting: u64,
    /// What the posterior has learned: posted rewards, defaults and failures.
    pub learned: Moments,
    /// Sampled decisions with a posted, counted value, after aggregation.
    pub rewards: Moments,
    /// Credits at window close.
    pub defaults: u64,
    /// Sampled decisions whose arm failed.
    pub failures: u64,
    /// What the arm has shown as a shadow; apart from all the rest.
    pub shadow: ShadowTally,
    /// What the policy asks for beyond counts and sums.
    pub detail: Arc<Learned>,
    /// Named secondary outcomes.
    pub measures: Arc<Measures>,
}

/// What an arm has shown on copies of requests that other arms served. Additive.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct ShadowTally {
    /// Copies that it answered, whatever they were worth.
    pub answers: u64,
    /// Its scores: one for each decision whose label was accepted, and with which its prediction can be compared.
    pub scores: Moments,
}

impl PartialEq for Tally {
    fn eq(&self, other: &Self) -> bool {
        let scalars = |tally: &Self| {
            (
                (
                    tally.decisions,
                    tally.waiting,
                    tally.defaults,
                    tally.failures,
                ),
                (tally.learned, tally.rewards, tally.shadow),
            )
        };
        // Details are changed only together with their arm's counts, so one that was not replaced need not be looked through.
        scalars(self) == scalars(other)
            && (Arc::ptr_eq(&self.detail, &other.detail) || self.detail == other.detail)
            && self.measures == other.measures
    }
}
