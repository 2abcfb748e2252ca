//! The policy files of a simulated life: every aggregate, defaults, failures, labels and contexts.

use super::super::refold::{ALL, Keeping, rule};
use super::random::Random;
use super::*;

/// How many kinds there are.
pub(super) const KINDS: usize = 5;

const MINUTE: u64 = 60_000;

/// A policy file and what it was made from.
#[derive(Debug, Clone)]
pub(super) struct File {
    pub(super) kind: usize,
    /// How often it was written.
    edition: u64,
    window: u64,
    declared_epoch: u16,
    /// Whether it lies in the folder.
    pub(super) there: bool,
    pub(super) experiment: Arc<Experiment>,
}

impl File {
    pub(super) fn new(kind: usize) -> Self {
        let window = [MINUTE, 10 * MINUTE, 60 * MINUTE, MINUTE, 30 * MINUTE][kind];
        let mut file = Self {
            kind,
            edition: 0,
            window,
            declared_epoch: 0,
            there: true,
            experiment: Arc::new(experiment("none", "", &["a"])),
        };
        file.write();
        file
    }

    /// Edits the file: a new epoch, another window if `windows` may change, or away with it and back again.
    pub(super) fn edit(&mut self, random: &mut Random, windows: bool) {
        if self.there {
            match random.below(4) {
                0 => self.declared_epoch += 1,
                1 => self.there = false,
                _ if windows => self.window = [MINUTE, 10 * MINUTE][random.index(2)],
                _ => {}
            }
        } else {
            self.there = true;
        }
        self.write();
    }

    fn write(&mut self) {
        self.edition += 1;
        let called = ["clicks", "revenue", "price", "length", "stars"][self.kind];
        let text = format!("edition {}", self.edition);
        let mut experiment = experiment(called, &text, &["a", "b"]);
        experiment.declared_epoch = self.declared_epoch;
        let reward = &mut experiment.reward;
        reward.window = self.window;
        match self.kind {
            0 => reward.default = Some(0.0),
            1 => {
                (reward.kind, reward.aggregate) = (RewardKind::Real, Aggregate::Sum);
                (reward.default, reward.on_failure) = (Some(0.25), Some(-1.0));
                reward.learn = Learn::Close;
            }
            2 => {
                let kind = RewardKind::Bounded {
                    min: -2.0,
                    max: 6.0,
                };
                (reward.kind, reward.aggregate) = (kind, Aggregate::Mean);
                reward.on_failure = Some(-1.0);
            }
            3 => {
                (reward.kind, reward.aggregate) = (RewardKind::Real, Aggregate::Last);
                (reward.default, reward.learn) = (Some(0.5), Learn::Close);
                experiment.context = Some(Arc::new(rule()));
                experiment.policy = Arc::new(Keeping(ALL));
            }
            _ => {
                reward.aggregate = Aggregate::Max;
                experiment.label = Some(LabelRule {
                    prediction: "/stars".to_owned(),
                    compare: Compare::Equals,
                });
            }
        }
        self.experiment = Arc::new(experiment);
    }
}
