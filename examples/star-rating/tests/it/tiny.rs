//! A random BERT of 2 layers and 32 features with a vocabulary of a dozen words.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use star_rating::encoder::{Config, Encoder, layer_weight_names};
use star_rating::head::{Head, STARS};
use star_rating::model::Model;
use star_rating::random::SplitMix64;
use star_rating::text::TextReader;
use star_rating::variant::Pooling;

pub(crate) const CONFIG: Config = Config {
    hidden_size: 32,
    intermediate_size: 64,
    layer_norm_eps: 1e-12,
    max_position_embeddings: 16,
    num_attention_heads: 4,
    num_hidden_layers: 2,
    vocab_size: 12,
};

const WORDS: [&str; 12] = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "dress", "movie", "the", "a", "is", "##ly",
];

/// A folder of its own for one test; the test removes it.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let directory = std::env::temp_dir().join(format!("star-rating-{name}-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    directory
}

/// Random weights, the same each time.
pub(crate) fn weights() -> HashMap<String, Tensor> {
    let mut generator = SplitMix64::new(42);
    let mut random = |shape: &[usize], middle: f32| {
        let count = shape.iter().product();
        let values: Vec<f32> = (0..count)
            .map(|_| middle + (generator.unit_interval() as f32 - 0.5) * 0.4)
            .collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    };
    let (hidden, wide) = (CONFIG.hidden_size, CONFIG.intermediate_size);
    let mut weights = HashMap::from([
        (
            "embeddings.word_embeddings.weight".to_owned(),
            random(&[CONFIG.vocab_size, hidden], 0.0),
        ),
        (
            "embeddings.position_embeddings.weight".to_owned(),
            random(&[CONFIG.max_position_embeddings, hidden], 0.0),
        ),
        (
            "embeddings.token_type_embeddings.weight".to_owned(),
            random(&[2, hidden], 0.0),
        ),
        (
            "embeddings.LayerNorm.weight".to_owned(),
            random(&[hidden], 1.0),
        ),
        (
            "embeddings.LayerNorm.bias".to_owned(),
            random(&[hidden], 0.0),
        ),
    ]);
    for name in (0..CONFIG.num_hidden_layers).flat_map(layer_weight_names) {
        let tensor = if name.ends_with("LayerNorm.weight") {
            random(&[hidden], 1.0)
        } else if name.ends_with("intermediate.dense.bias") {
            random(&[wide], 0.0)
        } else if name.strip_suffix("bias").is_some() {
            random(&[hidden], 0.0)
        } else if name.ends_with("intermediate.dense.weight") {
            random(&[wide, hidden], 0.0)
        } else if name.contains(".attention.") {
            random(&[hidden, hidden], 0.0)
        } else {
            random(&[hidden, wide], 0.0)
        };
        weights.insert(name, tensor);
    }
    weights
}

/// Writes `config.json`, `model.safetensors` and `tokenizer.json` into a new folder.
pub(crate) fn write_files(name: &str) -> PathBuf {
    let directory = scratch(name);
    write_files_into(&directory);
    directory
}

/// Writes them into `directory`.
pub(crate) fn write_files_into(directory: &Path) {
    candle_core::safetensors::save(&weights(), directory.join("model.safetensors")).unwrap();
    let config = serde_json::json!({
        "hidden_size": CONFIG.hidden_size,
        "intermediate_size": CONFIG.intermediate_size,
        "layer_norm_eps": CONFIG.layer_norm_eps,
        "max_position_embeddings": CONFIG.max_position_embeddings,
        "num_attention_heads": CONFIG.num_attention_heads,
        "num_hidden_layers": CONFIG.num_hidden_layers,
        "vocab_size": CONFIG.vocab_size,
        "model_type": "bert",
    });
    fs::write(directory.join("config.json"), config.to_string()).unwrap();
    let vocabulary: HashMap<&str, usize> = WORDS
        .iter()
        .enumerate()
        .map(|(id, word)| (*word, id))
        .collect();
    let marker = |word: &str| serde_json::json!({"SpecialToken": {"id": word, "type_id": 0}});
    let tokenizer = serde_json::json!({
        "version": "1.0",
        "truncation": {"max_length": 5, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
        "padding": {"strategy": {"Fixed": 128}, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"},
        "added_tokens": [],
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [marker("[CLS]"), {"Sequence": {"id": "A", "type_id": 0}}, marker("[SEP]")],
            "pair": [marker("[CLS]"), {"Sequence": {"id": "A", "type_id": 0}}, marker("[SEP]"),
                {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {
                "[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]},
            },
        },
        "decoder": null,
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocabulary},
    });
    fs::write(directory.join("tokenizer.json"), tokenizer.to_string()).unwrap();
}

/// A whole model out of files.
pub(crate) fn model(name: &str) -> Model {
    let directory = write_files(name);
    let reader = TextReader::load(&directory.join("tokenizer.json"), 16).unwrap();
    let encoder = Encoder::load(&directory, 2).unwrap();
    fs::remove_dir_all(directory).unwrap();
    let mut generator = SplitMix64::new(7);
    let values: Vec<f32> = (0..STARS * CONFIG.hidden_size)
        .map(|_| generator.unit_interval() as f32 - 0.5)
        .collect();
    let weight = Tensor::from_vec(values, (STARS, CONFIG.hidden_size), &Device::Cpu).unwrap();
    let bias = Tensor::from_vec(vec![0f32; STARS], STARS, &Device::Cpu).unwrap();
    let head = Head::from_tensors(&weight, &bias).unwrap();
    Model::new(reader, encoder, Pooling::Mean, head).unwrap()
}
