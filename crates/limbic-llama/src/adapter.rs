//! PEFT's adapter folder: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! PEFT ignores tensors it does not expect and only warns of missing ones, so that a wrong name gives a model that
//! loads and behaves like the base model. Here every tensor and every setting must be accounted for.
//!
//! Deliberately absent: trained biases, `modules_to_save`, adapters on embeddings, initialisations that change the
//! base model (PiSSA and its like).

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::FloatDType;
use limbic_weights::{Checkpoint, Weights};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{InOrder, Llama, LlamaError, LoraConfig, Targets};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// What PEFT wrote before it wrote safetensors.
const OLD_WEIGHTS: &str = "adapter_model.bin";
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
    let adapters = Weights::collect_only(llama, is_adapter);
    let config = to_json(lora, &adapters, base_model);
    crate::file::write_sorted(&partial.join(CONFIG), &config)?;
    let weights = Weights {
        tensors: adapters
            .tensors
            .into_iter()
            .map(|(name, tensor)| (format!("{PREFIX}{name}"), tensor))
            .collect(),
    };
    weights.write(&partial.join(WEIGHTS))?;
    std::fs::rename(&partial, folder).map_err(LlamaError::io(folder))
}

/// Puts the adapters of a PEFT folder beside the weights of `llama`.
///
/// # Errors
/// A setting that is not built here; a missing, unexpected or wrong-shaped tensor; a model that has adapters already.
pub fn read_adapter(llama: Llama, folder: &Path) -> Result<Llama, LlamaError> {
    let lora = read_config(&folder.join(CONFIG))?;
    let (new, old) = (folder.join(WEIGHTS), folder.join(OLD_WEIGHTS));
    let path = if old.is_file() && !new.is_file() {
        old
    } else {
        new
    };
    let stored = Checkpoint::open(&path)?.rename(adapter_tensor_name)?;
    let stored = without_copies(stored, &llama, &path)?;
    // The seed is of no consequence: every value is replaced, or the load fails.
    let llama = llama.with_lora(&lora, 0)?;
    stored
        .load_only(llama, Some(FloatDType::F32), is_adapter)
        .map_err(|error| LlamaError::adapter(&path, error))
}

/// PEFT writes the weight of an adapted output layer or embedding along with its adapter. It is left out where it is the
/// base model's.
fn without_copies(
    stored: Checkpoint,
    llama: &Llama,
    path: &Path,
) -> Result<Checkpoint, LlamaError> {
    let mut copies = stored.clone();
    for name in stored.names() {
        let Some(layer) = name.strip_suffix(COPY) else {
            continue;
        };
        let own = format!("{layer}.weight");
        let base = Weights::collect_only(llama, |name| name == own);
        if base.tensors.get(&own) != Some(&copies.take(name)?) {
            return Err(LlamaError::adapter(
                path,
                format!(
                    "`{name}` is not the base model's `{own}`; wanted an adapter of this base, whose own weights were \
                     not trained"
                ),
            ));
        }
    }
    Ok(stored.ignore(
        |name| name.ends_with(COPY),
        "copies of the base model's weights, with which they were compared",
    ))
}

const COPY: &str = ".base_layer.weight";

/// Our name for an adapter's tensor, `model.layers.0.self_attn.q_proj.lora_A.weight`, from any that PEFT has given it:
/// below `base_model.model.` (itself below whatever holds the decoder), with or without the adapter's own name
/// (`lora_A.default.weight`, in checkpoints since PEFT 0.3), the magnitudes of DoRA with or without `.weight`.
/// Other names come back without the prefix.
pub fn adapter_tensor_name(name: &str) -> String {
    let name = name.split_once(PREFIX).map_or(name, |(_, rest)| rest);
    for field in ["lora_A", "lora_B", MAGNITUDE] {
        let Some((layer, rest)) = name.split_once(&format!(".{field}")) else {
            continue;
        };
        let infix = rest.strip_suffix(".weight").unwrap_or(rest);
        // At most one more part, the adapter's own name.
        if infix.is_empty() || (infix.starts_with('.') && !infix[1..].contains('.')) {
            let weight = if field == MAGNITUDE { "" } else { ".weight" };
            return format!("{layer}.{field}{weight}");
        }
    }
    name.to_string()
}

const MAGNITUDE: &str = "lora_magnitude_vector";

/// Whether a parameter of a model is an adapter's.
fn is_adapter(name: &str) -> bool {
    name.contains(".lora_A.") || name.contains(".lora_B.") || name.ends_with(MAGNITUDE)
}

/// Copies an `adapter_config.json` and lets it name another place of the base model.
///
/// # Errors
/// An unreadable file, or a disk that cannot be written.
pub fn rename_base(from: &Path, to: &Path, base_model: &str) -> Result<(), LlamaError> {
    let text = std::fs::read_to_string(from).map_err(LlamaError::io(from))?;
    let mut keys: Keys =
        serde_json::from_str(&text).map_err(|error| LlamaError::json(from, error))?;
    let base_model = Entry::Other(json!(base_model));
    keys.insert("base_model_name_or_path".into(), base_model);
    crate::file::write_sorted(to, &keys)
}

/// The settings in an `adapter_config.json`.
///
/// # Errors
/// An unreadable file, a missing or mistyped key, or a setting that is not built here.
pub fn read_config(path: &Path) -> Result<LoraConfig, LlamaError> {
    let text = std::fs::read_to_string(path).map_err(LlamaError::io(path))?;
    let json = |error: serde_json::Error| LlamaError::json(path, error);
    let file = Settings {
        path,
        keys: serde_json::from_str(&text).map_err(json)?,
        in_order: serde_json::from_str(&text).map_err(json)?,
    };
    if file.keys.get("peft_type") != Some(&json!("LORA")) {
        return Err(file.refuse("peft_type", "\"LORA\""));
    }
    for (key, value) in &file.keys {
        if !is_understood(key, value) {
            let wanted = match key.as_str() {
                "init_lora_weights" => {
                    "one that leaves the base model as it is (true, false, \"gaussian\", \"eva\", \"orthogonal\")"
                }
                _ => "it null, false or empty; this kind of adapter is not supported",
            };
            return Err(file.refuse(key, wanted));
        }
    }
    let number = "a whole number";
    Ok(LoraConfig {
        r: file.required("r", number)?,
        lora_alpha: file.required("lora_alpha", "a number")?,
        // PEFT's defaults stand where an old file lacks a key.
        lora_dropout: file.optional("lora_dropout", "a number")?.unwrap_or(0.0),
        target_modules: file.required(
            "target_modules",
            "a list of layer names or a regular expression",
        )?,
        // An empty one excludes nothing, as PEFT has it.
        exclude_modules: file
            .optional(
                "exclude_modules",
                "a list of layer names or a regular expression",
            )?
            .filter(|targets| !matches!(targets, Targets::Names(names) if names.is_empty())),
        layers_to_transform: file.list("layers_to_transform", number)?,
        layers_pattern: file.list("layers_pattern", "a name or a list of names")?,
        rank_pattern: file.patterns("rank_pattern", "whole numbers by name")?,
        alpha_pattern: file.patterns("alpha_pattern", "numbers by name")?,
        use_rslora: file
            .optional("use_rslora", "true or false")?
            .unwrap_or(false),
        use_dora: file.optional("use_dora", "true or false")?.unwrap_or(false),
    })
}

/// A file's settings, those that are mappings in the order of the file: of several patterns the first that fits counts.
type Keys = BTreeMap<String, Entry>;

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Entry {
    Mapping(InOrder<Value>),
    Other(Value),
}

struct Settings<'a> {
    path: &'a Path,
    keys: BTreeMap<String, Value>,
    in_order: Keys,
}

impl Settings<'_> {
    fn refuse(&self, key: &str, wanted: &str) -> LlamaError {
        let got = self.keys.get(key).unwrap_or(&Value::Null);
        LlamaError::adapter(self.path, format!("`{key}` is {got}, wanted {wanted}"))
    }

    fn required<T: DeserializeOwned>(&self, key: &str, wanted: &str) -> Result<T, LlamaError> {
        self.optional(key, wanted)?
            .ok_or_else(|| self.refuse(key, wanted))
    }

    fn optional<T: DeserializeOwned>(
        &self,
        key: &str,
        wanted: &str,
    ) -> Result<Option<T>, LlamaError> {
        match self.keys.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value.clone())
                .map(Some)
                .map_err(|_| self.refuse(key, wanted)),
        }
    }

    fn patterns<T: DeserializeOwned>(
        &self,
        key: &str,
        wanted: &str,
    ) -> Result<InOrder<T>, LlamaError> {
        let pairs = match self.in_order.get(key) {
            None | Some(Entry::Other(Value::Null)) => return Ok(InOrder::default()),
            Some(Entry::Other(_)) => return Err(self.refuse(key, wanted)),
            Some(Entry::Mapping(pairs)) => pairs,
        };
        let read = |(pattern, value): (&String, &Value)| {
            let value = serde_json::from_value(value.clone());
            let value = value.map_err(|_| self.refuse(key, wanted))?;
            Ok((pattern.clone(), value))
        };
        pairs.iter().map(read).collect()
    }

    /// One of something counts as a list of it.
    fn list<T: DeserializeOwned>(&self, key: &str, wanted: &str) -> Result<Vec<T>, LlamaError> {
        match self.keys.get(key) {
            Some(Value::Array(_)) | Some(Value::Null) | None => {
                Ok(self.optional(key, wanted)?.unwrap_or_default())
            }
            Some(_) => Ok(vec![self.required(key, wanted)?]),
        }
    }
}

/// Whether a key is one that we apply, one that changes no result, or one that is switched off.
fn is_understood(key: &str, value: &Value) -> bool {
    match key {
        "r"
        | "lora_alpha"
        | "lora_dropout"
        | "target_modules"
        | "exclude_modules"
        | "layers_to_transform"
        | "layers_pattern"
        | "rank_pattern"
        | "alpha_pattern"
        | "use_rslora"
        | "use_dora"
        | "peft_type" => true,
        // They speak of where the adapter comes from or of settings of a switched-off part.
        "auto_mapping"
        | "base_model_name_or_path"
        | "inference_mode"
        | "megatron_core"
        | "peft_version"
        | "qalora_group_size"
        | "revision"
        | "runtime_config"
        | "task_type" => true,
        "bias" => value == "none",
        "init_lora_weights" => match value {
            Value::Null | Value::Bool(_) => true,
            Value::String(kind) => ["gaussian", "eva", "orthogonal"].contains(&kind.as_str()),
            _ => false,
        },
        _ => match value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(items) => items.is_empty(),
            Value::Object(items) => items.is_empty(),
            _ => false,
        },
    }
}

/// The keys that PEFT has written since 0.7, so that old and new versions load the file without a warning, and newer
/// ones where they say something.
fn to_json(lora: &LoraConfig, adapters: &Weights, base_model: &str) -> Keys {
    let alphas = lora.alpha_pattern.iter();
    let alphas = alphas.map(|(pattern, alpha)| (pattern.clone(), whole_if_possible(*alpha)));
    let ranks = lora.rank_pattern.iter();
    let ranks = ranks.map(|(pattern, rank)| (pattern.clone(), json!(rank)));
    // Readers other than PEFT know lists of names only.
    let targets = if lora.target_modules.is_all_linear() {
        let layers = adapters.tensors.keys();
        let mut names: Vec<&str> = layers
            .filter_map(|name| name.split(".lora_").next()?.rsplit('.').next())
            .collect();
        names.sort_unstable();
        names.dedup();
        json!(names)
    } else {
        json!(lora.target_modules)
    };
    let mut config: Keys = [
        ("auto_mapping", Value::Null),
        ("base_model_name_or_path", json!(base_model)),
        ("bias", json!("none")),
        ("fan_in_fan_out", json!(false)),
        ("inference_mode", json!(true)),
        ("init_lora_weights", json!(true)),
        ("layers_pattern", list_or_null(&lora.layers_pattern)),
        (
            "layers_to_transform",
            list_or_null(&lora.layers_to_transform),
        ),
        ("lora_alpha", whole_if_possible(lora.lora_alpha)),
        ("lora_dropout", json!(lora.lora_dropout)),
        ("modules_to_save", Value::Null),
        ("peft_type", json!("LORA")),
        ("r", json!(lora.r)),
        ("revision", Value::Null),
        ("target_modules", targets),
        ("task_type", json!("CAUSAL_LM")),
        ("use_dora", json!(lora.use_dora)),
        ("use_rslora", json!(lora.use_rslora)),
    ]
    .map(|(key, value)| (key.to_string(), Entry::Other(value)))
    .into();
    for (key, patterns) in [
        ("alpha_pattern", alphas.collect()),
        ("rank_pattern", ranks.collect()),
    ] {
        config.insert(key.into(), Entry::Mapping(patterns));
    }
    if let Some(excluded) = &lora.exclude_modules {
        config.insert("exclude_modules".into(), Entry::Other(json!(excluded)));
    }
    config
}

fn list_or_null<T: serde::Serialize>(list: &[T]) -> Value {
    if list.is_empty() {
        Value::Null
    } else {
        json!(list)
    }
}

/// `16` rather than `16.0`: some readers of PEFT's files take whole numbers only.
fn whole_if_possible(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        json!(value as i64)
    } else {
        json!(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PEFT takes the first pattern that fits, in the order of the file; here a later one fits too and sorts before it.
    #[test]
    fn patterns_keep_the_order_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(CONFIG);
        let ranks = r#""rank_pattern": {
    "self_attn.q_proj": 2,
    "q_proj": 8,
    "a|k_proj": 3
  }"#;
        let text = format!(
            r#"{{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], {ranks},
                "alpha_pattern": {{"layers.0.self_attn.q_proj": 6, "a|q_proj": 16}}}}"#
        );
        std::fs::write(&path, &text).unwrap();
        let mut config = read_config(&path).unwrap();
        let ranks_read: Vec<usize> = config.rank_pattern.values().copied().collect();
        assert_eq!(ranks_read, [2, 8, 3]);
        let yaml = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<LoraConfig>(&yaml).unwrap(), config);
        config.rank_pattern = [("self_attn.q_proj".into(), 2), ("q_proj".into(), 8)].into();
        let layers = [0, 1].map(|index| format!("model.layers.{index}.self_attn.q_proj"));
        let plan = config.plan(&layers).unwrap();
        let plan: Vec<_> = plan.into_iter().flatten().collect();
        // What PEFT's `get_pattern_key` gives: rank 2 for both, alpha 6 and 16.
        assert_eq!((plan[0].rank, plan[0].scale), (2, 3.0));
        assert_eq!((plan[1].rank, plan[1].scale), (2, 8.0));

        let renamed = folder.path().join("renamed.json");
        rename_base(&path, &renamed, "base").unwrap();
        let renamed = std::fs::read_to_string(renamed).unwrap();
        assert!(renamed.contains(ranks), "{renamed}");
    }

    #[test]
    fn every_style_of_names_leads_to_ours() {
        let q = "model.layers.3.self_attn.q_proj";
        for (name, ours) in [
            (
                format!("{PREFIX}{q}.lora_A.weight"),
                format!("{q}.lora_A.weight"),
            ),
            (
                format!("{PREFIX}{q}.lora_B.default.weight"),
                format!("{q}.lora_B.weight"),
            ),
            (
                format!("llama_model.{PREFIX}{q}.lora_A.mine.weight"),
                format!("{q}.lora_A.weight"),
            ),
            (
                format!("{PREFIX}{q}.{MAGNITUDE}"),
                format!("{q}.{MAGNITUDE}"),
            ),
            (
                format!("{PREFIX}{q}.{MAGNITUDE}.default.weight"),
                format!("{q}.{MAGNITUDE}"),
            ),
            (
                format!("{PREFIX}{q}.{MAGNITUDE}.default"),
                format!("{q}.{MAGNITUDE}"),
            ),
            // Neither a bias nor another depth is taken for a matrix.
            (
                format!("{q}.lora_B.default.bias"),
                format!("{q}.lora_B.default.bias"),
            ),
            ("model.norm.weight".into(), "model.norm.weight".into()),
        ] {
            assert_eq!(adapter_tensor_name(&name), ours);
        }
    }
}
