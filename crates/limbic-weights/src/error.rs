use std::path::{Path, PathBuf};

use crate::Report;

/// What can be wrong with weights.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file or folder could not be opened or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file concerned.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is no safetensors file, or a damaged one.
    #[error("{}: not a readable safetensors file: {detail}; fetch or export it again", path.display())]
    Format {
        /// The file concerned.
        path: PathBuf,
        /// What the parser said.
        detail: String,
    },
    /// The file is one of PyTorch's, but damaged, or asks for more than tensors.
    #[error("{}: not a PyTorch file of plain tensors: {detail}", path.display())]
    Pickle {
        /// The file concerned.
        path: PathBuf,
        /// What was found, and what to do.
        detail: String,
    },
    /// A folder that holds no weights.
    #[error(
        "{}: no weights found; wanted `model.safetensors`, `pytorch_model.bin` or one of these with `.index.json` in \
         this folder",
        .0.display()
    )]
    Absent(PathBuf),
    /// The names, shapes or kinds of values do not fit the module.
    #[error("{}weights do not fit the model: {}", place(path), report.problems())]
    Unfit {
        /// What was opened; empty for weights in memory.
        path: PathBuf,
        /// All that does not fit.
        report: Box<Report>,
    },
    /// A name or a shape is not what was asked for.
    #[error("weights do not fit the model: {0}")]
    Mismatch(String),
}

fn place(path: &Path) -> String {
    if path.as_os_str().is_empty() {
        String::new()
    } else {
        format!("{}: ", path.display())
    }
}

impl WeightsError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }
}
