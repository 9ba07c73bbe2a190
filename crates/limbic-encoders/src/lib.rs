//! Frozen vision and audio encoders, and the trainable projectors that turn their features into LLM tokens.
//!
//! Two paths meet in the language model:
//!
//! ```text
//! frames   u8  [T, S, S, 3] -> vit | pretrained_vision                                       -> [T * P, D] \
//! waveform f32 [samples]    -> log_mel | mfcc | prosody | audio_transformer | pretrained_audio -> [N, D]    > projector -> [B, tokens, Dllm]
//! ```
//!
//! An [`Encoder`] is frozen by construction: host values in, host values out, one clip at a time, so
//! that [`Features`] can be cached. A [`Projector`] is a burn module and reads padded batches of
//! features; a [`Fusion`] reads those of several media at once. All are described by serde configs
//! ([`EncoderConfig`], [`ProjectorConfig`], [`FusionConfig`]) whose `kind` names the variant.
//! [`vision`] and [`audio`] hold the pretrained architectures. Deliberately absent: reading media files.

mod attention_pool;
pub mod audio;
mod audio_transformer;
mod bert;
mod bert_qformer;
mod blip2;
mod encoder;
mod error;
mod folder;
mod frame_pool;
mod fusion;
mod hidden_states;
mod log_mel;
mod media;
mod mel;
mod mel_bands;
mod merge;
mod mfcc;
mod parameters;
mod patches;
mod pooling;
mod position;
mod projector;
mod prosody;
mod prosody_config;
mod pyin;
mod qformer;
mod transformer;
pub mod vision;
mod vit;
mod vit_config;
mod viterbi;
mod yin;

pub use attention_pool::{AttentionPoolConfig, MeanConfig};
pub use audio::{AudioArchitecture, AudioInput, AudioModel};
pub use audio_transformer::{AudioTransformer, AudioTransformerConfig};
pub use bert_qformer::BertQFormerConfig;
pub use blip2::{Blip2, Blip2Config, Blip2QFormer, Blip2QFormerConfig};
pub use encoder::{Encoder, EncoderConfig};
pub use error::EncoderError;
pub use frame_pool::{FramePoolConfig, Temporal, TokenOrder};
pub use fusion::{
    AttentionFusionConfig, ConvAttentionConfig, CrossModalConfig, Fusion, FusionConfig, Padded,
    QFormerFusionConfig,
};
pub use hidden_states::{HiddenStates, Keep};
pub use log_mel::{LogMel, LogMelConfig, Logarithm};
pub use media::{Features, Media, Modality};
pub use mel::{MelConfig, Pad};
pub use mel_bands::{MelNorm, MelScale};
pub use merge::MergeConfig;
pub use mfcc::{Mfcc, MfccConfig};
pub use pooling::{LinearProjectorConfig, MeanPoolConfig, Select};
pub use projector::{InputLength, Projector, ProjectorConfig};
pub use prosody::Prosody;
pub use prosody_config::ProsodyConfig;
pub use qformer::QFormerConfig;
pub use vit::Vit;
pub use vit_config::{PatchInit, Position, VitConfig};
