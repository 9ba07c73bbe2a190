//! Turns manifests and media files into samples ready for an emotion LLM.
//!
//! 1. A corpus in its published layout becomes a manifest ([`sources`]).
//! 2. A [`Manifest`] is JSON Lines, one [`Clip`] a line; every line is checked before any media is opened.
//! 3. A [`LabelSet`] says which emotions there are and by which words they go.
//! 4. [`video`] decodes a few square RGB frames of a clip, [`faces`] finds the face to cut out.
//! 5. [`audio`] decodes mono samples at the asked rate.
//! 6. [`prompt`] compiles what is asked about a clip into token ids, media slots and the ids to learn.
//!
//! Pixels leave this crate as `u8` and samples as `f32`: how they are normalised is the encoder's business. A medium that a clip
//! does not have is `None`, and a medium that is damaged is a [`DataError::Media`] with its [`Reason`]; neither becomes zeros.

// Tests say why they skip.
#![cfg_attr(test, allow(clippy::print_stderr))]

pub mod audio;
pub mod clip;
pub mod error;
pub mod faces;
mod few;
pub mod ffmpeg;
pub mod labels;
mod llama2c;
pub mod manifest;
pub mod media;
mod picture;
mod picture_stream;
pub mod prompt;
pub mod sources;
pub mod synth;
#[cfg(test)]
mod tests;
pub mod tokens;
pub mod video;

pub use audio::{Waveform, read_waveform};
pub use clip::{Clip, Exchange, Preference, Preferred, Span, Split};
pub use error::{DataError, Reason};
pub use ffmpeg::FfmpegBuild;
pub use labels::{Label, LabelSet};
pub use manifest::Manifest;
pub use media::{MediaInfo, probe};
pub use picture::Picture;
pub use prompt::{Compiled, PromptCompiler, PromptConfig, Segment, Slot, Task, Turn};
pub use sources::{ImportReport, Source};
pub use tokens::TextTokenizer;
pub use video::{Crop, FrameSampler, Frames, read_frames, read_pictures};
