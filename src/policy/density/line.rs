//! A Student t on the inverse hyperbolic sine of its mean.

use std::f64::consts::{LN_2, PI};

use super::{DROP, Density, within};
use crate::experiment::reward::Goal;
use crate::policy::Posterior;
use crate::policy::best::lanes::{self, Lanes, each};
use crate::stats::special::stirling_remainder;

/// Beyond this coordinate sinh and cosh are one exponential, within 1e-17.
const FAR: f64 = 20.0;
/// A panel this wide is beyond all locations and scales: `WIDTH` there grows by half the distance from them.
const LINEAR: f64 = 300.0;
/// A panel covers at most this part of the way to the middle of a density.
const APPROACH: f64 = 0.6;

/// A Student t in its own units; more is better.
#[derive(Debug, Clone, Copy)]
struct Bell {
    location: f64,
    scale: f64,
    degrees: f64,
}

impl Bell {
    fn of(posterior: &Posterior, goal: Goal) -> Self {
        let (location, scale, degrees) = match *posterior {
            Posterior::StudentT {
                location,
                scale,
                degrees,
            } => (location, scale, degrees),
            Posterior::Beta { .. } => (posterior.mean(), posterior.variance().sqrt(), 1e9),
        };
        let location = if location.is_nan() {
            0.0
        } else {
            within(location, -1e100, 1e100)
        };
        Self {
            location: match goal {
                Goal::Maximize => location,
                Goal::Minimize => -location,
            },
            // Rounding of the location is the least uncertainty there can be; it also keeps a scale of 0 apart from NaN.
            scale: within(scale, (f64::EPSILON * location.abs()).max(1e-100), 1e100),
            degrees: within(degrees, 1e-6, 1e12),
        }
    }
}

/// A Student t on t = asinh(u), u = (mean − centre) / unit.
#[derive(Debug, Clone, Copy)]
pub(in crate::policy) struct Line {
    /// Location, in u.
    offset: f64,
    /// √degrees · scale, in u: how far the poles are from the real line.
    gap: f64,
    log_gap: f64,
    degrees: f64,
    /// Logarithm of the density over u at its peak.
    peak: f64,
    /// The location on t, and three scales there.
    middle: f64,
    margin: f64,
    /// Panels shrink with its root where the poles are near; at least 9, so that they are no longer than the distance of the poles.
    strength: f64,
    /// Within this of the centre is all of the density but its tails.
    bulk: f64,
}

/// What all Student t's share at a coordinate. Far from the centre all lengths are divided by |u|, lest they overflow.
#[derive(Debug, Clone, Copy)]
pub(in crate::policy) struct LinePlace {
    coordinate: f64,
    far: bool,
    /// 1, or 1 / |u| far from the centre.
    unit: f64,
    /// u in this unit: sinh t, or the sign of t.
    middle: f64,
    /// du/dt in this unit: cosh t, or 1.
    stretch: f64,
    log_cosh: f64,
}

/// What all Student t's share at the nodes of a panel, seen from that end of it that is nearer to the centre.
#[derive(Debug, Clone)]
pub(in crate::policy) struct LinePanel {
    /// Whether that is the left end.
    from_left: bool,
    /// Whether the panel is so wide that each density is an exponential on it.
    linear: bool,
    /// As in [`LinePlace`], at the nearer end.
    unit: f64,
    middle: f64,
    /// u − u₀ and u + u₀ in this unit, with u₀ at the nearer end; if `linear`, t − t₀ away from the centre.
    difference: Lanes,
    sum: Lanes,
    /// ln cosh t − ln cosh t₀.
    stretch: Lanes,
}

impl Line {
    /// Places the centre at the arm whose least plausible mean is greatest: the arms that compete for best are near it.
    pub(super) fn around(posteriors: &[Posterior], goal: Goal) -> Vec<Self> {
        let bells: Vec<Bell> = posteriors
            .iter()
            .map(|posterior| Bell::of(posterior, goal))
            .collect();
        let floor = |bell: &Bell| bell.location - 8.0 * bell.scale;
        let leader = bells
            .iter()
            .max_by(|a, b| floor(a).total_cmp(&floor(b)))
            .copied();
        let Some(leader) = leader else {
            return Vec::new();
        };
        let line = |bell: &Bell| {
            let distance = bell.location - leader.location;
            // Far from the centre a narrower density could not be resolved, nor could it matter.
            let scale = bell.scale.max(1e-10 * distance.abs());
            Self::new(distance / leader.scale, scale / leader.scale, bell.degrees)
        };
        bells.iter().map(line).collect()
    }

    fn new(offset: f64, scale: f64, degrees: f64) -> Self {
        let gap = scale * degrees.sqrt();
        // ln Γ(h + ½) − ln Γ(h) − ½ ln(2πh) with h = degrees / 2, by Stirling's formula and its remainders.
        let half = 0.5 * degrees;
        let peak = half * libm::log1p(0.5 / half) - 0.5 - 0.5 * libm::log(2.0 * PI)
            + stirling_remainder(half + 0.5)
            - stirling_remainder(half);
        let log_scale = libm::log(scale);
        Self {
            offset,
            gap,
            log_gap: log_scale + 0.5 * libm::log(degrees),
            degrees,
            peak: peak - log_scale,
            middle: Self::coordinate(offset, 0.0),
            margin: 3.0 * scale / libm::hypot(1.0, offset),
            strength: (degrees + 1.0).max(9.0),
            bulk: 1.0 + offset.abs() + gap,
        }
    }

    /// The coordinate of a u, or of e^`log` when that overflows.
    fn coordinate(u: f64, log: f64) -> f64 {
        if u.abs() < 1e8 {
            libm::asinh(u)
        } else if u.is_finite() {
            (LN_2 + libm::log(u.abs())).copysign(u)
        } else {
            LN_2 + log
        }
    }
}

impl LinePanel {
    /// `along` is t − t₀, with t₀ at `near`.
    fn new(near: &LinePlace, along: Lanes, from_left: bool, linear: bool) -> Self {
        let mut panel = Self {
            from_left,
            linear,
            unit: near.unit,
            middle: near.middle,
            difference: along,
            sum: along,
            stretch: along,
        };
        if near.far {
            // A panel that begins far from the centre leads away from it.
            panel.stretch = each(&along, |along| near.middle * along);
            panel.difference = panel.stretch;
            if !linear {
                let grown = lanes::exp_m1(&panel.stretch);
                panel.difference = each(&grown, |grown| near.middle * grown);
                panel.sum = each(&grown, |grown| near.middle * (grown + 2.0));
            }
            return panel;
        }
        // sinh t − sinh t₀ = sinh t₀ (cosh d − 1) + cosh t₀ sinh d with d = t − t₀, and the same for cosh.
        let grown = lanes::exp_m1(&along);
        let shrunk = each(&grown, |grown| grown / (grown + 1.0));
        let tangent = near.middle / near.stretch;
        for (lane, (grown, shrunk)) in grown.iter().zip(&shrunk).enumerate() {
            let cosh = 0.5 * (grown - shrunk);
            let sinh = 0.5 * (grown + shrunk);
            panel.difference[lane] = near.middle * cosh + near.stretch * sinh;
            panel.sum[lane] = panel.difference[lane] + 2.0 * near.middle;
            panel.stretch[lane] = cosh + tangent * sinh;
        }
        panel.stretch = lanes::ln_1p(&panel.stretch);
        panel
    }
}

impl Density for Line {
    type Place = LinePlace;
    type Panel = LinePanel;

    fn place(coordinate: f64) -> LinePlace {
        let away = coordinate.abs();
        if away > FAR {
            return LinePlace {
                coordinate,
                far: true,
                unit: 2.0 * libm::exp(-away),
                middle: 1.0_f64.copysign(coordinate),
                stretch: 1.0,
                log_cosh: away - LN_2,
            };
        }
        let grown = libm::expm1(away);
        let shrunk = grown / (grown + 1.0);
        let stretch = 1.0 + 0.5 * (grown - shrunk);
        LinePlace {
            coordinate,
            far: false,
            unit: 1.0,
            middle: (0.5 * (grown + shrunk)).copysign(coordinate),
            stretch,
            log_cosh: libm::log(stretch),
        }
    }

    fn panel(right: &LinePlace, width: f64, nodes: &Lanes) -> LinePanel {
        let left = right.coordinate - width;
        let from_left = left.abs() < right.coordinate.abs();
        let near = if from_left { Self::place(left) } else { *right };
        // From the nearer end; `nodes` are measured from the right one.
        let along = if from_left {
            let mut along = each(nodes, |node| width * (1.0 + node));
            along[lanes::FAR_END] = width;
            along
        } else {
            each(nodes, |node| width * node)
        };
        LinePanel::new(&near, along, from_left, width > LINEAR)
    }

    /// Where (1 + z²/degrees)^(−degrees/2), which bounds the tail's mass, has dropped to e^−`DROP`.
    fn upper_end(&self) -> f64 {
        let folds = 2.0 * DROP / self.degrees;
        let log_folds = if folds < 600.0 {
            libm::log(libm::expm1(folds))
        } else {
            folds
        };
        let log_reach = self.log_gap + 0.5 * log_folds;
        let reach = if log_reach < 600.0 {
            libm::exp(log_reach)
        } else {
            f64::INFINITY
        };
        Self::coordinate(self.offset + reach, log_reach)
    }

    fn is_below(&self, place: &LinePlace) -> bool {
        place.coordinate < self.middle
    }

    fn log(&self, coordinate: f64) -> f64 {
        let away = coordinate.abs();
        let (u, log_cosh) = if away > FAR {
            (libm::exp(away - LN_2).copysign(coordinate), away - LN_2)
        } else {
            let sinh = libm::sinh(coordinate);
            (sinh, 0.5 * libm::log1p(sinh * sinh))
        };
        let poles = (u - self.offset) / self.gap;
        let spread = if poles.abs() < 1e100 {
            libm::log1p(poles * poles)
        } else if poles.is_finite() {
            2.0 * libm::log(poles.abs())
        } else {
            2.0 * (log_cosh - self.log_gap)
        };
        self.peak + log_cosh - 0.5 * (self.degrees + 1.0) * spread
    }

    #[inline]
    fn rise(&self, panel: &LinePanel) -> Lanes {
        let mut rise = if panel.linear {
            each(&panel.difference, |away| -self.degrees * away)
        } else {
            // The poles' distance² at a node over that at the nearer end, less 1.
            let offset = self.offset * panel.unit;
            let gap = self.gap * panel.unit;
            let deviation = panel.middle - offset;
            let inverse = 1.0 / (gap * gap + deviation * deviation);
            let mut ratio = panel.difference;
            for (ratio, sum) in ratio.iter_mut().zip(&panel.sum) {
                *ratio *= (sum - 2.0 * offset) * inverse;
            }
            let power = 0.5 * (self.degrees + 1.0);
            let mut rise = lanes::ln_1p(&ratio);
            for (rise, stretch) in rise.iter_mut().zip(&panel.stretch) {
                *rise = stretch - power * *rise;
            }
            rise
        };
        if panel.from_left {
            // The lane of the far end holds the rise from left to right.
            let whole = rise[lanes::FAR_END];
            for rise in &mut rise {
                *rise -= whole;
            }
            rise[lanes::FAR_END] = -whole;
        }
        rise
    }

    #[inline]
    fn slope(&self, place: &LinePlace) -> f64 {
        let gap = self.gap * place.unit;
        let deviation = place.middle - self.offset * place.unit;
        let steepness = deviation / (gap * gap + deviation * deviation);
        place.middle / place.stretch - (self.degrees + 1.0) * steepness * place.stretch
    }

    #[inline]
    fn depth(&self, place: &LinePlace, log: f64) -> f64 {
        (self.peak + place.log_cosh - log) * (self.degrees / (self.degrees + 1.0))
    }

    #[inline]
    fn widest(&self, place: &LinePlace) -> f64 {
        self.margin + APPROACH * (place.coordinate - self.middle).abs()
    }

    /// At most strength · (stretch of the map / distance from the nearest pole)², and fading once the coordinate
    /// is far from everything; the map itself adds its own around the centre.
    #[inline]
    fn curvature(&self, place: &LinePlace) -> f64 {
        let gap = self.gap * place.unit;
        let deviation = place.middle - self.offset * place.unit;
        let poles = gap * gap + deviation * deviation;
        let mut curvature = self.strength * (place.stretch * place.stretch) / poles;
        let bulk = self.bulk * place.unit;
        if place.middle.abs() > 3.0 * bulk {
            curvature = curvature.min(self.strength * bulk / place.middle.abs());
        }
        curvature.max(place.unit / place.stretch)
    }

    fn log_curvature(&self, place: &LinePlace) -> f64 {
        libm::log(self.strength * self.bulk) - place.log_cosh
    }
}
