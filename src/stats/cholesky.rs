//! Cholesky factors of packed symmetric matrices: solutions, inverses.
//!
//! A symmetric matrix is its lower triangle by rows, `(0,0) (1,0) (1,1) (2,0) …`: entry (i, j ≤ i) at `i (i + 1) / 2 + j`. Every inner loop
//! runs over contiguous numbers. Factors are made afresh from the sums they stand for and never updated by rank one, so errors do
//! not add up however many updates the sums have seen. Not here: what the matrices mean.

/// Where row `i` of a packed lower triangle begins; with `i` = dimension, how long it is.
pub const fn row(i: usize) -> usize {
    i * (i + 1) / 2
}

/// Σ aᵢ bᵢ over the shorter of the two, in eight sums that the processor adds side by side.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    let length = a.len().min(b.len());
    let (a, a_rest) = a[..length].as_chunks::<8>();
    let (b, b_rest) = b[..length].as_chunks::<8>();
    let mut sums = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    let [a, b, c, d, e, f, g, h] = sums;
    ((a + e) + (c + g)) + ((b + f) + (d + h)) + rest
}

/// L of a positive definite M = L Lᵀ, packed.
#[derive(Debug, Clone)]
pub struct Cholesky {
    dimension: usize,
    /// L, with the reciprocals of its diagonal on its diagonal.
    factor: Vec<f64>,
}

impl Cholesky {
    /// Factorises A + λI of a positive semi-definite A, in the memory of `packed`. `ridge` = λ > 0.
    ///
    /// In exact arithmetic every squared pivot is at least λ, so one that rounding has pushed below it is set to λ: sums that rounding has left a
    /// little indefinite (collinear features of great magnitude) still give a finite factor. Entries that are not numbers count as 0.
    pub fn of_ridge(mut packed: Vec<f64>, dimension: usize, ridge: f64) -> Self {
        for i in 0..dimension {
            let (above, rest) = packed.split_at_mut(row(i));
            let current = &mut rest[..=i];
            for j in 0..i {
                let other = &above[row(j)..=row(j) + j];
                let sum = dot(&current[..j], &other[..j]);
                let entry = (current[j] - sum) * other[j];
                current[j] = if entry.is_finite() { entry } else { 0.0 };
            }
            let pivot = current[i] + ridge - dot(&current[..i], &current[..i]);
            current[i] = 1.0 / pivot.max(ridge).sqrt();
        }
        Self {
            dimension,
            factor: packed,
        }
    }

    /// Rows of M.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// x of M x = `right`, in place.
    pub fn solve(&self, right: &mut [f64]) {
        for i in 0..self.dimension {
            let line = self.line(i);
            right[i] = (right[i] - dot(&line[..i], &right[..i])) * line[i];
        }
        for i in (0..self.dimension).rev() {
            let line = self.line(i);
            let value = right[i] * line[i];
            right[i] = value;
            for (target, entry) in right[..i].iter_mut().zip(&line[..i]) {
                *target -= value * entry;
            }
        }
    }

    /// M⁻¹, packed.
    pub fn inverse(&self) -> Vec<f64> {
        // Rows of L⁻¹: L⁻¹ᵢⱼ = −(Σ_{j ≤ k < i} Lᵢₖ L⁻¹ₖⱼ) / Lᵢᵢ.
        let mut lower = vec![0.0; self.factor.len()];
        for i in 0..self.dimension {
            let line = self.line(i);
            let (above, rest) = lower.split_at_mut(row(i));
            let current = &mut rest[..=i];
            for (k, entry) in line[..i].iter().enumerate() {
                for (target, value) in current.iter_mut().zip(&above[row(k)..=row(k) + k]) {
                    *target += entry * value;
                }
            }
            for value in &mut current[..i] {
                *value *= -line[i];
            }
            current[i] = line[i];
        }
        // M⁻¹ = L⁻ᵀ L⁻¹: a sum of the outer products of the rows of L⁻¹.
        let mut inverse = vec![0.0; self.factor.len()];
        for k in 0..self.dimension {
            add_outer(&mut inverse, &lower[row(k)..=row(k) + k], 1.0);
        }
        inverse
    }

    fn line(&self, i: usize) -> &[f64] {
        &self.factor[row(i)..=row(i) + i]
    }
}

/// Adds `weight` · x xᵀ to the leading rows of a packed matrix.
pub fn add_outer(packed: &mut [f64], x: &[f64], weight: f64) {
    let mut rest = packed;
    for (i, value) in x.iter().enumerate() {
        let scaled = weight * value;
        let Some((line, below)) = rest.split_at_mut_checked(i + 1) else {
            return;
        };
        for (target, other) in line.iter_mut().zip(x) {
            *target += scaled * other;
        }
        rest = below;
    }
}

#[cfg(test)]
mod tests;
