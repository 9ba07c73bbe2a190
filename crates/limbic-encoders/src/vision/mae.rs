//! The encoder of a masked autoencoder (He et al. 2021), run without masking.
//!
//! Letters in shapes: B pictures, P patches, D width. Parameters are named as in the original checkpoints, which are
//! timm's; a Hugging Face ViTMAE folder is renamed to that.

use burn::module::{Module, Param};
use burn::nn::{Initializer, LayerNorm};
use burn::tensor::{Device, FloatDType, Tensor};
use limbic_weights::{Checkpoint, WeightsError};
use serde::{Deserialize, Serialize};

use super::layer::{Activation, run};
use super::model_config::Sizes;
use super::patch_embedding::PatchConv;
use super::{VisionSizes, names, weights_error};
use crate::folder::refuse;
use crate::transformer::{Block, BlockConfig, layer_norm};
use crate::{EncoderError, HiddenStates, Keep};

/// A masked autoencoder's encoder, by the keys of a ViTMAE `config.json`; absent ones have transformers' defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MaeConfig {
    /// D.
    pub hidden_size: usize,
    /// Width inside each block's network.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Attention heads in each block.
    pub num_attention_heads: usize,
    /// Side of a picture, in pixels.
    pub image_size: usize,
    /// Side of a patch, in pixels.
    pub patch_size: usize,
    /// The nonlinearity; only the exact GELU is known here.
    pub hidden_act: Activation,
    /// Added to the variance in each norm.
    pub layer_norm_eps: f64,
    /// Whether queries, keys and values have a bias; only that is known here.
    pub qkv_bias: bool,
}

impl Default for MaeConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            image_size: 224,
            patch_size: 16,
            hidden_act: Activation::Gelu,
            layer_norm_eps: 1e-12,
            qkv_bias: true,
        }
    }
}

impl MaeConfig {
    /// ViT-L/16 as the original code builds it (`mae_vit_large_patch16`).
    pub fn large() -> Self {
        Self {
            hidden_size: 1024,
            intermediate_size: 4096,
            num_hidden_layers: 24,
            num_attention_heads: 16,
            layer_norm_eps: 1e-6,
            ..Self::default()
        }
    }

    /// The encoder without values.
    pub fn init(&self, device: &Device) -> Mae {
        let dim = self.hidden_size;
        let block = BlockConfig {
            dim,
            heads: self.num_attention_heads,
            intermediate: self.intermediate_size,
            norm_epsilon: self.layer_norm_eps,
        };
        Mae {
            cls_token: Initializer::Zeros.init([1, 1, dim], device),
            pos_embed: Initializer::Zeros.init([1, 1 + self.num_patches(), dim], device),
            patch_embed: PatchEmbed {
                proj: PatchConv::new(dim, self.patch_size, true, device),
            },
            blocks: (0..self.num_hidden_layers)
                .map(|_| block.init(device))
                .collect(),
            norm: layer_norm(dim, self.layer_norm_eps, device),
        }
    }

    fn num_patches(&self) -> usize {
        (self.image_size / self.patch_size).pow(2)
    }

    /// The sizes of the encoder.
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

    /// The encoder with the values of an original checkpoint.
    ///
    /// # Errors
    /// Sizes that do not fit each other; weights that are missing, unexpected or of the wrong shape.
    pub fn load(&self, checkpoint: Checkpoint, device: &Device) -> Result<Mae, EncoderError> {
        self.load_with(checkpoint, names::unwrapped, device)
    }

    /// The encoder with the values of a Hugging Face folder.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_transformers(
        &self,
        checkpoint: Checkpoint,
        device: &Device,
    ) -> Result<Mae, EncoderError> {
        let depth = self.num_hidden_layers;
        let named = |checkpoint: Checkpoint| {
            let checkpoint = checkpoint.strip_prefix("vit.")?.rename(names::timm)?;
            names::join_qkv(checkpoint, depth, &["weight", "bias"])
        };
        self.load_with(checkpoint, named, device)
    }

    fn load_with(
        &self,
        checkpoint: Checkpoint,
        named: impl FnOnce(Checkpoint) -> Result<Checkpoint, WeightsError>,
        device: &Device,
    ) -> Result<Mae, EncoderError> {
        let path = checkpoint.path().to_path_buf();
        if self.hidden_act != Activation::Gelu || !self.qkv_bias {
            return Err(refuse(
                &path,
                "a masked autoencoder with another nonlinearity than `gelu`, or without `qkv_bias`, is not known here",
            ));
        }
        Sizes {
            hidden_size: self.hidden_size,
            num_attention_heads: self.num_attention_heads,
            image_size: self.image_size,
            patch_size: self.patch_size,
        }
        .check(&path)?;
        let load = || {
            // Only the encoder is renamed, so the decoder's layers go first.
            let checkpoint = checkpoint.ignore(
                |name| name.contains("decoder") || name.ends_with("mask_token"),
                "the decoder paints hidden patches in pretraining; nothing is hidden here",
            );
            let checkpoint = named(checkpoint)?.ignore(
                |name| name.starts_with("head."),
                "a classifier's head is not part of the encoder",
            );
            checkpoint.load(self.init(device), Some(FloatDType::F32))
        };
        load().map_err(weights_error("mae", &path))
    }
}

/// A masked autoencoder's encoder.
#[derive(Module, Debug)]
pub struct Mae {
    cls_token: Param<Tensor<3>>,
    pos_embed: Param<Tensor<3>>,
    patch_embed: PatchEmbed,
    blocks: Vec<Block>,
    norm: LayerNorm,
}

#[derive(Module, Debug)]
struct PatchEmbed {
    proj: PatchConv,
}

impl Mae {
    /// All patches in reading order, after the class token; `last_hidden_state` is after the final norm.
    ///
    /// # Shapes
    /// `[B, 3, H, W]` to `[B, 1 + P, D]`
    pub fn forward(&self, pixel_values: Tensor<4>, keep: Keep) -> HiddenStates {
        let patches = self.patch_embed.proj.forward(pixel_values);
        let [batch, _, dim] = patches.dims();
        let class = self.cls_token.val().expand([batch, 1, dim]);
        let x = Tensor::cat(vec![class, patches], 1) + self.pos_embed.val();
        let states = run(&self.blocks, x, keep, Block::forward);
        HiddenStates {
            last_hidden_state: self.norm.forward(states.last_hidden_state),
            ..states
        }
    }
}
