//! How a recipe's model is learnt.

use std::collections::BTreeMap;

use limbic_llama::Recompute;
use limbic_model::Part;
use serde::{Deserialize, Serialize};

use crate::loss_recipe::LossRecipe;
use crate::precision::FrozenPrecision;

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

fn one() -> usize {
    1
}

fn shards() -> usize {
    4
}

fn lora_plus() -> f64 {
    1.0
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
