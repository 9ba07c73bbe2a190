//! The model of a run with its first values: a decoder from somewhere, seeded or inherited projectors and head, adapters.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use limbic_data::TextTokenizer;
use limbic_llama::{Llama, LlamaConfig};
use limbic_model::{
    Artifact, ArtifactConfig, DecoderSource, EmotionLlm, Part, Source, Trainables, decoder_hash,
    read_decoder,
};
use limbic_weights::Precision;

use crate::blueprint::at_fault;
use crate::features::EncodedClip;
use crate::origin::Origin;
use crate::recipe::DecoderRecipe;
use crate::reference::Reference;
use crate::statistics::statistics;
use crate::{Recipe, RunError};

/// What [`Setup`](crate::Setup) puts a model together from.
pub(crate) struct Assembly<'a> {
    pub(crate) recipe: &'a Recipe,
    /// Inputs, prompt, labels and head.
    pub(crate) config: &'a ArtifactConfig,
    /// The artifact it starts from.
    pub(crate) init: Option<&'a Origin>,
    /// What a new tokenizer learns from.
    pub(crate) texts: &'a [String],
    /// What the decoder's weights are held in.
    pub(crate) precision: Precision,
}

impl Assembly<'_> {
    /// The artifact as it stands before the first step, and what of it is trained.
    ///
    /// # Errors
    /// Parts that are missing, damaged, or do not go together.
    pub(crate) fn build(&self, device: &Device) -> anyhow::Result<(Artifact, Trainables)> {
        let Self { recipe, config, .. } = self;
        let init = self.origin(device)?;
        let (llama, tokenizer, folder) = self.decoder(init.as_ref(), device)?;
        let mut model = config
            .model()?
            .init(llama, recipe.seed, device)
            .map_err(at_fault)?;
        // From here on the model alone holds the decoder, which then goes as it is replaced.
        if let Some(init) = init {
            model = take_over(model, config, &init)?;
        }

        if recipe.merges(self.init) {
            model.llama = model.llama.merge_lora();
        }
        model.llama = model.llama.hold_in(self.precision);
        if let Some(lora) = &recipe.model.get().lora {
            model.llama = model.llama.with_lora(lora, recipe.seed).map_err(at_fault)?;
        }
        let parts: Vec<Part> = recipe.train.learning_rate.keys().copied().collect();
        let trainables = Trainables::of(&model, &parts);
        let had_fusions = !recipe.model.get().fusions.is_empty()
            || self
                .init
                .is_some_and(|init| !init.config.fusions.is_empty());
        check_parts(&parts, &trainables, config, had_fusions)?;
        self.check_new_heads(&parts)?;

        let source = if recipe.writes_decoder(self.init) {
            DecoderSource::Own
        } else {
            base(&folder, device)?
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

    /// The artifact it starts from.
    fn origin(&self, device: &Device) -> anyhow::Result<Option<Artifact>> {
        let precision = self.recipe.origin_precision(self.init, self.precision);
        let read = |init: &Origin| init.read(precision, device);
        self.init.map(read).transpose()
    }

    /// The decoder with its tokenizer and folder.
    fn decoder(
        &self,
        init: Option<&Artifact>,
        device: &Device,
    ) -> anyhow::Result<(Llama, TextTokenizer, PathBuf)> {
        let Self { recipe, texts, .. } = self;
        let decoder = recipe.model.get().decoder.as_ref().map(Reference::get);
        match (decoder, init) {
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
                let (llama, tokenizer) =
                    read_decoder(&pretrained.folder, self.precision, device).map_err(at_fault)?;
                Ok((llama, tokenizer, pretrained.folder.clone()))
            }
            (Some(DecoderRecipe::Scratch(shape)), None) => {
                let tokenizer = TextTokenizer::train(texts, shape.vocab_size).map_err(at_fault)?;
                let config = LlamaConfig {
                    bos_token_id: Some(tokenizer.bos),
                    eos_token_ids: vec![tokenizer.eos],
                    ..shape.shape(tokenizer.vocab_size())
                };
                config.validate().map_err(at_fault)?;
                let llama = limbic_weights::seed(config.init(device), recipe.seed);
                Ok((llama, tokenizer, PathBuf::new()))
            }
        }
    }

    /// Refuses a common space or a mask that is new and would stay as it was drawn.
    fn check_new_heads(&self, parts: &[Part]) -> anyhow::Result<()> {
        let (config, init) = (self.config, self.init.map(|init| &init.config));
        let alignment = config.alignment.is_some()
            && init.is_none_or(|init| init.alignment != config.alignment);
        let mask = config.mask && init.is_none_or(|init| !init.mask);
        let (key, what) = match (alignment, mask) {
            (true, _) => ("contrastive_weight", "common space of clips and captions"),
            (false, true) => ("masked_weight", "mask of hidden tokens"),
            (false, false) => return Ok(()),
        };
        if parts.contains(&Part::Head) {
            return Ok(());
        }
        Err(RunError::recipe(format!(
            "`train.loss.{key}` is above 0 and the {what} is new, but `train.learning_rate` does not name `head`, which \
             it is part of, so it would stay as it was drawn; add `train.learning_rate.head`"
        )))
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
        let measured = |index: usize| {
            statistics(train, index)?.ok_or_else(|| {
                anyhow::Error::from(RunError::Data(format!(
                    "no training clip has input `{}`, so its features cannot be standardised; \
                     leave it out of `inputs`",
                    self.config.inputs[index].name
                )))
            })
        };
        let config = self.config;
        for (index, input) in config.inputs.iter().enumerate() {
            let learnt = self.init.is_some_and(|init| {
                let mut old = init.config.inputs.iter();
                old.any(|old| old.name == input.name && old.projector.is_some())
            });
            let standardise = input.projector.as_ref().is_some_and(|it| it.standardise());
            if standardise && !learnt {
                let (mean, std) = measured(index)?;
                let projector = model.projectors[index].take();
                model.projectors[index] =
                    projector.map(|projector| projector.with_statistics(mean, std));
            }
        }
        for (index, fused) in config.fusions.iter().enumerate() {
            let learnt = self.init.is_some_and(|init| {
                let mut old = init.config.fusions.iter();
                old.any(|old| old.name == fused.name)
            });
            if learnt || !fused.fusion.standardise() {
                continue;
            }
            for (place, source) in fused.resolve(&config.inputs)?.into_iter().enumerate() {
                // Words have no statistics: what the decoder reads is as it should be.
                if let Source::Input(input) = source {
                    let (mean, std) = measured(input)?;
                    let fusion = model.fusions[index].clone();
                    model.fusions[index] = fusion.with_statistics(place, mean, std);
                }
            }
        }
        Ok(())
    }
}

/// Projectors of inputs that the start artifact has too, likewise fusions, and its heads where they are built alike and
/// mean the same.
fn take_over(
    mut model: EmotionLlm,
    config: &ArtifactConfig,
    init: &Artifact,
) -> anyhow::Result<EmotionLlm> {
    let other = |what: &str, name: &str| {
        RunError::recipe(format!(
            "{what} than in `init_from`, so what that learnt is of no use to it; build it alike or give `{name}` \
             another name"
        ))
    };
    for (index, input) in config.inputs.iter().enumerate() {
        let mut all = init.config.inputs.iter();
        if let Some(old) = all.position(|other| other.name == input.name) {
            let built = &init.config.inputs[old];
            // Where there was none, this stage brings the first.
            let same_projector = built.projector.is_none() || built.projector == input.projector;
            if built.encoder != input.encoder || !same_projector {
                let what = format!("input `{}` has another encoder or projector", input.name);
                return Err(other(&what, &input.name));
            }
            if built.projector.is_some() {
                model.projectors[index].clone_from(&init.model.projectors[old]);
            }
        }
    }
    for (index, fused) in config.fusions.iter().enumerate() {
        let mut all = init.config.fusions.iter();
        if let Some(old) = all.position(|other| other.name == fused.name) {
            let built = &init.config.fusions[old];
            let encoder = |config: &ArtifactConfig, name: &String| {
                let mut inputs = config.inputs.iter();
                inputs
                    .find(|input| input.name == *name)
                    .map(|input| input.encoder.clone())
            };
            let same_encoders = built
                .sources
                .iter()
                .all(|name| encoder(config, name) == encoder(&init.config, name));
            if (&built.sources, &built.fusion) != (&fused.sources, &fused.fusion) || !same_encoders
            {
                let what = format!("fusion `{}` is another, or reads others,", fused.name);
                return Err(other(&what, &fused.name));
            }
            model.fusions[index].clone_from(&init.model.fusions[old]);
        }
    }
    if init.config.head == config.head && init.config.labels == config.labels {
        model.head.clone_from(&init.model.head);
    }
    if init.config.valence == config.valence {
        model.valence.clone_from(&init.model.valence);
    }
    if init.config.alignment == config.alignment {
        model.alignment.clone_from(&init.model.alignment);
    }
    if init.config.mask == config.mask {
        model.mask.clone_from(&init.model.mask);
    }
    Ok(model)
}

fn check_parts(
    parts: &[Part],
    trainables: &Trainables,
    config: &ArtifactConfig,
    had_fusions: bool,
) -> anyhow::Result<()> {
    for part in parts {
        // `inputs=[transcript]` turns every projector off, and fewer inputs a fusion; that is what was asked for.
        let turned_off = match part {
            Part::Projectors => config.inputs.is_empty(),
            Part::Fusions => had_fusions && config.fusions.is_empty(),
            _ => false,
        };
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
             wanted some of decoder, lora, projectors, fusions, head",
        ));
    }
    Ok(())
}

/// A decoder that the run leaves as it was, by folder and hash.
pub(crate) fn base(folder: &Path, device: &Device) -> anyhow::Result<DecoderSource> {
    Ok(DecoderSource::Base {
        path: folder.to_path_buf(),
        tensors_sha256: decoder_hash(folder, device)?,
    })
}
