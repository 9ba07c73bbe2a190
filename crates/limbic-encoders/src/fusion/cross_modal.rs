//! Cross-modal attention between every pair of sources, in both directions, after MulT (Tsai et al. 2019): each source,
//! brought to one width, asks each other one; what it learns from all of them stands side by side and attends to itself.
//! The sources need not be aligned in time, nor of one length.
//!
//! Parts as in MulT: pre-norm layers whose queries, keys and values share one norm, inputs scaled by √D and given
//! sinusoidal positions, ReLU networks, one last norm. Departures: no causal mask and no dropout, and each stream gives
//! means of equal segments where MulT takes its last vector, so that no end of a clip is preferred.
//!
//! Letters in shapes: B batch, S sources, N features of a source, D common width, K tokens.

use burn::module::Module;
use burn::nn::conv::{Conv1d, Conv1dConfig};
use burn::nn::{Initializer, LayerNorm, Linear, PaddingConfig1d};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::Padded;
use crate::attention_pool::valid;
use crate::pooling::segment_means;
use crate::position;
use crate::projector::padding_bias;
use crate::transformer::{CrossAttention, layer_norm, linear};

/// Attention between every pair of sources.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CrossModalConfig {
    /// Width that every source is brought to; an even number of at least 4.
    pub dim: usize,
    /// Attention heads in each layer.
    pub heads: usize,
    /// Layers of each pair's attention.
    #[serde(default = "four")]
    pub layers: usize,
    /// Layers of the attention that follows.
    #[serde(default = "three")]
    pub self_layers: usize,
    /// Width inside each layer's network, as a multiple of the layer's.
    #[serde(default = "four")]
    pub mlp_ratio: usize,
    /// Features that the convolution to the common width looks at; odd.
    #[serde(default = "one")]
    pub kernel: usize,
    /// Tokens the language model is given: each tells of an equal part of every source. 1 tells of the whole clip.
    #[serde(default = "one")]
    pub tokens: usize,
    /// Whether each source is first standardised by statistics measured on the training clips.
    #[serde(default)]
    pub standardise: bool,
}

fn one() -> usize {
    1
}

fn three() -> usize {
    3
}

fn four() -> usize {
    4
}

const NORM_EPSILON: f64 = 1e-5;

impl CrossModalConfig {
    pub(super) fn problem(&self) -> Option<(&'static str, String)> {
        let zero = |key| Some((key, "got 0, wanted at least 1".to_string()));
        if self.dim < 4 || !self.dim.is_multiple_of(2) {
            let problem = format!("got {}, wanted an even number of at least 4", self.dim);
            Some(("dim", problem))
        } else if self.heads == 0 || !self.dim.is_multiple_of(self.heads) {
            let problem = format!(
                "got {} for a `dim` of {}, wanted a divisor of it",
                self.heads, self.dim
            );
            Some(("heads", problem))
        } else if self.layers == 0 {
            zero("layers")
        } else if self.mlp_ratio == 0 {
            zero("mlp_ratio")
        } else if self.kernel.is_multiple_of(2) {
            let problem = format!("got {}, wanted an odd number", self.kernel);
            Some(("kernel", problem))
        } else {
            None
        }
    }

    pub(super) fn init(&self, dims: &[usize], output_dim: usize, device: &Device) -> CrossModal {
        let others = dims.len() - 1;
        let conv = |dim: &usize| {
            let side = self.kernel / 2;
            Conv1dConfig::new(*dim, self.dim, self.kernel)
                .with_padding(PaddingConfig1d::Explicit(side, side))
                .with_bias(false)
                .with_initializer(Initializer::Zeros)
                .init(device)
        };
        CrossModal {
            proj: dims.iter().map(conv).collect(),
            pairs: (0..dims.len() * others)
                .map(|_| Transformer::new(self, self.dim, self.layers, device))
                .collect(),
            memories: dims
                .iter()
                .map(|_| Transformer::new(self, others * self.dim, self.self_layers, device))
                .collect(),
            output: linear(dims.len() * others * self.dim, output_dim, device),
            tokens: self.tokens,
        }
    }
}

/// A built cross-modal fusion.
#[derive(Module, Debug)]
pub(super) struct CrossModal {
    /// Each source to the common width.
    proj: Vec<Conv1d>,
    /// For each source, one for each other source in order: the first asks the second.
    pairs: Vec<Transformer>,
    /// For each source, over what it learnt from the others.
    memories: Vec<Transformer>,
    output: Linear,
    tokens: usize,
}

impl CrossModal {
    /// # Shapes
    /// `[B, N, Din]` a source; result `[B, K, Dout]`
    pub(super) fn forward(&self, sources: &[Padded]) -> Tensor<3> {
        let streams: Vec<Padded> = self
            .proj
            .iter()
            .zip(sources)
            .map(|(proj, Padded { values, lengths })| {
                // What a convolution sees beyond the end of a clip is zero, whoever stands beside it.
                let channels = values.clone().swap_dims(1, 2);
                let length = channels.dims()[2];
                let channels = channels * valid(lengths, length, &values.device());
                Padded {
                    values: proj.forward(channels).swap_dims(1, 2),
                    lengths: lengths.clone(),
                }
            })
            .collect();
        let others = streams.len() - 1;
        let told = streams.iter().enumerate().map(|(index, stream)| {
            let asked = streams
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != index);
            let pairs = &self.pairs[index * others..];
            let learnt: Vec<Tensor<3>> = asked
                .zip(pairs)
                .map(|((_, other), pair)| pair.forward(stream, other))
                .collect();
            let learnt = Padded {
                values: Tensor::cat(learnt, 2),
                lengths: stream.lengths.clone(),
            };
            let remembered = self.memories[index].forward(&learnt, &learnt);
            segment_means(remembered, &stream.lengths, self.tokens)
        });
        self.output.forward(Tensor::cat(told.collect(), 2))
    }
}

/// Layers in which one sequence asks another, or itself.
#[derive(Module, Debug)]
struct Transformer {
    layers: Vec<Layer>,
    norm: LayerNorm,
}

#[derive(Module, Debug)]
struct Layer {
    norm1: LayerNorm,
    attn: CrossAttention,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

impl Transformer {
    fn new(config: &CrossModalConfig, dim: usize, layers: usize, device: &Device) -> Self {
        let inner = config.mlp_ratio * dim;
        let layer = |_| Layer {
            norm1: layer_norm(dim, NORM_EPSILON, device),
            attn: CrossAttention::new(dim, config.heads, device),
            norm2: layer_norm(dim, NORM_EPSILON, device),
            fc1: linear(dim, inner, device),
            fc2: linear(inner, dim, device),
        };
        Self {
            layers: (0..layers).map(layer).collect(),
            norm: layer_norm(dim, NORM_EPSILON, device),
        }
    }

    /// # Shapes
    /// asking `[B, N, D]`, asked `[B, M, D]`, result `[B, N, D]`
    fn forward(&self, asking: &Padded, asked: &Padded) -> Tensor<3> {
        let asked_length = asked.values.dims()[1];
        let hidden = padding_bias(&asked.lengths, asked_length, &asked.values.device());
        let keys = placed(asked.values.clone());
        let x = self
            .layers
            .iter()
            .fold(placed(asking.values.clone()), |x, layer| {
                let keys = match std::ptr::eq(asking, asked) {
                    true => x.clone(),
                    false => keys.clone(),
                };
                layer.forward(x, keys, hidden.clone())
            });
        self.norm.forward(x)
    }
}

impl Layer {
    fn forward(&self, x: Tensor<3>, keys: Tensor<3>, hidden: Option<Tensor<4>>) -> Tensor<3> {
        let (query, keys) = (self.norm1.forward(x.clone()), self.norm1.forward(keys));
        let x = x + self.attn.forward(query, keys.clone(), keys, hidden);
        x.clone()
            + self
                .fc2
                .forward(relu(self.fc1.forward(self.norm2.forward(x))))
    }
}

/// `√D x` with sinusoidal positions.
fn placed(x: Tensor<3>) -> Tensor<3> {
    let [_, length, dim] = x.dims();
    let positions = TensorData::new(position::sequence(dim, length), [1, length, dim]);
    let device = x.device().without_autodiff();
    x * (dim as f64).sqrt() + Tensor::from_data(positions, &device)
}
