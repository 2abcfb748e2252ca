//! What a contextual policy publishes: a fitted model that answers each request with a distribution over the arms.
//!
//! A model is made off the request path, out of additive sums ([`Policy::fit`](super::Policy::fit)), and never changed.
//! Not here: which features there are (`experiment::context`), and the floor and warm-up, which the engine applies as ever.

use std::fmt::Debug;

/// Answers requests.
pub trait Model: Debug + Send + Sync {
    /// Writes π(x) over the model's arms into `distribution`, which has an entry for each: non-negative, summing to 1 within 1e-9.
    ///
    /// `features` is x as [`ContextRule::encode`](crate::experiment::context::ContextRule::encode) wrote it. Allocates no memory but what `scratch` keeps.
    fn distribution(&self, features: &[f64], scratch: &mut Scratch, distribution: &mut [f64]);
}

/// Room that models compute in, kept from request to request so that none of them allocates.
#[derive(Debug, Clone, Default)]
pub struct Scratch {
    /// The standardised features.
    pub(crate) features: Vec<f64>,
    /// A number for each arm: expected gains.
    pub(crate) means: Vec<f64>,
    /// A number for each arm: their standard deviations.
    pub(crate) deviations: Vec<f64>,
}
