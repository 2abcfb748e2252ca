//! A Beta on the logit of its mean.

use std::f64::consts::PI;

use super::{DROP, Density, within};
use crate::policy::best::lanes::{self, Lanes, each};
use crate::stats::special::stirling_remainder;

/// The logit of a Beta(alpha, beta) variable: density x^alpha (1 − x)^beta / B(alpha, beta) with x = 1/(1 + e^−t). Log-concave,
/// and smooth for every positive shape.
#[derive(Debug, Clone, Copy)]
pub(in crate::policy) struct Logit {
    alpha: f64,
    beta: f64,
    /// alpha + beta.
    total: f64,
    /// The smaller shape over the total: the mode's distance from the nearer end of [0, 1].
    share: f64,
    /// The peak, ln(alpha / beta).
    mode: f64,
    /// Logarithm of the density there.
    peak: f64,
}

/// What all Betas share at a coordinate.
#[derive(Debug, Clone, Copy)]
pub(in crate::policy) struct LogitPlace {
    coordinate: f64,
    /// The lesser of x and 1 − x: e^−|t| / (1 + e^−|t|).
    small: f64,
    /// x (1 − x).
    variance: f64,
}

/// What all Betas share at the nodes of a panel. With s the lesser of x and 1 − x at the right end, and its shape a or b:
/// ln f(t) − ln f(right) = shape · `shift` − total · `bend`, where `bend` = ln(1 + s (e^`shift` − 1)).
#[derive(Debug, Clone)]
pub(in crate::policy) struct LogitPanel {
    /// Whether s is 1 − x.
    upper: bool,
    /// t − right, mirrored if `upper`.
    shift: Lanes,
    bend: Lanes,
}

impl Logit {
    /// Shapes out of range are taken at the nearest end of 1e-12 to 1e15.
    pub(super) fn new(alpha: f64, beta: f64) -> Self {
        let alpha = within(alpha, 1e-12, 1e15);
        let beta = within(beta, 1e-12, 1e15);
        let total = alpha + beta;
        // At the mode Stirling's formula leaves √(alpha beta / (2π total)) and the remainders: no log-gamma of a large number.
        let remainder =
            stirling_remainder(alpha) + stirling_remainder(beta) - stirling_remainder(total);
        let (log_alpha, log_beta) = (libm::log(alpha), libm::log(beta));
        Self {
            alpha,
            beta,
            total,
            share: alpha.min(beta) / total,
            mode: log_alpha - log_beta,
            peak: 0.5 * (log_alpha + libm::log(beta / (2.0 * PI * total))) - remainder,
        }
    }

    /// Log density relative to the peak, and its slope, at `distance` from the mode.
    fn around_mode(&self, distance: f64) -> (f64, f64) {
        let mirrored = self.beta < self.alpha;
        let minor = self.alpha.min(self.beta);
        // Away from the nearer end of [0, 1] when positive.
        let away = if mirrored { -distance } else { distance };
        let (log, near) = if away > 30.0 {
            let rest = self.share + (1.0 - self.share) * libm::exp(-away);
            let log = (minor - self.total) * away - self.total * libm::log(rest);
            (log, self.share / rest)
        } else {
            let grown = self.share * libm::expm1(away);
            let log = minor * away - self.total * libm::log1p(grown);
            (log, (self.share + grown) / (1.0 + grown))
        };
        let slope = minor - self.total * near;
        (log, if mirrored { -slope } else { slope })
    }
}

impl Density for Logit {
    type Place = LogitPlace;
    type Panel = LogitPanel;

    fn place(coordinate: f64) -> LogitPlace {
        let odds = libm::exp(-coordinate.abs());
        let small = odds / (1.0 + odds);
        LogitPlace {
            coordinate,
            small,
            variance: small / (1.0 + odds),
        }
    }

    fn panel(right: &LogitPlace, width: f64, nodes: &Lanes) -> LogitPanel {
        let upper = right.coordinate > 0.0;
        let direction = if upper { -width } else { width };
        let shift = each(nodes, |node| direction * node);
        let grown = lanes::exp_m1(&shift);
        LogitPanel {
            upper,
            shift,
            bend: lanes::ln_1p(&each(&grown, |grown| right.small * grown)),
        }
    }

    fn upper_end(&self) -> f64 {
        let deviation = 1.0 / (self.total * self.share * (1.0 - self.share)).sqrt();
        let mut distance = deviation * (2.0 * DROP).sqrt();
        // Newton's method on a concave function: beyond the end after one step, and closing in from there.
        for _ in 0..100 {
            let (log, slope) = self.around_mode(distance);
            if (-1.3 * DROP..=-DROP).contains(&log) {
                break;
            }
            distance -= (log + 1.01 * DROP) / slope;
        }
        self.mode + distance
    }

    fn is_below(&self, place: &LogitPlace) -> bool {
        place.coordinate < self.mode
    }

    fn log(&self, coordinate: f64) -> f64 {
        self.peak + self.around_mode(coordinate - self.mode).0
    }

    #[inline]
    fn rise(&self, panel: &LogitPanel) -> Lanes {
        let by_shift = if panel.upper { self.beta } else { self.alpha };
        let mut rise = panel.shift;
        for (rise, bend) in rise.iter_mut().zip(&panel.bend) {
            *rise = by_shift * *rise - self.total * bend;
        }
        rise
    }

    #[inline]
    fn slope(&self, place: &LogitPlace) -> f64 {
        if place.coordinate > 0.0 {
            self.total * place.small - self.beta
        } else {
            self.alpha - self.total * place.small
        }
    }

    #[inline]
    fn depth(&self, _place: &LogitPlace, log: f64) -> f64 {
        self.peak - log
    }

    /// The curvature of a Beta is known, so nothing can be leapt over.
    #[inline]
    fn widest(&self, _place: &LogitPlace) -> f64 {
        f64::INFINITY
    }

    #[inline]
    fn curvature(&self, place: &LogitPlace) -> f64 {
        self.total * place.variance
    }

    fn log_curvature(&self, place: &LogitPlace) -> f64 {
        libm::log(self.total) - place.coordinate.abs()
    }
}
