use std::path::PathBuf;

/// How a run can end other than well. The command line turns each into an exit code of its own.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The recipe, or something it names, cannot be used.
    #[error("{}", .0.join("\n"))]
    Recipe(Vec<String>),
    /// The data leave nothing to train or to evaluate, or too much of them is unusable.
    #[error("{0}")]
    Data(String),
    /// The loss or its gradient stopped being finite.
    #[error("{0}")]
    Diverged(String),
    /// A signal arrived before the first step; nothing was changed but the cache.
    #[error("interrupted while clips were read; the same command starts again")]
    Stopped,
    /// A signal arrived; the run can be resumed.
    #[error(
        "interrupted at step {step}; the checkpoint {} is complete, and the same command goes on from it",
        checkpoint.display()
    )]
    Interrupted {
        /// Steps done.
        step: u64,
        /// Where they are saved.
        checkpoint: PathBuf,
    },
}

impl RunError {
    /// A single problem of the recipe.
    pub fn recipe(problem: impl Into<String>) -> anyhow::Error {
        Self::Recipe(vec![problem.into()]).into()
    }
}
