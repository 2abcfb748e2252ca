//! The encoder on the tiny BERT.

use std::fs;

use candle_core::{Device, Tensor};
use star_rating::encoder::{Batch, Encoder, Mode};
use star_rating::head::{Head, STARS};
use star_rating::model::Model;
use star_rating::text::TextReader;
use star_rating::variant::Pooling;

use crate::tiny;

const SHORT: [u32; 4] = [2, 4, 6, 3];
const LONG: [u32; 7] = [2, 8, 7, 10, 5, 11, 3];

fn features(encoder: &Encoder, batch: &Batch, mode: Mode) -> Vec<Vec<f32>> {
    let hidden = encoder.embed(batch).unwrap();
    let hidden = encoder
        .run(hidden, batch, 0..encoder.depth(), mode)
        .unwrap();
    Pooling::Mean
        .pool(&hidden, batch.mask())
        .unwrap()
        .to_vec2()
        .unwrap()
}

fn assert_close(one: &[f32], other: &[f32]) {
    assert_eq!(one.len(), other.len());
    for (one, other) in one.iter().zip(other) {
        assert!((one - other).abs() < 1e-5, "{one} is not {other}");
    }
}

#[test]
fn padding_and_company_change_nothing() {
    let encoder = Encoder::new(tiny::CONFIG, &tiny::weights(), 2).unwrap();
    let together = features(
        &encoder,
        &Batch::new(&[&SHORT, &LONG]).unwrap(),
        Mode::Inference,
    );
    let short = features(&encoder, &Batch::new(&[&SHORT]).unwrap(), Mode::Inference);
    let long = features(&encoder, &Batch::new(&[&LONG]).unwrap(), Mode::Inference);
    assert_close(&together[0], &short[0]);
    assert_close(&together[1], &long[0]);
    assert!(
        short[0]
            .iter()
            .zip(&long[0])
            .any(|(short, long)| (short - long).abs() > 1e-3)
    );
}

#[test]
fn the_differentiable_arithmetic_gives_the_same() {
    let encoder = Encoder::new(tiny::CONFIG, &tiny::weights(), 2).unwrap();
    let batch = Batch::new(&[&SHORT, &LONG]).unwrap();
    let inference = features(&encoder, &batch, Mode::Inference);
    let training = features(&encoder, &batch, Mode::Training);
    assert_close(&inference[0], &training[0]);
    assert_close(&inference[1], &training[1]);
}

#[test]
fn an_encoder_survives_its_files_and_can_be_cut() {
    let directory = tiny::write_files("cut");
    let full = Encoder::load(&directory, 2).unwrap();
    let cut = Encoder::load(&directory, 1).unwrap();
    assert_eq!((full.depth(), cut.depth()), (2, 1));
    let batch = Batch::new(&[&LONG]).unwrap();
    let first = full
        .run(full.embed(&batch).unwrap(), &batch, 0..1, Mode::Inference)
        .unwrap();
    let first = Pooling::Mean
        .pool(&first, None)
        .unwrap()
        .to_vec2::<f32>()
        .unwrap();
    assert_close(&first[0], &features(&cut, &batch, Mode::Inference)[0]);
    let in_memory = Encoder::new(tiny::CONFIG, &tiny::weights(), 2).unwrap();
    assert_eq!(
        features(&full, &batch, Mode::Inference),
        features(&in_memory, &batch, Mode::Inference)
    );
    for layers in [0, 3] {
        let message = format!("{:#}", Encoder::load(&directory, layers).unwrap_err());
        assert!(message.contains("2 layers"), "{message}");
    }
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn attention_by_hand_for_a_single_token() {
    // With one token the softmax is 1: attention is the value projection alone, whatever query and key are.
    let mut other = tiny::weights();
    for part in ["query", "key"] {
        let name = format!("encoder.layer.0.attention.self.{part}.weight");
        let zeros = other[&name].zeros_like().unwrap();
        other.insert(name, zeros);
    }
    let batch = Batch::new(&[&[4]]).unwrap();
    let encoder = Encoder::new(tiny::CONFIG, &tiny::weights(), 1).unwrap();
    let without = Encoder::new(tiny::CONFIG, &other, 1).unwrap();
    assert_close(
        &features(&encoder, &batch, Mode::Inference)[0],
        &features(&without, &batch, Mode::Inference)[0],
    );
}

#[test]
fn wrong_weights_are_named() {
    let mut missing = tiny::weights();
    missing.remove("encoder.layer.1.output.dense.bias");
    let message = format!("{:#}", Encoder::new(tiny::CONFIG, &missing, 2).unwrap_err());
    assert!(
        message.contains("encoder.layer.1.output.dense.bias"),
        "{message}"
    );
    // Cut below the missing layer it is still an encoder.
    assert!(Encoder::new(tiny::CONFIG, &missing, 1).is_ok());

    let mut misshapen = tiny::weights();
    misshapen.insert(
        "embeddings.LayerNorm.bias".to_owned(),
        Tensor::zeros(31, candle_core::DType::F32, &Device::Cpu).unwrap(),
    );
    let message = format!(
        "{:#}",
        Encoder::new(tiny::CONFIG, &misshapen, 2).unwrap_err()
    );
    assert!(message.contains("[31], expected [32]"), "{message}");

    let directory = tiny::write_files("wrong");
    fs::write(directory.join("model.safetensors"), b"not safetensors").unwrap();
    let message = format!("{:#}", Encoder::load(&directory, 2).unwrap_err());
    assert!(message.contains("star-rating fetch"), "{message}");
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn texts_that_cannot_be_encoded_are_errors() {
    let encoder = Encoder::new(tiny::CONFIG, &tiny::weights(), 2).unwrap();
    assert!(Batch::new(&[]).is_err());
    assert!(Batch::new(&[&[]]).is_err());
    let unknown = Batch::new(&[&[99]]).unwrap();
    assert!(encoder.embed(&unknown).is_err());
    let long = Batch::new(&[&[4; 17]]).unwrap();
    assert!(encoder.embed(&long).is_err());
}

#[test]
fn the_tokenizer_cuts_and_never_pads() {
    let directory = tiny::write_files("tokenizer");
    let path = directory.join("tokenizer.json");
    let reader = TextReader::load(&path, 6).unwrap();
    assert_eq!(reader.read("The dress").unwrap(), [2, 8, 6, 3]);
    assert_eq!(reader.read("").unwrap(), [2, 3]);
    assert_eq!(
        reader.read("the good dress is badly xyz").unwrap(),
        [2, 8, 4, 6, 10, 3]
    );
    assert!(TextReader::load(&path, 2).is_err());
    fs::write(&path, "{}").unwrap();
    let message = format!("{:#}", TextReader::load(&path, 6).unwrap_err());
    assert!(message.contains("star-rating fetch"), "{message}");
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_model_goes_from_text_to_stars() {
    let model = tiny::model("model");
    let prediction = model.predict("the dress is good").unwrap();
    assert!((prediction.probabilities.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    assert!((1..=5).contains(&prediction.stars()));
    assert_eq!(model.predict("the dress is good").unwrap(), prediction);
    assert_ne!(model.predict("the movie is bad").unwrap(), prediction);
}

#[test]
fn a_head_of_another_encoder_is_refused() {
    let directory = tiny::write_files("head");
    let reader = TextReader::load(&directory.join("tokenizer.json"), 6).unwrap();
    let encoder = Encoder::load(&directory, 2).unwrap();
    fs::remove_dir_all(directory).unwrap();
    let zeros =
        |shape: &[usize]| Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap();
    let head = Head::from_tensors(&zeros(&[STARS, 384]), &zeros(&[STARS])).unwrap();
    let message = format!(
        "{:#}",
        Model::new(reader, encoder, Pooling::Mean, head).unwrap_err()
    );
    assert!(
        message.contains("384 features but the encoder makes 32"),
        "{message}"
    );
}
