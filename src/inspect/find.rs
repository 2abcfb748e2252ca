//! Looks for everything in the journal that concerns one decision. Lines are first looked at as bytes: of a journal of gigabytes only a few
//! are decoded.

use memchr::memmem::Finder;

use crate::clock::Timestamp;
use crate::decision_id::Keys;
use crate::engine::event::{Event, PolicyAdopted, Rewarded};
use crate::experiment::decision::{Decision, LoggedDecision, Outcome, Reason};
use crate::experiment::id::{ArmId, SequenceKey};
use crate::journal::{Directory, RecoveryError, Report, Search, Storage, search};

/// How far the search has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// What is being looked for.
    pub looking_for: &'static str,
    /// Segments read.
    pub done: u64,
    /// Segments there are.
    pub segments: u64,
}

/// An `allocation` record.
#[derive(Debug, Clone, PartialEq)]
pub struct Allocation {
    /// When.
    pub at: Timestamp,
    /// Its number within the experiment.
    pub version: u64,
    /// The probability of each arm, floor included.
    pub probabilities: Vec<(ArmId, f64)>,
}

/// What the journal has of a decision.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// When the process that made it started.
    pub started: Option<Timestamp>,
    /// The decision's own record.
    pub record: Option<LoggedDecision>,
    /// What became of the exchange.
    pub outcome: Option<Outcome>,
    /// All rewards that were judged for it, in the journal's order.
    pub rewards: Vec<Rewarded>,
    /// The fallback that answered in its place.
    pub answered_by: Option<Decision>,
    /// Of a fallback: the decision whose arm failed.
    pub instead_of: Option<Decision>,
    /// The policy file that was in force.
    pub policy: Option<PolicyAdopted>,
    /// The allocation that it names.
    pub allocation: Option<Allocation>,
    /// All names.
    pub directory: Directory,
    /// What the journal looked like.
    pub report: Report,
}

/// Looks for all of it. The allocation is known by its number only once the decision's record is found, so it takes a second look.
pub(super) fn find<S: Storage>(
    decision: &Decision,
    keys: &Keys,
    storage: &S,
    progress: &mut dyn FnMut(Step),
) -> Result<Evidence, RecoveryError> {
    let mut first = First {
        sequence: decision.sequence,
        policy_of: *decision,
        id: Finder::new(keys.encode(decision).sequence_part()).into_owned(),
        number: Finder::new(&sequence_digits(decision.sequence)).into_owned(),
        evidence: Evidence::default(),
        progress: &mut *progress,
    };
    let found = search(storage, &mut first)?;
    let mut evidence = first.evidence;
    evidence.directory = found.directory;
    evidence.report = found.report;
    let Some(record) = evidence.record.clone() else {
        return Ok(evidence);
    };
    let own = record.decision;
    let original = record
        .instead_of
        .map(|sequence| Decision { sequence, ..own });
    if own.reason != Reason::Sampled && original.is_none() {
        return Ok(evidence);
    }
    let number = format!("\"allocation_version\":\"{}\"", record.allocation_version);
    let mut second = Second {
        own,
        number: Finder::new(&number).into_owned(),
        version: record.allocation_version,
        original: original.map(|original| {
            let id = keys.encode(&original);
            (
                original.sequence,
                Finder::new(id.sequence_part()).into_owned(),
            )
        }),
        passed: false,
        allocation: None,
        instead_of: None,
        id: first.id,
        progress,
    };
    search(storage, &mut second)?;
    evidence.allocation = second.allocation;
    evidence.instead_of = second.instead_of;
    Ok(evidence)
}

/// A sequence key as `instead_of` in the journal spells it.
fn sequence_digits(sequence: SequenceKey) -> String {
    format!(
        "{:016x}{:04x}{:012x}",
        sequence.origin, sequence.worker, sequence.counter
    )
}

/// Whether a line is of this type. Lines that are not spelled as our writer does may be of any.
fn may_be(line: &[u8], kind: &str) -> bool {
    line.strip_prefix(b"{\"type\":\"")
        .is_none_or(|rest| rest.starts_with(kind.as_bytes()))
}

/// The decision, and all that names it.
struct First<'a> {
    sequence: SequenceKey,
    /// The policy file's version is in here, as the id says it.
    policy_of: Decision,
    id: Finder<'static>,
    number: Finder<'static>,
    evidence: Evidence,
    progress: &'a mut dyn FnMut(Step),
}

impl Search for First<'_> {
    fn wants(&mut self, line: &[u8]) -> bool {
        may_be(line, "start\"")
            || may_be(line, "policy\"")
            || self.id.find(line).is_some()
            || (may_be(line, "decision\"") && self.number.find(line).is_some())
    }

    fn event(&mut self, event: Event) {
        let sequence = self.sequence;
        let evidence = &mut self.evidence;
        match event {
            Event::Started { at, origin } if origin == sequence.origin => {
                evidence.started = Some(at);
            }
            // The last one before the decision: a file may come back.
            Event::PolicyAdopted(policy) if evidence.record.is_none() => {
                let of = &self.policy_of;
                if policy.experiment == of.experiment && policy.version == of.policy_version {
                    evidence.policy = Some(*policy);
                }
            }
            Event::Decided(logged) if logged.decision.sequence == sequence => {
                evidence.record.get_or_insert(logged);
            }
            Event::Decided(logged) if logged.instead_of == Some(sequence) => {
                evidence.answered_by = Some(logged.decision);
            }
            Event::Ended(outcome) if outcome.decision.sequence == sequence => {
                evidence.outcome = Some(outcome);
            }
            Event::Rewarded(rewarded) if rewarded.decision.sequence == sequence => {
                evidence.rewards.push(*rewarded);
            }
            _ => {}
        }
    }

    fn progress(&mut self, done: u64, segments: u64) {
        (self.progress)(Step {
            looking_for: "the decision",
            done,
            segments,
        });
    }
}

/// What the decision's record refers to.
struct Second<'a> {
    own: Decision,
    id: Finder<'static>,
    number: Finder<'static>,
    version: u64,
    original: Option<(SequenceKey, Finder<'static>)>,
    /// Whether the decision's record was passed: what it was drawn from stands before it.
    passed: bool,
    allocation: Option<Allocation>,
    instead_of: Option<Decision>,
    progress: &'a mut dyn FnMut(Step),
}

impl Search for Second<'_> {
    fn wants(&mut self, line: &[u8]) -> bool {
        if self.passed {
            return false;
        }
        let original = |line: &[u8]| {
            let finder = self.original.as_ref().map(|(_, finder)| finder);
            finder.is_some_and(|finder| finder.find(line).is_some())
        };
        (may_be(line, "allocation\"") && self.number.find(line).is_some())
            || (may_be(line, "decision\"") && (self.id.find(line).is_some() || original(line)))
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Allocated {
                at,
                experiment,
                epoch,
                version,
                probabilities,
            } if !self.passed
                && (experiment, epoch) == (self.own.experiment, self.own.epoch)
                && version == self.version =>
            {
                self.allocation = Some(Allocation {
                    at,
                    version,
                    probabilities,
                });
            }
            Event::Decided(logged) => {
                let sequence = logged.decision.sequence;
                self.passed |= sequence == self.own.sequence;
                if self
                    .original
                    .as_ref()
                    .is_some_and(|(key, _)| *key == sequence)
                {
                    self.instead_of = Some(logged.decision);
                }
            }
            _ => {}
        }
    }

    fn progress(&mut self, done: u64, segments: u64) {
        (self.progress)(Step {
            looking_for: "what it was drawn from",
            done,
            segments,
        });
    }

    fn is_done(&self) -> bool {
        self.passed
    }
}
