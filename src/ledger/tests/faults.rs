//! Disks that fail, and power that does.

use super::*;

#[test]
fn while_the_disk_fails_nothing_is_acknowledged_and_later_nothing_is_counted_twice() {
    let mut rig = Rig::new();
    let stars = Arc::new(experiment("stars", "1", &["a", "b"]));
    rig.adopt(&[&stars]);
    let recorder = rig.handle.recorder(0).unwrap();
    let (first, second) = (rig.decision(&stars, 0, 1), rig.decision(&stars, 0, 2));
    rig.storage.set_faults(Faults {
        syncs: 1,
        creates: 1_000_000,
        ..Faults::default()
    });
    assert_eq!(rig.reward(first, 1.0), Err(Unavailable::Failing));
    assert_eq!(rig.reward(second, 1.0), Err(Unavailable::Failing));
    assert!(recorder.offer(logged(first)));
    assert!(recorder.offer(logged(second)));
    assert_eq!(rig.tallies(&stars), vec![Tally::default(); 2]);
    assert_eq!(rig.handle.allocated(Vec::new()), Err(Unavailable::Failing));
    rig.storage.set_faults(Faults::default());
    let healed = || loop {
        match rig.reward(first, 1.0) {
            Err(Unavailable::Failing) => std::thread::sleep(Duration::from_millis(5)),
            answer => return answer,
        }
    };
    assert_eq!(healed(), judged(Verdict::Duplicate));
    assert_eq!(rig.reward(second, 1.0), judged(Verdict::Accepted));
    let tallies = rig.tallies(&stars);
    assert_eq!((tallies[0].decisions, tallies[0].rewards.count()), (2, 2));
    rig.restart();
    assert_eq!(rig.tallies(&stars), tallies);
}

#[test]
fn what_was_acknowledged_survives_a_power_cut() {
    for seed in 0..40_u64 {
        let mut rig = Rig::new();
        let stars = Arc::new(experiment("stars", "1", &["a", "b"]));
        rig.adopt(&[&stars]);
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut choose = |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random % below.max(1) as u64) as usize
        };
        let recorder = rig.handle.recorder(0).unwrap();
        let decisions: Vec<_> = (0..20)
            .map(|counter| rig.decision(&stars, 0, counter))
            .collect();
        let mut acknowledged = 0;
        for decision in &decisions {
            if choose(4) == 0 {
                rig.storage.set_faults(Faults {
                    syncs: choose(2) as u32,
                    creates: choose(2) as u32,
                    repairs: choose(2) as u32,
                    ..Faults::default()
                });
            }
            recorder.offer(logged(*decision));
            acknowledged += u64::from(rig.reward(*decision, 1.0).is_ok());
        }
        rig.storage.set_faults(Faults {
            syncs: 9,
            creates: 9,
            ..Faults::default()
        });
        rig.ledger = None;
        rig.storage.set_faults(Faults::default());
        rig.storage.power_cut(&mut choose);
        rig.restart();
        let counted = rig.tallies(&stars)[0].rewards.count();
        assert!(
            (acknowledged..=20).contains(&counted),
            "seed {seed}: {acknowledged} of {counted}"
        );
        for decision in &decisions {
            rig.reward(*decision, 1.0).unwrap();
        }
        assert_eq!(rig.tallies(&stars)[0].rewards.count(), 20, "seed {seed}");
    }
}
