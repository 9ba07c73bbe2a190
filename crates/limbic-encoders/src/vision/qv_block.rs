//! The pre-norm block of EVA-CLIP and VideoMAE: queries and values have a bias, keys have none.
//!
//! Letters in shapes: B pictures, N positions, D width. Parameters are named as in `eva_vit_g.pth` and in the
//! original VideoMAE checkpoints.

use burn::module::{Module, Param};
use burn::nn::{Initializer, LayerNorm, Linear, LinearConfig};
use burn::tensor::{Device, Tensor};

use crate::transformer::{BlockConfig, Mlp, attend, layer_norm, linear, merge_heads, split_heads};

#[derive(Module, Debug)]
pub(super) struct QvBlock {
    norm1: LayerNorm,
    attn: QvAttention,
    norm2: LayerNorm,
    mlp: Mlp,
}

impl QvBlock {
    pub(super) fn new(config: BlockConfig, device: &Device) -> Self {
        Self {
            norm1: layer_norm(config.dim, config.norm_epsilon, device),
            attn: QvAttention::new(config.dim, config.heads, device),
            norm2: layer_norm(config.dim, config.norm_epsilon, device),
            mlp: Mlp::new(config.dim, config.intermediate, device),
        }
    }

    /// # Shapes
    /// `[B, N, D]` to `[B, N, D]`
    pub(super) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let x = x.clone() + self.attn.forward(self.norm1.forward(x));
        x.clone() + self.mlp.forward(self.norm2.forward(x))
    }
}

#[derive(Module, Debug)]
struct QvAttention {
    qkv: Linear,
    q_bias: Param<Tensor<1>>,
    v_bias: Param<Tensor<1>>,
    proj: Linear,
    heads: usize,
}

impl QvAttention {
    fn new(dim: usize, heads: usize, device: &Device) -> Self {
        Self {
            qkv: LinearConfig::new(dim, 3 * dim)
                .with_bias(false)
                .with_initializer(Initializer::Zeros)
                .init(device),
            q_bias: Initializer::Zeros.init([dim], device),
            v_bias: Initializer::Zeros.init([dim], device),
            proj: linear(dim, dim, device),
            heads,
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let dim = x.dims()[2];
        let qkv = self.qkv.forward(x);
        let part = |i: usize| qkv.clone().narrow(2, i * dim, dim);
        let q = part(0) + self.q_bias.val().unsqueeze();
        let v = part(2) + self.v_bias.val().unsqueeze();
        let [q, k, v] = [q, part(1), v].map(|x| split_heads(x, self.heads));
        self.proj.forward(merge_heads(attend(q, k, v, None)))
    }
}
