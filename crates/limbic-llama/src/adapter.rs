//! PEFT's adapter folder: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! PEFT ignores tensors it does not expect and only warns of missing ones, so that a wrong name gives a model that
//! loads and behaves like the base model. Here every tensor and every setting must be accounted for.
//!
//! Deliberately absent: DoRA, biases, ranks or scales that differ between layers, `modules_to_save`.

use std::collections::BTreeMap;
use std::path::Path;

use limbic_weights::Weights;
use serde_json::{Value, json};

use crate::{Llama, LlamaError, LoraConfig};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// PEFT's names are those of its own wrapper around the model.
const PREFIX: &str = "base_model.model.";

/// Writes the adapters of `llama` as a folder that `peft.PeftModel.from_pretrained` loads, whole or not at all.
///
/// `base_model` is the name or path that a reader will take the base model from.
///
/// # Errors
/// A model without adapters, a folder that exists already, a disk that cannot be written.
pub fn write_adapter(llama: &Llama, folder: &Path, base_model: &str) -> Result<(), LlamaError> {
    let lora = llama.lora().ok_or_else(|| {
        LlamaError::adapter(
            folder,
            "the model has no adapters; there is nothing to write",
        )
    })?;
    if folder.exists() {
        return Err(LlamaError::adapter(
            folder,
            "exists already; name a new folder or move this one away",
        ));
    }
    let partial = crate::file::partial(folder);
    if partial.exists() {
        std::fs::remove_dir_all(&partial).map_err(LlamaError::io(&partial))?;
    }
    std::fs::create_dir_all(&partial).map_err(LlamaError::io(&partial))?;
    crate::file::write_json(&partial.join(CONFIG), &to_json(lora, base_model))?;
    let mut weights = Weights::default();
    for (name, factor) in llama.clone().lora_factors() {
        for (field, tensor) in Weights::collect(factor).tensors {
            let name = format!("{PREFIX}{name}.{field}");
            weights.tensors.insert(name, tensor);
        }
    }
    weights.write(&partial.join(WEIGHTS))?;
    std::fs::rename(&partial, folder).map_err(LlamaError::io(folder))
}

/// Puts the adapters of a PEFT folder beside the weights of `llama`.
///
/// # Errors
/// A setting that is not built here; a missing, unexpected or wrong-shaped tensor; a model that has adapters already.
pub fn read_adapter(llama: Llama, folder: &Path) -> Result<Llama, LlamaError> {
    let lora = read_config(&folder.join(CONFIG))?;
    let path = folder.join(WEIGHTS);
    let mut stored = Weights::read(&path)?;
    // The seed is of no consequence: every value is replaced, or the load fails.
    let mut llama = llama.with_lora(&lora, 0)?;
    for (name, factor) in llama.lora_factors() {
        let name = format!("{PREFIX}{name}.");
        *factor = limbic_weights::load(factor.clone(), &stored.below(&name))
            .map_err(|error| LlamaError::adapter(&path, format!("at `{name}`: {error}")))?;
        stored = stored.filter(|other| !other.starts_with(&name));
    }
    match stored.tensors.keys().next() {
        None => Ok(llama),
        Some(name) => Err(LlamaError::adapter(
            &path,
            format!(
                "unexpected tensor `{name}`; wanted `{PREFIX}<layer>.lora_A.weight` and `.lora_B.weight` of the \
                 layers in `target_modules` only"
            ),
        )),
    }
}

/// Copies an `adapter_config.json` and lets it name another place of the base model.
///
/// # Errors
/// An unreadable file, or a disk that cannot be written.
pub fn rename_base(from: &Path, to: &Path, base_model: &str) -> Result<(), LlamaError> {
    let text = std::fs::read_to_string(from).map_err(LlamaError::io(from))?;
    let mut keys: BTreeMap<String, Value> =
        serde_json::from_str(&text).map_err(|error| LlamaError::json(from, error))?;
    keys.insert("base_model_name_or_path".into(), json!(base_model));
    crate::file::write_json(to, &keys)
}

/// The settings in an `adapter_config.json`.
///
/// # Errors
/// An unreadable file, a missing or mistyped key, or a setting that is not built here.
pub fn read_config(path: &Path) -> Result<LoraConfig, LlamaError> {
    let text = std::fs::read_to_string(path).map_err(LlamaError::io(path))?;
    let keys: BTreeMap<String, Value> =
        serde_json::from_str(&text).map_err(|error| LlamaError::json(path, error))?;
    let fail = |key: &str, wanted: &str| {
        let got = keys.get(key).unwrap_or(&Value::Null);
        Err(LlamaError::adapter(
            path,
            format!("`{key}` is {got}, wanted {wanted}"),
        ))
    };
    if keys.get("peft_type") != Some(&json!("LORA")) {
        return fail("peft_type", "\"LORA\"");
    }
    for (key, value) in &keys {
        if !is_understood(key, value) {
            return fail(
                key,
                "it null, false or empty; this kind of adapter is not supported",
            );
        }
    }
    let Some(r) = keys.get("r").and_then(Value::as_u64) else {
        return fail("r", "a whole number");
    };
    let Some(lora_alpha) = keys.get("lora_alpha").and_then(Value::as_f64) else {
        return fail("lora_alpha", "a number");
    };
    let targets = keys.get("target_modules").and_then(Value::as_array);
    let Some(target_modules) = targets.and_then(|targets| {
        targets
            .iter()
            .map(|target| target.as_str().map(str::to_string))
            .collect::<Option<Vec<_>>>()
    }) else {
        return fail("target_modules", "a list of layer names");
    };
    // PEFT's defaults stand for these two where an old file lacks them.
    let Some(lora_dropout) = keys.get("lora_dropout").map_or(Some(0.0), Value::as_f64) else {
        return fail("lora_dropout", "a number");
    };
    let Some(use_rslora) = keys.get("use_rslora").map_or(Some(false), Value::as_bool) else {
        return fail("use_rslora", "true or false");
    };
    Ok(LoraConfig {
        r: r as usize,
        lora_alpha,
        lora_dropout,
        target_modules,
        use_rslora,
    })
}

/// Whether a key is one that we apply, one that changes no result, or one that is switched off.
fn is_understood(key: &str, value: &Value) -> bool {
    match key {
        "r" | "lora_alpha" | "lora_dropout" | "target_modules" | "use_rslora" | "peft_type" => true,
        // They speak of where the adapter comes from, of how it was first drawn, or of settings of a switched-off part.
        "auto_mapping"
        | "base_model_name_or_path"
        | "inference_mode"
        | "init_lora_weights"
        | "megatron_core"
        | "peft_version"
        | "qalora_group_size"
        | "revision"
        | "runtime_config"
        | "task_type" => true,
        "bias" => value == "none",
        _ => match value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(items) => items.is_empty(),
            Value::Object(items) => items.is_empty(),
            _ => false,
        },
    }
}

/// The keys that PEFT has written since 0.7, so that old and new versions load the file without a warning.
fn to_json(lora: &LoraConfig, base_model: &str) -> Value {
    json!({
        "alpha_pattern": {},
        "auto_mapping": null,
        "base_model_name_or_path": base_model,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "layers_pattern": null,
        "layers_to_transform": null,
        "lora_alpha": whole_if_possible(lora.lora_alpha),
        "lora_dropout": lora.lora_dropout,
        "modules_to_save": null,
        "peft_type": "LORA",
        "r": lora.r,
        "rank_pattern": {},
        "revision": null,
        "target_modules": lora.target_modules,
        "task_type": "CAUSAL_LM",
        "use_dora": false,
        "use_rslora": lora.use_rslora,
    })
}

/// `16` rather than `16.0`: some readers of PEFT's files take whole numbers only.
fn whole_if_possible(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        json!(value as i64)
    } else {
        json!(value)
    }
}
