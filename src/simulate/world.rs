//! The world as one experiment meets it: what each round's arms would earn, and when the reward arrives.
//!
//! What an arm earns in a round depends on (seed, arm, round) alone and not on what was drawn before, so policies with the same
//! seed meet the same world, and other programs can compute the same rewards:
//! x = (seed << 40) ^ (arm << 32) ^ round, z = x + 0x9E3779B97F4A7C15 and then the finisher of splitmix64 (Steele, Lea and
//! Flood 2014), U = (z >> 11) 2^-53; a Bernoulli reward is 1 if U < mean, a Gaussian one is mean + sd Φ⁻¹(U). `arm` is the index in
//! the policy file. Not here: who draws which arm (`trial`).

use std::sync::Arc;

use super::dataset::{Cell, Dataset};
use super::environment::{Delay, Environment, Kind};
use crate::experiment::Experiment;
use crate::experiment::reward::{Goal, MAX_REAL_REWARD, RewardKind};
use crate::stats::special;

/// An environment as one experiment meets it.
#[derive(Debug, Clone)]
pub struct World {
    source: Source,
    delays: Vec<Delay>,
    /// Rewards of 0 and below are never posted.
    silent: bool,
    round: u64,
}

#[derive(Debug, Clone)]
enum Source {
    Table {
        phases: Vec<Stretch>,
        /// The standard deviation of each arm; `None`: Bernoulli.
        deviations: Option<Vec<f64>>,
        /// Rewards are cut off here.
        range: (f64, f64),
    },
    Rows {
        dataset: Arc<Dataset>,
        /// Of each label, the index of its arm.
        arm_of: Vec<usize>,
        right: f64,
        wrong: f64,
        /// What missing the label costs.
        regret: f64,
    },
}

#[derive(Debug, Clone)]
struct Stretch {
    from: u64,
    means: Vec<f64>,
    /// How much worse than the best arm each arm is on average.
    regrets: Vec<f64>,
}

impl World {
    /// The world of `experiment`; `None` if the environment lacks one of its arms, which `environment::parse` refuses. A given `delay`
    /// is that of every reward.
    pub fn new(
        environment: &Environment,
        experiment: &Experiment,
        delay: Option<u64>,
    ) -> Option<Self> {
        let place = |name: &str| environment.arms.iter().position(|arm| arm == name);
        let order: Vec<usize> = experiment
            .arms
            .iter()
            .map(|arm| place(arm.name.as_str()))
            .collect::<Option<_>>()?;
        let source = match &environment.kind {
            Kind::Bernoulli(phases) => {
                let stretches = phases
                    .iter()
                    .map(|phase| (phase.from, pick(&phase.means, &order)));
                table(stretches, None, experiment)
            }
            Kind::Gaussian(phases, deviations) => {
                let stretches = phases
                    .iter()
                    .map(|phase| (phase.from, pick(&phase.means, &order)));
                table(stretches, Some(pick(deviations, &order)), experiment)
            }
            Kind::Dataset {
                dataset,
                right,
                wrong,
            } => Source::Rows {
                dataset: Arc::clone(dataset),
                arm_of: (0..dataset.labels.len())
                    .map(|label| order.iter().position(|arm| *arm == label))
                    .collect::<Option<_>>()?,
                right: *right,
                wrong: *wrong,
                regret: match experiment.reward.goal {
                    Goal::Maximize => right - wrong,
                    Goal::Minimize => wrong - right,
                },
            },
        };
        let everywhere = delay.map(|delay| Delay {
            rewarded: delay,
            otherwise: delay,
        });
        Some(Self {
            source,
            delays: pick(&environment.delays, &order)
                .into_iter()
                .map(|own| everywhere.unwrap_or(own))
                .collect(),
            silent: environment.silent,
            round: environment.round,
        })
    }

    /// How long a round lasts, in milliseconds.
    pub fn round(&self) -> u64 {
        self.round
    }

    /// The rounds of one pass over a dataset; `None`: the world has no end.
    pub fn rows(&self) -> Option<u64> {
        match &self.source {
            Source::Table { .. } => None,
            Source::Rows { dataset, .. } => Some(dataset.rows.len() as u64),
        }
    }

    /// The rounds from which the means are others.
    pub fn changes(&self) -> Vec<u64> {
        match &self.source {
            Source::Table { phases, .. } => phases.iter().skip(1).map(|phase| phase.from).collect(),
            Source::Rows { .. } => Vec::new(),
        }
    }

    /// Every delay that occurs, the longest first.
    pub fn delays(&self) -> Vec<u64> {
        let mut delays: Vec<u64> = self
            .delays
            .iter()
            .flat_map(|delay| [delay.rewarded, delay.otherwise])
            .collect();
        delays.sort_unstable_by(|a, b| b.cmp(a));
        delays.dedup();
        delays
    }

    /// When a reward of `arm` arrives, in rounds after its decision; `None`: it is never posted.
    pub fn delay(&self, arm: usize, reward: f64) -> Option<u64> {
        let delay = &self.delays[arm];
        if reward > 0.0 {
            Some(delay.rewarded)
        } else {
            (!self.silent).then_some(delay.otherwise)
        }
    }

    /// The history of this world with a seed, from its first round on.
    pub fn history(&self, seed: u64) -> History<'_> {
        let rows = match &self.source {
            Source::Table { .. } => Vec::new(),
            Source::Rows { dataset, .. } => (0..dataset.rows.len() as u32).collect(),
        };
        let mut history = History {
            world: self,
            seed,
            round: 0,
            stretch: 0,
            rows,
            row: 0,
        };
        history.place();
        history
    }
}

fn pick<T: Copy>(values: &[T], order: &[usize]) -> Vec<T> {
    order.iter().map(|index| values[*index]).collect()
}

fn table(
    stretches: impl Iterator<Item = (u64, Vec<f64>)>,
    deviations: Option<Vec<f64>>,
    experiment: &Experiment,
) -> Source {
    let range = match experiment.reward.kind {
        RewardKind::Bounded { min, max } => (min, max),
        RewardKind::Binary => (0.0, 1.0),
        RewardKind::Real => (-MAX_REAL_REWARD, MAX_REAL_REWARD),
    };
    let phases = stretches
        .map(|(from, means)| {
            let earned: Vec<f64> = means
                .iter()
                .enumerate()
                .map(|(arm, mean)| match &deviations {
                    Some(deviations) => mean_within(*mean, deviations[arm], range),
                    None => *mean,
                })
                .collect();
            Stretch {
                from,
                regrets: regrets(&earned, experiment.reward.goal),
                means,
            }
        })
        .collect();
    Source::Table {
        phases,
        deviations,
        range,
    }
}

/// How much worse each arm is than the best one.
fn regrets(means: &[f64], goal: Goal) -> Vec<f64> {
    let best = match goal {
        Goal::Maximize => means.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        Goal::Minimize => means.iter().copied().fold(f64::INFINITY, f64::min),
    };
    means.iter().map(|mean| (best - mean).abs()).collect()
}

/// The mean of a normal variable that is cut off at both ends: what lies beyond an end counts as that end.
fn mean_within(mean: f64, deviation: f64, (low, high): (f64, f64)) -> f64 {
    if deviation == 0.0 {
        return mean.clamp(low, high);
    }
    let (from, to) = ((low - mean) / deviation, (high - mean) / deviation);
    if from < -40.0 && to > 40.0 {
        return mean;
    }
    let density = |z: f64| libm::exp(-0.5 * z * z) / libm::sqrt(2.0 * std::f64::consts::PI);
    let (below, above) = (special::normal_cdf(from), special::normal_cdf(-to));
    low * below
        + high * above
        + mean * (1.0 - below - above)
        + deviation * (density(from) - density(to))
}

/// The world with one seed, round after round.
#[derive(Debug)]
pub struct History<'w> {
    world: &'w World,
    seed: u64,
    round: u64,
    stretch: usize,
    /// The order of the rows in this pass.
    rows: Vec<u32>,
    /// The row of this round.
    row: usize,
}

impl History<'_> {
    /// Goes on to the next round.
    pub fn advance(&mut self) {
        self.round += 1;
        self.place();
    }

    fn place(&mut self) {
        match &self.world.source {
            Source::Table { phases, .. } => {
                while phases
                    .get(self.stretch + 1)
                    .is_some_and(|next| next.from <= self.round)
                {
                    self.stretch += 1;
                }
            }
            Source::Rows { dataset, .. } => {
                let (pass, place) = (
                    self.round / dataset.rows.len() as u64,
                    (self.round % dataset.rows.len() as u64) as usize,
                );
                if place == 0 {
                    shuffle(&mut self.rows, self.seed, pass);
                }
                self.row = self.rows[place] as usize;
            }
        }
    }

    /// How much less `arm` earns than the best arm, on average.
    pub fn regret(&self, arm: usize) -> f64 {
        match &self.world.source {
            Source::Table { phases, .. } => phases[self.stretch].regrets[arm],
            Source::Rows { regret, .. } => {
                // Being right costs where being wrong is better.
                let right = self.is_right(arm);
                if *regret >= 0.0 {
                    if right { 0.0 } else { *regret }
                } else if right {
                    -regret
                } else {
                    0.0
                }
            }
        }
    }

    /// What `arm` earns in this round.
    pub fn reward(&self, arm: usize) -> f64 {
        match &self.world.source {
            Source::Table {
                phases,
                deviations,
                range,
            } => {
                let uniform = uniform(self.seed, arm as u64, self.round);
                let mean = phases[self.stretch].means[arm];
                match deviations {
                    None => f64::from(u8::from(uniform < mean)),
                    Some(deviations) => {
                        // Half a step from 0, so that the quantile is finite.
                        let open = uniform.max(f64::EPSILON / 4.0);
                        (mean + deviations[arm] * special::normal_quantile(open))
                            .clamp(range.0, range.1)
                    }
                }
            }
            Source::Rows { right, wrong, .. } => {
                if self.is_right(arm) {
                    *right
                } else {
                    *wrong
                }
            }
        }
    }

    /// The features of this round, with their names; empty where the world has none.
    pub fn features(&self) -> (&[String], &[Cell]) {
        match &self.world.source {
            Source::Table { .. } => (&[], &[]),
            Source::Rows { dataset, .. } => (&dataset.columns, &dataset.rows[self.row]),
        }
    }

    fn is_right(&self, arm: usize) -> bool {
        match &self.world.source {
            Source::Table { .. } => false,
            Source::Rows {
                dataset, arm_of, ..
            } => arm_of[dataset.label_of[self.row]] == arm,
        }
    }
}

/// The uniform number in [0, 1) of (seed, arm, round). Distinct for seeds below 2^24, arms below 2^8 and rounds below 2^32.
pub fn uniform(seed: u64, arm: u64, round: u64) -> f64 {
    let hash = mix((seed << 40) ^ (arm << 32) ^ round);
    (hash >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
}

fn mix(value: u64) -> u64 {
    let mut hash = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    hash ^ (hash >> 31)
}

/// Puts the rows of a pass in an order of its own (Fisher and Yates; Durstenfeld 1964). The bias of the remainder is below 2^-32.
fn shuffle(rows: &mut [u32], seed: u64, pass: u64) {
    rows.sort_unstable();
    for end in (1..rows.len()).rev() {
        let key = mix(mix(seed).wrapping_add(pass)).wrapping_add(end as u64);
        let other = (mix(key) % (end as u64 + 1)) as usize;
        rows.swap(end, other);
    }
}

#[cfg(test)]
mod tests;
