//! What the user wrote. Every key is documented here and in docs/recipes.md, which a test holds against these types.

use std::collections::BTreeMap;
use std::path::PathBuf;

use limbic_data::{Clip, LabelSet, Manifest, PromptConfig, Split, Task};
use serde::{Deserialize, Serialize};

use crate::reference::Reference;

mod model;
mod problems;
mod train;

pub use model::{
    DecoderRecipe, FusionRecipe, InputRecipe, ModelRecipe, PretrainedDecoder, ScratchDecoder,
};
pub use train::{Batching, Decay, TrainRecipe};

/// One training run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Name of the run and of its folder.
    pub name: String,
    /// Names every random draw of the run.
    #[serde(default)]
    pub seed: u64,
    /// A run (its best artifact) or an artifact to start from: decoder, tokenizer, inputs and head are taken from it
    /// where this recipe does not name its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_from: Option<PathBuf>,
    /// Which of the model's inputs are used, `transcript` among them; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Vec<String>>,
    /// The model: a file of configs/models, or its content.
    #[serde(default)]
    pub model: Reference<ModelRecipe>,
    /// The label set: a file of configs/labels, or its content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Reference<LabelSet>>,
    /// Template and instructions: a file of configs/prompts, or its content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<Reference<PromptConfig>>,
    /// What is learnt from.
    pub data: DataRecipe,
    /// How it is learnt.
    pub train: TrainRecipe,
    /// How progress is judged, on the validation split only.
    #[serde(default)]
    pub evaluation: EvaluationRecipe,
    /// Where the run lies and how often it is saved.
    #[serde(default)]
    pub run: RunRecipe,
    /// Where features are kept. It changes how fast a run is, and nothing that comes out.
    #[serde(default)]
    pub cache: CacheRecipe,
}

/// What is learnt from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataRecipe {
    /// The manifest, JSON Lines.
    pub manifest: PathBuf,
    /// Only clips that have all of these are used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub require: Vec<Medium>,
    /// Tasks and how often each is drawn for a clip that has an answer to it.
    pub tasks: BTreeMap<Task, f64>,
    /// Largest share of clips that may be unusable before the run stops.
    #[serde(default = "max_bad")]
    pub max_bad: f64,
    /// Longest sample in positions; longer ones are dropped and counted.
    #[serde(default = "max_tokens")]
    pub max_tokens: usize,
}

/// What a clip may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Medium {
    /// A file with pictures.
    Video,
    /// A file with sound, which may be that of the pictures.
    Audio,
    /// Words.
    Transcript,
}

impl DataRecipe {
    /// The clips of a split that have what is required, in the manifest's order.
    pub fn clips<'a>(&self, manifest: &'a Manifest, split: Split) -> Vec<&'a Clip> {
        let has = |clip: &Clip, medium: &Medium| match medium {
            Medium::Video => clip.video.is_some(),
            Medium::Audio => clip.sound().is_some(),
            Medium::Transcript => clip.transcript.is_some(),
        };
        let mut clips = manifest.split(split);
        clips.retain(|clip| self.require.iter().all(|medium| has(clip, medium)));
        clips
    }
}

/// How progress is judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluationRecipe {
    /// Steps between evaluations of the validation split; 0 for none.
    pub every: u64,
    /// What the best checkpoint is chosen by.
    pub metric: Metric,
    /// Evaluations without a better one after which the run stops; 0 to go on to the end.
    pub patience: u64,
    /// Longest generated answer in tokens.
    pub max_new_tokens: usize,
    /// Samples decoded side by side.
    pub batch_size: usize,
}

/// What the best checkpoint is chosen by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// The weighted sum of the losses, in the weights of the last step; lower is better.
    #[default]
    Loss,
    /// Unweighted average recall of the generated labels.
    TextUar,
    /// Unweighted average recall of the class head.
    HeadUar,
    /// Concordance of the valence head.
    ValenceCcc,
    /// Share of clips whose nearest caption is their own.
    Retrieval,
}

/// Where the run lies and how often it is saved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunRecipe {
    /// Folder that holds the run's folder.
    pub directory: PathBuf,
    /// Steps between log lines.
    pub log_every: u64,
    /// Steps between checkpoints.
    pub save_every: u64,
    /// Checkpoints that are kept beside the best one.
    pub keep: usize,
}

/// Where features of frozen encoders are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CacheRecipe {
    /// Whether they are kept on disk.
    pub enabled: bool,
    /// The folder, which any number of processes may share.
    pub directory: PathBuf,
    /// Size of that folder in GiB, beyond which what was not used for longest is removed.
    pub max_gib: f64,
    /// Features kept in memory, in GiB. What goes beyond is fetched a few steps before it is needed.
    pub memory_gib: f64,
}

impl Default for CacheRecipe {
    fn default() -> Self {
        Self {
            enabled: true,
            directory: "cache".into(),
            max_gib: 64.0,
            memory_gib: 4.0,
        }
    }
}

impl Default for EvaluationRecipe {
    fn default() -> Self {
        Self {
            every: 0,
            metric: Metric::default(),
            patience: 0,
            max_new_tokens: 48,
            batch_size: 16,
        }
    }
}

impl Default for RunRecipe {
    fn default() -> Self {
        Self {
            directory: "runs".into(),
            log_every: 20,
            save_every: 200,
            keep: 2,
        }
    }
}

fn max_bad() -> f64 {
    0.01
}

fn max_tokens() -> usize {
    512
}
