//! Decoder folders of llama2.c: one checkpoint and one tokenizer, without any `config.json`.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use limbic_data::TextTokenizer;
use limbic_llama::Llama;

use crate::ModelError;

/// The two files of such a folder.
pub(crate) struct Files {
    checkpoint: PathBuf,
    tokenizer: PathBuf,
}

/// The files, if `folder` is of this kind: no `config.json`, one `tok*.bin`, one other `*.bin`.
///
/// # Errors
/// A folder that cannot be listed, or one with several of either.
pub(crate) fn files(folder: &Path) -> Result<Option<Files>, ModelError> {
    if !folder.is_dir() || folder.join("config.json").is_file() {
        return Ok(None);
    }
    let (mut tokenizers, mut checkpoints) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(folder).map_err(ModelError::io(folder))? {
        let path = entry.map_err(ModelError::io(folder))?.path();
        if path.extension().is_some_and(|extension| extension == "bin") {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let is_tokenizer = name.starts_with("tok");
            if is_tokenizer {
                &mut tokenizers
            } else {
                &mut checkpoints
            }
            .push(path);
        }
    }
    match (tokenizers.len(), checkpoints.len()) {
        (0, _) | (_, 0) => Ok(None),
        (1, 1) => Ok(tokenizers
            .pop()
            .zip(checkpoints.pop())
            .map(|(tokenizer, checkpoint)| Files {
                checkpoint,
                tokenizer,
            })),
        (t, c) => Err(ModelError::directory(
            folder,
            format!(
                "{c} checkpoints and {t} tokenizers of llama2.c (`*.bin` and `tok*.bin`), wanted one of each; move the \
                 others away"
            ),
        )),
    }
}

impl Files {
    /// Reads both and holds them against each other.
    pub(crate) fn read(&self, device: &Device) -> Result<(Llama, TextTokenizer), ModelError> {
        let llama = Llama::read_llama2c(&self.checkpoint, device)?;
        let tokenizer = TextTokenizer::read_llama2c(&self.tokenizer)?;
        let (rows, pieces) = (llama.config().vocab_size, tokenizer.vocab_size());
        if rows != pieces {
            return Err(ModelError::directory(
                &self.tokenizer,
                format!(
                    "{pieces} pieces, but {} has {rows} tokens; they are not of one model",
                    self.checkpoint.display()
                ),
            ));
        }
        Ok((llama, tokenizer))
    }
}
