use super::*;

fn close(value: f64, expected: f64, relative: f64) {
    assert!(
        (value - expected).abs() <= relative * expected.abs(),
        "{value:e} instead of {expected:e}"
    );
}

#[test]
#[expect(clippy::excessive_precision, reason = "as the reference printed them")]
fn beta_distributions_agree_with_mpmath() {
    for (a, b, x, expected) in [
        (0.5, 0.5, 0.3, 0.369_010_119_565_545_38),
        (1e-3, 1e-3, 0.3, 0.499_576_962_139_676_47),
        (2.0, 5.0, 0.1, 0.114_265),
        (50.0, 60.0, 0.45, 0.464_235_291_430_603_63),
        (1e3, 2e3, 0.32, 0.059_911_027_855_426_423),
        (3.0, 1e6, 2e-6, 0.323_324_666_500_194_87),
        (0.1, 40.0, 1e-5, 0.480_130_973_602_412_36),
    ] {
        close(beta_cdf(a, b, x), expected, 1e-11);
        close(beta_quantile(a, b, expected), x, 1e-9);
    }
    // SciPy 1.17.
    close(beta_cdf(5e8, 5e8, 0.499_99), 0.263_544_628_463_024_34, 1e-9);
    close(beta_quantile(1e9, 1e9, 1e-9), 0.499_932_942_479_285_7, 1e-9);
}

#[test]
fn beta_quantiles_invert_over_the_whole_range() {
    for (a, b) in [(0.5, 0.5), (1e-3, 5.0), (1.0, 1.0), (30.0, 2e5), (1e6, 3.0)] {
        for probability in [1e-12, 1e-3, 0.3, 0.5, 0.9, 0.999_999] {
            let x = beta_quantile(a, b, probability);
            assert!((0.0..=1.0).contains(&x));
            // Quantiles next to 1 cannot be told apart, and those of tiny shapes underflow.
            if x > 1e-290 && x < 1.0 - 1e-9 {
                close(beta_cdf(a, b, x), probability, 1e-6);
            }
        }
        assert_eq!(beta_quantile(a, b, 0.0), 0.0);
        assert_eq!(beta_quantile(a, b, 1.0), 1.0);
    }
}

#[test]
#[expect(clippy::excessive_precision, reason = "as the reference printed them")]
fn normal_distribution_agrees_with_mpmath() {
    for (z, probability) in [
        (-37.0, 5.725_571_222_524_576_8e-300),
        (-8.0, 6.220_960_574_271_784_1e-16),
        (-1.5, 0.066_807_201_268_858_066),
        (0.3, 0.617_911_422_188_952_63),
        (2.0, 0.977_249_868_051_820_79),
    ] {
        close(normal_cdf(z), probability, 1e-13);
        close(normal_quantile(probability), z, 1e-12);
    }
    close(normal_quantile(0.025), -1.959_963_984_540_054_2, 1e-14);
    assert_eq!(normal_quantile(0.5), 0.0);
    assert_eq!(normal_quantile(1.0), f64::INFINITY);
}

#[test]
#[expect(clippy::excessive_precision, reason = "as the reference printed them")]
fn student_t_distribution_agrees_with_mpmath() {
    for (degrees, t, probability) in [
        (1.0, -3.0, 0.102_416_382_349_566_73),
        (0.1, -50.0, 0.282_250_360_796_348_8),
        (5.0, 1.5, 0.903_048_159_878_763_28),
        (30.0, -2.2, 0.017_824_219_998_417_888),
        (1e6, 1.96, 0.975_001_966_207_365_1),
    ] {
        close(student_t_cdf(degrees, t), probability, 1e-11);
        close(student_t_quantile(degrees, probability), t, 1e-9);
    }
    assert!(student_t_quantile(3.0, 0.5).abs() < 1e-7);
}

#[test]
#[expect(clippy::excessive_precision, reason = "as the reference printed them")]
fn logarithms_of_beta_functions_agree_with_mpmath() {
    for (a, b, expected) in [
        (1e9, 1e9, -1_386_294_370.216_011_413_7),
        (1e9, 1.0, -20.723_265_836_946_411),
        (1e-3, 5.0, 6.905_672_657_062_074_7),
        (0.5, 1e9, -9.789_267_975_423_505),
        (20.0, 30.0, -33.968_820_791_977_382),
        (1e6, 3.0, -40.753_387_493_330_377),
    ] {
        close(ln_beta(a, b), expected, 1e-13);
    }
}

#[test]
fn deviances_do_not_cancel() {
    // a ln(a/b) + b − a ≈ (a − b)²/(2b) for a ≈ b.
    close(deviance(1e9 + 1.0, 1e9), 0.5e-9, 1e-8);
    assert_eq!(deviance(7.0, 7.0), 0.0);
    close(deviance(0.0, 3.0), 3.0, 1e-15);
    close(deviance(9.0, 2.0), 9.0 * (4.5_f64).ln() - 7.0, 1e-13);
}
