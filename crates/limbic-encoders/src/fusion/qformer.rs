//! The other pre-fusion of AffectGPT v2 (`affectgpt.py`, `encode_multi_qformer`): the sources, brought to one width, stand
//! one after the other in time, and a BERT-shaped query transformer reads them.
//!
//! Letters in shapes: B batch, N features of all sources, M common width, Q queries, D width of the queries.

use burn::module::{Module, Param};
use burn::nn::{Initializer, Linear};
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::Padded;
use crate::Keep;
use crate::bert::{Bert, BertShape};
use crate::bert_qformer::{dim, heads, intermediate};
use crate::transformer::linear;

/// A query transformer over all sources. Defaults are those of the published model, which reads a video and an audio
/// source, in this order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QFormerFusionConfig {
    /// Number of learned queries: the tokens the language model is given.
    #[serde(default = "one")]
    pub queries: usize,
    /// Number of layers, each of which looks at the features.
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
    /// Positions there are embeddings for: the longest input, in features of all sources together.
    #[serde(default = "positions")]
    pub positions: usize,
    /// Whether each source is first standardised by statistics measured on the training clips.
    #[serde(default)]
    pub standardise: bool,
}

fn one() -> usize {
    1
}

fn two() -> usize {
    2
}

/// 8 frames of 32 tokens each, and 8 stretches of sound.
fn positions() -> usize {
    264
}

impl QFormerFusionConfig {
    fn shape(&self, feature_dim: usize) -> BertShape {
        BertShape {
            dim: self.dim,
            layers: self.layers,
            heads: self.heads,
            intermediate: self.intermediate,
            cross_attention_every: 1,
            feature_dim,
        }
    }

    pub(super) fn problem(&self) -> Option<(&'static str, String)> {
        if self.positions == 0 {
            return Some(("positions", "got 0, wanted at least 1".into()));
        }
        self.shape(1).problem()
    }

    pub(super) fn init(&self, dims: &[usize], output_dim: usize, device: &Device) -> QFormerFusion {
        let width = dims.iter().copied().max().unwrap_or(0);
        QFormerFusion {
            embs: dims.iter().map(|dim| linear(*dim, width, device)).collect(),
            positions: Initializer::Zeros.init([self.positions, width], device),
            query_tokens: Initializer::Zeros.init([1, self.queries, self.dim], device),
            qformer: self.shape(width).init(device),
            proj: linear(self.dim, output_dim, device),
        }
    }
}

/// A built query-transformer fusion.
#[derive(Module, Debug)]
pub(super) struct QFormerFusion {
    /// `multi_video_embs` and `multi_audio_embs` of the published model.
    embs: Vec<Linear>,
    /// `multi_position_embedding.weight`, `[positions, M]`
    positions: Param<Tensor<2>>,
    /// `multi_query_tokens`, `[1, Q, D]`
    query_tokens: Param<Tensor<3>>,
    /// `multi_Qformer.bert`
    qformer: Bert,
    /// `multi_llama_proj`
    proj: Linear,
}

impl QFormerFusion {
    /// # Shapes
    /// `[B, N, Din]` a source; result `[B, Q, Dout]`
    pub(super) fn forward(&self, sources: &[Padded]) -> Tensor<3> {
        let hidden: Vec<Tensor<3>> = self
            .embs
            .iter()
            .zip(sources)
            .map(|(emb, source)| emb.forward(source.values.clone()))
            .collect();
        let features = Tensor::cat(hidden, 1);
        let [batch, length, width] = features.dims();
        let (places, bias) = places(sources);
        let device = features.device().without_autodiff();
        let places =
            Tensor::<1, Int>::from_data(TensorData::new(places, [batch * length]), &device);
        let bias = Tensor::from_data(TensorData::new(bias, [batch, 1, 1, length]), &device);
        let positions = self.positions.val().select(0, places);
        let features = features + positions.reshape([batch, length, width]);
        let [_, queries, dim] = self.query_tokens.dims();
        let queries = self.query_tokens.val().expand([batch, queries, dim]);
        let states = &mut Vec::new();
        let read = self
            .qformer
            .forward(queries, &features, Some(bias), Keep::Last(0), states);
        self.proj.forward(read)
    }
}

/// For each row the places of its features, counted through all sources as if there were no padding, and minus infinity
/// where there is padding.
fn places(sources: &[Padded]) -> (Vec<i64>, Vec<f32>) {
    let (mut places, mut bias) = (Vec::new(), Vec::new());
    for row in 0..sources[0].lengths.len() {
        let mut before = 0;
        for Padded { values, lengths } in sources {
            for place in 0..values.dims()[1] {
                let is_valid = place < lengths[row];
                places.push(if is_valid { (before + place) as i64 } else { 0 });
                bias.push(if is_valid { 0.0 } else { f32::NEG_INFINITY });
            }
            before += lengths[row];
        }
    }
    (places, bias)
}
