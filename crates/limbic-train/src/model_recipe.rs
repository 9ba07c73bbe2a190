//! The model that a [`ModelRecipe`] describes, before there are any weights.

use std::path::Path;

use burn::tensor::Device;
use limbic_llama::LlamaConfig;
use limbic_model::{EmotionLlm, EmotionLlmConfig, FusedConfig, InputConfig};

use crate::RunError;
use crate::blueprint::at_fault;
use crate::reading::{explain, resolve_model};
use crate::recipe::{DecoderRecipe, ModelRecipe, ScratchDecoder};
use crate::reference::Reference;

impl ModelRecipe {
    /// Reads a file of configs/models and the files that it names.
    ///
    /// # Errors
    /// [`RunError::Recipe`] with every problem found, each with its place.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| RunError::recipe(format!("{}: {error}", path.display())))?;
        let mut model: Self = serde_yaml::from_str(&text)
            .map_err(|error| RunError::recipe(explain(path, &text, &error)))?;
        let problems: Vec<String> = resolve_model(&mut model)
            .into_iter()
            .filter_map(Result::err)
            .collect();
        if problems.is_empty() {
            Ok(model)
        } else {
            Err(RunError::Recipe(problems).into())
        }
    }

    /// The model with shapes and without weights: what can be counted, or named, before anything is downloaded. Its
    /// decoder has the `shape` of the recipe, and adapters have their first values. `classes` is the number of labels,
    /// for a head.
    ///
    /// # Errors
    /// Parts that do not go together; a pretrained decoder without `shape`.
    pub fn blank(&self, classes: usize, device: &Device) -> anyhow::Result<EmotionLlm> {
        let config = EmotionLlmConfig {
            inputs: self.inputs(),
            fusions: self.fusions(),
            head: self.head.clone().map(|head| (head, classes)),
            valence: self.valence.clone(),
            alignment: self.alignment.clone(),
            mask: false,
        };
        for input in &config.inputs {
            input.check().map_err(at_fault)?;
        }
        let llama = self.decoder_shape()?.init(device);
        let llama = match &self.lora {
            Some(lora) => llama.with_lora(lora, 0).map_err(at_fault)?,
            None => llama,
        };
        config.init_blank(llama, device).map_err(at_fault)
    }

    fn decoder_shape(&self) -> anyhow::Result<LlamaConfig> {
        match self.decoder.as_ref().map(Reference::get) {
            Some(DecoderRecipe::Pretrained(pretrained)) => {
                pretrained.shape.clone().ok_or_else(|| {
                    RunError::recipe(format!(
                        "the decoder in {} has no `shape`, so nothing is known of it before its weights are read",
                        pretrained.folder.display()
                    ))
                })
            }
            Some(DecoderRecipe::Scratch(scratch)) => Ok(scratch.shape(scratch.vocab_size)),
            None => Err(RunError::recipe(
                "`decoder` is missing; name a file of configs/backbones",
            )),
        }
    }

    /// The inputs as the model has them.
    pub(crate) fn inputs(&self) -> Vec<InputConfig> {
        let built = self.inputs.iter().map(|input| InputConfig {
            name: input.name.clone(),
            placeholder: placeholder(&input.placeholder, &input.name),
            encoder: input.encoder.get().clone(),
            projector: input.projector.clone(),
            frames: input.frames,
            crop: input.crop,
        });
        built.collect()
    }

    /// The fusions as the model has them.
    pub(crate) fn fusions(&self) -> Vec<FusedConfig> {
        let built = self.fusions.iter().map(|fused| FusedConfig {
            name: fused.name.clone(),
            placeholder: placeholder(&fused.placeholder, &fused.name),
            sources: fused.sources.clone(),
            fusion: fused.fusion.clone(),
        });
        built.collect()
    }
}

impl ScratchDecoder {
    /// The decoder's shape with a tokenizer of so many tokens: a small corpus may hold fewer than were asked for.
    pub(crate) fn shape(&self, vocab_size: usize) -> LlamaConfig {
        LlamaConfig {
            intermediate_size: self.intermediate_size,
            num_key_value_heads: self.num_key_value_heads,
            max_position_embeddings: self.max_position_embeddings,
            ..LlamaConfig::small(
                vocab_size,
                self.hidden_size,
                self.num_hidden_layers,
                self.num_attention_heads,
            )
        }
    }
}

fn placeholder(given: &Option<String>, name: &str) -> String {
    given.clone().unwrap_or_else(|| format!("<{name}>"))
}
