//! AffectGPT v2's ways from frames to one token (`affectgpt.py`, `encode_video_attention`, `encode_video_mean` and the
//! same for sound): a weighted sum or the mean over time, then one linear layer.
//!
//! Letters in shapes: B batch, N features, E their width.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::fusion::repeated;
use crate::pooling::segment_means;
use crate::projector::padding_bias;
use crate::transformer::linear;

/// A sum over time with weights that a linear layer gives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttentionPoolConfig {
    /// Tokens the language model is given: copies of one, as published.
    #[serde(default = "one")]
    pub tokens: usize,
    /// Whether the weights pass a softmax over time. The published ones do not, so that the sum grows with the number
    /// of features.
    #[serde(default)]
    pub softmax: bool,
    /// Whether features are first standardised by statistics measured on the training clips.
    #[serde(default)]
    pub standardise: bool,
}

/// The mean over time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeanConfig {
    /// Tokens the language model is given: copies of one, as published.
    #[serde(default = "one")]
    pub tokens: usize,
    /// Whether features are first standardised by statistics measured on the training clips.
    #[serde(default)]
    pub standardise: bool,
}

fn one() -> usize {
    1
}

impl AttentionPoolConfig {
    pub(crate) fn init(
        &self,
        feature_dim: usize,
        output_dim: usize,
        device: &Device,
    ) -> AttentionPool {
        AttentionPool {
            attention_mlp: Some(linear(feature_dim, 1, device)),
            proj: linear(feature_dim, output_dim, device),
            tokens: self.tokens,
            softmax: self.softmax,
        }
    }
}

impl MeanConfig {
    pub(crate) fn init(
        &self,
        feature_dim: usize,
        output_dim: usize,
        device: &Device,
    ) -> AttentionPool {
        AttentionPool {
            attention_mlp: None,
            proj: linear(feature_dim, output_dim, device),
            tokens: self.tokens,
            softmax: false,
        }
    }
}

/// A built sum or mean over time.
#[derive(Module, Debug)]
pub(crate) struct AttentionPool {
    /// `video_attention_mlp` or `audio_attention_mlp`; none for the mean.
    attention_mlp: Option<Linear>,
    /// `affectgpt_proj` or `audio_llama_proj`
    proj: Linear,
    tokens: usize,
    softmax: bool,
}

impl AttentionPool {
    /// # Shapes
    /// features `[B, N, E]`, result `[B, tokens, Dout]`
    pub(crate) fn forward(&self, features: Tensor<3>, lengths: &[usize]) -> Tensor<3> {
        let pooled = match &self.attention_mlp {
            None => segment_means(features, lengths, 1),
            Some(attention) => {
                let [_, length, _] = features.dims();
                // [B, 1, N]
                let weights = attention.forward(features.clone()).swap_dims(1, 2);
                let weights = if self.softmax {
                    match padding_bias(lengths, length, &features.device()) {
                        Some(bias) => softmax(weights + bias.squeeze_dim::<3>(1), 2),
                        None => softmax(weights, 2),
                    }
                } else {
                    weights * valid(lengths, length, &features.device())
                };
                weights.matmul(features)
            }
        };
        repeated(self.proj.forward(pooled), self.tokens)
    }
}

/// `[B, 1, N]`: 1 where there is a feature, 0 on padding.
pub(crate) fn valid(lengths: &[usize], length: usize, device: &Device) -> Tensor<3> {
    let values: Vec<f32> = lengths
        .iter()
        .flat_map(|valid| (0..length).map(move |place| f32::from(u8::from(place < *valid))))
        .collect();
    let device = device.clone().without_autodiff();
    Tensor::from_data(TensorData::new(values, [lengths.len(), 1, length]), &device)
}
