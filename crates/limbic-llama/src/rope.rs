//! Rotary position embedding in the rotate-half layout of Hugging Face: dimension `i` pairs with `i + head_dim / 2`.
//!
//! Letters: B rows, H heads, L slots, E head width.

use burn::tensor::{Device, Tensor, TensorData};

use crate::LlamaConfig;

/// The angles of a set of positions.
///
/// Angles are computed in F64 and rounded once to F32, for the positions at hand only: a few thousand sines
/// per forward pass cost less than a table for every position costs memory.
#[derive(Clone, Debug)]
pub(crate) struct Rotation {
    cos: Tensor<4>,
    /// Negative over the first half, so that `rotate_half(x) * sin` becomes `swap_halves(x) * sin`.
    sin: Tensor<4>,
}

impl Rotation {
    /// # Shapes
    /// `positions[row][slot]` with one row for all of a batch or one for each; tables `[rows, 1, L, E]`.
    pub(crate) fn new(config: &LlamaConfig, positions: &[Vec<usize>], device: &Device) -> Self {
        let half = config.head_dim / 2;
        let frequency = |pair: usize| {
            config
                .rope_theta
                .powf(-2.0 * pair as f64 / config.head_dim as f64)
        };
        let frequencies: Vec<f64> = (0..half).map(frequency).collect();
        let slots = positions[0].len();
        let shape = [positions.len(), 1, slots, config.head_dim];
        let mut cos = Vec::with_capacity(shape.iter().product());
        let mut sin = Vec::with_capacity(cos.capacity());
        for &position in positions.iter().flatten() {
            let angles = || frequencies.iter().map(|f| position as f64 * f);
            cos.extend(angles().chain(angles()).map(|a| a.cos() as f32));
            sin.extend(angles().map(|a| -a.sin() as f32));
            sin.extend(angles().map(|a| a.sin() as f32));
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
    use super::*;

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
