//! What is worth a word in the log, but not each time that it happens.

use std::sync::atomic::{AtomicU64, Ordering};

/// Milliseconds between two words about the same thing.
const QUIET: u64 = 10_000;

/// How often something has failed since that was last told.
#[derive(Debug, Default)]
pub struct Complaints {
    untold: AtomicU64,
    /// When it may be told again.
    next: AtomicU64,
}

impl Complaints {
    /// One more. How many there were, if that is to be told now: the first at once, then at most once in ten seconds.
    pub fn next(&self, now: u64) -> Option<u64> {
        self.untold.fetch_add(1, Ordering::Relaxed);
        let next = self.next.load(Ordering::Relaxed);
        let is_due = now >= next
            && self
                .next
                .compare_exchange(next, now + QUIET, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        is_due.then(|| self.untold.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_again_and_again_is_told_now_and_then() {
        let complaints = Complaints::default();
        assert_eq!(complaints.next(5), Some(1));
        assert_eq!(complaints.next(5), None);
        assert_eq!(complaints.next(4 + QUIET), None);
        assert_eq!(complaints.next(5 + QUIET), Some(3));
        assert_eq!(complaints.next(5 + 3 * QUIET), Some(1));
    }
}
