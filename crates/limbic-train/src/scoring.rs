//! A finished model put to use: scored on a split, or asked about one clip.

use std::path::{Path, PathBuf};

use anyhow::Context;
use burn::tensor::Device;
use limbic_data::{Clip, Manifest, Split, Task};
use limbic_eval::{Bootstrap, Scores, bootstrap, majority};
use limbic_model::{Artifact, ArtifactConfig};
use serde::Serialize;

use crate::dataset::{Dataset, Questions};
use crate::evaluate::{Evaluation, Evaluator, Prediction};
use crate::features::{FeatureReader, Quarantined};
use crate::log::Say;
use crate::recipe::{EvaluationRecipe, LossRecipe};
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
    reader: FeatureReader,
    replicas: Replicas,
}

/// What a model achieves on a split.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SplitScores {
    /// The split.
    pub split: Split,
    /// Labelled clips that were scored.
    pub n: u64,
    /// Clips that could not be read and are in none of the scores.
    pub quarantined: usize,
    /// The generated labels.
    pub text: Scores,
    /// The class head, where there is one.
    pub head: Option<Scores>,
    /// Always answering the commonest label of the split.
    pub majority: Scores,
    /// 95 % bootstrap intervals of the generated labels' scores.
    pub interval: Bootstrap,
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
    /// Inputs that the clip has none of, and that were therefore left out.
    pub absent: Vec<String>,
}

impl Model {
    /// Opens a finished run (by folder, or by name below `runs`), or an artifact, on `devices`.
    ///
    /// # Errors
    /// Neither there, not finished, damaged.
    pub fn open(named: &Path, devices: &[Device]) -> anyhow::Result<Self> {
        let (folder, run) = if named.join("mm").is_dir() {
            (named.to_path_buf(), None)
        } else {
            let run = RunDir::find(named)?;
            let folder = run.path("final");
            if !folder.is_dir() {
                return Err(RunError::recipe(format!(
                    "the run {} is not finished; `limbic train` with its recipe goes on with it",
                    run.root().display()
                )));
            }
            (folder, Some(run))
        };
        let settings = match &run {
            Some(run) => run.read_recipe()?.evaluation,
            None => EvaluationRecipe::default(),
        };
        let device = devices[0].clone().without_autodiff();
        let artifact = Artifact::read(&folder, &device)?;
        Ok(Self {
            reader: FeatureReader::new(&artifact.config.inputs, &device)?,
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
        let (encoded, bad) = self.reader.read_all(&clips, max_bad, &|_| {})?;
        for clip in &bad {
            say(&format!(
                "{} is quarantined ({}): {}",
                clip.id, clip.reason, clip.detail
            ));
        }
        let dataset = self.dataset(encoded)?;
        let evaluation = self.evaluator().evaluate(&dataset, &[Task::Emotion])?;
        let Evaluation {
            text: Some(text),
            head,
            predictions,
            ..
        } = evaluation
        else {
            return Err(RunError::Data(format!(
                "the split `{split}` of {} has no clip with a label the model knows ({})",
                path.display(),
                label_names(&self.artifact.config).join(", ")
            ))
            .into());
        };
        Ok(SplitScores {
            split,
            n: text.n,
            quarantined: bad.len(),
            majority: majority(&text.confusion),
            interval: bootstrap(&text.confusion, 0)?,
            text,
            head,
            predictions,
            bad,
        })
    }

    /// Asks about one clip.
    ///
    /// # Errors
    /// Unreadable media, or none that the model perceives.
    pub fn ask(&self, clip: &Clip) -> anyhow::Result<ClipAnswer> {
        let encoded = self.reader.read(clip).map_err(|bad| {
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
        let evaluator = self.evaluator();
        // Any known label will do: it only lets the clip into the data set, and no answer is given to the model.
        let mut encoded = encoded;
        encoded.clip.emotion = label_names(&self.artifact.config)
            .first()
            .map(|name| name.to_string());
        let dataset = self.dataset(vec![encoded])?;
        let samples: Vec<_> = dataset.samples().iter().collect();
        let ask = |task| -> anyhow::Result<Prediction> {
            let mut answers = evaluator.predict(&dataset, &samples, task)?;
            let mut answer = answers.pop().context("the clip was not accepted")?;
            answer.truth = None;
            Ok(answer)
        };
        let can_reason = self
            .artifact
            .config
            .prompt
            .instructions
            .contains_key(&Task::Reason);
        Ok(ClipAnswer {
            prediction: ask(Task::Emotion)?,
            rationale: if can_reason {
                Some(ask(Task::Reason)?.answer)
            } else {
                None
            },
            absent,
        })
    }

    fn dataset(&self, clips: Vec<crate::EncodedClip>) -> anyhow::Result<Dataset> {
        let config = &self.artifact.config;
        if config.labels.is_none() {
            return Err(RunError::recipe(format!(
                "{} was trained without labels (a captioning stage?), so it cannot name emotions; \
                 train a stage with `labels` from it",
                self.folder.display()
            )));
        }
        let questions = Questions {
            tasks: &[(Task::Emotion, 1.0)].into(),
            labels: config.labels.as_ref(),
            compiler: &config.compiler()?,
            tokenizer: &self.artifact.tokenizer,
            transcript: config.transcript,
            max_tokens: self.artifact.model.llama.config().max_position_embeddings,
            max_new_tokens: self.settings.max_new_tokens,
            seed: 0,
        };
        Ok(Dataset::new(clips, &questions)?.0)
    }

    fn evaluator(&self) -> Evaluator<'_> {
        const LOSS: &LossRecipe = &LossRecipe {
            lm_weight: 1.0,
            class_weight: 1.0,
            label_smoothing: 0.0,
        };
        Evaluator {
            replicas: &self.replicas,
            values: None,
            labels: self.artifact.config.labels.as_ref(),
            loss: LOSS,
            recipe: &self.settings,
        }
    }
}

fn label_names(config: &ArtifactConfig) -> Vec<&str> {
    config
        .labels
        .as_ref()
        .map(|labels| labels.names())
        .unwrap_or_default()
}
