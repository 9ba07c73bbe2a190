//! The emotion LLM: media tokens spliced into the prompt, backbone, class head, generation, saved directory.
//!
//! - [`Batch`] turns compiled prompts and encoded media into tensors; media meet text there and nowhere else.
//! - [`EmotionLlm`] runs projectors, fusions, decoder and heads; [`PairBatch`] and [`MaskedBatch`] are what it reads
//!   captions from.
//! - [`Trainables`] is the one list of what is trained; optimizer, reduction, checkpoint and export all ask it.
//! - [`Artifact`] is the saved directory; [`export()`] passes it on, [`verify_export`] proves that nothing was lost.
//! - [`Published`] reads checkpoints of others into a model.
//!
//! Encoders are not part of the model: they are frozen, and their features are inputs.

// Tests say why they skip.
#![cfg_attr(test, allow(clippy::print_stderr))]

mod alignment;
mod answer;
mod artifact;
mod batch;
mod config;
mod directory;
mod emotion_llm;
mod error;
mod export;
mod head;
mod import;
mod llama2c;
mod masking;
mod trainables;
mod verify;

#[cfg(test)]
mod tests;

pub use alignment::{Alignment, AlignmentConfig, ClipMedia, PairBatch};
pub use artifact::{
    Artifact, ArtifactConfig, DecoderSource, FORMAT, decoder_hash, read_decoder, write_decoder,
};
pub use batch::{Batch, Example, Layout};
pub use config::{EmotionLlmConfig, FusedConfig, InputConfig, Source, TRANSCRIPT};
pub use directory::{recover_directory, verify_directory, write_directory};
pub use emotion_llm::{Asked, EmotionLlm, Fused, Judgement, Readout, TokenStates};
pub use error::ModelError;
pub use export::{ExportOptions, Exported, export};
pub use head::{Head, HeadConfig, Reads};
pub use import::{Imported, Published};
pub use masking::{Mask, MaskedBatch, MaskedCaption};
pub use trainables::{Part, Trainables};
pub use verify::{Verified, verify_export};
