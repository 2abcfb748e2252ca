//! What the client saw, counted: per arm how many requests, how many right answers, how long they took.
//!
//! These are the client's own figures. What the proxy believes of its arms is asked of the proxy.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::reviews::Domain;

/// What became of one request.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Index of the review that was sent.
    pub item: usize,
    /// What kind of review it is.
    pub domain: Domain,
    /// The review's true stars.
    pub stars: u8,
    /// From when the request was due to when its answer was read.
    pub latency: Duration,
    /// The answer, or why there is none.
    pub answer: Result<Answered, String>,
}

/// A prediction that came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// Which arm answered.
    pub arm: String,
    /// The predicted stars.
    pub predicted: u8,
    /// The proxy's name for its decision.
    pub decision_id: String,
}

/// Counts of one arm.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ArmTally {
    /// Requests that the arm answered.
    pub requests: u64,
    /// Answers that were the true stars.
    pub correct: u64,
    latencies: Latencies,
}

impl ArmTally {
    /// The share of right answers; `None` before the first answer.
    pub fn accuracy(&self) -> Option<f64> {
        (self.requests > 0).then(|| self.correct as f64 / self.requests as f64)
    }

    /// The latency that a share `quantile` of the requests stayed within, in milliseconds.
    pub fn latency(&self, quantile: f64) -> Option<f64> {
        self.latencies.quantile(quantile)
    }
}

/// Counts of all requests.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tally {
    /// By arm name.
    pub arms: BTreeMap<String, ArmTally>,
    /// Requests without an answer.
    pub failed: u64,
    /// Why the last one has none.
    pub last_failure: Option<String>,
    latencies: Latencies,
}

impl Tally {
    /// Counts one more request.
    pub fn add(&mut self, outcome: &Outcome) {
        match &outcome.answer {
            Ok(answered) => {
                let arm = self.arms.entry(answered.arm.clone()).or_default();
                arm.requests += 1;
                arm.correct += u64::from(answered.predicted == outcome.stars);
                arm.latencies.add(outcome.latency);
                self.latencies.add(outcome.latency);
            }
            Err(reason) => {
                self.failed += 1;
                self.last_failure = Some(reason.clone());
            }
        }
    }

    /// Requests that were answered.
    pub fn answered(&self) -> u64 {
        self.arms.values().map(|arm| arm.requests).sum()
    }

    /// The share of right answers; `None` before the first answer.
    pub fn accuracy(&self) -> Option<f64> {
        let correct: u64 = self.arms.values().map(|arm| arm.correct).sum();
        (self.answered() > 0).then(|| correct as f64 / self.answered() as f64)
    }

    /// The latency that a share `quantile` of all requests stayed within, in milliseconds.
    pub fn latency(&self, quantile: f64) -> Option<f64> {
        self.latencies.quantile(quantile)
    }
}

/// Ratio of two neighbouring buckets: a quantile is off by at most half of this.
const BUCKET_RATIO: f64 = 1.02;

/// Latencies in buckets of growing width, so that days of traffic take no more room than minutes.
#[derive(Debug, Clone, Default, PartialEq)]
struct Latencies {
    /// Bucket number (logarithm of the milliseconds) to count.
    buckets: BTreeMap<i32, u64>,
    count: u64,
}

impl Latencies {
    fn add(&mut self, latency: Duration) {
        let milliseconds = (latency.as_secs_f64() * 1e3).max(0.001);
        *self
            .buckets
            .entry(milliseconds.log(BUCKET_RATIO).round() as i32)
            .or_default() += 1;
        self.count += 1;
    }

    fn quantile(&self, quantile: f64) -> Option<f64> {
        let rank = ((self.count as f64 * quantile).ceil() as u64).max(1);
        let mut passed = 0;
        self.buckets.iter().find_map(|(bucket, count)| {
            passed += count;
            (passed >= rank).then(|| BUCKET_RATIO.powi(*bucket))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(arm: &str, predicted: u8, milliseconds: u64) -> Outcome {
        Outcome {
            item: 0,
            domain: Domain::Clothing,
            stars: 5,
            latency: Duration::from_millis(milliseconds),
            answer: Ok(Answered {
                arm: arm.to_owned(),
                predicted,
                decision_id: "d".to_owned(),
            }),
        }
    }

    #[test]
    fn answers_are_counted_by_arm() {
        let mut tally = Tally::default();
        assert_eq!(tally.accuracy(), None);
        tally.add(&outcome("a", 5, 1));
        tally.add(&outcome("a", 4, 1));
        tally.add(&outcome("b", 5, 1));
        tally.add(&Outcome {
            answer: Err("HTTP 502".to_owned()),
            ..outcome("b", 5, 1)
        });
        assert_eq!(tally.arms["a"].accuracy(), Some(0.5));
        assert_eq!(tally.accuracy(), Some(2.0 / 3.0));
        assert_eq!((tally.answered(), tally.failed), (3, 1));
        assert_eq!(tally.last_failure.as_deref(), Some("HTTP 502"));
    }

    #[test]
    fn quantiles_are_within_a_bucket() {
        let mut tally = Tally::default();
        assert_eq!(tally.latency(0.5), None);
        for milliseconds in 1..=1000 {
            tally.add(&outcome("a", 5, milliseconds));
        }
        for (quantile, expected) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let found = tally.latency(quantile).unwrap();
            assert!(
                (found / expected - 1.0).abs() < 0.011,
                "{quantile}: {found}"
            );
        }
    }
}
