//! The vision tower of SigLIP (Zhai et al. 2023), as transformers' `modeling_siglip.py` runs it.
//!
//! Letters in shapes: B pictures, P patches, D width. Unlike CLIP it has no class token, and pools by attention.

use burn::module::{Module, Param};
use burn::nn::{Initializer, LayerNorm, Linear};
use burn::tensor::module::linear;
use burn::tensor::{Device, FloatDType, Tensor};
use limbic_weights::{Checkpoint, WeightsError};
use serde::{Deserialize, Serialize};

use super::clip::PositionEmbedding;
use super::layer::{Activation, LayerConfig, Layers, Mlp};
use super::model_config::Sizes;
use super::patch_embedding::PatchConv;
use super::{VisionSizes, weights_error};
use crate::transformer::{self, attend, layer_norm, merge_heads, split_heads};
use crate::{EncoderError, HiddenStates, Keep};

/// A SigLIP vision tower, by the keys of its `config.json`; absent ones have transformers' defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SiglipConfig {
    /// D.
    pub hidden_size: usize,
    /// Width inside each layer's network.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Attention heads in each layer and in the head.
    pub num_attention_heads: usize,
    /// Side of a picture, in pixels.
    pub image_size: usize,
    /// Side of a patch, in pixels.
    pub patch_size: usize,
    /// The nonlinearity.
    pub hidden_act: Activation,
    /// Added to the variance in each norm.
    pub layer_norm_eps: f64,
    /// Whether the pooling head is there.
    pub vision_use_head: bool,
}

impl Default for SiglipConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            image_size: 224,
            patch_size: 16,
            hidden_act: Activation::GeluPytorchTanh,
            layer_norm_eps: 1e-6,
            vision_use_head: true,
        }
    }
}

impl SiglipConfig {
    /// The tower without values.
    pub fn init(&self, device: &Device) -> Siglip {
        let dim = self.hidden_size;
        let layer = LayerConfig {
            dim,
            heads: self.num_attention_heads,
            intermediate: self.intermediate_size,
            activation: self.hidden_act,
            norm_epsilon: self.layer_norm_eps,
        };
        Siglip {
            embeddings: Embeddings {
                patch_embedding: PatchConv::new(dim, self.patch_size, true, device),
                position_embedding: PositionEmbedding::new(self.num_patches(), dim, device),
            },
            encoder: Layers::new(layer, self.num_hidden_layers, device),
            post_layernorm: layer_norm(dim, self.layer_norm_eps, device),
            head: self.vision_use_head.then(|| Head::new(layer, device)),
        }
    }

    fn num_patches(&self) -> usize {
        (self.image_size / self.patch_size).pow(2)
    }

    /// The sizes of the tower.
    pub fn sizes(&self) -> VisionSizes {
        VisionSizes {
            hidden_size: self.hidden_size,
            num_layers: self.num_hidden_layers,
            image_size: self.image_size,
            patch_size: self.patch_size,
            num_patches: self.num_patches(),
            extra_tokens: 0,
            pooled_dim: self.vision_use_head.then_some(self.hidden_size),
            tubelet_size: 1,
            num_frames: None,
        }
    }

    /// The tower with the values of `checkpoint`, of a whole SigLIP or of its vision half.
    ///
    /// # Errors
    /// Sizes that do not fit each other; weights that are missing, unexpected or of the wrong shape.
    pub fn load(&self, checkpoint: Checkpoint, device: &Device) -> Result<Siglip, EncoderError> {
        let path = checkpoint.path().to_path_buf();
        Sizes {
            hidden_size: self.hidden_size,
            num_attention_heads: self.num_attention_heads,
            image_size: self.image_size,
            patch_size: self.patch_size,
        }
        .check(&path)?;
        named(checkpoint)
            .and_then(|checkpoint| checkpoint.load(self.init(device), Some(FloatDType::F32)))
            .map_err(weights_error("siglip", &path))
    }
}

fn named(checkpoint: Checkpoint) -> Result<Checkpoint, WeightsError> {
    checkpoint
        .ignore(
            |name| name.starts_with("text_model.") || name == "logit_scale" || name == "logit_bias",
            "the text tower and its scale are not part of the vision tower",
        )
        .ignore(
            |name| name.starts_with("classifier."),
            "the head of a classifier, which follows the vision tower",
        )
        .ignore(
            |name| name.ends_with("position_ids"),
            "a buffer that counts positions, which is computed",
        )
        .strip_prefix("vision_model.")
}

/// A SigLIP vision tower.
#[derive(Module, Debug)]
pub struct Siglip {
    embeddings: Embeddings,
    encoder: Layers,
    post_layernorm: LayerNorm,
    head: Option<Head>,
}

#[derive(Module, Debug)]
struct Embeddings {
    patch_embedding: PatchConv,
    position_embedding: PositionEmbedding,
}

impl Siglip {
    /// `pooled` is transformers' `pooler_output`, where the head is there.
    ///
    /// # Shapes
    /// `[B, 3, H, W]` to `[B, P, D]`, pooled `[B, D]`
    pub fn forward(&self, pixel_values: Tensor<4>, keep: Keep) -> HiddenStates {
        let patches = self.embeddings.patch_embedding.forward(pixel_values);
        let position = self.embeddings.position_embedding.weight.val();
        let states = self.encoder.forward(patches + position.unsqueeze(), keep);
        let last_hidden_state = self.post_layernorm.forward(states.last_hidden_state);
        HiddenStates {
            pooled: self
                .head
                .as_ref()
                .map(|head| head.forward(last_hidden_state.clone())),
            last_hidden_state,
            ..states
        }
    }
}

/// Pools by the attention of one learned query, followed by a network.
#[derive(Module, Debug)]
struct Head {
    probe: Param<Tensor<3>>,
    attention: MultiheadAttention,
    layernorm: LayerNorm,
    mlp: Mlp,
}

/// Named as `torch.nn.MultiheadAttention`.
#[derive(Module, Debug)]
struct MultiheadAttention {
    /// `[3 D, D]`
    in_proj_weight: Param<Tensor<2>>,
    /// `[3 D]`
    in_proj_bias: Param<Tensor<1>>,
    out_proj: Linear,
    heads: usize,
}

impl Head {
    fn new(layer: LayerConfig, device: &Device) -> Self {
        let LayerConfig { dim, .. } = layer;
        Self {
            probe: Initializer::Zeros.init([1, 1, dim], device),
            attention: MultiheadAttention {
                in_proj_weight: Initializer::Zeros.init([3 * dim, dim], device),
                in_proj_bias: Initializer::Zeros.init([3 * dim], device),
                out_proj: transformer::linear(dim, dim, device),
                heads: layer.heads,
            },
            layernorm: layer_norm(dim, layer.norm_epsilon, device),
            mlp: Mlp::new(dim, layer.intermediate, layer.activation, device),
        }
    }

    /// # Shapes
    /// `[B, P, D]` to `[B, D]`
    fn forward(&self, x: Tensor<3>) -> Tensor<2> {
        let [batch, _, dim] = x.dims();
        let probe = self.probe.val().expand([batch, 1, dim]);
        let x = self.attention.forward(probe, x);
        let x = x.clone() + self.mlp.forward(self.layernorm.forward(x));
        x.reshape([batch, dim])
    }
}

impl MultiheadAttention {
    fn forward(&self, queries: Tensor<3>, x: Tensor<3>) -> Tensor<3> {
        let dim = x.dims()[2];
        let part = |i: usize, x: Tensor<3>| {
            let weight = self.in_proj_weight.val().narrow(0, i * dim, dim);
            let bias = self.in_proj_bias.val().narrow(0, i * dim, dim);
            split_heads(linear(x, weight.transpose(), Some(bias)), self.heads)
        };
        let (q, k, v) = (part(0, queries), part(1, x.clone()), part(2, x));
        self.out_proj.forward(merge_heads(attend(q, k, v, None)))
    }
}
