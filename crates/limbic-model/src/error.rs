use std::path::{Path, PathBuf};

use limbic_data::DataError;
use limbic_encoders::EncoderError;
use limbic_llama::LlamaError;
use limbic_weights::WeightsError;

/// What can be wrong with a model's parts, files and inputs.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file or folder could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file concerned.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A saved directory that is incomplete, damaged or of another kind.
    #[error("{}: {detail}", path.display())]
    Directory {
        /// The directory or the file in it.
        path: PathBuf,
        /// What was got, what was wanted, what to do.
        detail: String,
    },
    /// Parts that do not go together.
    #[error("unusable model: {0}")]
    Config(String),
    /// From the tokenizer or the prompt.
    #[error(transparent)]
    Data(#[from] DataError),
    /// From an encoder or projector.
    #[error(transparent)]
    Encoder(#[from] EncoderError),
    /// From the decoder.
    #[error(transparent)]
    Llama(#[from] LlamaError),
    /// From a file of weights.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

impl ModelError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn directory(path: &Path, detail: impl Into<String>) -> Self {
        Self::Directory {
            path: path.to_path_buf(),
            detail: detail.into(),
        }
    }
}
