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

/// A draw among the arms that are available.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AmongDraw {
    /// What was drawn.
    pub draw: Draw,
    /// Whether it was drawn from `workspace.probabilities`, which the journal then has to hold with the decision
    /// ([`own_probabilities`]), and not from the probabilities of the allocation that it names.
    pub own: bool,
}

/// As [`decide`], among the arms that are `available` at this moment (by index): for the time from the loss of an arm's last endpoint
/// until the learner has published an allocation without it.
///
/// The arms that are left keep the proportions of the allocation. Once it draws no arm that is not available, this is what
/// [`decide`] draws. When no arm is left the baseline serves as fallback. Allocates no memory once the workspace has grown.
#[cold]
pub fn decide_among(
    serving: &Serving,
    unit: Option<UnitHash>,
    sequence: SequenceKey,
    keys: &DrawKeys,
    workspace: &mut Workspace,
    available: &dyn Fn(usize) -> bool,
) -> AmongDraw {
    let baseline = |reason| AmongDraw {
        draw: Draw {
            arm: serving.experiment.baseline,
            propensity: 1.0,
            reason,
        },
        own: false,
    };
    if serving.paused {
        return baseline(Reason::Paused);
    }
    let contextual = serving.allocation.contextual.as_ref();
    if let Some(contextual) = contextual {
        contextual.allocate(workspace);
    } else {
        let allocated = &serving.allocation.probabilities;
        workspace.probabilities.clone_from(allocated);
    }
    let probabilities = &mut workspace.probabilities;
    let mut missing = false;
    for (index, probability) in probabilities.iter_mut().enumerate() {
        if *probability > 0.0 && !available(index) {
            *probability = 0.0;
            missing = true;
        }
    }
    if missing {
        renormalise(probabilities);
    }
    let arms = serving.experiment.arms.iter().map(|arm| arm.id);
    match draw_from(probabilities, arms, unit, sequence, keys) {
        Some((arm, propensity)) => AmongDraw {
            draw: Draw {
                arm,
                propensity,
                reason: Reason::Sampled,
            },
            own: missing || contextual.is_some(),
        },
        None => baseline(Reason::Fallback),
    }
}

/// What was drawn from as the journal holds it with a decision: what the draw left in `workspace.probabilities`, without the arms that
/// could not be drawn.
pub fn own_probabilities(serving: &Serving, workspace: &Workspace) -> Vec<(ArmId, f64)> {
    let arms = serving.experiment.arms.iter().map(|arm| arm.id);
    arms.zip(workspace.probabilities.iter().copied())
        .filter(|(_, probability)| *probability > 0.0)
        .collect()
}

/// Whether `own` is, bit for bit, what is drawn from when only its arms are left of an allocation.
pub fn is_remainder(own: &[(ArmId, f64)], allocation: &[(ArmId, f64)]) -> bool {
    let allocated = |(arm, _): &(ArmId, f64)| {
        let found = allocation.iter().find(|(other, _)| other == arm);
        found.map_or(0.0, |(_, probability)| *probability)
    };
    let mut left: Vec<f64> = own.iter().map(allocated).collect();
    renormalise(&mut left);
    let mut pairs = own.iter().zip(&left);
    pairs.all(|((_, own), left)| own.to_bits() == left.to_bits())
}

/// Divides by the sum. Arms of probability 0 change nothing, to the last bit.
fn renormalise(probabilities: &mut [f64]) {
    let sum: f64 = probabilities.iter().sum();
    if sum > 0.0 {
        for probability in probabilities {
            *probability /= sum;
        }
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
