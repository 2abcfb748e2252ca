//! Decisions joined with what became of them, a row each, for tools that are not this one.
//!
//! [`export`] reads the journal twice: first what became of each decision (`gather`), then the decisions themselves (`rows`), of which
//! none is kept. It only reads, so it works on the journal of a running process; what is written meanwhile is left out. A [`Sink`] gives rows
//! a form: `jsonl`, `csv`, `dsjson`, `parquet`. Not here: files and terminals (`cli`).

mod buffer;
mod csv;
mod dsjson;
mod gather;
mod jsonl;
#[cfg(feature = "parquet")]
mod parquet;
mod row;
mod rows;
mod shape;

use std::io::{self, Write};
use std::ops::ControlFlow;

use crate::clock::Timestamp;
use crate::experiment::decision::{Decision, Reason};
use crate::experiment::id::{ExperimentId, Name};
use crate::journal::lines::{Order, Sight, walk};
use crate::journal::{RecordError, Storage};

pub use gather::Fate;
pub use row::{Cell, Distribution, Row};
pub use shape::{FeatureKind, Shape};

use gather::Gathered;
use rows::Rows;

/// Which decisions are exported.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Only of these experiments; all, if empty.
    pub experiments: Vec<Name>,
    /// Only those made at this time or later.
    pub since: Option<Timestamp>,
    /// Only those made before this time.
    pub until: Option<Timestamp>,
    /// Only those that were drawn.
    pub only_sampled: bool,
    ids: Vec<ExperimentId>,
}

impl Selection {
    /// Of all experiments, or of these.
    pub fn of(experiments: Vec<Name>) -> Self {
        Self {
            ids: experiments.iter().map(ExperimentId::of).collect(),
            experiments,
            ..Self::default()
        }
    }

    fn has_experiment(&self, experiment: ExperimentId) -> bool {
        self.ids.is_empty() || self.ids.contains(&experiment)
    }

    fn has(&self, decision: &Decision) -> bool {
        self.has_experiment(decision.experiment)
            && self.since.is_none_or(|since| decision.at >= since)
            && self.until.is_none_or(|until| decision.at < until)
            && (!self.only_sampled || decision.reason == Reason::Sampled)
    }
}

/// The form of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A JSON object each.
    Jsonl,
    /// Comma-separated values (RFC 4180).
    Csv,
    /// What Vowpal Wabbit reads with `--dsjson --cb_explore_adf`; only decisions that were drawn and credited.
    Dsjson,
    /// Apache Parquet.
    #[cfg(feature = "parquet")]
    Parquet,
}

/// Takes rows and gives them a form.
pub trait Sink {
    /// Takes a row. False if it has no place in this form.
    fn row(&mut self, row: &Row<'_>) -> io::Result<bool>;

    /// Writes what is left. Nothing may be given afterwards.
    fn finish(&mut self) -> io::Result<()>;
}

/// A sink that writes `format` to `output`. `shape` has the features that get a column.
pub fn sink<'a>(
    format: Format,
    shape: &Shape,
    output: Box<dyn Write + Send + 'a>,
) -> io::Result<Box<dyn Sink + 'a>> {
    Ok(match format {
        Format::Jsonl => Box::new(jsonl::Jsonl::new(output)),
        Format::Csv => Box::new(csv::Csv::new(shape, output)),
        Format::Dsjson => Box::new(dsjson::Dsjson::new(output)),
        #[cfg(feature = "parquet")]
        Format::Parquet => Box::new(parquet::Parquet::new(shape, output)?),
    })
}

/// Where rows go.
pub trait Destination {
    /// Opens a sink for the rows of one experiment, or with `None` for those of all.
    fn open(&mut self, experiment: Option<&str>, shape: &Shape) -> io::Result<Box<dyn Sink>>;

    /// Whether each experiment has a sink of its own.
    fn is_split(&self) -> bool;
}

/// What was exported, and what was not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Rows that were written.
    pub rows: u64,
    /// Rows that have no place in the form.
    pub left_out: u64,
    /// Lines that could not be read.
    pub unreadable: u64,
    /// Stretches of the journal that are damaged, and groups that are missing.
    pub damaged: u64,
    /// Rewards whose rules are not in the journal any more, which were taken as `first`.
    pub unruled: u64,
}

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Segments read, in both passes.
    pub segments: u64,
    /// Segments to be read, in both passes.
    pub of: u64,
    /// Bytes of the segments read.
    pub bytes: u64,
}

/// Why nothing more could be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The journal cannot be read.
    #[error("journal: {doing}: {source}")]
    Read {
        /// What was being done.
        doing: String,
        /// The disk's error.
        source: io::Error,
    },
    /// A newer release has written here.
    #[error("journal: {segment}, byte {offset}: {source}")]
    Newer {
        /// The segment.
        segment: String,
        /// Where the line begins.
        offset: u64,
        /// What it is.
        source: RecordError,
    },
    /// An experiment was asked for that the journal does not have.
    #[error("the journal has no experiment `{name}`; it has {}", list(.known))]
    UnknownExperiment {
        /// The name.
        name: String,
        /// Those that it has.
        known: Vec<String>,
    },
    /// The rows cannot be written.
    #[error("cannot write: {0}")]
    Write(#[source] io::Error),
}

fn list(known: &[String]) -> String {
    if known.is_empty() {
        "none".to_owned()
    } else {
        known.join(", ")
    }
}

/// Exports the decisions of `selection` from the journal on `storage`; windows have closed as of `now`.
///
/// # Errors
///
/// See [`ExportError`]. What was written before is incomplete then.
pub fn export<S: Storage>(
    storage: &S,
    selection: &Selection,
    now: Timestamp,
    destination: &mut dyn Destination,
    progress: &mut dyn FnMut(Step),
) -> Result<Summary, ExportError> {
    let mut gathered = Gathered::default();
    let mut first = Pass::new(0, progress);
    first.run(storage, None, |line| gathered.line(line, selection))?;
    let mut summary = Summary {
        unreadable: first.unreadable,
        damaged: first.damaged,
        unruled: gathered.unruled,
        ..Summary::default()
    };
    gathered.last_group = first.last_group;
    let bytes = first.bytes;
    // In a journal whose beginning is gone, decisions may be there whose policies are not.
    let complete = first.first_group == Some(1);
    if complete {
        check_names(selection, |name| gathered.knows(name), &gathered)?;
    }
    let last_group = gathered.last_group;
    let mut rows = Rows::new(selection, &gathered, now, destination)?;
    let mut second = Pass::new(bytes, progress);
    second.run(storage, Some(last_group), |line| rows.line(line))?;
    if !complete {
        let seen = |name: &Name| gathered.knows(name) || rows.has_seen(name);
        check_names(selection, seen, &gathered)?;
    }
    rows.finish().map_err(ExportError::Write)?;
    (summary.rows, summary.left_out) = rows.counts();
    summary.unreadable += second.unreadable;
    Ok(summary)
}

fn check_names(
    selection: &Selection,
    is_known: impl Fn(&Name) -> bool,
    gathered: &Gathered,
) -> Result<(), ExportError> {
    match selection.experiments.iter().find(|name| !is_known(name)) {
        None => Ok(()),
        Some(name) => {
            let known = gathered.experiments();
            let mut known: Vec<String> = known.map(|(_, name)| name.to_string()).collect();
            known.sort();
            Err(ExportError::UnknownExperiment {
                name: name.to_string(),
                known,
            })
        }
    }
}

/// Why a line ends a pass.
enum LineError {
    Record(RecordError),
    Write(io::Error),
}

impl From<RecordError> for LineError {
    fn from(error: RecordError) -> Self {
        Self::Record(error)
    }
}

/// One of the two readings of the journal.
struct Pass<'a> {
    progress: &'a mut dyn FnMut(Step),
    second: bool,
    segment: String,
    bytes: u64,
    first_group: Option<u64>,
    last_group: u64,
    unreadable: u64,
    damaged: u64,
}

impl<'a> Pass<'a> {
    /// A pass after `bytes` were read; the first, if none were.
    fn new(bytes: u64, progress: &'a mut dyn FnMut(Step)) -> Self {
        Self {
            progress,
            second: bytes > 0,
            segment: String::new(),
            bytes,
            first_group: None,
            last_group: 0,
            unreadable: 0,
            damaged: 0,
        }
    }

    /// Gives every line of every group, up to the group numbered `until`.
    fn run<S: Storage, E: Into<LineError>>(
        &mut self,
        storage: &S,
        until: Option<u64>,
        mut give: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), ExportError> {
        let mut beyond = false;
        let flow = walk(storage, |sight| {
            match sight {
                Sight::Group(group) => {
                    beyond = until.is_some_and(|until| group.number > until);
                    self.first_group.get_or_insert(group.number);
                    self.last_group = self.last_group.max(group.number);
                    let strange = matches!(group.order, Order::After(_) | Order::Misnumbered);
                    self.damaged += u64::from(strange);
                }
                Sight::Line { offset, line } if !beyond => {
                    if let Err(error) = give(line) {
                        return self.fail(offset, error.into());
                    }
                }
                Sight::Unreadable { name, error } => {
                    return ControlFlow::Break(ExportError::Read {
                        doing: format!("cannot read {name}"),
                        source: error,
                    });
                }
                other => self.note(&other),
            }
            ControlFlow::Continue(())
        });
        let flow = flow.map_err(|source| ExportError::Read {
            doing: "cannot list the segments".to_owned(),
            source,
        })?;
        match flow {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(error) => Err(error),
        }
    }

    fn note(&mut self, sight: &Sight<'_>) {
        match sight {
            Sight::Segment { name, bytes } => {
                (*name).clone_into(&mut self.segment);
                self.bytes += bytes;
            }
            Sight::Damaged(_)
            | Sight::Tail {
                committed: true, ..
            }
            | Sight::Tail { last: false, .. } => self.damaged += 1,
            Sight::Done { segments, of } => (self.progress)(Step {
                segments: segments + if self.second { *of } else { 0 },
                of: 2 * of,
                bytes: self.bytes,
            }),
            _ => {}
        }
    }

    fn fail(&mut self, offset: u64, error: LineError) -> ControlFlow<ExportError> {
        match error {
            LineError::Write(error) => ControlFlow::Break(ExportError::Write(error)),
            LineError::Record(source @ RecordError::Newer { .. }) => {
                ControlFlow::Break(ExportError::Newer {
                    segment: self.segment.clone(),
                    offset,
                    source,
                })
            }
            LineError::Record(_) => {
                self.unreadable += 1;
                ControlFlow::Continue(())
            }
        }
    }
}

#[cfg(test)]
mod tests;
