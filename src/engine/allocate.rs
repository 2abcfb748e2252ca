//! From evidence to an allocation: the one place where exclusions, warm-up and floor are applied.
//!
//! In this order: the eligible arms (enabled, healthy, and of positive weight); the policy's π over those that are warm, with the cold
//! ones taking their weights' share together; the floor, mixed in additively: p = f + (1 − K f) π with K = eligible arms
//! (clipping and renormalising would push arms below the floor again). Pure: what is drawn from is what is computed here.

use crate::clock::Timestamp;
use crate::experiment::reward::{Goal, RewardKind};
use crate::experiment::{Arm, Experiment};
use crate::policy::{
    ArmEvidence, Evidence, Policy, Posterior, Regressed, Statistics, best, shares,
};
use crate::stats::cholesky;

use super::contextual::Contextual;
use super::snapshot::{ArmState, Tally};

/// What an allocation depends on, besides the arms.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// The policy.
    pub policy: &'a dyn Policy,
    /// What a reward is.
    pub reward: RewardKind,
    /// Whether more is better.
    pub goal: Goal,
    /// Least probability of each eligible arm; 1/K where it would be more.
    pub floor: f64,
    /// An arm is warm after this many credited decisions.
    pub warm_up: u64,
}

impl<'a> Rules<'a> {
    /// The rules of an experiment.
    pub fn of(experiment: &'a Experiment) -> Self {
        Self {
            policy: &*experiment.policy,
            reward: experiment.reward.kind,
            goal: experiment.reward.goal,
            floor: experiment.floor,
            warm_up: experiment.warm_up,
        }
    }
}

/// What lets an arm be drawn, besides its weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// No operator has taken it out.
    pub enabled: bool,
    /// One of its endpoints is available.
    pub healthy: bool,
}

impl Admission {
    /// Nothing keeps the arm out.
    pub const FULL: Self = Self {
        enabled: true,
        healthy: true,
    };
}

/// An arm that may or may not be drawn.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// What the policy sees of it.
    pub evidence: ArmEvidence,
    /// Whether nothing but its weight can keep it out.
    pub enabled: bool,
}

impl Candidate {
    /// Whether it can be drawn: weight 0 takes an arm out under every policy.
    pub fn eligible(&self) -> bool {
        self.enabled && self.evidence.weight > 0.0
    }
}

/// The result, each list in the order of the candidates.
#[derive(Debug, Clone)]
pub struct Allotment {
    /// Floor included; 0 for arms that are not eligible. All 0 when no arm is eligible, else they sum to 1 within 1e-9.
    pub probabilities: Vec<f64>,
    /// Posterior probability of being best among the eligible, 0 for others; only if the policy has asked for it, because it
    /// costs far more than most policies do.
    pub probability_best: Option<Vec<f64>>,
    /// What is believed of each arm, eligible or not.
    pub posteriors: Vec<Posterior>,
    /// For policies that look at the context; `probabilities` are then those at a typical one.
    pub contextual: Option<Contextual>,
}

/// Computes what is drawn from.
pub fn allocate(rules: &Rules<'_>, candidates: &[Candidate]) -> Allotment {
    let posteriors: Vec<Posterior> = candidates
        .iter()
        .map(|candidate| rules.policy.posterior(&candidate.evidence, rules.reward))
        .collect();
    let eligible = eligible(candidates);
    let among: Vec<Posterior> = eligible.iter().map(|index| posteriors[*index]).collect();
    let arms: Vec<ArmEvidence> = eligible
        .iter()
        .map(|index| candidates[*index].evidence.clone())
        .collect();
    if let Some(contextual) = contextual(rules, &arms, &among, &eligible, candidates.len()) {
        return Allotment {
            probabilities: contextual.typical(),
            probability_best: None,
            posteriors,
            contextual: Some(contextual),
        };
    }
    let (distribution, best) = warm(rules, &arms, &among);
    let chosen = with_floor(&distribution, rules.floor);
    Allotment {
        probabilities: scatter(&chosen, &eligible, candidates.len()),
        probability_best: best.map(|best| scatter(&best, &eligible, candidates.len())),
        posteriors,
        contextual: None,
    }
}

/// The model of the warm arms, with floor and cold arms around it; `None` for policies that do not look at the context, and as long as no arm is
/// warm.
fn contextual(
    rules: &Rules<'_>,
    arms: &[ArmEvidence],
    posteriors: &[Posterior],
    places: &[usize],
    count: usize,
) -> Option<Contextual> {
    rules.policy.statistics().regression?;
    let warm: Vec<usize> = (0..arms.len())
        .filter(|index| arms[*index].credited >= rules.warm_up)
        .collect();
    if warm.is_empty() {
        return None;
    }
    let of = |index: &usize| arms[*index].clone();
    let warm_arms: Vec<ArmEvidence> = warm.iter().map(of).collect();
    let warm_posteriors: Vec<Posterior> = warm.iter().map(|index| posteriors[*index]).collect();
    let evidence = Evidence::new(&warm_arms, &warm_posteriors, rules.reward, rules.goal);
    let model = rules.policy.fit(&evidence)?;
    let mut base = shares(arms.iter().map(|arm| arm.weight));
    let share: f64 = if warm.len() == arms.len() {
        1.0
    } else {
        warm.iter().map(|index| base[*index]).sum()
    };
    for index in &warm {
        base[*index] = 0.0;
    }
    let base = with_floor(&base, rules.floor);
    let free = if arms.len() == 1 {
        0.0
    } else {
        1.0 - arms.len() as f64 * least(rules.floor, arms.len())
    };
    Some(Contextual::new(
        model,
        warm.iter().map(|index| places[*index]).collect(),
        scatter(&base, places, count),
        free * share,
        center(arms),
    ))
}

/// Posterior probability of each candidate that it is best among the eligible; 0 for others.
fn probability_best(candidates: &[Candidate], posteriors: &[Posterior], goal: Goal) -> Vec<f64> {
    let eligible = eligible(candidates);
    let among: Vec<Posterior> = eligible.iter().map(|index| posteriors[*index]).collect();
    let best = best::probability_best(&among, goal);
    scatter(&best, &eligible, candidates.len())
}

fn eligible(candidates: &[Candidate]) -> Vec<usize> {
    (0..candidates.len())
        .filter(|index| candidates[*index].eligible())
        .collect()
}

fn scatter(values: &[f64], places: &[usize], count: usize) -> Vec<f64> {
    let mut all = vec![0.0; count];
    for (place, value) in places.iter().zip(values) {
        all[*place] = *value;
    }
    all
}

/// π over the eligible arms, warm-up included; and P(best) among them, if the policy has asked for that.
fn warm(
    rules: &Rules<'_>,
    arms: &[ArmEvidence],
    posteriors: &[Posterior],
) -> (Vec<f64>, Option<Vec<f64>>) {
    let is_warm = |arm: &ArmEvidence| arm.credited >= rules.warm_up;
    if arms.iter().all(is_warm) {
        return distribution(rules, arms, posteriors);
    }
    let mut result = shares(arms.iter().map(|arm| arm.weight));
    let warm: Vec<usize> = (0..arms.len())
        .filter(|index| is_warm(&arms[*index]))
        .collect();
    let share: f64 = warm.iter().map(|index| result[*index]).sum();
    let warm_arms: Vec<ArmEvidence> = warm.iter().map(|index| arms[*index].clone()).collect();
    let warm_posteriors: Vec<Posterior> = warm.iter().map(|index| posteriors[*index]).collect();
    let (among_warm, _) = distribution(rules, &warm_arms, &warm_posteriors);
    for (index, probability) in warm.iter().zip(among_warm) {
        result[*index] = share * probability;
    }
    (result, None)
}

/// The policy's word, made a distribution should rounding or a faulty policy have left it none.
fn distribution(
    rules: &Rules<'_>,
    arms: &[ArmEvidence],
    posteriors: &[Posterior],
) -> (Vec<f64>, Option<Vec<f64>>) {
    if arms.is_empty() {
        return (Vec::new(), None);
    }
    let evidence = Evidence::new(arms, posteriors, rules.reward, rules.goal);
    let mut stated = rules.policy.distribution(&evidence);
    stated.resize(arms.len(), 0.0);
    let sum: f64 = stated.iter().sum();
    if !(stated.iter().all(|share| *share >= 0.0) && (sum - 1.0).abs() <= 1e-9) {
        stated = shares(stated.into_iter());
    }
    (stated, evidence.into_probability_best())
}

/// p = f + (1 − K f) π. One arm gets exactly 1.
fn with_floor(distribution: &[f64], floor: f64) -> Vec<f64> {
    if distribution.len() == 1 {
        return vec![1.0];
    }
    let floor = least(floor, distribution.len());
    let free = (1.0 - distribution.len() as f64 * floor).max(0.0);
    distribution
        .iter()
        .map(|probability| floor + free * probability)
        .collect()
}

/// The mean context of the arms' credits.
fn center(arms: &[ArmEvidence]) -> Vec<f64> {
    let mut sums: Vec<f64> = Vec::new();
    let mut add = |place: usize, sum: f64| {
        if sums.len() <= place {
            sums.resize(place + 1, 0.0);
        }
        sums[place] += sum;
    };
    for arm in arms {
        match &arm.regressed {
            // The first column of the packed triangle.
            Some(Regressed::Linear(linear)) => (0..linear.dimension())
                .for_each(|place| add(place, linear.gram()[cholesky::row(place)])),
            Some(Regressed::Logistic(posterior)) => posterior
                .features()
                .iter()
                .enumerate()
                .for_each(|(place, feature)| add(place, feature.sum)),
            None => {}
        }
    }
    let count = sums.first().copied().unwrap_or(0.0);
    for sum in &mut sums {
        *sum = if count > 0.0 { *sum / count } else { 0.0 };
    }
    if let Some(intercept) = sums.first_mut() {
        *intercept = 1.0;
    }
    sums
}

/// The floor of each of `count` arms.
fn least(floor: f64, count: usize) -> f64 {
    floor.min(1.0 / count as f64).max(0.0)
}

/// The candidates of an experiment, their evidence discounted to `now`. `tallies` and `enabled` are in the experiment's order of
/// arms.
pub fn candidates(
    experiment: &Experiment,
    tallies: &[Tally],
    enabled: &[bool],
    now: Timestamp,
) -> Vec<Candidate> {
    let statistics = experiment.policy.statistics();
    let dimension = experiment
        .context
        .as_ref()
        .map_or(1, |rule| rule.dimension());
    experiment
        .arms
        .iter()
        .zip(tallies.iter().zip(enabled))
        .map(|(arm, (tally, enabled))| Candidate {
            evidence: evidence(arm, tally, &statistics, dimension, now),
            enabled: *enabled,
        })
        .collect()
}

fn evidence(
    arm: &Arm,
    tally: &Tally,
    statistics: &Statistics,
    dimension: usize,
    now: Timestamp,
) -> ArmEvidence {
    let mut evidence = ArmEvidence {
        prior: arm.prior,
        waiting: tally.waiting,
        ..ArmEvidence::of(arm.weight, tally.learned)
    };
    if !statistics.is_scalar() {
        let discounted = tally.detail.at(statistics, now);
        evidence.importance = discounted.importance;
        evidence.regressed = tally.detail.regressed(statistics, dimension, now);
        if !statistics.memory.is_forever() {
            evidence.earned = discounted.earned;
        }
    }
    evidence
}

/// What is drawn from in an experiment, and the state of its arms, for a snapshot at `now`. `tallies` and `admissions` are in the
/// experiment's order of arms.
pub fn arm_states(
    experiment: &Experiment,
    tallies: &[Tally],
    admissions: &[Admission],
    now: Timestamp,
) -> (Allotment, Vec<ArmState>) {
    let open = |admission: &Admission| admission.enabled && admission.healthy;
    let open: Vec<bool> = admissions.iter().map(open).collect();
    let candidates = candidates(experiment, tallies, &open, now);
    let allotment = allocate(&Rules::of(experiment), &candidates);
    let goal = experiment.reward.goal;
    let best = allotment
        .probability_best
        .clone()
        .unwrap_or_else(|| probability_best(&candidates, &allotment.posteriors, goal));
    let states = experiment
        .arms
        .iter()
        .zip(admissions)
        .zip(tallies)
        .zip(allotment.posteriors.iter().zip(&best))
        .map(|(((arm, admission), tally), (posterior, best))| ArmState {
            tally: tally.clone(),
            posterior: *posterior,
            probability_best: *best,
            enabled: admission.enabled && arm.weight > 0.0,
            healthy: admission.healthy,
        })
        .collect();
    (allotment, states)
}

#[cfg(test)]
mod tests;
