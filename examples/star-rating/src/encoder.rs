//! BERT's encoder (Devlin et al., 2019), the part of it that sentence embeddings need.
//!
//! It can be cut after any layer, and its upper layers can be trained. Not here: the pooler, token
//! types other than the first, dropout, and attention between two texts.

use std::collections::HashMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_core::{D, DType, Device, Tensor};
use candle_nn::ops;
use serde::Deserialize;

/// Added to the attention score of a padding token: far below any real score.
const MASKED_SCORE: f64 = -1e4;

/// The shape of an encoder, as in its `config.json` (other keys there are of no use here).
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Config {
    /// Features of each token.
    pub hidden_size: usize,
    /// Features inside each feed-forward block.
    pub intermediate_size: usize,
    /// Added to a variance before its root is taken.
    pub layer_norm_eps: f64,
    /// Longest text, in tokens.
    pub max_position_embeddings: usize,
    /// Heads of attention; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Layers in the file.
    pub num_hidden_layers: usize,
    /// Known tokens.
    pub vocab_size: usize,
}

/// Which arithmetic is used: the fused operations are faster but cannot be differentiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Fused operations, no gradients.
    Inference,
    /// Differentiable operations.
    Training,
}

/// Tokens of several texts, padded to one length.
#[derive(Debug, Clone)]
pub struct Batch {
    ids: Tensor,
    /// `[texts, tokens]`, 1 for tokens and 0 for padding; `None` when there is no padding.
    mask: Option<Tensor>,
}

impl Batch {
    /// Pads `texts` (each the token ids of one text, none empty) to the longest.
    ///
    /// # Errors
    /// When `texts` is empty or holds an empty text.
    pub fn new(texts: &[&[u32]]) -> Result<Self> {
        let longest = texts.iter().map(|text| text.len()).max().unwrap_or(0);
        ensure!(
            texts.iter().all(|text| !text.is_empty()) && longest > 0,
            "a text has no tokens"
        );
        let shape = (texts.len(), longest);
        let mut ids = vec![0u32; texts.len() * longest];
        let mut mask = vec![0f32; texts.len() * longest];
        for (row, text) in texts.iter().enumerate() {
            let start = row * longest;
            ids[start..start + text.len()].copy_from_slice(text);
            mask[start..start + text.len()].fill(1.0);
        }
        let padded = mask.contains(&0.0);
        Ok(Self {
            ids: Tensor::from_vec(ids, shape, &Device::Cpu)?,
            mask: if padded {
                Some(Tensor::from_vec(mask, shape, &Device::Cpu)?)
            } else {
                None
            },
        })
    }

    /// The mask, for pooling; `None` when no token is padding.
    pub fn mask(&self) -> Option<&Tensor> {
        self.mask.as_ref()
    }
}

/// The encoder, cut after some layer.
#[derive(Debug, Clone)]
pub struct Encoder {
    config: Config,
    words: Tensor,
    /// Position embeddings plus that of the only token type.
    positions: Tensor,
    norm: Norm,
    layers: Vec<Layer>,
}

impl Encoder {
    /// Reads `config.json` and `model.safetensors` from `directory` and keeps the first `layers`.
    ///
    /// # Errors
    /// When a file is missing or is not such an encoder; says what to do.
    pub fn load(directory: &Path, layers: usize) -> Result<Self> {
        let attempt = || -> Result<Self> {
            let config = Config::load(&directory.join("config.json"))?;
            let path = directory.join("model.safetensors");
            let weights = candle_core::safetensors::load(&path, &Device::Cpu)
                .with_context(|| format!("cannot read {}", path.display()))?;
            Self::new(config, &weights, layers)
        };
        attempt().with_context(|| {
            format!(
                "no usable encoder in {}: run `star-rating fetch` to fetch it (again)",
                directory.display()
            )
        })
    }

    /// Builds an encoder of the first `layers` layers of `weights`.
    ///
    /// # Errors
    /// When a weight is missing or has another shape than `config` says, or there are fewer layers.
    pub fn new(config: Config, weights: &HashMap<String, Tensor>, layers: usize) -> Result<Self> {
        config.check(layers)?;
        let hidden = config.hidden_size;
        let words = weight(
            weights,
            "embeddings.word_embeddings.weight",
            &[config.vocab_size, hidden],
        )?;
        let positions = weight(
            weights,
            "embeddings.position_embeddings.weight",
            &[config.max_position_embeddings, hidden],
        )?;
        let kinds = weights
            .get("embeddings.token_type_embeddings.weight")
            .context("the weight \"embeddings.token_type_embeddings.weight\" is missing")?;
        let positions = positions.broadcast_add(&kinds.narrow(0, 0, 1)?)?;
        let norm = Norm::new(weights, "embeddings.LayerNorm", &config)?;
        let layers = (0..layers)
            .map(|index| Layer::new(weights, index, &config))
            .collect::<Result<_>>()?;
        Ok(Self {
            config,
            words,
            positions,
            norm,
            layers,
        })
    }

    /// The shape of the encoder.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// How many layers it was cut to.
    pub fn depth(&self) -> usize {
        self.layers.len()
    }

    /// Replaces layer `index` by the one in `weights`.
    ///
    /// # Errors
    /// When `weights` does not hold that layer.
    pub fn replace_layer(&mut self, index: usize, weights: &HashMap<String, Tensor>) -> Result<()> {
        let layer = Layer::new(weights, index, &self.config)?;
        *self
            .layers
            .get_mut(index)
            .with_context(|| format!("the encoder has no layer {index}"))? = layer;
        Ok(())
    }

    /// What goes into the first layer: `[texts, tokens, features]`.
    ///
    /// # Errors
    /// When a token id is not in the vocabulary or a text is too long.
    pub fn embed(&self, batch: &Batch) -> Result<Tensor> {
        let (texts, tokens) = batch.ids.dims2()?;
        let words = self.words.index_select(&batch.ids.flatten_all()?, 0)?;
        let words = words.reshape((texts, tokens, self.config.hidden_size))?;
        let sum = words.broadcast_add(&self.positions.narrow(0, 0, tokens)?)?;
        self.norm.forward(&sum, Mode::Inference)
    }

    /// Runs the layers of `range` over `hidden`.
    ///
    /// # Errors
    /// When `range` is beyond the cut.
    pub fn run(
        &self,
        hidden: Tensor,
        batch: &Batch,
        range: Range<usize>,
        mode: Mode,
    ) -> Result<Tensor> {
        let layers = self
            .layers
            .get(range)
            .context("the encoder is cut before that layer")?;
        let scores = match &batch.mask {
            Some(mask) => {
                let (texts, tokens) = mask.dims2()?;
                let penalty = mask.affine(-MASKED_SCORE, MASKED_SCORE)?;
                Some(penalty.reshape((texts, 1, 1, tokens))?)
            }
            None => None,
        };
        layers.iter().try_fold(hidden, |hidden, layer| {
            layer.forward(
                &hidden,
                scores.as_ref(),
                self.config.num_attention_heads,
                mode,
            )
        })
    }
}

impl Config {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// When it is missing or lacks a key.
    pub fn load(path: &Path) -> Result<Self> {
        let text =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text)
            .with_context(|| format!("{} is not a BERT configuration", path.display()))
    }

    fn check(&self, layers: usize) -> Result<()> {
        ensure!(
            (1..=self.num_hidden_layers).contains(&layers),
            "the encoder has {} layers: it cannot be cut to {layers}",
            self.num_hidden_layers
        );
        ensure!(
            self.num_attention_heads > 0
                && self.hidden_size.is_multiple_of(self.num_attention_heads),
            "num_attention_heads {} does not divide hidden_size {}",
            self.num_attention_heads,
            self.hidden_size
        );
        Ok(())
    }
}

/// The names of the weights of layer `index`.
pub fn layer_weight_names(index: usize) -> Vec<String> {
    let parts = [
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
        "attention.output.LayerNorm",
        "intermediate.dense",
        "output.dense",
        "output.LayerNorm",
    ];
    parts
        .iter()
        .flat_map(|part| {
            ["weight", "bias"].map(|kind| format!("encoder.layer.{index}.{part}.{kind}"))
        })
        .collect()
}

fn weight(weights: &HashMap<String, Tensor>, name: &str, shape: &[usize]) -> Result<Tensor> {
    let tensor = weights
        .get(name)
        .with_context(|| format!("the weight {name:?} is missing"))?;
    ensure!(
        tensor.dims() == shape,
        "the weight {name:?} has the shape {:?}, expected {shape:?}",
        tensor.dims()
    );
    Ok(tensor.to_dtype(DType::F32)?)
}

#[derive(Debug, Clone)]
struct Norm {
    scale: Tensor,
    shift: Tensor,
    epsilon: f32,
}

impl Norm {
    fn new(weights: &HashMap<String, Tensor>, name: &str, config: &Config) -> Result<Self> {
        Ok(Self {
            scale: weight(weights, &format!("{name}.weight"), &[config.hidden_size])?,
            shift: weight(weights, &format!("{name}.bias"), &[config.hidden_size])?,
            epsilon: config.layer_norm_eps as f32,
        })
    }

    fn forward(&self, hidden: &Tensor, mode: Mode) -> Result<Tensor> {
        Ok(match mode {
            Mode::Inference => ops::layer_norm(hidden, &self.scale, &self.shift, self.epsilon)?,
            Mode::Training => ops::layer_norm_slow(hidden, &self.scale, &self.shift, self.epsilon)?,
        })
    }
}

#[derive(Debug, Clone)]
struct Linear {
    /// `[out, in]`
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    fn new(
        weights: &HashMap<String, Tensor>,
        name: &str,
        out: usize,
        input: usize,
    ) -> Result<Self> {
        Ok(Self {
            weight: weight(weights, &format!("{name}.weight"), &[out, input])?,
            bias: weight(weights, &format!("{name}.bias"), &[out])?,
        })
    }

    fn forward(&self, hidden: &Tensor) -> Result<Tensor> {
        let (texts, tokens, features) = hidden.dims3()?;
        // One matrix product for all texts.
        let rows = hidden.reshape((texts * tokens, features))?;
        let product = rows.matmul(&self.weight.t()?)?.broadcast_add(&self.bias)?;
        Ok(product.reshape((texts, tokens, self.bias.dim(0)?))?)
    }
}

#[derive(Debug, Clone)]
struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    mix: Linear,
    mix_norm: Norm,
    widen: Linear,
    narrow: Linear,
    narrow_norm: Norm,
}

impl Layer {
    fn new(weights: &HashMap<String, Tensor>, index: usize, config: &Config) -> Result<Self> {
        let (hidden, wide) = (config.hidden_size, config.intermediate_size);
        let name = |part: &str| format!("encoder.layer.{index}.{part}");
        Ok(Self {
            query: Linear::new(weights, &name("attention.self.query"), hidden, hidden)?,
            key: Linear::new(weights, &name("attention.self.key"), hidden, hidden)?,
            value: Linear::new(weights, &name("attention.self.value"), hidden, hidden)?,
            mix: Linear::new(weights, &name("attention.output.dense"), hidden, hidden)?,
            mix_norm: Norm::new(weights, &name("attention.output.LayerNorm"), config)?,
            widen: Linear::new(weights, &name("intermediate.dense"), wide, hidden)?,
            narrow: Linear::new(weights, &name("output.dense"), hidden, wide)?,
            narrow_norm: Norm::new(weights, &name("output.LayerNorm"), config)?,
        })
    }

    fn forward(
        &self,
        hidden: &Tensor,
        penalty: Option<&Tensor>,
        heads: usize,
        mode: Mode,
    ) -> Result<Tensor> {
        let attended = self
            .mix
            .forward(&self.attend(hidden, penalty, heads, mode)?)?;
        let hidden = self.mix_norm.forward(&(attended + hidden)?, mode)?;
        let wide = self.widen.forward(&hidden)?.gelu_erf()?;
        let narrow = self.narrow.forward(&wide)?;
        self.narrow_norm.forward(&(narrow + hidden)?, mode)
    }

    fn attend(
        &self,
        hidden: &Tensor,
        penalty: Option<&Tensor>,
        heads: usize,
        mode: Mode,
    ) -> Result<Tensor> {
        let (texts, tokens, features) = hidden.dims3()?;
        let split = |projected: Tensor| -> Result<Tensor> {
            let parts = projected.reshape((texts, tokens, heads, features / heads))?;
            Ok(parts.transpose(1, 2)?.contiguous()?)
        };
        let query =
            (split(self.query.forward(hidden)?)? * (1.0 / ((features / heads) as f64).sqrt()))?;
        let key = split(self.key.forward(hidden)?)?;
        let value = split(self.value.forward(hidden)?)?;
        let mut scores = query.matmul(&key.t()?)?;
        if let Some(penalty) = penalty {
            scores = scores.broadcast_add(penalty)?;
        }
        let shares = match mode {
            Mode::Inference => ops::softmax_last_dim(&scores)?,
            Mode::Training => ops::softmax(&scores, D::Minus1)?,
        };
        let mixed = shares.matmul(&value)?;
        Ok(mixed
            .transpose(1, 2)?
            .contiguous()?
            .reshape((texts, tokens, features))?)
    }
}
