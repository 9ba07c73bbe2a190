//! The BERT-shaped query transformer of BLIP-2 (Li et al. 2023; LAVIS `Qformer.py`, transformers
//! `modeling_blip_2.py`), without its text branch: queries attend to each other, in some layers to the features, and
//! pass a network of their own. Norms stand after each part, as in BERT.
//!
//! Letters in shapes: B batch, Q queries, N features, D width, E width of the features. Deliberately absent: dropout,
//! pooler, word and position embeddings.

// Field names are the parameters' names in published checkpoints.
#![allow(non_snake_case)]

use burn::module::Module;
use burn::nn::{LayerNorm, Linear};
use burn::tensor::activation::gelu;
use burn::tensor::{Device, Tensor};

use crate::Keep;
use crate::transformer::{attend, layer_norm, linear, merge_heads, split_heads};

/// Sizes of a query transformer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BertShape {
    /// D
    pub(crate) dim: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) intermediate: usize,
    /// 1: every layer looks at the features; 2: the first, third, fifth and so on do.
    pub(crate) cross_attention_every: usize,
    /// E
    pub(crate) feature_dim: usize,
}

/// BERT's epsilon.
const NORM_EPSILON: f64 = 1e-12;

impl BertShape {
    /// What cannot work: the key and what is wrong with it.
    pub(crate) fn problem(&self) -> Option<(&'static str, String)> {
        let zero =
            |key, value: usize| (value == 0).then(|| (key, "got 0, wanted at least 1".to_string()));
        zero("dim", self.dim)
            .or_else(|| zero("layers", self.layers))
            .or_else(|| zero("intermediate", self.intermediate))
            .or_else(|| zero("cross_attention_every", self.cross_attention_every))
            .or_else(|| {
                (self.heads == 0 || !self.dim.is_multiple_of(self.heads)).then(|| {
                    let problem = format!(
                        "got {} for a `dim` of {}, wanted a divisor of it",
                        self.heads, self.dim
                    );
                    ("heads", problem)
                })
            })
    }

    pub(crate) fn init(&self, device: &Device) -> Bert {
        let layer = |index: usize| BertLayer {
            attention: Attention::new(self, self.dim, device),
            crossattention: index
                .is_multiple_of(self.cross_attention_every)
                .then(|| Attention::new(self, self.feature_dim, device)),
            intermediate_query: Dense {
                dense: linear(self.dim, self.intermediate, device),
            },
            output_query: Residual::new(self.intermediate, self.dim, device),
        };
        Bert {
            layernorm: layer_norm(self.dim, NORM_EPSILON, device),
            encoder: Layers {
                layer: (0..self.layers).map(layer).collect(),
            },
        }
    }
}

/// A built query transformer.
#[derive(Module, Debug)]
pub(crate) struct Bert {
    layernorm: LayerNorm,
    encoder: Layers,
}

#[derive(Module, Debug)]
struct Layers {
    layer: Vec<BertLayer>,
}

#[derive(Module, Debug)]
struct BertLayer {
    attention: Attention,
    crossattention: Option<Attention>,
    intermediate_query: Dense,
    output_query: Residual,
}

#[derive(Module, Debug)]
struct Attention {
    attention: Heads,
    output: Residual,
}

#[derive(Module, Debug)]
struct Heads {
    query: Linear,
    key: Linear,
    value: Linear,
    heads: usize,
}

#[derive(Module, Debug)]
struct Dense {
    dense: Linear,
}

/// A linear layer whose result is added to the stream and normed.
#[derive(Module, Debug)]
struct Residual {
    dense: Linear,
    LayerNorm: LayerNorm,
}

impl Bert {
    /// The queries after each layer, as far as `keep` asks for them; the last one always.
    ///
    /// # Shapes
    /// queries `[B, Q, D]`, features `[B, N, E]`, hidden `[B, 1, 1, N]` (minus infinity where a row has ended), result
    /// `[B, Q, D]`; `states` the same, the normed queries first.
    pub(crate) fn forward(
        &self,
        queries: Tensor<3>,
        features: &Tensor<3>,
        hidden: Option<Tensor<4>>,
        keep: Keep,
        states: &mut Vec<Tensor<3>>,
    ) -> Tensor<3> {
        let mut x = self.layernorm.forward(queries);
        keep.push(states, &x);
        for layer in &self.encoder.layer {
            x = layer.forward(x, features, &hidden);
            keep.push(states, &x);
        }
        x
    }
}

impl BertLayer {
    fn forward(&self, x: Tensor<3>, features: &Tensor<3>, hidden: &Option<Tensor<4>>) -> Tensor<3> {
        let x = self.attention.forward(x.clone(), x, None);
        let x = match &self.crossattention {
            Some(cross) => cross.forward(x, features.clone(), hidden.clone()),
            None => x,
        };
        let inner = gelu(self.intermediate_query.dense.forward(x.clone()));
        self.output_query.forward(inner, x)
    }
}

impl Attention {
    fn new(shape: &BertShape, feature_dim: usize, device: &Device) -> Self {
        let dim = shape.dim;
        Self {
            attention: Heads {
                query: linear(dim, dim, device),
                key: linear(feature_dim, dim, device),
                value: linear(feature_dim, dim, device),
                heads: shape.heads,
            },
            output: Residual::new(dim, dim, device),
        }
    }

    fn forward(&self, x: Tensor<3>, features: Tensor<3>, hidden: Option<Tensor<4>>) -> Tensor<3> {
        let Heads {
            query,
            key,
            value,
            heads,
        } = &self.attention;
        let split = |projected| split_heads(projected, *heads);
        let attended = merge_heads(attend(
            split(query.forward(x.clone())),
            split(key.forward(features.clone())),
            split(value.forward(features)),
            hidden,
        ));
        self.output.forward(attended, x)
    }
}

impl Residual {
    fn new(input: usize, output: usize, device: &Device) -> Self {
        Self {
            dense: linear(input, output, device),
            LayerNorm: layer_norm(output, NORM_EPSILON, device),
        }
    }

    fn forward(&self, x: Tensor<3>, stream: Tensor<3>) -> Tensor<3> {
        self.LayerNorm.forward(self.dense.forward(x) + stream)
    }
}
