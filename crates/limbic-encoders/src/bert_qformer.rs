//! The video and audio Q-Formers of Video-LLaMA (Zhang et al. 2023; `video_llama.py`, `encode_videoQformer_visual` and
//! `encode_audioQformer`), as AffectGPT uses them: learned positions are added to the features, a BERT-shaped query
//! transformer reads them, and one linear layer leads to the language model.
//!
//! Letters in shapes: B batch, N features, E their width, Q queries, D width of the queries.

use burn::module::{Module, Param};
use burn::nn::{Initializer, Linear};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::Keep;
use crate::bert::{Bert, BertShape};
use crate::transformer::linear;

/// A BERT-shaped query transformer behind learned positions. Defaults are those of the published models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BertQFormerConfig {
    /// Number of learned queries: the tokens the language model is given. 32 for video, 8 for sound.
    pub queries: usize,
    /// Number of layers.
    #[serde(default = "two")]
    pub layers: usize,
    /// Attention heads in each layer.
    #[serde(default = "heads")]
    pub heads: usize,
    /// Width of the queries.
    #[serde(default = "dim")]
    pub dim: usize,
    /// Width inside each layer's network.
    #[serde(default = "intermediate")]
    pub intermediate: usize,
    /// 1: every layer looks at the features; 2: the first, third, fifth and so on do.
    #[serde(default = "one")]
    pub cross_attention_every: usize,
    /// Positions there are embeddings for: the most frames, or stretches of sound.
    pub positions: usize,
    /// Consecutive features that stand at one position: 32 where a frame gives 32 tokens.
    #[serde(default = "one")]
    pub features_per_position: usize,
    /// Whether features are first standardised by statistics measured on the training clips.
    #[serde(default)]
    pub standardise: bool,
}

fn one() -> usize {
    1
}

fn two() -> usize {
    2
}

pub(crate) fn heads() -> usize {
    12
}

pub(crate) fn dim() -> usize {
    768
}

pub(crate) fn intermediate() -> usize {
    3072
}

impl BertQFormerConfig {
    fn shape(&self, feature_dim: usize) -> BertShape {
        BertShape {
            dim: self.dim,
            layers: self.layers,
            heads: self.heads,
            intermediate: self.intermediate,
            cross_attention_every: self.cross_attention_every,
            feature_dim,
        }
    }

    pub(crate) fn problem(&self) -> Option<(&'static str, String)> {
        for (key, value) in [
            ("queries", self.queries),
            ("positions", self.positions),
            ("features_per_position", self.features_per_position),
        ] {
            if value == 0 {
                return Some((key, "got 0, wanted at least 1".into()));
            }
        }
        self.shape(1).problem()
    }

    /// The longest input, in features.
    pub(crate) fn max_length(&self) -> usize {
        self.positions * self.features_per_position
    }

    pub(crate) fn init(
        &self,
        feature_dim: usize,
        output_dim: usize,
        device: &Device,
    ) -> BertQFormer {
        BertQFormer {
            positions: Initializer::Zeros.init([self.positions, feature_dim], device),
            query_tokens: Initializer::Zeros.init([1, self.queries, self.dim], device),
            qformer: self.shape(feature_dim).init(device),
            proj: linear(self.dim, output_dim, device),
            features_per_position: self.features_per_position,
        }
    }
}

/// A built Q-Former with its positions and its way to the language model.
#[derive(Module, Debug)]
pub(crate) struct BertQFormer {
    /// `video_frame_position_embedding.weight` or `audio_position_embedding.weight`, `[positions, E]`
    positions: Param<Tensor<2>>,
    /// `video_query_tokens` or `audio_query_tokens`, `[1, Q, D]`
    query_tokens: Param<Tensor<3>>,
    /// `video_Qformer.bert` or `audio_Qformer.bert`
    qformer: Bert,
    /// `llama_proj` or `audio_llama_proj`
    proj: Linear,
    features_per_position: usize,
}

impl BertQFormer {
    /// # Shapes
    /// features `[B, N, E]`, hidden `[B, 1, 1, N]` (minus infinity where a row has ended), result `[B, Q, Dout]`
    pub(crate) fn forward(&self, features: Tensor<3>, hidden: Option<Tensor<4>>) -> Tensor<3> {
        let [batch, length, _] = features.dims();
        let features = features + self.positions_of(length).unsqueeze();
        let [_, queries, dim] = self.query_tokens.dims();
        let queries = self.query_tokens.val().expand([batch, queries, dim]);
        let states = &mut Vec::new();
        let read = self
            .qformer
            .forward(queries, &features, hidden, Keep::Last(0), states);
        self.proj.forward(read)
    }

    /// Each position as often as features stand at it: `[length, E]`.
    fn positions_of(&self, length: usize) -> Tensor<2> {
        let (each, [_, dim]) = (self.features_per_position, self.positions.dims());
        let count = length.div_ceil(each);
        self.positions
            .val()
            .narrow(0, 0, count)
            .unsqueeze_dim::<3>(1)
            .expand([count, each, dim])
            .reshape([count * each, dim])
            .narrow(0, 0, length)
    }
}
