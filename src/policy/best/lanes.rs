//! Exponentials and logarithms of a panel's nodes, all at once.
//!
//! Plain arithmetic without branches or calls, so that compilers make vector instructions of it. Only additions, multiplications,
//! divisions and integer operations, each rounded once by IEEE 754: the same bits on every machine. Relative errors stay
//! below 1e-15, a few units in the last place.
//!
//! Not here: general-purpose functions; arguments are those of densities, and what overflows is held at the end of the range.

/// Nodes of a panel.
pub(in crate::policy) const NODES: usize = 11;
/// The lane after the nodes: the far (left) end of the panel.
pub(in crate::policy) const FAR_END: usize = NODES;
/// Nodes and far end: an even number, so that pairs and quadruples fill vector registers.
pub(in crate::policy) const LANES: usize = NODES + 1;

/// One number for each node of a panel, and one for its far end.
pub(in crate::policy) type Lanes = [f64; LANES];

/// 1.5 · 2^52: adding it leaves the nearest integer in the lowest bits.
const SHIFT: f64 = 6_755_399_441_055_744.0;
/// ln 2 in two parts; the first has enough zeros at its end that its multiples are exact.
const LN_2_HIGH: f64 = 0.693_147_180_369_123_8;
const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;
/// Arguments of the exponential are held within ± this, so that it neither overflows nor becomes subnormal.
const MAX_EXPONENT: f64 = 700.0;
/// From the bits of a number between √½ and √2 to those of a number between 1 and 2.
const MANTISSA_SHIFT: u64 = 1.0_f64.to_bits() - std::f64::consts::FRAC_1_SQRT_2.to_bits();
/// 2^52: an integer below it, written into its lowest bits, is added to it.
const TWO_TO_52: f64 = 4_503_599_627_370_496.0;

/// `map` of every lane.
#[inline]
pub(in crate::policy) fn each(values: &Lanes, map: impl Fn(f64) -> f64) -> Lanes {
    let mut result = [0.0; LANES];
    for (result, value) in result.iter_mut().zip(values) {
        *result = map(*value);
    }
    result
}

/// e^x of every lane.
#[inline]
pub(in crate::policy) fn exp(values: &Lanes) -> Lanes {
    each(values, |value| {
        let (rest, power) = halve(value);
        power + power * expm1_near_zero(rest)
    })
}

/// e^x − 1 of every lane, accurate near 0.
#[inline]
pub(in crate::policy) fn exp_m1(values: &Lanes) -> Lanes {
    each(values, |value| {
        let (rest, power) = halve(value);
        power * expm1_near_zero(rest) + (power - 1.0)
    })
}

/// ln(1 + x) of every lane, accurate near 0, for −1 < x < 1e300.
#[inline]
pub(in crate::policy) fn ln_1p(values: &Lanes) -> Lanes {
    each(values, |value| {
        // 1 + x = 2^k m with m from √½ to √2. The rest m − 1 is formed from x itself: adding 1 would lose its digits.
        let biased = (1.0 + value).to_bits().wrapping_add(MANTISSA_SHIFT) >> 52;
        let power = f64::from_bits(biased << 52);
        let inverse = f64::from_bits(2046_u64.wrapping_sub(biased) << 52);
        let rest = (value + (1.0 - power)) * inverse;
        let exponent = f64::from_bits(biased | TWO_TO_52.to_bits()) - (TWO_TO_52 + 1023.0);
        // ln m = 2 artanh((m − 1) / (m + 1)), |(m − 1) / (m + 1)| ≤ 0.172.
        let ratio = rest / (2.0 + rest);
        let square = ratio * ratio;
        let mut series = 2.0 / 21.0;
        for denominator in [19.0, 17.0, 15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0] {
            series = series * square + 2.0 / denominator;
        }
        let small = 2.0 * ratio + ratio * (square * series) + exponent * LN_2_LOW;
        small + exponent * LN_2_HIGH
    })
}

/// x as r + k ln 2 with |r| ≤ ½ ln 2: r and 2^k.
#[inline]
fn halve(value: f64) -> (f64, f64) {
    // Not `clamp`: these two comparisons are one instruction each.
    let value = if value < MAX_EXPONENT {
        value
    } else {
        MAX_EXPONENT
    };
    let value = if value > -MAX_EXPONENT {
        value
    } else {
        -MAX_EXPONENT
    };
    let shifted = value * std::f64::consts::LOG2_E + SHIFT;
    let exponent = shifted - SHIFT;
    let rest = (value - exponent * LN_2_HIGH) - exponent * LN_2_LOW;
    // The integer is in the lowest bits of `shifted`; the others are shifted out.
    let power = f64::from_bits((shifted.to_bits() << 52).wrapping_add(1.0_f64.to_bits()));
    (rest, power)
}

/// e^r − 1 for |r| ≤ ½ ln 2: Taylor's series to r^13, whose remainder is below 1e-17.
#[inline]
fn expm1_near_zero(rest: f64) -> f64 {
    let mut series = 1.0 / 6_227_020_800.0;
    for factorial in [
        479_001_600.0,
        39_916_800.0,
        3_628_800.0,
        362_880.0,
        40_320.0,
        5_040.0,
        720.0,
        120.0,
        24.0,
        6.0,
        2.0,
    ] {
        series = series * rest + 1.0 / factorial;
    }
    rest + rest * rest * series
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest error of `function` over its magnitude, at `values`.
    fn error(
        function: impl Fn(&Lanes) -> Lanes,
        exact: impl Fn(f64) -> f64,
        values: impl Iterator<Item = f64>,
    ) -> f64 {
        values
            .map(|value| {
                let exact = exact(value);
                (function(&[value; LANES])[0] - exact).abs() / exact.abs().max(f64::MIN_POSITIVE)
            })
            .fold(0.0, f64::max)
    }

    /// Numbers of every magnitude from 1e-300 to `10^digits`, and of one or both signs.
    fn magnitudes(digits: f64, signs: &'static [f64]) -> impl Iterator<Item = f64> {
        (0..20_000).flat_map(move |index| {
            let magnitude = 10_f64.powf(digits - f64::from(index).powi(2) * 7.5e-7);
            signs.iter().map(move |sign| sign * magnitude)
        })
    }

    #[test]
    fn functions_agree_with_libm() {
        let both = || magnitudes(2.8, &[-1.0, 1.0]);
        assert!(error(exp, libm::exp, both()) < 1e-15);
        assert!(error(exp_m1, libm::expm1, both()) < 1e-15);
        let positive = magnitudes(299.0, &[1.0]);
        assert!(error(ln_1p, libm::log1p, positive) < 1e-15);
        let negative = magnitudes(-1e-6, &[-1.0]);
        assert!(error(ln_1p, libm::log1p, negative) < 1e-15);
    }

    #[test]
    fn exponentials_stay_finite_and_positive() {
        for value in [700.0, 1e4, 1e300, f64::INFINITY] {
            assert_eq!(exp(&[value; LANES]), exp(&[700.0; LANES]));
            assert_eq!(exp(&[-value; LANES]), exp(&[-700.0; LANES]));
            assert!(exp_m1(&[value; LANES])[0].is_finite());
            assert_eq!(exp_m1(&[-value; LANES])[0], -1.0);
        }
        assert!(exp(&[-700.0; LANES])[0] > 0.0);
    }
}
