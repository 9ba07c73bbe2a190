//! The encoder of Whisper (Radford et al., 2022), from the folders of the whole model.
//!
//! Letters in shapes: B batch, M mel bands, F frames, P = F / 2 positions, D width.

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::nn::conv::{Conv1d, Conv1dConfig};
use burn::nn::{Embedding, EmbeddingConfig, Initializer, LayerNorm, Linear, PaddingConfig1d};
use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use limbic_weights::{Checkpoint, WeightsError};
use serde::Deserialize;
use serde_json::Value;

use super::AudioInput;
use super::attention::{Activation, Attention};
use super::whisper_mel::{WhisperMel, WhisperMelConfig};
use crate::transformer::{layer_norm, linear};
use crate::{EncoderError, HiddenStates, Keep};

const KIND: &str = "whisper";
const NORM_EPSILON: f64 = 1e-5;

/// The keys of `config.json` that shape the encoder.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct WhisperConfig {
    pub(crate) d_model: usize,
    pub(crate) encoder_layers: usize,
    encoder_attention_heads: usize,
    encoder_ffn_dim: usize,
    num_mel_bins: usize,
    max_source_positions: usize,
    #[serde(default = "gelu")]
    activation_function: Activation,
}

fn gelu() -> Activation {
    Activation::Gelu
}

impl WhisperConfig {
    fn problem(&self) -> Option<String> {
        let heads = self.encoder_attention_heads;
        let sizes = [
            ("d_model", self.d_model),
            ("encoder_ffn_dim", self.encoder_ffn_dim),
            ("num_mel_bins", self.num_mel_bins),
            ("max_source_positions", self.max_source_positions),
        ];
        if let Some((key, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            Some(format!("`{key}` is 0, wanted at least 1"))
        } else if heads == 0 || !self.d_model.is_multiple_of(heads) {
            Some(format!(
                "`encoder_attention_heads` is {heads}, wanted a divisor of `d_model` {}",
                self.d_model
            ))
        } else {
            None
        }
    }

    /// Strides of 1 and 2 before the layers.
    fn frames(&self) -> usize {
        2 * self.max_source_positions
    }

    /// The module, its parameters not yet allocated.
    pub(crate) fn init(&self, device: &Device) -> WhisperModule {
        let dim = self.d_model;
        let conv = |input, stride| {
            Conv1dConfig::new(input, dim, 3)
                .with_stride(stride)
                .with_padding(PaddingConfig1d::Explicit(1, 1))
                .with_initializer(Initializer::Zeros)
                .init(device)
        };
        let layer = || WhisperLayer {
            self_attn: Attention::new(dim, self.encoder_attention_heads, false, device),
            self_attn_layer_norm: layer_norm(dim, NORM_EPSILON, device),
            fc1: linear(dim, self.encoder_ffn_dim, device),
            fc2: linear(self.encoder_ffn_dim, dim, device),
            final_layer_norm: layer_norm(dim, NORM_EPSILON, device),
            activation: self.activation_function,
        };
        WhisperModule {
            conv1: conv(self.num_mel_bins, 1),
            conv2: conv(dim, 2),
            embed_positions: EmbeddingConfig::new(self.max_source_positions, dim)
                .with_initializer(Initializer::Zeros)
                .init(device),
            layers: (0..self.encoder_layers).map(|_| layer()).collect(),
            layer_norm: layer_norm(dim, NORM_EPSILON, device),
        }
    }
}

/// A loaded encoder with its front end.
#[derive(Debug, Clone)]
pub struct Whisper {
    pub(crate) config: WhisperConfig,
    front_end: WhisperMel,
    module: WhisperModule,
    folder: PathBuf,
    device: Device,
}

impl Whisper {
    pub(crate) fn read(path: &Path, config: Value, device: &Device) -> Result<Self, EncoderError> {
        let described = path.join("config.json");
        let config: WhisperConfig = crate::folder::parse(&described, config)?;
        if let Some(problem) = config.problem() {
            return Err(crate::folder::refuse(&described, problem));
        }
        let mel: WhisperMelConfig = crate::folder::read_preprocessor(path)?
            .unwrap_or_else(|| WhisperMelConfig::with_bands(config.num_mel_bins));
        let module = load(path, &config, device).map_err(|source| EncoderError::Weights {
            kind: KIND,
            path: path.to_path_buf(),
            source,
        })?;
        Ok(Self {
            front_end: mel.init()?,
            config,
            module,
            folder: path.to_path_buf(),
            device: device.clone(),
        })
    }

    pub(crate) fn sample_rate(&self) -> u32 {
        self.front_end.sample_rate()
    }

    pub(crate) fn preprocess(
        &self,
        samples: &[f32],
        sample_rate: u32,
    ) -> Result<AudioInput, EncoderError> {
        let (made, wanted) = (
            [self.front_end.bands(), self.front_end.frames()],
            [self.config.num_mel_bins, self.config.frames()],
        );
        if made != wanted {
            return Err(crate::folder::refuse(
                &self.folder,
                format!(
                    "the front end makes {} bands and {} frames, wanted {} and {} as `num_mel_bins` and `max_source_positions` of `config.json` say; mend `preprocessor_config.json`, or give `input_features`",
                    made[0], made[1], wanted[0], wanted[1]
                ),
            ));
        }
        let values = self.front_end.apply(samples, sample_rate)?;
        let shape = [1, self.config.num_mel_bins, self.config.frames()];
        let features = Tensor::from_data(TensorData::new(values, shape), &self.device);
        Ok(AudioInput::Features(features))
    }

    /// # Shapes
    /// `[B, M, F]`
    pub(crate) fn forward(
        &self,
        features: Tensor<3>,
        keep: Keep,
    ) -> Result<HiddenStates, EncoderError> {
        let wanted = [self.config.num_mel_bins, self.config.frames()];
        let [_, bands, frames] = features.dims();
        if [bands, frames] != wanted {
            return Err(EncoderError::Input {
                kind: KIND,
                problem: format!(
                    "got `input_features` {:?}, wanted [batch, {}, {}]; pad or cut the sound as its front end does",
                    features.dims(),
                    wanted[0],
                    wanted[1]
                ),
            });
        }
        Ok(self.module.forward(features, keep))
    }
}

fn load(
    path: &Path,
    config: &WhisperConfig,
    device: &Device,
) -> Result<WhisperModule, WeightsError> {
    let of_the_decoder = |name: &str| name.starts_with("decoder.") || name.starts_with("proj_out.");
    let of_a_head = |name: &str| {
        name == "layer_weights" || name.starts_with("projector.") || name.starts_with("classifier.")
    };
    Checkpoint::open(path)?
        .strip_prefix("model.")?
        .ignore(of_the_decoder, "writes text; the encoder alone is used")
        .ignore(of_a_head, "belongs to a classification head")
        .strip_prefix("encoder.")?
        .load(config.init(device), Some(FloatDType::F32))
}

/// The parameters, by their names in the checkpoint.
#[derive(Module, Debug)]
pub(crate) struct WhisperModule {
    conv1: Conv1d,
    conv2: Conv1d,
    /// Sinusoids, stored.
    embed_positions: Embedding,
    layers: Vec<WhisperLayer>,
    layer_norm: LayerNorm,
}

impl WhisperModule {
    /// The last of the hidden states is the normalised one, as transformers lists it for this model.
    ///
    /// # Shapes
    /// `[B, M, F]` to `[B, P, D]`
    fn forward(&self, features: Tensor<3>, keep: Keep) -> HiddenStates {
        let x = Activation::Gelu.apply(self.conv1.forward(features));
        let x = Activation::Gelu
            .apply(self.conv2.forward(x))
            .swap_dims(1, 2);
        let mut x = x + self.embed_positions.weight.val().unsqueeze::<3>();
        let mut hidden = Vec::new();
        for layer in &self.layers {
            keep.push(&mut hidden, &x);
            x = layer.forward(x);
        }
        let x = self.layer_norm.forward(x);
        keep.push(&mut hidden, &x);
        HiddenStates {
            hidden,
            last_hidden_state: x,
            pooled: None,
        }
    }
}

#[derive(Module, Debug)]
struct WhisperLayer {
    self_attn: Attention,
    self_attn_layer_norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    final_layer_norm: LayerNorm,
    #[module(skip)]
    activation: Activation,
}

impl WhisperLayer {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let normal = self.self_attn_layer_norm.forward(x.clone());
        let x = x + self.self_attn.forward(normal, None);
        let normal = self.final_layer_norm.forward(x.clone());
        x + self
            .fc2
            .forward(self.activation.apply(self.fc1.forward(normal)))
    }
}
