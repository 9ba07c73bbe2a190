//! From what the user wrote to what the program needs: everything opened, checked and built before the first step.

use std::path::{Path, PathBuf};

use anyhow::Context;
use burn::tensor::Device;
use limbic_data::{Clip, LabelSet, Manifest, PromptCompiler, Split, Task, TextTokenizer, prompt};
use limbic_encoders::Modality;
use limbic_llama::{Llama, LlamaConfig};
use limbic_model::{
    Artifact, ArtifactConfig, DecoderSource, EmotionLlm, FORMAT, InputConfig, Part, Trainables,
    read_decoder,
};
use limbic_weights::{Weights, hex_digest};

use crate::dataset::{Dataset, Questions};
use crate::features::{EncodedClip, FeatureReader, Quarantined, statistics};
use crate::log::Say;
use crate::recipe::DecoderRecipe;
use crate::reference::Reference;
use crate::run_dir::RunFile;
use crate::{Recipe, RunDir, RunError};

/// The name by which `inputs:` of a recipe calls the spoken words.
const TRANSCRIPT: &str = "transcript";

/// A run ready to start.
pub struct Setup {
    /// The resolved recipe.
    pub recipe: Recipe,
    /// Where it lies.
    pub run_dir: RunDir,
    /// The model with its first values, on the plain device.
    pub artifact: Artifact,
    /// What is trained.
    pub trainables: Trainables,
    /// What is learnt from.
    pub train: Dataset,
    /// What progress is judged on.
    pub validation: Dataset,
}

impl Setup {
    /// Reads, checks and builds all that `recipe` names, on `device`, and opens the run's folder.
    ///
    /// # Errors
    /// Whatever cannot be used, before anything is trained.
    pub fn new(recipe: Recipe, device: &Device, say: &Say) -> anyhow::Result<Self> {
        let run_dir = RunDir::of(&recipe);
        let manifest = Manifest::read(&recipe.data.manifest)?;
        let init = recipe.init_from.as_deref().map(start_folder).transpose()?;
        let run_file = run_file(&recipe, init.as_deref())?;
        if run_dir.exists() {
            run_dir.open(&recipe, &run_file)?;
        }

        let init = match &init {
            Some(folder) => Some(
                Artifact::read(folder, device)
                    .with_context(|| format!("`init_from` names {}", folder.display()))?,
            ),
            None => None,
        };
        let config = artifact_config(&recipe, init.as_ref())?;
        let compiler = config.compiler().map_err(at_fault)?;
        check_labels(&recipe, &manifest, config.labels.as_ref())?;

        let reader = FeatureReader::new(&config.inputs, device)
            .map_err(|error| at_fault(format!("{error:#}")))?;
        let mut quarantined = Vec::new();
        let mut encoded = Vec::new();
        for split in [Split::Train, Split::Validation] {
            let clips = recipe.data.clips(&manifest, split);
            let (clips, bad) = encode(&reader, &clips, split, recipe.data.max_bad, say)?;
            encoded.push(clips);
            quarantined.extend(bad);
        }
        let [train, validation] = encoded.try_into().expect("two splits were encoded");

        let texts = texts(&manifest, &compiler, config.labels.as_ref());
        let (llama, tokenizer, decoder) = decoder(&recipe, init.as_ref(), &texts, device)?;
        let mut model = config.model()?.init(llama, recipe.seed, device);
        if let Some(init) = &init {
            model = take_over(model, &config, init)?;
        }
        for (index, input) in config.inputs.iter().enumerate() {
            let known = init.as_ref().is_some_and(|init| {
                init.config
                    .inputs
                    .iter()
                    .any(|other| other.name == input.name)
            });
            if input.projector.standardise() && !known {
                let (mean, std) = statistics(&train, index).ok_or_else(|| {
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
        // New adapters stand on the sum of the old ones and their decoder.
        let merged = recipe.model.lora.is_some() && model.llama.lora().is_some();
        if merged {
            model.llama = model.llama.merge_lora();
        }
        if let Some(lora) = &recipe.model.lora {
            model.llama = model.llama.with_lora(lora, recipe.seed).map_err(at_fault)?;
        }
        let positions = model.llama.config().max_position_embeddings;
        if recipe.data.max_tokens > positions {
            return Err(RunError::recipe(format!(
                "`data.max_tokens` is {}, but the decoder has {positions} positions; lower it to that",
                recipe.data.max_tokens
            )));
        }
        let parts: Vec<Part> = recipe.train.learning_rate.keys().copied().collect();
        let trainables = Trainables::of(&model, &parts);
        check_parts(&parts, &trainables, &config)?;

        let questions = Questions {
            tasks: &recipe.data.tasks,
            labels: config.labels.as_ref(),
            compiler: &compiler,
            tokenizer: &tokenizer,
            transcript: config.transcript,
            max_tokens: recipe.data.max_tokens,
            max_new_tokens: recipe.evaluation.max_new_tokens,
            seed: recipe.seed,
        };
        let mut datasets = Vec::new();
        for (split, mut clips) in [(Split::Train, train), (Split::Validation, validation)] {
            keep_perceived_captions(&mut clips, &config.inputs);
            let (dataset, dropped) = Dataset::new(clips, &questions)?;
            say(&format!(
                "{split}: {} samples ({} clips without an answer to any task, {} longer than data.max_tokens={})",
                dataset.len(),
                dropped.unanswered,
                dropped.too_long,
                recipe.data.max_tokens
            ));
            datasets.push(dataset);
        }
        let [train, validation] = datasets.try_into().expect("two datasets were made");
        if train.is_empty() {
            return Err(RunError::Data(format!(
                "{} leaves no training sample: wanted clips with `split: train` and an answer to one of `data.tasks`",
                recipe.data.manifest.display()
            ))
            .into());
        }
        if validation.is_empty() && recipe.evaluation.every > 0 {
            return Err(RunError::Data(format!(
                "{} leaves no validation sample, but `evaluation.every` is {}; \
                 add clips with `split: validation` or set evaluation.every=0",
                recipe.data.manifest.display(),
                recipe.evaluation.every
            ))
            .into());
        }
        let changed = merged
            || recipe.train.learning_rate.contains_key(&Part::Decoder)
            || matches!(
                recipe.model.decoder.as_ref().map(Reference::get),
                Some(DecoderRecipe::Scratch(_))
            );
        let source = if changed {
            DecoderSource::Own
        } else {
            base(&model, &decoder)
        };
        // A new run's folder appears when nothing is left to refuse: a corrected recipe is not another one.
        run_dir.open(&recipe, &run_file)?;
        write_quarantine(&run_dir, &quarantined)?;
        Ok(Self {
            run_dir,
            trainables,
            train,
            validation,
            artifact: Artifact {
                config: ArtifactConfig {
                    decoder: source,
                    ..config
                },
                model,
                tokenizer,
                decoder,
            },
            recipe,
        })
    }

    /// Tasks that some weight is given to.
    pub fn tasks(&self) -> Vec<Task> {
        self.recipe
            .data
            .tasks
            .iter()
            .filter(|(_, weight)| **weight > 0.0)
            .map(|(task, _)| *task)
            .collect()
    }
}

/// The artifact that `init_from` names: the folder itself, or `final` of a finished run.
fn start_folder(named: &Path) -> anyhow::Result<PathBuf> {
    let finished = named.join("final");
    if finished.is_dir() {
        return Ok(finished);
    }
    if named.join("mm").is_dir() {
        return Ok(named.to_path_buf());
    }
    let why = if named.join("recipe.yaml").is_file() {
        "that run is not finished; train it to its end first"
    } else {
        "there is no run or artifact there; train it first, for example `limbic train recipes/quickstart/stage1.yaml`"
    };
    Err(RunError::recipe(format!(
        "`init_from` names {}: {why}",
        named.display()
    )))
}

fn run_file(recipe: &Recipe, init: Option<&Path>) -> anyhow::Result<RunFile> {
    let digest = |path: &Path| -> anyhow::Result<String> {
        let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
        Ok(hex_digest(&bytes))
    };
    Ok(RunFile {
        limbic: env!("CARGO_PKG_VERSION").to_string(),
        manifest_sha256: digest(&recipe.data.manifest)?,
        init_sha256: init
            .map(|folder| digest(&folder.join("MANIFEST.json")))
            .transpose()?,
        result: None,
    })
}

/// What the model is, from the recipe and, where it is silent, from the artifact it starts from.
fn artifact_config(recipe: &Recipe, init: Option<&Artifact>) -> anyhow::Result<ArtifactConfig> {
    let init = init.map(|init| &init.config);
    let all: Vec<InputConfig> = if recipe.model.inputs.is_empty() {
        init.map(|init| init.inputs.clone()).unwrap_or_default()
    } else {
        let built = recipe.model.inputs.iter().map(|input| InputConfig {
            name: input.name.clone(),
            placeholder: input.placeholder.clone(),
            encoder: input.encoder.get().clone(),
            projector: input.projector.clone(),
            frames: input.frames,
            crop: input.crop,
        });
        built.collect()
    };
    for (index, input) in all.iter().enumerate() {
        input.check().map_err(at_fault)?;
        if input.name == TRANSCRIPT || all[..index].iter().any(|other| other.name == input.name) {
            return Err(RunError::recipe(format!(
                "`model.inputs`: the name `{}` is taken; give each input one of its own",
                input.name
            )));
        }
    }
    let known: Vec<&str> = all
        .iter()
        .map(|input| input.name.as_str())
        .chain([TRANSCRIPT])
        .collect();
    let used = match &recipe.inputs {
        None => known.iter().map(|name| name.to_string()).collect(),
        Some(used) => used.clone(),
    };
    if let Some(unknown) = used.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(RunError::recipe(format!(
            "`inputs` names `{unknown}`; the model has {}",
            known.join(", ")
        )));
    }
    if used.is_empty() {
        return Err(RunError::recipe("`inputs` is empty; wanted at least one"));
    }
    let (inputs, unused): (Vec<_>, Vec<_>) = all
        .into_iter()
        .partition(|input| used.contains(&input.name));
    let mut prompt = match (&recipe.prompt, init) {
        (Some(prompt), _) => prompt.get().clone(),
        (None, Some(init)) => init.prompt.clone(),
        (None, None) => {
            return Err(RunError::recipe(
                "`prompt` is missing; name a file of configs/prompts",
            ));
        }
    };
    // What the model never perceives has no place in its prompts.
    prompt
        .template
        .retain(|line| !unused.iter().any(|input| line.contains(&input.placeholder)));
    let labels = match (&recipe.labels, init) {
        (Some(labels), _) => Some(labels.get().clone()),
        (None, init) => init.and_then(|init| init.labels.clone()),
    };
    let head = recipe
        .model
        .head
        .clone()
        .or_else(|| init.and_then(|init| init.head.clone()));
    if head.is_some() && labels.is_none() {
        return Err(RunError::recipe(
            "`model.head` needs `labels`; name a file of configs/labels",
        ));
    }
    Ok(ArtifactConfig {
        format: FORMAT,
        run: recipe.name.clone(),
        decoder: DecoderSource::Own,
        inputs,
        transcript: used.iter().any(|name| name == TRANSCRIPT),
        prompt,
        labels,
        head,
    })
}

fn check_labels(
    recipe: &Recipe,
    manifest: &Manifest,
    labels: Option<&LabelSet>,
) -> anyhow::Result<()> {
    let asks_for_labels = recipe
        .data
        .tasks
        .get(&Task::Emotion)
        .is_some_and(|weight| *weight > 0.0);
    let Some(labels) = labels else {
        if asks_for_labels {
            return Err(RunError::recipe(
                "task `emotion` needs `labels`; name a file of configs/labels",
            ));
        }
        return Ok(());
    };
    let known = |clip: &&Clip| {
        clip.emotion
            .as_ref()
            .is_some_and(|emotion| labels.index(emotion).is_some())
    };
    let labelled = manifest.clips.iter().filter(|clip| clip.emotion.is_some());
    if asks_for_labels
        && labelled.clone().count() > 0
        && !manifest.clips.iter().any(|clip| known(&clip))
    {
        let seen: Vec<&str> = labelled
            .filter_map(|clip| clip.emotion.as_deref())
            .take(3)
            .collect();
        return Err(RunError::Data(format!(
            "no clip of {} has an emotion of label set `{}` ({}); the manifest says for example {}",
            recipe.data.manifest.display(),
            labels.name,
            labels.names().join(", "),
            seen.join(", ")
        ))
        .into());
    }
    Ok(())
}

fn encode(
    reader: &FeatureReader,
    clips: &[&Clip],
    split: Split,
    max_bad: f64,
    say: &Say,
) -> anyhow::Result<(Vec<EncodedClip>, Vec<Quarantined>)> {
    let every = (clips.len() / 4).max(50);
    let progress = |done: usize| {
        if done.is_multiple_of(every) && done < clips.len() {
            say(&format!("{split}: {done} of {} clips encoded", clips.len()));
        }
    };
    let (encoded, bad) = reader.read_all(clips, max_bad, &progress)?;
    for clip in &bad {
        say(&format!(
            "{split}: {} is quarantined ({}): {}",
            clip.id, clip.reason, clip.detail
        ));
    }
    say(&format!(
        "{split}: {} clips encoded, {} quarantined",
        encoded.len(),
        bad.len()
    ));
    Ok((encoded, bad))
}

/// A model without eyes is not taught to tell what is seen, nor one without ears what is heard.
fn keep_perceived_captions(clips: &mut [EncodedClip], inputs: &[InputConfig]) {
    let perceives = |modality| {
        inputs
            .iter()
            .any(|input| input.encoder.modality() == modality)
    };
    for EncodedClip { clip, .. } in clips {
        clip.seen = clip.seen.take().filter(|_| perceives(Modality::Video));
        clip.heard = clip.heard.take().filter(|_| perceives(Modality::Audio));
    }
}

fn write_quarantine(run_dir: &RunDir, quarantined: &[Quarantined]) -> anyhow::Result<()> {
    let mut text = String::new();
    for clip in quarantined {
        text += &serde_json::to_string(clip)?;
        text.push('\n');
    }
    run_dir.write_file("quarantine.jsonl", &text)
}

/// Every text of the training split and of the prompts, in a fixed order: what a new tokenizer learns from.
fn texts(manifest: &Manifest, compiler: &PromptCompiler, labels: Option<&LabelSet>) -> Vec<String> {
    let mut texts = compiler.texts();
    for clip in manifest.split(Split::Train) {
        texts.extend(clip.transcript.clone());
        for task in [Task::Describe, Task::Reason] {
            texts.extend(prompt::answer(task, clip, None));
        }
    }
    let names = labels.map(LabelSet::names).unwrap_or_default();
    // Answers begin with a space.
    texts.extend(names.iter().map(|name| format!(" {name}")));
    texts
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
            let (llama, tokenizer) = read_decoder(&pretrained.folder, device)?;
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
        let old = init
            .config
            .inputs
            .iter()
            .position(|other| other.name == input.name);
        if let Some(old) = old {
            let weights = Weights::collect(&init.model.projectors[old]);
            let projector = model.projectors[index].clone();
            model.projectors[index] = limbic_weights::load(projector, &weights).map_err(|error| {
                RunError::recipe(format!(
                    "input `{}` is not built as in `init_from`; build it alike or give it another name: {error}",
                    input.name
                ))
            })?;
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

/// What a library refuses here, the recipe asked for.
fn at_fault(error: impl std::fmt::Display) -> anyhow::Error {
    RunError::recipe(error.to_string())
}
