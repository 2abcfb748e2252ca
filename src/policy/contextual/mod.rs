//! Policies whose distribution depends on the request: π(x).
//!
//! What they learn is additive as well ([`Linear`], [`Laplace`]). The learner fits it, off
//! the request path, to a [`Model`](model::Model) that requests read. Arms are disjoint: each has its own regression, so their scores are
//! independent.
//!
//! | file | policy | π(x) |
//! |---|---|---|
//! | `lin_thompson` | linear Thompson sampling | P(arm is best given x), exact |
//! | `lin_ucb` | LinUCB | the best upper confidence bound |
//! | `square_cb` | SquareCB | inverse to the gap |
//! | `epsilon_greedy_linear` | ε-greedy | the best prediction, and ε for all |
//! | `logistic_thompson` | Thompson sampling on a logit | P(arm is best given x), exact |
//!
//! Not here: how features are made of a request, what is credited to which decision, the floor, and the draw.

pub mod epsilon_greedy_linear;
pub mod lin_thompson;
pub mod lin_ucb;
pub mod logistic_thompson;
pub mod model;
pub mod normal_best;
pub mod ridge;
pub mod square_cb;

use std::sync::Arc;

use super::{Evidence, Memory, Regressed, Regression, Statistics};
use crate::document::{Default, Field, Kind, Range, Section};
use crate::stats::laplace::Laplace;
use crate::stats::linear::Linear;
use ridge::{ArmStatistics, DEFAULT_LAMBDA, Objective, Ridge};

/// `prior` of policies with a regression.
pub const PRIOR: Field = Field {
    key: "prior",
    kind: Kind::Table(&[Field {
        key: "lambda",
        kind: Kind::Number(Range {
            low: 0.0,
            high: 1e9,
            low_included: false,
            high_included: true,
        }),
        default: Default::Is("1.0"),
        doc: "How many observations the belief is worth that a coefficient is 0, for each coefficient of standardised features.",
    }]),
    default: Default::Is("{ lambda = 1.0 }"),
    doc: "What is believed of the regression's coefficients before the first reward.",
};

/// `standardize`, for policies with a linear regression.
pub const STANDARDIZE: Field = Field {
    key: "standardize",
    kind: Kind::Boolean,
    default: Default::Is("true"),
    doc: "Whether features are taken in units of their standard deviation around their mean, and real rewards, too. false takes them as [context.NAME] \
          makes them: better where all have one natural scale already, such as pixels, because then the belief in small coefficients keeps \
          hardly used features small.",
};

/// What a policy's table says of the regression.
fn ridge_of(section: &Section<'_>) -> Ridge {
    Ridge {
        lambda: lambda(section),
        standardize: section.boolean(STANDARDIZE.key).unwrap_or(true),
    }
}

/// λ in a policy's table.
fn lambda(section: &Section<'_>) -> f64 {
    section
        .section(PRIOR.key)
        .and_then(|prior| prior.number("lambda"))
        .unwrap_or(DEFAULT_LAMBDA)
}

/// What the fold keeps for a linear regression.
const fn linear(memory: Memory) -> Statistics {
    Statistics {
        memory,
        importance: None,
        regression: Some(Regression::Linear),
    }
}

/// A policy's ridge regression with the sums of its arms; `None` if the evidence has no sums over contexts.
struct Sums {
    arms: Vec<Arc<Linear>>,
    objective: Objective,
}

impl Sums {
    fn of(evidence: &Evidence<'_>) -> Option<Self> {
        let arms: Option<Vec<_>> = evidence
            .arms
            .iter()
            .map(|arm| match &arm.regressed {
                Some(Regressed::Linear(sums)) => Some(Arc::clone(sums)),
                Some(Regressed::Logistic(_)) | None => None,
            })
            .collect();
        Some(Self {
            arms: arms?,
            objective: Objective {
                reward: evidence.reward,
                goal: evidence.goal,
            },
        })
    }

    fn arms(&self) -> Vec<ArmStatistics<'_>> {
        self.arms
            .iter()
            .map(|linear| ArmStatistics {
                linear,
                lambda: None,
            })
            .collect()
    }
}

/// The states of a logistic regression.
fn states<'e>(evidence: &Evidence<'e>) -> Option<Vec<&'e Laplace>> {
    evidence
        .arms
        .iter()
        .map(|arm| match &arm.regressed {
            Some(Regressed::Logistic(state)) => Some(&**state),
            Some(Regressed::Linear(_)) | None => None,
        })
        .collect()
}

/// What a policy says that has seen no context: all arms alike.
fn alike(evidence: &Evidence<'_>) -> Vec<f64> {
    vec![1.0 / evidence.arms.len() as f64; evidence.arms.len()]
}

#[cfg(test)]
mod tests;
