//! The encoder of VideoMAE (Tong et al. 2022), run without masking: a transformer over tubelets.
//!
//! Letters in shapes: B clips, T frames, P tubelets, D width. Parameters are named as in the original checkpoints; a
//! Hugging Face folder is renamed to that.

use burn::module::Module;
use burn::nn::LayerNorm;
use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use limbic_weights::{Checkpoint, WeightsError};
use serde::{Deserialize, Serialize};

use super::layer::{Activation, run};
use super::model_config::Sizes;
use super::patch_embedding::TubeletConv;
use super::qv_block::QvBlock;
use super::{VisionSizes, names, weights_error};
use crate::folder::refuse;
use crate::transformer::{BlockConfig, layer_norm};
use crate::{EncoderError, HiddenStates, Keep};

/// A VideoMAE encoder, by the keys of its `config.json`; absent ones have transformers' defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VideoMaeConfig {
    /// D.
    pub hidden_size: usize,
    /// Width inside each block's network.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Attention heads in each block.
    pub num_attention_heads: usize,
    /// Side of a frame, in pixels.
    pub image_size: usize,
    /// Side of a patch, in pixels.
    pub patch_size: usize,
    /// Frames of a clip.
    pub num_frames: usize,
    /// Frames of a tubelet.
    pub tubelet_size: usize,
    /// The nonlinearity; only the exact GELU is known here.
    pub hidden_act: Activation,
    /// Added to the variance in each norm of the encoder.
    pub layer_norm_eps: f64,
    /// Whether queries and values have a bias; only that is known here.
    #[serde(alias = "qkv_bias")]
    pub qv_bias: bool,
    /// Whether the encoder ends in a norm of its tokens: a pretrained one does, a classifier norms their mean instead.
    #[serde(skip)]
    pub norm: bool,
    /// Added to the variance in the norm of the mean, where the checkpoint holds one.
    #[serde(skip)]
    pub fc_norm_eps: Option<f64>,
}

impl Default for VideoMaeConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            image_size: 224,
            patch_size: 16,
            num_frames: 16,
            tubelet_size: 2,
            hidden_act: Activation::Gelu,
            layer_norm_eps: 1e-12,
            qv_bias: true,
            norm: false,
            fc_norm_eps: None,
        }
    }
}

impl VideoMaeConfig {
    /// ViT-L/16 as the original code builds it.
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
    pub fn init(&self, device: &Device) -> VideoMae {
        let dim = self.hidden_size;
        let block = BlockConfig {
            dim,
            heads: self.num_attention_heads,
            intermediate: self.intermediate_size,
            norm_epsilon: self.layer_norm_eps,
        };
        VideoMae {
            patch_embed: PatchEmbed {
                proj: TubeletConv::new(dim, self.tubelet_size, self.patch_size, device),
            },
            blocks: (0..self.num_hidden_layers)
                .map(|_| QvBlock::new(block, device))
                .collect(),
            norm: self
                .norm
                .then(|| layer_norm(dim, self.layer_norm_eps, device)),
            fc_norm: self
                .fc_norm_eps
                .map(|epsilon| layer_norm(dim, epsilon, device)),
        }
    }

    fn num_patches(&self) -> usize {
        self.num_frames / self.tubelet_size * (self.image_size / self.patch_size).pow(2)
    }

    /// The sizes of the encoder.
    pub fn sizes(&self) -> VisionSizes {
        VisionSizes {
            hidden_size: self.hidden_size,
            num_layers: self.num_hidden_layers,
            image_size: self.image_size,
            patch_size: self.patch_size,
            num_patches: self.num_patches(),
            extra_tokens: 0,
            pooled_dim: Some(self.hidden_size),
            tubelet_size: self.tubelet_size,
            num_frames: Some(self.num_frames),
        }
    }

    /// The encoder with the values of an original checkpoint, pretrained or fine-tuned.
    ///
    /// # Errors
    /// Sizes that do not fit each other; weights that are missing, unexpected or of the wrong shape.
    pub fn load(
        &mut self,
        checkpoint: Checkpoint,
        device: &Device,
    ) -> Result<VideoMae, EncoderError> {
        let named = |checkpoint| {
            names::unwrapped(checkpoint)?
                .strip_prefix("encoder.")?
                .strip_prefix("backbone.")
        };
        self.load_with(checkpoint, named, 1e-6, device)
    }

    /// The encoder with the values of a Hugging Face folder.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_transformers(
        &mut self,
        checkpoint: Checkpoint,
        device: &Device,
    ) -> Result<VideoMae, EncoderError> {
        let depth = self.num_hidden_layers;
        let named = |checkpoint: Checkpoint| {
            let checkpoint = checkpoint.strip_prefix("videomae.")?.rename(names::timm)?;
            names::join_qkv(checkpoint, depth, &["weight"])
        };
        // `VideoMAEForVideoClassification` builds its norm with PyTorch's epsilon.
        self.load_with(checkpoint, named, 1e-5, device)
    }

    fn load_with(
        &mut self,
        checkpoint: Checkpoint,
        named: impl FnOnce(Checkpoint) -> Result<Checkpoint, WeightsError>,
        fc_norm_eps: f64,
        device: &Device,
    ) -> Result<VideoMae, EncoderError> {
        let path = checkpoint.path().to_path_buf();
        if self.hidden_act != Activation::Gelu || !self.qv_bias {
            return Err(refuse(
                &path,
                "VideoMAE with another nonlinearity than `gelu`, or without `qv_bias`, is not known here",
            ));
        }
        if self.tubelet_size == 0 || self.num_frames < self.tubelet_size {
            return Err(refuse(
                &path,
                format!(
                    "got {} frames and tubelets of {}, wanted at least one tubelet",
                    self.num_frames, self.tubelet_size
                ),
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
                "the decoder paints hidden tubelets in pretraining; nothing is hidden here",
            );
            let checkpoint = named(checkpoint)?.ignore(
                |name| name.starts_with("head.") || name.starts_with("classifier."),
                "a classifier's head is not part of the encoder",
            );
            let has = |name: &str| checkpoint.shape(name).is_some();
            self.norm = has("norm.weight");
            self.fc_norm_eps = has("fc_norm.weight").then_some(fc_norm_eps);
            checkpoint.load(self.init(device), Some(FloatDType::F32))
        };
        load().map_err(weights_error("videomae", &path))
    }
}

/// A VideoMAE encoder.
#[derive(Module, Debug)]
pub struct VideoMae {
    patch_embed: PatchEmbed,
    blocks: Vec<QvBlock>,
    norm: Option<LayerNorm>,
    fc_norm: Option<LayerNorm>,
}

#[derive(Module, Debug)]
struct PatchEmbed {
    proj: TubeletConv,
}

impl VideoMae {
    /// `last_hidden_state` is after the final norm where there is one; `pooled` is the mean over its tubelets, normed
    /// where the checkpoint holds `fc_norm`.
    ///
    /// # Shapes
    /// `[B, T, 3, H, W]` to `[B, P, D]`, pooled `[B, D]`
    pub fn forward(&self, pixel_values: Tensor<5>, keep: Keep) -> HiddenStates {
        let tubelets = self.patch_embed.proj.forward(pixel_values);
        let [batch, length, dim] = tubelets.dims();
        let position = TensorData::new(sinusoids(length, dim), [1, length, dim]);
        let position = Tensor::from_data(position, &tubelets.device());
        let states = run(&self.blocks, tubelets + position, keep, QvBlock::forward);
        let last_hidden_state = match &self.norm {
            Some(norm) => norm.forward(states.last_hidden_state),
            None => states.last_hidden_state,
        };
        let mean = last_hidden_state.clone().mean_dim(1).reshape([batch, dim]);
        HiddenStates {
            pooled: Some(match &self.fc_norm {
                Some(norm) => norm.forward(mean),
                None => mean,
            }),
            last_hidden_state,
            ..states
        }
    }
}

/// `get_sinusoid_encoding_table`: sines on even channels, cosines on odd ones. `[length, dim]`, row-major.
fn sinusoids(length: usize, dim: usize) -> Vec<f32> {
    let angle = |place: usize, channel: usize| {
        let exponent = 2.0 * (channel / 2) as f64 / dim as f64;
        place as f64 / 10_000f64.powf(exponent)
    };
    (0..length)
        .flat_map(|place| {
            (0..dim).map(move |channel| {
                let angle = angle(place, channel);
                let wave = if channel % 2 == 0 {
                    angle.sin()
                } else {
                    angle.cos()
                };
                wave as f32
            })
        })
        .collect()
}
