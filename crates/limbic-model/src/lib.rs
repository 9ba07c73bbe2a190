//! The emotion LLM: media tokens spliced into the prompt, backbone, class head, generation, saved directory.
//!
//! - [`Batch`] turns compiled prompts and encoded media into tensors; media meet text there and nowhere else.
//! - [`EmotionLlm`] runs projectors, decoder and class head.
//! - [`Trainables`] is the one list of what is trained; optimizer, reduction, checkpoint and export all ask it.
//! - [`Artifact`] is the saved directory; [`export()`] passes it on, [`verify_export`] proves that nothing was lost.
//!
//! Encoders are not part of the model: they are frozen, and their features are inputs.

mod artifact;
mod batch;
mod config;
mod directory;
mod emotion_llm;
mod error;
mod export;
mod head;
mod trainables;
mod verify;

#[cfg(test)]
mod tests;

pub use artifact::{Artifact, ArtifactConfig, DecoderSource, FORMAT, read_decoder};
pub use batch::{Batch, Example};
pub use config::{EmotionLlmConfig, InputConfig};
pub use directory::{recover_directory, verify_directory, write_directory};
pub use emotion_llm::{EmotionLlm, Readout};
pub use error::ModelError;
pub use export::{ExportOptions, Exported, export};
pub use head::{ClassHead, HeadConfig};
pub use trainables::{Part, Trainables};
pub use verify::{Verified, verify_export};
