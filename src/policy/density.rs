//! A posterior as a smooth density over a coordinate that all arms of one experiment share.
//!
//! Which arm is best does not change under a monotone map of the mean, so the map is chosen to make the densities
//! easy to integrate. Betas are seen on the logit of their mean: the singular ends of shapes below 1 become
//! exponential tails. Student t's are seen on the inverse hyperbolic sine around the leading arm: polynomial tails
//! become exponential ones, and arms whose scales differ by many orders of magnitude are all resolved.
//!
//! What is costly at a point (exponentials and logarithms of the coordinate) is the same for all arms, and computed once for all of
//! them ([`Density::Place`], [`Density::Panel`]). Logarithms of a density are differences from one end of a panel to its nodes,
//! never differences of large numbers, so that counts of a billion cost no digits.
//!
//! Not here: the quadrature (`best`).

use super::best::lanes::Lanes;
use crate::experiment::reward::Goal;
use crate::policy::Posterior;

mod line;
mod logit;

pub(super) use line::Line;
pub(super) use logit::Logit;

/// Density at the upper end of the support, relative to the peak, as a logarithm: about 5e-12.
pub(super) const DROP: f64 = 26.0;

/// One arm's posterior over the shared coordinate; more is better.
pub(super) trait Density: Copy {
    /// What all arms share at a coordinate.
    type Place;
    /// What all arms share at the nodes of a panel.
    type Panel;

    /// The facts about `coordinate`.
    fn place(coordinate: f64) -> Self::Place;

    /// The facts about the nodes of the panel that ends at `right` and is `width` wide; `nodes` are their places in [−1, 0].
    fn panel(right: &Self::Place, width: f64, nodes: &Lanes) -> Self::Panel;

    /// Where the density begins to be worth integrating, coming from above.
    fn upper_end(&self) -> f64;

    /// Whether a place is below the middle of the density.
    fn is_below(&self, place: &Self::Place) -> bool;

    /// Logarithm of the density, normalised.
    fn log(&self, coordinate: f64) -> f64;

    /// Logarithm of the density at the nodes of `panel`, relative to that at the panel's right end.
    fn rise(&self, panel: &Self::Panel) -> Lanes;

    /// Slope of the log density.
    fn slope(&self, place: &Self::Place) -> f64;

    /// How far down the tail, where the log density is `log`: about −ln of the mass beyond, 0 in the middle.
    fn depth(&self, place: &Self::Place, log: f64) -> f64;

    /// What the distance from the density's middle allows, lest a panel leap over a narrow one.
    fn widest(&self, place: &Self::Place) -> f64;

    /// A bound on the curvature of the log density around a place. May underflow far out.
    fn curvature(&self, place: &Self::Place) -> f64;

    /// Its logarithm; asked for where the curvature is small.
    fn log_curvature(&self, place: &Self::Place) -> f64;
}

/// The posteriors of the arms of one experiment, of one family.
pub(super) enum Densities {
    /// See [`Logit`].
    Logits(Vec<Logit>),
    /// See [`Line`].
    Lines(Vec<Line>),
}

impl Densities {
    /// The posteriors of the arms of one experiment, mirrored where less is better.
    ///
    /// The arms of one experiment have one reward, so their posteriors are of one family; a mixture of families (or
    /// of ranges) is compared by the means and variances of its Betas.
    pub(super) fn of(posteriors: &[Posterior], goal: Goal) -> Self {
        let mut range = None;
        let common_range = posteriors.iter().all(|posterior| match *posterior {
            Posterior::Beta { min, max, .. } => *range.get_or_insert((min, max)) == (min, max),
            Posterior::StudentT { .. } => false,
        });
        if !common_range {
            return Self::Lines(Line::around(posteriors, goal));
        }
        let logit = |posterior: &Posterior| match *posterior {
            Posterior::Beta { alpha, beta, .. } => Some(match goal {
                Goal::Maximize => Logit::new(alpha, beta),
                Goal::Minimize => Logit::new(beta, alpha),
            }),
            Posterior::StudentT { .. } => None,
        };
        Self::Logits(posteriors.iter().filter_map(logit).collect())
    }
}

/// `value`, or the nearer of `low` and `high` outside of them; `low` for NaN.
fn within(value: f64, low: f64, high: f64) -> f64 {
    if value > low { value.min(high) } else { low }
}
