//! Low-rank adapters (Hu et al. 2021) with PEFT's definition and initialisation:
//! `y = x Wᵀ + scale · (dropout(x) Aᵀ) Bᵀ`, A uniform in ±1/√in (its `kaiming_uniform_(a=√5)`), B zero.
//!
//! The product B·A is formed when merging only: two thin matrices cost `r (in + out)` a position, the dense one
//! `in · out` and a gradient of that size.

// `lora_A` and `lora_B` are the names in PEFT's files, and a module's field names are its parameters' names.
#![allow(non_snake_case)]

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Tensor, TensorData};
use limbic_weights::CounterRng;
use serde::{Deserialize, Serialize};

use crate::{Dropout, LlamaError};

/// Which layers get an adapter, and of what kind. Names and meanings are PEFT's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraConfig {
    /// Rank of the adapters.
    pub r: usize,
    /// Numerator of the scale.
    pub lora_alpha: f64,
    /// Probability with which an input element of an adapter is dropped in training.
    #[serde(default)]
    pub lora_dropout: f64,
    /// Last part of the names of the layers that are adapted, for example `q_proj`.
    pub target_modules: Vec<String>,
    /// Scale by `lora_alpha / √r` instead of `lora_alpha / r` (Kalajdzievski 2023).
    #[serde(default)]
    pub use_rslora: bool,
}

impl LoraConfig {
    /// The factor on an adapter's output.
    pub fn scale(&self) -> f64 {
        let rank = self.r as f64;
        self.lora_alpha / if self.use_rslora { rank.sqrt() } else { rank }
    }

    /// Whether the layer of this full name is adapted.
    pub(crate) fn targets(&self, name: &str) -> bool {
        self.target_modules
            .iter()
            .any(|target| target == last_part(name))
    }

    /// Checks the numbers, and that every target is the last part of one of the layers' names.
    pub(crate) fn validate<'a>(
        &self,
        layers: impl Iterator<Item = &'a str>,
    ) -> Result<(), LlamaError> {
        let mut known: Vec<&str> = Vec::new();
        for name in layers.map(last_part) {
            if !known.contains(&name) {
                known.push(name);
            }
        }
        let wrong = |detail: String| Err(LlamaError::Lora(detail));
        if self.r == 0 {
            return wrong("`r` is 0, wanted at least 1".into());
        }
        if !self.lora_alpha.is_finite() || self.lora_alpha <= 0.0 {
            return wrong(format!(
                "`lora_alpha` is {}, wanted a positive number",
                self.lora_alpha
            ));
        }
        if !(0.0..1.0).contains(&self.lora_dropout) {
            return wrong(format!(
                "`lora_dropout` is {}, wanted at least 0 and less than 1",
                self.lora_dropout
            ));
        }
        if self.target_modules.is_empty() {
            return wrong(format!(
                "`target_modules` is empty; wanted some of {}",
                known.join(", ")
            ));
        }
        match self
            .target_modules
            .iter()
            .find(|target| !known.contains(&target.as_str()))
        {
            Some(target) => wrong(format!(
                "`target_modules` names `{target}`, which no layer of this model is called; wanted some of {}",
                known.join(", ")
            )),
            None => Ok(()),
        }
    }
}

fn last_part(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// A linear layer without bias and, where the [`LoraConfig`] says so, the adapter beside it.
#[derive(Module, Debug)]
pub struct LoraLinear {
    /// `[out, in]`, PyTorch's layout; its transposed view costs a matrix product nothing.
    pub weight: Param<Tensor<2>>,
    lora_A: Option<LoraFactor>,
    lora_B: Option<LoraFactor>,
    #[module(skip)]
    lora: Option<Adaptation>,
}

/// One of the two thin matrices: A `[r, in]`, B `[out, r]`.
#[derive(Module, Debug)]
pub struct LoraFactor {
    /// The matrix, in F32.
    pub weight: Param<Tensor<2>>,
}

#[derive(Clone, Debug)]
struct Adaptation {
    scale: f64,
    dropout: f64,
    site: String,
}

impl LoraLinear {
    pub(crate) fn new(input: usize, output: usize, device: &Device) -> Self {
        Self {
            weight: lazy_zeros([output, input], device),
            lora_A: None,
            lora_B: None,
            lora: None,
        }
    }

    /// # Shapes
    /// `[.., in]` to `[.., out]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>, dropout: Dropout) -> Tensor<D> {
        let y = project(x.clone(), self.weight.val());
        let (Some(a), Some(b), Some(lora)) = (&self.lora_A, &self.lora_B, &self.lora) else {
            return y;
        };
        let x = dropout.apply(x, lora.dropout, &lora.site);
        y + project(project(x, a.weight.val()), b.weight.val()) * lora.scale
    }

    /// Puts a fresh adapter beside the weight, in place of one that may be there.
    pub(crate) fn adapt(&mut self, name: &str, config: &LoraConfig, rng: CounterRng) {
        let [output, input] = self.weight.lazy_shape().dims();
        let device = self.weight.lazy_device().without_autodiff();
        let rng = rng.site(&format!("{name}.lora_A.weight"));
        let bound = 1.0 / (input as f64).sqrt();
        let values: Vec<f32> = (0..(config.r * input) as u64)
            .map(|i| ((2.0 * rng.uniform(i) - 1.0) * bound) as f32)
            .collect();
        let a = Tensor::from_data(TensorData::new(values, [config.r, input]), &device);
        let b = Tensor::zeros([output, config.r], &device);
        let factor = |value| LoraFactor {
            weight: Param::initialized(ParamId::new(), value),
        };
        self.lora_A = Some(factor(a));
        self.lora_B = Some(factor(b));
        self.lora = Some(Adaptation {
            scale: config.scale(),
            dropout: config.lora_dropout,
            site: name.to_string(),
        });
    }

    /// Whether an adapter stands beside the weight.
    pub(crate) fn is_adapted(&self) -> bool {
        self.lora.is_some()
    }

    /// The adapter's matrices by name; none without an adapter.
    pub(crate) fn factors_mut(&mut self) -> impl Iterator<Item = (&'static str, &mut LoraFactor)> {
        let a = self.lora_A.as_mut().map(|a| ("lora_A", a));
        let b = self.lora_B.as_mut().map(|b| ("lora_B", b));
        a.into_iter().chain(b)
    }

    /// Adds the adapter into the weight and takes it away.
    pub(crate) fn merge(&mut self) {
        let (Some(a), Some(b), Some(lora)) =
            (self.lora_A.take(), self.lora_B.take(), self.lora.take())
        else {
            return;
        };
        let [a, b] = [a, b].map(|factor| factor.weight.val().without_autodiff());
        let merged = self.weight.val().without_autodiff() + b.matmul(a) * lora.scale;
        self.weight = Param::initialized(self.weight.id, merged);
    }
}

/// `x Wᵀ` with all leading dimensions folded into rows: one product reads the weight once, and in place.
/// (burn's `linear` copies a transposed weight whenever it decides not to fold.)
pub(crate) fn project<const D: usize>(x: Tensor<D>, weight: Tensor<2>) -> Tensor<D> {
    let mut shape = x.dims();
    let [output, input] = weight.dims();
    let rows = shape[..D - 1].iter().product();
    shape[D - 1] = output;
    x.reshape([rows, input])
        .matmul(weight.transpose())
        .reshape(shape)
}

/// A matrix that takes memory when it is first read, so that loading weights allocates them once.
pub(crate) fn lazy_zeros(shape: [usize; 2], device: &Device) -> Param<Tensor<2>> {
    Param::uninitialized(
        ParamId::new(),
        move |device, _| Tensor::zeros(shape, device),
        device.clone(),
        false,
        shape.into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initialisation_is_pefts() {
        let device = Device::flex();
        let mut linear = LoraLinear::new(64, 32, &device);
        let config = LoraConfig {
            r: 8,
            lora_alpha: 16.0,
            lora_dropout: 0.0,
            target_modules: vec!["q_proj".into()],
            use_rslora: false,
        };
        linear.adapt("q_proj", &config, CounterRng::new(1));
        let values = |factor: &Option<LoraFactor>| {
            let value = factor.as_ref().unwrap().weight.val();
            (
                value.dims(),
                value.into_data().try_into_vec::<f32>().unwrap(),
            )
        };
        let (shape, a) = values(&linear.lora_A);
        assert_eq!(shape, [8, 64]);
        // Uniform in ±1/8: deviation 1/(8 √3) = 0.0722.
        let largest = a.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let deviation = (a.iter().map(|v| v * v).sum::<f32>() / a.len() as f32).sqrt();
        assert!(largest <= 0.125 && largest > 0.12, "{largest}");
        assert!((deviation - 0.0722).abs() < 0.004, "{deviation}");
        let (shape, b) = values(&linear.lora_B);
        assert_eq!(shape, [32, 8]);
        assert!(b.iter().all(|v| *v == 0.0));
        assert_eq!(config.scale(), 2.0);
        let rank_stabilised = LoraConfig {
            use_rslora: true,
            r: 16,
            ..config
        };
        assert_eq!(rank_stabilised.scale(), 4.0);
    }
}
