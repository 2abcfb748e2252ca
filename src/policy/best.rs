//! P(arm is best) for independent posteriors, by numerical integration: `P_i = ∫ f_i(t) ∏_{j≠i} F_j(t) dt`.
//!
//! Composite Gauss–Legendre over one set of panels for all arms, laid from the highest plausible mean downwards. The panels follow whichever
//! arm is hardest to resolve at each place, so posteriors of very different widths share them: a single rule per arm over that
//! arm's own range errs by up to 2e-2 there. Each density is evaluated once; its distribution function comes from the same
//! values by integrating the polynomial through a panel's nodes (spectral integration), so no incomplete beta is needed.
//! What is left to be best is `∏ F_j`, so the panels end where that has died out; arms further down are never looked at.
//!
//! Not here: the floor and everything else that turns P(best) into an allocation.

use super::Posterior;
use super::density::{DROP, Densities, Density};
use crate::experiment::reward::Goal;
use lanes::{FAR_END, LANES, Lanes};
use rule::{RULE, Rule};

pub(super) mod lanes;
mod rule;

/// A panel is at most this many local standard deviations wide.
const WIDTH: f64 = 3.0;
/// A panel spans at most this many e-folds of a density near its peak.
const FOLDS: f64 = 7.0;
/// And as many more for each e-fold that lies beyond it: far down the tail less relative precision is needed.
const FOLDS_PER_DEPTH: f64 = 0.25;
/// Probability of being best that may be left out, before the result is scaled to a sum of 1.
const REST: f64 = 1e-12;
/// More panels than any proper input needs; a guard against an endless loop.
const MAX_PANELS: usize = 100_000;

/// The posterior probability of each arm that its mean is the best of all, in the order of `posteriors`.
///
/// Within 1e-9 of the exact integral for up to 100 arms and counts to 1e9 (1e-7 where a Student t has less than a tenth of a degree of
/// freedom, or is a hundred million times narrower than its distance from the leading arm), and sums to 1 within rounding. Never
/// NaN: parameters out of their range are taken at its nearest end. Arms with equal posteriors share equally. The same bits on every
/// machine.
pub fn probability_best(posteriors: &[Posterior], goal: Goal) -> Vec<f64> {
    integrate(posteriors, goal, 1.0).0
}

/// P(best), and what it summed to before it was scaled. `fineness` below 1 narrows every panel; for tests of convergence.
fn integrate(posteriors: &[Posterior], goal: Goal, fineness: f64) -> (Vec<f64>, f64) {
    let mut best = vec![1.0; posteriors.len()];
    if best.len() <= 1 {
        return (best, 1.0);
    }
    let sum = match Densities::of(posteriors, goal) {
        Densities::Logits(densities) => Sweep::new(densities, fineness).run(&mut best),
        Densities::Lines(densities) => Sweep::new(densities, fineness).run(&mut best),
    };
    (best, sum)
}

/// One arm that the panels have reached.
struct Arm<D> {
    index: usize,
    density: D,
    /// At the right end of the next panel: logarithm of the density, its slope, and the probability to the right.
    log: f64,
    slope: f64,
    above: f64,
    /// At the nodes of the panel: density, distribution function, and the product of the arms before.
    values: Lanes,
    below: Lanes,
    others: Lanes,
    /// P(best) so far, which is the sum of the lanes: adding them up in each panel would be a chain of waits.
    shares: Lanes,
}

/// The integration from the highest coordinate downwards.
struct Sweep<D> {
    /// Scale of the panels.
    fineness: f64,
    rule: &'static Rule,
    /// Arms that the panels have not reached, the highest last, with where they begin.
    waiting: Vec<(f64, usize, D)>,
    reached: Vec<Arm<D>>,
}

impl<D: Density> Sweep<D> {
    fn new(densities: Vec<D>, fineness: f64) -> Self {
        let count = densities.len();
        let mut waiting: Vec<(f64, usize, D)> = densities
            .into_iter()
            .enumerate()
            .map(|(index, density)| (density.upper_end(), index, density))
            .collect();
        waiting.sort_by(|a, b| a.0.total_cmp(&b.0));
        Self {
            // Many factors make the product steeper than any one of them.
            fineness: fineness / (1.0 + 0.1 * libm::log(count as f64)),
            rule: &RULE,
            waiting,
            reached: Vec::with_capacity(count),
        }
    }

    /// Writes P(best) to `best`, and returns what it summed to before it was scaled: 1 but for the error of the integration.
    fn run(mut self, best: &mut [f64]) -> f64 {
        let Some((highest, ..)) = self.waiting.last() else {
            return 1.0;
        };
        let mut right = *highest;
        let mut place = D::place(right);
        for _ in 0..MAX_PANELS {
            let next = self.left_end(right, &place);
            let rest = self.add_panel(&place, right - next.0);
            (right, place) = next;
            if rest < REST || self.one_has_ended(&place) {
                break;
            }
        }
        best.fill(0.0);
        for arm in &self.reached {
            best[arm.index] = arm.shares.iter().sum();
        }
        let sum: f64 = best.iter().sum();
        for share in best {
            *share /= sum;
        }
        sum
    }

    /// Updates the slopes, and says whether some arm is certainly further up, so that none below can be best.
    fn one_has_ended(&mut self, place: &D::Place) -> bool {
        let mut ended = false;
        for arm in &mut self.reached {
            arm.slope = arm.density.slope(place);
            ended |= arm.density.is_below(place) && arm.density.depth(place, arm.log) > DROP;
        }
        ended
    }

    /// Where the panel that ends at `right` begins, with the place there. Takes in the arms that it touches.
    fn left_end(&mut self, right: f64, place: &D::Place) -> (f64, D::Place) {
        let mut step = Step::default();
        for arm in &self.reached {
            let depth = arm.density.depth(place, arm.log);
            step.admit(&arm.density, place, arm.slope, depth);
        }
        let mut left = right - step.width(self.fineness, || self.log_curvature(place));
        while let Some((end, index, density)) = self.waiting.last().copied() {
            if end <= left {
                break;
            }
            let edge = D::place(end);
            let mut step = Step::default();
            step.admit(&density, &edge, density.slope(&edge), DROP);
            let reach = right - step.width(self.fineness, || density.log_curvature(&edge));
            if reach >= end {
                left = end;
                break;
            }
            left = left.max(reach);
            self.waiting.pop();
            self.reached.push(Arm {
                index,
                density,
                log: density.log(right),
                slope: density.slope(place),
                above: 0.0,
                values: [0.0; LANES],
                below: [0.0; LANES],
                others: [0.0; LANES],
                shares: [0.0; LANES],
            });
        }
        let left = left.min(right.next_down());
        let width = right - left;
        let place = D::place(left);
        let mut step = Step::default();
        for arm in &self.reached {
            let slope = arm.density.slope(&place);
            let log = arm.log - 0.5 * width * (arm.slope + slope);
            let depth = arm.density.depth(&place, log);
            step.admit(&arm.density, &place, slope, depth);
        }
        let narrower = step.width(self.fineness, || self.log_curvature(&place));
        if narrower >= width {
            return (left, place);
        }
        let left = (right - narrower).min(right.next_down());
        (left, D::place(left))
    }

    fn log_curvature(&self, place: &D::Place) -> f64 {
        self.reached
            .iter()
            .map(|arm| arm.density.log_curvature(place))
            .fold(f64::NEG_INFINITY, f64::max)
    }

    /// Adds each arm's share of a panel, and returns the probability that the best is below it.
    fn add_panel(&mut self, place: &D::Place, width: f64) -> f64 {
        let panel = D::panel(place, width, &self.rule.nodes);
        let mut product = [1.0; LANES];
        for arm in &mut self.reached {
            let rise = arm.density.rise(&panel);
            let log = arm.log;
            arm.values = lanes::exp(&lanes::each(&rise, |rise| log + rise));
            let mut above = [0.0; LANES];
            for (value, column) in arm.values.iter().zip(&self.rule.above) {
                for (above, weight) in above.iter_mut().zip(column) {
                    *above += weight * value;
                }
            }
            arm.others = product;
            for lane in 0..LANES {
                let below = 1.0 - (arm.above + width * above[lane]);
                arm.below[lane] = if below > 0.0 { below } else { 0.0 };
                product[lane] *= arm.below[lane];
            }
            arm.log += rise[FAR_END];
            arm.above += width * above[FAR_END];
        }
        let rest = product[FAR_END];
        let mut weights = lanes::each(&self.rule.weights, |weight| width * weight);
        for arm in self.reached.iter_mut().rev() {
            let mut terms = weights;
            for (term, (value, others)) in terms.iter_mut().zip(arm.values.iter().zip(&arm.others))
            {
                *term *= value * others;
            }
            for (share, term) in arm.shares.iter_mut().zip(&terms) {
                *share += term;
            }
            for (weight, below) in weights.iter_mut().zip(&arm.below) {
                *weight *= below;
            }
        }
        rest
    }
}

/// How wide a panel may be at one place: what the arms there demand.
#[derive(Debug, Clone, Copy)]
struct Step {
    curvature: f64,
    /// Panels of full e-folds in a unit of the coordinate.
    folds: f64,
    /// What the distances from the middles allow.
    widest: f64,
}

impl Default for Step {
    fn default() -> Self {
        Self {
            curvature: 0.0,
            folds: 0.0,
            widest: f64::INFINITY,
        }
    }
}

impl Step {
    #[inline]
    fn admit<D: Density>(&mut self, density: &D, place: &D::Place, slope: f64, depth: f64) {
        let curvature = density.curvature(place);
        if curvature > self.curvature {
            self.curvature = curvature;
        }
        let depth = if depth > 0.0 { depth } else { 0.0 };
        let folds = slope.abs() / (FOLDS + FOLDS_PER_DEPTH * depth);
        if folds > self.folds {
            self.folds = folds;
        }
        let widest = density.widest(place);
        if widest < self.widest {
            self.widest = widest;
        }
    }

    /// `log_curvature` is asked where the curvature underflows.
    fn width(self, fineness: f64, log_curvature: impl FnOnce() -> f64) -> f64 {
        // Where the curvature has died out the density is exponential but for a correction that fades at unit
        // rate, so panels may grow with the distance from where it was last felt.
        let by_curvature = if self.curvature >= 1.0 {
            WIDTH / self.curvature.sqrt()
        } else {
            let log = if self.curvature > 1e-200 {
                libm::log(self.curvature)
            } else {
                log_curvature()
            };
            WIDTH - 0.5 * log
        };
        fineness * by_curvature.min(1.0 / self.folds).min(self.widest)
    }
}

#[cfg(test)]
mod tests;
