//! Pretrained audio encoders, from the folders they are published in.

mod attention;
mod conv_stem;
mod fbank;
pub(crate) mod feature_extractor;
mod hidden_choice;
mod imagebind;
mod imagebind_block;
mod imagebind_config;
mod positional_conv;
mod pretrained;
#[cfg(test)]
mod published_sizes;
mod speech_layer;
mod wav2vec2;
mod wav2vec2_config;
mod wavlm;
mod whisper;
mod whisper_mel;
mod windows;

use std::path::Path;

use burn::tensor::{Device, Int, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{EncoderError, HiddenStates, Keep};

pub use hidden_choice::{Combine, Layers, TimePool};
pub use imagebind::ImageBind;
pub use pretrained::{PretrainedAudio, PretrainedAudioConfig};
pub use wav2vec2::Wav2Vec2;
use wav2vec2_config::Family;
pub use whisper::Whisper;

/// The kinds of pretrained audio encoders, by their `model_type` in `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AudioArchitecture {
    /// wav2vec 2.0 (Baevski et al., 2020).
    Wav2Vec2,
    /// HuBERT (Hsu et al., 2021).
    Hubert,
    /// WavLM (Chen et al., 2022).
    WavLM,
    /// The encoder of Whisper (Radford et al., 2022).
    Whisper,
    /// The audio trunk of ImageBind (Girdhar et al., 2023).
    ImageBind,
}

impl AudioArchitecture {
    /// Every kind.
    pub const ALL: [Self; 5] = [
        Self::Wav2Vec2,
        Self::Hubert,
        Self::WavLM,
        Self::Whisper,
        Self::ImageBind,
    ];

    /// Its name in YAML and in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Wav2Vec2 => "wav2vec2",
            Self::Hubert => "hubert",
            Self::WavLM => "wavlm",
            Self::Whisper => "whisper",
            Self::ImageBind => "imagebind",
        }
    }

    /// The kind of that name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// What an encoder reads. B sounds, S samples, M mel bands, F frames.
#[derive(Debug, Clone)]
#[allow(
    clippy::large_enum_variant,
    reason = "one a sound: a box would save nothing"
)]
pub enum AudioInput {
    /// Raw sound.
    Values {
        /// `[B, S]`
        values: Tensor<2>,
        /// `[B, S]`, 1 where there is sound and 0 where there is padding.
        attention_mask: Option<Tensor<2, Int>>,
    },
    /// Mel frames, `[B, M, F]`.
    Features(Tensor<3>),
}

/// A pretrained audio encoder, frozen.
#[derive(Debug, Clone)]
pub enum AudioModel {
    /// wav2vec 2.0, HuBERT or WavLM.
    Wav2Vec2(Box<Wav2Vec2>),
    /// Whisper's encoder.
    Whisper(Box<Whisper>),
    /// ImageBind's audio trunk.
    ImageBind(Box<ImageBind>),
}

impl AudioModel {
    /// Reads a folder of transformers' layout; `model_type` in its `config.json` tells the kind.
    ///
    /// # Errors
    /// A missing or unreadable file, a kind or an option that is not supported, weights that do not fit.
    pub fn read(path: &Path, device: &Device) -> Result<Self, EncoderError> {
        let described = path.join("config.json");
        let config = crate::folder::read(&described)?;
        let name = config["model_type"].as_str().unwrap_or_default();
        let Some(architecture) = AudioArchitecture::of(name) else {
            let names = AudioArchitecture::ALL
                .map(AudioArchitecture::name)
                .join(", ");
            return Err(crate::folder::refuse(
                &described,
                format!("`model_type` is `{name}`, wanted one of {names}"),
            ));
        };
        Self::read_as(architecture, path, device)
    }

    /// Reads the weights of a kind that is known beforehand: a folder, or for ImageBind the checkpoint itself, whose
    /// sizes are then those of `imagebind_huge`.
    ///
    /// # Errors
    /// As [`read`](Self::read), and another `model_type` than that kind's.
    pub fn read_as(
        architecture: AudioArchitecture,
        path: &Path,
        device: &Device,
    ) -> Result<Self, EncoderError> {
        // Encoders are frozen: their tensors have no tape.
        let device = &device.clone().without_autodiff();
        Ok(match architecture {
            AudioArchitecture::Wav2Vec2 | AudioArchitecture::Hubert | AudioArchitecture::WavLM => {
                let config = described_as(architecture, path)?;
                Self::Wav2Vec2(Box::new(Wav2Vec2::read(path, config, device)?))
            }
            AudioArchitecture::Whisper => {
                let config = described_as(architecture, path)?;
                Self::Whisper(Box::new(Whisper::read(path, config, device)?))
            }
            AudioArchitecture::ImageBind => {
                Self::ImageBind(Box::new(ImageBind::read(path, device)?))
            }
        })
    }

    /// Samples per second of the sound it reads (Hz).
    pub fn sample_rate(&self) -> u32 {
        match self {
            Self::Wav2Vec2(model) => model.sample_rate(),
            Self::Whisper(model) => model.sample_rate(),
            Self::ImageBind(model) => model.sample_rate(),
        }
    }

    /// Size of each vector of its hidden states.
    pub fn dim(&self) -> usize {
        match self {
            Self::Wav2Vec2(model) => model.config.hidden_size,
            Self::Whisper(model) => model.config.d_model,
            Self::ImageBind(model) => model.config.audio_embed_dim,
        }
    }

    /// Size of its pooled vector; `None` where it does not pool.
    pub fn pooled_dim(&self) -> Option<usize> {
        match self {
            Self::Wav2Vec2(_) | Self::Whisper(_) => None,
            Self::ImageBind(model) => Some(model.config.out_embed_dim),
        }
    }

    /// Number of layers; there is one hidden state more.
    pub fn layers(&self) -> usize {
        match self {
            Self::Wav2Vec2(model) => model.config.num_hidden_layers,
            Self::Whisper(model) => model.config.encoder_layers,
            Self::ImageBind(model) => model.config.audio_num_blocks,
        }
    }

    /// The fewest samples it makes something of. Whisper and ImageBind fill up with silence by themselves.
    pub fn fewest_samples(&self) -> usize {
        match self {
            Self::Wav2Vec2(model) => model.config.fewest_samples(),
            Self::Whisper(_) | Self::ImageBind(_) => 1,
        }
    }

    /// The model's input for one sound, as its published front end makes it. Where the folder has no
    /// `preprocessor_config.json`, transformers' defaults hold. Whisper cuts or fills the sound to 30 s, ImageBind to 2.
    ///
    /// # Errors
    /// Sound at another rate, empty, or with a sample that is not finite.
    pub fn preprocess(
        &self,
        samples: &[f32],
        sample_rate: u32,
    ) -> Result<AudioInput, EncoderError> {
        match self {
            Self::Wav2Vec2(model) => model.preprocess(samples, sample_rate),
            Self::Whisper(model) => model.preprocess(samples, sample_rate),
            Self::ImageBind(model) => model.preprocess(samples, sample_rate),
        }
    }

    /// Hidden states as transformers lists them with `output_hidden_states=True`, one sound in each row; what a row
    /// gives depends on no other row.
    ///
    /// # Errors
    /// Input of another kind or shape than the model reads, or too short for it.
    pub fn forward(&self, input: AudioInput, keep: Keep) -> Result<HiddenStates, EncoderError> {
        match (self, input) {
            (
                Self::Wav2Vec2(model),
                AudioInput::Values {
                    values,
                    attention_mask,
                },
            ) => model.forward(values, attention_mask, keep),
            (Self::Whisper(model), AudioInput::Features(features)) => model.forward(features, keep),
            (Self::ImageBind(model), AudioInput::Features(features)) => {
                model.forward(features, keep)
            }
            (Self::Wav2Vec2(model), AudioInput::Features(features)) => Err(EncoderError::Input {
                kind: model.config.model_type.name(),
                problem: format!(
                    "got `input_features` {:?}, wanted `input_values` [batch, samples]",
                    features.dims()
                ),
            }),
            (Self::Whisper(_) | Self::ImageBind(_), AudioInput::Values { values, .. }) => {
                Err(EncoderError::Input {
                    kind: self.architecture().name(),
                    problem: format!(
                        "got `input_values` {:?}, wanted `input_features` [batch, bands, frames]",
                        values.dims()
                    ),
                })
            }
        }
    }

    /// Its kind.
    pub fn architecture(&self) -> AudioArchitecture {
        match self {
            Self::Wav2Vec2(model) => match model.config.model_type {
                Family::Wav2Vec2 => AudioArchitecture::Wav2Vec2,
                Family::Hubert => AudioArchitecture::Hubert,
                Family::WavLM => AudioArchitecture::WavLM,
            },
            Self::Whisper(_) => AudioArchitecture::Whisper,
            Self::ImageBind(_) => AudioArchitecture::ImageBind,
        }
    }
}

/// `config.json` of a folder that shall hold that kind.
fn described_as(architecture: AudioArchitecture, folder: &Path) -> Result<Value, EncoderError> {
    let described = folder.join("config.json");
    let config = crate::folder::read(&described)?;
    match config["model_type"].as_str() {
        Some(name) if name != architecture.name() => Err(crate::folder::refuse(
            &described,
            format!(
                "`model_type` is `{name}`, wanted `{}` as asked for",
                architecture.name()
            ),
        )),
        _ => Ok(config),
    }
}
