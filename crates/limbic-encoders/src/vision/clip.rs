//! The vision tower of CLIP (Radford et al. 2021), as transformers' `modeling_clip.py` runs it.
//!
//! Letters in shapes: B pictures, P patches, D width, Dp width of the space shared with text. Fields are named as in
//! Hugging Face checkpoints, `pre_layrnorm` included. Deliberately absent: the text tower.

use burn::module::{Module, Param};
use burn::nn::{Initializer, LayerNorm, Linear, LinearConfig};
use burn::tensor::{Device, FloatDType, Tensor};
use limbic_weights::Checkpoint;
use serde::{Deserialize, Serialize};

use super::layer::{Activation, LayerConfig, Layers};
use super::model_config::Sizes;
use super::patch_embedding::PatchConv;
use super::{VisionSizes, weights_error};
use crate::transformer::layer_norm;
use crate::{EncoderError, HiddenStates, Keep};

/// A CLIP vision tower, by the keys of its `config.json`; absent ones have transformers' defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClipConfig {
    /// D.
    pub hidden_size: usize,
    /// Width inside each layer's network.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Attention heads in each layer.
    pub num_attention_heads: usize,
    /// Side of a picture, in pixels.
    pub image_size: usize,
    /// Side of a patch, in pixels.
    pub patch_size: usize,
    /// The nonlinearity.
    pub hidden_act: Activation,
    /// Added to the variance in each norm.
    pub layer_norm_eps: f64,
    /// Dp, where the checkpoint holds the projection.
    #[serde(skip)]
    pub projection_dim: Option<usize>,
}

impl Default for ClipConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            image_size: 224,
            patch_size: 32,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
            projection_dim: None,
        }
    }
}

impl ClipConfig {
    /// The tower without values.
    pub fn init(&self, device: &Device) -> Clip {
        let dim = self.hidden_size;
        let layer = LayerConfig {
            dim,
            heads: self.num_attention_heads,
            intermediate: self.intermediate_size,
            activation: self.hidden_act,
            norm_epsilon: self.layer_norm_eps,
        };
        let side = self.image_size / self.patch_size;
        let projection = |output| {
            LinearConfig::new(dim, output)
                .with_bias(false)
                .with_initializer(Initializer::Zeros)
                .init(device)
        };
        Clip {
            embeddings: Embeddings {
                class_embedding: Initializer::Zeros.init([dim], device),
                patch_embedding: PatchConv::new(dim, self.patch_size, false, device),
                position_embedding: PositionEmbedding::new(side * side + 1, dim, device),
            },
            pre_layrnorm: layer_norm(dim, self.layer_norm_eps, device),
            encoder: Layers::new(layer, self.num_hidden_layers, device),
            post_layernorm: layer_norm(dim, self.layer_norm_eps, device),
            visual_projection: self.projection_dim.map(projection),
        }
    }

    /// The tower with the values of `checkpoint`, of a whole CLIP or of its vision half.
    ///
    /// # Errors
    /// Sizes that do not fit each other; weights that are missing, unexpected or of the wrong shape.
    pub fn load(&mut self, checkpoint: Checkpoint, device: &Device) -> Result<Clip, EncoderError> {
        let path = checkpoint.path().to_path_buf();
        Sizes {
            hidden_size: self.hidden_size,
            num_attention_heads: self.num_attention_heads,
            image_size: self.image_size,
            patch_size: self.patch_size,
        }
        .check(&path)?;
        self.projection_dim = checkpoint
            .shape("visual_projection.weight")
            .map(|shape| shape[0]);
        named(checkpoint)
            .and_then(|checkpoint| checkpoint.load(self.init(device), Some(FloatDType::F32)))
            .map_err(weights_error("clip", &path))
    }

    /// The sizes of the tower.
    pub fn sizes(&self) -> VisionSizes {
        let side = self.image_size / self.patch_size;
        VisionSizes {
            hidden_size: self.hidden_size,
            num_layers: self.num_hidden_layers,
            image_size: self.image_size,
            patch_size: self.patch_size,
            num_patches: side * side,
            extra_tokens: 1,
            pooled_dim: Some(self.projection_dim.unwrap_or(self.hidden_size)),
            tubelet_size: 1,
            num_frames: None,
        }
    }
}

fn named(checkpoint: Checkpoint) -> Result<Checkpoint, limbic_weights::WeightsError> {
    checkpoint
        .ignore(
            |name| {
                name.starts_with("text_model.")
                    || name == "text_projection.weight"
                    || name == "logit_scale"
            },
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

/// A CLIP vision tower.
#[derive(Module, Debug)]
pub struct Clip {
    embeddings: Embeddings,
    pre_layrnorm: LayerNorm,
    encoder: Layers,
    post_layernorm: LayerNorm,
    visual_projection: Option<Linear>,
}

#[derive(Module, Debug)]
struct Embeddings {
    class_embedding: Param<Tensor<1>>,
    patch_embedding: PatchConv,
    position_embedding: PositionEmbedding,
}

/// A learned vector for each position, named as `torch.nn.Embedding`.
#[derive(Module, Debug)]
pub(super) struct PositionEmbedding {
    /// `[N, D]`
    pub(super) weight: Param<Tensor<2>>,
}

impl PositionEmbedding {
    pub(super) fn new(positions: usize, dim: usize, device: &Device) -> Self {
        Self {
            weight: Initializer::Zeros.init([positions, dim], device),
        }
    }
}

impl Clip {
    /// `pooled` is transformers' `image_embeds` where the checkpoint holds the projection, else its `pooler_output`.
    ///
    /// # Shapes
    /// `[B, 3, H, W]` to `[B, 1 + P, D]`, pooled `[B, Dp]` or `[B, D]`
    pub fn forward(&self, pixel_values: Tensor<4>, keep: Keep) -> HiddenStates {
        let patches = self.embeddings.patch_embedding.forward(pixel_values);
        let [batch, _, dim] = patches.dims();
        let class = self.embeddings.class_embedding.val();
        let class = class.reshape([1, 1, dim]).expand([batch, 1, dim]);
        let position = self.embeddings.position_embedding.weight.val();
        let x = Tensor::cat(vec![class, patches], 1) + position.unsqueeze();
        let states = self.encoder.forward(self.pre_layrnorm.forward(x), keep);
        let class = states.last_hidden_state.clone().narrow(1, 0, 1);
        let pooled = self.post_layernorm.forward(class.reshape([batch, dim]));
        HiddenStates {
            pooled: Some(match &self.visual_projection {
                Some(projection) => projection.forward(pooled),
                None => pooled,
            }),
            ..states
        }
    }
}
