//! A posterior as a smooth density over a coordinate that all arms of one experiment share.
//!
//! Which arm is best does not change under a monotone map of the mean, so the map is chosen to make the densities
//! easy to integrate. Betas are seen on the logit of their mean: the singular ends of shapes below 1 become
//! exponential tails. Student t's are seen on the inverse hyperbolic sine around the leading arm: polynomial tails
//! become exponential ones, and arms whose scales differ by many orders of magnitude are all resolved. Every
//! logarithm here is relative to a point near the peak, so that counts of a billion cost no digits.
//!
//! Not here: normalising constants (the quadrature in `best` divides by its own sum).

use crate::experiment::reward::Goal;
use crate::policy::Posterior;

/// Density at the ends of the support, relative to the peak, as a logarithm: about 1e-13.
const DROP: f64 = 30.0;
/// A panel is at most this many local standard deviations wide.
const WIDTH: f64 = 2.4;
/// A panel spans at most this many e-folds of a density near its peak.
const FOLDS: f64 = 5.0;

/// One arm's posterior over the shared coordinate; more is better.
#[derive(Debug, Clone, Copy)]
pub(super) enum Density {
    /// See [`Logit`].
    Logit(Logit),
    /// See [`Line`].
    Line(Line),
}

impl Density {
    /// The posteriors of the arms of one experiment, mirrored where less is better.
    ///
    /// The arms of one experiment have one reward, so their posteriors are of one family; a mixture of families (or
    /// of ranges) is compared by the means and variances of its Betas.
    pub(super) fn of(posteriors: &[Posterior], goal: Goal) -> Vec<Self> {
        let mut range = None;
        let common_range = posteriors.iter().all(|posterior| match *posterior {
            Posterior::Beta { min, max, .. } => *range.get_or_insert((min, max)) == (min, max),
            Posterior::StudentT { .. } => false,
        });
        if common_range {
            posteriors
                .iter()
                .filter_map(|posterior| match *posterior {
                    Posterior::Beta { alpha, beta, .. } => Some(match goal {
                        Goal::Maximize => Logit::new(alpha, beta),
                        Goal::Minimize => Logit::new(beta, alpha),
                    }),
                    Posterior::StudentT { .. } => None,
                })
                .map(Self::Logit)
                .collect()
        } else {
            let bells: Vec<Bell> = posteriors
                .iter()
                .map(|posterior| Bell::of(posterior, goal))
                .collect();
            Line::around(&bells).into_iter().map(Self::Line).collect()
        }
    }

    /// Where the density is worth integrating.
    pub(super) fn support(&self) -> (f64, f64) {
        match self {
            Self::Logit(density) => density.support(),
            Self::Line(density) => density.support(),
        }
    }

    /// Logarithm of the density at `coordinate`, up to a constant.
    pub(super) fn log(&self, coordinate: f64) -> f64 {
        match self {
            Self::Logit(density) => density.log(coordinate),
            Self::Line(density) => density.log(coordinate),
        }
    }

    /// The widest panel at `coordinate` over which the density is a polynomial of low degree.
    pub(super) fn step(&self, coordinate: f64) -> f64 {
        let Shape {
            log_curvature,
            rate,
            depth,
        } = match self {
            Self::Logit(density) => density.shape(coordinate),
            Self::Line(density) => density.shape(coordinate),
        };
        // Where the curvature has died out the density is exponential but for a correction that fades at unit
        // rate, so panels may grow with the distance from where it was last felt.
        let by_curvature = if log_curvature >= 0.0 {
            WIDTH * libm::exp(-0.5 * log_curvature)
        } else {
            WIDTH - 0.5 * log_curvature
        };
        // Far down the tail less relative precision is needed.
        by_curvature.min((FOLDS + 0.25 * depth) / rate.abs())
    }
}

/// What a density looks like around a point.
struct Shape {
    /// Logarithm of a bound on the curvature of the log density.
    log_curvature: f64,
    /// Slope of the log density.
    rate: f64,
    /// How far down the tail: about −ln of the mass beyond, 0 in the middle.
    depth: f64,
}

/// The logit of a Beta(alpha, beta) variable: density ∝ x^alpha (1 − x)^beta with x = 1/(1 + e^−t). Log-concave, and
/// smooth for every positive shape.
#[derive(Debug, Clone, Copy)]
pub(super) struct Logit {
    /// The smaller shape.
    minor: f64,
    /// alpha + beta.
    total: f64,
    /// minor / total, the mode's distance from the nearer end of [0, 1].
    share: f64,
    /// The peak, ln(alpha / beta).
    mode: f64,
    /// Whether beta is the smaller shape.
    mirrored: bool,
}

impl Logit {
    fn new(alpha: f64, beta: f64) -> Self {
        let alpha = within(alpha, 1e-12, 1e15);
        let beta = within(beta, 1e-12, 1e15);
        let total = alpha + beta;
        let minor = alpha.min(beta);
        Self {
            minor,
            total,
            share: minor / total,
            mode: libm::log(alpha) - libm::log(beta),
            mirrored: beta < alpha,
        }
    }

    /// Signed distance from the mode, away from the nearer end when positive.
    fn distance(&self, coordinate: f64) -> f64 {
        let distance = coordinate - self.mode;
        if self.mirrored { -distance } else { distance }
    }

    fn log(&self, coordinate: f64) -> f64 {
        let distance = self.distance(coordinate);
        if distance > 30.0 {
            let tail = self.share + (1.0 - self.share) * libm::exp(-distance);
            (self.minor - self.total) * distance - self.total * libm::log(tail)
        } else {
            self.minor * distance - self.total * libm::log1p(self.share * libm::expm1(distance))
        }
    }

    /// The curvature is total · x (1 − x).
    fn shape(&self, coordinate: f64) -> Shape {
        let away = coordinate.abs();
        let log_curvature = libm::log(self.total) - away - 2.0 * libm::log1p(libm::exp(-away));
        let distance = self.distance(coordinate);
        let near = if distance > 30.0 {
            1.0 / (1.0 + (1.0 - self.share) / self.share * libm::exp(-distance))
        } else {
            let grown = self.share * libm::exp(distance);
            grown / (1.0 - self.share + grown)
        };
        Shape {
            log_curvature,
            rate: self.minor - self.total * near,
            depth: -self.log(coordinate),
        }
    }

    fn support(&self) -> (f64, f64) {
        (self.edge(-1.0), self.edge(1.0))
    }

    /// The point on one side of the mode where the density has dropped by `DROP` to 1.5 `DROP`.
    fn edge(&self, side: f64) -> f64 {
        let drop = |reach: f64| -self.log(self.mode + side * reach);
        let deviation = 1.0 / (self.total * self.share * (1.0 - self.share)).sqrt();
        let mut far = deviation * (2.0 * DROP).sqrt();
        while drop(far) < DROP && far < 1e20 {
            far *= 1.5;
        }
        let mut near = 0.0;
        while drop(far) > 1.5 * DROP {
            let middle = 0.5 * (near + far);
            if drop(middle) < DROP {
                near = middle;
            } else {
                far = middle;
            }
            if far - near <= 1e-9 * far {
                break;
            }
        }
        self.mode + side * far
    }
}

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

/// A Student t on t = asinh((mean − centre) / unit).
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    /// Location minus the centre.
    offset: f64,
    scale: f64,
    degrees: f64,
    /// The unit in which the coordinate is linear around the centre.
    unit: f64,
    log_unit: f64,
    /// Logarithm of the stretch of the map near the density's bulk: what logarithms are relative to.
    reference: f64,
}

impl Line {
    /// Places the centre at the arm whose least plausible mean is greatest: the arms that compete for best are near it.
    fn around(bells: &[Bell]) -> Vec<Self> {
        let floor = |bell: &Bell| bell.location - 8.0 * bell.scale;
        let leader = bells
            .iter()
            .max_by(|a, b| floor(a).total_cmp(&floor(b)))
            .copied();
        let Some(leader) = leader else {
            return Vec::new();
        };
        let (unit, log_unit) = (leader.scale, libm::log(leader.scale));
        bells
            .iter()
            .map(|bell| {
                let offset = bell.location - leader.location;
                // Far from the centre a narrower density could not be resolved, nor could it matter.
                let scale = bell.scale.max(1e-10 * offset.abs());
                let mut line = Self {
                    offset,
                    scale,
                    degrees: bell.degrees,
                    unit,
                    log_unit,
                    reference: 0.0,
                };
                let bulk = offset.abs() + scale * bell.degrees.sqrt().min(3.0);
                line.reference = log_cosh(line.coordinate(bulk, 0.0));
                line
            })
            .collect()
    }

    /// The coordinate of a mean at `offset` from the centre, or at ± e^`log_offset` when that overflows.
    fn coordinate(&self, offset: f64, log_offset: f64) -> f64 {
        if !offset.is_finite() {
            let far = std::f64::consts::LN_2 + log_offset - self.log_unit;
            return far.copysign(offset);
        }
        let magnitude = offset.abs() / self.unit;
        if magnitude < 1e8 {
            libm::asinh(offset / self.unit)
        } else {
            let far = std::f64::consts::LN_2 + libm::log(offset.abs()) - self.log_unit;
            far.copysign(offset)
        }
    }

    /// ln |mean − centre| (for large coordinates) and the mean's offset from the centre, infinite if it overflows.
    fn offset_at(&self, coordinate: f64) -> (f64, f64) {
        let away = coordinate.abs();
        let log = self.log_unit + away - std::f64::consts::LN_2;
        let offset = if away <= 20.0 {
            self.unit * libm::sinh(coordinate)
        } else if log < 300.0 {
            libm::exp(log).copysign(coordinate)
        } else {
            f64::INFINITY.copysign(coordinate)
        };
        (log, offset)
    }

    /// ln(1 + z²/degrees), with z the deviation in units of the scale.
    fn spread(&self, (log_offset, offset): (f64, f64)) -> f64 {
        let deviation = (offset - self.offset) / self.scale;
        if deviation.abs() < 1e100 {
            return libm::log1p(deviation * deviation / self.degrees);
        }
        let log_deviation = if deviation.is_finite() {
            libm::log(deviation.abs())
        } else {
            log_offset - libm::log(self.scale)
        };
        2.0 * log_deviation - libm::log(self.degrees)
    }

    fn log(&self, coordinate: f64) -> f64 {
        let spread = self.spread(self.offset_at(coordinate));
        -0.5 * (self.degrees + 1.0) * spread + log_cosh(coordinate) - self.reference
    }

    /// The curvature is at most strength · (stretch of the map / distance from the nearest pole)², and fades once the
    /// coordinate is far from everything; the map itself adds its own around the centre.
    fn shape(&self, coordinate: f64) -> Shape {
        // The poles lie at offset ± i scale √degrees; 6 keeps a panel within half their distance.
        let strength = libm::log((self.degrees + 1.0).max(6.0));
        let (log_offset, offset) = self.offset_at(coordinate);
        let depth = 0.5 * self.degrees * self.spread((log_offset, offset));
        let map = -log_cosh(coordinate);
        let bulk = self.unit + self.offset.abs() + self.scale * self.degrees.sqrt();
        let fading = strength + libm::log(bulk) - log_offset;
        if !offset.is_finite() {
            return Shape {
                log_curvature: fading.max(map),
                rate: self.degrees,
                depth,
            };
        }
        let stretch = libm::hypot(self.unit, offset);
        let deviation = offset - self.offset;
        let pole = self.degrees * self.scale * self.scale + deviation * deviation;
        let mut log_curvature = strength + 2.0 * libm::log(stretch) - libm::log(pole);
        if offset.abs() > 3.0 * bulk {
            log_curvature = log_curvature.min(fading);
        }
        let rate = libm::tanh(coordinate) - (self.degrees + 1.0) * deviation / pole * stretch;
        Shape {
            log_curvature: log_curvature.max(map),
            rate,
            depth,
        }
    }

    /// Where (1 + z²/degrees)^(−degrees/2), which bounds the tail's mass, has dropped to e^−`DROP`.
    fn support(&self) -> (f64, f64) {
        let folds = 2.0 * DROP / self.degrees;
        let log_reach = libm::log(self.scale)
            + 0.5 * libm::log(self.degrees)
            + 0.5
                * if folds < 600.0 {
                    libm::log(libm::expm1(folds))
                } else {
                    folds
                };
        let reach = if log_reach < 300.0 {
            libm::exp(log_reach)
        } else {
            f64::INFINITY
        };
        (
            self.coordinate(self.offset - reach, log_reach),
            self.coordinate(self.offset + reach, log_reach),
        )
    }
}

/// ln cosh without overflow.
fn log_cosh(value: f64) -> f64 {
    let away = value.abs();
    away + libm::log1p(libm::exp(-2.0 * away)) - std::f64::consts::LN_2
}

/// `value`, or the nearer of `low` and `high` outside of them; `low` for NaN.
fn within(value: f64, low: f64, high: f64) -> f64 {
    if value > low { value.min(high) } else { low }
}
