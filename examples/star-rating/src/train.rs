//! `star-rating train`: makes the variants' heads and says how good they are.
//!
//! A head is trained on frozen features and committed. With `--tune-layers` the top of the encoder
//! is trained too; those megabytes stay in the cache. With `--grid` hyper-parameters are searched.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::cache::{Cache, CacheArgs, partial_name, write_atomically};
use crate::clock::Stopwatch;
use crate::console::{Progress, Unit, line, note};
use crate::dataset;
use crate::evaluation::Evaluation;
use crate::features::{self, Setting};
use crate::optimise::{self, Fit};
use crate::reviews::{self, Review};
use crate::variant::{Recipe, Variant, committed_directory, load_all};
use crate::{grid, threads, tune};

/// Options of `star-rating train`.
#[derive(Debug, Clone, clap::Args)]
#[group(id = "which", required = true, multiple = false, args = ["variant", "all"])]
pub struct Args {
    /// The variant file to train (may be given several times)
    #[arg(long, value_name = "FILE")]
    variant: Vec<PathBuf>,
    /// Train every committed variant
    #[arg(long)]
    all: bool,
    /// Also train the top N encoder layers; result: cache/tuned/NAME.safetensors
    #[arg(long, value_name = "N")]
    tune_layers: Option<usize>,
    /// Search learning rate, weight decay, layers and maximum length; result: cache/grid/NAME.json
    #[arg(long, conflicts_with = "tune_layers")]
    grid: bool,
    /// At most N training reviews of each domain [default: the recipe's; 2000 with --tune-layers or --grid]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    cache: CacheArgs,
}

/// At most this many training reviews per domain where each costs a run of the encoder.
const COSTLY_LIMIT: usize = 2000;

/// What is written beside a head.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// The variant's name.
    pub variant: String,
    /// The command that made this file and the head beside it.
    pub command: String,
    /// See [`Variant::encoder`].
    pub encoder: String,
    /// See [`Variant::layers`].
    pub layers: usize,
    /// See [`Variant::max_length`].
    pub max_length: usize,
    /// How many of the layers were trained, from the top.
    pub tuned_layers: usize,
    /// The recipe as used.
    pub training: Recipe,
    /// Reviews trained or validated on.
    pub training_count: usize,
    /// The epoch that was kept, from 1.
    pub epoch: usize,
    /// Mean negative log-likelihood on the validation split.
    pub validation_loss: f64,
    /// Accuracy on the validation split.
    pub validation_accuracy: f64,
    /// Scores on the held-out reviews, which trained and chose nothing.
    pub held_out: Evaluation,
}

/// Runs `star-rating train`.
///
/// # Errors
/// When a variant file, the encoder or the reviews are missing or wrong; says what to do.
pub fn run(args: &Args) -> Result<()> {
    threads::one_per_sum()?;
    let cache = args.cache.cache();
    let variants = if args.all {
        load_all(&committed_directory())?
    } else {
        args.variant
            .iter()
            .map(|path| Variant::load(path))
            .collect::<Result<_>>()?
    };
    let reviews = reviews::load(&cache)?;
    let command = invocation();
    for variant in &variants {
        let watch = Stopwatch::start();
        if args.grid {
            let recipe = variant.training.limited(args.limit.unwrap_or(COSTLY_LIMIT));
            grid::search(&cache, variant, &recipe, &reviews)?;
        } else if let Some(top) = args.tune_layers {
            let recipe = variant.training.limited(args.limit.unwrap_or(COSTLY_LIMIT));
            let metrics = tune::tune(&cache, variant, &recipe, top, &reviews, &command)?;
            report(&metrics)?;
        } else {
            let recipe = variant.training.limited(args.limit.unwrap_or(usize::MAX));
            let metrics = train_head(&cache, variant, &recipe, &reviews, &command)?;
            report(&metrics)?;
        }
        note(&format!(
            "train: {} took {:.1} s",
            variant.name,
            watch.elapsed().as_secs_f64()
        ));
    }
    Ok(())
}

/// Trains the head of `variant` on frozen features and writes it with its metrics.
///
/// # Errors
/// When the features cannot be made, or the head cannot be written.
pub fn train_head(
    cache: &Cache,
    variant: &Variant,
    recipe: &Recipe,
    reviews: &[Review],
    command: &str,
) -> Result<Metrics> {
    let (fit, held_out) = fit_and_evaluate(cache, variant, recipe, reviews)?;
    let metrics = Metrics::new(variant, recipe, 0, &fit, held_out, reviews, command);
    save_tensors(&fit.head.to_tensors()?, &variant.head)?;
    metrics.save(&variant.metrics_path())?;
    Ok(metrics)
}

fn fit_and_evaluate(
    cache: &Cache,
    variant: &Variant,
    recipe: &Recipe,
    reviews: &[Review],
) -> Result<(Fit, Evaluation)> {
    let setting = Setting::of(variant);
    let training = dataset::training(reviews, recipe);
    let features = features::features(cache, &setting, &training)?.after(variant.layers)?;
    let stars: Vec<u8> = training.iter().map(|review| review.star_rating).collect();
    let progress = Progress::start(
        &format!("train {}", variant.name),
        recipe.epochs as u64,
        Unit::Items,
    );
    let fit = optimise::fit(&features, &stars, recipe, |_| progress.advance(1))?;
    progress.finish();
    let held_out = dataset::held_out(reviews);
    let features = features::features(cache, &setting, &held_out)?.after(variant.layers)?;
    let predicted = optimise::predict_all(&fit.head, &features)?;
    Ok((fit, Evaluation::new(&held_out, &predicted)))
}

impl Metrics {
    /// The metrics of a fit.
    pub fn new(
        variant: &Variant,
        recipe: &Recipe,
        tuned_layers: usize,
        fit: &Fit,
        held_out: Evaluation,
        reviews: &[Review],
        command: &str,
    ) -> Self {
        Self {
            variant: variant.name.clone(),
            command: command.to_owned(),
            encoder: variant.encoder.clone(),
            layers: variant.layers,
            max_length: variant.max_length,
            tuned_layers,
            training: recipe.clone(),
            training_count: dataset::training(reviews, recipe).len(),
            epoch: fit.epoch,
            validation_loss: fit.validation_loss,
            validation_accuracy: fit.validation_accuracy,
            held_out,
        }
    }

    /// Reads metrics.
    ///
    /// # Errors
    /// When they are missing or damaged.
    pub fn load(path: &Path) -> Result<Self> {
        let attempt = || -> Result<Self> { Ok(serde_json::from_str(&fs::read_to_string(path)?)?) };
        attempt().with_context(|| {
            format!(
                "no usable metrics in {}: make them with `star-rating train`",
                path.display()
            )
        })
    }

    /// Writes metrics.
    ///
    /// # Errors
    /// When `path` cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        write_atomically(path, |out| Ok(writeln!(out, "{text}")?))
    }
}

/// Writes tensors as safetensors, whole or not at all.
///
/// # Errors
/// When `path` cannot be written.
pub(crate) fn save_tensors(tensors: &HashMap<String, Tensor>, path: &Path) -> Result<()> {
    let partial = partial_name(path);
    let attempt = || -> Result<()> {
        candle_core::safetensors::save(tensors, &partial)?;
        fs::rename(&partial, path)?;
        Ok(())
    };
    attempt().with_context(|| format!("cannot write {}", path.display()))
}

fn report(metrics: &Metrics) -> Result<()> {
    line(&format!(
        "{}: {} cut to {} layers, {} tuned, {} training reviews, epoch {}, validation accuracy {:.3}",
        metrics.variant,
        metrics.encoder,
        metrics.layers,
        metrics.tuned_layers,
        metrics.training_count,
        metrics.epoch,
        metrics.validation_accuracy
    ))?;
    for row in metrics.held_out.table() {
        line(&row)?;
    }
    line("")
}

/// The command line as typed, but with the binary's name only.
fn invocation() -> String {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    format!("star-rating {}", arguments.join(" "))
}

/// Checks that `top` layers of `variant` can be tuned.
///
/// # Errors
/// When there are not so many.
pub fn check_top(variant: &Variant, top: usize) -> Result<()> {
    ensure!(
        top > 0,
        "--tune-layers 0 tunes nothing: leave the option out to train the head alone"
    );
    if top > variant.layers {
        bail!(
            "--tune-layers {top}: {} has {} layers",
            variant.name,
            variant.layers
        );
    }
    Ok(())
}
