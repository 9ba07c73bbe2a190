//! The model of a run with its first values: a decoder from somewhere, seeded or inherited projectors and head, adapters.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use limbic_data::TextTokenizer;
use limbic_llama::{Llama, LlamaConfig};
use limbic_model::{
    Artifact, ArtifactConfig, DecoderSource, EmotionLlm, Part, Trainables, read_decoder,
};
use limbic_weights::Weights;

use crate::blueprint::at_fault;
use crate::features::{EncodedClip, statistics};
use crate::recipe::DecoderRecipe;
use crate::reference::Reference;
use crate::{Recipe, RunError};

/// What [`Setup`](crate::Setup) puts a model together from.
pub(crate) struct Assembly<'a> {
    pub(crate) recipe: &'a Recipe,
    /// Inputs, prompt, labels and head.
    pub(crate) config: &'a ArtifactConfig,
    /// The artifact it starts from.
    pub(crate) init: Option<&'a Artifact>,
    /// What a new tokenizer learns from.
    pub(crate) texts: &'a [String],
}

impl Assembly<'_> {
    /// The artifact as it stands before the first step, and what of it is trained.
    ///
    /// # Errors
    /// Parts that are missing, damaged, or do not go together.
    pub(crate) fn build(&self, device: &Device) -> anyhow::Result<(Artifact, Trainables)> {
        let Self { recipe, config, .. } = self;
        let (llama, tokenizer, folder) = decoder(recipe, self.init, self.texts, device)?;
        let mut model = config.model()?.init(llama, recipe.seed, device);
        if let Some(init) = self.init {
            model = take_over(model, config, init)?;
        }

        // New adapters stand on the sum of the old ones and their decoder.
        let merged = recipe.model.lora.is_some() && model.llama.lora().is_some();
        if merged {
            model.llama = model.llama.merge_lora();
        }
        if let Some(lora) = &recipe.model.lora {
            model.llama = model.llama.with_lora(lora, recipe.seed).map_err(at_fault)?;
        }
        let parts: Vec<Part> = recipe.train.learning_rate.keys().copied().collect();
        let trainables = Trainables::of(&model, &parts);
        check_parts(&parts, &trainables, config)?;

        let decoder = recipe.model.decoder.as_ref().map(Reference::get);
        let changed = merged
            || parts.contains(&Part::Decoder)
            || matches!(decoder, Some(DecoderRecipe::Scratch(_)));
        let source = if changed {
            DecoderSource::Own
        } else {
            base(&model, &folder)
        };
        let artifact = Artifact {
            config: ArtifactConfig {
                decoder: source,
                ..(*config).clone()
            },
            model,
            tokenizer,
            decoder: folder,
        };
        Ok((artifact, trainables))
    }

    /// Measures the features of inputs that are new; the others keep the statistics their projectors learnt with.
    ///
    /// # Errors
    /// An input that no training clip has.
    pub(crate) fn standardise(
        &self,
        model: &mut EmotionLlm,
        train: &[EncodedClip],
    ) -> anyhow::Result<()> {
        for (index, input) in self.config.inputs.iter().enumerate() {
            let is_new = self
                .init
                .is_none_or(|init| init.config.inputs.iter().all(|old| old.name != input.name));
            if input.projector.standardise() && is_new {
                let (mean, std) = statistics(train, index).ok_or_else(|| {
                    RunError::Data(format!(
                        "no training clip has input `{}`, so its features cannot be standardised; \
                         leave it out of `inputs`",
                        input.name
                    ))
                })?;
                let projector = model.projectors[index].clone();
                model.projectors[index] = projector.with_statistics(mean, std);
            }
        }
        Ok(())
    }
}

fn decoder(
    recipe: &Recipe,
    init: Option<&Artifact>,
    texts: &[String],
    device: &Device,
) -> anyhow::Result<(Llama, TextTokenizer, PathBuf)> {
    match (
        recipe.model.decoder.as_ref().map(|decoder| decoder.get()),
        init,
    ) {
        (None, Some(init)) => Ok((
            init.model.llama.clone(),
            init.tokenizer.clone(),
            init.decoder.clone(),
        )),
        (Some(_), Some(_)) => Err(RunError::recipe(
            "`model.decoder` and `init_from` are both set; the decoder comes from `init_from`, so remove the other",
        )),
        (None, None) => Err(RunError::recipe(
            "`model.decoder` is missing; name a file of configs/backbones, or a run under `init_from`",
        )),
        (Some(DecoderRecipe::Pretrained(pretrained)), None) => {
            if pretrained.shape.is_some() {
                pretrained.config().map_err(at_fault)?;
            }
            let (llama, tokenizer) = read_decoder(&pretrained.folder, device).map_err(at_fault)?;
            Ok((llama, tokenizer, pretrained.folder.clone()))
        }
        (Some(DecoderRecipe::Scratch(shape)), None) => {
            let tokenizer = TextTokenizer::train(texts, shape.vocab_size).map_err(at_fault)?;
            let small = LlamaConfig::small(
                // A small corpus may hold fewer pairs than were asked for.
                tokenizer.vocab_size(),
                shape.hidden_size,
                shape.num_hidden_layers,
                shape.num_attention_heads,
            );
            let config = LlamaConfig {
                intermediate_size: shape.intermediate_size,
                num_key_value_heads: shape.num_key_value_heads,
                max_position_embeddings: shape.max_position_embeddings,
                bos_token_id: Some(tokenizer.bos),
                eos_token_ids: vec![tokenizer.eos],
                ..small
            };
            config.validate().map_err(at_fault)?;
            let llama = limbic_weights::seed(config.init(device), recipe.seed);
            Ok((llama, tokenizer, PathBuf::new()))
        }
    }
}

/// Projectors of inputs that the start artifact has too, and its head where the labels are the same.
fn take_over(
    mut model: EmotionLlm,
    config: &ArtifactConfig,
    init: &Artifact,
) -> anyhow::Result<EmotionLlm> {
    for (index, input) in config.inputs.iter().enumerate() {
        let mut all = init.config.inputs.iter();
        if let Some(old) = all.position(|other| other.name == input.name) {
            let built = &init.config.inputs[old];
            if (&built.encoder, &built.projector) != (&input.encoder, &input.projector) {
                return Err(RunError::recipe(format!(
                    "input `{}` has another encoder or projector than in `init_from`, so what that learnt is of no use to it; \
                     build it alike or give it another name",
                    input.name
                )));
            }
            let weights = Weights::collect(&init.model.projectors[old]);
            let projector = model.projectors[index].clone();
            model.projectors[index] = limbic_weights::load(projector, &weights)?;
        }
    }
    if init.config.head == config.head && init.config.labels == config.labels {
        model.head.clone_from(&init.model.head);
    }
    Ok(model)
}

fn check_parts(
    parts: &[Part],
    trainables: &Trainables,
    config: &ArtifactConfig,
) -> anyhow::Result<()> {
    for part in parts {
        // `inputs=[transcript]` turns every projector off; that is what was asked for.
        let turned_off = *part == Part::Projectors && config.inputs.is_empty();
        if trainables.num_values_of(*part) == 0 && !turned_off {
            let name = serde_yaml::to_string(part)?;
            return Err(RunError::recipe(format!(
                "`train.learning_rate` names `{}`, of which this model has none; remove it, or add it under `model`",
                name.trim()
            )));
        }
    }
    if trainables.num_values() == 0 {
        return Err(RunError::recipe(
            "`train.learning_rate` names no part that this model has in use, so nothing would be trained; \
             wanted some of decoder, lora, projectors, head",
        ));
    }
    Ok(())
}

/// A decoder that the run leaves as it was, by folder and hash.
fn base(model: &EmotionLlm, folder: &Path) -> DecoderSource {
    let weights = Weights::collect_only(&model.llama, |name| Part::of(name) == Some(Part::Decoder));
    DecoderSource::Base {
        path: folder.to_path_buf(),
        sha256: weights.sha256(),
    }
}
