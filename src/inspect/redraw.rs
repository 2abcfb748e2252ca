//! Makes a journalled draw again, from what the journal says it was drawn from.

use super::find::Evidence;
use crate::chance::DrawKeys;
use crate::engine::decide::draw_from;
use crate::engine::event::PolicyAdopted;
use crate::experiment::decision::{LoggedDecision, Reason};
use crate::experiment::id::{ArmId, UnitHash};

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Redraw {
    /// There was no draw: the decision has another reason, or is not in the journal.
    NotDrawn,
    /// What it was drawn from is not in the journal.
    Impossible,
    /// It was made again.
    Drawn {
        /// Where the probabilities are.
        source: Source,
        /// In the experiment's order of arms.
        probabilities: Vec<(ArmId, f64)>,
        /// What decided.
        chance: Chance,
        /// The arm and its propensity; `None` if every arm has probability 0.
        drawn: Option<(ArmId, f64)>,
    },
}

/// Where a decision's probabilities are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// In the `allocation` record that it names.
    Allocation,
    /// In its own record, because they depend on its context.
    Context,
    /// In its own record, because an arm that the allocation draws was not available.
    Remaining,
}

impl Source {
    /// The word in the report.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allocation => "allocation",
            Self::Context => "context",
            Self::Remaining => "remaining",
        }
    }
}

/// What decides a draw.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Chance {
    /// The uniform number in [0, 1) of the decision's sequence key.
    Uniform(f64),
    /// The rendezvous hashes of this unit and each arm.
    Unit(UnitHash),
}

/// Draws again.
pub(super) fn again(evidence: &Evidence, keys: &DrawKeys) -> Redraw {
    let Some(record) = evidence
        .record
        .as_ref()
        .filter(|record| record.decision.reason == Reason::Sampled)
    else {
        return Redraw::NotDrawn;
    };
    let Some((source, probabilities)) = drawn_from(record, evidence) else {
        return Redraw::Impossible;
    };
    let sequence = record.decision.sequence;
    let numbers: Vec<f64> = probabilities.iter().map(|(_, number)| *number).collect();
    let arms = probabilities.iter().map(|(arm, _)| *arm);
    let drawn = draw_from(&numbers, arms, record.unit, sequence, keys);
    Redraw::Drawn {
        source,
        drawn: drawn.map(|(index, propensity)| (probabilities[index].0, propensity)),
        probabilities,
        chance: record
            .unit
            .map_or_else(|| Chance::Uniform(keys.uniform(sequence)), Chance::Unit),
    }
}

/// What a decision was drawn from, in the experiment's order of arms.
fn drawn_from(record: &LoggedDecision, evidence: &Evidence) -> Option<(Source, Vec<(ArmId, f64)>)> {
    if let Some(logged) = &record.context
        && !logged.probabilities.is_empty()
    {
        let source = match logged.found() {
            Some(_) => Source::Context,
            None => Source::Remaining,
        };
        return Some((source, logged.probabilities.clone()));
    }
    let allocation = evidence.allocation.as_ref()?;
    // An allocation may be older than the policy file that draws from it, and have the arms in another order.
    let in_order = |policy: &PolicyAdopted| {
        let probability = |arm: ArmId| {
            let found = allocation.probabilities.iter().find(|(id, _)| *id == arm);
            found.map_or(0.0, |(_, probability)| *probability)
        };
        policy
            .arms
            .iter()
            .map(|(arm, ..)| (*arm, probability(*arm)))
            .collect()
    };
    let probabilities = evidence
        .policy
        .as_ref()
        .map_or_else(|| allocation.probabilities.clone(), in_order);
    Some((Source::Allocation, probabilities))
}
