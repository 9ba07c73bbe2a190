//! A small transformer over log-mel frames: the interface of the pretrained audio encoders at a size
//! that one trains oneself.
//!
//! Letters in shapes: N features, D width. A linear layer over stacked frames stands where Whisper
//! has strided convolutions: the stride is the stack.

use std::path::PathBuf;

use burn::module::Module;
use burn::nn::{LayerNorm, Linear};
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::log_mel::LogMel;
use crate::transformer::{Block, BlockConfig, layer_norm, linear};
use crate::vit_config::norm_epsilon;
use crate::{EncoderError, Features, LogMelConfig, parameters, position};

/// Log-mel frames, a linear stem, sinusoidal positions and pre-norm blocks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AudioTransformerConfig {
    /// The front end; its `stack` is the stride.
    #[serde(default)]
    pub front_end: LogMelConfig,
    /// Width of the stream, and of each feature.
    pub dim: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads in each block.
    pub heads: usize,
    /// Width inside each block's network.
    pub intermediate: usize,
    /// Added to the variance in each norm.
    #[serde(default = "norm_epsilon")]
    pub norm_epsilon: f64,
    /// Safetensors file with every parameter; either this or `seed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,
    /// Random parameters from this seed: an untrained encoder, said aloud.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

const KIND: &str = "audio_transformer";

impl AudioTransformerConfig {
    /// Refuses values that cannot work.
    pub(crate) fn check(&self) -> Result<(), EncoderError> {
        let refuse = |key, problem| {
            Err(EncoderError::Config {
                kind: KIND,
                key,
                problem,
            })
        };
        if self.dim < 4 || !self.dim.is_multiple_of(2) {
            return refuse(
                "dim",
                format!("got {}, wanted an even number of at least 4", self.dim),
            );
        }
        if self.heads == 0 || !self.dim.is_multiple_of(self.heads) {
            return refuse(
                "heads",
                format!(
                    "got {} for a `dim` of {}, wanted a divisor of it",
                    self.heads, self.dim
                ),
            );
        }
        if self.depth == 0 || self.intermediate == 0 {
            return refuse(
                "depth",
                format!(
                    "got {} blocks of `intermediate` {}, wanted at least 1; without blocks use `log_mel`",
                    self.depth, self.intermediate
                ),
            );
        }
        self.front_end.init(KIND)?;
        parameters::check(KIND, true, self.weights.as_deref(), self.seed)
    }

    pub(crate) fn init(&self, device: &Device) -> Result<AudioTransformer, EncoderError> {
        self.check()?;
        let front_end = self.front_end.init(KIND)?;
        let block = BlockConfig {
            dim: self.dim,
            heads: self.heads,
            intermediate: self.intermediate,
            norm_epsilon: self.norm_epsilon,
        };
        let module = AudioModule {
            stem: linear(self.front_end.feature_dim(), self.dim, device),
            blocks: (0..self.depth).map(|_| block.init(device)).collect(),
            norm: layer_norm(self.dim, self.norm_epsilon, device),
        };
        let module = parameters::fill(module, KIND, self.weights.as_deref(), self.seed)?;
        Ok(AudioTransformer {
            front_end,
            module,
            device: device.clone(),
        })
    }
}

#[derive(Module, Debug)]
struct AudioModule {
    stem: Linear,
    blocks: Vec<Block>,
    norm: LayerNorm,
}

impl AudioModule {
    /// # Shapes
    /// `[1, N, bands * stack]` to `[1, N, D]`
    fn forward(&self, frames: Tensor<3>) -> Tensor<3> {
        let x = self.stem.forward(frames);
        let [_, length, dim] = x.dims();
        let positions = TensorData::new(position::sequence(dim, length), [1, length, dim]);
        let x = x.clone() + Tensor::from_data(positions, &x.device());
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x));
        self.norm.forward(x)
    }
}

/// A built audio transformer.
#[derive(Debug, Clone)]
pub struct AudioTransformer {
    front_end: LogMel,
    module: AudioModule,
    device: Device,
}

impl AudioTransformer {
    pub(crate) fn encode(
        &self,
        samples: &[f32],
        sample_rate: u32,
    ) -> Result<Features, EncoderError> {
        let Features { length, dim, data } = self.front_end.encode(samples, sample_rate)?;
        let frames = Tensor::from_data(TensorData::new(data, [1, length, dim]), &self.device);
        let encoded = self.module.forward(frames);
        let dim = encoded.dims()[2];
        Ok(Features {
            length,
            dim,
            data: encoded.into_data().iter::<f32>().collect(),
        })
    }
}
