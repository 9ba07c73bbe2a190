//! EVA-CLIP's ViT-g/14 (Fang et al. 2022) as BLIP-2 uses it: without the last block, without a final norm.
//!
//! Letters in shapes: B pictures, P patches, D width. Parameters are named as in `eva_vit_g.pth`; a Hugging Face BLIP-2
//! folder is renamed to that. The reference is LAVIS' `eva_vit.py`.

use std::path::PathBuf;

use burn::module::{Module, Param};
use burn::nn::{Initializer, LayerNorm};
use burn::tensor::{Device, FloatDType, Tensor};
use limbic_weights::{Checkpoint, NamedTensor, WeightsError};
use serde::{Deserialize, Serialize};

use super::interpolation::{self, Cubic};
use super::layer::{Activation, run};
use super::model_config::{Sizes, refuse};
use super::patch_embedding::PatchConv;
use super::qv_block::QvBlock;
use super::{VisionSizes, names, weights_error};
use crate::transformer::{BlockConfig, layer_norm};
use crate::{EncoderError, HiddenStates, Keep};

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

    fn build(&self, norm_epsilon: Option<f64>, pooling: bool, device: &Device) -> Eva {
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

    /// The transformer with the values of a checkpoint in the layout of `eva_vit_g.pth`, its position embedding brought
    /// to this `image_size` by bicubic interpolation.
    ///
    /// # Errors
    /// Sizes that do not fit each other; weights that are missing, unexpected or of the wrong shape.
    pub fn load(&self, checkpoint: Checkpoint, device: &Device) -> Result<Eva, EncoderError> {
        self.check(&checkpoint)?;
        let path = checkpoint.path().to_path_buf();
        let depth = self.num_hidden_layers;
        let beyond = move |name: &str| {
            let block = name
                .strip_prefix("blocks.")
                .and_then(|rest| rest.split('.').next());
            block.is_some_and(|block| block.parse().is_ok_and(|block: usize| block >= depth))
        };
        let load = || {
            let mut checkpoint = names::unwrapped(checkpoint)?
                .ignore(
                    beyond,
                    "BLIP-2 takes the features before the last block of the 40",
                )
                .ignore(
                    |name| {
                        ["norm.", "fc_norm.", "head."]
                            .iter()
                            .any(|part| name.starts_with(part))
                    },
                    "the head that EVA was trained with, and its norm, follow the last block",
                );
            self.interpolate_positions(&mut checkpoint)?;
            match &self.ln_vision {
                LnVision::Absent => {}
                LnVision::Identity => {
                    for (name, value) in [("weight", 1.0), ("bias", 0.0)] {
                        let tensor = NamedTensor {
                            shape: vec![self.hidden_size],
                            values: vec![value; self.hidden_size],
                        };
                        checkpoint.put(format!("ln_vision.{name}"), tensor);
                    }
                }
                LnVision::File(file) => {
                    let mut file = names::unwrapped(Checkpoint::open(file)?)?;
                    for name in ["ln_vision.weight", "ln_vision.bias"] {
                        checkpoint.put(name, file.take(name)?);
                    }
                }
            }
            checkpoint.load(self.init(device), Some(FloatDType::F32))
        };
        load().map_err(weights_error("eva_clip_g", &path))
    }

    /// The transformer with the values of a Hugging Face BLIP-2 folder, whose `post_layernorm` is `ln_vision`.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_blip2(&self, checkpoint: Checkpoint, device: &Device) -> Result<Eva, EncoderError> {
        self.check(&checkpoint)?;
        let path = checkpoint.path().to_path_buf();
        let load = || {
            let mut checkpoint = checkpoint
                .ignore(
                    |name| {
                        [
                            "qformer.",
                            "language_model.",
                            "language_projection.",
                            "query_tokens",
                        ]
                        .iter()
                        .any(|part| name.starts_with(part))
                    },
                    "the Q-Former and the language model are not part of the vision encoder",
                )
                .strip_prefix("vision_model.")?
                .rename(eva_name)?;
            for block in 0..self.num_hidden_layers {
                self.split_bias(&mut checkpoint, block)?;
            }
            // transformers norms with the layers' epsilon where LAVIS had PyTorch's default.
            let module = self.build(Some(self.layer_norm_eps), true, device);
            checkpoint.load(module, Some(FloatDType::F32))
        };
        load().map_err(weights_error("eva_clip_g", &path))
    }

    fn check(&self, checkpoint: &Checkpoint) -> Result<(), EncoderError> {
        let path = checkpoint.path();
        if self.hidden_act != Activation::Gelu || !self.qkv_bias {
            return Err(refuse(
                path,
                "EVA with another nonlinearity than `gelu`, or without `qkv_bias`, is not known here",
            ));
        }
        Sizes {
            hidden_size: self.hidden_size,
            num_attention_heads: self.num_attention_heads,
            image_size: self.image_size,
            patch_size: self.patch_size,
        }
        .check(path)
    }

    fn interpolate_positions(&self, checkpoint: &mut Checkpoint) -> Result<(), WeightsError> {
        let length = match checkpoint.shape("pos_embed") {
            Some([1, length, dim]) if *dim == self.hidden_size => *length,
            // Absent or of another width: the loader says so.
            _ => return Ok(()),
        };
        let (from, to) = ((length - 1).isqrt(), self.image_size / self.patch_size);
        if from == to || from * from + 1 != length {
            return Ok(());
        }
        let NamedTensor { values, .. } = checkpoint.take("pos_embed")?;
        let (class, patches) = values.split_at(self.hidden_size);
        let patches =
            interpolation::resize(patches, self.hidden_size, [from; 2], [to; 2], Cubic::Plain);
        let tensor = NamedTensor {
            shape: vec![1, to * to + 1, self.hidden_size],
            values: [class.to_vec(), patches].concat(),
        };
        checkpoint.put("pos_embed", tensor);
        Ok(())
    }

    /// transformers stores `[q_bias, 0, v_bias]`. What the middle holds cannot matter: a key's bias moves all scores of a
    /// query alike.
    fn split_bias(&self, checkpoint: &mut Checkpoint, block: usize) -> Result<(), WeightsError> {
        let name = format!("blocks.{block}.attn.qkv.bias");
        let dim = self.hidden_size;
        // Of another shape: the loader says so.
        if checkpoint
            .shape(&name)
            .is_some_and(|shape| shape != [3 * dim])
        {
            return Ok(());
        }
        let NamedTensor { values, .. } = checkpoint.take(&name)?;
        for (part, start) in [("q_bias", 0), ("v_bias", 2 * dim)] {
            let tensor = NamedTensor {
                shape: vec![dim],
                values: values[start..start + dim].to_vec(),
            };
            checkpoint.put(format!("blocks.{block}.attn.{part}"), tensor);
        }
        Ok(())
    }
}

/// The name in `eva_vit_g.pth` of what transformers calls `name`.
fn eva_name(name: &str) -> String {
    const RENAMED: [(&str, &str); 8] = [
        ("embeddings.class_embedding", "cls_token"),
        ("embeddings.position_embedding", "pos_embed"),
        ("embeddings.patch_embedding.", "patch_embed.proj."),
        ("encoder.layers.", "blocks."),
        ("layer_norm", "norm"),
        ("self_attn.projection.", "attn.proj."),
        ("self_attn.", "attn."),
        ("post_layernorm.", "ln_vision."),
    ];
    RENAMED
        .iter()
        .fold(name.to_string(), |name, (theirs, ours)| {
            name.replacen(theirs, ours, 1)
        })
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
