//! What the feature cache is worth: the same training with a ViT-L that encodes every clip in every step, and with its
//! features read from disk, none of them kept in memory. Weights are random; the decoder is small, so that the encoder is what
//! is measured. Prints one JSON line.
//!
//! `cargo run --release --example feature_cache -p limbic-train -- [FRAMES]`

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example prints"
)]

use std::path::Path;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use burn::tensor::Device;
use limbic_data::synth::{SynthConfig, generate};
use limbic_train::{Start, read_recipe, train};
use limbic_weights::Precision;
use serde_json::{Value, json};

/// Samples of a step and of an epoch: with six parts of which four are for training, of 12 clips.
const BATCH: u64 = 4;
const EPOCH: u64 = 8;

fn recipe(frames: u64) -> String {
    let mean_and_std = "mean: [0.48, 0.46, 0.41], std: [0.27, 0.26, 0.28]";
    format!(
        "name: bench
prompt: {{ template: ['<video>', '{{instruction}}'], instructions: {{ describe: ['What is seen?'] }} }}
model:
  decoder: {{ kind: scratch, vocab_size: 300, hidden_size: 64, intermediate_size: 128, num_hidden_layers: 2,
             num_attention_heads: 4, num_key_value_heads: 4, max_position_embeddings: 512 }}
  inputs:
    - name: video
      encoder: {{ kind: vit, seed: 1, image_size: 224, patch_size: 14, dim: 1024, depth: 24, heads: 16, class_token: true,
                 {mean_and_std} }}
      frames: {{ kind: uniform, count: {frames} }}
      crop: {{ kind: center_square }}
      projector: {{ kind: linear, tokens: 8 }}
data: {{ manifest: data/manifest.jsonl, tasks: {{ describe: 1.0 }} }}
train: {{ steps: 4, batch_size: {BATCH}, learning_rate: {{ decoder: 1.0e-3, projectors: 1.0e-3 }} }}
run: {{ log_every: 1 }}
"
    )
}

/// Samples a second in the second epoch, and the seconds that a step of it waited for data.
fn second_epoch(name: &str, overrides: &[&str]) -> anyhow::Result<(f64, f64)> {
    let devices = vec![Device::flex(); std::thread::available_parallelism().map_or(1, usize::from)];
    let overrides: Vec<String> = [&format!("name={name}")[..]]
        .iter()
        .chain(overrides)
        .map(|text| text.to_string())
        .collect();
    let start = Start {
        devices: &devices,
        calibrates: false,
        suits: Precision::F32,
        restart: false,
        stop: &AtomicBool::new(false),
        say: &|line| eprintln!("{line}"),
    };
    let run = train(read_recipe(Path::new("recipe.yaml"), &overrides)?, &start)?;
    let text = std::fs::read_to_string(run.path("metrics.jsonl"))?;
    let lines: Vec<Value> = text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let number = |line: &Value, key: &str| line[key].as_f64().context("metrics.jsonl lacks a key");
    let second = &lines[(EPOCH / BATCH) as usize..];
    let (mut seconds, mut waits) = (0.0, 0.0);
    for line in second {
        seconds += BATCH as f64 / number(line, "samples_per_second")?;
        waits += number(line, "data_wait")?;
    }
    let count = second.len() as f64;
    Ok((BATCH as f64 * count / seconds, waits / count))
}

fn main() -> anyhow::Result<()> {
    let frames = std::env::args().nth(1).map_or(Ok(2), |text| text.parse())?;
    let folder = tempfile::tempdir()?;
    std::env::set_current_dir(folder.path())?;
    let clips = SynthConfig { clips: 12, seed: 7 };
    generate(Path::new("data"), &clips, &|_| {})?;
    std::fs::write("recipe.yaml", recipe(frames))?;
    let on_call = "cache.memory_gib=0";
    let (encoding, encoding_wait) = second_epoch("encoding", &[on_call, "cache.enabled=false"])?;
    let (cached, cached_wait) = second_epoch("cached", &[on_call])?;
    let line = json!({
        "case": "second epoch, ViT-L/14 of 224 pixels",
        "frames": frames,
        "encoding_samples_per_second": encoding,
        "encoding_data_wait": encoding_wait,
        "cached_samples_per_second": cached,
        "cached_data_wait": cached_wait,
        "ratio": cached / encoding,
    });
    println!("{line}");
    Ok(())
}
