//! From text to token ids, cut at a variant's maximum length.

use std::path::Path;

use anyhow::{Result, anyhow, ensure};
use tokenizers::{Tokenizer, TruncationParams};

/// A tokenizer with a fixed maximum length.
#[derive(Debug, Clone)]
pub struct TextReader {
    tokenizer: Tokenizer,
}

impl TextReader {
    /// Loads a `tokenizer.json`; texts will be cut to `max_length` tokens, the two markers included.
    ///
    /// # Errors
    /// When the file is missing or damaged; says what to do.
    pub fn load(path: &Path, max_length: usize) -> Result<Self> {
        ensure!(
            max_length > 2,
            "max_length must be at least 3: two tokens mark the ends of a text"
        );
        let mut tokenizer = Tokenizer::from_file(path).map_err(|error| {
            anyhow!("cannot read the tokenizer {}: {error}; run `star-rating fetch` to fetch it (again)", path.display())
        })?;
        tokenizer
            .with_truncation(Some(TruncationParams {
                max_length,
                ..TruncationParams::default()
            }))
            .map_err(|error| anyhow!("max_length {max_length}: {error}"))?;
        tokenizer.with_padding(None);
        Ok(Self { tokenizer })
    }

    /// The token ids of `text`, markers included, so never empty.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn read(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self
            .tokenizer
            .encode_fast(text, true)
            .map_err(|error| anyhow!("cannot tokenize the text: {error}"))?;
        Ok(encoding.get_ids().to_vec())
    }
}
