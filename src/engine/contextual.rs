//! An allocation that depends on the request: a fitted model, with floor and warm-up around it.
//!
//! p = base + share · π(x): what does not depend on the context was computed when the allocation was made. Not here: the draw
//! (`decide`), and how models are fitted (`policy`).

use std::sync::Arc;

use crate::policy::{Model, Scratch};

/// A distribution over an experiment's arms for each context.
#[derive(Debug, Clone)]
pub struct Contextual {
    model: Arc<dyn Model>,
    /// The places of the model's arms in the experiment.
    arms: Vec<usize>,
    /// What each of the experiment's arms has whatever the context is.
    base: Vec<f64>,
    /// What is left to the model.
    share: f64,
    /// A typical feature vector.
    center: Vec<f64>,
}

/// Room to compute in, kept from request to request.
#[derive(Debug, Default)]
pub struct Workspace {
    /// The feature vector of the request.
    pub features: Vec<f64>,
    /// What was last drawn from by an allocation that depends on the context: each arm's probability, floor included.
    pub probabilities: Vec<f64>,
    among: Vec<f64>,
    scratch: Scratch,
}

impl Contextual {
    /// `arms` are the model's, as places in `base`. `base` and `share` sum to 1.
    pub(super) fn new(
        model: Arc<dyn Model>,
        arms: Vec<usize>,
        base: Vec<f64>,
        share: f64,
        center: Vec<f64>,
    ) -> Self {
        Self {
            model,
            arms,
            base,
            share,
            center,
        }
    }

    /// Writes the probability of each arm, given `workspace.features`, to `workspace.probabilities`: 0 for arms that are not eligible; they sum
    /// to 1 within 1e-9. Allocates no memory once the workspace has grown to the largest experiment.
    pub fn allocate(&self, workspace: &mut Workspace) {
        let Workspace {
            features,
            probabilities,
            among,
            scratch,
        } = workspace;
        among.clear();
        among.resize(self.arms.len(), 0.0);
        self.model.distribution(features, scratch, among);
        probabilities.clear();
        probabilities.extend_from_slice(&self.base);
        for (place, probability) in self.arms.iter().zip(&*among) {
            probabilities[*place] += self.share * probability;
        }
    }

    /// The probabilities at a typical context, for people.
    pub fn typical(&self) -> Vec<f64> {
        let mut workspace = Workspace {
            features: self.center.clone(),
            ..Workspace::default()
        };
        self.allocate(&mut workspace);
        workspace.probabilities
    }
}
