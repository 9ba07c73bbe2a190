//! EVA-CLIP's ViT-g/14 (Fang et al. 2022) as BLIP-2 uses it: without the last block, without a final norm.
//!
//! Letters in shapes: B pictures, P patches, D width. Parameters are named as in `eva_vit_g.pth`; a Hugging Face BLIP-2
//! folder is renamed to that. The reference is LAVIS' `eva_vit.py`.

use std::path::PathBuf;

use burn::module::{Module, Param};
use burn::nn::{Initializer, LayerNorm};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::VisionSizes;
use super::interpolation::{self, Cubic};
use super::layer::{Activation, run};
use super::patch_embedding::PatchConv;
use super::qv_block::QvBlock;
use crate::transformer::{BlockConfig, layer_norm};
use crate::{HiddenStates, Keep};

/// An EVA vision transformer, by the keys of a BLIP-2 `vision_config`; absent ones have transformers' defaults, which
/// are ViT-g/14.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EvaConfig {
    /// D.
    pub hidden_size: usize,
    /// Width inside each block's network.
    pub intermediate_size: usize,
    /// Number of blocks; those beyond are ignored in a checkpoint.
    pub num_hidden_layers: usize,
    /// Attention heads in each block.
    pub num_attention_heads: usize,
    /// Side of a picture, in pixels.
    pub image_size: usize,
    /// Side of a patch, in pixels.
    pub patch_size: usize,
    /// The nonlinearity; only the exact GELU is known here.
    pub hidden_act: Activation,
    /// Added to the variance in each block's norms.
    pub layer_norm_eps: f64,
    /// Whether queries and values have a bias; only that is known here.
    pub qkv_bias: bool,
    /// What follows the last block.
    #[serde(skip)]
    pub ln_vision: LnVision,
}

/// BLIP-2's norm of the encoder's output, `ln_vision`: LAVIS computes it at PyTorch's epsilon of 1e-5.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum LnVision {
    /// None: the output of the last block.
    #[default]
    Absent,
    /// A norm without scale and shift, as in models that build it and never load it (MiniGPT-v2, Emotion-LLaMA).
    Identity,
    /// With the `ln_vision.weight` and `ln_vision.bias` of this checkpoint (`blip2_pretrained_flant5xxl.pth`).
    File(PathBuf),
}

impl Default for EvaConfig {
    fn default() -> Self {
        Self {
            hidden_size: 1408,
            intermediate_size: 6144,
            num_hidden_layers: 39,
            num_attention_heads: 16,
            image_size: 224,
            patch_size: 14,
            hidden_act: Activation::Gelu,
            layer_norm_eps: 1e-6,
            qkv_bias: true,
            ln_vision: LnVision::Absent,
        }
    }
}

const LN_VISION_EPSILON: f64 = 1e-5;

impl EvaConfig {
    /// The transformer without values.
    pub fn init(&self, device: &Device) -> Eva {
        let norm = (self.ln_vision != LnVision::Absent).then_some(LN_VISION_EPSILON);
        self.build(norm, false, device)
    }

    /// With a norm of this epsilon after the last block, and perhaps with transformers' pooling.
    pub(super) fn build(&self, norm_epsilon: Option<f64>, pooling: bool, device: &Device) -> Eva {
        let dim = self.hidden_size;
        let block = BlockConfig {
            dim,
            heads: self.num_attention_heads,
            intermediate: self.intermediate_size,
            norm_epsilon: self.layer_norm_eps,
        };
        Eva {
            cls_token: Initializer::Zeros.init([1, 1, dim], device),
            pos_embed: Initializer::Zeros.init([1, 1 + self.num_patches(), dim], device),
            patch_embed: PatchEmbed {
                proj: PatchConv::new(dim, self.patch_size, true, device),
            },
            blocks: (0..self.num_hidden_layers)
                .map(|_| QvBlock::new(block, device))
                .collect(),
            ln_vision: norm_epsilon.map(|epsilon| layer_norm(dim, epsilon, device)),
            pooling,
        }
    }

    fn num_patches(&self) -> usize {
        (self.image_size / self.patch_size).pow(2)
    }

    /// The sizes of the transformer.
    pub fn sizes(&self) -> VisionSizes {
        VisionSizes {
            hidden_size: self.hidden_size,
            num_layers: self.num_hidden_layers,
            image_size: self.image_size,
            patch_size: self.patch_size,
            num_patches: self.num_patches(),
            extra_tokens: 1,
            pooled_dim: None,
            tubelet_size: 1,
            num_frames: None,
        }
    }
}

/// An EVA vision transformer.
#[derive(Module, Debug)]
pub struct Eva {
    cls_token: Param<Tensor<3>>,
    pos_embed: Param<Tensor<3>>,
    patch_embed: PatchEmbed,
    blocks: Vec<QvBlock>,
    ln_vision: Option<LayerNorm>,
    pooling: bool,
}

#[derive(Module, Debug)]
struct PatchEmbed {
    proj: PatchConv,
}

impl Eva {
    /// `last_hidden_state` is after `ln_vision` where there is one. From a Hugging Face folder, `pooled` is transformers'
    /// `pooler_output`: its class token normed once more.
    ///
    /// A picture of another size than the trained one has its position embedding interpolated.
    ///
    /// # Shapes
    /// `[B, 3, H, W]` to `[B, 1 + P, D]`
    pub fn forward(&self, pixel_values: Tensor<4>, keep: Keep) -> HiddenStates {
        let [_, _, height, width] = pixel_values.dims();
        let patch = self.patch_embed.proj.patch();
        let patches = self.patch_embed.proj.forward(pixel_values);
        let [batch, _, dim] = patches.dims();
        let class = self.cls_token.val().expand([batch, 1, dim]);
        let position = interpolation::positions(
            self.pos_embed.val(),
            1,
            [height / patch, width / patch],
            Cubic::Plain,
        );
        let x = Tensor::cat(vec![class, patches], 1) + position;
        let states = run(&self.blocks, x, keep, QvBlock::forward);
        let Some(norm) = &self.ln_vision else {
            return states;
        };
        let last_hidden_state = norm.forward(states.last_hidden_state);
        let class = last_hidden_state.clone().narrow(1, 0, 1);
        HiddenStates {
            pooled: self
                .pooling
                .then(|| norm.forward(class.reshape([batch, dim]))),
            last_hidden_state,
            ..states
        }
    }
}
