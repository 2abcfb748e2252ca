//! The first pass: what became of each decision, in a compact table, because rewards and outcomes stand anywhere after their decision.
//!
//! Memory: 36 bytes for each decision of the selection that has an outcome or a reward; 24 more for each prediction and each label; and about
//! 130 for each that is rewarded under an `aggregate` other than `first`.

use std::collections::{BTreeMap, HashMap};

use super::{Selection, Shape};
use crate::clock::Timestamp;
use crate::engine::credited::{Aggregated, Rules};
use crate::engine::event::{Event, PolicyAdopted, Rewarded, Verdict};
use crate::experiment::decision::{Decision, Ending, Label, Outcome, Reason};
use crate::experiment::id::{ArmId, ExperimentId, Name, SequenceKey};
use crate::experiment::reward::{Aggregate, Goal, RewardRule};
use crate::journal::RecordError;
use crate::journal::decode::Decoder;

/// Decisions in a page of the index.
const PAGE: u64 = 1024;

/// No such place.
const NONE: u32 = u32::MAX;

/// What became of a decision.
#[derive(Debug, Clone, Copy)]
struct Kept {
    latency_micros: u64,
    /// Not a number while there is none.
    reward: f64,
    /// Rewards that counted.
    rewards: u32,
    /// Places among the labels.
    prediction: u32,
    label: u32,
    /// 0 while there is none.
    status: u16,
    ending: Option<Ending>,
    /// Whether the arm's failure was credited in place of a reward.
    failed: bool,
}

impl Kept {
    const NOTHING: Self = Self {
        latency_micros: 0,
        reward: f64::NAN,
        rewards: 0,
        prediction: NONE,
        label: NONE,
        status: 0,
        ending: None,
        failed: false,
    };
}

/// What became of a decision, for its row.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fate<'a> {
    /// How the exchange ended, the arm's status if it sent one, and how long it took.
    pub outcome: Option<(Ending, Option<u16>, u64)>,
    /// The arm's prediction.
    pub prediction: Option<&'a Label>,
    /// The value of its rewards, aggregated.
    pub reward: Option<f64>,
    /// How many rewards counted.
    pub rewards: u32,
    /// The label that was counted last.
    pub label: Option<&'a Label>,
    /// What it was credited with because its arm failed.
    pub on_failure: Option<f64>,
    /// What it was credited with because its window closed without a reward.
    pub default: Option<f64>,
    /// Whether more is better; `None` if no policy file of its epoch is known.
    pub goal: Option<Goal>,
}

impl Fate<'_> {
    /// What the policy learned from the decision.
    pub fn credit(&self) -> Option<f64> {
        self.reward.or(self.on_failure).or(self.default)
    }
}

/// Where what is kept of a decision is: in pages by process, worker and the counter's high part, because counters are dense.
#[derive(Default)]
struct Index(HashMap<(u64, u16, u64), Box<[u32; PAGE as usize]>>);

impl Index {
    fn get(&self, key: SequenceKey) -> Option<usize> {
        let page = self.0.get(&page(key))?;
        let place = page[(key.counter % PAGE) as usize];
        (place != NONE).then_some(place as usize)
    }

    fn place(&mut self, key: SequenceKey) -> &mut u32 {
        let page = self.0.entry(page(key));
        let page = page.or_insert_with(|| Box::new([NONE; PAGE as usize]));
        &mut page[(key.counter % PAGE) as usize]
    }
}

fn page(key: SequenceKey) -> (u64, u16, u64) {
    (key.origin, key.worker, key.counter / PAGE)
}

/// All that the first pass has found.
#[derive(Default)]
pub(super) struct Gathered {
    decoder: Decoder,
    index: Index,
    kept: Vec<Kept>,
    labels: Vec<Label>,
    several: HashMap<SequenceKey, Aggregated>,
    rules: Rules,
    /// The names in all policies.
    experiments: BTreeMap<ExperimentId, Name>,
    arms: HashMap<(ExperimentId, ArmId), Name>,
    /// The features in all policies, by experiment.
    shapes: BTreeMap<ExperimentId, Shape>,
    /// Rewards of experiments whose rules are not in the journal.
    pub(super) unruled: u64,
    /// The greatest number of a group: what is written after it is for another time.
    pub(super) last_group: u64,
}

impl Gathered {
    /// Whether a line is of a type that this pass needs. A line that is spelled otherwise than our writer does may be.
    fn wants(line: &[u8]) -> bool {
        let Some(rest) = line.strip_prefix(b"{\"type\":\"") else {
            return true;
        };
        ![&b"decision\""[..], b"allocation\"", b"start\""]
            .iter()
            .any(|other| rest.starts_with(other))
    }

    /// Takes the next line.
    pub(super) fn line(&mut self, line: &[u8], selection: &Selection) -> Result<(), RecordError> {
        if !Self::wants(line) {
            return Ok(());
        }
        match self.decoder.decode(line)? {
            Event::PolicyAdopted(policy) => self.adopt(&policy),
            Event::PolicyRetired { at, experiment } => self.rules.retire(experiment, at),
            Event::Ended(outcome) if selection.has(&outcome.decision) => self.ended(outcome),
            Event::Rewarded(rewarded)
                if rewarded.verdict == Verdict::Accepted
                    && rewarded.metric.is_none()
                    && selection.has(&rewarded.decision) =>
            {
                self.rewarded(*rewarded);
            }
            _ => {}
        }
        Ok(())
    }

    fn adopt(&mut self, policy: &PolicyAdopted) {
        self.rules.adopt(policy);
        let experiment = policy.experiment;
        self.experiments.insert(experiment, policy.name.clone());
        for (arm, name, _) in &policy.arms {
            self.arms.insert((experiment, *arm), name.clone());
        }
        let shape = self.shapes.entry(experiment).or_default();
        if let Some(context) = &policy.context {
            shape.learn(context);
        }
    }

    fn kept(&mut self, decision: &Decision) -> &mut Kept {
        let place = self.index.place(decision.sequence);
        if *place == NONE {
            *place = self.kept.len() as u32;
            self.kept.push(Kept::NOTHING);
        }
        &mut self.kept[*place as usize]
    }

    fn keep_label(&mut self, label: Option<Label>) -> u32 {
        let Some(label) = label else {
            return NONE;
        };
        self.labels.push(label);
        (self.labels.len() - 1) as u32
    }

    fn ended(&mut self, outcome: Outcome) {
        let credited = self.rules.failure_credit(&outcome).is_some();
        let prediction = self.keep_label(outcome.prediction);
        let kept = self.kept(&outcome.decision);
        kept.latency_micros = outcome.latency_micros;
        kept.prediction = prediction;
        kept.status = outcome.status.unwrap_or(0);
        kept.ending = Some(outcome.ending);
        kept.failed |= credited && kept.rewards == 0;
    }

    fn rewarded(&mut self, rewarded: Rewarded) {
        let decision = rewarded.decision;
        let rule = self.rules.of(&decision).copied();
        self.unruled += u64::from(rule.is_none());
        if self.kept(&decision).failed || decision.reason != Reason::Sampled {
            return;
        }
        let value = match rule {
            Some(rule) if rule.aggregate != Aggregate::First => self.aggregate(&rewarded, &rule),
            // By the first; so also where the rule is not known.
            _ if self.kept(&decision).rewards > 0 => return,
            _ => rewarded.value,
        };
        let label = self.keep_label(rewarded.label);
        let kept = self.kept(&decision);
        kept.rewards += 1;
        kept.reward = value;
        if label != NONE {
            kept.label = label;
        }
    }

    fn aggregate(&mut self, rewarded: &Rewarded, rule: &RewardRule) -> f64 {
        let several = self.several.entry(rewarded.decision.sequence).or_default();
        several.add(rewarded, rule);
        several.value().unwrap_or(rewarded.value)
    }

    /// What became of a decision by `now`.
    pub(super) fn fate(&self, decision: &Decision, now: Timestamp) -> Fate<'_> {
        let kept = self
            .index
            .get(decision.sequence)
            .map_or(Kept::NOTHING, |place| self.kept[place]);
        let rule = self.rules.of(decision);
        let reward = (kept.rewards > 0).then_some(kept.reward);
        let on_failure = rule
            .and_then(|rule| rule.on_failure)
            .filter(|_| kept.failed);
        let uncredited = reward.is_none() && on_failure.is_none();
        let default = uncredited
            .then(|| self.rules.default_credit(decision, now))
            .flatten();
        Fate {
            outcome: kept.ending.map(|ending| {
                let status = (kept.status != 0).then_some(kept.status);
                (ending, status, kept.latency_micros)
            }),
            prediction: self.labels.get(kept.prediction as usize),
            reward,
            rewards: kept.rewards,
            label: self.labels.get(kept.label as usize),
            on_failure,
            default,
            goal: rule.map(|rule| rule.goal),
        }
    }

    /// The experiments that policies have named.
    pub(super) fn experiments(&self) -> impl Iterator<Item = (ExperimentId, &Name)> {
        self.experiments.iter().map(|(id, name)| (*id, name))
    }

    /// Whether a policy has named the experiment.
    pub(super) fn knows(&self, name: &Name) -> bool {
        self.experiments.values().any(|known| known == name)
    }

    /// The names of an experiment's arms, as policies have told them.
    pub(super) fn arms_of(&self, experiment: ExperimentId) -> impl Iterator<Item = (ArmId, &Name)> {
        let arms = self.arms.iter();
        arms.filter(move |((of, _), _)| *of == experiment)
            .map(|((_, arm), name)| (*arm, name))
    }

    /// The features of an experiment's contexts.
    pub(super) fn shape(&self, experiment: ExperimentId) -> Shape {
        self.shapes.get(&experiment).cloned().unwrap_or_default()
    }

    /// The features of all experiments of the selection.
    pub(super) fn union(&self, selection: &Selection) -> Shape {
        let mut union = Shape::default();
        for (experiment, shape) in &self.shapes {
            if selection.has_experiment(*experiment) {
                union.merge(shape);
            }
        }
        union
    }
}
