//! Decisions that never reach the journal: live they count as little as after a recovery.

use crossbeam_channel::Receiver;

use super::*;
use crate::journal::Writer;

/// A ledger whose rounds are done by the test, so that a full queue stays full.
pub(super) fn by_hand<S: Storage + Clone + Send + 'static>(
    state: State,
    writer: Writer<S>,
    config: &Config,
) -> (Keeper<S>, Archivist<S>, Receiver<Command>, Handle) {
    let archivist = Archivist::new(writer.storage().clone(), config, writer.unfinished());
    let Front { handle, commands } = Front::new(config);
    handle.shared.open.store(true, Ordering::Release);
    let desk = archivist.desk();
    let keeper = Keeper::new(writer, state, desk, Arc::clone(&handle.shared), config);
    (keeper, archivist, commands, handle)
}

/// Ten rounds of a hundred decisions, of which the queue takes ninety. Of those that it takes every third is rewarded, and of the others
/// `rewarded_drops` in each round. In the tenth round the process is killed while it writes.
fn drop_a_tenth(rewarded_drops: u64, seed: usize) {
    let mut rig = Rig::with(|config| config.queue = 90);
    let mut crediting = experiment("stars", "1", &["a", "b"]);
    crediting.reward.default = Some(0.0);
    let crediting = Arc::new(crediting);
    rig.adopt(&[&crediting]);
    rig.ledger = None;
    let open = |rig: &Rig, origin| {
        open(
            rig.storage.clone(),
            Path::new("memory"),
            &rig.config,
            origin,
            rig.config.clock.now(),
        )
        .unwrap()
    };
    let (state, writer, opened) = open(&rig, 99);
    rig.origin = opened.origin;
    let (mut keeper, _, commands, handle) = by_hand(state, writer, &rig.config);
    rig.handle = handle;
    let recorder = rig.handle.recorder(0).unwrap();
    for round in 0..10 {
        let mut receipts = Vec::new();
        for counter in round * 100..(round + 1) * 100 {
            rig.clock.advance(10);
            let decision = rig.decision(&crediting, (counter % 2) as usize, counter);
            let taken = recorder.offer(logged(decision));
            assert_eq!(taken, counter % 100 < 90);
            if taken && counter % 3 == 0 || !taken && counter % 100 < 90 + rewarded_drops {
                receipts.push(rig.post(decision, Posted::Reward(1.0)));
            }
        }
        if round == 9 {
            let operations = Some(seed as u32 % 3);
            rig.storage.set_faults(Faults {
                operations,
                ..Faults::default()
            });
        }
        keeper.round(commands.try_iter().collect());
        for receipt in receipts {
            let told = receipt.wait();
            let failed = round == 9 && told == Err(Unavailable::Failing);
            assert!(failed || told == judged(Verdict::Accepted), "{told:?}");
        }
    }
    let (live, unapplied) = keeper.parts();
    let (mut live, in_doubt) = (live.clone(), unapplied.to_vec());
    drop(keeper);
    rig.storage.set_faults(Faults::default());
    rig.storage.power_cut(|below| (seed * 7919) % below.max(1));
    rig.clock.advance(2 * 3_600_000);
    let (mut recovered, _, opened) = open(&rig, 100);
    // The group that was being written is there as a whole or not at all.
    let tally = |state: &State| {
        let tallies = state.tallies(crediting.id);
        let sum =
            |field: fn(&Tally) -> u64| tallies.iter().map(|(_, tally)| field(tally)).sum::<u64>();
        (
            sum(|tally| tally.decisions),
            sum(|tally| tally.rewards.count()),
            sum(|tally| tally.defaults),
        )
    };
    if tally(&recovered).0 == 900 {
        for event in &in_doubt {
            live.apply(event);
        }
    }
    live.apply(&Event::Started {
        at: rig.clock.now(),
        origin: opened.origin,
    });
    live.advance(rig.clock.now());
    live.take_changed();
    recovered.take_changed();
    assert_eq!(live, recovered);
    let (decisions, rewards, defaults) = tally(&recovered);
    let rounds = decisions / 90;
    assert!(
        decisions % 90 == 0 && (9..=10).contains(&rounds),
        "{decisions}"
    );
    assert_eq!(
        rewards,
        (0..rounds * 100)
            .filter(|counter| counter % 100 < 90 && counter % 3 == 0
                || (90..90 + rewarded_drops).contains(&(counter % 100)))
            .count() as u64
    );
    // A reward for a decision that the journal does not hold stands in the way of one default credit.
    assert_eq!(defaults, decisions - rewards);
}

#[test]
fn dropped_decisions_are_not_credited_live_or_recovered() {
    for seed in 0..30 {
        drop_a_tenth(0, seed);
    }
}

#[test]
fn rewards_of_dropped_decisions_count_live_and_recovered() {
    for seed in 0..30 {
        drop_a_tenth(4, seed);
    }
}

#[test]
fn a_reward_may_come_before_its_decision_was_flushed() {
    let mut rig = Rig::new();
    let mut crediting = experiment("stars", "1", &["a", "b"]);
    crediting.reward.default = Some(0.0);
    let crediting = Arc::new(crediting);
    rig.adopt(&[&crediting]);
    let recorder = rig.handle.recorder(0).unwrap();
    let (early, same, only) = (
        rig.decision(&crediting, 0, 1),
        rig.decision(&crediting, 0, 2),
        rig.decision(&crediting, 0, 3),
    );
    assert_eq!(rig.reward(early, 1.0), judged(Verdict::Accepted));
    assert!(recorder.offer(logged(early)));
    assert!(recorder.offer(logged(same)));
    assert_eq!(rig.reward(same, 1.0), judged(Verdict::Accepted));
    assert!(recorder.offer(logged(only)));
    rig.clock.advance(2 * 3_600_000);
    for _ in 0..2 {
        rig.restart();
        let tally = &rig.tallies(&crediting)[0];
        assert_eq!(
            (tally.decisions, tally.rewards.count(), tally.defaults),
            (3, 2, 1)
        );
        assert_eq!(rig.reward(early, 1.0), judged(Verdict::Late));
    }
}
