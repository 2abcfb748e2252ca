//! What two replicas learned adds up to what one that saw both streams knows: scalar statistics bit for bit, linear ones to 1e-9.
//! States of `logistic_thompson` depend on the order of the decisions, so what is compared there is regret: over 10,000 decisions, with
//! states exchanged every 50, two replicas have at most 1.05 times that of one. The proof needs many seeds:
//!
//! ```text
//! cargo test --release --no-default-features --test replicas -- --ignored --nocapture
//! ```
//!
//! Early on two replicas cost more than 5 %, so a shorter horizon would not hold. Measured, two over one, with standard errors (500 seeds; the
//! last row, which the test prints, 1,200):
//!
//! | exchanged every | 1,000 decisions | 5,000 | 10,000 |
//! |---|---|---|---|
//! | decision | 1.081 ± 0.008 | 0.999 ± 0.011 | 0.965 ± 0.013 |
//! | 20 decisions | 1.108 ± 0.008 | 1.023 ± 0.012 | 0.990 ± 0.015 |
//! | 50 decisions | 1.134 ± 0.005 | 1.053 ± 0.008 | 1.027 ± 0.009 |
//!
//! Two things make it so. Not to know the other's last decisions costs any policy: 1.032 of the regret at 20 after 1,000, if states are
//! relearned in order at each exchange instead of merged. And a replica takes each step from its own weights, which only half the
//! decisions have moved: that is the first row, where nothing is late. Steps from the merged weights would give 1.066 instead of 1.109 at 20 after
//! 1,000 (400 seeds); halving λ in each replica, or doing without standardisation, changes little. Why
//! the first row ends below 1 was not looked into.
//!
//! Not here: how states travel between replicas, and the unit tests of each statistic.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::num::NonZero;
use std::thread;

use pointsman::experiment::reward::{Goal, RewardKind};
use pointsman::policy::Memory;
use pointsman::policy::contextual::lin_thompson::LinThompson;
use pointsman::policy::contextual::lin_ucb::LinUcb;
use pointsman::policy::contextual::logistic_thompson::LogisticThompson;
use pointsman::policy::contextual::model::{Model, Scratch};
use pointsman::policy::contextual::ridge::{ArmStatistics, Objective, Ridge};
use pointsman::stats::importance::Importance;
use pointsman::stats::laplace::{Laplace, LaplaceRule};
use pointsman::stats::linear::Linear;
use pointsman::stats::moments::Moments;

const ARMS: usize = 3;
/// Four features and the intercept.
const DIMENSION: usize = 5;
const TOLERANCE: f64 = 1e-9;

type Features = [f64; DIMENSION];

/// Of the features; the intercept has none.
const MEANS: Features = [0.0, 0.0, 3.0, -20.0, 0.0];
/// Standard deviations of the features, and 1.
const SPREADS: Features = [1.0, 1.0, 0.5, 10.0, 0.01];

/// `SplitMix64` (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// In [0, 1).
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform with mean 0 and variance 1.
    fn centred(&mut self) -> f64 {
        (self.unit() - 0.5) * 12_f64.sqrt()
    }

    /// Below `count`, which is small.
    fn below(&mut self, count: usize) -> usize {
        (self.next() % count as u64) as usize
    }

    /// In an order of its own.
    fn shuffled<T: Clone>(&mut self, items: &[T]) -> Vec<T> {
        let mut items = items.to_vec();
        for end in (1..items.len()).rev() {
            let chosen = self.below(end + 1);
            items.swap(end, chosen);
        }
        items
    }

    /// x₀ = 1, and four features.
    fn features(&mut self) -> Features {
        let mut x = [1.0; DIMENSION];
        for (index, value) in x.iter_mut().enumerate().skip(1) {
            *value = MEANS[index] + SPREADS[index] * self.centred();
        }
        x
    }
}

fn dot(weights: &Features, x: &Features) -> f64 {
    weights.iter().zip(x).map(|(w, x)| w * x).sum()
}

// Logistic Thompson sampling.

const LOGISTIC: LogisticThompson = LogisticThompson {
    rule: LaplaceRule {
        lambda: 1.0,
        standardize: true,
    },
};

/// One request, with all chance that befalls it, so that runs differ in nothing but what their learners know.
struct Round {
    x: Features,
    /// Each arm's rate of success.
    rates: [f64; ARMS],
    /// What draws the arm.
    draw: f64,
    /// What draws the reward.
    luck: f64,
}

/// The requests of a world in which each arm's logit is another linear function of the features.
fn rounds(seed: u64, count: usize) -> Vec<Round> {
    let mut random = SplitMix64(seed);
    let mut arms = [[0.0; DIMENSION]; ARMS];
    for arm in &mut arms {
        for (weight, spread) in arm.iter_mut().zip(&SPREADS) {
            *weight = random.centred() / spread;
        }
        // Centred on -0.5 at the features' means, where rates are a little below one half.
        arm[0] -= 0.5 + dot(arm, &MEANS);
    }
    let round = |_| {
        let x = random.features();
        Round {
            x,
            rates: arms.map(|arm| 1.0 / (1.0 + libm::exp(-dot(&arm, &x)))),
            draw: random.unit(),
            luck: random.unit(),
        }
    };
    (0..count).map(round).collect()
}

/// Who decides and learns.
#[derive(Clone, Copy)]
struct Replicas {
    /// They take turns at serving, and each learns what it served.
    count: usize,
    /// After so many decisions each sees the others' states; `None`: never.
    exchange: Option<usize>,
}

const ONE: Replicas = Replicas {
    count: 1,
    exchange: None,
};
const EXCHANGING: Replicas = Replicas {
    count: 2,
    exchange: Some(50),
};
const ISOLATED: Replicas = Replicas {
    count: 2,
    exchange: None,
};

/// Pseudo-regret after each of the `horizons`. A replica decides by its own cumulative state and the last that it saw of the others.
fn regret<const N: usize>(rounds: &[Round], replicas: Replicas, horizons: [usize; N]) -> [f64; N] {
    let mut own = vec![vec![Laplace::new(DIMENSION); ARMS]; replicas.count];
    let mut published = own.clone();
    let mut scratch = Scratch::default();
    let mut regrets = [0.0; N];
    for (index, round) in rounds.iter().enumerate() {
        if replicas.exchange.is_some_and(|every| index % every == 0) {
            published.clone_from(&own);
        }
        let serving = index % replicas.count;
        let states = known(&own, &published, serving);
        let model = LOGISTIC.fit(&states.iter().collect::<Vec<_>>(), Goal::Maximize);
        let mut distribution = [0.0; ARMS];
        model.distribution(&round.x, &mut scratch, &mut distribution);
        let best = round.rates.iter().copied().fold(0.0, f64::max);
        let parts = distribution.iter().zip(&round.rates);
        let lost = best - parts.map(|(part, rate)| part * rate).sum::<f64>();
        for (regret, horizon) in regrets.iter_mut().zip(horizons) {
            *regret += if index < horizon { lost } else { 0.0 };
        }
        let arm = drawn(&distribution, round.draw);
        own[serving][arm].learn(&round.x, round.luck < round.rates[arm], LOGISTIC.rule);
    }
    regrets
}

/// What the replica that serves knows of each arm.
fn known(own: &[Vec<Laplace>], published: &[Vec<Laplace>], serving: usize) -> Vec<Laplace> {
    let mut known = own[serving].clone();
    for (replica, states) in published.iter().enumerate() {
        if replica != serving {
            for (state, other) in known.iter_mut().zip(states) {
                state.merge(other);
            }
        }
    }
    known
}

fn drawn(distribution: &[f64; ARMS], draw: f64) -> usize {
    let mut sum = 0.0;
    let within = distribution.iter().position(|part| {
        sum += part;
        draw < sum
    });
    within.unwrap_or(ARMS - 1)
}

/// Regrets of each of these sets of replicas in worlds of so many seeds: a row a seed, the same on any number of processors.
fn regrets<const N: usize, const R: usize>(
    seeds: u64,
    horizons: [usize; N],
    replicas: [Replicas; R],
) -> Vec<[[f64; N]; R]> {
    let count = horizons.into_iter().max().unwrap();
    let run = |seed| {
        let rounds = rounds(seed, count);
        replicas.map(|replicas| regret(&rounds, replicas, horizons))
    };
    let workers = thread::available_parallelism().map_or(1, NonZero::get) as u64;
    let next = |worker: u64| (worker..seeds).step_by(workers as usize);
    let mut rows: Vec<(u64, [[f64; N]; R])> = thread::scope(|scope| {
        let start = |worker| {
            scope.spawn(move || {
                next(worker)
                    .map(|seed| (seed, run(seed)))
                    .collect::<Vec<_>>()
            })
        };
        let started: Vec<_> = (0..workers).map(start).collect();
        started
            .into_iter()
            .flat_map(|worker| worker.join().unwrap())
            .collect()
    });
    rows.sort_by_key(|row| row.0);
    rows.into_iter().map(|row| row.1).collect()
}

/// Σ numerators / Σ denominators, and its standard error (by linearisation: the pairs are independent of each other).
fn ratio(pairs: &[(f64, f64)]) -> (f64, f64) {
    let numerator: f64 = pairs.iter().map(|pair| pair.0).sum();
    let denominator: f64 = pairs.iter().map(|pair| pair.1).sum();
    let ratio = numerator / denominator;
    let residuals = pairs.iter().map(|pair| pair.0 - ratio * pair.1);
    let squares: f64 = residuals.map(|residual| residual * residual).sum();
    let count = pairs.len() as f64;
    (
        ratio,
        (squares * count / (count - 1.0)).sqrt() / denominator,
    )
}

#[test]
#[ignore = "minutes; the command is in the module's documentation"]
fn logistic_regret_on_two_replicas_is_within_5_percent_of_one() {
    let horizons = [1_000, 5_000, 10_000];
    let rows = regrets(1_200, horizons, [ONE, EXCHANGING]);
    let measured = [0, 1, 2].map(|at| {
        let pairs: Vec<_> = rows.iter().map(|[one, two]| (two[at], one[at])).collect();
        ratio(&pairs)
    });
    for (horizon, (ratio, error)) in horizons.iter().zip(measured) {
        println!("{horizon} decisions: {ratio:.4} ± {error:.4}");
    }
    let (ratio, error) = measured[2];
    assert!(error < 0.01, "{error}");
    assert!(ratio <= 1.05, "{ratio}");
}

/// Not the 5 % but what a few short runs can tell: replicas that exchange states pay little over one, those that do not pay a lot.
#[test]
fn replicas_that_exchange_logistic_states_profit() {
    let rows = regrets(24, [1_000], [ONE, EXCHANGING, ISOLATED]);
    let over_one = |which: usize| {
        let pairs: Vec<_> = rows.iter().map(|row| (row[which][0], row[0][0])).collect();
        ratio(&pairs).0
    };
    let (exchanging, isolated) = (over_one(1), over_one(2));
    println!("two over one: {exchanging:.4}, isolated {isolated:.4}");
    assert!(exchanging <= 1.25, "{exchanging}");
    assert!(isolated >= 1.35, "{isolated}");
}

// Linear statistics.

/// Arm, features and reward.
type Decision = (usize, Features, f64);

/// Decisions with real rewards whose arms differ so little that many of them leave it open which one is best.
fn decisions(random: &mut SplitMix64, count: usize) -> Vec<Decision> {
    let decide = |_| {
        let arm = random.below(ARMS);
        let x = random.features();
        let own = 0.004 * arm as f64 * x[1] + 0.003 * (x[2] - 3.0);
        let reward = 7.0 + 0.8 * x[1] - 0.05 * x[3] + own + random.centred();
        (arm, x, reward)
    };
    (0..count).map(decide).collect()
}

fn added<'d>(decisions: impl Iterator<Item = &'d Decision>) -> Vec<Linear> {
    let mut arms = vec![Linear::new(DIMENSION); ARMS];
    for (arm, x, reward) in decisions {
        arms[*arm].add(x, *reward);
    }
    arms
}

/// Sums of one that saw all, and of two that each saw about half in another order, merged.
fn linear_pair(random: &mut SplitMix64) -> (Vec<Linear>, Vec<Linear>) {
    let decisions = decisions(random, 100_000);
    let single = added(decisions.iter());
    let (first, second): (Vec<Decision>, Vec<Decision>) = random
        .shuffled(&decisions)
        .into_iter()
        .partition(|_| random.below(2) == 0);
    let mut merged = added(first.iter());
    for (arm, other) in merged.iter_mut().zip(&added(second.iter())) {
        arm.merge(other);
    }
    (single, merged)
}

fn assert_close(actual: &[f64], expected: &[f64]) {
    assert_eq!(actual.len(), expected.len());
    for (actual, expected) in actual.iter().zip(expected) {
        let error = (actual - expected).abs();
        assert!(
            error <= TOLERANCE * expected.abs(),
            "{actual} instead of {expected}"
        );
    }
}

#[test]
fn linear_sums_of_two_replicas_equal_those_of_one() {
    let (single, merged) = linear_pair(&mut SplitMix64(51));
    for (merged, single) in merged.iter().zip(&single) {
        assert_eq!(merged.weight(), single.weight());
        assert_close(merged.gram(), single.gram());
        assert_close(merged.response(), single.response());
        assert_close(&[merged.squares()], &[single.squares()]);
    }
}

const REAL: Objective = Objective {
    reward: RewardKind::Real,
    goal: Goal::Maximize,
};

fn as_arms(linear: &[Linear]) -> Vec<ArmStatistics<'_>> {
    let arms = linear.iter();
    arms.map(|linear| ArmStatistics {
        linear,
        lambda: None,
    })
    .collect()
}

#[test]
fn linear_policies_decide_by_merged_sums_as_by_one() {
    let mut random = SplitMix64(52);
    let (single, merged) = linear_pair(&mut random);
    let thompson = LinThompson {
        v: 1.0,
        ridge: Ridge::new(1.0),
        memory: Memory::Forever,
    };
    let bound = LinUcb {
        alpha: 1.0,
        ridge: Ridge::new(1.0),
        memory: Memory::Forever,
    };
    let [thompson_single, thompson_merged] =
        [&single, &merged].map(|linear| thompson.fit(&as_arms(linear), REAL));
    let [bound_single, bound_merged] =
        [&single, &merged].map(|linear| bound.fit(&as_arms(linear), REAL));
    let mut scratch = Scratch::default();
    let mut open = 0;
    for _ in 0..100 {
        let x = random.features();
        let of_single = distribution(&thompson_single, &x, &mut scratch);
        let of_merged = distribution(&thompson_merged, &x, &mut scratch);
        assert_near(&of_merged, &of_single);
        open += u32::from(of_single.iter().all(|part| *part < 0.95));
        let of_single = distribution(&bound_single, &x, &mut scratch);
        let of_merged = distribution(&bound_merged, &x, &mut scratch);
        assert_near(&of_merged, &of_single);
        let of_single = bound_single.bounds(&x, &mut scratch).to_vec();
        assert_near(bound_merged.bounds(&x, &mut scratch), &of_single);
    }
    // Where one arm has everything, any two models agree.
    assert!(open >= 50, "{open} of 100 contexts leave the best arm open");
}

fn distribution(model: &dyn Model, x: &Features, scratch: &mut Scratch) -> [f64; ARMS] {
    let mut distribution = [0.0; ARMS];
    model.distribution(x, scratch, &mut distribution);
    distribution
}

fn assert_near(actual: &[f64], expected: &[f64]) {
    assert_eq!(actual.len(), expected.len());
    for (actual, expected) in actual.iter().zip(expected) {
        let error = (actual - expected).abs();
        assert!(error <= TOLERANCE, "{actual} instead of {expected}");
    }
}

// Scalar statistics.

/// Rewards of all magnitudes that are allowed, and the propensities of their decisions.
fn rewards(random: &mut SplitMix64, count: usize) -> Vec<(f64, f64)> {
    let reward = |_| {
        let scale = [1e-9, 0.1, 1.0, 1234.5, 1e9][random.below(5)];
        (scale * (2.0 * random.unit() - 1.0), random.unit())
    };
    (0..count).map(reward).collect()
}

#[test]
fn scalar_sums_of_two_replicas_are_those_of_one_bit_for_bit() {
    let mut random = SplitMix64(53);
    let rewards = rewards(&mut random, 100_000);
    let sum = |rewards: &[(f64, f64)]| {
        let (mut moments, mut importance) = (Moments::default(), Importance::default());
        for (value, propensity) in rewards {
            moments.add(*value, 1);
            importance.add(*value, Importance::weight(*propensity, 0.01));
        }
        (moments, importance)
    };
    let (moments, importance) = sum(&rewards);
    let (first, second): (Vec<_>, Vec<_>) = random
        .shuffled(&rewards)
        .into_iter()
        .partition(|_| random.below(2) == 0);
    let ((mut merged, mut merged_importance), other) = (sum(&first), sum(&second));
    assert!(merged.count() > 0 && other.0.count() > 0);
    merged.merge(&other.0);
    merged_importance.merge(&other.1);
    assert_eq!(merged.to_parts(), moments.to_parts());
    assert_eq!(merged_importance, importance);
    let bits = |moments: &Moments, importance: &Importance| {
        [
            moments.sum(),
            moments.sum_of_squared_deviations(),
            importance.weights(),
            importance.rewards(),
        ]
        .map(f64::to_bits)
    };
    assert_eq!(
        bits(&merged, &merged_importance),
        bits(&moments, &importance)
    );
}
