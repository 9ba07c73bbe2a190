use std::path::{Path, PathBuf};

use limbic_weights::WeightsError;

/// What can be wrong with a LLaMA's files, settings and prompts.
#[derive(Debug, thiserror::Error)]
pub enum LlamaError {
    /// A file or folder could not be opened or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file concerned.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A JSON file that does not say what it must.
    #[error("{}: {detail}", path.display())]
    Json {
        /// The file concerned.
        path: PathBuf,
        /// The key and what is wrong with it.
        detail: String,
    },
    /// Sizes that cannot make a LLaMA, or a variant of it that is not built here.
    #[error("unusable LLaMA config: {0}")]
    Config(String),
    /// Weights that are unreadable or do not fit.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// LoRA settings that cannot be applied.
    #[error("unusable LoRA settings: {0}")]
    Lora(String),
    /// An adapter folder that does not fit this model, or uses a feature that is not built here.
    #[error("{}: unusable adapter: {detail}", path.display())]
    Adapter {
        /// The file concerned.
        path: PathBuf,
        /// The key or tensor and what is wrong with it.
        detail: String,
    },
    /// An attention mask that is no padding.
    #[error("unusable attention mask: {0}; wanted one run of ones in each row")]
    Mask(String),
    /// Token ids that are no input of the model.
    #[error("unusable token ids: {0}")]
    Ids(String),
    /// A file of llama2.c that is not what it says.
    #[error("{}: unusable llama2.c checkpoint: {detail}", path.display())]
    Llama2c {
        /// The file concerned.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// Sampling settings out of range.
    #[error("unusable sampling settings: {0}")]
    Sampling(String),
    /// A prompt that cannot be continued.
    #[error(
        "prompt {id}: {length} positions and up to {new_tokens} new tokens; wanted at least 1 position and at most \
         {limit} (`max_position_embeddings`) together; shorten the prompt or lower the number of new tokens"
    )]
    PromptLength {
        /// The prompt's own number.
        id: u64,
        /// Positions of the prompt.
        length: usize,
        /// Tokens asked for.
        new_tokens: usize,
        /// What the model can hold.
        limit: usize,
    },
    /// The model returned infinities or NaN.
    #[error(
        "prompt {id}: token {step} has non-finite logits; the weights or the prompt's embeddings are damaged or have diverged"
    )]
    NonFinite {
        /// The prompt's own number.
        id: u64,
        /// Which new token, from 0.
        step: usize,
    },
}

impl LlamaError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn json(path: &Path, detail: impl ToString) -> Self {
        Self::Json {
            path: path.to_path_buf(),
            detail: detail.to_string(),
        }
    }

    pub(crate) fn llama2c(path: &Path, detail: impl ToString) -> Self {
        Self::Llama2c {
            path: path.to_path_buf(),
            detail: detail.to_string(),
        }
    }

    pub(crate) fn adapter(path: &Path, detail: impl ToString) -> Self {
        Self::Adapter {
            path: path.to_path_buf(),
            detail: detail.to_string(),
        }
    }
}
