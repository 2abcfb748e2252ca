//! Features, training, tuning, search and predictions, end to end on the tiny BERT.

use std::fs;
use std::path::PathBuf;

use star_rating::cache::{Cache, write_atomically};
use star_rating::model::Model;
use star_rating::predict::predict;
use star_rating::reviews::{REVIEWS_FILE, Review, write_table};
use star_rating::train::{Metrics, train_head};
use star_rating::variant::Variant;
use star_rating::{dataset, grid, reviews, tune};

use crate::tiny;

/// A cache with the tiny encoder and reviews whose stars follow from their words, and a variant file.
struct Workshop {
    directory: PathBuf,
    cache: Cache,
    variant: Variant,
    reviews: Vec<Review>,
}

const VARIANT: &str = r#"
description = "tiny"
encoder = "minilm-l6"
layers = 2
pooling = "mean"
max_length = 16
head = "tiny.safetensors"
[training]
clothing = 200
electronics = 50
seed = 1
learning_rate = 0.05
weight_decay = 0.0
batch_size = 32
epochs = 40
patience = 10
"#;

impl Workshop {
    fn open(name: &str) -> Self {
        let directory = tiny::scratch(name);
        let cache = Cache::at(&directory.join("cache"));
        tiny::write_files_into(&cache.make_directory("minilm-l6").unwrap());
        let table: Vec<Review> = (0..2300).map(review).collect();
        write_atomically(&cache.path(REVIEWS_FILE), |out| write_table(&table, out)).unwrap();
        let path = directory.join("tiny.toml");
        fs::write(&path, VARIANT).unwrap();
        let variant = Variant::load(&path).unwrap();
        let reviews = reviews::load(&cache).unwrap();
        Self {
            directory,
            cache,
            variant,
            reviews,
        }
    }

    fn train(&self) -> Metrics {
        let recipe = &self.variant.training;
        train_head(&self.cache, &self.variant, recipe, &self.reviews, "test").unwrap()
    }

    fn close(self) {
        fs::remove_dir_all(self.directory).unwrap();
    }
}

fn review(index: usize) -> Review {
    let category = ["Tops", "Electronics", "Tops", "Movies"][index % 4];
    let (body, stars) = [
        ("the dress is good", 5),
        ("a bad bad dress", 1),
        ("the movie", 3),
    ][index % 3];
    Review {
        review_id: format!("T{index}"),
        product_id: "P".to_owned(),
        product_parent: "P".to_owned(),
        product_title: "P".to_owned(),
        product_category: category.to_owned(),
        star_rating: stars,
        helpful_votes: 0,
        review_headline: String::new(),
        review_body: body.to_owned(),
    }
}

#[test]
fn a_head_is_trained_saved_and_used() {
    let workshop = Workshop::open("train");
    let metrics = workshop.train();
    assert_eq!(metrics.held_out.all.accuracy, 1.0, "{metrics:?}");
    assert_eq!(metrics.training_count, 250);
    let saved = Metrics::load(&workshop.variant.metrics_path()).unwrap();
    assert_eq!(saved.held_out.all.accuracy, 1.0);
    assert_eq!(
        (saved.epoch, saved.training),
        (metrics.epoch, metrics.training.clone())
    );
    // Again, from cached features: the same head.
    let head = fs::read(&workshop.variant.head).unwrap();
    assert_eq!(workshop.train(), metrics);
    assert_eq!(fs::read(&workshop.variant.head).unwrap(), head);

    let model = Model::load(&workshop.cache, &workshop.variant).unwrap();
    assert_eq!(model.predict("A bad, bad dress").unwrap().stars(), 1);
    let held_out = dataset::held_out(&workshop.reviews);
    let variants = [workshop.variant.clone()];
    let table = predict(&workshop.cache, &variants, &held_out[..20]).unwrap();
    assert!(
        table
            .rows
            .iter()
            .all(|row| row.answers[0].stars == row.star_rating)
    );
    // Cached answers come back with their latencies (rounded as they are written).
    let again = predict(&workshop.cache, &variants, &held_out[..20]).unwrap();
    assert_eq!(again.rows.len(), 20);
    assert!(again.rows.iter().zip(&table.rows).all(|(again, row)| {
        (again.answers[0].latency_milliseconds - row.answers[0].latency_milliseconds).abs() < 0.051
    }));
    workshop.close();
}

#[test]
fn tuned_layers_are_saved_and_served_from_their_file() {
    let workshop = Workshop::open("tune");
    let untrained = tune::tune(
        &workshop.cache,
        &workshop.variant,
        &workshop.variant.training,
        1,
        &workshop.reviews,
        "test",
    );
    let message = format!("{:#}", untrained.unwrap_err());
    assert!(message.contains("star-rating train"), "{message}");
    workshop.train();
    let recipe = &workshop.variant.training;
    let metrics = tune::tune(
        &workshop.cache,
        &workshop.variant,
        recipe,
        1,
        &workshop.reviews,
        "test",
    )
    .unwrap();
    assert_eq!(metrics.tuned_layers, 1);
    assert_eq!(metrics.held_out.all.accuracy, 1.0);
    let path = workshop.cache.path("tuned/tiny.safetensors");
    let tuned = Model::load_tuned(&workshop.cache, &workshop.variant, &path).unwrap();
    let frozen = Model::load(&workshop.cache, &workshop.variant).unwrap();
    let text = "the dress is good";
    assert_ne!(tuned.predict(text).unwrap(), frozen.predict(text).unwrap());
    let head_only = Model::load_tuned(&workshop.cache, &workshop.variant, &workshop.variant.head);
    assert!(format!("{:#}", head_only.unwrap_err()).contains("holds no layer"));
    let missing = workshop.cache.path("tuned/none.safetensors");
    let message = format!(
        "{:#}",
        Model::load_tuned(&workshop.cache, &workshop.variant, &missing).unwrap_err()
    );
    assert!(message.contains("--tune-layers"), "{message}");
    workshop.close();
}

#[test]
fn the_grid_finds_a_winner_and_writes_every_point() {
    let workshop = Workshop::open("grid");
    let recipe = workshop.variant.training.limited(60);
    grid::search(
        &workshop.cache,
        &workshop.variant,
        &recipe,
        &workshop.reviews,
    )
    .unwrap();
    let text = fs::read_to_string(workshop.cache.path("grid/tiny.json")).unwrap();
    let outcome: serde_json::Value = serde_json::from_str(&text).unwrap();
    let points = outcome["points"].as_array().unwrap();
    assert_eq!(points.len(), 3 * 2 * 3 * 3);
    let loss = |index: usize| points[index]["validation_loss"].as_f64().unwrap();
    assert!((1..points.len()).all(|index| loss(index - 1) <= loss(index)));
    assert!(
        outcome["winner_held_out"]["all"]["accuracy"]
            .as_f64()
            .unwrap()
            > 0.3
    );
    workshop.close();
}
