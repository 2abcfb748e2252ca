//! Variant files: which encoder, cut where, read how, with which head, and how that head was made.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::cache::example_directory;
use crate::reviews::Domain;

/// The encoders that `star-rating fetch` gets, each a folder of the cache, with their layers.
pub const ENCODERS: [(&str, usize); 2] = [("minilm-l6", 6), ("minilm-l3", 3)];

/// Longest text the encoders take, in tokens.
pub const LONGEST: usize = 512;

/// The folder of the committed variant files.
pub fn committed_directory() -> PathBuf {
    example_directory().join("variants")
}

/// One way of rating a review.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// The file's stem.
    #[serde(skip)]
    pub name: String,
    /// What it is good for, in one line.
    pub description: String,
    /// A folder of the cache: `minilm-l6` or `minilm-l3`.
    pub encoder: String,
    /// The encoder is cut after this many layers: 1 to 6, or 1 to 3.
    pub layers: usize,
    /// How the features of the tokens become those of the text.
    pub pooling: Pooling,
    /// A text is read up to this many tokens, 3 to 512.
    pub max_length: usize,
    /// The head's file, relative to the variant file.
    pub head: PathBuf,
    /// How the head is made.
    pub training: Recipe,
}

/// How the features of the tokens become those of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// The mean over all tokens.
    Mean,
    /// The features of the first token, the marker `[CLS]`.
    Cls,
}

impl Pooling {
    /// The name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Cls => "cls",
        }
    }

    /// Pools `[texts, tokens, features]` to `[texts, features]`; `mask` is 0 for padding.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn pool(self, hidden: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        Ok(match (self, mask) {
            (Self::Cls, _) => hidden.narrow(1, 0, 1)?.squeeze(1)?,
            (Self::Mean, None) => hidden.mean(1)?,
            (Self::Mean, Some(mask)) => {
                let sum = hidden.broadcast_mul(&mask.unsqueeze(2)?)?.sum(1)?;
                sum.broadcast_div(&mask.sum_keepdim(1)?)?
            }
        })
    }
}

/// How a head is made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Training reviews of clothing: the first N that are not held out.
    #[serde(default)]
    pub clothing: usize,
    /// Training sentences about electronics.
    #[serde(default)]
    pub electronics: usize,
    /// Training sentences about movies.
    #[serde(default)]
    pub movies: usize,
    /// Seed of the shuffles.
    pub seed: u64,
    /// The learning rate of `AdamW`.
    pub learning_rate: f64,
    /// The weight decay of `AdamW`.
    pub weight_decay: f64,
    /// Reviews per step.
    pub batch_size: usize,
    /// At most this often over the training reviews.
    pub epochs: usize,
    /// Stops after this many epochs without a smaller validation loss.
    pub patience: usize,
}

impl Recipe {
    /// How many training reviews of `domain`.
    pub fn count(&self, domain: Domain) -> usize {
        match domain {
            Domain::Clothing => self.clothing,
            Domain::Electronics => self.electronics,
            Domain::Movies => self.movies,
        }
    }

    /// The same recipe with at most `limit` training reviews of each domain.
    #[must_use]
    pub fn limited(&self, limit: usize) -> Self {
        Self {
            clothing: self.clothing.min(limit),
            electronics: self.electronics.min(limit),
            movies: self.movies.min(limit),
            ..self.clone()
        }
    }
}

impl Variant {
    /// Reads and checks a variant file.
    ///
    /// # Errors
    /// When it is missing or wrong, with the place and what would be right.
    pub fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| {
            format!(
                "cannot read the variant file {} (the example's own are in {})",
                path.display(),
                committed_directory().display()
            )
        })?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let directory = path.parent().unwrap_or(Path::new(""));
        Self::parse(&name, directory, &text)
            .with_context(|| format!("variant file {}", path.display()))
    }

    fn parse(name: &str, directory: &Path, text: &str) -> Result<Self> {
        let mut variant: Self = toml::from_str(text)?;
        name.clone_into(&mut variant.name);
        variant.check()?;
        variant.head = directory.join(&variant.head);
        Ok(variant)
    }

    fn check(&self) -> Result<()> {
        let Some((_, depth)) = ENCODERS.iter().find(|(name, _)| *name == self.encoder) else {
            bail!(
                "encoder = {:?}: expected \"minilm-l6\" or \"minilm-l3\"",
                self.encoder
            );
        };
        ensure!(
            (1..=*depth).contains(&self.layers),
            "layers = {}: {} has 1 to {depth}",
            self.layers,
            self.encoder
        );
        ensure!(
            (3..=LONGEST).contains(&self.max_length),
            "max_length = {}: expected 3 to {LONGEST} tokens",
            self.max_length
        );
        let recipe = &self.training;
        let positive = |value: f64| value.is_finite() && value > 0.0;
        ensure!(
            positive(recipe.learning_rate),
            "training.learning_rate must be positive"
        );
        ensure!(
            recipe.weight_decay.is_finite() && recipe.weight_decay >= 0.0,
            "training.weight_decay must not be negative"
        );
        ensure!(
            recipe.batch_size > 0 && recipe.epochs > 0 && recipe.patience > 0,
            "training.batch_size, epochs and patience must be at least 1"
        );
        ensure!(
            Domain::ALL.iter().any(|domain| recipe.count(*domain) > 0),
            "training needs reviews: set clothing, electronics or movies to how many"
        );
        Ok(())
    }

    /// The file beside the head that says how it was made and how good it is.
    pub fn metrics_path(&self) -> PathBuf {
        self.head.with_extension("json")
    }
}

/// Reads all variant files of `directory`, in the order of their names.
///
/// # Errors
/// When the folder is unreadable or empty, or any file is wrong.
pub fn load_all(directory: &Path) -> Result<Vec<Variant>> {
    let entries = fs::read_dir(directory).with_context(|| {
        format!(
            "cannot read the folder of variant files {}",
            directory.display()
        )
    })?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            paths.push(path);
        }
    }
    ensure!(
        !paths.is_empty(),
        "no variant files (*.toml) in {}",
        directory.display()
    );
    paths.sort();
    paths.iter().map(|path| Variant::load(path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    const GOOD: &str = r#"
description = "test"
encoder = "minilm-l3"
layers = 2
pooling = "mean"
max_length = 64
head = "../heads/test.safetensors"
[training]
clothing = 100
seed = 1
learning_rate = 0.01
weight_decay = 0.0
batch_size = 32
epochs = 10
patience = 3
"#;

    fn parse(text: &str) -> Result<Variant> {
        Variant::parse("test", Path::new("variants"), text)
    }

    #[test]
    fn a_good_file_is_read() {
        let variant = parse(GOOD).unwrap();
        assert_eq!(variant.name, "test");
        assert_eq!(
            variant.head,
            Path::new("variants/../heads/test.safetensors")
        );
        assert_eq!(
            variant.metrics_path(),
            Path::new("variants/../heads/test.json")
        );
        assert_eq!(variant.training.count(Domain::Movies), 0);
        assert_eq!(variant.training.limited(7).clothing, 7);
    }

    #[test]
    fn bad_files_say_what_would_be_right() {
        for (from, to, expected) in [
            (
                "minilm-l3",
                "bert-large",
                "expected \"minilm-l6\" or \"minilm-l3\"",
            ),
            ("layers = 2", "layers = 4", "minilm-l3 has 1 to 3"),
            ("layers = 2", "layers = 0", "minilm-l3 has 1 to 3"),
            ("max_length = 64", "max_length = 2", "3 to 512"),
            ("max_length = 64", "max_length = 513", "3 to 512"),
            ("pooling = \"mean\"", "pooling = \"max\"", "`mean` or `cls`"),
            ("clothing = 100", "", "training needs reviews"),
            ("clothing = 100", "shoes = 100", "unknown field `shoes`"),
            ("0.01", "-1.0", "learning_rate must be positive"),
            ("epochs = 10", "epochs = 0", "at least 1"),
            ("description = \"test\"", "", "missing field `description`"),
        ] {
            let message = format!("{:#}", parse(&GOOD.replace(from, to)).unwrap_err());
            assert!(message.contains(expected), "{from} -> {to}: {message}");
        }
    }

    #[test]
    fn committed_variants_load_and_differ() {
        let variants = load_all(&committed_directory()).unwrap();
        assert!(variants.len() >= 4);
        for encoder in ENCODERS {
            assert!(variants.iter().any(|variant| variant.encoder == encoder.0));
        }
    }

    #[test]
    fn pooling_ignores_padding() {
        let hidden =
            Tensor::from_vec(vec![1f32, 2., 3., 4., 100., 100.], (1, 3, 2), &Device::Cpu).unwrap();
        let mask = Tensor::from_vec(vec![1f32, 1., 0.], (1, 3), &Device::Cpu).unwrap();
        let mean = Pooling::Mean.pool(&hidden, Some(&mask)).unwrap();
        assert_eq!(mean.to_vec2::<f32>().unwrap(), [[2., 3.]]);
        let first = Pooling::Cls.pool(&hidden, Some(&mask)).unwrap();
        assert_eq!(first.to_vec2::<f32>().unwrap(), [[1., 2.]]);
    }
}
