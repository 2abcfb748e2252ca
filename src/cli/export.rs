//! `pointsman export`: decisions joined with what became of them, for other tools.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use super::journal::{self, JournalArguments};
use super::progress::{self, Bar};
use super::{USAGE, inputs};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::document::parse_duration;
use crate::experiment::id::Name;
use crate::export::{self, Destination, ExportError, Selection, Shape, Sink, Summary};

/// `pointsman export`.
#[derive(Debug, Args)]
pub(super) struct ExportArguments {
    #[command(flatten)]
    journal: JournalArguments,
    /// The form of the rows.
    #[arg(long, value_enum)]
    format: Format,
    /// Only this experiment; may be given several times [default: all].
    #[arg(long, value_name = "NAME", value_parser = name)]
    experiment: Vec<Name>,
    /// Only decisions made then or later: `2026-11-01`, `2026-11-01T12:00:00Z`, or how long ago: `7d`, `12h`.
    #[arg(long, value_name = "WHEN", value_parser = when)]
    since: Option<When>,
    /// Only decisions made before then; likewise.
    #[arg(long, value_name = "WHEN", value_parser = when)]
    until: Option<When>,
    /// Which decisions.
    #[arg(long, value_enum, default_value_t = Reasons::All)]
    reason: Reasons,
    /// Write a file for each experiment into this folder [default: all to standard output].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Replace files that are there.
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A JSON object a line.
    Jsonl,
    /// Comma-separated values.
    Csv,
    /// For Vowpal Wabbit: `--dsjson --cb_explore_adf`.
    Dsjson,
    /// Apache Parquet; needs --out.
    Parquet,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Reasons {
    /// All.
    All,
    /// Only those that were drawn.
    Sampled,
}

#[derive(Debug, Clone, Copy)]
enum When {
    At(Timestamp),
    /// So many milliseconds ago.
    Ago(u64),
}

impl When {
    fn from(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::Ago(millis) => Timestamp::from_millis(now.as_millis().saturating_sub(millis)),
        }
    }
}

fn name(text: &str) -> Result<Name, String> {
    Name::new(text).map_err(|error| error.to_string())
}

fn when(text: &str) -> Result<When, String> {
    if let Some(millis) = parse_duration(text) {
        return Ok(When::Ago(millis));
    }
    let time = text
        .parse::<jiff::Timestamp>()
        .or_else(|_| format!("{text}T00:00:00Z").parse())
        .ok();
    time.and_then(|time| u64::try_from(time.as_millisecond()).ok())
        .map(|millis| When::At(Timestamp::from_millis(millis)))
        .ok_or_else(|| {
            "is neither a time (2026-11-01T12:00:00Z), nor a day (2026-11-01, which begins at midnight UTC), nor how long ago (7d, 12h, 30m)".to_owned()
        })
}

impl Format {
    #[cfg_attr(
        feature = "parquet",
        expect(
            clippy::unnecessary_wraps,
            reason = "fails only in builds without Parquet"
        )
    )]
    fn form(self) -> Result<export::Format> {
        Ok(match self {
            Self::Jsonl => export::Format::Jsonl,
            Self::Csv => export::Format::Csv,
            Self::Dsjson => export::Format::Dsjson,
            #[cfg(feature = "parquet")]
            Self::Parquet => export::Format::Parquet,
            #[cfg(not(feature = "parquet"))]
            Self::Parquet => anyhow::bail!(
                "this build cannot write Parquet: build it with `cargo install --path . --features parquet`, or export csv or jsonl, from \
                 which DuckDB makes it: COPY (FROM 'file.jsonl') TO 'file.parquet'"
            ),
        })
    }

    fn extension(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
            Self::Dsjson => "dsjson",
            Self::Parquet => "parquet",
        }
    }
}

/// Exports; what is left out is told on standard error.
pub(super) fn run(arguments: &ExportArguments) -> Result<ExitCode> {
    let now = SystemClock.now();
    let (since, until) = (
        arguments.since.map(|when| when.from(now)),
        arguments.until.map(|when| when.from(now)),
    );
    if arguments.format == Format::Parquet && arguments.out.is_none() {
        super::tell("error: Parquet goes into files: name a folder with --out DIR");
        return Ok(ExitCode::from(USAGE));
    }
    if since
        .zip(until)
        .is_some_and(|(since, until)| since >= until)
    {
        super::tell("error: --since is not before --until, so no decision is between them");
        return Ok(ExitCode::from(USAGE));
    }
    let form = arguments.format.form()?;
    let Some(opened) = journal::open(&arguments.journal)? else {
        return Ok(ExitCode::FAILURE);
    };
    let mut selection = Selection::of(arguments.experiment.clone());
    selection.since = since;
    selection.until = until;
    selection.only_sampled = arguments.reason == Reasons::Sampled;
    let bar = Bar::new();
    let mut progress = |step: export::Step| {
        let read = format!("{} read", progress::bytes(step.bytes));
        bar.show(step.segments, step.of, &read);
    };
    let mut files = arguments
        .out
        .as_ref()
        .map(|directory| Files::new(directory, arguments, form))
        .transpose()?;
    let mut stdout = Stdout(form);
    let destination: &mut dyn Destination = match &mut files {
        Some(files) => files,
        None => &mut stdout,
    };
    let exported = export::export(&opened.storage, &selection, now, destination, &mut progress);
    bar.clear();
    let summary = match exported {
        // Whoever read has had enough.
        Err(ExportError::Write(error))
            if files.is_none() && error.kind() == ErrorKind::BrokenPipe =>
        {
            return Ok(ExitCode::SUCCESS);
        }
        exported => exported?,
    };
    if let Some(files) = files {
        let told = files.keep()?;
        super::tell(&format!(
            "{}: {told}",
            inputs::count(summary.rows as usize, "row")
        ));
    }
    warn(&summary);
    Ok(ExitCode::SUCCESS)
}

fn warn(summary: &Summary) {
    if summary.left_out > 0 {
        super::tell(&format!(
            "left out: {} that teach nothing, because they were not drawn, or have no reward (yet), or what they were drawn from is not known",
            inputs::count(summary.left_out as usize, "decision")
        ));
    }
    if summary.unreadable > 0 || summary.damaged > 0 {
        super::tell(
            "warning: parts of the journal are damaged or missing, and so are their rows: `pointsman verify` says which",
        );
    }
    if summary.unruled > 0 {
        super::tell(&format!(
            "warning: {} of experiments whose policy file is not in the journal any more: of several for one decision, the first is taken",
            inputs::count(summary.unruled as usize, "reward")
        ));
    }
}

/// Standard output.
struct Stdout(export::Format);

impl Destination for Stdout {
    fn open(&mut self, _experiment: Option<&str>, shape: &Shape) -> io::Result<Box<dyn Sink>> {
        export::sink(self.0, shape, Box::new(io::stdout()))
    }

    fn is_split(&self) -> bool {
        false
    }
}

/// A file for each experiment, written aside and given its name when all is there.
struct Files {
    directory: PathBuf,
    format: export::Format,
    extension: &'static str,
    force: bool,
    written: Vec<Written>,
    /// Names that were taken.
    names: BTreeSet<String>,
}

struct Written {
    file: File,
    aside: PathBuf,
    path: PathBuf,
}

impl Files {
    fn new(directory: &Path, arguments: &ExportArguments, format: export::Format) -> Result<Self> {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        Ok(Self {
            directory: directory.to_owned(),
            format,
            extension: arguments.format.extension(),
            force: arguments.force,
            written: Vec::new(),
            names: BTreeSet::new(),
        })
    }

    /// Gives all files their names; says which.
    fn keep(mut self) -> Result<String> {
        let mut told = Vec::new();
        for Written { file, aside, path } in self.written.drain(..) {
            let shown = path.display().to_string();
            file.sync_all()
                .and_then(|()| fs::rename(&aside, &path))
                .with_context(|| format!("cannot write {shown}"))?;
            told.push(shown);
        }
        Ok(if told.is_empty() {
            "no file was written".to_owned()
        } else {
            told.join(", ")
        })
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for written in &self.written {
            // What is left over tells by its name that it may be deleted.
            drop(fs::remove_file(&written.aside));
        }
    }
}

impl Destination for Files {
    fn open(&mut self, experiment: Option<&str>, shape: &Shape) -> io::Result<Box<dyn Sink>> {
        let name = format!("{}.{}", experiment.unwrap_or("all"), self.extension);
        let path = self.directory.join(&name);
        if path.exists() && !self.force {
            let told = format!("{} is there: use --force to replace it", path.display());
            return Err(io::Error::new(ErrorKind::AlreadyExists, told));
        }
        // On a file system that does not tell case, two experiments may have the same file.
        if !self.names.insert(name.to_lowercase()) {
            let told = format!(
                "two experiments would be written to {}: export them by --experiment",
                path.display()
            );
            return Err(io::Error::new(ErrorKind::AlreadyExists, told));
        }
        let aside = self
            .directory
            .join(format!(".{name}.{}.unfinished", std::process::id()));
        let file = File::create_new(&aside)?;
        let output = Box::new(file.try_clone()?);
        self.written.push(Written { file, aside, path });
        export::sink(self.format, shape, output)
    }

    fn is_split(&self) -> bool {
        true
    }
}
