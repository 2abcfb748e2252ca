use super::*;
use crate::chance::DrawKeys;
use crate::experiment::id::SequenceKey;

const STARS: RewardKind = RewardKind::Bounded { min: 1.0, max: 5.0 };

#[test]
fn without_rewards_the_whole_range_and_for_real_rewards_nothing() {
    assert_eq!(interval(RewardKind::Binary, 0, 0.0, 0.05), Some((0.0, 1.0)));
    assert_eq!(interval(STARS, 0, 0.0, 0.05), Some((1.0, 5.0)));
    assert_eq!(interval(RewardKind::Real, 10, 3.0, 0.05), None);
}

#[test]
fn a_bounded_reward_has_the_interval_of_its_scaled_sum() {
    let (low, high) = interval(RewardKind::Binary, 80, 33.25, 0.01).unwrap();
    let (scaled_low, scaled_high) = interval(STARS, 80, 80.0 + 4.0 * 33.25, 0.01).unwrap();
    assert!((scaled_low - (1.0 + 4.0 * low)).abs() < 1e-12);
    assert!((scaled_high - (1.0 + 4.0 * high)).abs() < 1e-12);
}

#[test]
fn it_mirrors_holds_the_mean_and_narrows() {
    let mut width = 1.0;
    for digits in 1..=9 {
        let count = 10_u64.pow(digits);
        for share in [0.0, 1e-3, 0.3, 0.5, 1.0] {
            let sum = (count as f64 * share).floor();
            let (low, high) = interval(RewardKind::Binary, count, sum, 0.05).unwrap();
            let mirrored = interval(RewardKind::Binary, count, count as f64 - sum, 0.05).unwrap();
            let mean = sum / count as f64;
            assert!(0.0 <= low && low <= mean && mean <= high && high <= 1.0);
            assert!((low - (1.0 - mirrored.1)).abs() < 1e-12);
            assert!((high - (1.0 - mirrored.0)).abs() < 1e-12);
            if share == 0.5 {
                assert!(high - low < width);
                width = high - low;
            }
        }
    }
    assert!(width < 1e-3);
}

#[test]
fn hostile_input_gives_an_interval() {
    for alpha in [0.0, 1e-300, 0.5, 1.0, 2.0, f64::NAN] {
        for sum in [-5.0, 0.0, 1e-9, 3.0, 1e300, f64::NAN] {
            let (low, high) = interval(RewardKind::Binary, 3, sum, alpha).unwrap();
            assert!((0.0..=1.0).contains(&low) && low <= high && high <= 1.0);
        }
    }
}

/// Looking after every reward, the interval misses in at most α of the runs: 20 % here, so that few runs tell.
#[test]
fn it_holds_at_every_look() {
    let keys = DrawKeys::derive(&[3; 32]);
    let uniform = |run: u64, counter: u64| {
        keys.uniform(SequenceKey {
            origin: run,
            worker: 0,
            counter,
        })
    };
    let alpha: f64 = 0.2;
    for mean in [0.05, 0.5] {
        let mut misses = 0;
        for run in 0..200 {
            let mut sum = 0.0;
            let mut missed = false;
            for count in 1..=500_u64 {
                sum += f64::from(u8::from(uniform(run, count) < mean));
                let outside = log_martingale(sum, count as f64 - sum, mean) >= -alpha.ln();
                missed |= outside;
                // The ends of the interval are where the martingale says.
                if outside || count % 100 == 0 {
                    let (low, high) = interval(RewardKind::Binary, count, sum, alpha).unwrap();
                    assert_eq!(outside, mean <= low || high <= mean);
                }
            }
            misses += u32::from(missed);
        }
        // Four standard errors above 20 %.
        let limit = 200.0 * alpha + 4.0 * (200.0 * alpha * (1.0 - alpha)).sqrt();
        assert!(f64::from(misses) < limit, "{misses} of 200 runs at {mean}");
    }
}
