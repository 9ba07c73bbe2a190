//! A layer of DINOv2: pre-norm, each branch scaled, with a plain or a gated network.
//!
//! Letters in shapes: B pictures, N positions, D width.

use burn::module::{Module, Param};
use burn::nn::{Initializer, LayerNorm, Linear, LinearConfig};
use burn::tensor::activation::{gelu, silu};
use burn::tensor::{Device, Tensor};

use super::Dinov2Config;
use crate::transformer::{attend, layer_norm, linear, merge_heads, split_heads};

#[derive(Module, Debug)]
pub(super) struct Layer {
    norm1: LayerNorm,
    attention: Attention,
    layer_scale1: LayerScale,
    norm2: LayerNorm,
    mlp: Network,
    layer_scale2: LayerScale,
}

impl Layer {
    pub(super) fn new(config: &Dinov2Config, device: &Device) -> Self {
        let dim = config.hidden_size;
        let projection = || {
            LinearConfig::new(dim, dim)
                .with_bias(config.qkv_bias)
                .with_initializer(Initializer::Zeros)
                .init(device)
        };
        let scale = || LayerScale {
            lambda1: Initializer::Ones.init([dim], device),
        };
        Self {
            norm1: layer_norm(dim, config.layer_norm_eps, device),
            attention: Attention {
                attention: Projections {
                    query: projection(),
                    key: projection(),
                    value: projection(),
                },
                output: Output {
                    dense: linear(dim, dim, device),
                },
                heads: config.num_attention_heads,
            },
            layer_scale1: scale(),
            norm2: layer_norm(dim, config.layer_norm_eps, device),
            mlp: Network::new(config, device),
            layer_scale2: scale(),
        }
    }

    /// # Shapes
    /// `[B, N, D]` to `[B, N, D]`
    pub(super) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let attended = self.attention.forward(self.norm1.forward(x.clone()));
        let x = x + self.layer_scale1.forward(attended);
        let changed = self.mlp.forward(self.norm2.forward(x.clone()));
        x + self.layer_scale2.forward(changed)
    }
}

/// A learned factor of each channel of a branch (Touvron et al. 2021).
#[derive(Module, Debug)]
struct LayerScale {
    lambda1: Param<Tensor<1>>,
}

impl LayerScale {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        x * self.lambda1.val().unsqueeze()
    }
}

#[derive(Module, Debug)]
struct Attention {
    attention: Projections,
    output: Output,
    heads: usize,
}

#[derive(Module, Debug)]
struct Projections {
    query: Linear,
    key: Linear,
    value: Linear,
}

#[derive(Module, Debug)]
struct Output {
    dense: Linear,
}

impl Attention {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let Projections { query, key, value } = &self.attention;
        let split = |projection: &Linear| split_heads(projection.forward(x.clone()), self.heads);
        let (q, k, v) = (split(query), split(key), split(value));
        self.output
            .dense
            .forward(merge_heads(attend(q, k, v, None)))
    }
}

/// A layer's network: two linear layers, or the giant's gated one.
#[derive(Module, Debug)]
enum Network {
    Plain(Plain),
    Gated(Gated),
}

#[derive(Module, Debug)]
struct Plain {
    fc1: Linear,
    fc2: Linear,
}

#[derive(Module, Debug)]
struct Gated {
    /// Gate and value side by side.
    weights_in: Linear,
    weights_out: Linear,
}

impl Network {
    fn new(config: &Dinov2Config, device: &Device) -> Self {
        let dim = config.hidden_size;
        let inner = (dim as f64 * config.mlp_ratio) as usize;
        if config.use_swiglu_ffn {
            let inner = (inner * 2 / 3).next_multiple_of(8);
            Self::Gated(Gated {
                weights_in: linear(dim, 2 * inner, device),
                weights_out: linear(inner, dim, device),
            })
        } else {
            Self::Plain(Plain {
                fc1: linear(dim, inner, device),
                fc2: linear(inner, dim, device),
            })
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Plain(Plain { fc1, fc2 }) => fc2.forward(gelu(fc1.forward(x))),
            Self::Gated(Gated {
                weights_in,
                weights_out,
            }) => {
                let [gate, value]: [Tensor<3>; 2] =
                    weights_in.forward(x).chunk(2, 2).try_into().unwrap_or_else(
                        |parts: Vec<Tensor<3>>| {
                            panic!("got {} parts of a gated network, wanted 2", parts.len())
                        },
                    );
                weights_out.forward(silu(gate) * value)
            }
        }
    }
}
