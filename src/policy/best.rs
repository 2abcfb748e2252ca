//! P(arm is best) for independent posteriors, by numerical integration: `P_i = ∫ f_i(t) ∏_{j≠i} F_j(t) dt`.
//!
//! Composite Gauss–Legendre over one set of panels for all arms. The panels follow whichever arm is hardest to resolve
//! at each place, so posteriors of very different widths share them: a single rule per arm over that arm's own
//! range errs by up to 2e-2 there. Each density is evaluated once; its distribution function comes from the same values
//! by integrating the polynomial through a panel's nodes (spectral integration), so no incomplete beta is needed.
//! Densities are divided by their own quadrature sum, because log-gamma normalisation loses 1e-6 at counts of a billion.
//!
//! Not here: the floor and everything else that turns P(best) into an allocation.

use std::sync::LazyLock;

use super::Posterior;
use super::density::Density;
use crate::experiment::reward::Goal;

/// Nodes of a panel.
const NODES: usize = 10;
/// More panels than any proper input needs; a guard against an endless loop.
const MAX_PANELS: usize = 100_000;

/// The posterior probability of each arm that its mean is the best of all, in the order of `posteriors`.
///
/// Within 1e-9 of the exact integral for up to 100 arms and counts to 1e9 (1e-8 where a Student t has less than a tenth of a degree of
/// freedom), and sums to 1 within rounding. Never NaN: parameters out of their range are taken at its nearest end. Arms with equal
/// posteriors share equally.
pub fn probability_best(posteriors: &[Posterior], goal: Goal) -> Vec<f64> {
    integrate(&Density::of(posteriors, goal), 1.0)
}

/// `fineness` below 1 narrows every panel; for tests of convergence.
fn integrate(densities: &[Density], fineness: f64) -> Vec<f64> {
    if densities.len() <= 1 {
        return vec![1.0; densities.len()];
    }
    let panels = panels(densities, fineness);
    let curves: Vec<Curve> = densities
        .iter()
        .map(|density| Curve::trace(density, &panels))
        .collect();
    // Left of this some arm is certainly still to come, so none of the others is the maximum.
    let first = curves.iter().map(|curve| curve.first).max().unwrap_or(0);
    let mut best = vec![0.0; densities.len()];
    let mut scratch = Vec::new();
    for (panel, (left, right)) in panels.iter().enumerate().skip(first) {
        add_panel(
            &curves,
            panel,
            0.5 * (right - left),
            &mut scratch,
            &mut best,
        );
    }
    let sum: f64 = best.iter().sum();
    for share in &mut best {
        *share /= sum;
    }
    best
}

/// One density at the nodes of its panels.
struct Curve {
    /// Index of the first panel.
    first: usize,
    /// Density and distribution function at the nodes of each panel.
    values: Vec<[(f64, f64); NODES]>,
}

impl Curve {
    fn trace(density: &Density, panels: &[(f64, f64)]) -> Self {
        let (low, high) = density.support();
        let first = panels.partition_point(|(_, right)| *right <= low);
        let last = panels.partition_point(|(left, _)| *left < high);
        let rule = &*RULE;
        let mut cumulated = 0.0;
        let mut values = Vec::with_capacity(last.saturating_sub(first));
        for (left, right) in panels.iter().take(last).skip(first) {
            let (middle, half) = (0.5 * (left + right), 0.5 * (right - left));
            let density = rule
                .nodes
                .map(|node| libm::exp(density.log(middle + half * node)));
            let mut pairs = [(0.0, 0.0); NODES];
            for (pair, (value, row)) in pairs.iter_mut().zip(density.iter().zip(&rule.cumulate)) {
                let within: f64 = row.iter().zip(&density).map(|(a, b)| a * b).sum();
                *pair = (*value, (cumulated + half * within).max(0.0));
            }
            let whole: f64 = rule.weights.iter().zip(&density).map(|(a, b)| a * b).sum();
            cumulated += half * whole;
            values.push(pairs);
        }
        for (value, below) in values.iter_mut().flatten() {
            *value /= cumulated;
            *below /= cumulated;
        }
        Self { first, values }
    }

    fn at(&self, panel: usize) -> Option<&[(f64, f64); NODES]> {
        self.values.get(panel.checked_sub(self.first)?)
    }
}

/// Adds each arm's share of one panel. An arm whose panels have ended is below the rest for certain.
fn add_panel(curves: &[Curve], panel: usize, half: f64, scratch: &mut Vec<f64>, best: &mut [f64]) {
    for node in 0..NODES {
        let weight = half * RULE.weights[node];
        scratch.clear();
        let mut product = 1.0;
        for curve in curves {
            scratch.push(product);
            if let Some(values) = curve.at(panel) {
                product *= values[node].1;
            }
        }
        let mut after = 1.0;
        for ((curve, before), share) in curves.iter().zip(&*scratch).zip(&mut *best).rev() {
            if let Some(values) = curve.at(panel) {
                let (density, below) = values[node];
                *share += weight * density * before * after;
                after *= below;
            }
        }
    }
}

/// Consecutive panels that cover every density's support, each no wider than any density it touches allows.
fn panels(densities: &[Density], fineness: f64) -> Vec<(f64, f64)> {
    // Many factors make the product steeper than any one of them.
    let fineness = fineness / (1.0 + 0.1 * libm::log(densities.len() as f64));
    let step = |density: &Density, at: f64| fineness * density.step(at);
    let mut waiting: Vec<(f64, f64, f64, &Density)> = densities
        .iter()
        .map(|density| {
            let (low, high) = density.support();
            (low, high, step(density, low), density)
        })
        .collect();
    waiting.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut active: Vec<(f64, &Density)> = Vec::new();
    let mut panels = Vec::new();
    let mut left = waiting.last().map_or(0.0, |density| density.0);
    while panels.len() < MAX_PANELS {
        active.retain(|(high, _)| *high > left);
        if active.is_empty() {
            let Some((low, high, _, density)) = waiting.pop() else {
                break;
            };
            left = left.max(low);
            active.push((high, density));
        }
        let mut right = f64::INFINITY;
        for (_, density) in &active {
            right = right.min(left + step(density, left));
        }
        for (_, density) in &active {
            right = right.min(left + step(density, right));
        }
        while let Some((low, high, width, density)) = waiting.last().copied() {
            if low >= right {
                break;
            }
            right = right.min(low.max(left + width));
            waiting.pop();
            if high > left {
                active.push((high, density));
            }
        }
        let right = right.max(left.next_up());
        panels.push((left, right));
        left = right;
    }
    panels
}

/// Gauss–Legendre on [−1, 1], with the matrix that integrates the interpolating polynomial from −1 to each node.
struct Rule {
    nodes: [f64; NODES],
    weights: [f64; NODES],
    cumulate: [[f64; NODES]; NODES],
}

static RULE: LazyLock<Rule> = LazyLock::new(|| {
    let mut rule = Rule {
        nodes: [0.0; NODES],
        weights: [0.0; NODES],
        cumulate: [[0.0; NODES]; NODES],
    };
    for index in 0..NODES {
        let angle = std::f64::consts::PI * (index as f64 + 0.75) / (NODES as f64 + 0.5);
        let mut node = -libm::cos(angle);
        for _ in 0..10 {
            let (value, slope) = legendre_root_terms(node);
            node -= value / slope;
        }
        let slope = legendre_root_terms(node).1;
        rule.nodes[index] = node;
        rule.weights[index] = 2.0 / ((1.0 - node * node) * slope * slope);
    }
    for row in 0..NODES {
        let upper = legendre(rule.nodes[row]);
        for column in 0..NODES {
            let value = legendre(rule.nodes[column]);
            // Σ (2n+1)/2 P_n(x_j) ∫ P_n, with ∫ P_n = (P_{n+1} − P_{n−1}) / (2n + 1).
            let series: f64 = (1..NODES)
                .map(|degree| 0.5 * value[degree] * (upper[degree + 1] - upper[degree - 1]))
                .sum();
            let constant = 0.5 * (rule.nodes[row] + 1.0);
            rule.cumulate[row][column] = rule.weights[column] * (constant + series);
        }
    }
    rule
});

/// The Legendre polynomials of degree 0 to `NODES` at `x`, by Bonnet's recurrence.
fn legendre(x: f64) -> [f64; NODES + 1] {
    let mut values = [1.0; NODES + 1];
    values[1] = x;
    for degree in 1..NODES {
        let n = degree as f64;
        values[degree + 1] =
            ((2.0 * n + 1.0) * x * values[degree] - n * values[degree - 1]) / (n + 1.0);
    }
    values
}

/// The polynomial of degree `NODES` at `x`, and its derivative.
fn legendre_root_terms(x: f64) -> (f64, f64) {
    let values = legendre(x);
    let slope = NODES as f64 * (x * values[NODES] - values[NODES - 1]) / (x * x - 1.0);
    (values[NODES], slope)
}

#[cfg(test)]
mod tests;
