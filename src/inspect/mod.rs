//! Checks one decision after the fact: is the id genuine, what does the journal say of it, and does the draw, made again, give the same arm
//! with the same propensity?
//!
//! [`inspect`] only reads, so it works on the journal of a running process; `text` and `json` show what it found. Not here: files,
//! terminals and exit codes (`cli`), and the draw itself ([`crate::engine::decide`]), which is the one that requests go through.

mod find;
mod json;
mod redraw;
mod text;

use crate::clock::Timestamp;
use crate::decision_id::{InvalidDecisionId, Keys, decode_unverified};
use crate::engine::decide::is_remainder;
use crate::experiment::decision::{Decision, Reason};
use crate::experiment::id::{ArmId, ExperimentId};
use crate::journal::{RecoveryError, Storage};
use crate::secret::Secret;

pub use find::{Allocation, Evidence, Step};
pub use json::to_json;
pub use redraw::{Chance, Redraw, Source};
pub use text::render;

/// Whether the id was made under the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signature {
    /// By a key of the secret file.
    Valid,
    /// It names a key of the secret file, and its MAC does not fit.
    Forged,
    /// It names a key that is not in the secret file.
    UnknownKey,
}

impl Signature {
    /// The word in the report.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Forged => "forged",
            Self::UnknownKey => "unknown_key",
        }
    }
}

/// Something that does not hold. With none, the decision is as it should be.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Problem {
    /// The signature does not fit.
    #[error(
        "the id is forged or was changed: its signature does not fit, so its fields prove nothing"
    )]
    Forged,
    /// Signed with a key that is not in the secret file.
    #[error(
        "the id was signed with a key that is not in the secret file: one that was taken out, or another installation's"
    )]
    UnknownKey,
    /// The journal does not have the decision.
    #[error("{}", not_in_journal(*.started, *.damaged))]
    NotInJournal {
        /// When the process that made it started, if the journal has that.
        started: Option<Timestamp>,
        /// Whether groups of the journal are damaged or missing.
        damaged: bool,
    },
    /// The journal has another decision under the same sequence key.
    #[error("the id and the journal differ in {}", .fields.join(", "))]
    RecordDiffers {
        /// What differs.
        fields: Vec<&'static str>,
    },
    /// There is nothing to draw from.
    #[error(
        "allocation {version} of the experiment is not in the journal, so the draw cannot be made again: its segment has been deleted, or it is damaged"
    )]
    NoAllocation {
        /// The allocation that the record names.
        version: u64,
    },
    /// The draw, made again, gives another arm.
    #[error(
        "the journal says {logged}, the draw gives {drawn}: the journal was changed, or the `units` line of the secret file is not the one that was drawn with"
    )]
    ArmDiffers {
        /// Name of the arm in the journal.
        logged: String,
        /// Name of the arm that was drawn again.
        drawn: String,
    },
    /// The draw, made again, gives the arm with another probability.
    #[error(
        "the journal says that the propensity was {logged:?}, the draw gives {drawn:?}: the journal was changed"
    )]
    PropensityDiffers {
        /// In the journal.
        logged: f64,
        /// Of the draw made again.
        drawn: f64,
    },
    /// It was drawn from what is left of an allocation without some arms, and that is not what is left.
    #[error(
        "the probabilities in its record are not those of allocation {version} over the arms that were available: the journal was changed"
    )]
    NotRemaining {
        /// The allocation that the record names.
        version: u64,
    },
    /// The draw, made again, gives no arm.
    #[error(
        "the journal says that an arm was drawn, and every arm had probability 0: the journal was changed"
    )]
    NothingDrawn,
}

fn not_in_journal(started: Option<Timestamp>, damaged: bool) -> String {
    let why = match started {
        Some(started) => format!(
            "the process that made it started at {started}; the decision was dropped because the queue was full \
             (pointsman_journal_dropped_total), lost when that process ended before a commit, or not yet written (try again)"
        ),
        None => "neither is the start of the process that made it, so its segment has been deleted, or this is not \
                 its data directory"
            .to_owned(),
    };
    let damage = if damaged {
        "; or it was in a part of the journal that is damaged or missing"
    } else {
        ""
    };
    format!("the decision is not in the journal: {why}{damage}")
}

impl Problem {
    /// The word in the report.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Forged => "forged",
            Self::UnknownKey => "unknown_key",
            Self::NotInJournal { .. } => "not_in_journal",
            Self::RecordDiffers { .. } => "record_differs",
            Self::NoAllocation { .. } => "no_allocation",
            Self::ArmDiffers { .. } => "arm_differs",
            Self::PropensityDiffers { .. } => "propensity_differs",
            Self::NotRemaining { .. } => "not_remaining",
            Self::NothingDrawn => "nothing_drawn",
        }
    }
}

/// Why a decision cannot be inspected at all.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The text is no decision id.
    #[error("not a decision id: {0}")]
    Id(#[from] InvalidDecisionId),
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] RecoveryError),
}

/// All that was found out about a decision.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// The id as it was given.
    pub id: String,
    /// For the ids of other decisions, of which the journal gives only the fields.
    keys: Keys,
    /// Whether it is genuine.
    pub signature: Signature,
    /// What it says.
    pub decision: Decision,
    /// What the journal has of it.
    pub evidence: Evidence,
    /// The draw, made again.
    pub redraw: Redraw,
    /// What does not hold.
    pub problems: Vec<Problem>,
}

impl Inspection {
    /// The name of an arm of the decision's experiment, or its id where the journal does not name it.
    pub fn arm(&self, arm: ArmId) -> String {
        let name = self.evidence.directory.arm(self.decision.experiment, arm);
        name.map_or_else(|| format!("{:08x}", arm.0), ToString::to_string)
    }

    /// The experiment's name, or its id where the journal does not name it.
    pub fn experiment(&self) -> String {
        let ExperimentId(id) = self.decision.experiment;
        let name = self.evidence.directory.experiment(self.decision.experiment);
        name.map_or_else(|| format!("{id:08x}"), ToString::to_string)
    }

    /// Whether everything holds.
    pub fn holds(&self) -> bool {
        self.problems.is_empty()
    }

    /// With all its problems.
    fn judged(mut self) -> Self {
        self.judge_record();
        self.judge_draw();
        self
    }

    /// What the signature and the record have against the id.
    fn judge_record(&mut self) {
        match self.signature {
            Signature::Valid => {}
            Signature::Forged => self.problems.push(Problem::Forged),
            Signature::UnknownKey => self.problems.push(Problem::UnknownKey),
        }
        let Some(record) = &self.evidence.record else {
            let report = &self.evidence.report;
            self.problems.push(Problem::NotInJournal {
                started: self.evidence.started,
                damaged: !report.damaged.is_empty() || report.missing_groups > 0,
            });
            return;
        };
        let fields = differences(&self.decision, &record.decision);
        if !fields.is_empty() {
            self.problems.push(Problem::RecordDiffers { fields });
        }
    }

    /// What the draw, made again, has against the record.
    fn judge_draw(&mut self) {
        let Some(record) = &self.evidence.record else {
            return;
        };
        let logged = record.decision;
        if let (
            Redraw::Drawn {
                source: Source::Remaining,
                probabilities,
                ..
            },
            Some(allocation),
        ) = (&self.redraw, &self.evidence.allocation)
            && !is_remainder(probabilities, &allocation.probabilities)
        {
            let version = allocation.version;
            self.problems.push(Problem::NotRemaining { version });
        }
        match &self.redraw {
            Redraw::NotDrawn => {}
            Redraw::Impossible => self.problems.push(Problem::NoAllocation {
                version: record.allocation_version,
            }),
            Redraw::Drawn { drawn: None, .. } => self.problems.push(Problem::NothingDrawn),
            Redraw::Drawn {
                drawn: Some((arm, propensity)),
                ..
            } => {
                let (arm, propensity) = (*arm, *propensity);
                if arm != logged.arm {
                    let problem = Problem::ArmDiffers {
                        logged: self.arm(logged.arm),
                        drawn: self.arm(arm),
                    };
                    self.problems.push(problem);
                } else if propensity.to_bits() != logged.propensity.to_bits() {
                    self.problems.push(Problem::PropensityDiffers {
                        logged: logged.propensity,
                        drawn: propensity,
                    });
                }
            }
        }
    }
}

/// The fields in which two decisions differ.
fn differences(id: &Decision, record: &Decision) -> Vec<&'static str> {
    [
        ("experiment", id.experiment == record.experiment),
        ("arm", id.arm == record.arm),
        ("reason", id.reason == record.reason),
        ("epoch", id.epoch == record.epoch),
        ("policy version", id.policy_version == record.policy_version),
        (
            "propensity",
            id.propensity.to_bits() == record.propensity.to_bits(),
        ),
        ("time", id.at == record.at),
    ]
    .into_iter()
    .filter_map(|(field, equal)| (!equal).then_some(field))
    .collect()
}

/// Inspects the decision with this id in the journal on `storage`, with the keys of `secret`. Changes nothing. `progress` is told after each
/// segment of the journal, which is read at most twice.
///
/// # Errors
///
/// See [`InspectError`]. What does not hold is no error but in [`Inspection::problems`].
pub fn inspect<S: Storage>(
    id: &str,
    secret: &Secret,
    storage: &S,
    progress: &mut dyn FnMut(Step),
) -> Result<Inspection, InspectError> {
    let keys = secret.decision_keys();
    let (signature, decision) = match keys.decode(id) {
        Ok(decision) => (Signature::Valid, decision),
        Err(InvalidDecisionId::Forged) => (Signature::Forged, decode_unverified(id)?),
        Err(InvalidDecisionId::UnknownKey) => (Signature::UnknownKey, decode_unverified(id)?),
        Err(error) => return Err(error.into()),
    };
    let evidence = find::find(&decision, &keys, storage, progress)?;
    let redraw = redraw::again(&evidence, &secret.draw_keys());
    let inspection = Inspection {
        id: id.to_owned(),
        keys,
        signature,
        decision,
        evidence,
        redraw,
        problems: Vec::new(),
    };
    Ok(inspection.judged())
}

/// Why a decision for this reason was not drawn; `None` for one that was.
pub const fn why_not_drawn(reason: Reason, arm_failed: bool) -> Option<&'static str> {
    match reason {
        Reason::Sampled => None,
        Reason::Forced => Some("the request named the arm"),
        Reason::Holdout => Some("the unit is held out and always gets the baseline"),
        Reason::Paused => Some(
            "the experiment was paused, or its unit was missing and the policy file asks for the baseline",
        ),
        Reason::Fallback if arm_failed => Some("the drawn arm failed, and the baseline answered"),
        Reason::Fallback => Some("no arm could be drawn, and the baseline answered"),
    }
}

#[cfg(test)]
mod tests;
