//! Count, sum and sum of squares, kept in fixed point: exact under any order of additions, undos and merges.
//!
//! Floating-point sums depend on the order of their terms, so a recovered or merged state would differ from the
//! live one in its last digits. Rewards are quantised once, to multiples of 2^-32, and added as integers.
//! Not here: discounting (statistics are stored undiscounted) and any estimate of uncertainty.

use serde::{Deserialize, Serialize};

/// Rewards are multiples of this: 2^-32, about 2.3e-10.
const ONE: f64 = (1_u64 << 32) as f64;

/// n, Σr and Σr² of a set of rewards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Moments {
    count: u64,
    /// Σ q, with q = round(r · 2^32).
    sum: i128,
    /// Σ q² as a 192-bit integer: high 64 bits, low 128 bits.
    squares: (u64, u128),
}

impl Moments {
    /// The integers that hold the state: count, Σq, and Σq² as high and low part.
    pub fn to_parts(self) -> (u64, i128, (u64, u128)) {
        (self.count, self.sum, self.squares)
    }

    /// The inverse of [`Moments::to_parts`].
    pub fn from_parts(count: u64, sum: i128, squares: (u64, u128)) -> Self {
        Self {
            count,
            sum,
            squares,
        }
    }

    /// Adds `times` rewards of `value`. `value` is finite and of magnitude at most 1e9.
    pub fn add(&mut self, value: f64, times: u64) {
        let quantum = quantise(value);
        self.count = self.count.saturating_add(times);
        self.sum = self
            .sum
            .saturating_add(quantum.saturating_mul(i128::from(times)));
        let square = quantum.unsigned_abs().pow(2);
        let (low, high) = widening_multiply(square, times);
        self.add_squares((high, low));
    }

    /// Takes one earlier reward of `value` back, exactly.
    pub fn remove(&mut self, value: f64) {
        let quantum = quantise(value);
        self.count = self.count.saturating_sub(1);
        self.sum = self.sum.saturating_sub(quantum);
        let (low, borrow) = self
            .squares
            .1
            .overflowing_sub(quantum.unsigned_abs().pow(2));
        self.squares = (self.squares.0.saturating_sub(u64::from(borrow)), low);
    }

    /// Adds another set of rewards.
    pub fn merge(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.sum = self.sum.saturating_add(other.sum);
        self.add_squares(other.squares);
    }

    fn add_squares(&mut self, (high, low): (u64, u128)) {
        let (sum, carry) = self.squares.1.overflowing_add(low);
        self.squares = (
            self.squares
                .0
                .saturating_add(high)
                .saturating_add(u64::from(carry)),
            sum,
        );
    }

    /// How many rewards.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Σr.
    pub fn sum(&self) -> f64 {
        self.sum as f64 / ONE
    }

    /// Mean reward; `None` without rewards.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum() / self.count as f64)
    }

    /// Σ(r − mean)², never negative. Exact integers as long as n·Σq² and (Σq)² fit 127 bits, floating point beyond.
    pub fn sum_of_squared_deviations(&self) -> f64 {
        if self.count == 0 {
            return 0.0;
        }
        let count = self.count as f64;
        let exact = (self.squares.0 == 0)
            .then(|| {
                let scaled = i128::try_from(self.squares.1)
                    .ok()?
                    .checked_mul(i128::from(self.count))?;
                scaled.checked_sub(self.sum.checked_mul(self.sum)?)
            })
            .flatten();
        let deviations = if let Some(deviations) = exact {
            deviations as f64 / count / ONE / ONE
        } else {
            let squares =
                (self.squares.0 as f64 * 2f64.powi(128) + self.squares.1 as f64) / ONE / ONE;
            squares - self.sum() * (self.sum() / count)
        };
        deviations.max(0.0)
    }
}

fn quantise(value: f64) -> i128 {
    (value * ONE).round_ties_even() as i128
}

/// a · b as (low 128 bits, high 64 bits).
fn widening_multiply(a: u128, b: u64) -> (u128, u64) {
    let b = u128::from(b);
    let low = (a & u128::from(u64::MAX)) * b;
    let high = (a >> 64) * b + (low >> 64);
    (
        (high << 64) | (low & u128::from(u64::MAX)),
        (high >> 64) as u64,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_exact_in_any_order_and_undo_is_exact() {
        let values = [0.1, -3.25, 1e9, -1e9, 1e-9, 0.7, 12345.678];
        let mut forward = Moments::default();
        let mut backward = Moments::default();
        for (ahead, behind) in values.iter().zip(values.iter().rev()) {
            forward.add(*ahead, 1);
            backward.add(*behind, 1);
        }
        assert_eq!(forward, backward);
        forward.add(0.333, 1);
        forward.remove(0.333);
        assert_eq!(forward, backward);
    }

    #[test]
    fn many_equal_rewards_have_no_variance_and_the_right_sum() {
        let mut moments = Moments::default();
        moments.add(1e9, 1_000_000_000);
        assert_eq!(moments.sum(), 1e18);
        assert!(moments.sum_of_squared_deviations() / 1e18 < 1e9);
        let mut small = Moments::default();
        small.add(0.25, 1_000_000_000);
        assert_eq!(small.sum_of_squared_deviations(), 0.0);
    }

    #[test]
    fn deviations_survive_a_large_mean() {
        let mut moments = Moments::default();
        for value in [1e6, 1e6 + 1.0, 1e6 + 2.0] {
            moments.add(value, 1);
        }
        assert!((moments.sum_of_squared_deviations() - 2.0).abs() < 1e-6);
    }

    #[test]
    fn a_multiplied_add_equals_repeated_adds() {
        let mut once = Moments::default();
        let mut repeated = Moments::default();
        once.add(-987_654_321.125, 37);
        (0..37).for_each(|_| repeated.add(-987_654_321.125, 1));
        assert_eq!(once, repeated);
    }
}
