//! Whole lives of a ledger, drawn from a seed: its disk fails, fills up, tears writes and forgets what was not synced, its clock steps,
//! it is killed in the middle of anything, and its clients post until they are answered.
//!
//! Everything happens on one thread and nothing waits for a clock, so a seed is a history. The first seeds run in every test
//! run. One of them again:
//!
//! ```sh
//! POINTSMAN_SIMULATION_SEED=17 cargo test --lib simulation -- --nocapture
//! ```
//!
//! Many of them:
//!
//! ```sh
//! POINTSMAN_SIMULATION_SEEDS=50000 cargo test --release --lib simulation -- --nocapture
//! ```

mod accidents;
mod clients;
mod learner;
mod oracle;
mod random;
mod rules;
mod seen;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicU64;

use super::*;
use random::Random;
use seen::Seen;
use world::World;

/// Seeds of a normal run.
const SEEDS: u64 = 500;

/// Steps of a life.
const STEPS: u64 = 120;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text} is no number")),
    )
}

/// Lives one life. A broken promise panics.
fn live(seed: u64) -> Seen {
    let mut world = World::new(Random::new(seed));
    for _ in 0..STEPS {
        world.step();
    }
    world.end()
}

/// Lives the lives of all seeds below `seeds` on all cores, and adds up what was seen.
fn live_all(seeds: u64) -> Seen {
    let next = AtomicU64::new(0);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let mut seen = Seen::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return seen;
            }
            match catch_unwind(AssertUnwindSafe(|| live(seed))) {
                Ok(life) => seen.add(&life),
                Err(broken) => {
                    println!(
                        "seed {seed} breaks a promise. To see it again: POINTSMAN_SIMULATION_SEED={seed} cargo test --lib simulation -- --nocapture"
                    );
                    next.store(seeds, Ordering::Relaxed);
                    std::panic::resume_unwind(broken);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        let mut seen = Seen::default();
        for thread in threads {
            match thread.join() {
                Ok(part) => seen.add(&part),
                Err(broken) => std::panic::resume_unwind(broken),
            }
        }
        seen
    })
}

#[test]
fn whatever_fails_every_promise_is_kept() {
    if let Some(seed) = number("POINTSMAN_SIMULATION_SEED") {
        println!("seed {seed}: {:?}", live(seed));
        return;
    }
    let seeds = number("POINTSMAN_SIMULATION_SEEDS").unwrap_or(SEEDS);
    let seen = live_all(seeds);
    println!("{seeds} seeds: {seen:#?}");
    for (what, count) in seen.counts() {
        assert!(
            seeds < SEEDS || *count > 0,
            "no life has seen any {what}: the simulation proves less than it says"
        );
    }
}

#[test]
fn a_seed_is_a_history() {
    for seed in 0..5 {
        assert_eq!(live(seed), live(seed));
    }
}
