//! Scores of shadows, beside what the arms have earned. Part of [`History`]; answers and labels are remembered by `shadows`.

use std::sync::Arc;

use super::super::event::Rewarded;
use super::super::learned::Credit;
use super::super::shadows::{Rescored, Scoring};
use super::{History, change};
use crate::experiment::decision::{Decision, Ending, Shadowed};

impl History {
    /// Counts a shadow's answer, and scores its prediction if the label is there already.
    pub(in crate::engine) fn shadowed(&mut self, shadowed: &Shadowed, limit: usize) {
        let outcome = &shadowed.outcome;
        if outcome.ending != Ending::Answered {
            return;
        }
        let earned = self.arms.entry(shadowed.arm).or_default();
        earned.shadow.answers += 1;
        let (Some(label), Some(prediction)) = (&self.label, &outcome.prediction) else {
            return;
        };
        let (decision, arm) = (&outcome.decision, shadowed.arm);
        let scoring = Scoring {
            label,
            reward: &self.rule,
            limit,
        };
        let rescored = self.shadows.predicted(decision, arm, prediction, scoring);
        if let Some(rescored) = rescored {
            self.rescore(decision, rescored);
        }
    }

    /// Scores the shadows of a decision by its label; those that have not answered yet are scored when they do.
    pub(in crate::engine) fn labelled(&mut self, rewarded: &Rewarded, limit: usize) {
        let decision = &rewarded.decision;
        let (Some(rule), Some(label)) = (&self.label, &rewarded.label) else {
            return;
        };
        if !self.shadowing.contains_key(&decision.policy_version) {
            return;
        }
        let scoring = Scoring {
            label: rule,
            reward: &self.rule,
            limit,
        };
        for rescored in self.shadows.labelled(rewarded, label, scoring) {
            self.rescore(decision, rescored);
        }
    }

    /// Puts a shadow's score in place of the one before, exactly. It is learned where the decision's policy file said so.
    fn rescore(&mut self, decision: &Decision, rescored: Rescored) {
        let terms = self.shadowing.get(&decision.policy_version);
        let learn = terms.is_some_and(|terms| terms.learn);
        let (statistics, at) = (self.statistics, decision.at);
        let earned = self.arms.entry(rescored.arm).or_default();
        for (score, times) in [(rescored.before, -1), (rescored.after, 1)] {
            let Some(value) = score else { continue };
            change(&mut earned.shadow.scores, value, times);
            if !learn {
                continue;
            }
            change(&mut earned.learned, value, times);
            // Neither weighted by a propensity nor with a context: a shadow was not drawn.
            if !statistics.is_scalar() {
                let credit = Credit { at, value, times };
                Arc::make_mut(&mut earned.detail).credit(statistics.memory, credit);
            }
        }
    }
}
