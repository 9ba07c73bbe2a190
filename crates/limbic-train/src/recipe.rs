//! What the user wrote. Every key is documented here and in docs/recipes.md, which a test holds against this file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use limbic_data::{Clip, Crop, FrameSampler, LabelSet, Manifest, PromptConfig, Split, Task};
use limbic_encoders::{EncoderConfig, FusionConfig, ProjectorConfig};
use limbic_llama::{LlamaConfig, LoraConfig, Recompute};
use limbic_model::{AlignmentConfig, HeadConfig, Part};
use serde::{Deserialize, Serialize};

use crate::loss_recipe::LossRecipe;
use crate::precision::FrozenPrecision;
use crate::reference::Reference;

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

/// The model: a decoder, what it perceives, what is added to it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelRecipe {
    /// The decoder: a file of configs/backbones, or its content. Absent with `init_from`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decoder: Option<Reference<DecoderRecipe>>,
    /// Adapters to put beside the decoder's layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
    /// What is perceived. Absent with `init_from`: the inputs of that artifact.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<InputRecipe>,
    /// What is made of several inputs together. Absent with `init_from`: the fusions of that artifact.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fusions: Vec<FusionRecipe>,
    /// A class head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<HeadConfig>,
    /// A valence head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valence: Option<HeadConfig>,
    /// The common space of clips and captions, for the contrastive loss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alignment: Option<AlignmentConfig>,
}

/// Where the decoder comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum DecoderRecipe {
    /// A folder of Hugging Face's layout.
    Pretrained(PretrainedDecoder),
    /// A new LLaMA with a byte-level BPE tokenizer trained on the recipe's texts.
    Scratch(ScratchDecoder),
}

/// A decoder from disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainedDecoder {
    /// Folder with `config.json`, `tokenizer.json` and safetensors weights.
    pub folder: PathBuf,
    /// What `config.json` must say, in its own keys: counts of parameters are known before the weights are there, and
    /// another model in the folder is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<LlamaConfig>,
}

impl PretrainedDecoder {
    /// The decoder's shape: that of the folder, which must be the one asked for.
    ///
    /// # Errors
    /// An unusable `config.json`, or one that says something else than [`shape`](Self::shape).
    pub fn config(&self) -> Result<LlamaConfig, String> {
        let path = self.folder.join("config.json");
        let found = LlamaConfig::read(&path).map_err(|error| error.to_string())?;
        match self
            .shape
            .as_ref()
            .and_then(|shape| shape.difference(&found))
        {
            None => Ok(found),
            Some(difference) => Err(format!(
                "{difference} in the recipe's `shape` and in {}; put the right model there, or correct `shape`",
                path.display()
            )),
        }
    }
}

/// A decoder to be trained from nothing. Names are those of Hugging Face's `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScratchDecoder {
    /// Number of tokens, at least 258.
    pub vocab_size: usize,
    /// Width.
    pub hidden_size: usize,
    /// Width inside the feed-forward layers.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key and value heads.
    pub num_key_value_heads: usize,
    /// Longest sequence.
    pub max_position_embeddings: usize,
}

/// One perceived input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputRecipe {
    /// Name of the input.
    pub name: String,
    /// What stands for it in the prompt template; `<name>` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placeholder: Option<String>,
    /// The frozen encoder: a file of configs/encoders, or its content.
    pub encoder: Reference<EncoderConfig>,
    /// The trainable projector. Without one only fusions read the input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub projector: Option<ProjectorConfig>,
    /// Which frames are read; for video only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frames: Option<FrameSampler>,
    /// What is cut out of each frame; for video only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crop: Option<Crop>,
}

/// Tokens made of several inputs together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FusionRecipe {
    /// Name of the fusion.
    pub name: String,
    /// What stands for it in the prompt template; `<name>` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placeholder: Option<String>,
    /// Names of the inputs whose features it reads; `transcript` for the embeddings of the spoken words.
    pub sources: Vec<String>,
    /// The trainable fusion.
    pub fusion: FusionConfig,
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

/// How it is learnt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainRecipe {
    /// Optimizer steps.
    pub steps: u64,
    /// Samples of a micro-batch, over all devices.
    pub batch_size: usize,
    /// Micro-batches of an optimizer step.
    #[serde(default = "one")]
    pub accumulate: usize,
    /// Pieces a micro-batch is cut into. Their gradients are summed in one fixed tree, so that a result depends on
    /// their number and not on the number of devices.
    #[serde(default = "shards")]
    pub shards: usize,
    /// How samples of several lengths are put together.
    #[serde(default)]
    pub batching: Batching,
    /// What is computed again on the way back instead of being kept: the same gradients for less memory.
    #[serde(default)]
    pub recompute: Recompute,
    /// Peak learning rate of each part; a part that is not named is frozen.
    pub learning_rate: BTreeMap<Part, f64>,
    /// LoRA+ (Hayou et al. 2024): the rate of the adapters' second factors over that of the first ones, which is the
    /// rate of `lora`.
    #[serde(default = "lora_plus")]
    pub lora_plus: f64,
    /// Steps over which the rate rises from zero.
    #[serde(default)]
    pub warmup: u64,
    /// How the rate goes on from its peak.
    #[serde(default)]
    pub decay: Decay,
    /// The share of the peak rate that the cosine comes down to, one step after the last.
    #[serde(default)]
    pub final_rate: f64,
    /// AdamW's averaging factors.
    #[serde(default = "betas")]
    pub betas: [f64; 2],
    /// AdamW's epsilon.
    #[serde(default = "epsilon")]
    pub epsilon: f64,
    /// AdamW's decoupled weight decay.
    #[serde(default = "weight_decay")]
    pub weight_decay: f64,
    /// The gradient's global norm is cut to this.
    #[serde(default = "clip_norm")]
    pub clip_norm: f64,
    /// In what the decoder's weights are held while they are frozen.
    #[serde(default)]
    pub precision: FrozenPrecision,
    /// The losses.
    #[serde(default)]
    pub loss: LossRecipe,
    /// Steps whose gradient is not finite are skipped; more than this many in a row end the run.
    #[serde(default = "max_skipped")]
    pub max_skipped: u64,
}

/// How samples of several lengths are put together. Each shard is one pass through the model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Batching {
    /// A shard's samples are padded to the longest of them.
    #[default]
    Padded,
    /// The same, but samples of like length come in the same steps.
    Grouped,
    /// A shard's samples lie end to end in one row, and the shards of a step are about equally long.
    Packed,
}

/// How the learning rate goes on from its peak.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// Half a cosine down to `final_rate`.
    #[default]
    Cosine,
    /// It stays.
    Constant,
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

fn one() -> usize {
    1
}

fn shards() -> usize {
    4
}

fn lora_plus() -> f64 {
    1.0
}

fn max_bad() -> f64 {
    0.01
}

fn max_tokens() -> usize {
    512
}

fn betas() -> [f64; 2] {
    [0.9, 0.999]
}

fn epsilon() -> f64 {
    1e-8
}

fn weight_decay() -> f64 {
    1e-2
}

fn clip_norm() -> f64 {
    1.0
}

fn max_skipped() -> u64 {
    5
}

impl Recipe {
    /// What is wrong with the values, each problem with its key. Keys and types were checked when the recipe was read.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut check = |fine: bool, problem: String| {
            if !fine {
                problems.push(problem);
            }
        };
        let Self {
            name, data, train, ..
        } = self;
        check(
            !name.is_empty()
                && !name.starts_with(['.', '-'])
                && !name.contains(['/', '\\'])
                && !name.contains(char::is_control),
            format!("`name` is {name:?}, wanted a name that can be a folder's"),
        );
        check(
            data.tasks.values().any(|weight| *weight > 0.0)
                && data
                    .tasks
                    .values()
                    .all(|weight| *weight >= 0.0 && weight.is_finite()),
            "`data.tasks` needs weights of at least 0, one of them above it".into(),
        );
        check(
            (0.0..=1.0).contains(&data.max_bad),
            format!(
                "`data.max_bad` is {}, wanted a share from 0 to 1",
                data.max_bad
            ),
        );
        for (key, value) in [
            ("train.steps", train.steps as usize),
            ("train.batch_size", train.batch_size),
            ("train.accumulate", train.accumulate),
            ("train.shards", train.shards),
            ("data.max_tokens", data.max_tokens),
            ("evaluation.max_new_tokens", self.evaluation.max_new_tokens),
            ("evaluation.batch_size", self.evaluation.batch_size),
            ("run.log_every", self.run.log_every as usize),
            ("run.save_every", self.run.save_every as usize),
            ("run.keep", self.run.keep),
        ] {
            check(value > 0, format!("`{key}` is 0, wanted at least 1"));
        }
        check(
            train.shards == 0 || train.batch_size % train.shards == 0,
            format!(
                "`train.batch_size` is {}, wanted a multiple of `train.shards`, which is {}",
                train.batch_size, train.shards
            ),
        );
        const MOST_SAMPLES: usize = 1 << 20;
        check(
            train
                .batch_size
                .checked_mul(train.accumulate)
                .is_some_and(|samples| samples <= MOST_SAMPLES),
            format!(
                "`train.batch_size` times `train.accumulate` is more than {MOST_SAMPLES} samples a step"
            ),
        );
        let samples = train.batch_size.saturating_mul(train.accumulate);
        for problem in train.loss.problems(train.steps, samples) {
            check(false, problem);
        }
        check(
            train.lora_plus > 0.0 && train.lora_plus.is_finite(),
            format!(
                "`train.lora_plus` is {}, wanted a positive number, at least 1 as a rule",
                train.lora_plus
            ),
        );
        check(
            !train.learning_rate.is_empty(),
            "`train.learning_rate` names no part, so nothing would be trained; wanted some of decoder, lora, projectors, fusions, head".into(),
        );
        for (part, rate) in &train.learning_rate {
            check(
                *rate > 0.0 && rate.is_finite(),
                format!("`train.learning_rate.{part:?}` is {rate}, wanted a positive number; leave the part out to freeze it").to_lowercase(),
            );
        }
        for (key, value) in [
            ("train.betas[0]", train.betas[0]),
            ("train.betas[1]", train.betas[1]),
        ] {
            check(
                (0.0..1.0).contains(&value),
                format!("`{key}` is {value}, wanted at least 0 and less than 1"),
            );
        }
        for (key, value) in [
            ("train.final_rate", train.final_rate),
            ("train.weight_decay", train.weight_decay),
            ("cache.memory_gib", self.cache.memory_gib),
        ] {
            check(
                value >= 0.0 && value.is_finite(),
                format!("`{key}` is {value}, wanted at least 0"),
            );
        }
        for (key, value) in [
            ("train.epsilon", train.epsilon),
            ("train.clip_norm", train.clip_norm),
            ("cache.max_gib", self.cache.max_gib),
        ] {
            check(
                value > 0.0 && value.is_finite(),
                format!("`{key}` is {value}, wanted more than 0"),
            );
        }
        check(
            self.evaluation.patience == 0 || self.evaluation.every > 0,
            "`evaluation.patience` counts evaluations, but `evaluation.every` is 0".into(),
        );
        problems
    }
}
