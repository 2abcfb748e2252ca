//! What an operator has ordered: experiments that are paused, arms that are taken out, arms that begin anew.
//!
//! Orders are journalled and folded like everything else, so they outlast the process. What they mean for the allocation is said
//! where allocations are made. An arm that begins anew has no past: what it has earned in the epoch is dropped, and decisions made
//! until then are as those of an old epoch. Not here: who may give orders.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::fold::State;
use super::history::History;
use crate::clock::Timestamp;
use crate::experiment::decision::Decision;
use crate::experiment::id::{ArmId, ExperimentId};

/// Longest reason of an order, in bytes.
pub const MAX_REASON_BYTES: usize = 200;

/// An operator's order, as the journal holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct Ordered {
    /// When it took effect.
    pub at: Timestamp,
    /// The experiment that it is about.
    pub experiment: ExperimentId,
    /// What was ordered.
    pub order: Order,
    /// Why, in the operator's words.
    pub reason: Option<Box<str>>,
}

/// What may be ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Every request gets the baseline, and nothing is learned from it.
    Pause,
    /// Arms are drawn again.
    Resume,
    /// The arm is no longer drawn.
    Disable(ArmId),
    /// The arm is drawn again.
    Enable(ArmId),
    /// The arm begins anew.
    Reset(ArmId),
}

impl Order {
    /// The word in the journal and in the admin API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Disable(_) => "disable",
            Self::Enable(_) => "enable",
            Self::Reset(_) => "reset",
        }
    }

    /// The order with this word; those about an arm need one.
    pub fn from_word(word: &str, arm: Option<ArmId>) -> Option<Self> {
        match (word, arm) {
            ("pause", None) => Some(Self::Pause),
            ("resume", None) => Some(Self::Resume),
            ("disable", Some(arm)) => Some(Self::Disable(arm)),
            ("enable", Some(arm)) => Some(Self::Enable(arm)),
            ("reset", Some(arm)) => Some(Self::Reset(arm)),
            _ => None,
        }
    }

    /// The arm that it is about.
    pub const fn arm(self) -> Option<ArmId> {
        match self {
            Self::Pause | Self::Resume => None,
            Self::Disable(arm) | Self::Enable(arm) | Self::Reset(arm) => Some(arm),
        }
    }
}

/// The orders that hold for an experiment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orders {
    /// Whether every request gets the baseline.
    pub paused: bool,
    /// The arms that are not drawn.
    pub disabled: BTreeSet<ArmId>,
    /// The arms that have begun anew in this epoch, and when.
    resets: BTreeMap<ArmId, Timestamp>,
}

impl Orders {
    /// Whether these say anything else of the arms than those do.
    pub fn say_other_of_arms(&self, those: &Self) -> bool {
        self.disabled != those.disabled || self.resets != those.resets
    }

    /// What holds in the next epoch, in which every arm begins anew.
    pub(super) fn of_next_epoch(&mut self) -> Self {
        Self {
            resets: BTreeMap::new(),
            ..std::mem::take(self)
        }
    }

    /// Whether the decision's arm has begun anew since it was made.
    pub(super) fn have_reset(&self, decision: &Decision) -> bool {
        let reset = self.resets.get(&decision.arm);
        reset.is_some_and(|at| decision.at <= *at)
    }

    /// Whether the order would change anything.
    fn is_news(&self, order: Order) -> bool {
        match order {
            Order::Pause => !self.paused,
            Order::Resume => self.paused,
            Order::Disable(arm) => !self.disabled.contains(&arm),
            Order::Enable(arm) => self.disabled.contains(&arm),
            Order::Reset(_) => true,
        }
    }
}

impl History {
    /// Takes an order.
    fn ordered(&mut self, order: Order, at: Timestamp) {
        match order {
            Order::Pause => self.orders.paused = true,
            Order::Resume => self.orders.paused = false,
            Order::Disable(arm) => {
                self.orders.disabled.insert(arm);
            }
            Order::Enable(arm) => {
                self.orders.disabled.remove(&arm);
            }
            Order::Reset(arm) => {
                // A clock that has stepped back does not give back what was dropped.
                let until = self.orders.resets.entry(arm).or_default();
                *until = at.max(*until);
                let until = *until;
                self.forget_arm(arm, until);
            }
        }
    }
}

impl State {
    /// Whether an order would change anything. An experiment that the journal does not know takes none.
    pub fn is_news(&self, experiment: ExperimentId, order: Order) -> bool {
        let history = self.experiments.get(&experiment);
        history.is_some_and(|history| history.orders.is_news(order))
    }

    /// Takes an order that the journal holds.
    pub(super) fn ordered(&mut self, ordered: &Ordered) {
        if let Some(history) = self.experiments.get_mut(&ordered.experiment) {
            history.ordered(ordered.order, ordered.at);
            self.note_changed(ordered.experiment);
        }
    }
}
