//! Medians, and how sure they are.

/// The median, NaN of nothing.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[length / 2],
        length => f64::midpoint(sorted[length / 2 - 1], sorted[length / 2]),
    }
}

/// The 95 % percentile bootstrap interval of the median, of 4,000 resamples that are the same each time.
pub(crate) fn interval(values: &[f64]) -> (f64, f64) {
    if values.len() < 3 {
        return (f64::NAN, f64::NAN);
    }
    let mut state = 1_u64;
    let mut medians: Vec<f64> = (0..4_000)
        .map(|_| {
            let resample: Vec<f64> = values
                .iter()
                .map(|_| values[below(&mut state, values.len())])
                .collect();
            median(&resample)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    (medians[100], medians[3_899])
}

/// A number below `bound`, and the next state (a linear congruential generator: its high bits are good enough to resample with).
fn below(state: &mut u64, bound: usize) -> usize {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    ((*state >> 33) as usize) % bound
}
