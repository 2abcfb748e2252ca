//! Which arms the last requests went to, by kind of review.
//!
//! Under a policy that looks at requests there is no such thing as the share of an arm; this counts what it comes to.

use std::collections::VecDeque;

use super::tally::Outcome;
use crate::reviews::Domain;

/// The arms of the last answered requests.
#[derive(Debug, Clone)]
pub struct Recent {
    arms: Vec<String>,
    capacity: usize,
    /// Kind of review and place of the arm, oldest first.
    requests: VecDeque<(Domain, usize)>,
}

impl Recent {
    /// Remembers the last `capacity` requests that any of `arms` answered.
    pub fn new(arms: &[String], capacity: usize) -> Self {
        Self {
            arms: arms.to_vec(),
            capacity,
            requests: VecDeque::new(),
        }
    }

    /// Remembers one more request, if it was answered.
    pub fn add(&mut self, outcome: &Outcome) {
        let Ok(answered) = &outcome.answer else {
            return;
        };
        let Some(arm) = self.arms.iter().position(|arm| *arm == answered.arm) else {
            return;
        };
        self.requests.push_back((outcome.domain, arm));
        if self.requests.len() > self.capacity {
            self.requests.pop_front();
        }
    }

    /// Each arm's share of the requests of one kind, or of all; `None` if there were none.
    pub fn shares(&self, domain: Option<Domain>) -> Option<Vec<f64>> {
        let mut counts = vec![0_u64; self.arms.len()];
        for (_, arm) in self
            .requests
            .iter()
            .filter(|(kind, _)| domain.is_none_or(|domain| domain == *kind))
        {
            counts[*arm] += 1;
        }
        let total: u64 = counts.iter().sum();
        let share = |count| count as f64 / total as f64;
        (total > 0).then(|| counts.into_iter().map(share).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::traffic::tally::Answered;

    fn outcome(domain: Domain, arm: &str) -> Outcome {
        Outcome {
            item: 0,
            domain,
            stars: 5,
            latency: Duration::ZERO,
            answer: Ok(Answered {
                arm: arm.to_owned(),
                predicted: 5,
                decision_id: String::new(),
            }),
        }
    }

    #[test]
    fn only_the_last_answers_count_and_kinds_are_apart() {
        let mut recent = Recent::new(&["a".to_owned(), "b".to_owned()], 4);
        assert_eq!(recent.shares(None), None);
        recent.add(&outcome(Domain::Movies, "b"));
        for arm in ["a", "a", "a", "b"] {
            recent.add(&outcome(Domain::Clothing, arm));
        }
        recent.add(&Outcome {
            answer: Err("HTTP 502".to_owned()),
            ..outcome(Domain::Movies, "a")
        });
        assert_eq!(recent.shares(Some(Domain::Movies)), None);
        assert_eq!(
            recent.shares(Some(Domain::Clothing)),
            Some(vec![0.75, 0.25])
        );
        recent.add(&outcome(Domain::Movies, "b"));
        assert_eq!(recent.shares(None), Some(vec![0.5, 0.5]));
    }
}
