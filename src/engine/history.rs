//! One experiment as the journal knows it: what its arms have earned in the current epoch, and what may still change that.
//!
//! The parts that [`State`](super::fold::State) folds events into. Every contribution is a value in fixed point that is
//! added once and taken back exactly, so tallies do not depend on the order of rewards.

mod lessons;
mod memory;
mod shadowing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::aggregate::{Entry, Item, id_hash};
use super::claims::Claims;
use super::closing::{BucketKey, Closing, LINGER, Outstanding, Settled};
use super::contexts::{Contexts, Lesson};
use super::event::{PolicyAdopted, Rewarded};
use super::fold::Allocated;
use super::keys::RewardKeys;
use super::learned::{Credit, Learned};
use super::measures::Measures;
use super::orders::Orders;
use super::predictions::Predictions;
use super::shadows::Shadows;
use super::snapshot::{ShadowTally, Tally};
use crate::clock::Timestamp;
use crate::experiment::context::ContextRule;
use crate::experiment::decision::{Decision, LoggedDecision, Outcome};
use crate::experiment::id::{ArmId, Name, PolicyVersion, SequenceKey};
use crate::experiment::reward::{Aggregate, LabelRule, Learn, RewardRule};
use crate::experiment::shadow::ShadowTerms;
use crate::policy::Statistics;
use crate::stats::importance::Importance;
use crate::stats::moments::Moments;

/// An experiment as the journal knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct History {
    pub(super) name: Name,
    pub(super) epoch: u16,
    pub(super) retired: bool,
    /// The highest `epoch = N` that its file has declared.
    pub(super) declared: u16,
    /// Decisions made until then were given up when the policy file was removed: they can no longer be credited by default,
    /// so neither by a reward.
    pub(super) waived_until: Option<Timestamp>,
    pub(super) rule: RewardRule,
    pub(super) label: Option<LabelRule>,
    pub(super) claims: Claims,
    pub(super) entries: BTreeMap<(Timestamp, SequenceKey), Entry>,
    pub(super) predictions: Predictions,
    pub(super) shadows: Shadows,
    pub(super) contexts: Contexts,
    pub(super) metrics: BTreeSet<(Timestamp, SequenceKey, u64)>,
    /// Of decisions of all epochs, so that a reward for an old one is told so.
    pub(super) keys: RewardKeys,
    /// The named secondary outcomes that are summed.
    metric_names: BTreeSet<Name>,
    /// What an operator has ordered.
    pub(super) orders: Orders,
    pub(super) closing: Closing,
    pub(super) version: PolicyVersion,
    pub(super) meaning: String,
    /// The rules of every policy version of this epoch.
    versions: BTreeMap<PolicyVersion, RewardRule>,
    /// The policy versions of this epoch that have shadows.
    shadowing: BTreeMap<PolicyVersion, ShadowTerms>,
    longest_window: u64,
    /// What the policy in force asks for.
    pub(super) statistics: Statistics,
    /// How contexts are encoded.
    pub(super) context: Option<Arc<ContextRule>>,
    /// Whether other statistics were asked for when there were credits already, which these do not know.
    pub(super) incomplete: bool,
    arms: BTreeMap<ArmId, Earned>,
    pub(super) allocation: Option<Allocated>,
    /// The metric that the reward is posted as. Last, because older checkpoints end before it.
    #[serde(default)]
    pub(super) metric: Option<Name>,
}

/// What an arm has earned in the current epoch; default credits apart, because their value is the epoch's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Earned {
    decisions: u64,
    waiting: u64,
    rewards: Moments,
    learned: Moments,
    defaults: u64,
    failures: u64,
    shadow: ShadowTally,
    /// What the policy asks for beyond this; behind a pointer, because it is handed to the learner again and again.
    detail: Arc<Learned>,
    /// Named secondary outcomes; behind a pointer for the same reason.
    measures: Arc<Measures>,
}

impl History {
    /// Takes over a policy file of the same epoch.
    pub(super) fn adopt(&mut self, adopted: &PolicyAdopted) {
        self.retired = false;
        self.declared = adopted.declared_epoch;
        self.version = adopted.version;
        self.meaning.clone_from(&adopted.reward_meaning);
        self.rule = adopted.reward;
        self.label.clone_from(&adopted.label);
        self.metric.clone_from(&adopted.metric);
        self.versions.insert(adopted.version, adopted.reward);
        if let Some(terms) = adopted.shadow {
            self.shadowing.insert(adopted.version, terms);
        }
        self.longest_window = self.longest_window.max(adopted.reward.window);
    }

    /// Whether the decision was given up, see `waived_until`.
    pub(super) fn has_waived(&self, decision: &Decision) -> bool {
        self.rule.default.is_some() && self.waived_until.is_some_and(|until| decision.at <= until)
    }

    /// What an arm has earned in the epoch.
    pub(super) fn tally(&self, arm: ArmId) -> Tally {
        let Some(earned) = self.arms.get(&arm) else {
            return Tally::default();
        };
        let mut learned = earned.learned;
        if let Some(default) = self.rule.default {
            learned.add(default, earned.defaults);
        }
        Tally {
            decisions: earned.decisions,
            waiting: earned.waiting,
            learned,
            rewards: earned.rewards,
            defaults: earned.defaults,
            failures: earned.failures,
            shadow: earned.shadow,
            detail: Arc::clone(&earned.detail),
            measures: Arc::clone(&earned.measures),
        }
    }

    /// What every arm has earned.
    pub(super) fn tallies(&self) -> impl Iterator<Item = (ArmId, Tally)> + '_ {
        self.arms.keys().map(|arm| (*arm, self.tally(*arm)))
    }

    /// Counts a decision; of contexts at most `limit` are remembered.
    pub(super) fn decided(&mut self, logged: &LoggedDecision, advanced: Timestamp, limit: usize) {
        let decision = &logged.decision;
        self.arms.entry(decision.arm).or_default().decisions += 1;
        if let Some(context) = logged.context.as_ref().and_then(|logged| logged.found()) {
            self.remember(decision, context, limit);
            if self.retired {
                self.contexts.waive_one(decision);
            }
        }
        if !self.retired {
            let key = BucketKey::of(decision.at, self.rule_of(decision).window);
            let default = self.weighted_default(decision);
            self.outstanding(key, decision.arm, advanced, |outstanding| {
                outstanding.decided += 1;
                outstanding.unrewarded.merge(&default);
            });
            if key.closes() <= advanced {
                self.close_contexts(advanced);
            }
        }
    }

    /// Counts a failure, and credits it if the policy file says so.
    pub(super) fn failed(&mut self, outcome: &Outcome, own: bool, advanced: Timestamp) {
        let decision = &outcome.decision;
        self.arms.entry(decision.arm).or_default().failures += 1;
        if let Some(value) = self.failure_credit(outcome) {
            self.settle_as_failure(decision);
            self.credit(decision, value, own, advanced);
        }
    }

    /// Counts an accepted reward.
    pub(super) fn rewarded(
        &mut self,
        rewarded: &Rewarded,
        own: bool,
        advanced: Timestamp,
        limit: usize,
    ) {
        let decision = &rewarded.decision;
        if let Some(context) = &rewarded.context {
            self.remember(decision, context, limit);
        }
        if self.rule.aggregate != Aggregate::First {
            self.aggregate(rewarded, own, advanced);
        } else if self.claims.insert(decision) {
            self.post(decision, rewarded.value);
            self.credit(decision, rewarded.value, own, advanced);
        }
    }

    /// Sums a named outcome, and remembers it to tell its duplicates; at most `limit` of them.
    pub(super) fn measured(&mut self, metric: &Name, rewarded: &Rewarded, limit: usize) {
        let decision = &rewarded.decision;
        let hash = id_hash(metric.as_str(), rewarded.id.as_deref());
        let earned = self.arms.entry(decision.arm).or_default();
        Arc::make_mut(&mut earned.measures).add(&mut self.metric_names, metric, rewarded.value);
        self.metrics.insert((decision.at, decision.sequence, hash));
        while self.metrics.len() > limit {
            self.metrics.pop_first();
        }
    }

    /// Credits what the closing of windows brings; whether there was anything.
    pub(super) fn close(&mut self, now: Timestamp) -> bool {
        let settled = self.closing.close(now);
        let any = !settled.is_empty();
        for settled in settled {
            self.settle(settled);
        }
        if any {
            self.close_contexts(now);
        }
        let memory = self.statistics.memory;
        if !memory.is_forever() {
            for earned in self.arms.values_mut() {
                if earned.detail.outlives(memory, now) {
                    Arc::make_mut(&mut earned.detail).forget(memory, now);
                }
            }
        }
        let kept = now.as_millis().saturating_sub(self.reach());
        self.forget_before(Timestamp::from_millis(kept));
        any
    }

    /// How long after a decision its last trace may be forgotten, in milliseconds, under the longest window of the epoch.
    pub(super) fn reach(&self) -> u64 {
        self.longest_window.saturating_add(LINGER)
    }

    /// When the last trace of a decision may be forgotten.
    pub(super) fn remembered_until(&self, decision: &Decision) -> Timestamp {
        decision.at.plus(self.rule_of(decision).window).plus(LINGER)
    }

    /// Whether the bucket of a decision with this window has closed.
    pub(super) fn has_closed(&self, decision: &Decision, window: u64, advanced: Timestamp) -> bool {
        self.closing
            .is_closed(BucketKey::of(decision.at, window), advanced)
    }

    pub(super) fn new(adopted: &PolicyAdopted) -> Self {
        Self {
            name: adopted.name.clone(),
            epoch: adopted.epoch,
            retired: false,
            declared: adopted.declared_epoch,
            waived_until: None,
            rule: adopted.reward,
            label: adopted.label.clone(),
            claims: Claims::default(),
            entries: BTreeMap::new(),
            predictions: Predictions::default(),
            shadows: Shadows::default(),
            contexts: Contexts::default(),
            metrics: BTreeSet::new(),
            keys: RewardKeys::default(),
            metric_names: BTreeSet::new(),
            orders: Orders::default(),
            closing: Closing::default(),
            version: adopted.version,
            meaning: adopted.reward_meaning.clone(),
            versions: BTreeMap::new(),
            shadowing: BTreeMap::new(),
            longest_window: 0,
            statistics: adopted.statistics,
            context: adopted.context.clone(),
            incomplete: false,
            arms: BTreeMap::new(),
            allocation: None,
            metric: None,
        }
    }

    /// The rule that held when the decision was made; of a version never seen here, the current one.
    pub(super) fn rule_of(&self, decision: &Decision) -> &RewardRule {
        self.versions
            .get(&decision.policy_version)
            .unwrap_or(&self.rule)
    }

    /// Where a reward of the decision waits for the close; `None`: it is learned at once.
    pub(super) fn place(&self, decision: &Decision) -> Option<BucketKey> {
        let rule = self.rule_of(decision);
        (rule.learn == Learn::Close).then(|| BucketKey::of(decision.at, rule.window))
    }

    /// What the failure of the arm is worth, if it is credited: within the window, and unless a reward came first.
    pub(super) fn failure_credit(&self, outcome: &Outcome) -> Option<f64> {
        let decision = &outcome.decision;
        let rule = self.rule_of(decision);
        let value = rule.on_failure?;
        let in_time = outcome.at <= decision.at.plus(rule.window);
        let unrewarded = !self.claims.contains(decision)
            && !self.entries.contains_key(&(decision.at, decision.sequence));
        (in_time && unrewarded).then_some(value)
    }

    /// From now on no posted reward counts for the decision.
    fn settle_as_failure(&mut self, decision: &Decision) {
        if self.rule.aggregate == Aggregate::First {
            self.claims.insert(decision);
        } else {
            let mut entry = Entry::new(self.place(decision));
            entry.settled = true;
            self.entries.insert((decision.at, decision.sequence), entry);
        }
    }

    /// Adds an item to the decision's aggregate: the earlier contribution is undone, exactly.
    fn aggregate(&mut self, rewarded: &Rewarded, own: bool, advanced: Timestamp) {
        let decision = &rewarded.decision;
        let place = self.place(decision);
        let key = (decision.at, decision.sequence);
        let entry = self
            .entries
            .get(&key)
            .cloned()
            .unwrap_or_else(|| Entry::new(place));
        let item = Item::of(rewarded);
        let Ok(next) = entry.with(item, self.rule.aggregate, self.rule.kind) else {
            return;
        };
        let value = next.value.unwrap_or(rewarded.value);
        match entry.value {
            Some(earlier) if earlier != value => {
                self.unpost(decision, earlier, entry.place, advanced);
                self.post(decision, value);
                self.learn(decision, value, entry.place, advanced);
            }
            Some(_) => {}
            None => {
                self.post(decision, value);
                self.credit(decision, value, own, advanced);
            }
        }
        self.entries.insert(key, next);
    }

    /// Counts a decision's posted value.
    fn post(&mut self, decision: &Decision, value: f64) {
        let earned = self.arms.entry(decision.arm).or_default();
        earned.rewards.add(value, 1);
    }

    /// Takes a decision's posted value back, and what was learned from it.
    fn unpost(
        &mut self,
        decision: &Decision,
        value: f64,
        place: Option<BucketKey>,
        advanced: Timestamp,
    ) {
        let arm = decision.arm;
        self.arms.entry(arm).or_default().rewards.remove(value);
        match place {
            Some(key) if !self.closing.is_closed(key, advanced) => {
                let importance = self.importance(decision, value);
                self.outstanding(key, arm, advanced, |outstanding| {
                    outstanding.pending.remove(value);
                    outstanding.pending_importance.subtract(&importance);
                });
                if let Some(stored) = self.contexts.get_mut(decision) {
                    stored.lesson = Lesson::Open;
                }
            }
            _ => self.learn_now(decision, value, -1),
        }
    }

    /// The decision's first credit: it will not be credited by default, and its value is learned.
    fn credit(&mut self, decision: &Decision, value: f64, own: bool, advanced: Timestamp) {
        if own {
            let key = BucketKey::of(decision.at, self.rule_of(decision).window);
            let default = self.weighted_default(decision);
            self.outstanding(key, decision.arm, advanced, |outstanding| {
                outstanding.rewarded += 1;
                outstanding.unrewarded.subtract(&default);
            });
        }
        self.learn(decision, value, self.place(decision), advanced);
    }

    fn learn(
        &mut self,
        decision: &Decision,
        value: f64,
        place: Option<BucketKey>,
        advanced: Timestamp,
    ) {
        let Some(key) = place else {
            return self.learn_now(decision, value, 1);
        };
        let importance = self.importance(decision, value);
        self.outstanding(key, decision.arm, advanced, |outstanding| {
            outstanding.pending.add(value, 1);
            outstanding.pending_importance.merge(&importance);
        });
        if key.closes() > advanced {
            if let Some(stored) = self.contexts.get_mut(decision) {
                stored.lesson = Lesson::Pending(value);
            }
        } else {
            self.regress(decision, value, 1);
        }
    }

    /// Learns a value once, or with −1 takes it back.
    fn learn_now(&mut self, decision: &Decision, value: f64, times: i64) {
        let statistics = self.statistics;
        let importance = self.importance(decision, value);
        let earned = self.arms.entry(decision.arm).or_default();
        change(&mut earned.learned, value, times);
        if statistics.is_scalar() {
            return;
        }
        self.regress(decision, value, times);
        let earned = self.arms.entry(decision.arm).or_default();
        let at = decision.at;
        let detail = Arc::make_mut(&mut earned.detail);
        detail.credit(statistics.memory, Credit { at, value, times });
        detail.weigh(statistics.memory, at, |sums| {
            if times > 0 {
                sums.merge(&importance);
            } else {
                sums.subtract(&importance);
            }
        });
    }

    /// A credit, importance-weighted where the policy asks for it.
    fn importance(&self, decision: &Decision, value: f64) -> Importance {
        let mut sums = Importance::default();
        if let Some(exploration) = self.statistics.importance {
            sums.add(value, Importance::weight(decision.propensity, exploration));
        }
        sums
    }

    fn weighted_default(&self, decision: &Decision) -> Importance {
        self.rule.default.map_or_else(Importance::default, |value| {
            self.importance(decision, value)
        })
    }

    fn outstanding(
        &mut self,
        key: BucketKey,
        arm: ArmId,
        advanced: Timestamp,
        change: impl FnOnce(&mut Outstanding),
    ) {
        let mut waiting = (0, 0);
        let settled = self.closing.change(key, arm, advanced, |outstanding| {
            waiting.0 = outstanding.waiting();
            change(outstanding);
            waiting.1 = outstanding.waiting();
        });
        if let Some(settled) = settled {
            self.settle(settled);
        } else {
            let earned = self.arms.entry(arm).or_default();
            earned.waiting = (earned.waiting + waiting.1).saturating_sub(waiting.0);
        }
    }

    fn settle(&mut self, settled: Settled) {
        let statistics = self.statistics;
        let default = self.rule.default;
        let earned = self.arms.entry(settled.arm).or_default();
        earned.waiting = earned.waiting.saturating_sub(settled.expired);
        earned.learned.merge(&settled.learned);
        if default.is_some() {
            earned.defaults = earned.defaults.saturating_add_signed(settled.defaults);
        }
        if statistics.is_scalar() {
            return;
        }
        let (at, memory) = (settled.decided, statistics.memory);
        let detail = Arc::make_mut(&mut earned.detail);
        detail.merge(memory, at, &settled.learned);
        detail.weigh(memory, at, |sums| sums.merge(&settled.importance));
        if let Some(value) = default {
            let times = settled.defaults;
            detail.credit(memory, Credit { at, value, times });
        }
    }

    /// Drops what an arm has earned, and what its decisions made until then may yet be credited with.
    pub(super) fn forget_arm(&mut self, arm: ArmId, until: Timestamp) {
        self.arms.remove(&arm);
        self.closing.forget_arm(arm);
        self.contexts.forget_arm(arm, until);
    }

    /// Gives outstanding decisions up, see `waived_until`.
    pub(super) fn waive(&mut self, at: Timestamp) {
        self.retired = true;
        self.waived_until = Some(at);
        self.closing.waive();
        self.contexts.waive();
        for (arm, earned) in &mut self.arms {
            earned.waiting = self.closing.waiting(*arm);
        }
    }

    fn forget_before(&mut self, cutoff: Timestamp) {
        self.claims.forget_before(cutoff);
        self.predictions.forget_before(cutoff);
        self.shadows.forget_before(cutoff);
        self.contexts.forget_before(cutoff);
        self.keys.forget_before(cutoff);
        while let Some(first) = self.entries.first_entry() {
            if first.key().0 >= cutoff {
                break;
            }
            first.remove();
        }
        while self.metrics.first().is_some_and(|first| first.0 < cutoff) {
            self.metrics.pop_first();
        }
    }
}

/// Adds a value once, or with −1 takes it back.
fn change(moments: &mut Moments, value: f64, times: i64) {
    if times > 0 {
        moments.add(value, 1);
    } else {
        moments.remove(value);
    }
}

impl Item {
    /// A reward's part in its decision's aggregate.
    pub(super) fn of(rewarded: &Rewarded) -> Self {
        Self {
            id: rewarded.id.as_deref().map(|id| id_hash("", Some(id))),
            at: rewarded.at.unwrap_or(rewarded.received),
            value: rewarded.value,
        }
    }
}
