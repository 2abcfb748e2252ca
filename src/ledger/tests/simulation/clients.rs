//! Requests that are decided, and clients that post until they are answered.

use std::collections::BTreeSet;

use super::super::refold::rule;
use super::oracle::Key;
use super::world::{Intent, World, poll};
use super::*;
use crate::experiment::context::Value;
use crate::experiment::decision::LoggedContext;

impl World {
    /// Clients read their answers.
    pub(super) fn answers(&mut self) {
        let mut waiting = Vec::new();
        for (intents, mut receipt) in std::mem::take(&mut self.in_flight) {
            let Some(answered) = poll(&mut receipt) else {
                waiting.push((intents, receipt));
                continue;
            };
            for (place, index) in intents.iter().enumerate() {
                let intent = &mut self.intents[*index];
                intent.in_flight = false;
                let Ok(answers) = &answered else {
                    self.seen.count("refused post", 1);
                    continue;
                };
                let key = Key::of(&intent.claim);
                match &answers[place] {
                    Answer::Judged(Verdict::Accepted) | Answer::Unlearned => {
                        self.seen.count("accepted reward", 1);
                        self.oracle.acknowledged(&key);
                    }
                    Answer::Judged(Verdict::Duplicate) => {
                        self.seen.count("duplicate", 1);
                        self.oracle.promised(&key);
                    }
                    Answer::Judged(Verdict::Late) => self.seen.count("late reward", 1),
                    _ => {}
                }
                intent.answer = Some(answers[place].clone());
            }
        }
        self.in_flight = waiting;
    }

    /// A request is decided, and recorded unless the queue is full.
    pub(super) fn decide(&mut self) {
        let at = self.clock_now();
        let process = self.process.as_mut().expect("a process");
        if process.serving.is_empty() {
            return;
        }
        let (experiment, epoch) = &process.serving[self.random.index(process.serving.len())];
        process.decided += 1;
        let reason = if self.random.percent(90) {
            Reason::Sampled
        } else {
            Reason::Forced
        };
        let decision = Decision {
            sequence: SequenceKey {
                origin: process.origin,
                worker: 0,
                counter: process.decided,
            },
            at,
            experiment: experiment.id,
            epoch: *epoch,
            arm: experiment.arms[self.random.index(2)].id,
            policy_version: experiment.version,
            propensity: 0.5,
            reason,
        };
        let context = experiment.context.is_some().then(|| {
            let prime = Value::Boolean(self.random.percent(50));
            Box::new(LoggedContext {
                context: rule().context(vec![prime].into()),
                probabilities: Vec::new(),
            })
        });
        let logged = LoggedDecision {
            decision,
            unit: None,
            allocation_version: 1,
            key: None,
            instead_of: None,
            context,
        };
        self.seen.count("decision", 1);
        // A tenth is lost on the way, as if the queue had been full.
        if self.random.percent(10) || !process.recorder.offer(Event::Decided(logged)) {
            self.seen.count("drop", 1);
        }
        self.decisions.push(decision);
    }

    /// The exchange of a recent decision of this process ends.
    pub(super) fn end_exchange(&mut self) {
        let at = self.clock_now();
        let Some(decision) = self.recent() else {
            return;
        };
        let process = self.process.as_mut().expect("a process");
        if decision.sequence.origin != process.origin || !self.oracle.ends(decision.sequence) {
            return;
        }
        let ending = [Ending::Answered, Ending::Answered, Ending::Failed][self.random.index(3)];
        self.seen
            .count("failure", u64::from(ending == Ending::Failed));
        let prediction = Some(Label::Number(4.0 + self.random.below(2) as f64));
        process.recorder.offer(Event::Ended(Outcome {
            decision,
            at,
            ending,
            status: None,
            latency_micros: 1,
            prediction,
        }));
    }

    pub(super) fn recent(&mut self) -> Option<Decision> {
        let some = self.decisions.len().min(1 + self.random.index(40));
        (some > 0).then(|| self.decisions[self.decisions.len() - 1 - self.random.index(some)])
    }

    /// A client posts one reward or several, new ones and such that it has posted before.
    pub(super) fn post(&mut self) {
        let mut batch = BTreeSet::new();
        for _ in 0..=self.random.below(4) {
            let again = !self.intents.is_empty() && self.random.percent(30);
            let index = if again {
                Some(self.random.index(self.intents.len()))
            } else {
                self.intend()
            };
            batch.extend(index.filter(|index| !self.intents[*index].in_flight));
        }
        self.send(batch.into_iter().collect());
    }

    /// A new reward for a recent decision.
    pub(super) fn intend(&mut self) -> Option<usize> {
        let decision = self.recent()?;
        let file = self
            .files
            .iter()
            .find(|file| file.experiment.id == decision.experiment)?;
        let metric = self.random.percent(8).then(|| name("seconds"));
        let aggregated = file.experiment.reward.aggregate != Aggregate::First;
        let id = (aggregated || metric.is_some()).then(|| self.random.below(5).to_string().into());
        let value = match file.kind {
            0 | 4 => self.random.below(2) as f64,
            _ => self.random.below(24) as f64 / 4.0,
        };
        let posted = if file.kind == 4 && metric.is_none() {
            Posted::Label(Label::Number(5.0))
        } else {
            Posted::Reward(value)
        };
        let claim = Claim {
            decision,
            received: decision.at,
            at: None,
            metric,
            id,
            posted,
        };
        self.intents.push(Intent {
            claim,
            answer: None,
            in_flight: false,
            tried: false,
        });
        Some(self.intents.len() - 1)
    }

    pub(super) fn send(&mut self, batch: Vec<usize>) {
        let received = self.clock_now();
        let process = self.process.as_mut().expect("a process");
        if batch.is_empty() || process.commands.len() > POSTS / 2 {
            return;
        }
        let mut items = Vec::new();
        for index in &batch {
            let intent = &mut self.intents[*index];
            self.seen.count("retried post", u64::from(intent.tried));
            (intent.in_flight, intent.tried) = (true, true);
            self.oracle.posted(&Key::of(&intent.claim));
            let claim = Claim {
                received,
                ..intent.claim.clone()
            };
            items.push(Ok(claim.into()));
        }
        self.in_flight.push((batch, process.handle.post(items)));
    }
}
