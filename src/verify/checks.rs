//! What must hold between the lines of a journal: a small state machine over them. Only what can be told from the journal alone: no
//! signature is checked, because its key may be gone.
//!
//! Memory: two bits for each decision (in compressed bitmaps), and the last allocations of each experiment.

use std::collections::{HashMap, HashSet, VecDeque};

use roaring::RoaringTreemap;
use serde::Deserialize;

use super::Kind;
use crate::clock::Timestamp;
use crate::engine::decide::is_remainder;
use crate::engine::event::{Event, PolicyAdopted, Rewarded, Verdict};
use crate::experiment::decision::{Decision, LoggedDecision, Reason};
use crate::experiment::id::{ArmId, ExperimentId, Name, PolicyVersion, SequenceKey};
use crate::experiment::reward::{Aggregate, RewardRule};
use crate::journal::RecordError;
use crate::journal::decode::Decoder;
use crate::journal::scalar::TimeWriter;

/// Allocations of an experiment that are remembered: decisions are written soon after what they were drawn from.
const REMEMBERED: usize = 4096;

/// How far probabilities may add up to something other than 1.
const ROUNDING: f64 = 1e-6;

/// Tells a problem of the line being checked.
pub(super) type Tell<'a> = dyn FnMut(Kind, String) + 'a;

/// What the lines so far have said.
#[derive(Default)]
pub(super) struct Checks {
    decoder: Decoder,
    clock: TimeWriter,
    /// Whether lines may be missing from what was seen, so that what is unknown need not be wrong.
    lost: bool,
    origins: HashSet<u64>,
    experiments: HashMap<ExperimentId, Known>,
    decided: Sequences,
    rewarded: Sequences,
    compared: u64,
    uncompared: u64,
    /// A buffer.
    text: Vec<u8>,
}

/// Sequence keys that were seen.
#[derive(Default)]
struct Sequences(HashMap<(u64, u16), RoaringTreemap>);

impl Sequences {
    /// Whether it was not there.
    fn insert(&mut self, key: SequenceKey) -> bool {
        let counters = self.0.entry((key.origin, key.worker)).or_default();
        counters.insert(key.counter)
    }
}

/// What was said about an experiment.
struct Known {
    name: Name,
    epoch: u16,
    arms: HashMap<ArmId, Name>,
    adopted: HashSet<(PolicyVersion, u16)>,
    rules: HashMap<u16, RewardRule>,
    /// The last allocation's number and epoch, and whether none can have been missed since.
    last: Option<(u64, u16)>,
    tracked: bool,
    allocations: VecDeque<(u64, Vec<(ArmId, f64)>)>,
}

/// The fields of a line that its decision id has too.
#[derive(Deserialize)]
struct Told<'a> {
    at: &'a str,
    experiment: Option<&'a str>,
    arm: Option<&'a str>,
    propensity: Option<f64>,
    reason: Option<&'a str>,
    epoch: Option<u16>,
    policy_version: Option<&'a str>,
}

impl Known {
    /// What an allocation gave the arms, if that is remembered.
    fn allocation(&self, version: u64) -> Option<&[(ArmId, f64)]> {
        let mut newest_first = self.allocations.iter().rev();
        let (_, found) = newest_first.find(|(other, _)| *other == version)?;
        Some(found)
    }
}

impl Checks {
    /// Lines are missing here.
    pub(super) fn lose_track(&mut self) {
        self.lost = true;
        for known in self.experiments.values_mut() {
            known.tracked = false;
        }
    }

    /// Decisions whose propensity was compared, and those whose allocation is not known.
    pub(super) fn compared(&self) -> (u64, u64) {
        (self.compared, self.uncompared)
    }

    /// Checks the next line. Returns the time of its record.
    pub(super) fn check(
        &mut self,
        line: &[u8],
        tell: &mut Tell<'_>,
    ) -> Result<Timestamp, RecordError> {
        let event = self.decoder.decode(line)?;
        match &event {
            Event::Started { origin, .. } => {
                self.origins.insert(*origin);
            }
            Event::PolicyAdopted(policy) => self.adopted(policy, tell),
            Event::Allocated {
                experiment,
                epoch,
                version,
                probabilities,
                ..
            } => self.allocated(*experiment, (*version, *epoch), probabilities, tell),
            Event::Decided(logged) => {
                let told: Told<'_> = serde_json::from_slice(line)?;
                self.fields(&logged.decision, &told, true, tell);
                self.decided(logged, tell);
            }
            Event::Ended(outcome) => {
                let told: Told<'_> = serde_json::from_slice(line)?;
                self.fields(&outcome.decision, &told, false, tell);
            }
            Event::Rewarded(rewarded) => {
                let told: Told<'_> = serde_json::from_slice(line)?;
                self.fields(&rewarded.decision, &told, false, tell);
                self.rewarded(rewarded, tell);
            }
            Event::Shadowed(_) | Event::Ordered(_) | Event::PolicyRetired { .. } => {}
        }
        Ok(event.at())
    }

    fn adopted(&mut self, policy: &PolicyAdopted, tell: &mut Tell<'_>) {
        let known = self
            .experiments
            .entry(policy.experiment)
            .or_insert_with(|| Known {
                name: policy.name.clone(),
                epoch: policy.epoch,
                arms: HashMap::new(),
                adopted: HashSet::new(),
                rules: HashMap::new(),
                last: None,
                tracked: !self.lost,
                allocations: VecDeque::new(),
            });
        if policy.epoch < known.epoch {
            tell(
                Kind::Epoch,
                format!(
                    "{}: epoch {} after epoch {}",
                    policy.name, policy.epoch, known.epoch
                ),
            );
        }
        known.epoch = policy.epoch;
        known.rules.insert(policy.epoch, policy.reward);
        known.adopted.insert((policy.version, policy.epoch));
        let arms = policy.arms.iter();
        known
            .arms
            .extend(arms.map(|(arm, name, _)| (*arm, name.clone())));
    }

    fn allocated(
        &mut self,
        experiment: ExperimentId,
        (version, epoch): (u64, u16),
        probabilities: &[(ArmId, f64)],
        tell: &mut Tell<'_>,
    ) {
        let Some(known) = self.experiments.get_mut(&experiment) else {
            if !self.lost {
                tell(
                    Kind::UnknownPolicy,
                    format!(
                        "an allocation of experiment {:08x}, of which no policy was adopted before",
                        experiment.0
                    ),
                );
            }
            return;
        };
        if let Some(wrong) = unsound(probabilities) {
            tell(
                Kind::Probabilities,
                format!("{}, allocation {version}: {wrong}", known.name),
            );
        }
        let newest = known.allocations.back();
        if known.last == Some((version, epoch))
            && newest.is_some_and(|(_, stated)| *stated == *probabilities)
        {
            // Every segment says again what is drawn from.
            return;
        }
        if let Some((last, last_epoch)) = known.last {
            let follows = if known.tracked {
                Some(version) == last.checked_add(1)
            } else {
                version > last
            };
            if !follows {
                tell(
                    Kind::AllocationVersion,
                    format!(
                        "{}: allocation {version} after allocation {last}",
                        known.name
                    ),
                );
            }
            if epoch < last_epoch {
                tell(
                    Kind::Epoch,
                    format!(
                        "{}: allocation {version} is of epoch {epoch}, the one before it of epoch {last_epoch}",
                        known.name
                    ),
                );
            }
        }
        if !self.lost && !known.rules.contains_key(&epoch) {
            tell(
                Kind::Epoch,
                format!(
                    "{}: allocation {version} is of epoch {epoch}, into which no policy was adopted before",
                    known.name
                ),
            );
        }
        known.last = Some((version, epoch));
        known.tracked = true;
        if known.allocations.len() == REMEMBERED {
            known.allocations.pop_front();
        }
        known
            .allocations
            .push_back((version, probabilities.to_vec()));
    }

    /// Whether the line says for people what its id says.
    fn fields(&mut self, decision: &Decision, told: &Told<'_>, own: bool, tell: &mut Tell<'_>) {
        let known = self.experiments.get(&decision.experiment);
        let name = known.map(|known| known.name.as_str());
        let arm = known.and_then(|known| known.arms.get(&decision.arm));
        let arm = arm.map(Name::as_str);
        let mut wrong = Vec::new();
        if matches!((told.experiment, name), (Some(told), Some(name)) if told != name) {
            wrong.push("experiment");
        }
        if matches!((told.arm, arm), (Some(told), Some(name)) if told != name) {
            wrong.push("arm");
        }
        let differs = |told: Option<f64>| {
            told.is_some_and(|told| told.to_bits() != decision.propensity.to_bits())
        };
        if differs(told.propensity) {
            wrong.push("propensity");
        }
        if told
            .reason
            .is_some_and(|told| told != decision.reason.as_str())
        {
            wrong.push("reason");
        }
        if told.epoch.is_some_and(|told| told != decision.epoch) {
            wrong.push("epoch");
        }
        if told
            .policy_version
            .is_some_and(|told| told != decision.policy_version.to_string())
        {
            wrong.push("policy_version");
        }
        self.text.clear();
        self.clock.write(&mut self.text, decision.at);
        if own && told.at.as_bytes() != self.text {
            wrong.push("at");
        }
        if !wrong.is_empty() {
            tell(
                Kind::FieldsDiffer,
                format!(
                    "the line differs from its decision id in {}: it was changed",
                    wrong.join(", ")
                ),
            );
        }
    }

    fn decided(&mut self, logged: &LoggedDecision, tell: &mut Tell<'_>) {
        let decision = &logged.decision;
        let key = decision.sequence;
        if !self.decided.insert(key) {
            tell(
                Kind::DuplicateDecision,
                format!("{} was decided before", sequence(key)),
            );
        }
        if !self.lost && !self.origins.contains(&key.origin) {
            tell(
                Kind::UnknownStart,
                format!(
                    "no process with origin {:016x} has started before",
                    key.origin
                ),
            );
        }
        let known = self.experiments.get(&decision.experiment);
        let adopted = known.is_some_and(|known| {
            let version = (decision.policy_version, decision.epoch);
            known.adopted.contains(&version)
        });
        if !self.lost && !adopted {
            tell(
                Kind::UnknownPolicy,
                format!(
                    "policy {} was not adopted into epoch {} of experiment {:08x} before this decision",
                    decision.policy_version, decision.epoch, decision.experiment.0
                ),
            );
        }
        if decision.reason == Reason::Sampled {
            self.propensity(logged, tell);
        } else if decision.propensity != 1.0 {
            tell(
                Kind::Propensity,
                format!(
                    "the decision is `{}` and has propensity {}, not 1",
                    decision.reason, decision.propensity
                ),
            );
        }
    }

    /// The propensity of a draw is what was journalled for its arm, bit for bit.
    fn propensity(&mut self, logged: &LoggedDecision, tell: &mut Tell<'_>) {
        let decision = &logged.decision;
        let version = logged.allocation_version;
        let known = self.experiments.get(&decision.experiment);
        let allocation = known.and_then(|known| known.allocation(version));
        let own = logged
            .context
            .as_ref()
            .filter(|own| !own.probabilities.is_empty());
        if let Some(wrong) = own.and_then(|own| unsound(&own.probabilities)) {
            tell(Kind::Probabilities, wrong);
        }
        // Without a context they can only differ from the allocation because some of its arms were not available.
        if let (Some(own), Some(allocation)) = (own, allocation)
            && own.found().is_none()
            && !is_remainder(&own.probabilities, allocation)
        {
            tell(
                Kind::Probabilities,
                format!(
                    "its own probabilities are not those of allocation {version} over the arms that were available"
                ),
            );
        }
        let own = own.map(|own| own.probabilities.as_slice());
        let Some(drawn_from) = own.or(allocation) else {
            self.uncompared += 1;
            return;
        };
        self.compared += 1;
        let found = drawn_from.iter().find(|(arm, _)| *arm == decision.arm);
        let probability = found.map_or(0.0, |(_, probability)| probability.min(1.0));
        if probability.to_bits() != decision.propensity.to_bits() {
            let source = if own.is_some() {
                "its own probabilities".to_owned()
            } else {
                format!("allocation {version}")
            };
            tell(
                Kind::Propensity,
                format!(
                    "the propensity is {:?}, and {source} gave the arm {probability:?}",
                    decision.propensity
                ),
            );
        }
    }

    fn rewarded(&mut self, rewarded: &Rewarded, tell: &mut Tell<'_>) {
        if rewarded.verdict != Verdict::Accepted {
            return;
        }
        let decision = &rewarded.decision;
        let key = decision.sequence;
        if decision.reason != Reason::Sampled {
            tell(
                Kind::RewardValue,
                format!(
                    "a reward counted for a decision that is `{}`",
                    decision.reason
                ),
            );
        }
        if !rewarded.value.is_finite() {
            tell(
                Kind::RewardValue,
                "a reward without a value counted".to_owned(),
            );
        }
        let known = self.experiments.get(&decision.experiment);
        let rule = known.and_then(|known| known.rules.get(&decision.epoch));
        let first = rule.is_some_and(|rule| rule.aggregate == Aggregate::First);
        if rewarded.metric.is_some() || !first {
            return;
        }
        if let Some(Err(error)) = rule.map(|rule| rule.kind.check(rewarded.value)) {
            tell(Kind::RewardValue, error.to_string());
        }
        if !self.rewarded.insert(key) {
            tell(
                Kind::DuplicateReward,
                format!(
                    "a second reward counted for {}, and only the first does",
                    sequence(key)
                ),
            );
        }
    }
}

/// A sequence key for people.
fn sequence(key: SequenceKey) -> String {
    format!(
        "the decision with origin {:016x}, worker {}, counter {}",
        key.origin, key.worker, key.counter
    )
}

/// What is wrong with probabilities; all of them may be 0, when no arm can be drawn.
fn unsound(probabilities: &[(ArmId, f64)]) -> Option<String> {
    let outside = |probability: f64| !(0.0..=1.0 + ROUNDING).contains(&probability);
    if let Some((arm, wrong)) = probabilities.iter().find(|(_, each)| outside(*each)) {
        return Some(format!(
            "arm {:08x} has probability {wrong}, which is not in [0, 1]",
            arm.0
        ));
    }
    let sum: f64 = probabilities.iter().map(|(_, each)| each).sum();
    let whole = sum == 0.0 || (sum - 1.0).abs() <= ROUNDING;
    (!whole).then(|| format!("the probabilities add up to {sum}, not to 1"))
}
