//! Numbers as people read them in tables and plots.

use super::summary::Estimate;

/// `12,345`
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Four significant digits: `0.5977`, `23.41`, `1,234`.
pub(super) fn plain(number: f64) -> String {
    fixed(number, 3 - magnitude(number))
}

/// A mean with as many digits as its standard error supports: `23.4 ± 1.2`.
pub(super) fn estimate(estimate: &Estimate) -> String {
    match estimate.se {
        Some(error) if error > 0.0 => {
            // An error far below the mean's own digits is not shown digit by digit.
            let places = (1 - magnitude(error)).min(7 - magnitude(estimate.mean));
            format!(
                "{} ± {}",
                fixed(estimate.mean, places),
                fixed(error, places)
            )
        }
        Some(_) => format!("{} ± 0", plain(estimate.mean)),
        None => plain(estimate.mean),
    }
}

/// `2.1 million`, `140,000`
pub(super) fn rate(number: f64) -> String {
    if number >= 1e6 {
        format!("{:.1} million", number / 1e6)
    } else {
        let step = 10_f64.powi((magnitude(number) - 1).max(0));
        thousands(((number / step).round() * step) as u64)
    }
}

/// The power of ten of the first digit; 0 for 0.
fn magnitude(number: f64) -> i32 {
    if number == 0.0 || !number.is_finite() {
        0
    } else {
        number.abs().log10().floor() as i32
    }
}

/// With so many digits after the point, at least none and at most eight, and separated thousands.
fn fixed(number: f64, places: i32) -> String {
    let text = format!("{:.*}", places.clamp(0, 8) as usize, number.abs());
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let sign = if number < 0.0 { "-" } else { "" };
    match whole.parse() {
        Ok(whole) => format!("{sign}{}{rest}", thousands(whole)),
        Err(_) => format!("{number:e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_digits_that_they_deserve() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(plain(0.597_66), "0.5977");
        assert_eq!(plain(12_345.6), "12,346");
        assert_eq!(plain(-2.5), "-2.500");
        assert_eq!(plain(0.0), "0.000");
        let shown = |mean, se| estimate(&Estimate { mean, se });
        assert_eq!(shown(23.4123, Some(1.234)), "23.4 ± 1.2");
        assert_eq!(shown(0.597_712, Some(0.000_31)), "0.59771 ± 0.00031");
        assert_eq!(shown(12_345.6, Some(321.0)), "12,346 ± 321");
        assert_eq!(shown(5.0, Some(0.0)), "5.000 ± 0");
        assert_eq!(shown(5.0, Some(1e-15)), "5.0000000 ± 0.0000000");
        assert_eq!(shown(5.0, None), "5.000");
        assert_eq!(rate(2_130_000.0), "2.1 million");
        assert_eq!(rate(143_210.0), "140,000");
    }
}
