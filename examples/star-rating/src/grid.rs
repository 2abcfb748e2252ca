//! Hyper-parameter search: a full grid, judged on the validation split.
//!
//! The held-out reviews choose nothing: only the winner is scored on them, once.

use anyhow::{Context, Result};
use serde::Serialize;

use crate::cache::{Cache, write_atomically};
use crate::console::{Progress, Unit, line};
use crate::dataset;
use crate::evaluation::Evaluation;
use crate::features::{self, Setting};
use crate::optimise::{self, Fit};
use crate::reviews::Review;
use crate::variant::{Recipe, Variant};

const LEARNING_RATES: [f64; 3] = [0.001, 0.003, 0.01];
const WEIGHT_DECAYS: [f64; 3] = [0.0, 0.1, 1.0];
const MAX_LENGTHS: [usize; 3] = [32, 64, 128];
/// Rows of the table that are printed.
const SHOWN: usize = 10;

/// One point of the grid.
#[derive(Debug, Clone, Serialize)]
struct Point {
    max_length: usize,
    layers: usize,
    learning_rate: f64,
    weight_decay: f64,
    epoch: usize,
    validation_loss: f64,
    validation_accuracy: f64,
}

impl Point {
    fn new(max_length: usize, layers: usize, recipe: &Recipe, fit: &Fit) -> Self {
        Self {
            max_length,
            layers,
            learning_rate: recipe.learning_rate,
            weight_decay: recipe.weight_decay,
            epoch: fit.epoch,
            validation_loss: fit.validation_loss,
            validation_accuracy: fit.validation_accuracy,
        }
    }
}

#[derive(Debug, Serialize)]
struct Outcome<'a> {
    variant: &'a str,
    training: &'a Recipe,
    winner_held_out: &'a Evaluation,
    /// By validation loss, the best first.
    points: &'a [Point],
}

/// Searches the grid for `variant`, prints the best points and writes all to `cache/grid/NAME.json`.
///
/// # Errors
/// When the features cannot be made or the result cannot be written.
pub fn search(cache: &Cache, variant: &Variant, recipe: &Recipe, reviews: &[Review]) -> Result<()> {
    let training = dataset::training(reviews, recipe);
    let stars: Vec<u8> = training.iter().map(|review| review.star_rating).collect();
    let mut points = Vec::new();
    let mut winner = None;
    for max_length in MAX_LENGTHS {
        let setting = Setting {
            max_length,
            ..Setting::of(variant)
        };
        let features = features::features(cache, &setting, &training)?;
        let combinations = combinations(features.depth()?);
        let what = format!("grid, {max_length} tokens");
        let progress = Progress::start(&what, combinations.len() as u64, Unit::Items);
        for (layers, learning_rate, weight_decay) in combinations {
            let recipe = Recipe {
                learning_rate,
                weight_decay,
                ..recipe.clone()
            };
            let fit = optimise::fit(&features.after(layers)?, &stars, &recipe, |_| {})?;
            progress.advance(1);
            let best = points
                .iter()
                .all(|point: &Point| fit.validation_loss < point.validation_loss);
            points.push(Point::new(max_length, layers, &recipe, &fit));
            if best {
                winner = Some((setting.clone(), layers, fit.head));
            }
        }
        progress.finish();
    }
    let (setting, layers, head) = winner.context("the grid is empty")?;
    let held_out = dataset::held_out(reviews);
    let features = features::features(cache, &setting, &held_out)?.after(layers)?;
    let evaluation = Evaluation::new(&held_out, &optimise::predict_all(&head, &features)?);
    points.sort_by(|one, other| one.validation_loss.total_cmp(&other.validation_loss));
    report(
        cache,
        &Outcome {
            variant: &variant.name,
            training: recipe,
            winner_held_out: &evaluation,
            points: &points,
        },
    )
}

fn combinations(depth: usize) -> Vec<(usize, f64, f64)> {
    let mut all = Vec::new();
    for layers in 1..=depth {
        for learning_rate in LEARNING_RATES {
            for weight_decay in WEIGHT_DECAYS {
                all.push((layers, learning_rate, weight_decay));
            }
        }
    }
    all
}

fn report(cache: &Cache, outcome: &Outcome<'_>) -> Result<()> {
    line(&format!(
        "{}: the best of {} points by validation loss",
        outcome.variant,
        outcome.points.len()
    ))?;
    line("max_length  layers  learning_rate  weight_decay  epoch  validation loss  accuracy")?;
    for point in outcome.points.iter().take(SHOWN) {
        line(&format!(
            "{:>10}  {:>6}  {:>13}  {:>12}  {:>5}  {:>15.4}  {:>8.3}",
            point.max_length,
            point.layers,
            point.learning_rate,
            point.weight_decay,
            point.epoch,
            point.validation_loss,
            point.validation_accuracy
        ))?;
    }
    line("the first of these on the held-out reviews:")?;
    for row in outcome.winner_held_out.table() {
        line(&row)?;
    }
    cache.make_directory("grid")?;
    let path = cache.path(&format!("grid/{}.json", outcome.variant));
    let text = serde_json::to_string_pretty(outcome)?;
    write_atomically(&path, |out| Ok(writeln!(out, "{text}")?))?;
    line(&format!("all points: {}", path.display()))
}
