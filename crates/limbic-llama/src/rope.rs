//! Rotary position embedding in the rotate-half layout of Hugging Face: dimension `i` pairs with `i + head_dim / 2`.
//!
//! Letters: B rows, H heads, L slots, E head width.

use burn::tensor::{Device, Tensor, TensorData};

use crate::LlamaConfig;

/// How rotary frequencies are stretched, by transformers' name and definition.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// `linear`: every position divided by `factor` (Chen et al. 2023).
    Linear {
        /// How many times longer sequences become.
        factor: f64,
    },
    /// `llama3`: slow frequencies divided by `factor`, fast ones kept, those between interpolated (LLaMA 3.1).
    Llama3 {
        /// How many times longer sequences become.
        factor: f64,
        /// Waves longer than `original_max_position_embeddings` over this are stretched in full.
        low_freq_factor: f64,
        /// Waves shorter than `original_max_position_embeddings` over this are kept.
        high_freq_factor: f64,
        /// Longest sequence of the first training.
        original_max_position_embeddings: usize,
    },
}

impl RopeScaling {
    pub(crate) fn validate(&self) -> Result<(), String> {
        let positive = |key: &str, value: f64| {
            if value.is_finite() && value > 0.0 {
                return Ok(());
            }
            Err(format!(
                "`{key}` of the RoPE scaling is {value}, wanted a positive number"
            ))
        };
        match *self {
            Self::Linear { factor } => positive("factor", factor),
            Self::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => {
                positive("factor", factor)?;
                positive("low_freq_factor", low_freq_factor)?;
                positive(
                    "original_max_position_embeddings",
                    original_max_position_embeddings as f64,
                )?;
                if high_freq_factor.is_finite() && high_freq_factor > low_freq_factor {
                    return Ok(());
                }
                Err(format!(
                    "`high_freq_factor` of the RoPE scaling is {high_freq_factor}, wanted more than `low_freq_factor`, \
                     which is {low_freq_factor}"
                ))
            }
        }
    }

    fn stretch(&self, frequency: f32) -> f32 {
        match *self {
            Self::Linear { factor } => frequency / factor as f32,
            Self::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => {
                let positions = original_max_position_embeddings as f64;
                let wave = std::f32::consts::TAU / frequency;
                let (longest, shortest) =
                    (positions / low_freq_factor, positions / high_freq_factor);
                if wave > longest as f32 {
                    frequency / factor as f32
                } else if wave < shortest as f32 {
                    frequency
                } else {
                    let kept = (positions as f32 / wave - low_freq_factor as f32)
                        / (high_freq_factor - low_freq_factor) as f32;
                    (1.0 - kept) * frequency / factor as f32 + kept * frequency
                }
            }
        }
    }
}

/// The angles of a set of positions.
///
/// They are computed for the positions at hand only: a few thousand sines per forward pass cost less than a table for
/// every position costs memory. Each step is rounded to F32, as transformers has it: at position 4000 that turns a
/// pair by up to 2e-4, and checkpoints were trained with it.
#[derive(Clone, Debug)]
pub(crate) struct Rotation {
    cos: Tensor<4>,
    /// Negative over the first half, so that `rotate_half(x) * sin` becomes `swap_halves(x) * sin`.
    sin: Tensor<4>,
}

/// The angle per position of each pair of dimensions.
fn frequencies(config: &LlamaConfig) -> Vec<f32> {
    let width = config.head_dim as f32;
    let plain = |pair: usize| {
        let exponent = (2 * pair) as f32 / width;
        1.0 / config.rope_theta.powf(f64::from(exponent)) as f32
    };
    let plain = (0..config.head_dim / 2).map(plain);
    match &config.rope_scaling {
        None => plain.collect(),
        Some(scaling) => plain.map(|frequency| scaling.stretch(frequency)).collect(),
    }
}

/// Cosines and sines of each pair of dimensions at some positions, `[positions, E/2]` each.
pub(crate) fn half_tables(
    config: &LlamaConfig,
    positions: impl Iterator<Item = usize>,
) -> (Vec<f32>, Vec<f32>) {
    let frequencies = frequencies(config);
    let (mut cos, mut sin) = (Vec::new(), Vec::new());
    for position in positions {
        let angles = frequencies.iter().map(|f| f64::from(position as f32 * f));
        cos.extend(angles.clone().map(|a| a.cos() as f32));
        sin.extend(angles.map(|a| a.sin() as f32));
    }
    (cos, sin)
}

impl Rotation {
    /// # Shapes
    /// `positions[row][slot]` with one row for all of a batch or one for each; tables `[rows, 1, L, E]`.
    pub(crate) fn new(config: &LlamaConfig, positions: &[Vec<usize>], device: &Device) -> Self {
        let half = config.head_dim / 2;
        let slots = positions[0].len();
        let shape = [positions.len(), 1, slots, config.head_dim];
        let (half_cos, half_sin) = half_tables(config, positions.iter().flatten().copied());
        let mut cos = Vec::with_capacity(shape.iter().product());
        let mut sin = Vec::with_capacity(cos.capacity());
        for (of_cos, of_sin) in half_cos.chunks(half).zip(half_sin.chunks(half)) {
            cos.extend([of_cos, of_cos].concat());
            sin.extend(of_sin.iter().map(|sin| -sin));
            sin.extend(of_sin);
        }
        Self {
            cos: Tensor::from_data(TensorData::new(cos, shape), device),
            sin: Tensor::from_data(TensorData::new(sin, shape), device),
        }
    }

    /// Turns queries or keys to their positions.
    ///
    /// # Shapes
    /// `[B, H, L, E]` to the same.
    pub(crate) fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        let swapped = swap_halves(x.clone());
        x * self.cos.clone() + swapped * self.sin.clone()
    }
}

/// A flip of the pair (first half, second half): burn's backward of a flip is a flip, where that of a slice fills
/// a tensor with zeros first.
fn swap_halves(x: Tensor<4>) -> Tensor<4> {
    let [b, h, l, e] = x.dims();
    x.reshape([b, h, l, 2, e / 2])
        .flip([3])
        .reshape([b, h, l, e])
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use limbic_weights::Weights;

    use super::*;

    /// transformers' tables for heads of published models (scripts/golden/llama.py).
    #[test]
    fn angles_far_out_are_transformers() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests/golden/llama/rotary.safetensors");
        let tables = Weights::read(&path).unwrap().tensors;
        let positions = tables["positions"].values.iter();
        let positions: Vec<usize> = positions.map(|position| *position as usize).collect();
        let llama3 = RopeScaling::Llama3 {
            factor: 32.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        };
        for (name, head_dim, rope_theta, rope_scaling) in [
            ("llama-2", 128, 1e4, None),
            ("qwen2.5", 128, 1e6, None),
            ("llama-3.2", 64, 5e5, Some(llama3)),
            ("linear", 80, 1e4, Some(RopeScaling::Linear { factor: 4.0 })),
        ] {
            let config = LlamaConfig {
                head_dim,
                rope_theta,
                rope_scaling,
                ..LlamaConfig::small(8, 8, 1, 1)
            };
            let device = Device::flex();
            let rotation = Rotation::new(&config, std::slice::from_ref(&positions), &device);
            let [cos, sin] =
                [rotation.cos, rotation.sin].map(|t| t.into_data().try_into_vec::<f32>().unwrap());
            let wanted = &tables[&format!("{name}.cos")].values;
            for (got, wanted) in cos.iter().zip(wanted) {
                assert!((got - wanted).abs() < 1e-6, "{name}: cos {got} {wanted}");
            }
            // Ours are negative over the first half of each head.
            let wanted = tables[&format!("{name}.sin")].values.chunks(head_dim);
            for (got, wanted) in sin.chunks(head_dim).zip(wanted) {
                for (pair, (got, wanted)) in got.iter().zip(wanted).enumerate() {
                    let got = if pair < head_dim / 2 { -got } else { *got };
                    assert!((got - wanted).abs() < 1e-6, "{name}: sin {got} {wanted}");
                }
            }
        }
    }

    #[test]
    fn pairs_lie_half_a_head_apart() {
        let config = LlamaConfig {
            head_dim: 4,
            ..LlamaConfig::small(8, 8, 1, 2)
        };
        let rotation = Rotation::new(&config, &[vec![3]], &Device::flex());
        let x = Tensor::<4>::from_data([[[[1.0, 2.0, 3.0, 4.0]]]], &Device::flex());
        let turned = rotation.apply(x).into_data().try_into_vec::<f32>().unwrap();
        // Frequencies of head_dim 4 and base 10 000: 1 and 1/100; angles at position 3: 3 and 0.03.
        let (a, b) = (3.0f32, 0.03f32);
        let expected = [
            a.cos() - 3.0 * a.sin(),
            2.0 * b.cos() - 4.0 * b.sin(),
            3.0 * a.cos() + a.sin(),
            4.0 * b.cos() + 2.0 * b.sin(),
        ];
        for (got, wanted) in turned.iter().zip(expected) {
            assert!((got - wanted).abs() < 1e-6, "{turned:?} {expected:?}");
        }
    }
}
