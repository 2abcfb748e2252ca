//! The real models: fetched by the same code as `star-rating fetch`, then asked.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use star_rating::cache::{Cache, CacheArgs};
use star_rating::dataset;
use star_rating::encoder::{Batch, Encoder, Mode};
use star_rating::evaluation::Evaluation;
use star_rating::fetch::fetch;
use star_rating::model::Model;
use star_rating::predict::{Table, committed_table};
use star_rating::reviews;
use star_rating::train::Metrics;
use star_rating::variant::{Pooling, Variant, committed_directory, load_all};

use crate::client::ask;

const POSITIVE: &str = "Absolutely love it. Beautiful dress, fits perfectly and the fabric is gorgeous. I get compliments every time!";
const NEGATIVE: &str = "Terrible, sending it back. Awful quality, it fell apart after one wash and the fit is horrible. Do not buy.";

fn cache() -> Cache {
    let directory = std::env::var_os("STAR_RATING_CACHE").map(Into::into);
    let cache = CacheArgs { directory }.cache();
    fetch(&cache).unwrap();
    cache
}

/// The committed variant with the best held-out accuracy.
fn best() -> Variant {
    let accuracy = |variant: &Variant| {
        Metrics::load(&variant.metrics_path())
            .unwrap()
            .held_out
            .all
            .accuracy
    };
    load_all(&committed_directory())
        .unwrap()
        .into_iter()
        .max_by(|one, other| accuracy(one).total_cmp(&accuracy(other)))
        .unwrap()
}

#[test]
fn the_best_variant_knows_praise_from_complaint() {
    let model = Model::load(&cache(), &best()).unwrap();
    assert!(model.predict(POSITIVE).unwrap().stars() >= 4);
    assert!(model.predict(NEGATIVE).unwrap().stars() <= 2);
}

#[test]
fn the_best_variant_beats_the_best_constant_on_held_out_reviews() {
    let cache = cache();
    let model = Model::load(&cache, &best()).unwrap();
    let reviews = reviews::load(&cache).unwrap();
    let mut held_out = dataset::held_out(&reviews);
    held_out.truncate(100);
    let predicted: Vec<u8> = held_out
        .iter()
        .map(|review| model.predict(&review.text()).unwrap().stars())
        .collect();
    let score = Evaluation::new(&held_out, &predicted).all;
    assert!(score.accuracy > score.majority_accuracy + 0.05, "{score:?}");

    // The committed table was made by the same models. Another processor may round a tie away.
    let table = Table::load(&committed_table()).unwrap();
    let column = table
        .variants
        .iter()
        .position(|name| *name == best().name)
        .unwrap();
    let same = table
        .rows
        .iter()
        .zip(&predicted)
        .filter(|(row, predicted)| row.answers[column].stars == **predicted)
        .count();
    for (row, review) in table.rows.iter().zip(&held_out) {
        assert_eq!(row.review_id, review.review_id);
        assert_eq!(row.characters, review.text().chars().count(), "{row:?}");
    }
    assert!(
        same >= 98,
        "{same} of 100 answers are those of the committed table"
    );
}

#[test]
fn the_converted_encoder_gives_the_vectors_of_the_original() {
    let encoder = Encoder::load(&cache().path("minilm-l3"), 3).unwrap();
    // "this dress is perfect"
    let batch = Batch::new(&[&[101, 2023, 4377, 2003, 3819, 102]]).unwrap();
    let hidden = encoder
        .run(
            encoder.embed(&batch).unwrap(),
            &batch,
            0..3,
            Mode::Inference,
        )
        .unwrap();
    let pooled = Pooling::Mean
        .pool(&hidden, None)
        .unwrap()
        .squeeze(0)
        .unwrap()
        .to_vec1::<f32>()
        .unwrap();
    // By onnxruntime 1.x from the ONNX file itself.
    let expected = [
        0.442_530_84,
        0.348_237_04,
        0.411_634_92,
        -0.649_226_1,
        0.317_977_58,
        -0.088_926_44,
    ];
    for (found, expected) in pooled.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-5, "{found} is not {expected}");
    }
    assert!((pooled.iter().sum::<f32>() - 0.173_265_46).abs() < 1e-4);
}

#[test]
fn the_binary_serves_and_stops_cleanly() {
    let cache = cache();
    let variant = committed_directory().join(format!("{}.toml", best().name));
    let mut child = Command::new(env!("CARGO_BIN_EXE_star-rating"))
        .args(["serve", "--listen", "127.0.0.1:0", "--variant"])
        .arg(variant)
        .arg("--cache")
        .arg(cache.root())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    log.read_line(&mut line).unwrap();
    let address = line
        .split("http://")
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .expect(&line);
    let address = address.parse().unwrap();
    assert_eq!(ask(address, "GET /ping HTTP/1.1", "").status, 200);
    let body = serde_json::json!({"features": [POSITIVE]}).to_string();
    let answer = ask(address, "POST /v1/stars HTTP/1.1", &body);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.json()["predicted_label"].as_u64().unwrap() >= 4);
    Command::new("kill")
        .arg(child.id().to_string())
        .status()
        .unwrap();
    assert!(child.wait().unwrap().success());
}
