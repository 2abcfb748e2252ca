//! Reading the policies folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::compile::{Source, compile};
use super::settings::Settings;
use crate::document::Problem;
use crate::experiment::Experiment;

/// Compiled policies.
#[derive(Debug)]
pub struct Loaded {
    /// Most specific first.
    pub experiments: Vec<Arc<Experiment>>,
    /// What should be looked at, but does not keep the files from serving.
    pub warnings: Vec<Problem>,
}

/// Reads and compiles every policy file under `paths` (files, or folders of `*.toml`).
///
/// # Errors
///
/// Every problem of every file.
pub fn policies(paths: &[PathBuf], settings: &Settings) -> Result<Loaded, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut sources = Vec::new();
    for path in paths {
        match files(path, settings) {
            Ok(files) => files.iter().for_each(|file| match read(file, settings) {
                Ok(source) => sources.push(source),
                Err(problem) => problems.push(problem),
            }),
            Err(problem) => problems.push(problem),
        }
    }
    if sources.is_empty() && problems.is_empty() {
        let folders: Vec<String> = paths
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        let warning = Problem::of_file(
            folders.join(", "),
            "there is no policy file, so every request will be a 404",
        )
        .help("`pointsman init` writes a first one")
        .as_warning();
        return Ok(Loaded {
            experiments: Vec::new(),
            warnings: vec![warning],
        });
    }
    match compile(&sources, settings) {
        Ok(loaded) if problems.is_empty() => Ok(loaded),
        Ok(loaded) => Err([problems, loaded.warnings].concat()),
        Err(more) => Err([problems, more].concat()),
    }
}

/// The policy files of a folder, sorted; a file is itself. Hidden ones are no policies: a mounted ConfigMap keeps its
/// own bookkeeping in names that start with two dots.
fn files(path: &Path, settings: &Settings) -> Result<Vec<PathBuf>, Problem> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let unreadable = |error: std::io::Error| {
        let help = "give the folder of policy files with --policies, or make a first one with `pointsman init`";
        Problem::of_file(
            path.display().to_string(),
            format!("the policies cannot be read: {error}"),
        )
        .help(help)
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        let hidden = file
            .file_name()
            .is_none_or(|name| name.to_string_lossy().starts_with('.'));
        if !hidden
            && file
                .extension()
                .is_some_and(|extension| extension == "toml")
            && file.is_file()
        {
            files.push(file);
        }
    }
    files.sort();
    if files.len() > settings.limits.policy_files {
        let message = format!(
            "{} policy files are more than limits.policy_files = {}",
            files.len(),
            settings.limits.policy_files
        );
        return Err(Problem::of_file(path.display().to_string(), message)
            .help("raise the limit in pointsman.toml"));
    }
    Ok(files)
}

fn read(path: &Path, settings: &Settings) -> Result<Source, Problem> {
    let file = path.display().to_string();
    let limit = settings.limits.policy_file as u64;
    let size = fs::metadata(path)
        .map_err(|error| Problem::of_file(&file, format!("cannot be read: {error}")))?
        .len();
    if size > limit {
        let message = format!("{size} bytes are more than limits.policy_file = {limit}");
        return Err(Problem::of_file(file, message).help("raise the limit in pointsman.toml"));
    }
    let bytes = fs::read(path)
        .map_err(|error| Problem::of_file(&file, format!("cannot be read: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        Problem::of_file(&file, format!("is not UTF-8: {error}")).help("save the file as UTF-8")
    })?;
    Ok(Source {
        file,
        stem: path
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned())
            .unwrap_or_default(),
        text,
    })
}

/// See [`fingerprint`].
pub type Fingerprint = Option<[u8; 32]>;

/// A hash over names and contents of the policy files in a folder: it changes when, and only when, they do. `None` when they
/// cannot be read.
pub fn fingerprint(path: &Path, settings: &Settings) -> Fingerprint {
    let mut hasher = blake3::Hasher::new();
    for file in files(path, settings).ok()? {
        let bytes = fs::read(&file).ok()?;
        hasher
            .update(file.as_os_str().as_encoded_bytes())
            .update(&[0]);
        hasher
            .update(&(bytes.len() as u64).to_le_bytes())
            .update(&bytes);
    }
    Some(*hasher.finalize().as_bytes())
}
