//! `[shadow]`: which requests are copied to which other arms, whose answers no client sees.
//!
//! Not here: the copying (`proxy::shadow`), and what the answers are worth (`engine`).

use serde::{Deserialize, Serialize};

/// `[shadow]`, validated.
#[derive(Debug, Clone, PartialEq)]
pub struct ShadowRule {
    /// Indices of the arms that shadow, each once, at least one. None shadows a request that it serves.
    pub arms: Vec<usize>,
    /// The part of the sampled decisions that is shadowed, in [0, 1].
    pub fraction: f64,
    /// Most copies under way in one process, ≥ 1.
    pub concurrency: usize,
    /// How long a copy may take from its sending to the end of its response, in milliseconds, > 0.
    pub timeout: u64,
    /// Longest body that is copied, in bytes.
    pub body_limit: usize,
    /// What becomes of the answers.
    pub terms: ShadowTerms,
}

/// What the fold has to know of `[shadow]`. It is journalled with the policy file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowTerms {
    /// Whether an arm is credited with its scores as a shadow.
    pub learn: bool,
}
