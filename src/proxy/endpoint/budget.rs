//! How many requests may be sent again: a share of those that came in the last ten seconds, and some more in each second (as
//! Linkerd and Finagle do). Without it, an overloaded arm would get each request several times.
//!
//! Seconds are counted in a ring of words, shared by all workers. A retry is first counted and then judged, and taken back if it
//! is one too many: so of those that are granted at once the last one has seen all others, and the bound holds whatever the order.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::experiment::upstream::RetryRule;

/// Seconds that requests and retries count for.
const WINDOW: u64 = 10;

/// A power of two above the window.
const SECONDS: u64 = 16;

/// The seconds of the ring, and which of them are now.
#[derive(Debug)]
pub struct Budget {
    share: f64,
    /// What is granted in a window without any request.
    reserve: f64,
    seconds: [AtomicU64; SECONDS as usize],
}

impl Budget {
    /// The budget of a rule.
    pub fn new(rule: &RetryRule) -> Self {
        Self {
            share: rule.budget,
            reserve: rule.budget_per_second * WINDOW as f64,
            seconds: Default::default(),
        }
    }

    /// Counts a request, once, however often it is sent.
    pub fn on_request(&self, now: u64) {
        self.change(now / 1000, |second| {
            second.requests = (second.requests + 1).min(Second::REQUESTS);
            true
        });
    }

    /// Whether a request may be sent again now; if so, that counts.
    ///
    /// At each grant the retries of the last ten seconds, this one included, are at most the share of the requests of these seconds and the
    /// reserve.
    pub fn try_retry(&self, now: u64) -> bool {
        let second = now / 1000;
        let counted = self.change(second, |second| {
            second.retries += 1;
            second.retries <= Second::RETRIES
        });
        if counted && self.holds(second) {
            return true;
        }
        if counted {
            self.change(second, |second| {
                second.retries = second.retries.saturating_sub(1);
                true
            });
        }
        false
    }

    /// Whether there are not too many retries. This second is not over, so the retries of one more are counted than it takes, and
    /// the requests of one less.
    fn holds(&self, now: u64) -> bool {
        let (mut requests, mut retries) = (0, 0);
        for word in &self.seconds {
            let second = Second::unpack(word.load(Ordering::SeqCst));
            let age = second.age(now);
            if age < WINDOW {
                requests += second.requests;
            }
            if age <= WINDOW || Second::is_ahead(age) {
                retries += second.retries;
            }
        }
        retries as f64 <= self.share * requests as f64 + self.reserve
    }

    /// Changes the counts of a second, unless `change` says no, or the place is a later second's already: this thread has been asleep for
    /// longer than the window.
    fn change(&self, second: u64, change: impl Fn(&mut Second) -> bool) -> bool {
        let place = &self.seconds[(second % SECONDS) as usize];
        let mut word = place.load(Ordering::SeqCst);
        loop {
            let mut next = Second::unpack(word);
            let age = next.age(second);
            if Second::is_ahead(age) {
                return false;
            }
            if age > 0 {
                next = Second::empty(second);
            }
            if !change(&mut next) {
                return false;
            }
            match place.compare_exchange_weak(word, next.pack(), Ordering::SeqCst, Ordering::SeqCst)
            {
                Ok(_) => return true,
                Err(changed) => word = changed,
            }
        }
    }
}

/// A second, as one word: its number's low bits, requests and retries.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Second {
    number: u64,
    requests: u64,
    retries: u64,
}

impl Second {
    const REQUEST_BITS: u32 = 22;
    const RETRY_BITS: u32 = 18;
    /// Most requests that are counted in a second.
    const REQUESTS: u64 = (1 << Self::REQUEST_BITS) - 1;
    /// Most retries that are granted in a second.
    const RETRIES: u64 = (1 << Self::RETRY_BITS) - 1;
    /// Numbers are told apart modulo this: half a year.
    const NUMBERS: u64 = 1 << (64 - Self::REQUEST_BITS - Self::RETRY_BITS);
    /// Another thread has read the clock at most so many seconds later.
    const AHEAD: u64 = 60;

    fn empty(number: u64) -> Self {
        Self {
            number: number % Self::NUMBERS,
            requests: 0,
            retries: 0,
        }
    }

    fn unpack(word: u64) -> Self {
        Self {
            number: word >> (Self::REQUEST_BITS + Self::RETRY_BITS),
            requests: word >> Self::RETRY_BITS & Self::REQUESTS,
            retries: word & Self::RETRIES,
        }
    }

    fn pack(self) -> u64 {
        self.number << (Self::REQUEST_BITS + Self::RETRY_BITS)
            | self.requests << Self::RETRY_BITS
            | self.retries
    }

    /// How many seconds before `now`.
    fn age(self, now: u64) -> u64 {
        now.wrapping_sub(self.number) % Self::NUMBERS
    }

    /// Whether that is no age: the second is after `now`.
    const fn is_ahead(age: u64) -> bool {
        age >= Self::NUMBERS - Self::AHEAD
    }
}

#[cfg(test)]
mod tests;
