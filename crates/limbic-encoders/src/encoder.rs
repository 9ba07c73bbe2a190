//! The closed set of encoders.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::audio::{PretrainedAudio, PretrainedAudioConfig};
use crate::audio_transformer::{AudioTransformer, AudioTransformerConfig};
use crate::blip2::{Blip2, Blip2Config};
use crate::log_mel::{LogMel, LogMelConfig};
use crate::mfcc::{Mfcc, MfccConfig};
use crate::prosody::Prosody;
use crate::prosody_config::ProsodyConfig;
use crate::vision::{PretrainedVision, PretrainedVisionConfig};
use crate::vit::Vit;
use crate::{EncoderError, Features, Media, Modality, VitConfig};

/// Which encoder, and how it is built. In YAML: `kind` and the keys of that kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EncoderConfig {
    /// A vision transformer.
    Vit(VitConfig),
    /// Log-mel frames.
    LogMel(LogMelConfig),
    /// Mel-frequency cepstral coefficients.
    Mfcc(MfccConfig),
    /// A transformer over log-mel frames.
    AudioTransformer(AudioTransformerConfig),
    /// A vision encoder with published weights.
    PretrainedVision(PretrainedVisionConfig),
    /// A vision encoder and BLIP-2's Q-Former.
    Blip2(Blip2Config),
    /// Pitch, energy, voicing and speaking rate.
    Prosody(ProsodyConfig),
    /// An audio encoder with published weights.
    PretrainedAudio(PretrainedAudioConfig),
}

impl EncoderConfig {
    /// Which medium of a clip it reads.
    pub fn modality(&self) -> Modality {
        match self {
            Self::Vit(_) | Self::PretrainedVision(_) | Self::Blip2(_) => Modality::Video,
            Self::LogMel(_)
            | Self::Mfcc(_)
            | Self::AudioTransformer(_)
            | Self::Prosody(_)
            | Self::PretrainedAudio(_) => Modality::Audio,
        }
    }

    /// Size of each feature it makes.
    pub fn feature_dim(&self) -> usize {
        match self {
            Self::Vit(config) => config.dim,
            Self::LogMel(config) => config.feature_dim(),
            Self::Mfcc(config) => config.feature_dim(),
            Self::AudioTransformer(config) => config.dim,
            Self::PretrainedVision(config) => config.dim,
            Self::Blip2(config) => config.qformer.dim,
            Self::Prosody(config) => config.feature_dim(),
            Self::PretrainedAudio(config) => config.dim,
        }
    }

    /// Side of the frames it reads, in pixels; `None` for sound.
    pub fn image_size(&self) -> Option<usize> {
        match self {
            Self::Vit(config) => Some(config.image_size),
            Self::PretrainedVision(config) => Some(config.image_size),
            Self::Blip2(config) => Some(config.vision.image_size),
            Self::LogMel(_)
            | Self::Mfcc(_)
            | Self::AudioTransformer(_)
            | Self::Prosody(_)
            | Self::PretrainedAudio(_) => None,
        }
    }

    /// Rate of the sound it reads, in Hz; `None` for frames.
    pub fn sample_rate(&self) -> Option<u32> {
        match self {
            Self::Vit(_) | Self::PretrainedVision(_) | Self::Blip2(_) => None,
            Self::LogMel(config) => Some(config.mel.sample_rate),
            Self::Mfcc(config) => Some(config.mel.sample_rate),
            Self::AudioTransformer(config) => Some(config.front_end.mel.sample_rate),
            Self::Prosody(config) => Some(config.sample_rate),
            Self::PretrainedAudio(config) => Some(config.sample_rate),
        }
    }

    /// The file or folder its parameters come from.
    pub fn weights(&self) -> Option<&Path> {
        match self {
            Self::Vit(config) => config.weights.as_deref(),
            Self::AudioTransformer(config) => config.weights.as_deref(),
            Self::PretrainedVision(config) => Some(&config.weights),
            Self::Blip2(config) => Some(&config.weights),
            Self::PretrainedAudio(config) => Some(&config.weights),
            Self::LogMel(_) | Self::Mfcc(_) | Self::Prosody(_) => None,
        }
    }

    /// Every file and folder that is read to build it, so that a feature cache can put what they hold in the place of
    /// their names.
    pub fn sources(&mut self) -> Vec<&mut PathBuf> {
        fn of_vision(config: &mut PretrainedVisionConfig) -> impl Iterator<Item = &mut PathBuf> {
            [&mut config.weights]
                .into_iter()
                .chain(&mut config.ln_vision_weights)
        }
        match self {
            Self::Vit(config) => config.weights.iter_mut().collect(),
            Self::AudioTransformer(config) => config.weights.iter_mut().collect(),
            Self::PretrainedVision(config) => of_vision(config).collect(),
            Self::Blip2(config) => {
                let vision = of_vision(&mut config.vision);
                vision.chain([&mut config.weights]).collect()
            }
            Self::PretrainedAudio(config) => vec![&mut config.weights],
            Self::LogMel(_) | Self::Mfcc(_) | Self::Prosody(_) => Vec::new(),
        }
    }

    /// Whatever is wrong with it that shows before weights are read.
    ///
    /// # Errors
    /// A value that cannot work, with its key.
    pub fn check(&self) -> Result<(), EncoderError> {
        match self {
            Self::Vit(config) => config.check(),
            Self::LogMel(config) => config.init("log_mel").map(drop),
            Self::Mfcc(config) => config.init().map(drop),
            Self::AudioTransformer(config) => config.check(),
            Self::PretrainedVision(config) => config.check(),
            Self::Blip2(config) => config.check(),
            Self::Prosody(config) => config.init().map(drop),
            Self::PretrainedAudio(config) => config.check(),
        }
    }

    /// Builds the encoder on a plain device (an autodiff one is stripped of its tape: encoders are
    /// frozen).
    ///
    /// # Errors
    /// A value that cannot work, with its key; weights that are absent, damaged or do not fit.
    pub fn init(&self, device: &Device) -> Result<Encoder, EncoderError> {
        let device = &device.clone().without_autodiff();
        Ok(match self {
            Self::Vit(config) => Encoder::Vit(config.init(device)?),
            Self::LogMel(config) => Encoder::LogMel(config.init("log_mel")?),
            Self::Mfcc(config) => Encoder::Mfcc(config.init()?),
            Self::AudioTransformer(config) => Encoder::AudioTransformer(config.init(device)?),
            Self::PretrainedVision(config) => Encoder::PretrainedVision(config.init(device)?),
            Self::Blip2(config) => Encoder::Blip2(config.init(device)?),
            Self::Prosody(config) => Encoder::Prosody(config.init()?),
            Self::PretrainedAudio(config) => Encoder::PretrainedAudio(config.init(device)?),
        })
    }
}

/// A frozen encoder. Not a burn module, so that no optimizer, checkpoint or `train()` can reach it.
#[derive(Debug, Clone)]
#[allow(
    clippy::large_enum_variant,
    reason = "built once a run: a box would save nothing"
)]
pub enum Encoder {
    /// A vision transformer.
    Vit(Vit),
    /// Log-mel frames.
    LogMel(LogMel),
    /// Mel-frequency cepstral coefficients.
    Mfcc(Mfcc),
    /// A transformer over log-mel frames.
    AudioTransformer(AudioTransformer),
    /// A vision encoder with published weights.
    PretrainedVision(PretrainedVision),
    /// A vision encoder and BLIP-2's Q-Former.
    Blip2(Blip2),
    /// Pitch, energy, voicing and speaking rate.
    Prosody(Prosody),
    /// An audio encoder with published weights.
    PretrainedAudio(PretrainedAudio),
}

impl Encoder {
    /// Encodes one medium of one clip. The result is a function of the config, the weights and the
    /// medium: clips are never batched together.
    ///
    /// # Errors
    /// A medium of the wrong kind, size or rate, too short a sound, or one with damaged samples.
    pub fn encode(&self, media: &Media<'_>) -> Result<Features, EncoderError> {
        match (self, *media) {
            (Self::Vit(vit), Media::Frames { data, count, size }) => vit.encode(data, count, size),
            (Self::PretrainedVision(encoder), Media::Frames { data, count, size }) => {
                encoder.encode(data, count, size)
            }
            (Self::Blip2(encoder), Media::Frames { data, count, size }) => {
                encoder.encode(data, count, size)
            }
            (
                Self::LogMel(front_end),
                Media::Waveform {
                    samples,
                    sample_rate,
                },
            ) => front_end.encode(samples, sample_rate),
            (
                Self::Mfcc(front_end),
                Media::Waveform {
                    samples,
                    sample_rate,
                },
            ) => front_end.encode(samples, sample_rate),
            (
                Self::AudioTransformer(encoder),
                Media::Waveform {
                    samples,
                    sample_rate,
                },
            ) => encoder.encode(samples, sample_rate),
            (
                Self::Prosody(front_end),
                Media::Waveform {
                    samples,
                    sample_rate,
                },
            ) => front_end.encode(samples, sample_rate),
            (
                Self::PretrainedAudio(encoder),
                Media::Waveform {
                    samples,
                    sample_rate,
                },
            ) => encoder.encode(samples, sample_rate),
            (Self::Vit(_) | Self::PretrainedVision(_) | Self::Blip2(_), Media::Waveform { .. }) => {
                Err(EncoderError::Modality {
                    got: Modality::Audio,
                    wanted: Modality::Video,
                })
            }
            (_, Media::Frames { .. }) => Err(EncoderError::Modality {
                got: Modality::Video,
                wanted: Modality::Audio,
            }),
        }
    }
}
