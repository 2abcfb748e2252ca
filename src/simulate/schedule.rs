//! When a new allocation is published.
//!
//! Live, the learner publishes within milliseconds of a reward. Between two decisions of a busy experiment hardly anything
//! changes, so by default the simulation publishes in every round only while there are fewer than a thousand credited decisions, and then
//! whenever some arm has grown by 1 %. Not here: computing the allocation (`trial`).

/// Until so many decisions are credited, every round publishes.
const FEW: u64 = 1_000;

/// When a new allocation is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publish {
    /// Whenever some arm's count has grown by 1 %, and every round below a thousand credited decisions; with a half-life or a
    /// sliding window also after a hundredth of that.
    ByGrowth,
    /// Every so many rounds.
    Every(u64),
}

/// What has changed since the last publication.
#[derive(Debug, Clone)]
pub(super) struct Schedule {
    publish: Publish,
    credited: u64,
    /// Of each arm: decisions and credited decisions.
    counts: Vec<[u64; 2]>,
    /// Of each arm: the counts at which it has grown by 1 %.
    next: Vec<[u64; 2]>,
    grown: bool,
    /// A publication holds for so many rounds at most.
    refresh: Option<u64>,
    last: u64,
}

const DECIDED: usize = 0;
const CREDITED: usize = 1;

impl Schedule {
    pub(super) fn new(publish: Publish, arms: usize, refresh: Option<u64>) -> Self {
        Self {
            publish,
            credited: 0,
            counts: vec![[0; 2]; arms],
            next: vec![[1; 2]; arms],
            grown: true,
            refresh,
            last: 0,
        }
    }

    /// Notes a decision for `arm`.
    pub(super) fn decided(&mut self, arm: usize) {
        self.count(arm, DECIDED, 1);
    }

    /// Notes that the posterior of `arm` has learned from one more decision.
    pub(super) fn credited(&mut self, arm: usize) {
        self.credited += 1;
        self.count(arm, CREDITED, 1);
    }

    /// Takes over how many decisions each arm has learned from.
    pub(super) fn recount(&mut self, credited: impl Iterator<Item = u64>) {
        for (arm, now) in credited.enumerate() {
            let more = now.saturating_sub(self.counts[arm][CREDITED]);
            self.credited += more;
            self.count(arm, CREDITED, more);
        }
    }

    fn count(&mut self, arm: usize, which: usize, more: u64) {
        self.counts[arm][which] += more;
        self.grown |= self.counts[arm][which] >= self.next[arm][which];
    }

    /// Whether to publish before the decision of `round`; if so, growth is counted from now on.
    pub(super) fn is_due(&mut self, round: u64) -> bool {
        let due = match self.publish {
            Publish::Every(rounds) => round.is_multiple_of(rounds),
            Publish::ByGrowth => {
                let aged = self
                    .refresh
                    .is_some_and(|rounds| round - self.last >= rounds);
                self.grown || aged || self.credited < FEW
            }
        };
        if due {
            self.last = round;
            self.grown = false;
            for (next, counts) in self.next.iter_mut().zip(&self.counts) {
                *next = counts.map(|count| count + count.div_ceil(100).max(1));
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_thousand_credits_publish_every_round_and_then_growth_by_a_hundredth() {
        let mut schedule = Schedule::new(Publish::ByGrowth, 2, None);
        let mut published = Vec::new();
        for round in 0..3_000 {
            if schedule.is_due(round) {
                published.push(round);
            }
            let arm = (round % 2) as usize;
            schedule.decided(arm);
            schedule.credited(arm);
        }
        assert!(published.iter().take(1_000).copied().eq(0..1_000));
        // 499 have grown by 1 % when they are 504, 504 when they are 510, and 509 when they are 515.
        assert_eq!(published[1_000..1_003], [1_008, 1_019, 1_030]);
        assert!(published.len() < 1_130, "{}", published.len());
    }

    #[test]
    fn an_arm_that_is_rarely_drawn_counts_by_its_own_size() {
        let mut schedule = Schedule::new(Publish::ByGrowth, 2, None);
        for _ in 0..5_000 {
            schedule.credited(0);
        }
        schedule.credited(1);
        assert!(schedule.is_due(1));
        assert!(!schedule.is_due(2));
        schedule.credited(1);
        assert!(schedule.is_due(3));
    }

    #[test]
    fn an_allocation_that_ages_is_published_in_time() {
        let mut schedule = Schedule::new(Publish::ByGrowth, 1, Some(7));
        for _ in 0..5_000 {
            schedule.credited(0);
        }
        let due: Vec<u64> = (0..20).filter(|round| schedule.is_due(*round)).collect();
        assert_eq!(due, [0, 7, 14]);
    }

    #[test]
    fn every_n_rounds_means_that() {
        let mut schedule = Schedule::new(Publish::Every(3), 1, None);
        let due: Vec<u64> = (0..8).filter(|round| schedule.is_due(*round)).collect();
        assert_eq!(due, [0, 3, 6]);
    }
}
