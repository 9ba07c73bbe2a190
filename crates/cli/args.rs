//! What can be typed. Definitions only.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use limbic_data::{Source, Split};
use limbic_model::Published;

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
    /// Train what a recipe describes, from its last checkpoint if there is one
    Train(TrainArgs),
    /// Score a finished run on a split
    Eval(EvalArgs),
    /// Ask a finished run about one clip
    Infer(InferArgs),
    /// Copy a finished run's artifact: PEFT adapter, projectors, class head
    Export(ExportArgs),
    /// Make an artifact of a checkpoint that others have published
    Import(ImportModelArgs),
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
    /// The corpus: emodb or crema-d
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
pub(crate) struct TrainArgs {
    /// The recipe
    pub(crate) recipe: PathBuf,
    /// Changes to the recipe, for example train.steps=100 or seed=3
    #[arg(value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
    /// cpu (a replica a core), cpu:2 (two replicas), cuda:0,1 or wgpu, where built in
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
    /// Draw words at this temperature; 0 takes the likeliest
    #[arg(long, default_value_t = 0.0, value_parser = temperature)]
    pub(crate) temperature: f64,
    /// Draw from the likeliest words that hold this much probability together
    #[arg(long, default_value_t = 1.0, value_parser = share)]
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
