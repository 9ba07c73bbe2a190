//! The artifact that a run starts from. In which precision its decoder is read follows from the recipe and from what the
//! artifact is, so that is known before a weight is read.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use limbic_model::{Artifact, ArtifactConfig, ModelError};
use limbic_weights::Precision;

use crate::Recipe;
use crate::blueprint::at_fault;
use crate::run_dir::start_folder;

/// What `init_from` names.
pub(crate) struct Origin {
    folder: PathBuf,
    /// Everything about it that is not a weight.
    pub(crate) config: ArtifactConfig,
    /// Whether its decoder has adapters.
    pub(crate) is_adapted: bool,
}

impl Origin {
    /// The origin of `recipe`, if it names one.
    ///
    /// # Errors
    /// None there, or not one of this version.
    pub(crate) fn of(recipe: &Recipe) -> anyhow::Result<Option<Self>> {
        let Some(folder) = start_folder(recipe)? else {
            return Ok(None);
        };
        let config = ArtifactConfig::read(&folder).map_err(|error| at_init(&folder, &error))?;
        let is_adapted = Artifact::is_adapted(&folder);
        Ok(Some(Self::known(folder, config, is_adapted)))
    }

    /// One of which all is known that matters before its weights are read.
    pub(crate) fn known(folder: PathBuf, config: ArtifactConfig, is_adapted: bool) -> Self {
        Self {
            folder,
            config,
            is_adapted,
        }
    }

    /// Its weights and its tokenizer, with the decoder's matrices in `precision`: they are never there in another one.
    ///
    /// # Errors
    /// Files that are missing, damaged or do not fit.
    pub(crate) fn read(&self, precision: Precision, device: &Device) -> anyhow::Result<Artifact> {
        Artifact::read(&self.folder, precision, device)
            .map_err(|error| at_init(&self.folder, &error))
    }
}

fn at_init(folder: &Path, error: &ModelError) -> anyhow::Error {
    at_fault(format!("`init_from` names {}: {error}", folder.display()))
}
