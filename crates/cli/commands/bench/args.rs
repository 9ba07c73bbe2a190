//! What `limbic bench` takes. Flags and their defaults are those of scripts/bench/peer_step.py, so that one command line
//! serves both.

use std::path::PathBuf;

use burn::tensor::FloatDType;
use clap::{ArgAction, Subcommand, ValueEnum};
use limbic_data::media::MAX_SECONDS;
use limbic_llama::Recompute;
use limbic_train::Batching;
use serde::Serialize;

const MOST_REPETITIONS: usize = 1_000_000;

#[derive(Subcommand)]
pub(crate) enum BenchCommand {
    /// Training steps: gradient, clipping, update
    Step(StepArgs),
    /// Continuing prompts
    Generate(GenerateArgs),
    /// Reading pictures and sound from files
    Decode(DecodeArgs),
    /// Encoding clips with a frozen encoder
    Encode(EncodeArgs),
    /// Loading a decoder from its folder
    Load(LoadArgs),
    /// Summing the gradients of shards
    Allreduce(AllreduceArgs),
}

/// A decoder, what is added to it, and what it is given.
#[derive(clap::Args, Serialize)]
pub(crate) struct ShapeArgs {
    /// Width of the decoder
    #[arg(long, default_value_t = 512)]
    pub(crate) dim: usize,
    /// Number of blocks
    #[arg(long, default_value_t = 8)]
    pub(crate) layers: usize,
    /// Query heads
    #[arg(long, default_value_t = 8)]
    pub(crate) heads: usize,
    /// Key and value heads
    #[arg(long, default_value_t = 8)]
    pub(crate) kv_heads: usize,
    /// Width inside the feed-forward layers
    #[arg(long, default_value_t = 1376)]
    pub(crate) ffn: usize,
    /// Number of tokens
    #[arg(long, default_value_t = 32_000)]
    pub(crate) vocab: usize,
    /// Samples side by side
    #[arg(long, default_value_t = 4, value_parser = at_least_one)]
    pub(crate) batch: usize,
    /// Positions of each sample, media included
    #[arg(long, default_value_t = 340, value_parser = at_least_one)]
    pub(crate) seq: usize,
    /// Rank of the adapters
    #[arg(long, default_value_t = 16)]
    pub(crate) rank: usize,
    /// Share of the adapters' inputs that is dropped
    #[arg(long, default_value_t = 0.0)]
    pub(crate) dropout: f64,
    /// Layers with adapters
    #[arg(
        long,
        action = ArgAction::Set,
        value_delimiter = ',',
        default_value = "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj"
    )]
    pub(crate) targets: Vec<String>,
    /// Precision of the frozen weights
    #[arg(long, default_value = "float32")]
    pub(crate) dtype: Dtype,
}

/// How a number is kept, by PyTorch's names.
#[derive(Clone, Copy, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Dtype {
    #[value(alias = "f32")]
    Float32,
    #[value(alias = "bf16")]
    Bfloat16,
    #[value(alias = "f16")]
    Float16,
}

impl Dtype {
    pub(crate) fn float_dtype(self) -> FloatDType {
        match self {
            Self::Float32 => FloatDType::F32,
            Self::Bfloat16 => FloatDType::BF16,
            Self::Float16 => FloatDType::F16,
        }
    }
}

/// How often, and where.
#[derive(clap::Args, Serialize)]
pub(crate) struct RunArgs {
    /// Timed repetitions
    #[arg(long, default_value_t = 8, value_parser = timed)]
    pub(crate) steps: usize,
    /// Repetitions before them
    #[arg(long, default_value_t = 2, value_parser = untimed)]
    pub(crate) warmup: usize,
    /// Threads on the host; by default one a core
    #[arg(long, value_parser = at_least_one)]
    pub(crate) threads: Option<usize>,
    /// As for train; by default replicas on the CPU, on the fastest of the plans for these threads
    #[arg(long, alias = "device")]
    pub(crate) devices: Option<String>,
}

#[derive(clap::Args, Serialize)]
pub(crate) struct StepArgs {
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) shape: ShapeArgs,
    /// Supervised positions at the end of each sample; all but the first where it is as long
    #[arg(long, default_value_t = 12)]
    pub(crate) answer: usize,
    /// Supervise every position but the first
    #[arg(long)]
    #[serde(skip)]
    pub(crate) every_position: bool,
    /// Pieces that a step is cut into; by default as recipes have it, 4, or the largest divisor of the batch below that
    #[arg(long)]
    pub(crate) shards: Option<usize>,
    /// Positions of the shortest sample; the others lie evenly between it and --seq
    #[arg(long)]
    pub(crate) shortest: Option<usize>,
    /// How samples of several lengths are put together
    #[arg(long, default_value = "padded")]
    pub(crate) batching: BatchingName,
    /// What of the decoder is computed again on the way back
    #[arg(long, default_value = "none")]
    pub(crate) recompute: RecomputeName,
    /// What the devices can do, in 10^12 floating-point operations a second, to be compared with
    #[arg(long, value_parser = positive)]
    #[serde(skip)]
    pub(crate) peak_tflops: Option<f64>,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) run: RunArgs,
}

/// The ways that differ within a step; grouping chooses whose samples meet there.
#[derive(Clone, Copy, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BatchingName {
    Padded,
    Packed,
}

impl From<BatchingName> for Batching {
    fn from(name: BatchingName) -> Self {
        match name {
            BatchingName::Padded => Self::Padded,
            BatchingName::Packed => Self::Packed,
        }
    }
}

#[derive(clap::Args, Serialize)]
pub(crate) struct GenerateArgs {
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) shape: ShapeArgs,
    /// New tokens a sample
    #[arg(long, default_value_t = 48, value_parser = at_least_one)]
    pub(crate) new_tokens: usize,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) run: RunArgs,
}

#[derive(clap::Args, Serialize)]
pub(crate) struct DecodeArgs {
    /// Video and audio files
    #[serde(skip)]
    pub(crate) files: Vec<PathBuf>,
    /// Pictures of each video, spread evenly
    #[arg(long, default_value_t = 8, value_parser = at_least_one)]
    pub(crate) frames: usize,
    /// Their width and height in pixels
    #[arg(long, default_value_t = 224, value_parser = at_least_one)]
    pub(crate) size: usize,
    /// What is cut out of them
    #[arg(long, default_value = "squash")]
    pub(crate) crop: CropName,
    /// Rate of the sound, in Hz
    #[arg(long, default_value_t = 16_000)]
    pub(crate) rate: u32,
    /// Resample noise of these rates, in Hz, beside the files
    #[arg(long, action = ArgAction::Set, value_delimiter = ',')]
    pub(crate) resample: Vec<u32>,
    /// Files that are read at once
    #[arg(long, default_value_t = 1, value_parser = at_least_one)]
    pub(crate) threads: usize,
    /// Timed passes over all files
    #[arg(long, default_value_t = 8, value_parser = timed)]
    pub(crate) steps: usize,
    /// Passes before them
    #[arg(long, default_value_t = 2, value_parser = untimed)]
    pub(crate) warmup: usize,
}

#[derive(Clone, Copy, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CropName {
    Squash,
    CenterSquare,
    Face,
}

#[derive(clap::Args, Serialize)]
pub(crate) struct EncodeArgs {
    /// Video or audio files, to be encoded and then to be found in a feature cache; by default noise is encoded
    #[serde(skip)]
    pub(crate) files: Vec<PathBuf>,
    /// A file of configs/encoders; by default a vision transformer of the shape of ViT-L/14
    #[arg(long)]
    pub(crate) encoder: Option<PathBuf>,
    /// Clips a repetition; by default one a thread
    #[arg(long, value_parser = at_least_one)]
    pub(crate) batch: Option<usize>,
    /// Pictures of each clip
    #[arg(long, default_value_t = 4, value_parser = at_least_one)]
    pub(crate) frames: usize,
    /// Length of each clip's sound
    #[arg(long, default_value_t = 3.0, value_parser = seconds)]
    pub(crate) seconds: f64,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) run: RunArgs,
}

#[derive(clap::Args, Serialize)]
pub(crate) struct LoadArgs {
    /// A folder with config.json and weights; by default one of the shape below is written, and removed afterwards
    #[arg(long)]
    pub(crate) folder: Option<PathBuf>,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) shape: ShapeArgs,
    /// Convert to this precision while loading; by default weights stay as they are stored
    #[arg(long = "as")]
    #[serde(rename = "as")]
    pub(crate) wanted: Option<Dtype>,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) run: RunArgs,
}

#[derive(clap::Args, Serialize)]
pub(crate) struct AllreduceArgs {
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) shape: ShapeArgs,
    /// Values of each gradient; by default those of the adapters of the shape
    #[arg(long, value_parser = at_least_one)]
    pub(crate) values: Option<usize>,
    /// Gradients
    #[arg(long, default_value_t = 4, value_parser = at_least_one)]
    pub(crate) shards: usize,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) run: RunArgs,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|count| *count > 0)
        .ok_or_else(|| "wanted a whole number of at least 1".to_string())
}

fn timed(text: &str) -> Result<usize, String> {
    match untimed(text)? {
        0 => Err("wanted a whole number of at least 1".to_string()),
        steps => Ok(steps),
    }
}

/// Results of all repetitions are kept, so that there is a bound to them.
fn untimed(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|count| *count <= MOST_REPETITIONS)
        .ok_or_else(|| format!("wanted a whole number of at most {MOST_REPETITIONS}"))
}

fn positive(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|number: &f64| number.is_finite() && *number > 0.0)
        .ok_or_else(|| "wanted a number above 0".to_string())
}

fn seconds(text: &str) -> Result<f64, String> {
    positive(text)
        .ok()
        .filter(|seconds| *seconds <= MAX_SECONDS)
        .ok_or_else(|| format!("wanted seconds above 0, at most {MAX_SECONDS}"))
}

/// What is computed again, as recipes call it.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RecomputeName {
    None,
    Block,
}

impl From<RecomputeName> for Recompute {
    fn from(name: RecomputeName) -> Self {
        match name {
            RecomputeName::None => Self::None,
            RecomputeName::Block => Self::Block,
        }
    }
}
