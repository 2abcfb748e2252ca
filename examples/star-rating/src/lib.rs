//! Real BERT star-rating models to put behind Pointsman.
//!
//! Two small sentence encoders (MiniLM-L6 and MiniLM-L3) are cut at different depths and given
//! linear heads trained on different kinds of reviews. So the variants truly differ in accuracy and
//! latency, and the best one overall is not the best one for every product category.
//!
//! From downloads to answers:
//!
//! ```text
//! fetch ── archive, onnx, clothing, snippets ──> cache/{minilm-l6,minilm-l3,reviews.tsv}
//! train ── features (frozen encoder, cached) ── head (AdamW) ──> heads/NAME.safetensors, NAME.json
//!       └─ tune (the top encoder layers too) ──> cache/tuned/NAME.safetensors
//! serve ── variant file ── text ── encoder ── pooling ── head ──> {"predicted_label": 5, ...}
//! predict ── the same, over the held-out reviews ──> predictions.tsv
//! ```
//!
//! This crate is not part of the proxy: Pointsman sees these servers as it would any other model
//! endpoint, over HTTP.

pub mod archive;
pub mod cache;
pub mod clock;
pub mod clothing;
pub mod console;
pub mod dataset;
pub mod encoder;
pub mod evaluation;
pub mod features;
pub mod fetch;
pub mod grid;
pub mod head;
pub mod markup;
pub mod model;
pub mod onnx;
pub mod optimise;
pub mod pip;
pub mod predict;
pub mod random;
pub mod reviews;
pub mod serve;
pub mod snippets;
pub mod text;
pub mod threads;
pub mod traffic;
pub mod train;
pub mod tune;
pub mod variant;
