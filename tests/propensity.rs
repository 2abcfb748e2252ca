//! The proof that what is logged as a propensity is the probability of the draw, for every policy: many decisions through
//! allocation, draw and fold, with rewards that come late, arms that are taken out, and a world that turns round.
//!
//! Here each policy makes some ten thousand decisions, a million in all. This makes a million of each:
//!
//! ```text
//! cargo test --release --no-default-features --test propensity -- --ignored
//! ```

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail the test"
)]

use std::collections::BTreeMap;
use std::sync::Arc;

use pointsman::chance::{DrawKeys, unit_interval};
use pointsman::clock::Timestamp;
use pointsman::config::compile::{Source, compile};
use pointsman::config::settings;
use pointsman::engine::allocate::{Admission, Candidate, Rules, allocate, arm_states};
use pointsman::engine::contextual::Workspace;
use pointsman::engine::decide::decide;
use pointsman::engine::event::{Event, PolicyAdopted, Rewarded, Verdict};
use pointsman::engine::fold::{Limits, State};
use pointsman::engine::snapshot::{Allocation, Serving};
use pointsman::experiment::Experiment;
use pointsman::experiment::context::Value;
use pointsman::experiment::decision::{Decision, LoggedContext, LoggedDecision, Reason};
use pointsman::experiment::id::SequenceKey;
use pointsman::policy::{ArmEvidence, ImportanceSum, KINDS, PolicyKind};
use pointsman::stats::moments::Moments;

/// A decision is made each of these milliseconds.
const PACE: u64 = 50;
/// The allocation is computed once in so many decisions.
const REFRESH: u64 = 200;
/// Rewards come at most so many decisions later.
const DELAY: u64 = 700;
const FLOOR: f64 = 0.02;
const ORIGIN: u64 = 7;

/// An experiment of three arms under `[policy.KIND]` with these keys.
fn experiment(kind: &PolicyKind, keys: &str) -> Arc<Experiment> {
    let context = if kind.context {
        "[context.x]\nheader = \"x\"\ntype = \"number\"\n"
    } else {
        ""
    };
    let text = format!(
        "[match]\npath = \"/\"\n[policy.{}]\n{keys}\n[reward]\nkind = \"binary\"\nwindow = \"10m\"\ndefault = 0\nlearn = \"arrival\"\n{context}\
         [[arm]]\nname = \"a\"\nendpoints = [\"http://h:1\"]\n\
         [[arm]]\nname = \"b\"\nendpoints = [\"http://h:2\"]\nweight = 2\n\
         [[arm]]\nname = \"c\"\nendpoints = [\"http://h:3\"]\nweight = 0.5\n",
        kind.name
    );
    let source = Source {
        file: "test.toml".to_owned(),
        stem: "test".to_owned(),
        text,
    };
    let settings = settings::parse("pointsman.toml", "", &[]).unwrap();
    let loaded = compile(&[source], &settings).unwrap_or_else(|problems| panic!("{}", problems[0]));
    Arc::clone(&loaded.experiments[0])
}

/// Every kind as it comes, with a floor, and with everything that it takes.
fn configurations() -> Vec<(&'static PolicyKind, String)> {
    let mut all = Vec::new();
    for kind in KINDS {
        let (_, example) = kind.example.split_once('\n').unwrap();
        let own: String = example
            .lines()
            .filter(|line| !line.starts_with("floor"))
            .flat_map(|line| [line, "\n"])
            .collect();
        all.push((kind, String::new()));
        all.push((kind, format!("{own}floor = {FLOOR}\n")));
        let mut full = format!("{own}floor = {FLOOR}\n");
        for (key, line) in [
            ("warm_up", "warm_up = 300\n"),
            ("half_life", "half_life = \"10m\"\n"),
            ("decay", "decay = 500\n"),
        ] {
            if kind.takes(key) {
                full.push_str(line);
            }
        }
        if full != all[all.len() - 1].1 {
            all.push((kind, full));
        }
    }
    all
}

/// A number in [0, 1) for this experiment's world; apart from what draws.
fn noise(stream: u64, counter: u64) -> f64 {
    let mut word = (stream << 40 ^ counter).wrapping_add(0x9E37_79B9_7F4A_7C15);
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    unit_interval(word ^ (word >> 31))
}

/// What has been counted of one arm.
#[derive(Debug, Default, Clone, Copy)]
struct Count {
    drawn: u64,
    /// Σ (1[A = a] − p).
    excess: f64,
    /// Σ p (1 − p).
    variance: f64,
    /// Decisions since it was last drawn while it could be.
    since: u64,
}

/// An experiment at work.
struct World {
    experiment: Arc<Experiment>,
    state: State,
    keys: DrawKeys,
    workspace: Workspace,
    rewards: BTreeMap<u64, Vec<Rewarded>>,
    counts: [Count; 3],
}

impl World {
    fn new(experiment: Arc<Experiment>) -> Self {
        let mut state = State::new(Limits::default());
        let at = Timestamp::default();
        state.apply(&Event::Started { at, origin: ORIGIN });
        let adopted = PolicyAdopted::of(&experiment, 1, at);
        state.apply(&Event::PolicyAdopted(Box::new(adopted)));
        Self {
            experiment,
            state,
            keys: DrawKeys::derive(&[3; 32]),
            workspace: Workspace::default(),
            rewards: BTreeMap::new(),
            counts: [Count::default(); 3],
        }
    }

    /// What serves now; `enabled` says which arms may be drawn.
    fn serving(&mut self, now: Timestamp, enabled: [bool; 3]) -> Serving {
        self.state.advance(now);
        let tallies: Vec<_> = self
            .experiment
            .arms
            .iter()
            .map(|arm| self.state.tally(self.experiment.id, arm.id))
            .collect();
        let admissions = enabled.map(|enabled| Admission {
            enabled,
            ..Admission::FULL
        });
        let (allotment, arms) = arm_states(&self.experiment, &tallies, &admissions, now);
        let probabilities = allotment.probabilities;
        let floor = self.experiment.floor;
        for (probability, enabled) in probabilities.iter().zip(enabled) {
            if enabled {
                assert!(*probability >= floor, "{probabilities:?}");
            } else {
                assert_eq!(*probability, 0.0);
            }
        }
        let sum: f64 = probabilities.iter().sum();
        assert!((sum - 1.0).abs() <= 1e-9, "{probabilities:?}");
        Serving {
            experiment: Arc::clone(&self.experiment),
            epoch: 1,
            allocation: Arc::new(Allocation {
                version: 1,
                probabilities,
                contextual: allotment.contextual,
            }),
            arms,
            paused: false,
        }
    }

    /// What a decision is made upon, where the policy asks for it.
    fn context(&mut self, counter: u64) -> Option<Box<LoggedContext>> {
        let rule = self.experiment.context.as_ref()?;
        let value = Value::Number(noise(4, counter) - 0.5);
        let context = rule.context(vec![value].into());
        rule.encode(&context, &mut self.workspace.features);
        Some(Box::new(LoggedContext {
            context,
            probabilities: Vec::new(),
        }))
    }

    /// Draws, counts, and sees to a reward. Every second decision is for a unit that nobody has seen before.
    fn step(&mut self, serving: &Serving, counter: u64, mean: impl Fn(usize) -> f64) {
        let sequence = SequenceKey {
            origin: ORIGIN,
            worker: 0,
            counter,
        };
        let unit = (counter % 2 == 1).then(|| {
            let key = counter.to_le_bytes();
            self.keys.unit_hash(self.experiment.id, "", &key)
        });
        let context = self.context(counter);
        let draw = decide(serving, unit, sequence, &self.keys, &mut self.workspace);
        assert_eq!(draw.reason, Reason::Sampled);
        let probabilities = match &serving.allocation.contextual {
            Some(_) => self.workspace.probabilities.clone(),
            None => serving.allocation.probabilities.clone(),
        };
        assert_eq!(draw.propensity.to_bits(), probabilities[draw.arm].to_bits());
        self.count(&probabilities, draw.arm);
        let decision = Decision {
            sequence,
            at: Timestamp::from_millis(counter * PACE),
            experiment: self.experiment.id,
            epoch: 1,
            arm: self.experiment.arms[draw.arm].id,
            policy_version: self.experiment.version,
            propensity: draw.propensity,
            reason: draw.reason,
        };
        self.state.apply(&Event::Decided(LoggedDecision {
            decision,
            unit,
            allocation_version: 1,
            instead_of: None,
            key: None,
            context,
        }));
        // One in ten is never rewarded, and credited with 0 when its window closes.
        if noise(1, counter) < 0.9 {
            let due = counter + 1 + (noise(2, counter) * DELAY as f64) as u64;
            let value = f64::from(u8::from(noise(3, counter) < mean(draw.arm)));
            self.rewards.entry(due).or_default().push(Rewarded {
                decision,
                received: Timestamp::from_millis(due * PACE),
                at: None,
                metric: None,
                id: None,
                value,
                label: None,
                context: None,
                verdict: Verdict::Accepted,
            });
        }
        for rewarded in self.rewards.remove(&counter).unwrap_or_default() {
            self.state.apply(&Event::Rewarded(Box::new(rewarded)));
        }
    }

    fn count(&mut self, probabilities: &[f64], drawn: usize) {
        let floor = self.experiment.floor;
        for (arm, (count, probability)) in self.counts.iter_mut().zip(probabilities).enumerate() {
            let hit = arm == drawn;
            assert!(!hit || *probability > 0.0, "an excluded arm was drawn");
            count.drawn += u64::from(hit);
            count.excess += f64::from(u8::from(hit)) - probability;
            count.variance += probability * (1.0 - probability);
            count.since = if hit || *probability == 0.0 {
                0
            } else {
                count.since + 1
            };
            assert!(
                floor == 0.0 || (count.since as f64) <= 20.0 / floor,
                "not drawn for {} decisions",
                count.since
            );
        }
    }
}

/// Runs an experiment for so many decisions.
fn run(kind: &PolicyKind, keys: &str, decisions: u64) {
    let mut world = World::new(experiment(kind, keys));
    let mut serving = None;
    for counter in 0..decisions {
        // The best arm is away for a while, then another; and the order of the arms turns round in the middle.
        let part = counter * 12 / decisions;
        if counter.is_multiple_of(REFRESH) {
            let enabled = match part {
                2 => [true, true, false],
                5 => [false, true, true],
                9 => [false, true, false],
                _ => [true; 3],
            };
            let now = Timestamp::from_millis(counter * PACE);
            serving = Some(world.serving(now, enabled));
        }
        let means = if part < 6 {
            [0.5, 0.45, 0.6]
        } else {
            [0.6, 0.5, 0.4]
        };
        world.step(serving.as_ref().unwrap(), counter, |arm| means[arm]);
    }
    let name = format!("{} with {keys:?}", kind.name);
    let drawn: u64 = world.counts.iter().map(|count| count.drawn).sum();
    assert_eq!(drawn, decisions, "{name}");
    for count in world.counts {
        let bound = 4.5 * count.variance.sqrt();
        assert!(
            count.excess.abs() <= bound + 1e-6,
            "{name}: {:?}",
            world.counts
        );
    }
    let learned: u64 = world
        .experiment
        .arms
        .iter()
        .map(|arm| {
            world
                .state
                .tally(world.experiment.id, arm.id)
                .learned
                .count()
        })
        .sum();
    assert!(learned > decisions / 2, "{name} learned {learned}");
}

#[test]
fn arms_are_drawn_as_often_as_their_propensities_say() {
    let all = configurations();
    let each = 1_000_000 / all.len() as u64;
    for (kind, keys) in all {
        run(kind, &keys, each);
    }
}

#[test]
#[ignore = "minutes; the command is in the module's documentation"]
fn arms_are_drawn_as_often_as_their_propensities_say_over_a_million_decisions_of_each_policy() {
    for (kind, keys) in configurations() {
        run(kind, &keys, 1_000_000);
    }
}

fn candidate(successes: u64, failures: u64) -> Candidate {
    let mut moments = Moments::default();
    moments.add(1.0, successes);
    moments.add(0.0, failures);
    Candidate {
        evidence: ArmEvidence {
            importance: ImportanceSum {
                weights: 3.0 * moments.count() as f64,
                rewards: 3.0 * moments.sum(),
            },
            ..ArmEvidence::of(1.0, moments)
        },
        enabled: true,
    }
}

#[test]
fn what_is_left_of_three_arms_is_shared_as_if_there_were_two() {
    let mut differs = 0;
    for (kind, keys) in configurations()
        .into_iter()
        .filter(|(kind, _)| !kind.context)
    {
        let experiment = experiment(kind, &keys);
        let rules = Rules::of(&experiment);
        for rest in [
            [candidate(50, 50), candidate(45, 55)],
            [candidate(500, 400), candidate(3, 1)],
            [candidate(0, 0), candidate(20, 30)],
        ] {
            let best = candidate(900, 100);
            let all = [best.clone(), rest[0].clone(), rest[1].clone()];
            let excluded = Candidate {
                enabled: false,
                ..best
            };
            let two = allocate(&rules, &rest).probabilities;
            let left =
                allocate(&rules, &[excluded, rest[0].clone(), rest[1].clone()]).probabilities;
            assert_eq!(left[0], 0.0);
            for (left, two) in left[1..].iter().zip(&two) {
                assert!((left - two).abs() <= 1e-6, "{} {left} {two}", kind.name);
            }
            // Not what renormalising the old shares would give.
            let three = allocate(&rules, &all).probabilities;
            let renormalised = three[1] / (three[1] + three[2]);
            differs += u32::from((renormalised - two[0]).abs() > 0.01);
        }
    }
    assert!(differs > 5);
}
