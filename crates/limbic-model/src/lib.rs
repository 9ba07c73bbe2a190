//! The emotion LLM: media tokens spliced into the prompt, backbone, class head, generation, saved directory.
//!
//! - [`Batch`] turns compiled prompts and encoded media into tensors; media meet text there and nowhere else.
//! - [`EmotionLlm`] runs projectors, fusions, decoder and heads; [`PairBatch`] and [`MaskedBatch`] are what it reads
//!   captions from.
//! - [`Trainables`] is the one list of what is trained; optimizer, reduction, checkpoint and export all ask it.
//! - [`Artifact`] is the saved directory.
//!
//! Encoders are not part of the model: they are frozen, and their features are inputs.

mod alignment;
mod artifact;
mod batch;
mod config;
mod directory;
mod emotion_llm;
mod error;
mod head;
mod llama2c;
mod masking;
mod trainables;

#[cfg(test)]
mod tests;

pub use alignment::{Alignment, AlignmentConfig, ClipMedia, PairBatch};
pub use artifact::{Artifact, ArtifactConfig, DecoderSource, FORMAT, read_decoder, write_decoder};
pub use batch::{Batch, Example};
pub use config::{EmotionLlmConfig, FusedConfig, InputConfig, Source, TRANSCRIPT};
pub use directory::{recover_directory, verify_directory, write_directory};
pub use emotion_llm::{Asked, EmotionLlm, Fused, Judgement, Readout};
pub use error::ModelError;
pub use head::{Head, HeadConfig, Reads};
pub use masking::{Mask, MaskedBatch, MaskedCaption};
pub use trainables::{Part, Trainables};
