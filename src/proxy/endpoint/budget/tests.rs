use std::sync::atomic::AtomicUsize;

use proptest::prelude::*;

use super::*;

fn budget(share: f64, per_second: f64) -> Budget {
    Budget::new(&RetryRule {
        attempts: 3,
        idempotent: false,
        statuses: Vec::new(),
        budget: share,
        budget_per_second: per_second,
    })
}

fn granted(budget: &Budget, now: u64, tries: usize) -> usize {
    (0..tries).filter(|_| budget.try_retry(now)).count()
}

#[test]
fn a_share_of_the_requests_and_a_reserve_are_granted() {
    let now = 1_000_000;
    let budget = budget(0.2, 10.0);
    assert_eq!(granted(&budget, now, 500), 100);
    for _ in 0..50 {
        budget.on_request(now);
    }
    assert_eq!(granted(&budget, now, 500), 10);
    // Ten seconds later nothing of it counts.
    assert_eq!(granted(&budget, now + 9_999, 500), 0);
    assert_eq!(granted(&budget, now + 11_000, 500), 100);
}

#[test]
fn without_a_budget_nothing_is_granted() {
    let none = budget(0.0, 0.0);
    none.on_request(5);
    assert!(!none.try_retry(5));
    let slow = budget(0.0, 0.1);
    assert_eq!(granted(&slow, 0, 10), 1);
}

#[test]
fn an_arm_may_rest_for_years() {
    let budget = budget(0.5, 0.0);
    let mut now = 3_000;
    for rest in [1, 15, 16, 17, 1 << 20, Second::NUMBERS / 2, 1 << 30] {
        budget.on_request(now);
        budget.on_request(now);
        assert_eq!(granted(&budget, now, 5), 1, "at {now}");
        now += 1_000 * rest + 11_000;
    }
}

#[test]
fn a_thread_that_is_behind_changes_nothing_that_is_over() {
    let budget = budget(1.0, 0.0);
    budget.on_request(100_000);
    budget.on_request(100_000 - 16_000);
    assert!(!budget.try_retry(100_000 - 16_000));
    assert_eq!(granted(&budget, 100_000, 9), 1);
}

#[test]
fn counts_fit_their_word() {
    let second = Second {
        number: Second::NUMBERS - 1,
        requests: Second::REQUESTS,
        retries: Second::RETRIES,
    };
    assert_eq!(Second::unpack(second.pack()), second);
    assert_eq!(second.pack(), u64::MAX);
}

proptest! {
    /// At each grant, over the exact last ten seconds.
    #[test]
    fn the_bound_holds_in_every_window(
        share in 0.0_f64..1.0,
        per_second in 0.0_f64..3.0,
        steps in prop::collection::vec((any::<bool>(), 0_u64..2_500), 1..400),
    ) {
        let budget = budget(share, per_second);
        let (mut requests, mut retries) = (Vec::new(), Vec::new());
        let mut now: u64 = 50_000;
        for (request, later) in steps {
            now += later;
            if request {
                budget.on_request(now);
                requests.push(now);
            } else if budget.try_retry(now) {
                retries.push(now);
                let within = |times: &[u64]| {
                    times.iter().filter(|time| **time + 1_000 * WINDOW > now).count() as f64
                };
                let most = share * within(&requests) + per_second * WINDOW as f64;
                prop_assert!(within(&retries) <= most + 1e-9);
            }
        }
    }
}

#[test]
fn threads_cannot_be_granted_more_together() {
    for round in 0..50 {
        let budget = budget(0.2, 1.0);
        let now = 777_000 + round;
        let granted_to_all = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let (budget, granted_to_all) = (&budget, &granted_to_all);
                scope.spawn(move || {
                    for step in 0..100 {
                        // Two of them are already in the next second.
                        let now = now + 1_000 * (thread % 2);
                        if step % 2 == 0 {
                            budget.on_request(now);
                        }
                        granted_to_all.fetch_add(granted(budget, now, 1), Ordering::Relaxed);
                    }
                });
            }
        });
        let most = 10 + 200 / 5;
        let so_far = granted_to_all.load(Ordering::Relaxed);
        assert!(so_far <= most, "{so_far}");
        // And what threads have refused one another is still there.
        assert_eq!(so_far + granted(&budget, now + 1_000, 100), most);
    }
}
