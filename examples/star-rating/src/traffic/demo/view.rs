//! What the demo shows: the client's counts, the proxy's beliefs, and what happened on the way.

use std::time::Duration;

use pointsman::experiment::reward::RewardKind;
use pointsman::stats::sequence;

use crate::reviews::Domain;
use crate::traffic::admin::Experiment;
use crate::traffic::recent::Recent;
use crate::traffic::standing::{Counterfactual, Standing};
use crate::traffic::tally::{Outcome, Tally};

/// The error rate of the confidence sequences.
const ALPHA: f64 = 0.05;

/// Under a policy that looks at the review, shares are counted over this many last requests.
const RECENT: usize = 500;

/// Something that happened, with its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Since the traffic started.
    pub at: Duration,
    /// What happened.
    pub text: String,
    /// Whether it is out of the ordinary.
    pub warning: bool,
}

/// One arm with its history.
#[derive(Debug, Clone, PartialEq)]
pub struct ArmView {
    /// The arm's name.
    pub name: String,
    /// Its share of the traffic at each look.
    pub shares: Vec<f64>,
}

/// Everything that is shown.
#[derive(Debug, Clone)]
pub struct View {
    /// In the order of the policy file.
    pub arms: Vec<ArmView>,
    /// The proxy's last answer.
    pub experiment: Option<Experiment>,
    /// What the client saw.
    pub tally: Tally,
    /// What every arm would have earned.
    pub counterfactual: Counterfactual,
    /// Who got the last requests; only under a policy that looks at the review.
    recent: Option<Recent>,
    /// What happened, oldest first.
    pub events: Vec<Event>,
    /// Since the traffic started.
    pub elapsed: Duration,
    /// When it ends, if by time.
    pub planned: Option<Duration>,
    /// How many requests will be sent, if that is known.
    pub requests: Option<u64>,
    /// Policy files taken while running.
    pub reloads: u32,
    /// How often the proxy had to be started again.
    pub restarts: u32,
}

impl View {
    /// Before the first request. `contextual`: the policy looks at the review.
    pub fn new(
        arms: &[String],
        contextual: bool,
        counterfactual: Counterfactual,
        planned: Option<Duration>,
        requests: Option<u64>,
    ) -> Self {
        Self {
            arms: arms
                .iter()
                .map(|name| ArmView {
                    name: name.clone(),
                    shares: Vec::new(),
                })
                .collect(),
            experiment: None,
            tally: Tally::default(),
            counterfactual,
            recent: contextual.then(|| Recent::new(arms, RECENT)),
            events: Vec::new(),
            elapsed: Duration::ZERO,
            planned,
            requests,
            reloads: 0,
            restarts: 0,
        }
    }

    /// One more request has ended.
    pub fn add(&mut self, outcome: &Outcome) {
        self.tally.add(outcome);
        self.counterfactual.add(outcome);
        if let Some(recent) = &mut self.recent {
            recent.add(outcome);
        }
    }

    /// The proxy has told what it believes. Of a policy that looks at the review it tells the allocation of an average one, which none is: then
    /// shares are what was sent.
    pub fn look(&mut self, experiment: Experiment) {
        let sent = self.recent.as_ref().and_then(|recent| recent.shares(None));
        for (place, view) in self.arms.iter_mut().enumerate() {
            if let Some(arm) = experiment.arm(&view.name) {
                let sent = sent.as_ref().and_then(|shares| shares.get(place));
                view.shares.push(sent.copied().unwrap_or(arm.allocation));
            }
        }
        self.experiment = Some(experiment);
    }

    /// Each arm's share of the last requests by category; `None` under a policy that does not look at the review.
    pub fn shares_by_category(&self) -> Option<Vec<(Domain, Vec<f64>)>> {
        let recent = self.recent.as_ref()?;
        let of_category = |domain| Some((domain, recent.shares(Some(domain))?));
        Some(Domain::ALL.into_iter().filter_map(of_category).collect())
    }

    /// How much of the traffic is behind us, in `[0, 1]`.
    pub fn progress(&self) -> f64 {
        let by_time = self
            .planned
            .map(|planned| self.elapsed.as_secs_f64() / planned.as_secs_f64());
        let sent = self.tally.answered() + self.tally.failed;
        let by_count = self.requests.map(|requests| sent as f64 / requests as f64);
        by_time.unwrap_or(0.0).max(by_count.unwrap_or(0.0)).min(1.0)
    }

    /// The accuracy earned, beside its yardsticks.
    pub fn standing(&self) -> Option<Standing> {
        Standing::of(&self.tally, &self.counterfactual)
    }

    /// Mean reward of an arm with its 95 % confidence sequence; `None` before its first reward.
    pub fn reward_rate(&self, arm: &str) -> Option<(f64, f64, f64)> {
        let arm = self.experiment.as_ref()?.arm(arm)?;
        if arm.rewards == 0 {
            return None;
        }
        let (low, high) =
            sequence::interval(RewardKind::Binary, arm.rewards, arm.reward_sum, ALPHA)?;
        Some((arm.reward_sum / arm.rewards as f64, low, high))
    }
}
