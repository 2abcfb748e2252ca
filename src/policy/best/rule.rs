//! Gauss–Legendre quadrature on one panel, with the integral up to each node besides the whole one.
//!
//! Not here: where panels lie.

use std::sync::LazyLock;

use super::lanes::{LANES, Lanes, NODES};

/// Gauss–Legendre on [−1, 0], a panel seen from its right end.
pub(super) struct Rule {
    /// The nodes from left to right, then the left end −1.
    pub(super) nodes: Lanes,
    /// Weights of the nodes, which sum to 1, then 0 for the end.
    pub(super) weights: Lanes,
    /// For each node j, what a value there adds to the integral of the interpolating polynomial from each node, and from the
    /// left end, to the right end.
    pub(super) above: [Lanes; NODES],
}

/// Computed once; the same bits everywhere, because it needs no more than `libm`'s cosine and arithmetic.
pub(super) static RULE: LazyLock<Rule> = LazyLock::new(|| {
    let mut rule = Rule {
        nodes: [-1.0; LANES],
        weights: [0.0; LANES],
        above: [[0.0; LANES]; NODES],
    };
    // On [−1, 1] first.
    let mut places = [-1.0; LANES];
    for (index, place) in places.iter_mut().take(NODES).enumerate() {
        let angle = std::f64::consts::PI * (index as f64 + 0.75) / (NODES as f64 + 0.5);
        let mut node = -libm::cos(angle);
        for _ in 0..10 {
            let (value, slope) = legendre_root_terms(node);
            node -= value / slope;
        }
        let slope = legendre_root_terms(node).1;
        *place = node;
        rule.nodes[index] = 0.5 * (node - 1.0);
        rule.weights[index] = 1.0 / ((1.0 - node * node) * slope * slope);
    }
    for column in 0..NODES {
        let value = legendre(places[column]);
        for (above, place) in rule.above[column].iter_mut().zip(&places) {
            let lower = legendre(*place);
            // Σ (2n+1)/2 P_n(x_j) ∫ P_n up to the node, with ∫ P_n = (P_{n+1} − P_{n−1}) / (2n + 1).
            let series: f64 = (1..NODES)
                .map(|degree| 0.5 * value[degree] * (lower[degree + 1] - lower[degree - 1]))
                .sum();
            let below = 0.5 * (place + 1.0) + series;
            *above = rule.weights[column] * (1.0 - below);
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
