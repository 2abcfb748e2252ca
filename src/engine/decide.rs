//! One draw, in one place.

use super::contextual::Workspace;
use super::snapshot::Serving;
use crate::chance::DrawKeys;
use crate::experiment::decision::Reason;
use crate::experiment::id::{ArmId, SequenceKey, UnitHash};

/// What was drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Draw {
    /// Index of the arm in the experiment.
    pub arm: usize,
    /// The probability with which it was drawn; 1 when nothing was drawn.
    pub propensity: f64,
    /// Why this arm.
    pub reason: Reason,
}

/// Draws an arm from the allocation: by the unit's rendezvous hash when there is a unit, else by the decision's uniform number.
///
/// Where the allocation depends on the context, `workspace.features` is that of the request, and what was drawn from is left in
/// `workspace.probabilities`. Allocates no memory once the workspace has grown. The propensity of a sticky draw is marginal over the hash.
pub fn decide(
    serving: &Serving,
    unit: Option<UnitHash>,
    sequence: SequenceKey,
    keys: &DrawKeys,
    workspace: &mut Workspace,
) -> Draw {
    let baseline = |reason| Draw {
        arm: serving.experiment.baseline,
        propensity: 1.0,
        reason,
    };
    if serving.paused {
        return baseline(Reason::Paused);
    }
    let probabilities = match &serving.allocation.contextual {
        Some(contextual) => {
            contextual.allocate(workspace);
            &workspace.probabilities
        }
        None => &serving.allocation.probabilities,
    };
    let arms = serving.experiment.arms.iter().map(|arm| arm.id);
    match draw_from(probabilities, arms, unit, sequence, keys) {
        Some((arm, propensity)) => Draw {
            arm,
            propensity,
            reason: Reason::Sampled,
        },
        None => baseline(Reason::Fallback),
    }
}

/// The draw itself, for requests and for those who make a journalled draw again: the index of the arm, and its propensity.
///
/// `probabilities` and `arms` are in the experiment's order of arms; arms of probability 0 may be left out of both, without any other result.
/// `None` when every probability is 0.
pub fn draw_from(
    probabilities: &[f64],
    arms: impl Iterator<Item = ArmId>,
    unit: Option<UnitHash>,
    sequence: SequenceKey,
    keys: &DrawKeys,
) -> Option<(usize, f64)> {
    let arm = match unit {
        Some(unit) => keys.rendezvous(unit, arms.zip(probabilities.iter().copied())),
        None => invert(probabilities, keys.uniform(sequence)),
    }?;
    Some((arm, probabilities[arm].min(1.0)))
}

/// The arm in whose stretch of [0, 1) `uniform` falls. Rounding can leave the sum a hair below 1; the last arm with
/// positive probability takes what is left. `None` when every probability is 0.
fn invert(probabilities: &[f64], uniform: f64) -> Option<usize> {
    let mut rest = uniform;
    let mut last = None;
    for (index, probability) in probabilities.iter().enumerate() {
        if *probability > 0.0 {
            if rest < *probability {
                return Some(index);
            }
            last = Some(index);
        }
        rest -= probability;
    }
    last
}

#[cfg(test)]
mod tests;
