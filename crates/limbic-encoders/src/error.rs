use std::path::PathBuf;

use limbic_weights::WeightsError;

use crate::Modality;

/// What can be wrong with an encoder's description, its weights or the medium it is given.
#[derive(Debug, thiserror::Error)]
pub enum EncoderError {
    /// A key of the encoder's config holds a value that cannot work.
    #[error("encoder `{kind}`, key `{key}`: {problem}")]
    Config {
        /// The encoder's `kind`.
        kind: &'static str,
        /// The key, with dots where it is nested.
        key: &'static str,
        /// What was got, what was wanted.
        problem: String,
    },
    /// The weights file could not be read or does not fit.
    #[error("encoder `{kind}`, weights {}: {source}", path.display())]
    Weights {
        /// The encoder's `kind`.
        kind: &'static str,
        /// The safetensors file named by the config.
        path: PathBuf,
        /// What was wrong with it.
        source: WeightsError,
    },
    /// A pretrained model is given tensors that it does not read.
    #[error("input of `{kind}`: {problem}")]
    Input {
        /// The model.
        kind: &'static str,
        /// What was got, what was wanted.
        problem: String,
    },
    /// A clip's frames given to an audio encoder, or its sound to a vision encoder.
    #[error(
        "got {got} for an encoder of {wanted}; give this input another encoder or another medium"
    )]
    Modality {
        /// What the caller handed over.
        got: Modality,
        /// What the encoder reads.
        wanted: Modality,
    },
    /// Frames of another size than the encoder's.
    #[error(
        "got {bytes} bytes for {count} frames of {got} x {got} pixels, wanted frames of {wanted} x {wanted} RGB bytes; decode the clip at the encoder's `image_size`"
    )]
    Frames {
        /// Bytes handed over.
        bytes: usize,
        /// Frames they are said to hold.
        count: usize,
        /// The side they are said to have, in pixels.
        got: usize,
        /// The encoder's `image_size`, in pixels.
        wanted: usize,
    },
    /// Sound at another sample rate than the encoder's.
    #[error(
        "got sound at {got} Hz, wanted {wanted} Hz; resample the clip to the encoder's `sample_rate`"
    )]
    SampleRate {
        /// Rate handed over, in Hz.
        got: u32,
        /// The encoder's rate, in Hz.
        wanted: u32,
    },
    /// Too little sound to make one feature of.
    #[error(
        "got {got} samples, wanted at least {wanted} for {purpose}; quarantine the clip or give it no audio"
    )]
    TooShort {
        /// Samples handed over.
        got: usize,
        /// The fewest that work.
        wanted: usize,
        /// What needs so many.
        purpose: &'static str,
    },
    /// A sample that is no number would poison every feature.
    #[error(
        "sample {index} of the waveform is not finite; the file is damaged: decode it again or quarantine the clip"
    )]
    NotFinite {
        /// Position of the first such sample.
        index: usize,
    },
    /// A file of a pretrained model that says what cannot be read or built here.
    #[error("{}: {problem}", path.display())]
    Pretrained {
        /// The file.
        path: PathBuf,
        /// What was got, what was wanted.
        problem: String,
    },
}
