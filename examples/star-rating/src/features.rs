//! Frozen features: what an encoder says about each review, at every depth, made once and cached.
//!
//! Training a head needs nothing else, so it takes seconds. One pass over the full encoder gives
//! the features after each layer. The cache grows by chunks, so an interrupted pass continues.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, anyhow, ensure};
use candle_core::{Device, Tensor};

use crate::cache::{Cache, partial_name};
use crate::console::{Progress, Unit, note};
use crate::encoder::{Batch, Config, Encoder, Mode};
use crate::fetch::TOKENIZER_FILE;
use crate::reviews::Review;
use crate::text::TextReader;
use crate::threads;
use crate::variant::{Pooling, Variant};

/// Reviews per file of the cache.
const CHUNK: usize = 1024;
/// Reviews per run of the encoder; they are of similar length, so little of it is padding.
const BATCH: usize = 8;

/// What determines the features of a review.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Setting {
    /// A folder of the cache.
    pub encoder: String,
    /// Texts are cut to this many tokens.
    pub max_length: usize,
    /// How the tokens' features become the text's.
    pub pooling: Pooling,
}

impl Setting {
    /// The setting that `variant` needs.
    pub fn of(variant: &Variant) -> Self {
        Self {
            encoder: variant.encoder.clone(),
            max_length: variant.max_length,
            pooling: variant.pooling,
        }
    }

    fn directory(&self) -> String {
        format!(
            "features/{}-{}-{}",
            self.encoder,
            self.max_length,
            self.pooling.name()
        )
    }
}

/// The features of some reviews after every layer.
#[derive(Debug, Clone)]
pub struct Features {
    /// `[reviews, layers, features]`
    tensor: Tensor,
}

impl Features {
    /// After how many layers there are features.
    ///
    /// # Errors
    /// When the tensor has another shape than it was made with.
    pub fn depth(&self) -> Result<usize> {
        Ok(self.tensor.dim(1)?)
    }

    /// The features after `layers` layers: `[reviews, features]`.
    ///
    /// # Errors
    /// When the encoder has fewer layers.
    pub fn after(&self, layers: usize) -> Result<Tensor> {
        ensure!(layers >= 1, "there are no features before the first layer");
        Ok(self
            .tensor
            .narrow(1, layers - 1, 1)?
            .squeeze(1)?
            .contiguous()?)
    }
}

/// The features of `reviews`, in their order, from the cache or made now.
///
/// # Errors
/// When the encoder is missing, or the cache cannot be read or written; says what to do.
pub fn features(cache: &Cache, setting: &Setting, reviews: &[&Review]) -> Result<Features> {
    let lock = cache.lock()?;
    let directory = cache.make_directory(&setting.directory())?;
    let mut chunks = Chunks::read(&directory)?;
    let missing: Vec<&Review> = reviews
        .iter()
        .filter(|review| !chunks.rows.contains_key(&review.review_id))
        .copied()
        .collect();
    if !missing.is_empty() {
        make(cache, setting, &missing, &mut chunks)?;
    }
    drop(lock);
    let rows: Vec<Tensor> = reviews
        .iter()
        .map(|review| {
            let (chunk, row) = chunks
                .rows
                .get(&review.review_id)
                .context("a review has no features")?;
            Ok(chunks.tensors[*chunk].get(*row)?)
        })
        .collect::<Result<_>>()?;
    Ok(Features {
        tensor: Tensor::stack(&rows, 0)?,
    })
}

/// The files of one setting, each of up to [`CHUNK`] reviews.
#[derive(Debug)]
struct Chunks {
    directory: PathBuf,
    tensors: Vec<Tensor>,
    /// Chunk and row of each review.
    rows: HashMap<String, (usize, usize)>,
}

impl Chunks {
    fn read(directory: &Path) -> Result<Self> {
        let mut chunks = Self {
            directory: directory.to_owned(),
            tensors: Vec::new(),
            rows: HashMap::new(),
        };
        loop {
            let path = chunks.next_path();
            if !path.exists() {
                return Ok(chunks);
            }
            chunks.add_file(&path).with_context(|| {
                format!(
                    "{} is damaged: delete the folder {}",
                    path.display(),
                    directory.display()
                )
            })?;
        }
    }

    fn next_path(&self) -> PathBuf {
        self.directory
            .join(format!("chunk-{:03}.safetensors", self.tensors.len()))
    }

    fn add_file(&mut self, path: &Path) -> Result<()> {
        let mut tensors = candle_core::safetensors::load(path, &Device::Cpu)?;
        let ids = tensors
            .remove("review_ids")
            .context("no review_ids")?
            .to_vec1::<u8>()?;
        let features = tensors.remove("features").context("no features")?;
        let ids: Vec<&str> = std::str::from_utf8(&ids)?.split('\n').collect();
        ensure!(
            ids.len() == features.dim(0)?,
            "as many ids as features expected"
        );
        self.add(&ids, features);
        Ok(())
    }

    fn add(&mut self, ids: &[&str], features: Tensor) {
        let chunk = self.tensors.len();
        self.tensors.push(features);
        for (row, id) in ids.iter().enumerate() {
            self.rows.insert((*id).to_owned(), (chunk, row));
        }
    }

    fn save(&mut self, ids: &[&str], features: Tensor) -> Result<()> {
        let path = self.next_path();
        let partial = partial_name(&path);
        let bytes = ids.join("\n").into_bytes();
        let count = bytes.len();
        let tensors = HashMap::from([
            (
                "review_ids".to_owned(),
                Tensor::from_vec(bytes, count, &Device::Cpu)?,
            ),
            ("features".to_owned(), features.clone()),
        ]);
        candle_core::safetensors::save(&tensors, &partial)
            .map_err(anyhow::Error::from)
            .and_then(|()| Ok(fs::rename(&partial, &path)?))
            .with_context(|| format!("cannot write {}", path.display()))?;
        self.add(ids, features);
        Ok(())
    }
}

fn make(cache: &Cache, setting: &Setting, reviews: &[&Review], chunks: &mut Chunks) -> Result<()> {
    let directory = cache.path(&setting.encoder);
    cache.require(&format!("{}/model.safetensors", setting.encoder))?;
    let depth = Config::load(&directory.join("config.json"))?.num_hidden_layers;
    let encoder = Encoder::load(&directory, depth)?;
    let reader = TextReader::load(&cache.require(TOKENIZER_FILE)?, setting.max_length)?;
    note(&format!(
        "features: {} reviews through {}, up to {} tokens (cached afterwards)",
        reviews.len(),
        setting.encoder,
        setting.max_length
    ));
    let progress = Progress::start("features", reviews.len() as u64, Unit::Items);
    for chunk in reviews.chunks(CHUNK) {
        let texts: Vec<Vec<u32>> = chunk
            .iter()
            .map(|review| reader.read(&review.text()))
            .collect::<Result<_>>()?;
        let rows = encode_all(&encoder, setting.pooling, &texts, &progress)?;
        let ids: Vec<&str> = chunk
            .iter()
            .map(|review| review.review_id.as_str())
            .collect();
        chunks.save(&ids, Tensor::stack(&rows, 0)?)?;
    }
    progress.finish();
    Ok(())
}

/// The features of each text after every layer, `[layers, features]` each, on all cores.
///
/// # Errors
/// When the arithmetic fails.
pub fn encode_all(
    encoder: &Encoder,
    pooling: Pooling,
    texts: &[Vec<u32>],
    progress: &Progress,
) -> Result<Vec<Tensor>> {
    let mut order: Vec<usize> = (0..texts.len()).collect();
    order.sort_by_key(|index| texts[*index].len());
    let batches: Vec<&[usize]> = order.chunks(BATCH).collect();
    let next = AtomicUsize::new(0);
    let worker = || -> Result<Vec<(usize, Tensor)>> {
        threads::compute_alone()?;
        let mut done = Vec::new();
        while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
            let members: Vec<&[u32]> = batch.iter().map(|index| texts[*index].as_slice()).collect();
            let features = encode_batch(encoder, pooling, &Batch::new(&members)?)?;
            for (row, index) in batch.iter().enumerate() {
                done.push((*index, features.get(row)?.copy()?));
            }
            progress.advance(batch.len() as u64);
        }
        Ok(done)
    };
    let mut rows = Vec::with_capacity(texts.len());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads::cores()).map(|_| scope.spawn(worker)).collect();
        for worker in workers {
            rows.extend(
                worker
                    .join()
                    .map_err(|_| anyhow!("a thread of the encoder failed"))??,
            );
        }
        Ok::<(), anyhow::Error>(())
    })?;
    rows.sort_by_key(|(index, _)| *index);
    Ok(rows.into_iter().map(|(_, tensor)| tensor).collect())
}

/// `[texts, layers, features]`
fn encode_batch(encoder: &Encoder, pooling: Pooling, batch: &Batch) -> Result<Tensor> {
    let mut hidden = encoder.embed(batch)?;
    let mut layers = Vec::with_capacity(encoder.depth());
    for layer in 0..encoder.depth() {
        hidden = encoder.run(hidden, batch, layer..layer + 1, Mode::Inference)?;
        layers.push(pooling.pool(&hidden, batch.mask())?);
    }
    Ok(Tensor::stack(&layers, 1)?)
}
