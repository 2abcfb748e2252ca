//! The linear head: from a text's features to the probabilities of one to five stars.
//!
//! A head is a few kilobytes, so it is committed; the encoder below it is fetched.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};

/// Number of classes: one to five stars.
pub const STARS: usize = 5;

/// The names of a head's tensors in its file.
pub const WEIGHT_NAME: &str = "head.weight";
/// See [`WEIGHT_NAME`].
pub const BIAS_NAME: &str = "head.bias";

/// Softmax regression over features.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    /// One row of weights per star.
    weight: Vec<Vec<f32>>,
    bias: Vec<f32>,
}

/// What a model says about one text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prediction {
    /// Probability of each star, the first of one star; they sum to 1.
    pub probabilities: [f32; STARS],
}

impl Prediction {
    /// The most probable number of stars, 1 to 5.
    pub fn stars(&self) -> u8 {
        let mut best = 0;
        for star in 1..STARS {
            if self.probabilities[star] > self.probabilities[best] {
                best = star;
            }
        }
        best as u8 + 1
    }

    /// The probability of [`Self::stars`].
    pub fn confidence(&self) -> f32 {
        self.probabilities[usize::from(self.stars()) - 1]
    }
}

impl Head {
    /// A head from its tensors: `weight` is `[5, features]`, `bias` is `[5]`.
    ///
    /// # Errors
    /// When the shapes are others or a value is not finite.
    pub fn from_tensors(weight: &Tensor, bias: &Tensor) -> Result<Self> {
        ensure!(
            weight.rank() == 2 && weight.dim(0)? == STARS && bias.dims() == [STARS],
            "a head needs a weight of [5, features] and a bias of [5], found {:?} and {:?}",
            weight.dims(),
            bias.dims()
        );
        let head = Self {
            weight: weight.to_vec2()?,
            bias: bias.to_vec1()?,
        };
        let finite = head
            .weight
            .iter()
            .flatten()
            .chain(&head.bias)
            .all(|value| value.is_finite());
        ensure!(finite, "the head holds values that are not finite");
        Ok(head)
    }

    /// Loads a head from safetensors.
    ///
    /// # Errors
    /// When the file is missing or holds no head; says what to do.
    pub fn load(path: &Path) -> Result<Self> {
        let attempt = || -> Result<Self> {
            let tensors = candle_core::safetensors::load(path, &Device::Cpu)?;
            let tensor = |name: &str| {
                tensors
                    .get(name)
                    .with_context(|| format!("it holds no {name:?}"))
            };
            Self::from_tensors(tensor(WEIGHT_NAME)?, tensor(BIAS_NAME)?)
        };
        attempt().with_context(|| {
            format!(
                "no usable head in {}: make it with `star-rating train --variant FILE`",
                path.display()
            )
        })
    }

    /// The head as tensors, for saving.
    ///
    /// # Errors
    /// When the tensors cannot be made.
    pub fn to_tensors(&self) -> Result<HashMap<String, Tensor>> {
        let flat: Vec<f32> = self.weight.iter().flatten().copied().collect();
        let weight = Tensor::from_vec(flat, (STARS, self.features()), &Device::Cpu)?;
        let bias = Tensor::from_slice(&self.bias, STARS, &Device::Cpu)?;
        Ok(HashMap::from([
            (WEIGHT_NAME.to_owned(), weight),
            (BIAS_NAME.to_owned(), bias),
        ]))
    }

    /// How many features the head reads.
    pub fn features(&self) -> usize {
        self.weight.first().map_or(0, Vec::len)
    }

    /// The prediction for one text's features.
    ///
    /// # Errors
    /// When their number is not [`Self::features`].
    pub fn predict(&self, features: &[f32]) -> Result<Prediction> {
        ensure!(
            features.len() == self.features(),
            "the head reads {} features but the encoder makes {}: is it the head of another variant?",
            self.features(),
            features.len()
        );
        let mut logits = [0f32; STARS];
        for (star, logit) in logits.iter_mut().enumerate() {
            let product: f32 = self.weight[star]
                .iter()
                .zip(features)
                .map(|(weight, value)| weight * value)
                .sum();
            *logit = product + self.bias[star];
        }
        let largest = logits.iter().copied().fold(f32::MIN, f32::max);
        let exponentials = logits.map(|logit| (logit - largest).exp());
        let sum: f32 = exponentials.iter().sum();
        Ok(Prediction {
            probabilities: exponentials.map(|value| value / sum),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        let weight =
            Tensor::from_vec((0u8..10).map(f32::from).collect(), (5, 2), &Device::Cpu).unwrap();
        let bias = Tensor::from_vec(vec![0f32, 0.5, 0., 0., -20.], 5, &Device::Cpu).unwrap();
        Head::from_tensors(&weight, &bias).unwrap()
    }

    #[test]
    fn probabilities_are_the_softmax() {
        let prediction = head().predict(&[1.0, -1.0]).unwrap();
        // Every row gives -1, so only the biases differ.
        let sum = 1.0 + 0.5f32.exp() + 1.0 + 1.0 + (-20f32).exp();
        assert!((prediction.probabilities[0] - 1.0 / sum).abs() < 1e-6);
        assert!((prediction.probabilities.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert_eq!(prediction.stars(), 2);
        assert_eq!(prediction.confidence(), prediction.probabilities[1]);
    }

    #[test]
    fn a_head_survives_its_file() {
        let path = std::env::temp_dir().join(format!(
            "star-rating-head-{}.safetensors",
            std::process::id()
        ));
        candle_core::safetensors::save(&head().to_tensors().unwrap(), &path).unwrap();
        assert_eq!(Head::load(&path).unwrap(), head());
        std::fs::write(&path, b"garbage").unwrap();
        let message = format!("{:#}", Head::load(&path).unwrap_err());
        assert!(message.contains("star-rating train"), "{message}");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn wrong_shapes_are_refused() {
        assert!(head().predict(&[1.0]).is_err());
        let weight = Tensor::zeros((4, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
        let bias = Tensor::zeros(4, candle_core::DType::F32, &Device::Cpu).unwrap();
        assert!(Head::from_tensors(&weight, &bias).is_err());
    }
}
