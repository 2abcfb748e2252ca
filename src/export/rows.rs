//! The second pass: the decisions, each with what it was drawn from and what became of it.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;

use memchr::memmem;
use serde::Deserialize;

use super::gather::Gathered;
use super::row::{ArmName, Distribution, Row};
use super::{Destination, ExportError, LineError, Selection, Sink};
use crate::clock::Timestamp;
use crate::decision_id::LENGTH;
use crate::engine::event::Event;
use crate::experiment::decision::{LoggedDecision, Reason};
use crate::experiment::id::{ArmId, ExperimentId, Name};
use crate::journal::decode::Decoder;

/// Allocations of an experiment that are remembered: decisions are written soon after what they were drawn from.
const REMEMBERED: usize = 4096;

/// The names in a decision's line.
#[derive(Deserialize)]
struct Told<'a> {
    #[serde(borrow)]
    id: std::borrow::Cow<'a, str>,
    experiment: Option<String>,
    arm: Option<String>,
}

/// What the second pass knows of an experiment.
#[derive(Default)]
struct Known {
    name: Arc<str>,
    arms: HashMap<ArmId, ArmName>,
    /// The arms of the last distribution: mostly those of the next.
    last: Vec<(ArmId, ArmName)>,
    allocations: VecDeque<(u64, Distribution)>,
    /// Place among the sinks; `None` before its first row.
    sink: Option<usize>,
}

/// Writes the rows.
pub(super) struct Rows<'a> {
    selection: &'a Selection,
    gathered: &'a Gathered,
    now: Timestamp,
    destination: &'a mut dyn Destination,
    decoder: Decoder,
    experiments: HashMap<ExperimentId, Known>,
    sinks: Vec<Box<dyn Sink>>,
    id: memmem::Finder<'static>,
    /// Of the row being written, where that has its own.
    own: Distribution,
    written: u64,
    left_out: u64,
}

impl<'a> Rows<'a> {
    pub(super) fn new(
        selection: &'a Selection,
        gathered: &'a Gathered,
        now: Timestamp,
        destination: &'a mut dyn Destination,
    ) -> Result<Self, ExportError> {
        let mut sinks = Vec::new();
        if !destination.is_split() {
            // At once, so that there is a header even if there are no rows.
            let sink = destination.open(None, &gathered.union(selection));
            sinks.push(sink.map_err(ExportError::Write)?);
        }
        Ok(Self {
            selection,
            gathered,
            now,
            destination,
            decoder: Decoder::default(),
            experiments: HashMap::new(),
            sinks,
            id: memmem::Finder::new(b"\"id\":\""),
            own: Distribution::default(),
            written: 0,
            left_out: 0,
        })
    }

    /// Rows that were written, and those without a place in the form.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.written, self.left_out)
    }

    /// Whether a decision of the experiment was there.
    pub(super) fn has_seen(&self, name: &Name) -> bool {
        self.experiments
            .values()
            .any(|known| *known.name == *name.as_str())
    }

    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.sinks.iter_mut().try_for_each(|sink| sink.finish())
    }

    /// Whether a line is of a type that this pass needs. A line that is spelled otherwise than our writer does may be.
    fn wants(line: &[u8]) -> bool {
        let Some(rest) = line.strip_prefix(b"{\"type\":\"") else {
            return true;
        };
        ![&b"outcome\""[..], b"reward\"", b"start\"", b"retire\""]
            .iter()
            .any(|other| rest.starts_with(other))
    }

    /// Takes the next line.
    pub(super) fn line(&mut self, line: &[u8]) -> Result<(), LineError> {
        if !Self::wants(line) {
            return Ok(());
        }
        match self.decoder.decode(line)? {
            Event::Allocated {
                experiment,
                version,
                probabilities,
                ..
            } if self.selection.has_experiment(experiment) => {
                let known = self.known(experiment);
                let mut distribution = Distribution::default();
                known.fill(&mut distribution, &probabilities);
                if known.allocations.len() == REMEMBERED {
                    known.allocations.pop_front();
                }
                known.allocations.push_back((version, distribution));
                Ok(())
            }
            Event::Decided(logged) if self.selection.has(&logged.decision) => {
                self.decided(&logged, line)
            }
            _ => Ok(()),
        }
    }

    fn known(&mut self, experiment: ExperimentId) -> &mut Known {
        match self.experiments.entry(experiment) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(Known::of(experiment, self.gathered)),
        }
    }

    fn decided(&mut self, logged: &LoggedDecision, line: &[u8]) -> Result<(), LineError> {
        let decision = &logged.decision;
        let told: Told<'_>;
        let id = if let Some(id) = self.id_of(line) {
            id
        } else {
            told = serde_json::from_slice(line).map_err(|error| LineError::Record(error.into()))?;
            &told.id
        };
        let gathered = self.gathered;
        let known = self.known(decision.experiment);
        if !known.arms.contains_key(&decision.arm) {
            known.learn(logged, line);
        }
        let Some(arm) = known.arms.get(&decision.arm).cloned() else {
            return Ok(());
        };
        let sink = match known.sink {
            Some(sink) => sink,
            None => self.open(decision.experiment).map_err(LineError::Write)?,
        };
        let Some(known) = self.experiments.get_mut(&decision.experiment) else {
            return Ok(());
        };
        let own = logged
            .context
            .as_ref()
            .map(|context| context.probabilities.as_slice())
            .filter(|own| !own.is_empty());
        let drawn_from = if let Some(own) = own {
            known.fill(&mut self.own, own);
            Some(&self.own)
        } else {
            known.allocation(logged.allocation_version)
        };
        let row = Row {
            id,
            experiment: &known.name,
            arm: &arm.text,
            logged,
            distribution: drawn_from.filter(|_| decision.reason == Reason::Sampled),
            fate: gathered.fate(decision, self.now),
        };
        if self.sinks[sink].row(&row).map_err(LineError::Write)? {
            self.written += 1;
        } else {
            self.left_out += 1;
        }
        Ok(())
    }

    /// The decision id where our writer puts it.
    fn id_of<'l>(&self, line: &'l [u8]) -> Option<&'l str> {
        let start = self.id.find(line)? + self.id.needle().len();
        let id = line.get(start..start + LENGTH)?;
        let closed = line.get(start + LENGTH) == Some(&b'"');
        closed.then(|| std::str::from_utf8(id).ok()).flatten()
    }

    fn open(&mut self, experiment: ExperimentId) -> io::Result<usize> {
        let mut place = 0;
        if self.destination.is_split() {
            place = self.sinks.len();
            let name = Arc::clone(&self.known(experiment).name);
            let shape = self.gathered.shape(experiment);
            self.sinks.push(self.destination.open(Some(&name), &shape)?);
        }
        self.known(experiment).sink = Some(place);
        Ok(place)
    }
}

impl Known {
    /// As the policies in the journal tell it.
    fn of(experiment: ExperimentId, gathered: &Gathered) -> Self {
        let mut names = gathered.experiments();
        let name = names.find(|(id, _)| *id == experiment);
        Self {
            name: name.map_or_else(
                || format!("{:08x}", experiment.0).into(),
                |(_, name)| name.as_str().into(),
            ),
            arms: gathered
                .arms_of(experiment)
                .map(|(arm, name)| (arm, ArmName::new(name.as_str())))
                .collect(),
            last: Vec::new(),
            allocations: VecDeque::new(),
            sink: None,
        }
    }

    /// Takes the names from a decision's line, because the policy is not in the journal any more.
    fn learn(&mut self, logged: &LoggedDecision, line: &[u8]) {
        let arm = logged.decision.arm;
        let told = serde_json::from_slice::<Told<'_>>(line).ok();
        let (experiment, name) = told.map_or((None, None), |told| (told.experiment, told.arm));
        // It may become the name of a file.
        let experiment = experiment.and_then(|text| Name::new(&text).ok());
        if let Some(experiment) = experiment.filter(|_| self.arms.is_empty()) {
            self.name = experiment.as_str().into();
        }
        let name = name.unwrap_or_else(|| format!("{:08x}", arm.0));
        self.arms.insert(arm, ArmName::new(&name));
    }

    /// Fills a distribution with these probabilities.
    fn fill(&mut self, distribution: &mut Distribution, probabilities: &[(ArmId, f64)]) {
        distribution.clear();
        for (index, (arm, probability)) in probabilities.iter().enumerate() {
            if self.last.get(index).is_none_or(|(last, _)| last != arm) {
                let name = self.arms.get(arm).cloned();
                let name = name.unwrap_or_else(|| ArmName::new(&format!("{:08x}", arm.0)));
                self.last.truncate(index);
                self.last.push((*arm, name));
            }
            distribution.add(&self.last[index].1, *probability);
        }
    }

    fn allocation(&self, version: u64) -> Option<&Distribution> {
        let mut newest_first = self.allocations.iter().rev();
        let (_, found) = newest_first.find(|(other, _)| *other == version)?;
        Some(found)
    }
}
