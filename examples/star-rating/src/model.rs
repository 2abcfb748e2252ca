//! A variant ready to rate texts: tokenizer, encoder and head in memory.

use anyhow::{Context, Result, bail};
use candle_core::Device;
use std::path::Path;

use crate::cache::Cache;
use crate::encoder::{Batch, Encoder, Mode, layer_weight_names};
use crate::fetch::TOKENIZER_FILE;
use crate::head::{Head, Prediction};
use crate::text::TextReader;
use crate::variant::{Pooling, Variant};

/// A loaded variant.
#[derive(Debug, Clone)]
pub struct Model {
    reader: TextReader,
    encoder: Encoder,
    pooling: Pooling,
    head: Head,
}

impl Model {
    /// Loads `variant` with its committed head.
    ///
    /// # Errors
    /// When a file is missing or wrong; says what to do.
    pub fn load(cache: &Cache, variant: &Variant) -> Result<Self> {
        let head = Head::load(&variant.head)?;
        Self::with_head(cache, variant, head)
    }

    /// Loads `variant` with the layers and head that `star-rating train --tune-layers` wrote to `tuned`.
    ///
    /// # Errors
    /// When a file is missing or wrong; says what to do.
    pub fn load_tuned(cache: &Cache, variant: &Variant, tuned: &Path) -> Result<Self> {
        let weights = candle_core::safetensors::load(tuned, &Device::Cpu).with_context(|| {
            format!(
                "cannot read the tuned layers {}: make them with `star-rating train --variant FILE --tune-layers N`",
                tuned.display()
            )
        })?;
        let mut model = Self::with_head(cache, variant, Head::load(tuned)?)?;
        let mut replaced = 0;
        for index in 0..variant.layers {
            if layer_weight_names(index)
                .iter()
                .any(|name| weights.contains_key(name))
            {
                model
                    .encoder
                    .replace_layer(index, &weights)
                    .with_context(|| format!("{} does not fit the variant", tuned.display()))?;
                replaced += 1;
            }
        }
        if replaced == 0 {
            bail!(
                "{} holds no layer of the variant {:?}",
                tuned.display(),
                variant.name
            );
        }
        Ok(model)
    }

    fn with_head(cache: &Cache, variant: &Variant, head: Head) -> Result<Self> {
        let reader = TextReader::load(&cache.require(TOKENIZER_FILE)?, variant.max_length)?;
        cache.require(&format!("{}/model.safetensors", variant.encoder))?;
        let encoder = Encoder::load(&cache.path(&variant.encoder), variant.layers)?;
        Self::new(reader, encoder, variant.pooling, head)
    }

    /// Puts a model together from its parts.
    ///
    /// # Errors
    /// When the head does not fit the encoder.
    pub fn new(reader: TextReader, encoder: Encoder, pooling: Pooling, head: Head) -> Result<Self> {
        let features = encoder.config().hidden_size;
        if head.features() != features {
            bail!(
                "the head reads {} features but the encoder makes {features}: is it the head of another variant?",
                head.features()
            );
        }
        Ok(Self {
            reader,
            encoder,
            pooling,
            head,
        })
    }

    /// Rates one text.
    ///
    /// # Errors
    /// When the tokenizer or the arithmetic fails.
    pub fn predict(&self, text: &str) -> Result<Prediction> {
        let ids = self.reader.read(text)?;
        let batch = Batch::new(&[&ids])?;
        let hidden = self.encoder.embed(&batch)?;
        let hidden = self
            .encoder
            .run(hidden, &batch, 0..self.encoder.depth(), Mode::Inference)?;
        let features = self.pooling.pool(&hidden, batch.mask())?;
        self.head.predict(&features.squeeze(0)?.to_vec1::<f32>()?)
    }
}
