//! DINOv2 (Oquab et al. 2023), with or without register tokens (Darcet et al. 2023), as transformers' `modeling_dinov2.py`
//! and `modeling_dinov2_with_registers.py` run it.
//!
//! Letters in shapes: B pictures, P patches, N positions, D width.

use burn::module::{Module, Param};
use burn::nn::{Initializer, LayerNorm};
use burn::tensor::{Device, FloatDType, Tensor};
use limbic_weights::{Checkpoint, WeightsError};
use serde::{Deserialize, Serialize};

use super::dinov2_layer::Layer;
use super::interpolation::{self, Cubic};
use super::layer::{Activation, run};
use super::model_config::Sizes;
use super::patch_embedding::PatchConv;
use super::{VisionSizes, weights_error};
use crate::folder::refuse;
use crate::transformer::layer_norm;
use crate::{EncoderError, HiddenStates, Keep};

/// A DINOv2 vision transformer, by the keys of its `config.json`; absent ones have transformers' defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dinov2Config {
    /// D.
    pub hidden_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Attention heads in each layer.
    pub num_attention_heads: usize,
    /// Width inside each layer's network, as a multiple of `hidden_size`.
    pub mlp_ratio: f64,
    /// The nonlinearity of the plain network; only the exact GELU is known here.
    pub hidden_act: Activation,
    /// Added to the variance in each norm.
    pub layer_norm_eps: f64,
    /// Side of the pictures that the position embedding was trained for, in pixels.
    pub image_size: usize,
    /// Side of a patch, in pixels.
    pub patch_size: usize,
    /// Whether queries, keys and values have a bias.
    pub qkv_bias: bool,
    /// A gated network, as in the giant.
    pub use_swiglu_ffn: bool,
    /// Learned tokens between the class token and the patches; `None` for a DINOv2 without them.
    pub num_register_tokens: Option<usize>,
}

impl Default for Dinov2Config {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            mlp_ratio: 4.0,
            hidden_act: Activation::Gelu,
            layer_norm_eps: 1e-6,
            image_size: 224,
            patch_size: 14,
            qkv_bias: true,
            use_swiglu_ffn: false,
            num_register_tokens: None,
        }
    }
}

impl Dinov2Config {
    /// The transformer without values.
    pub fn init(&self, device: &Device) -> Dinov2 {
        let dim = self.hidden_size;
        let registers = self
            .num_register_tokens
            .map(|count| Initializer::Zeros.init([1, count, dim], device));
        Dinov2 {
            embeddings: Embeddings {
                cls_token: Initializer::Zeros.init([1, 1, dim], device),
                register_tokens: registers,
                patch_embeddings: PatchEmbeddings {
                    projection: PatchConv::new(dim, self.patch_size, true, device),
                },
                position_embeddings: Initializer::Zeros
                    .init([1, 1 + self.num_patches(), dim], device),
            },
            encoder: Encoder {
                layer: (0..self.num_hidden_layers)
                    .map(|_| Layer::new(self, device))
                    .collect(),
            },
            layernorm: layer_norm(dim, self.layer_norm_eps, device),
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
            extra_tokens: 1 + self.num_register_tokens.unwrap_or(0),
            pooled_dim: Some(self.hidden_size),
            tubelet_size: 1,
            num_frames: None,
        }
    }

    /// The transformer with the values of a Hugging Face folder.
    ///
    /// # Errors
    /// Sizes that do not fit each other; weights that are missing, unexpected or of the wrong shape.
    pub fn load(&self, checkpoint: Checkpoint, device: &Device) -> Result<Dinov2, EncoderError> {
        let path = checkpoint.path().to_path_buf();
        if self.hidden_act != Activation::Gelu {
            return Err(refuse(
                &path,
                "DINOv2 with another nonlinearity than `gelu` is not known here",
            ));
        }
        Sizes {
            hidden_size: self.hidden_size,
            num_attention_heads: self.num_attention_heads,
            image_size: self.image_size,
            patch_size: self.patch_size,
        }
        .check(&path)?;
        named(checkpoint)
            .and_then(|checkpoint| checkpoint.load(self.init(device), Some(FloatDType::F32)))
            .map_err(weights_error("dinov2", &path))
    }
}

fn named(checkpoint: Checkpoint) -> Result<Checkpoint, WeightsError> {
    checkpoint
        .ignore(
            |name| name.ends_with("embeddings.mask_token"),
            "it stands for hidden patches in pretraining; nothing is hidden here",
        )
        .ignore(
            |name| name.starts_with("classifier."),
            "the classifier's head is not part of the encoder",
        )
        .strip_prefix("dinov2_with_registers.")?
        .strip_prefix("dinov2.")
}

/// A DINOv2 vision transformer.
#[derive(Module, Debug)]
pub struct Dinov2 {
    embeddings: Embeddings,
    encoder: Encoder,
    layernorm: LayerNorm,
}

#[derive(Module, Debug)]
struct Embeddings {
    cls_token: Param<Tensor<3>>,
    register_tokens: Option<Param<Tensor<3>>>,
    patch_embeddings: PatchEmbeddings,
    position_embeddings: Param<Tensor<3>>,
}

#[derive(Module, Debug)]
struct PatchEmbeddings {
    projection: PatchConv,
}

#[derive(Module, Debug)]
struct Encoder {
    layer: Vec<Layer>,
}

impl Dinov2 {
    /// Pictures of any size: the position embedding is interpolated. `pooled` is the class token after the final norm.
    ///
    /// # Shapes
    /// `[B, 3, H, W]` to `[B, 1 + registers + P, D]`, pooled `[B, D]`
    pub fn forward(&self, pixel_values: Tensor<4>, keep: Keep) -> HiddenStates {
        let x = self.embeddings.forward(pixel_values);
        let [batch, _, dim] = x.dims();
        let states = run(&self.encoder.layer, x, keep, Layer::forward);
        let last_hidden_state = self.layernorm.forward(states.last_hidden_state);
        let class = last_hidden_state.clone().narrow(1, 0, 1);
        HiddenStates {
            pooled: Some(class.reshape([batch, dim])),
            last_hidden_state,
            ..states
        }
    }
}

impl Embeddings {
    fn forward(&self, pixel_values: Tensor<4>) -> Tensor<3> {
        let [_, _, height, width] = pixel_values.dims();
        let patch = self.patch_embeddings.projection.patch();
        let patches = self.patch_embeddings.projection.forward(pixel_values);
        let [batch, length, dim] = patches.dims();
        let class = self.cls_token.val().expand([batch, 1, dim]);
        // Meta interpolated with antialiasing from the registers on.
        let kernel = match self.register_tokens {
            Some(_) => Cubic::Antialiased,
            None => Cubic::Plain,
        };
        let grid = [height / patch, width / patch];
        let position = interpolation::positions(self.position_embeddings.val(), 1, grid, kernel);
        let x = Tensor::cat(vec![class, patches], 1) + position;
        match &self.register_tokens {
            Some(registers) => {
                let registers = registers.val();
                let count = registers.dims()[1];
                let registers = registers.expand([batch, count, dim]);
                let parts = vec![x.clone().narrow(1, 0, 1), registers, x.narrow(1, 1, length)];
                Tensor::cat(parts, 1)
            }
            None => x,
        }
    }
}
