//! One seed: the real engine in simulated time.
//!
//! Each round closes windows, publishes if it is time, draws, and applies the decision; then the rewards that are due are judged
//! and applied. These are the functions that the ledger and the learner call live, with the same events; only the clock, the
//! network and the disk are missing. Not here: what the world pays (`world`), and what many seeds amount to (`summary`).

use std::collections::VecDeque;
use std::sync::Arc;

use super::dataset::Cell;
use super::schedule::{Publish, Schedule};
use super::world::{History, World};
use crate::chance::DrawKeys;
use crate::clock::Timestamp;
use crate::engine::allocate::{Allotment, Rules, allocate, candidates};
use crate::engine::attribute::{Claim, Judgement, Posted, Tentative};
use crate::engine::contextual::Workspace;
use crate::engine::decide::decide;
use crate::engine::event::{Event, PolicyAdopted, Verdict};
use crate::engine::fold::{Limits, State};
use crate::engine::snapshot::{Allocation, Serving, Tally};
use crate::experiment::Experiment;
use crate::experiment::context::{Feature, Value};
use crate::experiment::decision::{Decision, LoggedContext, LoggedDecision};
use crate::experiment::id::{SequenceKey, UnitHash};
use crate::experiment::reward::{Aggregate, Learn};
use crate::policy::Memory;
use crate::stats::moments::Moments;

/// When simulated time begins: the start of 2026, in milliseconds.
const START: u64 = 1_767_225_600_000;

/// An allocation that ages is computed anew at least so often within a half-life or a window.
const AGED: u64 = 100;

/// The epoch of every simulation.
const EPOCH: u16 = 1;

/// What is simulated.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The policy file.
    pub experiment: Arc<Experiment>,
    /// The world that it meets.
    pub world: World,
    /// How many rounds.
    pub horizon: u64,
    /// When a new allocation is published.
    pub publish: Publish,
}

/// What one seed came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// Pseudo-regret after each of the rounds that were asked for.
    pub regret: Vec<f64>,
    /// How often each arm was drawn.
    pub drawn: Vec<u64>,
    /// The sum of what the drawn arms earned, whether or not it arrived before the end.
    pub reward: f64,
    /// Rewards that were posted.
    pub posted: u64,
    /// Of these, the ones that came after their window.
    pub late: u64,
}

/// Runs `plan` with one seed. `checkpoints` are ascending numbers of rounds after which the regret is noted; at each of them
/// `progress` is told how many rounds were played since the last.
pub fn run(plan: &Plan, seed: u64, checkpoints: &[u64], progress: &dyn Fn(u64)) -> Trial {
    let mut run = Run::new(plan, seed);
    let mut done = 0;
    for checkpoint in checkpoints.iter().copied() {
        for round in done..checkpoint {
            run.round(round);
        }
        run.trial.regret.push(run.regret);
        progress(checkpoint - done);
        done = checkpoint;
    }
    run.trial
}

/// A reward on its way.
struct Outstanding {
    decision: Decision,
    arm: usize,
    due: u64,
    value: f64,
}

struct Run<'p> {
    plan: &'p Plan,
    seed: u64,
    keys: DrawKeys,
    workspace: Workspace,
    /// Of each feature, its column in the world's rows.
    columns: Vec<Option<usize>>,
    history: History<'p>,
    state: State,
    tentative: Tentative,
    schedule: Schedule,
    serving: Serving,
    /// Every arm may be drawn: nobody disables one.
    enabled: Vec<bool>,
    /// What the policy saw when the serving allocation was computed: what was learned, and what waits.
    seen: Vec<(Moments, u64)>,
    /// Whether it might see something else now.
    stale: bool,
    /// A bandit that keeps units on their arms does not publish before this time.
    held_until: Timestamp,
    /// Whether credits come when windows close.
    closes: bool,
    /// For each delay that occurs, the longest first, the rewards on their way.
    outstanding: Vec<(u64, VecDeque<Outstanding>)>,
    regret: f64,
    trial: Trial,
}

impl<'p> Run<'p> {
    fn new(plan: &'p Plan, seed: u64) -> Self {
        let experiment = &plan.experiment;
        let arms = experiment.arms.len();
        let history = plan.world.history(seed);
        let (names, _) = history.features();
        let column = |feature: &Feature| names.iter().position(|name| *name == *feature.name);
        let features = experiment.context.iter().flat_map(|rule| rule.features());
        let columns = features.map(column).collect();
        let mut root = [0; 32];
        root[..8].copy_from_slice(&seed.to_le_bytes());
        let at = Timestamp::from_millis(START);
        let mut state = State::new(Limits::default());
        state.apply(&Event::Started { at, origin: seed });
        let adopted = PolicyAdopted::of(experiment, EPOCH, at);
        state.apply(&Event::PolicyAdopted(Box::new(adopted)));
        Self {
            plan,
            seed,
            keys: DrawKeys::derive(&root),
            workspace: Workspace::default(),
            columns,
            history,
            state,
            tentative: Tentative::default(),
            schedule: Schedule::new(plan.publish, arms, refresh(plan)),
            serving: Serving {
                experiment: Arc::clone(experiment),
                epoch: EPOCH,
                allocation: Arc::new(Allocation {
                    version: 0,
                    probabilities: Vec::new(),
                    contextual: None,
                }),
                arms: Vec::new(),
                paused: false,
            },
            enabled: vec![true; arms],
            seen: Vec::new(),
            stale: true,
            held_until: at,
            closes: experiment.reward.default.is_some() || experiment.reward.learn == Learn::Close,
            outstanding: plan
                .world
                .delays()
                .into_iter()
                .map(|delay| (delay, VecDeque::new()))
                .collect(),
            regret: 0.0,
            trial: Trial {
                regret: Vec::new(),
                drawn: vec![0; arms],
                reward: 0.0,
                posted: 0,
                late: 0,
            },
        }
    }

    fn round(&mut self, round: u64) {
        if round > 0 {
            self.history.advance();
        }
        let now = Timestamp::from_millis(START).plus(round.saturating_mul(self.plan.world.round()));
        self.close(now);
        if self.schedule.is_due(round) {
            self.publish(now);
        }
        self.draw(round, now);
        self.deliver(round, now);
    }

    /// Closes windows, and counts what that credits.
    fn close(&mut self, now: Timestamp) {
        let closed = self.state.advance(now);
        self.stale |= closed;
        if closed && self.closes {
            let tallies = self.tallies();
            let credited = tallies.iter().map(|tally| tally.learned.count());
            self.schedule.recount(credited);
        }
    }

    fn tallies(&self) -> Vec<Tally> {
        let experiment = &self.plan.experiment;
        experiment
            .arms
            .iter()
            .map(|arm| self.state.tally(experiment.id, arm.id))
            .collect()
    }

    /// What the learner does: evidence to allocation, unless the policy would see nothing new.
    fn publish(&mut self, now: Timestamp) {
        let experiment = &self.plan.experiment;
        let ages = !experiment.policy.statistics().memory.is_forever();
        // In most rounds nothing was learned, and tallies cost more than the round.
        if now < self.held_until || !(self.stale || ages) {
            return;
        }
        self.stale = false;
        let tallies = self.tallies();
        let waits = experiment.policy.counts_waiting();
        let seen: Vec<(Moments, u64)> = tallies
            .iter()
            .map(|tally| (tally.learned, if waits { tally.waiting } else { 0 }))
            .collect();
        if seen == self.seen && !ages {
            return;
        }
        let candidates = candidates(experiment, &tallies, &self.enabled, now);
        let Allotment {
            probabilities,
            contextual,
            ..
        } = allocate(&Rules::of(experiment), &candidates);
        self.seen = seen;
        if contextual.is_none() && self.serving.allocation.probabilities == probabilities {
            return;
        }
        self.serving.allocation = Arc::new(Allocation {
            version: self.serving.allocation.version + 1,
            probabilities,
            contextual,
        });
        if let (Some(unit), Publish::ByGrowth) = (&experiment.unit, self.plan.publish)
            && experiment.policy.kind() != "fixed"
        {
            self.held_until = now.plus(unit.reallocate);
        }
    }

    /// Draws an arm and sends its reward on its way.
    fn draw(&mut self, round: u64, now: Timestamp) {
        let experiment = &self.plan.experiment;
        let sequence = SequenceKey {
            origin: self.seed,
            worker: 0,
            counter: round,
        };
        let context = self.context();
        let draw = decide(
            &self.serving,
            self.unit(round),
            sequence,
            &self.keys,
            &mut self.workspace,
        );
        let decision = Decision {
            sequence,
            at: now,
            experiment: experiment.id,
            epoch: EPOCH,
            arm: experiment.arms[draw.arm].id,
            policy_version: experiment.version,
            propensity: draw.propensity,
            reason: draw.reason,
        };
        self.state.apply(&Event::Decided(LoggedDecision {
            decision,
            unit: None,
            allocation_version: self.serving.allocation.version,
            instead_of: None,
            key: None,
            context,
        }));
        self.schedule.decided(draw.arm);
        self.stale |= experiment.policy.counts_waiting();
        let value = self.history.reward(draw.arm);
        self.regret += self.history.regret(draw.arm);
        self.trial.drawn[draw.arm] += 1;
        self.trial.reward += value;
        let Some(delay) = self.plan.world.delay(draw.arm, value) else {
            return;
        };
        let queue = self.outstanding.iter_mut().find(|(own, _)| *own == delay);
        if let Some((_, queue)) = queue {
            queue.push_back(Outstanding {
                decision,
                arm: draw.arm,
                due: round.saturating_add(delay),
                value,
            });
        }
    }

    /// What the decision of this round is made upon, and its features for the draw.
    fn context(&mut self) -> Option<Box<LoggedContext>> {
        let rule = self.plan.experiment.context.as_deref()?;
        let (_, row) = self.history.features();
        let value = |(feature, column): (&Feature, &Option<usize>)| match column
            .and_then(|column| row.get(column))
        {
            Some(Cell::Number(number)) => feature.encoding.read_number(*number),
            Some(Cell::Text(text)) => feature.encoding.read_text(text),
            Some(Cell::Missing) | None => Value::Missing,
        };
        let values = rule.features().iter().zip(&self.columns).map(value);
        let context = rule.context(values.collect());
        rule.encode(&context, &mut self.workspace.features);
        Some(Box::new(LoggedContext {
            context,
            probabilities: Vec::new(),
        }))
    }

    /// Where units keep their arms, each round is another unit.
    fn unit(&self, round: u64) -> Option<UnitHash> {
        let experiment = &self.plan.experiment;
        let unit = experiment.unit.as_ref()?;
        Some(
            self.keys
                .unit_hash(experiment.id, &unit.salt, &round.to_le_bytes()),
        )
    }

    /// Judges and applies the rewards that are due: those of older decisions first.
    fn deliver(&mut self, round: u64, now: Timestamp) {
        for index in 0..self.outstanding.len() {
            loop {
                let (_, queue) = &mut self.outstanding[index];
                let due = queue.front().is_some_and(|reward| reward.due <= round);
                let Some(reward) = due.then(|| queue.pop_front()).flatten() else {
                    break;
                };
                self.reward(&reward, now);
            }
        }
    }

    /// What the ledger does with a posted reward, but for the disk.
    fn reward(&mut self, reward: &Outstanding, now: Timestamp) {
        let rule = &self.plan.experiment.reward;
        let needs_id = matches!(rule.aggregate, Aggregate::Sum | Aggregate::Mean);
        let claim = Claim {
            decision: reward.decision,
            received: now,
            at: None,
            metric: None,
            id: needs_id.then(|| "reward".into()),
            posted: Posted::Reward(reward.value),
        };
        self.tentative.clear();
        self.trial.posted += 1;
        let Judgement::Judged(rewarded) = self.state.judge(&mut self.tentative, claim, now) else {
            return;
        };
        match rewarded.verdict {
            Verdict::Accepted if rule.learn == Learn::Arrival => {
                self.schedule.credited(reward.arm);
                self.stale = true;
            }
            Verdict::Late => self.trial.late += 1,
            _ => {}
        }
        self.state.apply(&Event::Rewarded(rewarded));
    }
}

/// After how many rounds an allocation has aged so much that it is computed anew; `None`: never.
fn refresh(plan: &Plan) -> Option<u64> {
    let span = match plan.experiment.policy.statistics().memory {
        Memory::Forever => return None,
        Memory::HalfLife(span) | Memory::SlidingWindow(span) => span,
    };
    Some((span / AGED / plan.world.round()).max(1))
}

#[cfg(test)]
mod tests;
