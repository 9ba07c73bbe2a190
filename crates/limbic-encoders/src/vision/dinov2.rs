//! DINOv2 (Oquab et al. 2023), with or without register tokens (Darcet et al. 2023), as transformers' `modeling_dinov2.py`
//! and `modeling_dinov2_with_registers.py` run it.
//!
//! Letters in shapes: B pictures, P patches, N positions, D width.

use burn::module::{Module, Param};
use burn::nn::{Initializer, LayerNorm, Linear, LinearConfig};
use burn::tensor::activation::{gelu, silu};
use burn::tensor::{Device, FloatDType, Tensor};
use limbic_weights::{Checkpoint, WeightsError};
use serde::{Deserialize, Serialize};

use super::interpolation::{self, Cubic};
use super::layer::{Activation, run};
use super::model_config::{Sizes, refuse};
use super::patch_embedding::PatchConv;
use super::{VisionSizes, weights_error};
use crate::transformer::{attend, layer_norm, linear, merge_heads, split_heads};
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

#[derive(Module, Debug)]
struct Layer {
    norm1: LayerNorm,
    attention: Attention,
    layer_scale1: LayerScale,
    norm2: LayerNorm,
    mlp: Network,
    layer_scale2: LayerScale,
}

impl Layer {
    fn new(config: &Dinov2Config, device: &Device) -> Self {
        let dim = config.hidden_size;
        let projection = || {
            LinearConfig::new(dim, dim)
                .with_bias(config.qkv_bias)
                .with_initializer(Initializer::Zeros)
                .init(device)
        };
        let scale = || LayerScale {
            lambda1: Initializer::Ones.init([dim], device),
        };
        Self {
            norm1: layer_norm(dim, config.layer_norm_eps, device),
            attention: Attention {
                attention: Projections {
                    query: projection(),
                    key: projection(),
                    value: projection(),
                },
                output: Output {
                    dense: linear(dim, dim, device),
                },
                heads: config.num_attention_heads,
            },
            layer_scale1: scale(),
            norm2: layer_norm(dim, config.layer_norm_eps, device),
            mlp: Network::new(config, device),
            layer_scale2: scale(),
        }
    }

    /// # Shapes
    /// `[B, N, D]` to `[B, N, D]`
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let attended = self.attention.forward(self.norm1.forward(x.clone()));
        let x = x + self.layer_scale1.forward(attended);
        let changed = self.mlp.forward(self.norm2.forward(x.clone()));
        x + self.layer_scale2.forward(changed)
    }
}

/// A learned factor of each channel of a branch (Touvron et al. 2021).
#[derive(Module, Debug)]
struct LayerScale {
    lambda1: Param<Tensor<1>>,
}

impl LayerScale {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        x * self.lambda1.val().unsqueeze()
    }
}

#[derive(Module, Debug)]
struct Attention {
    attention: Projections,
    output: Output,
    heads: usize,
}

#[derive(Module, Debug)]
struct Projections {
    query: Linear,
    key: Linear,
    value: Linear,
}

#[derive(Module, Debug)]
struct Output {
    dense: Linear,
}

impl Attention {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let Projections { query, key, value } = &self.attention;
        let split = |projection: &Linear| split_heads(projection.forward(x.clone()), self.heads);
        let (q, k, v) = (split(query), split(key), split(value));
        self.output
            .dense
            .forward(merge_heads(attend(q, k, v, None)))
    }
}

/// A layer's network: two linear layers, or the giant's gated one.
#[derive(Module, Debug)]
enum Network {
    Plain(Plain),
    Gated(Gated),
}

#[derive(Module, Debug)]
struct Plain {
    fc1: Linear,
    fc2: Linear,
}

#[derive(Module, Debug)]
struct Gated {
    /// Gate and value side by side.
    weights_in: Linear,
    weights_out: Linear,
}

impl Network {
    fn new(config: &Dinov2Config, device: &Device) -> Self {
        let dim = config.hidden_size;
        let inner = (dim as f64 * config.mlp_ratio) as usize;
        if config.use_swiglu_ffn {
            let inner = (inner * 2 / 3).next_multiple_of(8);
            Self::Gated(Gated {
                weights_in: linear(dim, 2 * inner, device),
                weights_out: linear(inner, dim, device),
            })
        } else {
            Self::Plain(Plain {
                fc1: linear(dim, inner, device),
                fc2: linear(inner, dim, device),
            })
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Plain(Plain { fc1, fc2 }) => fc2.forward(gelu(fc1.forward(x))),
            Self::Gated(Gated {
                weights_in,
                weights_out,
            }) => {
                let [gate, value]: [Tensor<3>; 2] =
                    weights_in.forward(x).chunk(2, 2).try_into().unwrap_or_else(
                        |parts: Vec<Tensor<3>>| {
                            panic!("got {} parts of a gated network, wanted 2", parts.len())
                        },
                    );
                weights_out.forward(silu(gate) * value)
            }
        }
    }
}
