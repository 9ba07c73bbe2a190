//! A published model run by itself, so that its numbers can be held against another implementation's.

mod decoder;
mod input;
mod numbers;

use std::path::Path;

use anyhow::Context;
use burn::tensor::Device;
use limbic_train::RunError;

pub(crate) use numbers::Numbers;

use crate::args::ProbeArgs;

/// What kind of model a folder holds.
enum Family {
    Decoder,
}

/// `model_type` of `config.json`, and what it means here.
const MODEL_TYPES: [(&str, Family); 1] = [("llama", Family::Decoder)];

/// Loads the model and runs it over the input.
///
/// # Errors
/// A folder that holds no model, or one that is not built here; an input that the model does not read.
pub(crate) fn run(args: &ProbeArgs, device: &Device) -> anyhow::Result<Numbers> {
    match family(&args.model)? {
        Family::Decoder => decoder::run(args, device),
    }
}

fn family(folder: &Path) -> anyhow::Result<&'static Family> {
    let path = folder.join("config.json");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string());
    let text = text.map_err(|error| RunError::recipe(format!("{error:#}; wanted a Hugging Face folder")))?;
    let config: serde_json::Value = serde_json::from_str(&text)
        .map_err(|error| RunError::recipe(format!("{}: {error}", path.display())))?;
    let got = config["model_type"].as_str().unwrap_or_default();
    let known = MODEL_TYPES.iter().find(|(name, _)| *name == got);
    known.map(|(_, family)| family).ok_or_else(|| {
        let names: Vec<&str> = MODEL_TYPES.iter().map(|(name, _)| *name).collect();
        RunError::recipe(format!(
            "{}: `model_type` is `{got}`, wanted one of {}",
            path.display(),
            names.join(", ")
        ))
    })
}
