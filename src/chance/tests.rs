use super::*;

fn keys() -> DrawKeys {
    let mut root = [0; 32];
    for (byte, value) in root.iter_mut().zip(0..) {
        *byte = value;
    }
    DrawKeys::derive(&root)
}

fn arms(probabilities: &[f64]) -> impl Iterator<Item = (ArmId, f64)> {
    (1..)
        .map(|index| ArmId(11 * index))
        .zip(probabilities.iter().copied())
}

/// Checked against an independent SipHash-2-4, BLAKE3 and `SplitMix64` in Python. If this fails, released allocations would change: do not edit it.
#[test]
fn golden_vectors() {
    let keys = keys();
    let uniform = |origin, worker, counter| {
        keys.uniform(SequenceKey {
            origin,
            worker,
            counter,
        })
    };
    assert_eq!(uniform(0, 0, 0), 0.919_902_442_988_163_9);
    assert_eq!(uniform(1, 2, 3), 0.971_607_814_390_282_3);
    assert_eq!(
        uniform(0x0123_4567_89ab_cdef, 7, (1 << 48) - 1),
        0.090_874_234_763_671_96
    );

    let shadow = |counter| {
        keys.shadow(SequenceKey {
            origin: 1,
            worker: 2,
            counter,
        })
    };
    assert_eq!(shadow(3), 0.422_863_303_316_197_8);

    let experiment = ExperimentId(0xe734_1d08);
    let unit = |experiment, salt, unit: &str| keys.unit_hash(experiment, salt, unit.as_bytes()).0;
    assert_eq!(unit(experiment, "", "alice"), 0x3605_db7a_572b_2e34);
    assert_eq!(unit(experiment, "2", "alice"), 0x140a_e481_8b23_0b20);
    assert_eq!(unit(ExperimentId(0), "", ""), 0x2e86_1c05_e624_a6b6);

    let key =
        |experiment, key: &str| u128::from_be_bytes(keys.key_hash(experiment, key.as_bytes()).0);
    assert_eq!(
        key(experiment, "order-4711"),
        0x74a9_d143_fd82_c90e_ab0f_2f1b_0143_7cbd
    );
    assert_eq!(
        key(ExperimentId(0), ""),
        0xa144_1d0a_5828_5c3b_f1e5_ab2e_1bfc_df72
    );

    let drawn = |units: &mut dyn Iterator<Item = UnitHash>, probabilities: &[f64]| -> String {
        units
            .filter_map(|unit| keys.rendezvous(unit, arms(probabilities)))
            .map(|arm| arm.to_string())
            .collect()
    };
    assert_eq!(
        drawn(&mut (0..40).map(UnitHash), &[0.5, 0.3, 0.2]),
        "0000100010000011202000000121101201000021"
    );
    let mut users = (0..40).map(|user| {
        let user = format!("user-{user}");
        keys.unit_hash(ExperimentId(1), "", user.as_bytes())
    });
    assert_eq!(
        drawn(&mut users, &[0.1; 10]),
        "6767476031079833076742068639655797444337"
    );
}

#[test]
fn numbers_of_two_arms_are_independent() {
    let keys = keys();
    // Neighbouring and distant ids, and ones that differ in a single high bit.
    for (first, second) in [
        (0, 1),
        (1, 2),
        (7, 1 << 31 | 7),
        (0xdead_beef, 0x0bad_cafe),
        (0, u32::MAX),
    ] {
        let mut observed = vec![0; 256];
        for unit in 0..200_000_u64 {
            let unit = keys.unit_hash(ExperimentId(1), "", &unit.to_le_bytes());
            let seed = unit.0 ^ keys.rendezvous;
            let cell = |arm| (open_unit_interval(mix(seed, ArmId(arm))) * 16.0) as usize;
            observed[16 * cell(first) + cell(second)] += 1;
        }
        let even = vec![1.0 / 256.0; 256];
        assert!(chi_square(&observed, &even) < 5.0, "{first} and {second}");
    }
}

#[test]
fn a_number_of_the_unit_interval_is_below_one() {
    assert_eq!(unit_interval(0), 0.0);
    assert!(unit_interval(u64::MAX) < 1.0);
    assert!(open_unit_interval(0) > 0.0);
    assert!(open_unit_interval(u64::MAX) < 1.0);
}

/// Pearson's statistic less its mean, in units of its standard deviation.
fn chi_square(observed: &[u32], probabilities: &[f64]) -> f64 {
    let total = f64::from(observed.iter().sum::<u32>());
    let statistic: f64 = observed
        .iter()
        .zip(probabilities)
        .filter(|(_, probability)| **probability > 0.0)
        .map(|(observed, probability)| {
            let expected = total * probability;
            (f64::from(*observed) - expected).powi(2) / expected
        })
        .sum();
    let degrees = probabilities.iter().filter(|p| **p > 0.0).count() as f64 - 1.0;
    (statistic - degrees) / (2.0 * degrees).sqrt()
}

#[test]
fn units_fall_on_arms_as_the_allocation_says() {
    let keys = keys();
    for probabilities in [
        vec![0.5, 0.5],
        vec![0.995, 0.005],
        vec![0.2, 0.0, 0.5, 0.3],
        vec![0.01; 100],
    ] {
        let mut observed = vec![0; probabilities.len()];
        let units: u64 = if probabilities.len() > 10 {
            100_000
        } else {
            1_000_000
        };
        for unit in 0..units {
            let unit = keys.unit_hash(ExperimentId(1), "", &unit.to_le_bytes());
            let arm = keys.rendezvous(unit, arms(&probabilities)).unwrap();
            observed[arm] += 1;
        }
        assert!(chi_square(&observed, &probabilities) < 5.0, "{observed:?}");
        for (observed, probability) in observed.iter().zip(&probabilities) {
            assert!(*probability > 0.0 || *observed == 0);
        }
    }
    assert_eq!(keys.rendezvous(UnitHash(1), arms(&[0.0, 0.0])), None);
    assert_eq!(keys.rendezvous(UnitHash(1), arms(&[])), None);
    // However small: its score may overflow.
    assert_eq!(keys.rendezvous(UnitHash(1), arms(&[0.0, 5e-324])), Some(1));
}

/// 1 − Σᵢ 1 / Σⱼ max(pⱼ/pᵢ, qⱼ/qᵢ): unit and arm give one exponential number each, and a unit stays where that wins both races.
fn moved_share(before: &[f64], after: &[f64]) -> f64 {
    let stays = |arm: usize| {
        let sum: f64 = (0..before.len())
            .map(|other| (before[other] / before[arm]).max(after[other] / after[arm]))
            .sum();
        1.0 / sum
    };
    1.0 - (0..before.len()).map(stays).sum::<f64>()
}

#[test]
fn when_the_allocation_moves_few_units_do_and_only_to_arms_that_grew() {
    let keys = keys();
    for (before, after) in [
        (vec![0.5, 0.5], vec![0.9, 0.1]),
        (vec![0.25, 0.25, 0.25, 0.25], vec![0.4, 0.2, 0.2, 0.2]),
        (vec![0.1, 0.2, 0.3, 0.4], vec![0.4, 0.3, 0.2, 0.1]),
        (vec![0.7, 0.2, 0.1], vec![0.7, 0.2, 0.1]),
    ] {
        let units = 1_000_000_u64;
        let mut moved = 0;
        for unit in 0..units {
            let unit = keys.unit_hash(ExperimentId(2), "salt", &unit.to_le_bytes());
            let old = keys.rendezvous(unit, arms(&before)).unwrap();
            let new = keys.rendezvous(unit, arms(&after)).unwrap();
            if old != new {
                moved += 1;
                assert!(
                    after[new] / before[new] > after[old] / before[old],
                    "{old} to {new}"
                );
            }
        }
        let expected = moved_share(&before, &after);
        let error = (expected * (1.0 - expected).max(0.0) / units as f64).sqrt();
        let share = f64::from(moved) / units as f64;
        assert!(
            (share - expected).abs() <= 4.0 * error + 1e-12,
            "{share} of the units moved, not {expected}"
        );
    }
}

#[test]
fn another_salt_or_experiment_draws_anew() {
    let keys = keys();
    let draw = |experiment: u32, salt: &str, unit: u64| {
        let unit = keys.unit_hash(ExperimentId(experiment), salt, &unit.to_le_bytes());
        keys.rendezvous(unit, arms(&[0.5, 0.5])).unwrap()
    };
    for (experiment, salt) in [(1, "2"), (2, "")] {
        let same = (0..10_000)
            .filter(|unit| draw(1, "", *unit) == draw(experiment, salt, *unit))
            .count();
        assert!((4_700..5_300).contains(&same), "{same}");
    }
}
