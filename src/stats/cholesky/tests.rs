use super::*;

fn full(packed: &[f64], i: usize, j: usize) -> f64 {
    packed[row(i.max(j)) + i.min(j)]
}

#[test]
fn dot_adds_every_product() {
    for length in 0..40 {
        let a: Vec<f64> = (0..length).map(f64::from).collect();
        let expected: f64 = a.iter().map(|value| 2.0 * value).sum();
        assert_eq!(dot(&a, &vec![2.0; a.len()]), expected);
    }
}

#[test]
fn a_small_matrix_by_hand() {
    // [[4, 2], [2, 3]] = 1·I + [[3, 2], [2, 2]].
    let cholesky = Cholesky::of_ridge(vec![3.0, 2.0, 2.0], 2, 1.0);
    let mut x = [2.0, 5.0];
    cholesky.solve(&mut x);
    assert!(
        (x[0] + 0.5).abs() < 1e-15 && (x[1] - 2.0).abs() < 1e-15,
        "{x:?}"
    );
    for (entry, expected) in cholesky.inverse().iter().zip([0.375, -0.25, 0.5]) {
        assert!((entry - expected).abs() < 1e-15);
    }
}

#[test]
fn solutions_and_inverses_agree_at_any_dimension() {
    for dimension in [1, 2, 7, 8, 9, 17, 33] {
        let mut packed = vec![0.0; row(dimension)];
        for k in 0..2 * dimension {
            let x: Vec<f64> = (0..dimension)
                .map(|i| libm::sin((7 * k + 3 * i * i + 1) as f64))
                .collect();
            add_outer(&mut packed, &x, 0.5);
        }
        let cholesky = Cholesky::of_ridge(packed.clone(), dimension, 0.1);
        let inverse = cholesky.inverse();
        let right: Vec<f64> = (0..dimension).map(|i| i as f64 - 2.0).collect();
        let mut solution = right.clone();
        cholesky.solve(&mut solution);
        for i in 0..dimension {
            let by_inverse: f64 = (0..dimension)
                .map(|j| full(&inverse, i, j) * right[j])
                .sum();
            let back: f64 = (0..dimension)
                .map(|j| full(&packed, i, j) * solution[j])
                .sum();
            assert!((by_inverse - solution[i]).abs() < 1e-10);
            assert!((back + 0.1 * solution[i] - right[i]).abs() < 1e-10);
        }
    }
}

#[test]
fn collinear_and_enormous_sums_give_finite_factors() {
    for scale in [1.0, 1e9, 1e-9, 1e15] {
        // Three features that are multiples of one, and one row only.
        let x = [1.0, scale, 3.0 * scale, -scale / 3.0];
        let mut packed = vec![0.0; row(4)];
        add_outer(&mut packed, &x, 1e7);
        let cholesky = Cholesky::of_ridge(packed, 4, 1.0);
        let mut theta = x.map(|value| value * 1e7);
        cholesky.solve(&mut theta);
        assert!(
            theta
                .iter()
                .chain(&cholesky.inverse())
                .all(|value| value.is_finite())
        );
        // The inverse is at most 1/λ, as long as λ is not lost in the rounding of the sums.
        let largest = (0..4)
            .map(|i| full(&cholesky.inverse(), i, i))
            .fold(0.0, f64::max);
        assert!(scale > 1.0 || largest <= 1.0 + 1e-6, "{scale} {largest}");
    }
    let indefinite = Cholesky::of_ridge(vec![-5.0, 3.0, -1.0], 2, 0.5);
    assert!(indefinite.inverse().iter().all(|value| value.is_finite()));
}
