//! A finished model put to use: scored on a split, or asked about one clip.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use burn::tensor::Device;
use limbic_data::{Clip, LabelSet, Manifest, Split, Task};
use limbic_eval::{Bootstrap, Regression, Scores, bootstrap, majority};
use limbic_llama::Sampling;
use limbic_model::{Artifact, ArtifactConfig};
use limbic_weights::Precision;
use serde::Serialize;

use crate::blueprint::at_fault;
use crate::dataset::{Dataset, Drawn, Dropped, Questions, Sample};
use crate::evaluate::{Evaluator, Prediction, Scored};
use crate::features::{EncodedClip, FeatureReader, Quarantined};
use crate::log::Say;
use crate::precision::finished_precision;
use crate::recipe::{CacheRecipe, EvaluationRecipe};
use crate::replicas::Replicas;
use crate::{RunDir, RunError};

/// A model that can be asked.
pub struct Model {
    /// What it is.
    pub artifact: Artifact,
    /// Where it lies.
    pub folder: PathBuf,
    /// The run it came from, where it lies in one.
    pub run: Option<RunDir>,
    settings: EvaluationRecipe,
    reader: Arc<FeatureReader>,
    replicas: Replicas,
}

/// What a model achieves on a split.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SplitScores {
    /// The manifest.
    pub manifest: PathBuf,
    /// The split.
    pub split: Split,
    /// Labelled clips that were scored.
    pub n: u64,
    /// Clips that could not be read and are in none of the scores.
    pub quarantined: usize,
    /// Clips without a label of the model's set, which are in none of the scores either.
    pub unlabelled: usize,
    /// Clips whose prompt and answer do not fit into the decoder, likewise.
    pub too_long: usize,
    /// Clips that lack an input of a fusion that a head reads, likewise.
    pub unjudged: usize,
    /// The generated labels; `None` from a model that answers by its heads alone.
    pub text: Option<Scores>,
    /// The class head, where there is one.
    pub head: Option<Scores>,
    /// The valence head, where there is one and clips have a valence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valence: Option<Regression>,
    /// Always answering the commonest label of the split; `None` from a model that names no labels.
    pub majority: Option<Scores>,
    /// 95 % bootstrap intervals of the generated labels' scores, or of the head's where nothing is generated.
    pub interval: Option<Bootstrap>,
    /// Each clip's answer.
    #[serde(skip)]
    pub predictions: Vec<Prediction>,
    /// The clips that could not be read.
    #[serde(skip)]
    pub bad: Vec<Quarantined>,
}

/// What a model says about one clip.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClipAnswer {
    /// Answer and head.
    #[serde(flatten)]
    pub prediction: Prediction,
    /// Why, where the model's prompts can ask for it.
    pub rationale: Option<String>,
    /// What it says to the questions that were asked besides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<Answered>,
    /// Inputs that the clip has none of, and that were therefore left out.
    pub absent: Vec<String>,
}

/// A question in words of one's own.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answered {
    /// As it was asked.
    pub question: String,
    /// As it was answered.
    pub answer: String,
}

/// The artifact that `named` means: of a finished run (by folder, or by name below `runs`), or by itself.
///
/// # Errors
/// Neither there, or not finished.
pub fn find_artifact(named: &Path) -> anyhow::Result<(PathBuf, Option<RunDir>)> {
    if named.join("mm").is_dir() {
        return Ok((named.to_path_buf(), None));
    }
    let run = RunDir::find(named)?;
    let folder = run.path("final");
    if !folder.is_dir() {
        return Err(RunError::recipe(format!(
            "the run {} is not finished; `limbic train` with its recipe goes on with it",
            run.root().display()
        )));
    }
    Ok((folder, Some(run)))
}

impl Model {
    /// Opens a finished run (by folder, or by name below `runs`), or an artifact, on `devices`, with the decoder's
    /// weights in the precision of the run; of an artifact outside a run in F32 where they are its own, and otherwise in
    /// what `suits` the devices.
    ///
    /// # Errors
    /// Neither there, not finished, damaged; devices that do not compute in the run's precision.
    pub fn open(
        named: &Path,
        devices: &[Device],
        suits: Precision,
        say: &Say,
    ) -> anyhow::Result<Self> {
        let (folder, run) = find_artifact(named)?;
        let (settings, cache) = match &run {
            Some(run) => {
                let recipe = run.read_recipe()?;
                (recipe.evaluation, recipe.cache)
            }
            // It may lie anywhere, and leaves nothing behind there.
            None => (
                EvaluationRecipe::default(),
                CacheRecipe {
                    enabled: false,
                    ..CacheRecipe::default()
                },
            ),
        };
        let device = devices[0].clone().without_autodiff();
        let run_file = run.as_ref().map(RunDir::read_run_file).transpose()?;
        let decoder = ArtifactConfig::read(&folder)?.decoder;
        let precision = finished_precision(run_file.as_ref(), &decoder, devices, suits)?;
        let artifact = Artifact::read(&folder, precision, &device)?;
        if precision != Precision::F32 {
            say(&format!("the decoder's weights are held in {precision}"));
        }
        Ok(Self {
            reader: FeatureReader::new(&artifact.config, &device, &cache)?,
            replicas: Replicas::new(&artifact.model, devices)?,
            artifact,
            folder,
            run,
            settings,
        })
    }

    /// Scores the labelled clips of a split of `manifest`, or of the run's own manifest.
    ///
    /// # Errors
    /// No manifest, no labelled clips in the split, too many unusable ones.
    pub fn score(
        &self,
        manifest: Option<&Path>,
        split: Split,
        max_bad: f64,
        say: &Say,
    ) -> anyhow::Result<SplitScores> {
        let recipe = self.run.as_ref().map(RunDir::read_recipe).transpose()?;
        let path = match (manifest, &recipe) {
            (Some(path), _) => path.to_path_buf(),
            (None, Some(recipe)) => recipe.data.manifest.clone(),
            (None, None) => {
                return Err(RunError::recipe(format!(
                    "{} is an artifact outside a run, so it knows no data; name a manifest with --data",
                    self.folder.display()
                )));
            }
        };
        let manifest = Manifest::read(&path)?;
        let clips = match &recipe {
            Some(recipe) => recipe.data.clips(&manifest, split),
            None => manifest.split(split),
        };
        let (encoded, bad) =
            self.reader
                .read_all(&clips, max_bad, &|_| {}, &AtomicBool::new(false))?;
        for clip in &bad {
            say(&format!(
                "{} is quarantined ({}): {}",
                clip.id, clip.reason, clip.detail
            ));
        }
        let labels = self.labels()?;
        let (dataset, dropped) = self.dataset(encoded, labels)?;
        let scored = self.evaluator(&Sampling::GREEDY).score(&dataset, labels)?;
        let Some(Scored {
            text,
            head,
            valence,
            predictions,
        }) = scored
        else {
            return Err(RunError::Data(format!(
                "the split `{split}` of {} has no clip to score: {} have no label that the model knows ({}), \
                 {} do not fit into the decoder, {} lack an input of the fusion that a head reads, {} are unusable",
                path.display(),
                dropped.unanswered,
                labels.names().join(", "),
                dropped.too_long,
                dropped.unjudged,
                bad.len()
            ))
            .into());
        };
        let judged = text.as_ref().or(head.as_ref());
        let interval = judged.map(|judged| bootstrap(&judged.confusion, 0));
        Ok(SplitScores {
            manifest: path,
            split,
            n: predictions.len() as u64,
            quarantined: bad.len(),
            unlabelled: dropped.unanswered,
            too_long: dropped.too_long,
            unjudged: dropped.unjudged,
            majority: judged.map(|judged| majority(&judged.confusion)),
            interval: interval.transpose()?,
            text,
            head,
            valence,
            predictions,
            bad,
        })
    }

    /// Asks about one clip: for the emotion, for a rationale where prompts can ask for one, and whatever `questions` say.
    /// The decoder reads the clip once for all of them.
    ///
    /// # Errors
    /// Unreadable media, or none that the model perceives; questions that are empty, name a place of media or do not fit
    /// into the decoder, or that a model without words is asked; sampling settings out of range.
    pub fn ask(
        &self,
        clip: &Clip,
        questions: &[String],
        sampling: &Sampling,
    ) -> anyhow::Result<ClipAnswer> {
        let config = &self.artifact.config;
        sampling.validate().map_err(at_fault)?;
        if let Some(empty) = questions.iter().find(|it| it.trim().is_empty()) {
            return Err(RunError::recipe(format!(
                "a question (--question) is {empty:?}, wanted words; ask something, or leave it out"
            )));
        }
        if config.mute && !questions.is_empty() {
            return Err(RunError::recipe(format!(
                "{} answers by its heads alone and has no words for --question; ask without it",
                self.folder.display()
            )));
        }
        let encoded = self.reader.read(clip)?.map_err(|bad| {
            RunError::Data(format!("{} ({}): {}", bad.id, bad.reason, bad.detail))
        })?;
        let absent: Vec<String> = self
            .artifact
            .config
            .inputs
            .iter()
            .zip(&encoded.features)
            .filter(|(_, features)| features.is_none())
            .map(|(input, _)| input.name.clone())
            .collect();
        let hears = self.artifact.config.transcript && clip.transcript.is_some();
        if absent.len() == self.artifact.config.inputs.len() && !hears {
            return Err(RunError::Data(format!(
                "{} has nothing that this model perceives (it takes {})",
                clip.id,
                self.artifact
                    .config
                    .inputs
                    .iter()
                    .map(|input| input.name.as_str())
                    .collect::<Vec<_>>()
                    .join(", ")
            ))
            .into());
        }
        let labels = self.labels()?;
        let evaluator = self.evaluator(sampling);
        // Any label lets the clip into the data set; no answer is given to the model.
        let mut encoded = encoded;
        encoded.clip.emotion = labels.names().first().map(|name| name.to_string());
        let (dataset, dropped) = self.dataset(vec![encoded], labels)?;
        if dropped.unjudged > 0 {
            return Err(RunError::Data(format!(
                "{} lacks an input of the fusion that the model's head reads",
                clip.id
            ))
            .into());
        }
        if dropped.too_long > 0 {
            return Err(RunError::Data(format!(
                "{}: prompt and answer do not fit into the decoder's {} positions; shorten the transcript",
                clip.id,
                self.artifact.model.llama.config().max_position_embeddings
            ))
            .into());
        }
        let sample = dataset
            .samples()
            .first()
            .context("the clip was not accepted")?;
        let can_reason = !config.mute && config.prompt.instructions.contains_key(&Task::Reason);
        let tasks = [Task::Emotion]
            .into_iter()
            .chain(can_reason.then_some(Task::Reason));
        let mut asked: Vec<Drawn> = tasks
            .map(|task| dataset.ask(sample, task, false))
            .collect::<anyhow::Result<_>>()?;
        for question in questions {
            asked.push(self.ask_freely(&dataset, sample, question)?);
        }
        // The noise is the clip's, whatever else is asked about it.
        let ids = vec![0; asked.len()];
        let mut predictions = evaluator.answer(&dataset, &asked, &ids)?.into_iter();
        let mut prediction = predictions.next().context("the clip was not answered")?;
        prediction.truth = None;
        let mut words = predictions.map(|prediction| prediction.answer.unwrap_or_default());
        let rationale = can_reason.then(|| words.next()).flatten();
        let answers = questions
            .iter()
            .zip(words)
            .map(|(question, answer)| Answered {
                question: question.clone(),
                answer,
            });
        Ok(ClipAnswer {
            prediction,
            rationale,
            answers: answers.collect(),
            absent,
        })
    }

    /// A question in words of one's own. All that can be wrong with it is the question: the clip was accepted before.
    fn ask_freely<'a>(
        &self,
        dataset: &'a Dataset,
        sample: &'a Sample,
        question: &str,
    ) -> anyhow::Result<Drawn<'a>> {
        let refused = |problem: String| {
            const SHOWN: usize = 60;
            let mut shown: String = question.chars().take(SHOWN).collect();
            if shown.len() < question.len() {
                shown.push('…');
            }
            RunError::recipe(format!("the question (--question) {shown:?}: {problem}"))
        };
        let drawn = dataset
            .ask_freely(sample, question)
            .map_err(|error| refused(format!("{error:#}")))?;
        let length = drawn.compiled.prompt_length();
        let room = self.settings.max_new_tokens;
        let positions = self.artifact.model.llama.config().max_position_embeddings;
        if length + room > positions {
            return Err(refused(format!(
                "with the clip it takes {length} positions, and {room} more are kept for the answer \
                 (`evaluation.max_new_tokens` of the run), wanted at most the decoder's {positions} together; \
                 shorten it by at least {} tokens",
                length + room - positions
            )));
        }
        Ok(drawn)
    }

    /// What went wrong with the feature cache since this was last called, in words.
    pub fn cache_problems(&self) -> Vec<String> {
        self.reader.report().unwrap_or_default().problems()
    }

    fn labels(&self) -> anyhow::Result<&LabelSet> {
        self.artifact.config.labels.as_ref().ok_or_else(|| {
            RunError::recipe(format!(
                "{} was trained without labels (a captioning stage?), so it cannot name emotions; \
                 train a stage with `labels` from it",
                self.folder.display()
            ))
        })
    }

    fn dataset(
        &self,
        clips: Vec<EncodedClip>,
        labels: &LabelSet,
    ) -> anyhow::Result<(Dataset, Dropped)> {
        let config = &self.artifact.config;
        let questions = Questions {
            tasks: &[(Task::Emotion, 1.0)].into(),
            labels: Some(labels),
            compiler: &config.compiler()?,
            config,
            tokenizer: &self.artifact.tokenizer,
            vocabulary: self.artifact.model.llama.config().vocab_size,
            max_tokens: self.artifact.model.llama.config().max_position_embeddings,
            max_new_tokens: self.settings.max_new_tokens,
            captions: false,
            seed: 0,
        };
        Dataset::new(clips, &questions)
    }

    fn evaluator<'a>(&'a self, sampling: &'a Sampling) -> Evaluator<'a> {
        Evaluator {
            replicas: &self.replicas,
            values: None,
            labels: self.artifact.config.labels.as_ref(),
            mute: self.artifact.config.mute,
            recipe: &self.settings,
            sampling,
        }
    }
}
