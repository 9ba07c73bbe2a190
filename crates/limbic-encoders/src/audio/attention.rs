//! What the pretrained speech transformers share: attention with four projections of its own, a feed-forward pair,
//! and the activations their configs name.
//!
//! Letters in shapes: B batch, T time steps, D width, H heads.

use burn::module::Module;
use burn::nn::{Initializer, Linear, LinearConfig};
use burn::tensor::activation::{gelu, gelu_approximate, relu, silu};
use burn::tensor::{Device, Tensor};
use serde::Deserialize;

use crate::transformer::{attend, linear, merge_heads, split_heads};

/// Names of transformers' `ACT2FN` that published speech encoders use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Activation {
    /// By the error function.
    #[serde(alias = "gelu_python")]
    Gelu,
    /// By the hyperbolic tangent.
    #[serde(alias = "gelu_pytorch_tanh", alias = "gelu_fast")]
    GeluNew,
    Relu,
    #[serde(alias = "swish")]
    Silu,
}

impl Activation {
    pub(crate) fn apply<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Gelu => gelu(x),
            Self::GeluNew => gelu_approximate(x),
            Self::Relu => relu(x),
            Self::Silu => silu(x),
        }
    }
}

/// Multi-head self-attention, its projections named as in transformers.
#[derive(Module, Debug)]
pub(crate) struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    heads: usize,
}

impl Attention {
    /// Whisper's keys have no bias.
    pub(crate) fn new(dim: usize, heads: usize, key_bias: bool, device: &Device) -> Self {
        Self {
            q_proj: linear(dim, dim, device),
            k_proj: LinearConfig::new(dim, dim)
                .with_bias(key_bias)
                .with_initializer(Initializer::Zeros)
                .init(device),
            v_proj: linear(dim, dim, device),
            out_proj: linear(dim, dim, device),
            heads,
        }
    }

    /// # Shapes
    /// `[B, T, D]` to `[B, T, D]`; the bias on the scores broadcasts to `[B, H, T, T]`
    pub(crate) fn forward(&self, x: Tensor<3>, bias: Option<Tensor<4>>) -> Tensor<3> {
        let q = split_heads(self.q_proj.forward(x.clone()), self.heads);
        let k = split_heads(self.k_proj.forward(x.clone()), self.heads);
        let v = split_heads(self.v_proj.forward(x), self.heads);
        self.out_proj.forward(merge_heads(attend(q, k, v, bias)))
    }
}
