//! The journal of a data directory, for commands that only read it: of a running server too, because no lock is taken and nothing is made.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use super::inputs;
use crate::config::settings::Settings;
use crate::journal::FileStorage;

/// Where the journal is.
#[derive(Debug, Args)]
pub(super) struct JournalArguments {
    /// The settings file; the default one may be missing.
    #[arg(long, default_value = inputs::CONFIG)]
    pub(super) config: PathBuf,
    /// The data directory, of a running server or of one that is stopped; beats `data.dir`.
    #[arg(long)]
    pub(super) data: Option<PathBuf>,
}

/// What they say.
pub(super) struct Opened {
    pub(super) settings: Settings,
    /// `data/journal`
    pub(super) directory: PathBuf,
    pub(super) storage: FileStorage,
}

/// Opens the journal for reading. `None` when the settings have problems; they are shown then.
pub(super) fn open(arguments: &JournalArguments) -> Result<Option<Opened>> {
    let data = arguments.data.as_ref();
    let flags = data.map(|data| ("data.dir".to_owned(), data.display().to_string()));
    let settings = match inputs::settings(&arguments.config, flags.into_iter().collect()) {
        Ok(settings) => settings,
        Err(problems) => {
            inputs::show(&problems);
            super::tell(&inputs::summary(&problems));
            return Ok(None);
        }
    };
    let directory = settings.data.dir.join("journal");
    if !directory.is_dir() {
        bail!(
            "there is no journal in {}: name the data directory with --data",
            settings.data.dir.display()
        );
    }
    Ok(Some(Opened {
        storage: FileStorage::existing(&directory),
        settings,
        directory,
    }))
}
