//! An artifact from a checkpoint that others have published.

use std::path::PathBuf;

use burn::tensor::Device;
use limbic_data::{LabelSet, PromptConfig};
use limbic_model::{
    Artifact, ArtifactConfig, DecoderSource, FORMAT, Imported, Published, read_decoder,
};
use limbic_weights::Precision;

use crate::RunError;
use crate::assembly::base;
use crate::blueprint::at_fault;
use crate::recipe::{DecoderRecipe, ModelRecipe};
use crate::reference::Reference;

/// A published checkpoint and what stands around it.
#[derive(Debug, Clone)]
pub struct Import {
    /// The layout of the checkpoint.
    pub published: Published,
    /// The checkpoint.
    pub checkpoint: PathBuf,
    /// A file of configs/models, with a pretrained decoder.
    pub model: PathBuf,
    /// A file of configs/prompts.
    pub prompt: PathBuf,
    /// A file of configs/labels.
    pub labels: Option<PathBuf>,
    /// Names the first values of parameters that the checkpoint does not have.
    pub seed: u64,
}

impl Import {
    /// Builds the model and reads the checkpoint into it.
    ///
    /// # Errors
    /// Files that are missing or cannot be read, parts that do not go together, weights that do not fit.
    pub fn run(&self, device: &Device) -> anyhow::Result<(Artifact, Imported)> {
        let recipe = ModelRecipe::read(&self.model)?;
        let mut prompt: Reference<PromptConfig> = Reference::Path(self.prompt.clone());
        prompt.resolve("--prompt").map_err(RunError::recipe)?;
        let mut labels: Option<Reference<LabelSet>> = self.labels.clone().map(Reference::Path);
        if let Some(labels) = &mut labels {
            labels.resolve("--labels").map_err(RunError::recipe)?;
        }
        let name = self.model.file_stem().unwrap_or_default();
        let config = ArtifactConfig {
            format: FORMAT,
            run: name.to_string_lossy().into_owned(),
            decoder: DecoderSource::Own,
            inputs: recipe.inputs(),
            fusions: recipe.fusions(),
            transcript: true,
            prompt: prompt.get().clone(),
            labels: labels.map(|labels| labels.get().clone()),
            head: None,
            valence: None,
            alignment: None,
            mask: false,
            mute: false,
        };
        for input in &config.inputs {
            input.check().map_err(at_fault)?;
        }
        config.compiler().map_err(at_fault)?;
        let around = config.model().map_err(at_fault)?;

        let decoder = recipe.decoder.as_ref().map(Reference::get);
        let Some(DecoderRecipe::Pretrained(pretrained)) = decoder else {
            return Err(RunError::recipe(format!(
                "{}: `decoder` is no pretrained one; the checkpoint was trained on one and is of use with that alone",
                self.model.display()
            )));
        };
        if pretrained.shape.is_some() {
            pretrained.config().map_err(at_fault)?;
        }
        let (llama, tokenizer) =
            read_decoder(&pretrained.folder, Precision::F32, device).map_err(at_fault)?;
        let llama = match &recipe.lora {
            Some(lora) => llama.with_lora(lora, self.seed).map_err(at_fault)?,
            None => llama,
        };
        let model = around.init(llama, self.seed, device).map_err(at_fault)?;
        let imported = self.published.import(&self.checkpoint, &around, model)?;
        let artifact = Artifact {
            config: ArtifactConfig {
                decoder: base(&pretrained.folder, device)?,
                ..config
            },
            model: imported.model.clone(),
            tokenizer,
            decoder: pretrained.folder.clone(),
        };
        Ok((artifact, imported))
    }
}
