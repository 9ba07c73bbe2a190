//! A published model run by itself, so that its numbers can be held against another implementation's.

mod audio;
mod decoder;
mod input;
mod numbers;
mod vision;

use std::path::Path;

use anyhow::Context;
use burn::tensor::Device;
use limbic_encoders::{HiddenStates, Keep};
use limbic_train::RunError;
use limbic_weights::Precision;

pub(crate) use numbers::Numbers;

use crate::args::ProbeArgs;

/// What kind of model a folder holds.
#[derive(Clone, Copy)]
enum Family {
    Decoder,
    Vision,
    Audio,
}

/// `model_type` of `config.json`, and what it means here.
const MODEL_TYPES: [(&str, Family); 17] = [
    ("llama", Family::Decoder),
    ("qwen2", Family::Decoder),
    ("clip", Family::Vision),
    ("clip_vision_model", Family::Vision),
    ("blip-2", Family::Vision),
    ("blip_2_vision_model", Family::Vision),
    ("siglip", Family::Vision),
    ("siglip_vision_model", Family::Vision),
    ("dinov2", Family::Vision),
    ("dinov2_with_registers", Family::Vision),
    ("vit_mae", Family::Vision),
    ("videomae", Family::Vision),
    ("hubert", Family::Audio),
    ("wav2vec2", Family::Audio),
    ("wavlm", Family::Audio),
    ("whisper", Family::Audio),
    ("imagebind", Family::Audio),
];

/// Loads the model and runs it over the input.
///
/// # Errors
/// A folder that holds no model, or one that is not built here; an input that the model does not read.
pub(crate) fn run(args: &ProbeArgs, device: &Device) -> anyhow::Result<Numbers> {
    match family(&args.model)? {
        Family::Decoder => decoder::run(args, device),
        Family::Vision => vision::run(args, device),
        Family::Audio => audio::run(args, device),
    }
}

/// `last_hidden_state`, `pooled` where the model pools, and with `layers` every hidden state, as transformers lists them.
fn hidden_states(states: HiddenStates, layers: bool) -> Numbers {
    let mut numbers = Numbers::default();
    if layers {
        for (index, state) in states.hidden.into_iter().enumerate() {
            numbers.push(format!("hidden.{index}"), state);
        }
    }
    numbers.push("last_hidden_state", states.last_hidden_state);
    if let Some(pooled) = states.pooled {
        numbers.push("pooled", pooled);
    }
    numbers
}

fn keep(layers: bool) -> Keep {
    if layers { Keep::All } else { Keep::Last(0) }
}

/// Encoders compute in F32, as they do in training, and take no adapter.
fn is_encoder(args: &ProbeArgs) -> anyhow::Result<()> {
    if args.adapter.is_some() {
        return Err(RunError::recipe("--adapter is for decoders; leave it out"));
    }
    if args.dtype == Precision::F32 {
        return Ok(());
    }
    Err(RunError::recipe(format!(
        "--dtype {}: encoders compute in f32; leave it out",
        args.dtype
    )))
}

fn wanted(args: &ProbeArgs, kind: &str, flags: &str) -> anyhow::Error {
    RunError::recipe(format!(
        "{} is {kind}, which reads {flags}",
        args.model.display()
    ))
}

fn family(folder: &Path) -> anyhow::Result<Family> {
    let path = folder.join("config.json");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string());
    let text =
        text.map_err(|error| RunError::recipe(format!("{error:#}; wanted a Hugging Face folder")))?;
    let config: serde_json::Value = serde_json::from_str(&text)
        .map_err(|error| RunError::recipe(format!("{}: {error}", path.display())))?;
    let got = config["model_type"].as_str().unwrap_or_default();
    let known = MODEL_TYPES.iter().find(|(name, _)| *name == got);
    known.map(|(_, family)| *family).ok_or_else(|| {
        let names: Vec<&str> = MODEL_TYPES.iter().map(|(name, _)| *name).collect();
        RunError::recipe(format!(
            "{}: `model_type` is `{got}`, wanted one of {}",
            path.display(),
            names.join(", ")
        ))
    })
}
