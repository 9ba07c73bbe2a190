//! What can be typed. Definitions only.

use std::path::PathBuf;

use clap::{ArgGroup, Parser, Subcommand};
use limbic_data::{Source, Split};
use limbic_model::Published;
use limbic_train::ClipShard;
use limbic_weights::Precision;

use crate::commands::bench::args::BenchCommand;
use crate::doctor::Child;

#[derive(Parser)]
#[command(name = "limbic", version, about, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Make or import data
    #[command(subcommand)]
    Data(DataCommand),
    /// Fill the feature cache of a recipe without training
    Extract(ExtractArgs),
    /// Train what a recipe describes, from its last checkpoint if there is one
    Train(TrainArgs),
    /// Score a finished run on a split
    Eval(EvalArgs),
    /// Ask a finished run about one clip
    Infer(InferArgs),
    /// Pass a finished run on: PEFT adapter, projectors, class head, merged decoder
    Export(ExportArgs),
    /// Make an artifact of a checkpoint that others have published
    Import(ImportModelArgs),
    /// Download a published model
    Fetch(FetchArgs),
    /// Run a model of a Hugging Face folder and show or write its numbers
    Probe(ProbeArgs),
    /// Measure how fast this machine trains, generates, decodes, encodes, loads and reduces
    // As argparse has it, so that a script can add flags to those it has.
    #[command(subcommand, args_override_self = true)]
    Bench(BenchCommand),
    /// Say what this machine has, and which devices compute rightly
    Doctor(DoctorArgs),
}

#[derive(Subcommand)]
pub(crate) enum DataCommand {
    /// Synthesise clips with a face, a voice and words, from which emotions can be learnt
    Synth(SynthArgs),
    /// Write the manifest of a corpus in its published layout
    Import(ImportArgs),
}

#[derive(clap::Args)]
pub(crate) struct SynthArgs {
    /// Folder to make
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Number of clips
    #[arg(long, default_value_t = 480)]
    pub(crate) clips: usize,
    /// Names every random draw
    #[arg(long, default_value_t = 7)]
    pub(crate) seed: u64,
}

#[derive(clap::Args)]
pub(crate) struct ImportArgs {
    /// The corpus, for example emodb; docs/datasets.md lists them
    pub(crate) corpus: Source,
    /// Folder of the corpus, as its publisher lays it out
    #[arg(long)]
    pub(crate) from: PathBuf,
    /// Folder for manifest.jsonl
    #[arg(long)]
    pub(crate) out: PathBuf,
}

#[derive(clap::Args)]
pub(crate) struct ImportModelArgs {
    /// Its layout: emotion-llama, minigpt-v2, affectgpt-v1 or affectgpt-v2
    #[arg(value_parser = Published::parse)]
    pub(crate) kind: Published,
    /// The published file
    pub(crate) checkpoint: PathBuf,
    /// The model it is of: a file of configs/models, whose decoder is at hand
    #[arg(long)]
    pub(crate) model: PathBuf,
    /// How it is asked: a file of configs/prompts
    #[arg(long)]
    pub(crate) prompt: PathBuf,
    /// The labels it answers with: a file of configs/labels
    #[arg(long)]
    pub(crate) labels: Option<PathBuf>,
    /// Names the values of parameters that the file does not have
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Folder to make
    #[arg(long)]
    pub(crate) out: PathBuf,
}

#[derive(clap::Args)]
pub(crate) struct ExtractArgs {
    /// The recipe
    pub(crate) recipe: PathBuf,
    /// Changes to the recipe, for example cache.directory=/scratch/cache
    #[arg(value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
    /// A part of the clips, for example 2/8: all eight of them are all clips
    #[arg(long, default_value_t = ClipShard::ALL)]
    pub(crate) shard: ClipShard,
    /// As for train; the first of them encodes
    #[arg(long, default_value = "cpu")]
    pub(crate) devices: String,
}

#[derive(clap::Args)]
pub(crate) struct TrainArgs {
    /// The recipe
    pub(crate) recipe: PathBuf,
    /// Changes to the recipe, for example train.steps=100 or seed=3
    #[arg(value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
    /// cpu (a replica a core), cpu:2 (two replicas), cuda:0,1, wgpu or wgpu:cpu, where built in; doctor lists them
    #[arg(long, default_value = "cpu")]
    pub(crate) devices: String,
    /// Delete what the run has done so far and start over
    #[arg(long)]
    pub(crate) restart: bool,
}

#[derive(clap::Args)]
pub(crate) struct EvalArgs {
    /// A finished run, by folder or by name below runs/, or an exported artifact
    pub(crate) run: PathBuf,
    /// The split: train, validation or test
    #[arg(long, default_value = "test")]
    pub(crate) split: Split,
    /// A manifest other than the run's own
    #[arg(long)]
    pub(crate) data: Option<PathBuf>,
    /// Largest share of clips that may be unusable
    #[arg(long, default_value_t = 0.01, value_parser = share)]
    pub(crate) max_bad: f64,
    /// Print one JSON object instead of tables
    #[arg(long)]
    pub(crate) json: bool,
    /// As for train
    #[arg(long, default_value = "cpu")]
    pub(crate) devices: String,
}

#[derive(clap::Args)]
pub(crate) struct InferArgs {
    /// A finished run, by folder or by name below runs/, or an exported artifact
    pub(crate) run: PathBuf,
    /// A video or audio file
    #[arg(long)]
    pub(crate) clip: PathBuf,
    /// What is said in it
    #[arg(long)]
    pub(crate) transcript: Option<String>,
    /// Ask this too; may be given several times
    #[arg(long)]
    pub(crate) question: Vec<String>,
    /// Draw words at this temperature; 0 takes the likeliest
    #[arg(long, default_value_t = 0.0, value_parser = temperature)]
    pub(crate) temperature: f64,
    /// Draw from the likeliest words that hold this much probability together
    #[arg(long, default_value_t = 1.0, value_parser = nucleus)]
    pub(crate) top_p: f64,
    /// Names the draws
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// As for train
    #[arg(long, default_value = "cpu")]
    pub(crate) devices: String,
}

#[derive(clap::Args)]
pub(crate) struct ExportArgs {
    /// A finished run, by folder or by name below runs/
    pub(crate) run: PathBuf,
    /// Folder to make
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Write the decoder too, with the adapter added into its weights, as a Hugging Face folder
    #[arg(long)]
    pub(crate) merged: bool,
    /// Precision of decoder and adapter: f32, f16 or bf16; by default f32 for the adapter, and the base's for a merged decoder
    #[arg(long)]
    pub(crate) dtype: Option<Precision>,
    /// Largest file of a merged decoder, for example 500MB
    #[arg(long, default_value = "5GB", value_parser = bytes)]
    pub(crate) max_shard_size: u64,
    /// Read everything back and compare it with the run: every tensor, and the logits of a prompt
    #[arg(long)]
    pub(crate) verify: bool,
}

#[derive(clap::Args)]
pub(crate) struct FetchArgs {
    /// A repository of the hub (OWNER/NAME), a short name (see docs/cli.md), or the address of a file
    pub(crate) model: String,
    /// Branch, tag or commit
    #[arg(long, default_value = "main")]
    pub(crate) revision: String,
    /// Folder, or for an address the file, to make; by default the model's name below weights/
    #[arg(long)]
    pub(crate) to: Option<PathBuf>,
    /// Files to fetch in place of the usual ones, for example "*.json"; may be given several times
    #[arg(long, value_name = "GLOB")]
    pub(crate) include: Vec<String>,
    /// Take what the cache holds, and do not use the network
    #[arg(long)]
    pub(crate) offline: bool,
}

#[derive(clap::Args)]
#[command(group(ArgGroup::new("given").required(true).args(["ids", "text", "image", "audio", "video", "input"])))]
pub(crate) struct ProbeArgs {
    /// A folder with config.json and weights
    pub(crate) model: PathBuf,
    /// Token ids, for example 1,306,4966
    #[arg(long, value_delimiter = ',')]
    pub(crate) ids: Vec<u32>,
    /// Text, for the folder's tokenizer.json
    #[arg(long)]
    pub(crate) text: Option<String>,
    /// A picture
    #[arg(long)]
    pub(crate) image: Option<PathBuf>,
    /// A file with sound
    #[arg(long)]
    pub(crate) audio: Option<PathBuf>,
    /// A file with moving pictures
    #[arg(long)]
    pub(crate) video: Option<PathBuf>,
    /// Inputs as the model takes them, without preprocessing: input_ids, attention_mask, pixel_values, input_values or
    /// input_features in a safetensors file
    #[arg(long)]
    pub(crate) input: Option<PathBuf>,
    /// A PEFT adapter to put on a decoder
    #[arg(long)]
    pub(crate) adapter: Option<PathBuf>,
    /// Give the state after every layer too
    #[arg(long)]
    pub(crate) layers: bool,
    /// Write all numbers, in F32, to this safetensors file
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    /// Precision to compute in: f32, f16 or bf16
    #[arg(long, default_value = "f32")]
    pub(crate) dtype: Precision,
    /// Where to compute: cpu, cuda:0 or wgpu, where built in
    #[arg(long, default_value = "cpu")]
    pub(crate) device: String,
}

#[derive(clap::Args)]
pub(crate) struct DoctorArgs {
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Try this device alone, as --devices of train names it; may be given several times
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Vec<String>,
    /// Longest trial of a device, in seconds; on a GPU the first one compiles its kernels
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub(crate) timeout: u64,
    /// What a process of its own does for doctor
    #[arg(long, hide = true)]
    pub(crate) child: Option<Child>,
}

fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KIB" => 1 << 10,
        "MIB" => 1 << 20,
        "GIB" => 1 << 30,
        _ => 0,
    };
    let count = digits.parse::<u64>().ok();
    count
        .and_then(|count| count.checked_mul(unit))
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| "wanted a size such as 500MB or 5GB".to_string())
}

fn temperature(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|temperature: &f64| *temperature >= 0.0 && temperature.is_finite())
        .ok_or_else(|| "wanted a number of at least 0".to_string())
}

fn share(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| "wanted a share from 0 to 1".to_string())
}

/// The share of probability that words are drawn from: of none, nothing can be drawn.
fn nucleus(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|share: &f64| *share > 0.0 && *share <= 1.0)
        .ok_or_else(|| {
            "wanted a share above 0 and at most 1; 1 draws from all words, and `--temperature 0` takes the likeliest"
                .to_string()
        })
}
