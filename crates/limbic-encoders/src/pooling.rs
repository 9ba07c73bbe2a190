//! The two projectors without attention: segment means and clip statistics.
//!
//! Letters in shapes: B batch, N features, K tokens. Means are products with a matrix built on the
//! host from the lengths, so that padding takes part with weight zero.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::activation::gelu;
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::transformer::linear;

/// Means of equal segments of the clip, or one chosen feature, then one linear layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinearProjectorConfig {
    /// Number of segments: the tokens the language model is given. Segments are cut as by PyTorch's
    /// `adaptive_avg_pool1d`; they overlap where the clip has fewer features.
    #[serde(default = "one")]
    pub tokens: usize,
    /// Which features the segments are cut from.
    #[serde(default)]
    pub select: Select,
    /// Whether features are first standardised by statistics measured on the training clips.
    #[serde(default)]
    pub standardise: bool,
}

/// Which features are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Select {
    /// All of them.
    #[default]
    All,
    /// The first alone: the class token of a picture.
    First,
}

fn one() -> usize {
    1
}

impl LinearProjectorConfig {
    pub(crate) fn problem(&self) -> Option<(&'static str, String)> {
        match (self.tokens, self.select) {
            (0, _) => Some(("tokens", "got 0, wanted at least 1".into())),
            (2.., Select::First) => Some((
                "tokens",
                format!(
                    "got {} of one feature (`select: first`), wanted 1",
                    self.tokens
                ),
            )),
            _ => None,
        }
    }

    pub(crate) fn init(
        &self,
        feature_dim: usize,
        output_dim: usize,
        device: &Device,
    ) -> LinearProjector {
        LinearProjector {
            linear: linear(feature_dim, output_dim, device),
            tokens: self.tokens,
            select: self.select,
        }
    }
}

/// A built segment-mean projector.
#[derive(Module, Debug)]
pub(crate) struct LinearProjector {
    linear: Linear,
    tokens: usize,
    #[module(skip)]
    select: Select,
}

impl LinearProjector {
    /// # Shapes
    /// features `[B, N, Din]`, result `[B, K, Dout]`
    pub(crate) fn forward(&self, features: Tensor<3>, lengths: &[usize]) -> Tensor<3> {
        let selected = match self.select {
            Select::All => segment_means(features, lengths, self.tokens),
            Select::First => features.narrow(1, 0, 1),
        };
        self.linear.forward(selected)
    }
}

/// The mean over the clip, and on request its deviation, then a two-layer network: one token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeanPoolConfig {
    /// Width inside the network.
    pub hidden: usize,
    /// Whether the deviation over the clip stands beside the mean: what moves, beside what is.
    #[serde(default)]
    pub statistics: bool,
    /// Whether features are first standardised by statistics measured on the training clips.
    #[serde(default)]
    pub standardise: bool,
}

impl MeanPoolConfig {
    pub(crate) fn init(&self, feature_dim: usize, output_dim: usize, device: &Device) -> MeanPool {
        let inputs = if self.statistics {
            2 * feature_dim
        } else {
            feature_dim
        };
        MeanPool {
            fc1: linear(inputs, self.hidden, device),
            fc2: linear(self.hidden, output_dim, device),
            statistics: self.statistics,
        }
    }
}

/// A built mean-pool projector.
#[derive(Module, Debug)]
pub(crate) struct MeanPool {
    fc1: Linear,
    fc2: Linear,
    statistics: bool,
}

impl MeanPool {
    /// Added to the variance, so that the root of a constant feature has a gradient.
    const VARIANCE_FLOOR: f64 = 1e-5;

    /// # Shapes
    /// features `[B, N, Din]`, result `[B, 1, Dout]`
    pub(crate) fn forward(&self, features: Tensor<3>, lengths: &[usize]) -> Tensor<3> {
        let mean = segment_means(features.clone(), lengths, 1);
        let pooled = if self.statistics {
            let variance = segment_means((features - mean.clone()).square(), lengths, 1);
            Tensor::cat(vec![mean, (variance + Self::VARIANCE_FLOOR).sqrt()], 2)
        } else {
            mean
        };
        self.fc2.forward(gelu(self.fc1.forward(pooled)))
    }
}

/// Means of `segments` equal parts of the first `lengths[b]` features of each row.
///
/// # Shapes
/// features `[B, N, D]`, result `[B, segments, D]`
pub(crate) fn segment_means(features: Tensor<3>, lengths: &[usize], segments: usize) -> Tensor<3> {
    let [batch, length, _] = features.dims();
    let mut weights = vec![0.0f32; batch * segments * length];
    for (row, valid) in weights.chunks_exact_mut(segments * length).zip(lengths) {
        for (segment, weights) in row.chunks_exact_mut(length).enumerate() {
            let (start, end) = (
                segment * valid / segments,
                ((segment + 1) * valid).div_ceil(segments),
            );
            weights[start..end].fill(1.0 / (end - start) as f32);
        }
    }
    let plain = features.device().without_autodiff();
    Tensor::from_data(TensorData::new(weights, [batch, segments, length]), &plain).matmul(features)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_cut_as_by_pytorch() {
        // torch.nn.functional.adaptive_avg_pool1d of [0..5] into 2 and of [0, 1] into 3.
        let features =
            Tensor::<1>::from_floats([0., 1., 2., 3., 4., 0., 1., 9., 9., 9.], &Device::flex())
                .reshape([2, 5, 1]);
        let means = |lengths: &[usize], segments| {
            segment_means(features.clone(), lengths, segments)
                .into_data()
                .iter::<f32>()
                .collect::<Vec<_>>()
        };
        assert_eq!(means(&[5, 2], 2), [1.0, 3.0, 0.0, 1.0]);
        assert_eq!(means(&[5, 2], 3)[3..], [0.0, 0.5, 1.0]);
    }
}
