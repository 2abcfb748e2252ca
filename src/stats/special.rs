//! Special functions: log-gamma, the Beta, normal and Student-t distributions and their quantiles.
//!
//! Built on `libm`, so the same bits come out on every platform. Made for posteriors: shapes from 1e-3 to 1e9,
//! relative errors around 1e-12 (1e-9 at shapes of a billion), tails without cancellation. Not here: anything that has data in it.

use std::f64::consts::{LN_2, PI, SQRT_2};

/// ln Γ(x) for x > 0.
pub fn ln_gamma(x: f64) -> f64 {
    libm::lgamma(x)
}

/// What Stirling's formula leaves out: ln Γ(x) − ((x − ½) ln x − x + ½ ln 2π), for x > 0. Differences of log-gammas of
/// large numbers are taken through this, because ln Γ itself has lost their last digits.
pub fn stirling_remainder(x: f64) -> f64 {
    if x < 16.0 {
        return ln_gamma(x) - ((x - 0.5) * libm::log(x) - x + 0.5 * libm::log(2.0 * PI));
    }
    // 1/(12x) − 1/(360x³) + 1/(1260x⁵) − 1/(1680x⁷) + 1/(1188x⁹)
    let square = 1.0 / (x * x);
    let mut sum = 1.0 / 1188.0;
    for term in [-1.0 / 1680.0, 1.0 / 1260.0, -1.0 / 360.0, 1.0 / 12.0] {
        sum = sum * square + term;
    }
    sum / x
}

/// a ln(a / b) + b − a without cancellation when a ≈ b: the deviance of Loader, "Fast and accurate computation of
/// binomial probabilities" (2000). b > 0, a ≥ 0.
pub fn deviance(a: f64, b: f64) -> f64 {
    let ratio = (a - b) / (a + b);
    if ratio.abs() > 0.1 {
        let logarithm = if a > 0.0 {
            a * (libm::log(a) - libm::log(b))
        } else {
            0.0
        };
        return logarithm + b - a;
    }
    // ln(a/b) = 2 (v + v³/3 + v⁵/5 + …) with v = (a − b)/(a + b).
    let square = ratio * ratio;
    let mut power = ratio;
    let mut series = 0.0;
    for index in 1..20 {
        power *= square;
        series += power / f64::from(2 * index + 1);
    }
    (a - b) * ratio + 2.0 * a * series
}

/// ln B(a, b) for a, b > 0.
pub fn ln_beta(a: f64, b: f64) -> f64 {
    let total = a + b;
    // (a − ½) ln a + (b − ½) ln b − (a + b − ½) ln(a + b)
    let stirling = -a * libm::log1p(b / a)
        - b * libm::log1p(a / b)
        - 0.5 * (libm::log(a) + libm::log(b / total));
    0.5 * libm::log(2.0 * PI) + stirling + stirling_remainder(a) + stirling_remainder(b)
        - stirling_remainder(total)
}

/// ln of x^a (1 − x)^b / B(a, b), which is the density of the logit, from x and its complement.
fn ln_beta_kernel(a: f64, b: f64, (x, complement): (f64, f64)) -> f64 {
    let total = a + b;
    let remainder = stirling_remainder(a) + stirling_remainder(b) - stirling_remainder(total);
    0.5 * (libm::log(a) + libm::log(b / total) - libm::log(2.0 * PI))
        - remainder
        - deviance(a, total * x)
        - deviance(b, total * complement)
}

/// A tail of a Beta, with enough beside it for Newton's method far out.
struct Tail {
    /// The probability below.
    below: f64,
    /// Its logarithm, finite where `below` underflows.
    log_below: f64,
    /// Density over the logit, divided by `below`.
    slope: f64,
}

/// The probability of a Beta(a, b) below x, given with its complement 1 − x so that neither end loses digits. x in (0, 1).
fn beta_below(a: f64, b: f64, (x, complement): (f64, f64)) -> Tail {
    let kernel = ln_beta_kernel(a, b, (x, complement));
    if x * (a + b + 2.0) <= a + 1.0 {
        let fraction = beta_fraction(a, b, x) / a;
        let log_below = (kernel + libm::log(fraction)).min(0.0);
        return Tail {
            below: libm::exp(log_below),
            log_below,
            slope: 1.0 / fraction,
        };
    }
    let above = libm::exp(kernel) * beta_fraction(b, a, complement) / b;
    let below = (1.0 - above).max(f64::MIN_POSITIVE);
    Tail {
        below,
        log_below: libm::log1p(-above.min(1.0 - f64::EPSILON)),
        slope: libm::exp(kernel) / below,
    }
}

/// The continued fraction of the incomplete beta function by the modified Lentz method (Press et al., Numerical Recipes, 2007, §6.4).
/// It converges below the mean; the number of terms grows as the root of the shapes.
fn beta_fraction(a: f64, b: f64, x: f64) -> f64 {
    let guard = |value: f64| if value.abs() < 1e-300 { 1e-300 } else { value };
    let mut numerator = 1.0;
    let mut denominator = 1.0 / guard(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = denominator;
    for term in 1..2_000_000 {
        let m = f64::from(term);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        denominator = 1.0 / guard(1.0 + even * denominator);
        numerator = guard(1.0 + even / numerator);
        fraction *= denominator * numerator;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        denominator = 1.0 / guard(1.0 + odd * denominator);
        numerator = guard(1.0 + odd / numerator);
        let factor = denominator * numerator;
        fraction *= factor;
        if (factor - 1.0).abs() < 1e-15 {
            break;
        }
    }
    fraction
}

/// P(X ≤ x) of X ~ Beta(a, b): the regularised incomplete beta function. a, b > 0.
pub fn beta_cdf(a: f64, b: f64, x: f64) -> f64 {
    match x {
        _ if x <= 0.0 => 0.0,
        _ if x >= 1.0 => 1.0,
        _ => beta_below(a, b, (x, 1.0 - x)).below,
    }
}

/// The x with P(X ≤ x) = `probability` of X ~ Beta(a, b).
pub fn beta_quantile(a: f64, b: f64, probability: f64) -> f64 {
    logistic(beta_quantile_logit(a, b, probability)).0
}

/// x and 1 − x at a logit.
fn logistic(logit: f64) -> (f64, f64) {
    let small = libm::exp(-logit.abs());
    let (near, far) = (small / (1.0 + small), 1.0 / (1.0 + small));
    if logit < 0.0 {
        (near, far)
    } else {
        (far, near)
    }
}

/// Newton's method on the logarithm of the smaller tail over the logit, where it is concave: it converges from anywhere.
fn beta_quantile_logit(a: f64, b: f64, probability: f64) -> f64 {
    if probability > 0.5 {
        return -beta_quantile_logit(b, a, 1.0 - probability);
    }
    if probability <= 0.0 {
        return f64::NEG_INFINITY;
    }
    let target = libm::log(probability);
    let mut logit = libm::log(a) - libm::log(b);
    for _ in 0..100 {
        let (x, complement) = logistic(logit);
        if x <= 0.0 || complement <= 0.0 {
            return logit;
        }
        let tail = beta_below(a, b, (x, complement));
        let step = (tail.log_below - target) / tail.slope;
        logit -= step;
        if step.abs() <= 1e-15 * logit.abs().max(1e-3) {
            break;
        }
    }
    logit
}

/// P(Z ≤ z) of a standard normal.
pub fn normal_cdf(z: f64) -> f64 {
    0.5 * libm::erfc(-z / SQRT_2)
}

/// The z with P(Z ≤ z) = `probability` of a standard normal, by Newton's method on the logarithm of the smaller tail.
pub fn normal_quantile(probability: f64) -> f64 {
    if probability > 0.5 {
        return -normal_quantile(1.0 - probability);
    }
    if probability <= 0.0 {
        return f64::NEG_INFINITY;
    }
    let target = libm::log(probability);
    let mut z = -libm::sqrt((-2.0 * (target + LN_2)).max(0.0));
    for _ in 0..50 {
        let below = normal_cdf(z);
        let density = libm::exp(-0.5 * z * z) / libm::sqrt(2.0 * PI);
        let step = (libm::log(below) - target) * below / density;
        z -= step;
        if step.abs() <= 1e-15 * z.abs().max(1e-3) {
            break;
        }
    }
    z
}

/// P(T ≤ t) of a Student t with `degrees` > 0 degrees of freedom.
pub fn student_t_cdf(degrees: f64, t: f64) -> f64 {
    let square = t * t;
    if !square.is_finite() {
        return if t > 0.0 { 1.0 } else { 0.0 };
    }
    let total = degrees + square;
    let outside = if square > 0.0 {
        beta_below(0.5 * degrees, 0.5, (degrees / total, square / total)).below
    } else {
        1.0
    };
    if t > 0.0 {
        1.0 - 0.5 * outside
    } else {
        0.5 * outside
    }
}

/// The t with P(T ≤ t) = `probability` of a Student t with `degrees` > 0 degrees of freedom.
pub fn student_t_quantile(degrees: f64, probability: f64) -> f64 {
    if probability > 0.5 {
        return -student_t_quantile(degrees, 1.0 - probability);
    }
    let logit = beta_quantile_logit(0.5 * degrees, 0.5, 2.0 * probability);
    -libm::exp(0.5 * (libm::log(degrees) - logit))
}

#[cfg(test)]
mod tests;
