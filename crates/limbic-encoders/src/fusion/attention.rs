//! The pre-fusion of AffectGPT v2 (`my_affectgpt/models/affectgpt.py`, `encode_multi_attention`; the same as MERBench's
//! `attention` model): each source's mean is brought to one width, and the sources are summed with weights that a
//! network gives, which sees all of them.
//!
//! Letters in shapes: B batch, S sources, M common width.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::{Padded, repeated};
use crate::pooling::segment_means;
use crate::transformer::linear;

/// A weighted sum of the sources' means. The published one reads a video and an audio source, in this order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttentionFusionConfig {
    /// Tokens the language model is given: copies of one, as published.
    #[serde(default = "one")]
    pub tokens: usize,
    /// Whether the weights pass a softmax, as those of an attention should. The published ones do not, so they can have
    /// any sign and size.
    #[serde(default)]
    pub softmax: bool,
    /// Whether each source is first standardised by statistics measured on the training clips.
    #[serde(default)]
    pub standardise: bool,
}

fn one() -> usize {
    1
}

impl AttentionFusionConfig {
    pub(super) fn init(
        &self,
        dims: &[usize],
        output_dim: usize,
        device: &Device,
    ) -> AttentionFusion {
        let width = dims.iter().copied().max().unwrap_or(0);
        AttentionFusion {
            embs: dims.iter().map(|dim| linear(*dim, width, device)).collect(),
            attention_mlp: linear(dims.len() * width, width, device),
            fc_att: linear(width, dims.len(), device),
            proj: linear(width, output_dim, device),
            tokens: self.tokens,
            softmax: self.softmax,
        }
    }
}

/// A built attention fusion.
#[derive(Module, Debug)]
pub(super) struct AttentionFusion {
    /// `multi_video_embs` and `multi_audio_embs` of the published model.
    embs: Vec<Linear>,
    attention_mlp: Linear,
    fc_att: Linear,
    /// `multi_llama_proj` of the published model.
    proj: Linear,
    tokens: usize,
    softmax: bool,
}

impl AttentionFusion {
    /// # Shapes
    /// `[B, N, Din]` a source; result `[B, tokens, Dout]`
    pub(super) fn forward(&self, sources: &[Padded]) -> Tensor<3> {
        // [B, 1, M] a source
        let hidden: Vec<Tensor<3>> = self
            .embs
            .iter()
            .zip(sources)
            .map(|(emb, source)| {
                emb.forward(segment_means(source.values.clone(), &source.lengths, 1))
            })
            .collect();
        let weights = self
            .fc_att
            .forward(self.attention_mlp.forward(Tensor::cat(hidden.clone(), 2)));
        let weights = if self.softmax {
            softmax(weights, 2)
        } else {
            weights
        };
        // [B, 1, S] x [B, S, M]
        let fused = weights.matmul(Tensor::cat(hidden, 1));
        repeated(self.proj.forward(fused), self.tokens)
    }
}
