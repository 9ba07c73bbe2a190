use std::path::PathBuf;

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
    /// A folder that holds no weights.
    #[error(
        "{}: no weights found; wanted `model.safetensors` or `model.safetensors.index.json` in this folder",
        .0.display()
    )]
    Absent(PathBuf),
    /// The names or shapes do not fit the module.
    #[error("weights do not fit the model: {0}")]
    Mismatch(String),
}

impl WeightsError {
    pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }
}
