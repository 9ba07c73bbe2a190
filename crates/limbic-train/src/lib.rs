//! Trains and evaluates an emotion LLM from a recipe on one or several devices.
//!
//! 1. [`read_recipe`] turns a YAML file into a checked [`Recipe`].
//! 2. [`Setup`] opens and builds all that it names: clips are encoded once, bad ones quarantined.
//! 3. [`train`] runs the loop: draw, gradient of all [`Replicas`], clip, AdamW, evaluate, save.
//!    What it is trained for is in [`Objectives`]: language, classes, valence, contrast, hidden tokens.
//! 4. [`Evaluator`] says what a model achieves on a split; [`Model`] is a finished one, to be scored or asked.
//! 5. [`mod@bench`] repeats steps of a given shape, to be timed.
//!
//! A run is a function of (recipe, data, weights, seed). The one state besides the step is the trained values and the
//! optimizer's two moments; [`Checkpoint`] holds them.

mod ahead;
mod assembly;
mod batching;
pub mod bench;
mod blueprint;
mod cache_entry;
mod checkpoint;
mod dataset;
mod error;
mod evaluate;
mod extract;
mod feature_cache;
mod features;
mod file_digest;
mod gathered;
mod import;
mod log;
mod loose_file;
mod loss;
mod loss_recipe;
mod losses;
mod model_recipe;
mod objectives;
mod optimizer;
mod order;
mod origin;
mod perception;
mod plan;
mod precision;
mod reading;
mod recipe;
mod reduce;
mod reference;
mod replicas;
mod run_dir;
mod scoring;
mod setup;
mod shard;
mod statistics;
mod stored;
mod terms;
mod trainer;

#[cfg(test)]
mod tests;

pub use batching::Shards;
pub use checkpoint::{Best, Checkpoint, Checkpoints, Progress};
pub use dataset::{Dataset, Drawn, Dropped, Questions, Sample};
pub use error::RunError;
pub use evaluate::{Evaluation, Evaluator, Prediction, Scored};
pub use extract::{ClipShard, Extraction, extract};
pub use feature_cache::{CacheReport, Problems};
pub use features::{EncodedClip, FeatureReader, Quarantined};
pub use gathered::{info_nce_sum, valence_sum};
pub use import::Import;
pub use log::Say;
pub use loss::{cross_entropy_sum, weighted_cross_entropy_sum};
pub use loss_recipe::{CountedWeights, LabelWeights, LossRecipe, ValenceRecipe, Weight};
pub use objectives::Objectives;
pub use optimizer::{AdamW, clip, schedule};
pub use plan::{Calibration, Plan};
pub use precision::FrozenPrecision;
pub use reading::read_recipe;
pub use recipe::*;
pub use reduce::tree_sum;
pub use reference::Reference;
pub use replicas::{Replicas, StepGradient};
pub use run_dir::{RunDir, RunFile, RunResult};
pub use scoring::{Answered, ClipAnswer, Model, SplitScores, find_artifact};
pub use setup::Setup;
pub use stored::{OnCall, Stored};
pub use terms::{Divisors, LossMeans, LossSums, PerTerm, Term};
pub use trainer::{Start, train};
