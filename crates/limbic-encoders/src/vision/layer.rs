//! The pre-norm layer that CLIP and SigLIP share, named as in their Hugging Face checkpoints.
//!
//! Letters in shapes: B pictures, N positions, D width.

use burn::module::Module;
use burn::nn::{LayerNorm, Linear};
use burn::tensor::activation::{gelu, gelu_approximate, sigmoid};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::transformer::{attend, layer_norm, linear, merge_heads, split_heads};
use crate::{HiddenStates, Keep};

/// The nonlinearity of a layer's network, by transformers' names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// The exact one, by the error function.
    Gelu,
    /// Its approximation by a tanh.
    #[serde(alias = "gelu_new")]
    GeluPytorchTanh,
    /// `x sigmoid(1.702 x)`, as OpenAI trained CLIP.
    QuickGelu,
}

impl Activation {
    pub(super) fn forward(self, x: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Gelu => gelu(x),
            Self::GeluPytorchTanh => gelu_approximate(x),
            Self::QuickGelu => x.clone() * sigmoid(x * 1.702),
        }
    }
}

/// Sizes of one layer.
#[derive(Debug, Clone, Copy)]
pub(super) struct LayerConfig {
    pub(super) dim: usize,
    pub(super) heads: usize,
    pub(super) intermediate: usize,
    pub(super) activation: Activation,
    pub(super) norm_epsilon: f64,
}

impl LayerConfig {
    fn init(&self, device: &Device) -> Layer {
        Layer {
            layer_norm1: layer_norm(self.dim, self.norm_epsilon, device),
            self_attn: SelfAttention::new(self.dim, self.heads, device),
            layer_norm2: layer_norm(self.dim, self.norm_epsilon, device),
            mlp: Mlp::new(self.dim, self.intermediate, self.activation, device),
        }
    }
}

/// The layers, one after another.
#[derive(Module, Debug)]
pub(super) struct Layers {
    layers: Vec<Layer>,
}

impl Layers {
    pub(super) fn new(config: LayerConfig, depth: usize, device: &Device) -> Self {
        Self {
            layers: (0..depth).map(|_| config.init(device)).collect(),
        }
    }

    /// The input, and what each layer makes of it; `last_hidden_state` has seen no final norm yet.
    ///
    /// # Shapes
    /// `[B, N, D]`
    pub(super) fn forward(&self, x: Tensor<3>, keep: Keep) -> HiddenStates {
        run(&self.layers, x, keep, Layer::forward)
    }
}

/// Runs `layers` one after another, keeping what `keep` asks for.
pub(super) fn run<L>(
    layers: &[L],
    mut x: Tensor<3>,
    keep: Keep,
    forward: impl Fn(&L, Tensor<3>) -> Tensor<3>,
) -> HiddenStates {
    let mut hidden = Vec::new();
    keep.push(&mut hidden, &x);
    for layer in layers {
        x = forward(layer, x);
        keep.push(&mut hidden, &x);
    }
    HiddenStates {
        hidden,
        last_hidden_state: x,
        pooled: None,
    }
}

#[derive(Module, Debug)]
struct Layer {
    layer_norm1: LayerNorm,
    self_attn: SelfAttention,
    layer_norm2: LayerNorm,
    mlp: Mlp,
}

impl Layer {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let x = x.clone() + self.self_attn.forward(self.layer_norm1.forward(x));
        x.clone() + self.mlp.forward(self.layer_norm2.forward(x))
    }
}

#[derive(Module, Debug)]
struct SelfAttention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    heads: usize,
}

impl SelfAttention {
    fn new(dim: usize, heads: usize, device: &Device) -> Self {
        Self {
            q_proj: linear(dim, dim, device),
            k_proj: linear(dim, dim, device),
            v_proj: linear(dim, dim, device),
            out_proj: linear(dim, dim, device),
            heads,
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let split = |projection: &Linear| split_heads(projection.forward(x.clone()), self.heads);
        let (q, k, v) = (
            split(&self.q_proj),
            split(&self.k_proj),
            split(&self.v_proj),
        );
        self.out_proj.forward(merge_heads(attend(q, k, v, None)))
    }
}

/// Two linear layers with a nonlinearity between.
#[derive(Module, Debug)]
pub(super) struct Mlp {
    fc1: Linear,
    fc2: Linear,
    #[module(skip)]
    activation: Activation,
}

impl Mlp {
    pub(super) fn new(
        dim: usize,
        intermediate: usize,
        activation: Activation,
        device: &Device,
    ) -> Self {
        Self {
            fc1: linear(dim, intermediate, device),
            fc2: linear(intermediate, dim, device),
            activation,
        }
    }

    /// # Shapes
    /// `[B, N, D]` to `[B, N, D]`
    pub(super) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.fc2
            .forward(self.activation.forward(self.fc1.forward(x)))
    }
}
