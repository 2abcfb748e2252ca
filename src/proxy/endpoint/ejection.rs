//! Endpoints that answer badly are taken out for a while: after failures in a row, or when too few requests succeed within an interval.
//!
//! An ejection ends by itself when its time has passed; nobody has to notice. So the arm's bound on how many are out at once is kept
//! by places with an end: who ejects takes a place that is free, and a place is free when its end has passed.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::experiment::upstream::EjectionRule;

/// Shares are rounded down, but not because 0.29 × 100 is a hair below 29.
const ROUNDING: f64 = 1e-9;

/// What a request says of its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It answered as it should.
    Success,
    /// It failed.
    Failure,
    /// Nothing: the client left, say.
    Ignored,
}

/// The places for an arm's endpoints that are out, shared by all of them.
#[derive(Debug)]
pub struct Ejections {
    /// Until when each place is taken.
    until: Box<[AtomicU64]>,
}

impl Ejections {
    /// For an arm with this many endpoints.
    pub fn new(endpoints: usize, rule: &EjectionRule) -> Self {
        let share = rule.max_share.clamp(0.0, 1.0);
        let places = (share * endpoints as f64 + ROUNDING).floor() as usize;
        Self {
            until: (0..places).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Whether any endpoint can ever be ejected here.
    pub fn has_places(&self) -> bool {
        !self.until.is_empty()
    }

    /// Takes a place until then, if one is free.
    fn take(&self, now: u64, until: u64) -> Option<&AtomicU64> {
        self.until.iter().find(|place| {
            let taken = place.load(Ordering::Relaxed);
            taken <= now
                && place
                    .compare_exchange(taken, until, Ordering::AcqRel, Ordering::Relaxed)
                    .is_ok()
        })
    }
}

/// Where an endpoint stands.
#[derive(Debug, Default)]
pub(super) struct Ejection {
    /// Until when it is out, or was the last time, and how often in short succession.
    sentence: AtomicU64,
    /// Failures since the last success.
    consecutive: AtomicU32,
    /// The interval, and what came in it.
    tally: AtomicU64,
}

impl Ejection {
    /// Until when it is out, or was the last time; 0 if it never was.
    pub(super) fn until(&self) -> u64 {
        Sentence::unpack(self.sentence.load(Ordering::Relaxed)).until
    }

    /// Takes in what a request says. Until when the endpoint is out, if this has ejected it.
    pub(super) fn record(
        &self,
        verdict: Verdict,
        now: u64,
        rule: &EjectionRule,
        ejections: &Ejections,
    ) -> Option<u64> {
        let failed = match verdict {
            Verdict::Ignored => return None,
            Verdict::Success => false,
            Verdict::Failure => true,
        };
        let rate = rule.success_rate.map(|least| {
            let tally = self.count(now, failed, rule);
            tally.total >= u64::from(rule.minimum_requests.max(1)) && tally.success_rate() < least
        });
        if !failed {
            // Looked at first: a healthy endpoint's memory is only read.
            if self.consecutive.load(Ordering::Relaxed) != 0 {
                self.consecutive.store(0, Ordering::Relaxed);
            }
            return None;
        }
        let before = self.consecutive.fetch_add(1, Ordering::Relaxed);
        let in_a_row = rule.consecutive_failures;
        let too_many = in_a_row > 0 && before.saturating_add(1) >= in_a_row;
        if too_many || rate == Some(true) {
            self.eject(now, rule, ejections)
        } else {
            None
        }
    }

    /// Counts a request in its interval.
    fn count(&self, now: u64, failed: bool, rule: &EjectionRule) -> Tally {
        let interval = now / rule.interval.max(1);
        let mut word = self.tally.load(Ordering::Relaxed);
        loop {
            let next = Tally::unpack(word).with(interval, failed);
            let exchanged = self.tally.compare_exchange_weak(
                word,
                next.pack(),
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            match exchanged {
                Ok(_) => return next,
                Err(changed) => word = changed,
            }
        }
    }

    fn eject(&self, now: u64, rule: &EjectionRule, ejections: &Ejections) -> Option<u64> {
        let word = self.sentence.load(Ordering::Relaxed);
        let last = Sentence::unpack(word);
        if now < last.until {
            return None;
        }
        let next = last.next(now, rule);
        let place = ejections.take(now, next.until)?;
        let sentenced =
            self.sentence
                .compare_exchange(word, next.pack(), Ordering::AcqRel, Ordering::Relaxed);
        if sentenced.is_err() {
            // Another request has ejected it at the same time, and the place is given back. If its time was up meanwhile (`now` may be long ago), somebody
            // else may have it.
            place
                .compare_exchange(next.until, 0, Ordering::AcqRel, Ordering::Relaxed)
                .ok();
            return None;
        }
        self.consecutive.store(0, Ordering::Relaxed);
        self.tally.store(0, Ordering::Relaxed);
        Some(next.until)
    }
}

/// When the last ejection ends, and how often the endpoint was ejected in short succession: one word.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Sentence {
    until: u64,
    times: u32,
}

impl Sentence {
    /// The greatest exponent: 2^40 milliseconds are 34 years.
    const MOST: u32 = 40;

    fn unpack(word: u64) -> Self {
        Self {
            until: word >> 8,
            times: (word & 0xff) as u32,
        }
    }

    fn pack(self) -> u64 {
        self.until << 8 | u64::from(self.times & 0xff)
    }

    /// The next ejection, at `now`: twice as long as the last, and half as long for each interval that has passed since that.
    fn next(self, now: u64, rule: &EjectionRule) -> Self {
        let passed = now.saturating_sub(self.until) / rule.interval.max(1);
        let passed = u32::try_from(passed).unwrap_or(u32::MAX);
        let times = self.times.saturating_sub(passed);
        let base = rule.base.max(1);
        let longest = rule.max.max(base);
        let time = base.saturating_mul(1 << times.min(Self::MOST)).min(longest);
        // Past the longest time there is nothing to be forgotten.
        let grows = time < longest && times < Self::MOST;
        Self {
            until: now.saturating_add(time).min(u64::MAX >> 8),
            times: times + u32::from(grows),
        }
    }
}

/// Requests of an interval: one word.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Tally {
    interval: u64,
    total: u64,
    failures: u64,
}

impl Tally {
    const COUNT_BITS: u32 = 20;
    const COUNT: u64 = (1 << Self::COUNT_BITS) - 1;
    const INTERVAL: u64 = (1 << (64 - 2 * Self::COUNT_BITS)) - 1;

    fn unpack(word: u64) -> Self {
        Self {
            interval: word >> (2 * Self::COUNT_BITS),
            total: word >> Self::COUNT_BITS & Self::COUNT,
            failures: word & Self::COUNT,
        }
    }

    fn pack(self) -> u64 {
        self.interval << (2 * Self::COUNT_BITS) | self.total << Self::COUNT_BITS | self.failures
    }

    /// With one more request. When there is no more room, all counts are halved.
    fn with(mut self, interval: u64, failed: bool) -> Self {
        // Intervals are told apart by their low bits: 2^24 of them, of a second, are half a year.
        let interval = interval & Self::INTERVAL;
        // A thread whose clock was read just before the others' counts in theirs.
        let behind = self.interval == (interval + 1) & Self::INTERVAL;
        if self.interval != interval && !behind {
            self = Self {
                interval,
                total: 0,
                failures: 0,
            };
        }
        if self.total == Self::COUNT {
            self.total /= 2;
            self.failures /= 2;
        }
        self.total += 1;
        self.failures += u64::from(failed);
        self
    }

    fn success_rate(self) -> f64 {
        (self.total - self.failures) as f64 / self.total.max(1) as f64
    }
}

#[cfg(test)]
mod tests;
