//! Trains the top layers of an encoder together with the variant's head, starting from both.
//!
//! The starting head has seen the reviews that validate here, so validation figures flatter; the
//! held-out ones do not.
//!
//! The layers below are frozen, so they run once and their output is kept in memory. What is
//! written (the tuned layers and the head, megabytes) belongs to the cache and is never committed.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor, Var};
use candle_nn::loss::cross_entropy;
use candle_nn::{AdamW, Optimizer};

use crate::cache::Cache;
use crate::console::{Progress, Unit, line};
use crate::dataset::{self, validation_split};
use crate::encoder::{Batch, Config, Encoder, Mode, layer_weight_names};
use crate::evaluation::Evaluation;
use crate::fetch::TOKENIZER_FILE;
use crate::head::{BIAS_NAME, Head, WEIGHT_NAME};
use crate::model::Model;
use crate::optimise::{Fit, accuracy, adam_w};
use crate::random::SplitMix64;
use crate::reviews::Review;
use crate::text::TextReader;
use crate::train::{Metrics, check_top, save_tensors};
use crate::variant::{Pooling, Recipe, Variant};

const LEARNING_RATE: f64 = 2e-4;
const WEIGHT_DECAY: f64 = 0.01;
const EPOCHS: usize = 3;
const BATCH: usize = 16;

/// Reviews of similar length, with what the frozen layers say about them.
struct Prepared {
    batch: Batch,
    hidden: Tensor,
    /// 0 to 4.
    labels: Tensor,
    count: usize,
}

/// Tunes the top `top` layers of `variant` and its head; writes `cache/tuned/NAME.safetensors`.
///
/// # Errors
/// When a file is missing, there are not so many layers, or the result cannot be written.
pub fn tune(
    cache: &Cache,
    variant: &Variant,
    recipe: &Recipe,
    top: usize,
    reviews: &[Review],
    command: &str,
) -> Result<Metrics> {
    check_top(variant, top)?;
    let recipe = Recipe {
        learning_rate: LEARNING_RATE,
        weight_decay: WEIGHT_DECAY,
        batch_size: BATCH,
        epochs: EPOCHS,
        patience: 1,
        ..recipe.clone()
    };
    let training = dataset::training(reviews, &recipe);
    let (train, validation) = validation_split(training.len(), recipe.seed);
    ensure!(
        !validation.is_empty(),
        "{} training reviews are too few",
        training.len()
    );
    let mut tuner = Tuner::new(cache, variant, top)?;
    let prepare = |tuner: &Tuner, indices: &[usize]| -> Result<Vec<Prepared>> {
        let members: Vec<&Review> = indices.iter().map(|index| training[*index]).collect();
        tuner.prepare(&members)
    };
    let (train, validation) = (prepare(&tuner, &train)?, prepare(&tuner, &validation)?);
    cache.make_directory("tuned")?;
    let path = cache.path(&format!("tuned/{}.safetensors", variant.name));
    let fit = tuner.fit(&train, &validation, &recipe, |tensors| {
        save_tensors(tensors, &path)
    })?;
    let held_out = dataset::held_out(reviews);
    let model = Model::load_tuned(cache, variant, &path)?;
    let evaluation = evaluate(&model, &held_out)?;
    let metrics = Metrics::new(variant, &recipe, top, &fit, evaluation, reviews, command);
    metrics.save(&path.with_extension("json"))?;
    line(&format!(
        "tuned layers: {} (serve them with `serve --variant FILE --tuned THIS`)",
        path.display()
    ))?;
    Ok(metrics)
}

fn evaluate(model: &Model, reviews: &[&Review]) -> Result<Evaluation> {
    let progress = Progress::start("evaluate", reviews.len() as u64, Unit::Items);
    let mut predicted = Vec::with_capacity(reviews.len());
    for review in reviews {
        predicted.push(model.predict(&review.text())?.stars());
        progress.advance(1);
    }
    progress.finish();
    Ok(Evaluation::new(reviews, &predicted))
}

struct Tuner {
    reader: TextReader,
    encoder: Encoder,
    pooling: Pooling,
    frozen: usize,
    /// What is trained, by name.
    trained: HashMap<String, Var>,
}

impl Tuner {
    fn new(cache: &Cache, variant: &Variant, top: usize) -> Result<Self> {
        let reader = TextReader::load(&cache.require(TOKENIZER_FILE)?, variant.max_length)?;
        let path = cache.require(&format!("{}/model.safetensors", variant.encoder))?;
        let config = Config::load(&cache.path(&format!("{}/config.json", variant.encoder)))?;
        let mut weights = candle_core::safetensors::load(&path, &Device::Cpu)
            .with_context(|| format!("cannot read {}: run `star-rating fetch`", path.display()))?;
        let frozen = variant.layers - top;
        let mut trained = HashMap::new();
        for name in (frozen..variant.layers).flat_map(layer_weight_names) {
            let weight = weights
                .get(&name)
                .with_context(|| format!("the weight {name:?} is missing"))?;
            let variable = Var::from_tensor(weight)?;
            // The layers of the encoder share storage with the variables, so they see every step.
            weights.insert(name.clone(), variable.as_tensor().clone());
            trained.insert(name, variable);
        }
        // From a fitted head the layers are pulled the right way from the first step on
        // (Kumar et al., 2022).
        for (name, tensor) in Head::load(&variant.head)?.to_tensors()? {
            trained.insert(name, Var::from_tensor(&tensor)?);
        }
        let encoder = Encoder::new(config, &weights, variant.layers)?;
        Ok(Self {
            reader,
            encoder,
            pooling: variant.pooling,
            frozen,
            trained,
        })
    }

    fn prepare(&self, reviews: &[&Review]) -> Result<Vec<Prepared>> {
        let mut texts: Vec<(Vec<u32>, u32)> = reviews
            .iter()
            .map(|review| {
                Ok((
                    self.reader.read(&review.text())?,
                    u32::from(review.star_rating) - 1,
                ))
            })
            .collect::<Result<_>>()?;
        texts.sort_by_key(|(ids, _)| ids.len());
        let progress = Progress::start("frozen layers", reviews.len() as u64, Unit::Items);
        let prepared = texts
            .chunks(BATCH)
            .map(|members| {
                let ids: Vec<&[u32]> = members.iter().map(|(ids, _)| ids.as_slice()).collect();
                let batch = Batch::new(&ids)?;
                let hidden = self.encoder.embed(&batch)?;
                let hidden = self
                    .encoder
                    .run(hidden, &batch, 0..self.frozen, Mode::Inference)?;
                let labels: Vec<u32> = members.iter().map(|(_, label)| *label).collect();
                progress.advance(members.len() as u64);
                Ok(Prepared {
                    batch,
                    hidden,
                    labels: Tensor::from_vec(labels, members.len(), &Device::Cpu)?,
                    count: members.len(),
                })
            })
            .collect();
        progress.finish();
        prepared
    }

    fn logits(&self, prepared: &Prepared, mode: Mode) -> Result<Tensor> {
        let range = self.frozen..self.encoder.depth();
        let hidden = self
            .encoder
            .run(prepared.hidden.clone(), &prepared.batch, range, mode)?;
        let features = self.pooling.pool(&hidden, prepared.batch.mask())?;
        let weight = self.trained[WEIGHT_NAME].as_tensor();
        Ok(features
            .matmul(&weight.t()?)?
            .broadcast_add(self.trained[BIAS_NAME].as_tensor())?)
    }

    /// `keep` writes down the best state whenever there is a better one.
    fn fit(
        &mut self,
        train: &[Prepared],
        validation: &[Prepared],
        recipe: &Recipe,
        keep: impl Fn(&HashMap<String, Tensor>) -> Result<()>,
    ) -> Result<Fit> {
        let mut names: Vec<&String> = self.trained.keys().collect();
        names.sort();
        let variables = names
            .into_iter()
            .map(|name| self.trained[name].clone())
            .collect();
        let mut optimiser = AdamW::new(variables, adam_w(recipe))?;
        let mut generator = SplitMix64::new(recipe.seed);
        let mut order: Vec<&Prepared> = train.iter().collect();
        let mut best: Option<Fit> = None;
        for epoch in 1..=recipe.epochs {
            generator.shuffle(&mut order);
            let what = format!("tune, epoch {epoch} of {}", recipe.epochs);
            let progress = Progress::start(&what, train.len() as u64, Unit::Items);
            for prepared in &order {
                let logits = self.logits(prepared, Mode::Training)?;
                optimiser.backward_step(&cross_entropy(&logits, &prepared.labels)?)?;
                progress.advance(1);
            }
            progress.finish();
            let (loss, accuracy) = self.validate(validation)?;
            ensure!(loss.is_finite(), "the tuning diverged");
            if best
                .as_ref()
                .is_some_and(|best| loss >= best.validation_loss)
            {
                break;
            }
            let tensors: HashMap<String, Tensor> = self
                .trained
                .iter()
                .map(|(name, variable)| (name.clone(), variable.as_tensor().clone()))
                .collect();
            keep(&tensors)?;
            best = Some(Fit {
                head: Head::from_tensors(&tensors[WEIGHT_NAME], &tensors[BIAS_NAME])?,
                epoch,
                validation_loss: loss,
                validation_accuracy: accuracy,
            });
        }
        best.context("no epochs")
    }

    fn validate(&self, validation: &[Prepared]) -> Result<(f64, f64)> {
        let (mut loss, mut hits, mut count) = (0.0, 0.0, 0.0);
        for prepared in validation {
            let logits = self.logits(prepared, Mode::Inference)?;
            let size = prepared.count as f64;
            let mean = cross_entropy(&logits, &prepared.labels)?;
            loss += f64::from(mean.to_scalar::<f32>()?) * size;
            hits += accuracy(&logits, &prepared.labels)? * size;
            count += size;
        }
        Ok((loss / count, hits / count))
    }
}
