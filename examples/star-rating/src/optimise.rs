//! Fits a head to features: softmax regression by `AdamW` (Loshchilov and Hutter, 2019) with early
//! stopping on a validation split.
//!
//! Features are standardised while fitting, and the scales are folded into the head afterwards, so
//! one learning rate suits every layer and the head reads raw features.

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::loss::cross_entropy;
use candle_nn::{AdamW, Optimizer, ParamsAdamW};

use crate::dataset::validation_split;
use crate::head::{Head, STARS};
use crate::random::SplitMix64;
use crate::variant::Recipe;

/// A fitted head and how the fit went.
#[derive(Debug, Clone)]
pub struct Fit {
    /// The head of the epoch with the smallest validation loss.
    pub head: Head,
    /// That epoch, from 1.
    pub epoch: usize,
    /// Its mean negative log-likelihood on the validation split.
    pub validation_loss: f64,
    /// Its accuracy on the validation split.
    pub validation_accuracy: f64,
}

/// Fits a head to `features` (`[reviews, features]`) and the true `stars` (1 to 5); `each_epoch`
/// hears of every epoch that is done.
///
/// # Errors
/// When there are too few reviews to validate with, or the arithmetic fails.
pub fn fit(
    features: &Tensor,
    stars: &[u8],
    recipe: &Recipe,
    mut each_epoch: impl FnMut(usize),
) -> Result<Fit> {
    let (train, validation) = validation_split(stars.len(), recipe.seed);
    ensure!(
        !validation.is_empty(),
        "{} training reviews are too few: at least 10 are needed",
        stars.len()
    );
    let scale = Scale::of(&select(features, &train)?)?;
    let standard = scale.standardise(features)?;
    let labels: Vec<u32> = stars.iter().map(|stars| u32::from(*stars) - 1).collect();
    let labels = Tensor::from_vec(labels, stars.len(), &Device::Cpu)?;
    let validation = (
        select(&standard, &validation)?,
        select(&labels, &validation)?,
    );
    let regression = Regression::new(features.dim(1)?)?;
    let mut optimiser = AdamW::new(regression.variables(), adam_w(recipe))?;
    let mut generator = SplitMix64::new(recipe.seed);
    let mut order = train;
    let mut best: Option<Fit> = None;
    for epoch in 1..=recipe.epochs {
        generator.shuffle(&mut order);
        let (rows, truth) = (select(&standard, &order)?, select(&labels, &order)?);
        for start in (0..order.len()).step_by(recipe.batch_size) {
            let count = recipe.batch_size.min(order.len() - start);
            let logits = regression.logits(&rows.narrow(0, start, count)?)?;
            optimiser.backward_step(&cross_entropy(&logits, &truth.narrow(0, start, count)?)?)?;
        }
        each_epoch(epoch);
        let logits = regression.logits(&validation.0)?;
        let loss = f64::from(cross_entropy(&logits, &validation.1)?.to_scalar::<f32>()?);
        ensure!(
            loss.is_finite(),
            "the training diverged: choose a smaller learning_rate than {}",
            recipe.learning_rate
        );
        if best.as_ref().is_none_or(|best| loss < best.validation_loss) {
            best = Some(Fit {
                head: scale.fold(&regression)?,
                epoch,
                validation_loss: loss,
                validation_accuracy: accuracy(&logits, &validation.1)?,
            });
        } else if best
            .as_ref()
            .is_some_and(|best| epoch - best.epoch >= recipe.patience)
        {
            break;
        }
    }
    best.context("the recipe has no epochs")
}

/// The parameters of `AdamW` that `recipe` names; the others are the usual ones.
pub(crate) fn adam_w(recipe: &Recipe) -> ParamsAdamW {
    ParamsAdamW {
        lr: recipe.learning_rate,
        weight_decay: recipe.weight_decay,
        ..ParamsAdamW::default()
    }
}

/// A head while it is fitted, over standardised features.
struct Regression {
    weight: Var,
    bias: Var,
}

impl Regression {
    fn new(features: usize) -> Result<Self> {
        // The loss is convex in the head: zeros are as good a start as any.
        Ok(Self {
            weight: Var::zeros((STARS, features), DType::F32, &Device::Cpu)?,
            bias: Var::zeros(STARS, DType::F32, &Device::Cpu)?,
        })
    }

    fn variables(&self) -> Vec<Var> {
        vec![self.weight.clone(), self.bias.clone()]
    }

    fn logits(&self, rows: &Tensor) -> Result<Tensor> {
        Ok(rows.matmul(&self.weight.t()?)?.broadcast_add(&self.bias)?)
    }
}

/// The stars that `head` predicts from each row of `features`.
///
/// # Errors
/// When the head does not fit the features.
pub fn predict_all(head: &Head, features: &Tensor) -> Result<Vec<u8>> {
    features
        .to_vec2::<f32>()?
        .iter()
        .map(|row| Ok(head.predict(row)?.stars()))
        .collect()
}

/// The rows of `tensor` at `indices`.
///
/// # Errors
/// When an index is out of range.
pub fn select(tensor: &Tensor, indices: &[usize]) -> Result<Tensor> {
    let indices: Vec<u32> = indices.iter().map(|index| *index as u32).collect();
    let count = indices.len();
    Ok(tensor.index_select(&Tensor::from_vec(indices, count, &Device::Cpu)?, 0)?)
}

/// The share of rows of `logits` whose largest is at the label.
///
/// # Errors
/// When the shapes do not fit.
pub fn accuracy(logits: &Tensor, labels: &Tensor) -> Result<f64> {
    let hits = logits.argmax(1)?.eq(labels)?.to_dtype(DType::F32)?;
    Ok(f64::from(hits.mean_all()?.to_scalar::<f32>()?))
}

/// Mean and standard deviation of each feature.
struct Scale {
    mean: Tensor,
    deviation: Tensor,
}

impl Scale {
    fn of(features: &Tensor) -> Result<Self> {
        let mean = features.mean_keepdim(0)?;
        let variance = features.broadcast_sub(&mean)?.sqr()?.mean_keepdim(0)?;
        // The small addition keeps a feature that never varies from being divided by zero.
        Ok(Self {
            mean,
            deviation: (variance + 1e-8)?.sqrt()?,
        })
    }

    fn standardise(&self, features: &Tensor) -> Result<Tensor> {
        Ok(features
            .broadcast_sub(&self.mean)?
            .broadcast_div(&self.deviation)?)
    }

    /// w·(x − m)/s + b = (w/s)·x + (b − (w/s)·m)
    fn fold(&self, regression: &Regression) -> Result<Head> {
        let weight = regression.weight.broadcast_div(&self.deviation)?;
        let shift = weight.broadcast_mul(&self.mean)?.sum(1)?;
        Head::from_tensors(&weight, &(regression.bias.as_tensor() - shift)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe() -> Recipe {
        Recipe {
            clothing: 0,
            electronics: 0,
            movies: 0,
            seed: 3,
            learning_rate: 0.05,
            weight_decay: 0.0,
            batch_size: 32,
            epochs: 40,
            patience: 5,
        }
    }

    /// Stars 1 to 5 laid out on a circle, with a little noise.
    fn circle(count: usize) -> (Tensor, Vec<u8>) {
        let mut generator = SplitMix64::new(1);
        let mut stars = Vec::new();
        let mut values = Vec::new();
        for _ in 0..count {
            let star = generator.index(5) as u8 + 1;
            let angle = f64::from(star) * std::f64::consts::TAU / 5.0;
            stars.push(star);
            values.push((10.0 + angle.cos() + 0.1 * generator.unit_interval()) as f32);
            values.push((0.01 * (angle.sin() + 0.1 * generator.unit_interval())) as f32);
        }
        (
            Tensor::from_vec(values, (count, 2), &Device::Cpu).unwrap(),
            stars,
        )
    }

    #[test]
    fn separable_stars_are_learned_from_unscaled_features() {
        let (features, stars) = circle(400);
        let fit = fit(&features, &stars, &recipe(), |_| {}).unwrap();
        assert_eq!(predict_all(&fit.head, &features).unwrap(), stars);
        assert_eq!(fit.validation_accuracy, 1.0);
    }

    #[test]
    fn the_same_seed_gives_the_same_head() {
        let (features, stars) = circle(100);
        let once = fit(&features, &stars, &recipe(), |_| {}).unwrap();
        let again = fit(&features, &stars, &recipe(), |_| {}).unwrap();
        assert_eq!(once.head, again.head);
    }

    #[test]
    fn too_few_reviews_are_refused() {
        let (features, stars) = circle(9);
        assert!(fit(&features, &stars, &recipe(), |_| {}).is_err());
    }
}
