//! From what the user wrote to what the program needs: everything opened, checked and built before the first step.

use std::fs::File;
use std::sync::Arc;

use limbic_data::{Clip, LabelSet, Manifest, PromptCompiler, Split, Task, prompt};
use limbic_encoders::Modality;
use limbic_model::{Artifact, ArtifactConfig, InputConfig, Trainables};
use limbic_weights::Precision;

use crate::assembly::Assembly;
use crate::blueprint::{at_fault, blueprint, check_labels};
use crate::dataset::{Dataset, Questions, Sample};
use crate::feature_cache::FeatureCache;
use crate::features::{EncodedClip, FeatureReader, Quarantined};
use crate::objectives::Objectives;
use crate::origin::Origin;
use crate::run_dir::RunFile;
use crate::terms::Term;
use crate::trainer::Start;
use crate::{Batching, Metric, Recipe, RunDir, RunError};

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
    /// What it is trained for.
    pub objectives: Objectives,
    /// What is learnt from.
    pub train: Arc<Dataset>,
    /// What progress is judged on.
    pub validation: Dataset,
    /// Where features on call come from. The encoders are gone unless some are.
    pub(crate) cache: Option<Arc<FeatureCache>>,
    /// Keeps other processes from the run's folder.
    _lock: File,
}

impl Setup {
    /// Reads, checks and builds all that `recipe` names, on the first device, and opens the run's folder.
    ///
    /// # Errors
    /// Whatever cannot be used, before anything is trained.
    pub fn new(recipe: Recipe, start: &Start) -> anyhow::Result<Self> {
        let device = &start.devices[0].clone().without_autodiff();
        let say = start.say;
        let run_dir = RunDir::of(&recipe);
        if !recipe.data.manifest.is_file() {
            return Err(RunError::Data(format!(
                "`data.manifest` names {}, which is no file; make it with `limbic data synth` or `limbic data import`, \
                 or correct the path (taken from the folder you run limbic in)",
                recipe.data.manifest.display()
            ))
            .into());
        }
        let manifest = Manifest::read(&recipe.data.manifest)?;
        let mut run_file = RunFile::of(&recipe)?;
        let init = Origin::of(&recipe)?;
        let precision = recipe.decoder_precision(init.as_ref(), start.devices, start.suits)?;
        run_file.precision = Some(precision.to_string());
        if run_dir.exists() && !start.restart {
            run_dir.open(&recipe, &run_file)?;
        }
        let config = blueprint(&recipe, init.as_ref().map(|init| &init.config))?;
        let compiler = config.compiler().map_err(at_fault)?;
        for note in check_labels(&recipe, &manifest, config.labels.as_ref())? {
            say(&note);
        }

        // The model is built before clips are read: what the recipe got wrong shows at once.
        let texts = texts(&recipe, &manifest, &compiler, config.labels.as_ref());
        let assembly = Assembly {
            recipe: &recipe,
            config: &config,
            init: init.as_ref(),
            texts: &texts,
            precision,
        };
        let (mut artifact, trainables) = assembly.build(device)?;
        if precision != Precision::F32 {
            say(&format!(
                "the decoder's frozen weights are held in {precision}"
            ));
        }
        let positions = artifact.model.llama.config().max_position_embeddings;
        if recipe.data.max_tokens > positions {
            return Err(RunError::recipe(format!(
                "`data.max_tokens` is {}, but the decoder has {positions} positions; lower it to that",
                recipe.data.max_tokens
            )));
        }

        let reader = FeatureReader::new(&config, device, &recipe.cache)
            .map_err(|error| at_fault(format!("{error:#}")))?;
        let mut quarantined = Vec::new();
        let mut encoded = Vec::new();
        for split in [Split::Train, Split::Validation] {
            let mut clips = recipe.data.clips(&manifest, split);
            if split == Split::Validation && recipe.evaluation.every == 0 {
                clips.clear();
            }
            let without = manifest.split(split).len() - recipe.data.clips(&manifest, split).len();
            if without > 0 {
                say(&format!(
                    "{split}: {without} clips lack what `data.require` asks for"
                ));
            }
            let (clips, bad) = encode(&reader, &clips, split, recipe.data.max_bad, start)?;
            encoded.push(clips);
            quarantined.extend(bad);
        }
        if let Some(report) = reader.report() {
            say(&report.line());
            for problem in report.problems() {
                say(&problem);
            }
        }
        let [train, validation] = encoded.try_into().expect("two splits were encoded");
        assembly.standardise(&mut artifact.model, &train)?;

        let questions = Questions {
            tasks: &recipe.data.tasks,
            labels: config.labels.as_ref(),
            config: &config,
            compiler: &compiler,
            tokenizer: &artifact.tokenizer,
            vocabulary: artifact.model.llama.config().vocab_size,
            max_tokens: recipe.data.max_tokens,
            max_new_tokens: recipe.evaluation.max_new_tokens,
            captions: config.mask || config.alignment.is_some(),
            seed: recipe.seed,
        };
        let mut datasets = Vec::new();
        for (split, mut clips) in [(Split::Train, train), (Split::Validation, validation)] {
            keep_perceived_captions(&mut clips, &config.inputs);
            let read = clips.len();
            let (dataset, dropped) = Dataset::new(clips, &questions)?;
            if read > 0 {
                say(&format!(
                    "{split}: {} samples{}",
                    dataset.len(),
                    dropped.told(&recipe)
                ));
            }
            if dataset.is_empty() && (split == Split::Train || recipe.evaluation.every > 0) {
                return Err(RunError::Data(format!(
                    "{} leaves no {split} sample: wanted clips with `split: {split}` and an answer to one of `data.tasks`{}{}",
                    recipe.data.manifest.display(),
                    dropped.told(&recipe),
                    if split == Split::Train { "" } else { "; or set evaluation.every=0" },
                ))
                .into());
            }
            datasets.push(dataset);
        }
        let [mut train, validation] = datasets.try_into().expect("two datasets were made");
        if recipe.train.batching == Batching::Grouped {
            train = train.grouped(recipe.train.batch_size * recipe.train.accumulate);
        }
        let objectives = Objectives::new(
            &recipe.train.loss,
            &config,
            &artifact.tokenizer,
            &train,
            recipe.seed,
        )?;
        check_metric(&recipe, &config, &objectives, &validation)?;
        // A new run's folder appears when nothing is left to refuse: a corrected recipe is not another one.
        if start.restart {
            run_dir.delete()?;
        }
        run_dir.open(&recipe, &run_file)?;
        let lock = run_dir.lock()?;
        write_quarantine(&run_dir, &quarantined)?;
        Ok(Self {
            run_dir,
            trainables,
            objectives,
            train: Arc::new(train),
            validation,
            artifact,
            cache: reader.cache(),
            _lock: lock,
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

/// Refuses a metric that the validation split or the model cannot give, before the first evaluation finds out.
fn check_metric(
    recipe: &Recipe,
    config: &ArtifactConfig,
    objectives: &Objectives,
    validation: &Dataset,
) -> anyhow::Result<()> {
    let metric = recipe.evaluation.metric;
    if recipe.evaluation.every == 0 {
        return Ok(());
    }
    let has = |what: &dyn Fn(&Sample) -> bool| validation.samples().iter().any(what);
    let problem = match metric {
        Metric::Loss => {
            let last = objectives.weights(recipe.train.steps.saturating_sub(1));
            (!Term::ALL.iter().any(|term| last[*term] > 0.0))
                .then_some("`loss` is summed in the weights of the last step, which are all 0")
        }
        Metric::TextUar | Metric::HeadUar => {
            return check_labels_metric(recipe, config, validation);
        }
        Metric::ValenceCcc if !objectives.is_active(Term::Valence) => {
            Some("the model learns no valence (`model.valence`, `train.loss.valence_weight`)")
        }
        Metric::ValenceCcc if !has(&|sample| sample.valence().is_some()) => {
            Some("no validation clip has a valence")
        }
        Metric::Retrieval if !objectives.is_active(Term::Contrastive) => Some(
            "the model learns no contrast (`model.alignment`, `train.loss.contrastive_weight`)",
        ),
        Metric::Retrieval if !has(&|sample| objectives.is_pair(sample)) => {
            Some("no validation clip has both media and a caption")
        }
        Metric::ValenceCcc | Metric::Retrieval => None,
    };
    match problem {
        None => Ok(()),
        Some(problem) => Err(RunError::recipe(format!(
            "`evaluation.metric` cannot be had: {problem}; change that, or choose by another metric"
        ))),
    }
}

fn check_labels_metric(
    recipe: &Recipe,
    config: &ArtifactConfig,
    validation: &Dataset,
) -> anyhow::Result<()> {
    let metric = recipe.evaluation.metric;
    let asks = recipe
        .data
        .tasks
        .get(&Task::Emotion)
        .is_some_and(|weight| *weight > 0.0);
    let labelled = validation
        .samples()
        .iter()
        .any(|sample| sample.label.is_some());
    let problem = if !asks {
        "`data.tasks` gives `emotion` no weight"
    } else if !labelled {
        "no validation clip has a label"
    } else if metric == Metric::HeadUar && config.head.is_none() {
        "the model has no class head"
    } else if metric == Metric::TextUar && config.mute {
        "nothing teaches the model to answer in words"
    } else {
        return Ok(());
    };
    Err(RunError::recipe(format!(
        "`evaluation.metric` counts right labels, but {problem}; change that, or choose by loss"
    )))
}

fn encode(
    reader: &Arc<FeatureReader>,
    clips: &[&Clip],
    split: Split,
    max_bad: f64,
    start: &Start,
) -> anyhow::Result<(Vec<EncodedClip>, Vec<Quarantined>)> {
    if clips.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let say = start.say;
    let every = (clips.len() / 4).max(50);
    let progress = |done: usize| {
        if done.is_multiple_of(every) && done < clips.len() {
            say(&format!("{split}: {done} of {} clips encoded", clips.len()));
        }
    };
    let (encoded, bad) = reader.read_all(clips, max_bad, &progress, start.stop)?;
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

/// A model without eyes is not taught to tell what is seen, nor one without ears what is heard; nor is either from a clip
/// without pictures or sound.
fn keep_perceived_captions(clips: &mut [EncodedClip], inputs: &[InputConfig]) {
    for EncodedClip { clip, features } in clips {
        let perceives = |modality| {
            let mut inputs = inputs.iter().zip(features.iter());
            inputs
                .any(|(input, features)| input.encoder.modality() == modality && features.is_some())
        };
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
fn texts(
    recipe: &Recipe,
    manifest: &Manifest,
    compiler: &PromptCompiler,
    labels: Option<&LabelSet>,
) -> Vec<String> {
    let mut texts = compiler.texts();
    for clip in recipe.data.clips(manifest, Split::Train) {
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

#[cfg(test)]
mod tests {
    use limbic_encoders::Features;

    use super::*;

    #[test]
    fn what_a_clip_has_no_pictures_or_sound_for_is_not_told() {
        let inputs: Vec<InputConfig> = serde_yaml::from_str(
            "[{name: voice, placeholder: <voice>, encoder: {kind: log_mel, mel: {n_mels: 4}}}]",
        )
        .unwrap();
        let features = Features {
            length: 1,
            dim: 4,
            data: vec![0.0; 4],
        };
        let clip = |features: Option<Features>| EncodedClip {
            clip: Clip {
                seen: Some("a smile".into()),
                heard: Some("a laugh".into()),
                ..Clip::default()
            },
            features: vec![features.map(Into::into)],
        };
        let mut clips = [clip(Some(features)), clip(None)];
        keep_perceived_captions(&mut clips, &inputs);
        let [heard, silent] = clips.map(|it| (it.clip.seen, it.clip.heard));
        assert_eq!(heard, (None, Some("a laugh".into())));
        assert_eq!(silent, (None, None));
    }
}
