//! AdamW (Loshchilov and Hutter 2019) over the flat vector of trained values, as `torch.optim.AdamW` computes it, with a
//! learning rate a part and the norm of the whole gradient clipped.
//!
//! One vector instead of a tensor a parameter: the state is two vectors in a checkpoint, and the norm is one number.

use burn::tensor::{Tensor, TensorData};
use limbic_model::Trainables;
use limbic_weights::{NamedTensor, Weights, WeightsError};

use crate::recipe::{Decay, TrainRecipe};

/// The optimizer and its state.
#[derive(Debug, Clone)]
pub struct AdamW {
    betas: [f64; 2],
    epsilon: f64,
    weight_decay: f64,
    /// Peak learning rate of each value.
    rates: Tensor<1>,
    /// Updates done; skipped steps do not count.
    updates: u64,
    first_moment: Tensor<1>,
    second_moment: Tensor<1>,
}

impl AdamW {
    /// A fresh optimizer for `trainables`, on the device of `values`.
    pub fn new(recipe: &TrainRecipe, trainables: &Trainables, values: &Tensor<1>) -> Self {
        let mut rates = vec![0.0f32; trainables.num_values()];
        for (part, range) in trainables.stretches() {
            rates[range].fill(recipe.learning_rate[&part] as f32);
        }
        let shape = [rates.len()];
        let device = values.device();
        Self {
            betas: recipe.betas,
            epsilon: recipe.epsilon,
            weight_decay: recipe.weight_decay,
            rates: Tensor::from_data(TensorData::new(rates, shape), &device),
            updates: 0,
            first_moment: Tensor::zeros(shape, &device),
            second_moment: Tensor::zeros(shape, &device),
        }
    }

    /// The values after one update with `gradient`; `schedule` is the share of the peak rates in force.
    pub fn step(&mut self, values: Tensor<1>, gradient: Tensor<1>, schedule: f64) -> Tensor<1> {
        let [beta1, beta2] = self.betas;
        self.updates += 1;
        let correction = |beta: f64| 1.0 - beta.powf(self.updates as f64);
        self.first_moment = self.first_moment.clone() * beta1 + gradient.clone() * (1.0 - beta1);
        self.second_moment =
            self.second_moment.clone() * beta2 + gradient.square() * (1.0 - beta2);
        let denominator =
            self.second_moment.clone().sqrt() / correction(beta2).sqrt() + self.epsilon;
        let rates = self.rates.clone() * schedule;
        let decayed = values.clone() - values * (rates.clone() * self.weight_decay);
        decayed - rates * (self.first_moment.clone() / correction(beta1)) / denominator
    }

    /// The state by name.
    pub fn to_weights(&self) -> Weights {
        let named = |tensor: &Tensor<1>| NamedTensor {
            shape: tensor.dims().to_vec(),
            values: tensor
                .to_data()
                .try_into_vec::<f32>()
                .expect("the optimizer's state is F32"),
        };
        Weights {
            tensors: [
                ("exp_avg".to_string(), named(&self.first_moment)),
                ("exp_avg_sq".to_string(), named(&self.second_moment)),
            ]
            .into(),
        }
    }

    /// Takes up a saved state after `updates` updates.
    ///
    /// # Errors
    /// A state for another number of values.
    pub fn restore(&mut self, weights: &Weights, updates: u64) -> Result<(), WeightsError> {
        let device = self.first_moment.device();
        let wanted = self.first_moment.dims().to_vec();
        let get = |name: &str| match weights.tensors.get(name) {
            Some(tensor) if tensor.shape == wanted => Ok(Tensor::from_data(
                TensorData::new(tensor.values.clone(), tensor.shape.clone()),
                &device,
            )),
            other => Err(WeightsError::Mismatch(format!(
                "optimizer state `{name}` has shape {:?}, wanted {wanted:?}",
                other.map(|tensor| &tensor.shape)
            ))),
        };
        (self.first_moment, self.second_moment) = (get("exp_avg")?, get("exp_avg_sq")?);
        self.updates = updates;
        Ok(())
    }

    /// Updates done.
    pub fn updates(&self) -> u64 {
        self.updates
    }
}

/// The share of the peak learning rates in force in step `step` (from 0): a pure function, so that resuming needs no state.
pub fn schedule(recipe: &TrainRecipe, step: u64) -> f64 {
    if step < recipe.warmup {
        return (step + 1) as f64 / recipe.warmup as f64;
    }
    match recipe.decay {
        Decay::Constant => 1.0,
        Decay::Cosine => {
            let length = recipe.steps.saturating_sub(recipe.warmup).max(1);
            let done = ((step - recipe.warmup) as f64 / length as f64).min(1.0);
            let cosine = 0.5 * (1.0 + (std::f64::consts::PI * done).cos());
            recipe.final_rate + (1.0 - recipe.final_rate) * cosine
        }
    }
}

/// The Euclidean norm of the whole gradient.
///
/// Summed over stretches of a fixed length: burn's full sum of a very long vector is cut by the number of threads.
pub fn global_norm(gradient: &Tensor<1>) -> f64 {
    const STRETCH: usize = 1 << 20;
    let length = gradient.dims()[0];
    let squares = gradient.clone().square();
    let sum: f64 = (0..length.div_ceil(STRETCH))
        .map(|i| {
            let stretch = i * STRETCH..((i + 1) * STRETCH).min(length);
            f64::from(squares.clone().slice([stretch]).sum().into_scalar::<f32>())
        })
        .sum();
    sum.sqrt()
}

/// `gradient` scaled down to a norm of at most `max_norm`, as `torch.nn.utils.clip_grad_norm_` does it.
pub fn clip(gradient: Tensor<1>, norm: f64, max_norm: f64) -> Tensor<1> {
    let scale = max_norm / (norm + 1e-6);
    if scale < 1.0 { gradient * scale } else { gradient }
}
