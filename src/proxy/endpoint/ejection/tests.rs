use std::sync::atomic::AtomicU64;

use proptest::prelude::*;

use super::*;

const RULE: EjectionRule = EjectionRule {
    consecutive_failures: 3,
    success_rate: None,
    minimum_requests: 10,
    interval: 1_000,
    base: 100,
    max: 1_000,
    max_share: 1.0,
};

/// Fails at `now` until that ejects.
fn eject(ejection: &Ejection, now: u64, rule: &EjectionRule, ejections: &Ejections) -> Option<u64> {
    (0..rule.consecutive_failures)
        .find_map(|_| ejection.record(Verdict::Failure, now, rule, ejections))
}

#[test]
fn failures_in_a_row_eject_and_a_success_forgets_them() {
    let (ejection, ejections) = (Ejection::default(), Ejections::new(1, &RULE));
    let record = |verdict, now| ejection.record(verdict, now, &RULE, &ejections);
    for verdict in [Verdict::Failure, Verdict::Failure, Verdict::Success] {
        assert_eq!(record(verdict, 1), None);
    }
    assert_eq!(record(Verdict::Failure, 2), None);
    assert_eq!(record(Verdict::Ignored, 2), None);
    assert_eq!(record(Verdict::Failure, 2), None);
    assert_eq!(ejection.until(), 0);
    assert_eq!(record(Verdict::Failure, 3), Some(103));
    assert_eq!(ejection.until(), 103);
    // What was under way then does not prolong it, and what comes after begins at nothing.
    assert_eq!(eject(&ejection, 50, &RULE, &ejections), None);
    assert_eq!(record(Verdict::Success, 103), None);
    assert_eq!(record(Verdict::Failure, 104), None);
    let never = EjectionRule {
        consecutive_failures: 0,
        ..RULE
    };
    for _ in 0..1_000 {
        let ejected = ejection.record(Verdict::Failure, 200, &never, &ejections);
        assert_eq!(ejected, None);
    }
}

#[test]
fn a_low_success_rate_ejects_once_enough_was_seen() {
    let rule = EjectionRule {
        consecutive_failures: 0,
        success_rate: Some(0.8),
        ..RULE
    };
    let (ejection, ejections) = (Ejection::default(), Ejections::new(1, &rule));
    let record = |verdict, now| ejection.record(verdict, now, &rule, &ejections);
    for round in 0..4 {
        let failed = if round % 2 == 0 {
            Verdict::Failure
        } else {
            Verdict::Success
        };
        assert_eq!(record(failed, 999), None, "four are too few");
    }
    // A new interval; ten with two failures are at the rate, not below it.
    for _ in 0..8 {
        assert_eq!(record(Verdict::Success, 1_000), None);
    }
    assert_eq!(record(Verdict::Failure, 1_001), None);
    assert_eq!(record(Verdict::Failure, 1_002), None);
    // A clock that was read just before counts in the same interval.
    assert_eq!(record(Verdict::Failure, 999), Some(1_099));
}

#[test]
fn tallies_fit_their_word() {
    let mut tally = Tally::unpack(0);
    for _ in 0..=Tally::COUNT {
        tally = tally.with(u64::MAX, true);
        assert_eq!(Tally::unpack(tally.pack()), tally);
    }
    assert!(tally.total < Tally::COUNT && tally.failures <= tally.total);
    assert_eq!(tally.with(7, false).total, 1);
}

#[test]
fn ejections_last_longer_each_time_and_are_forgiven_in_time() {
    let (ejection, ejections) = (Ejection::default(), Ejections::new(1, &RULE));
    let mut now = 5_000;
    for lasts in [100, 200, 400, 800, 1_000, 1_000] {
        assert_eq!(
            eject(&ejection, now, &RULE, &ejections),
            Some(now + lasts),
            "at {now}"
        );
        now += lasts;
    }
    // One step back for each interval.
    now += 2 * RULE.interval;
    assert_eq!(eject(&ejection, now, &RULE, &ejections), Some(now + 400));
    now += 400 + 100 * RULE.interval;
    assert_eq!(eject(&ejection, now, &RULE, &ejections), Some(now + 100));
    let endless = EjectionRule {
        max: u64::MAX,
        ..RULE
    };
    for _ in 0..200 {
        now = eject(&ejection, now, &endless, &ejections).unwrap_or(now);
    }
    assert!(ejection.until() <= u64::MAX >> 8);
}

#[test]
fn shares_are_rounded_down() {
    let places = |endpoints, max_share| {
        let rule = EjectionRule { max_share, ..RULE };
        Ejections::new(endpoints, &rule).until.len()
    };
    assert_eq!(places(1, 0.5), 0);
    assert_eq!(places(3, 0.5), 1);
    assert_eq!(places(100, 0.29), 29);
    assert_eq!(places(10, 0.1), 1);
    assert_eq!(places(4, 1.0), 4);
    assert_eq!(places(4, 7.0), 4);
    assert_eq!(places(4, -1.0), 0);
}

#[test]
fn an_endpoint_without_a_place_goes_on_until_there_is_one() {
    let rule = EjectionRule {
        max_share: 0.5,
        ..RULE
    };
    let all: [Ejection; 3] = Default::default();
    let ejections = Ejections::new(3, &rule);
    assert_eq!(eject(&all[0], 0, &rule, &ejections), Some(100));
    assert_eq!(eject(&all[1], 50, &rule, &ejections), None);
    assert_eq!(all[1].until(), 0);
    let next = all[1].record(Verdict::Failure, 100, &rule, &ejections);
    assert_eq!(next, Some(200), "its failures still stand");
}

proptest! {
    #[test]
    fn never_more_than_the_share_is_out(
        endpoints in 1_usize..12,
        max_share in 0.0_f64..1.0,
        steps in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..10, 0_u64..60), 1..600),
    ) {
        let rule = EjectionRule {
            max_share,
            success_rate: Some(0.5),
            ..RULE
        };
        let all: Vec<_> = (0..endpoints).map(|_| Ejection::default()).collect();
        let ejections = Ejections::new(endpoints, &rule);
        let most = (max_share * endpoints as f64).floor() as usize;
        let mut now = 0;
        for (place, chance, later) in steps {
            now += later;
            let verdict = match chance {
                0..=1 => Verdict::Success,
                2 => Verdict::Ignored,
                _ => Verdict::Failure,
            };
            let ejection = place.get(&all);
            let before = ejection.until();
            let ejected = ejection.record(verdict, now, &rule, &ejections);
            if let Some(until) = ejected {
                prop_assert!(before <= now && until >= now + rule.base && until <= now + rule.max);
            }
            let out = all.iter().filter(|ejection| now < ejection.until()).count();
            prop_assert!(out <= most, "{out} of {endpoints} at {max_share}");
        }
    }
}

/// Threads that eject all endpoints of an arm at once, while time goes on: at no time are more out than there are places.
#[test]
fn threads_cannot_eject_more_together() {
    let rule = EjectionRule {
        consecutive_failures: 1,
        base: 3,
        max: 12,
        interval: 5,
        max_share: 0.5,
        ..RULE
    };
    let all: [Ejection; 7] = Default::default();
    let ejections = Ejections::new(all.len(), &rule);
    let clock = AtomicU64::new(1);
    let mut out: Vec<(u64, u64)> = std::thread::scope(|scope| {
        let work = |thread: usize| {
            let mut out = Vec::new();
            for step in 0..20_000 {
                let now = clock.load(Ordering::SeqCst);
                let ejection = &all[(step + thread) % all.len()];
                let ejected = ejection.record(Verdict::Failure, now, &rule, &ejections);
                // Other threads may have moved the clock on since `now`: the place is held from here.
                let from = clock.load(Ordering::SeqCst);
                let held = ejected.map(|until| (from, until));
                out.extend(held.filter(|(from, until)| from < until));
                if step % 5 == thread {
                    clock.fetch_add(1, Ordering::SeqCst);
                }
            }
            out
        };
        let threads: Vec<_> = (0..4)
            .map(|thread| scope.spawn(move || work(thread)))
            .collect();
        let results = threads.into_iter().map(|thread| thread.join().unwrap());
        results.flatten().collect()
    });
    assert!(out.len() > 100, "{}", out.len());
    let mut edges: Vec<(u64, i32)> = Vec::new();
    for (from, until) in out.drain(..) {
        edges.extend([(from, 1), (until, -1)]);
    }
    edges.sort_unstable();
    let (mut now_out, mut most) = (0, 0);
    for (_, change) in edges {
        now_out += change;
        most = most.max(now_out);
    }
    assert_eq!(now_out, 0);
    assert!((1..=3).contains(&most), "{most}");
}
