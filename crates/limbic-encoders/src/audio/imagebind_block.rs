//! ImageBind's transformer block: PyTorch's `MultiheadAttention` with one learned key and value that every query may
//! attend to (`add_bias_kv=True`).
//!
//! Letters in shapes: B batch, N positions, D width, H heads.

use burn::module::{Module, Param};
use burn::nn::{Initializer, LayerNorm, Linear};
use burn::tensor::{Device, Tensor};

use crate::transformer::{Mlp, attend, layer_norm, linear, merge_heads, split_heads};

#[derive(Module, Debug)]
pub(crate) struct Block {
    attn: BiasedAttention,
    norm_1: LayerNorm,
    mlp: Mlp,
    norm_2: LayerNorm,
}

impl Block {
    pub(crate) fn new(dim: usize, heads: usize, device: &Device) -> Self {
        Self {
            attn: BiasedAttention::new(dim, heads, device),
            norm_1: layer_norm(dim, 1e-6, device),
            mlp: Mlp::new(dim, 4 * dim, device),
            norm_2: layer_norm(dim, 1e-6, device),
        }
    }

    /// # Shapes
    /// `[B, N, D]` to `[B, N, D]`
    pub(crate) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let x = x.clone() + self.attn.forward(self.norm_1.forward(x));
        x.clone() + self.mlp.forward(self.norm_2.forward(x))
    }
}

#[derive(Module, Debug)]
struct BiasedAttention {
    /// `[3 D, D]`: queries, keys, values. A plain parameter, which lies in memory as in the file.
    in_proj_weight: Param<Tensor<2>>,
    in_proj_bias: Param<Tensor<1>>,
    /// `[1, 1, D]`
    bias_k: Param<Tensor<3>>,
    bias_v: Param<Tensor<3>>,
    out_proj: Linear,
    heads: usize,
}

impl BiasedAttention {
    fn new(dim: usize, heads: usize, device: &Device) -> Self {
        let zeros = || Initializer::Zeros.init([1, 1, dim], device);
        Self {
            in_proj_weight: Initializer::Zeros.init([3 * dim, dim], device),
            in_proj_bias: Initializer::Zeros.init([3 * dim], device),
            bias_k: zeros(),
            bias_v: zeros(),
            out_proj: linear(dim, dim, device),
            heads,
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, length, dim] = x.dims();
        let weight = self.in_proj_weight.val().transpose();
        let projected = x.reshape([batch * length, dim]).matmul(weight)
            + self.in_proj_bias.val().unsqueeze::<2>();
        let projected = projected.reshape([batch, length, 3 * dim]);
        let part = |i: usize| projected.clone().narrow(2, i * dim, dim);
        let with = |x: Tensor<3>, extra: &Param<Tensor<3>>| {
            let extra = extra.val().expand([batch, 1, dim]);
            split_heads(Tensor::cat(vec![x, extra], 1), self.heads)
        };
        let q = split_heads(part(0), self.heads);
        let k = with(part(1), &self.bias_k);
        let v = with(part(2), &self.bias_v);
        self.out_proj.forward(merge_heads(attend(q, k, v, None)))
    }
}
