//! The query transformer: learned queries that look at the features and become tokens.
//!
//! After BLIP-2's Q-Former (Li et al. 2023) in its parts, with two departures, since this one is
//! trained from scratch on little data where the original starts from BERT: norms stand before each
//! part (post-norm needs a long warm-up), and positions are added to the keys of every
//! cross-attention, so that a query can ask for a moment or a place. Deliberately absent: the text
//! branch, and dropout.
//!
//! Letters in shapes: B batch, N features, Q queries, D width.

use burn::module::{Module, Param};
use burn::nn::{Initializer, LayerNorm, Linear};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::transformer::{CrossAttention, Mlp, SelfAttention, layer_norm, linear};

/// A query transformer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QFormerConfig {
    /// Number of learned queries: the tokens the language model is given.
    pub queries: usize,
    /// Number of layers.
    pub layers: usize,
    /// Attention heads in each layer.
    pub heads: usize,
    /// Width of the queries.
    pub dim: usize,
    /// Width inside each layer's network.
    pub intermediate: usize,
    /// 1: every layer looks at the features; 2: the first, third, fifth and so on do.
    #[serde(default = "one")]
    pub cross_attention_every: usize,
    /// Feature positions there are embeddings for; a longer input is the caller's error.
    pub max_length: usize,
    /// Whether features are first standardised by statistics measured on the training clips.
    #[serde(default)]
    pub standardise: bool,
}

fn one() -> usize {
    1
}

/// PyTorch's default epsilon.
const NORM_EPSILON: f64 = 1e-5;

impl QFormerConfig {
    pub(crate) fn problem(&self) -> Option<(&'static str, String)> {
        if self.queries == 0 {
            Some(("queries", "got 0, wanted at least 1".into()))
        } else if self.layers == 0 {
            Some(("layers", "got 0, wanted at least 1".into()))
        } else if self.dim == 0 || self.heads == 0 || !self.dim.is_multiple_of(self.heads) {
            Some((
                "heads",
                format!(
                    "got {} for a `dim` of {}, wanted a divisor of it",
                    self.heads, self.dim
                ),
            ))
        } else if self.intermediate == 0 {
            Some(("intermediate", "got 0, wanted at least 1".into()))
        } else if !matches!(self.cross_attention_every, 1 | 2) {
            Some((
                "cross_attention_every",
                format!("got {}, wanted 1 or 2", self.cross_attention_every),
            ))
        } else if self.max_length == 0 {
            Some(("max_length", "got 0, wanted at least 1".into()))
        } else {
            None
        }
    }

    pub(crate) fn init(&self, feature_dim: usize, output_dim: usize, device: &Device) -> QFormer {
        let layer = |index: usize| Layer {
            norm1: layer_norm(self.dim, NORM_EPSILON, device),
            attn: SelfAttention::new(self.dim, self.heads, device),
            cross: index
                .is_multiple_of(self.cross_attention_every)
                .then(|| Cross {
                    norm: layer_norm(self.dim, NORM_EPSILON, device),
                    attn: CrossAttention::new(self.dim, self.heads, device),
                }),
            norm2: layer_norm(self.dim, NORM_EPSILON, device),
            mlp: Mlp::new(self.dim, self.intermediate, device),
        };
        QFormer {
            input: linear(feature_dim, self.dim, device),
            input_norm: layer_norm(self.dim, NORM_EPSILON, device),
            positions: Initializer::Zeros.init([self.max_length, self.dim], device),
            queries: Initializer::Zeros.init([self.queries, self.dim], device),
            layers: (0..self.layers).map(layer).collect(),
            norm: layer_norm(self.dim, NORM_EPSILON, device),
            output: linear(self.dim, output_dim, device),
        }
    }
}

/// A built query transformer.
#[derive(Module, Debug)]
pub(crate) struct QFormer {
    input: Linear,
    input_norm: LayerNorm,
    /// `[max_length, D]`
    positions: Param<Tensor<2>>,
    /// `[Q, D]`
    queries: Param<Tensor<2>>,
    layers: Vec<Layer>,
    norm: LayerNorm,
    output: Linear,
}

impl QFormer {
    /// # Shapes
    /// features `[B, N, Din]`, hidden `[B, 1, 1, N]` (minus infinity where a row has ended), result `[B, Q, Dout]`
    pub(crate) fn forward(&self, features: Tensor<3>, hidden: Option<Tensor<4>>) -> Tensor<3> {
        let [batch, length, _] = features.dims();
        let [num_queries, dim] = self.queries.dims();
        let values = self.input_norm.forward(self.input.forward(features));
        let keys = values.clone() + self.positions.val().narrow(0, 0, length).unsqueeze();
        let queries = self
            .queries
            .val()
            .unsqueeze::<3>()
            .expand([batch, num_queries, dim]);
        let x = self.layers.iter().fold(queries, |x, layer| {
            layer.forward(x, &keys, &values, &hidden)
        });
        self.output.forward(self.norm.forward(x))
    }
}

#[derive(Module, Debug)]
struct Layer {
    norm1: LayerNorm,
    attn: SelfAttention,
    cross: Option<Cross>,
    norm2: LayerNorm,
    mlp: Mlp,
}

#[derive(Module, Debug)]
struct Cross {
    norm: LayerNorm,
    attn: CrossAttention,
}

impl Layer {
    fn forward(
        &self,
        x: Tensor<3>,
        keys: &Tensor<3>,
        values: &Tensor<3>,
        hidden: &Option<Tensor<4>>,
    ) -> Tensor<3> {
        let x = x.clone() + self.attn.forward(self.norm1.forward(x));
        let x = match &self.cross {
            Some(Cross { norm, attn }) => {
                x.clone()
                    + attn.forward(
                        norm.forward(x),
                        keys.clone(),
                        values.clone(),
                        hidden.clone(),
                    )
            }
            None => x,
        };
        x.clone() + self.mlp.forward(self.norm2.forward(x))
    }
}
