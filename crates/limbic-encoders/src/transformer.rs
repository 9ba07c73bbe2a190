//! The pre-norm transformer block that the vision, audio and query transformers share.
//!
//! Letters in shapes: B batch, N positions, M positions attended to, D width, H heads. Parameters
//! are named as in timm's `vision_transformer.py`. Deliberately absent: dropout, since the encoders
//! are frozen and the projectors small.

use burn::module::Module;
use burn::nn::{Initializer, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::activation::{gelu, softmax};
use burn::tensor::{Device, Tensor};

/// A linear layer of zeros: values come from a file or from `limbic_weights::seed`, never from
/// burn's global random stream.
pub(crate) fn linear(input: usize, output: usize, device: &Device) -> Linear {
    LinearConfig::new(input, output)
        .with_initializer(Initializer::Zeros)
        .init(device)
}

pub(crate) fn layer_norm(dim: usize, epsilon: f64, device: &Device) -> LayerNorm {
    LayerNormConfig::new(dim).with_epsilon(epsilon).init(device)
}

/// Sizes of one block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockConfig {
    pub(crate) dim: usize,
    pub(crate) heads: usize,
    pub(crate) intermediate: usize,
    pub(crate) norm_epsilon: f64,
}

impl BlockConfig {
    pub(crate) fn init(&self, device: &Device) -> Block {
        Block {
            norm1: layer_norm(self.dim, self.norm_epsilon, device),
            attn: SelfAttention::new(self.dim, self.heads, device),
            norm2: layer_norm(self.dim, self.norm_epsilon, device),
            mlp: Mlp::new(self.dim, self.intermediate, device),
        }
    }
}

/// Self-attention and a two-layer network, each on normalised input and added to the stream.
#[derive(Module, Debug)]
pub(crate) struct Block {
    norm1: LayerNorm,
    attn: SelfAttention,
    norm2: LayerNorm,
    mlp: Mlp,
}

impl Block {
    /// # Shapes
    /// `[B, N, D]` to `[B, N, D]`
    pub(crate) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let x = x.clone() + self.attn.forward(self.norm1.forward(x));
        x.clone() + self.mlp.forward(self.norm2.forward(x))
    }
}

/// Multi-head attention of a sequence to itself.
#[derive(Module, Debug)]
pub(crate) struct SelfAttention {
    qkv: Linear,
    proj: Linear,
    heads: usize,
}

impl SelfAttention {
    pub(crate) fn new(dim: usize, heads: usize, device: &Device) -> Self {
        Self {
            qkv: linear(dim, 3 * dim, device),
            proj: linear(dim, dim, device),
            heads,
        }
    }

    /// # Shapes
    /// `[B, N, D]` to `[B, N, D]`
    pub(crate) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let dim = x.dims()[2];
        let qkv = self.qkv.forward(x);
        let part = |i: usize| split_heads(qkv.clone().narrow(2, i * dim, dim), self.heads);
        self.proj
            .forward(merge_heads(attend(part(0), part(1), part(2), None)))
    }
}

/// Multi-head attention of one sequence to another.
#[derive(Module, Debug)]
pub(crate) struct CrossAttention {
    query: Linear,
    key: Linear,
    value: Linear,
    proj: Linear,
    heads: usize,
}

impl CrossAttention {
    pub(crate) fn new(dim: usize, heads: usize, device: &Device) -> Self {
        let square = || linear(dim, dim, device);
        Self {
            query: square(),
            key: square(),
            value: square(),
            proj: square(),
            heads,
        }
    }

    /// # Shapes
    /// x `[B, N, D]`; keys, values `[B, M, D]`; hidden `[B, 1, 1, M]`; result `[B, N, D]`
    pub(crate) fn forward(
        &self,
        x: Tensor<3>,
        keys: Tensor<3>,
        values: Tensor<3>,
        hidden: Option<Tensor<4>>,
    ) -> Tensor<3> {
        let split = |projected| split_heads(projected, self.heads);
        let (query, key) = (self.query.forward(x), self.key.forward(keys));
        self.proj.forward(merge_heads(attend(
            split(query),
            split(key),
            split(self.value.forward(values)),
            hidden,
        )))
    }
}

/// Two linear layers with a GELU between: the exact one, by the error function. The flex backend runs
/// it as one kernel with a backward of its own; the tanh approximation is seven operations and took
/// twice as long (0.5 M values, forward and backward).
#[derive(Module, Debug)]
pub(crate) struct Mlp {
    fc1: Linear,
    fc2: Linear,
}

impl Mlp {
    pub(crate) fn new(dim: usize, intermediate: usize, device: &Device) -> Self {
        Self {
            fc1: linear(dim, intermediate, device),
            fc2: linear(intermediate, dim, device),
        }
    }

    /// # Shapes
    /// `[B, N, D]` to `[B, N, D]`
    pub(crate) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.fc2.forward(gelu(self.fc1.forward(x)))
    }
}

/// `[B, N, D]` to `[B, H, N, D / H]`.
pub(crate) fn split_heads(x: Tensor<3>, heads: usize) -> Tensor<4> {
    let [batch, length, dim] = x.dims();
    x.reshape([batch, length, heads, dim / heads])
        .swap_dims(1, 2)
}

/// `[B, H, N, D / H]` to `[B, N, D]`.
pub(crate) fn merge_heads(x: Tensor<4>) -> Tensor<3> {
    let [batch, heads, length, head_dim] = x.dims();
    x.swap_dims(1, 2).reshape([batch, length, heads * head_dim])
}

/// `softmax(q kᵀ / √d + bias) v`; a bias of minus infinity hides a position.
///
/// # Shapes
/// q `[B, H, N, d]`; k, v `[B, H, M, d]`; bias broadcast to `[B, H, N, M]`; result `[B, H, N, d]`
pub(crate) fn attend(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    bias: Option<Tensor<4>>,
) -> Tensor<4> {
    let scale = (q.dims()[3] as f64).powf(-0.5);
    let scores = (q * scale).matmul(k.swap_dims(2, 3));
    let scores = match bias {
        Some(bias) => scores + bias,
        None => scores,
    };
    softmax(scores, 3).matmul(v)
}
