//! `config.json` as Hugging Face writes it.
//!
//! What the file says ([`File`]) and what the model needs ([`LlamaConfig`]) are two types with one conversion.
//! Foreign files carry many keys that do not concern us, so unknown keys pass; a known key that would change the
//! computation to something not built here is an error, never ignored. Both spellings of the RoPE and dtype keys are
//! read, that of transformers 5 (`rope_parameters`, `dtype`) and the one before (`rope_theta`, `rope_scaling`,
//! `torch_dtype`); the older one is written, which every version reads.

use std::collections::BTreeMap;
use std::path::Path;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::rope_keys::{RopeParameters, Spellings};
use crate::{Architecture, LlamaConfig, LlamaError};

impl LlamaConfig {
    /// Reads a Hugging Face `config.json`.
    ///
    /// # Errors
    /// An unreadable file, a missing or mistyped key, or a model that [`validate`](Self::validate) refuses.
    pub fn read(path: &Path) -> Result<Self, LlamaError> {
        let text = std::fs::read_to_string(path).map_err(LlamaError::io(path))?;
        let file: File =
            serde_json::from_str(&text).map_err(|error| LlamaError::json(path, error))?;
        let config = Self::try_from(file).map_err(|detail| LlamaError::json(path, detail))?;
        config
            .validate()
            .map_err(|error| LlamaError::json(path, error))?;
        Ok(config)
    }

    /// Writes a `config.json` that transformers' class of this architecture loads, whole or not at all.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_json(&self, path: &Path) -> Result<(), LlamaError> {
        crate::file::write_json(path, &File::from(self.clone()))
    }

    /// The first key in which `other` computes something else, with both values. How weights are stored and which
    /// tokens begin and end a text may differ.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let keys = |config: &Self| -> BTreeMap<String, Value> {
            let value = serde_json::to_value(File::from(config.clone()));
            let value = value.expect("numbers, words and lists of them are JSON");
            serde_json::from_value(value).expect("it was made of a mapping")
        };
        let (mine, others) = (keys(self), keys(other));
        let same = ["torch_dtype", "bos_token_id", "eos_token_id"];
        let key = mine
            .keys()
            .find(|key| !same.contains(&key.as_str()) && mine.get(*key) != others.get(*key))?;
        Some(format!("`{key}` is {} and {}", mine[key], others[key]))
    }
}

/// As in a recipe: the keys of `config.json`, and no others.
impl<'de> Deserialize<'de> for LlamaConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let file = File::deserialize(deserializer)?;
        if let Some(key) = file.foreign.keys().next() {
            return Err(D::Error::unknown_field(key, KEYS));
        }
        let config = Self::try_from(file).map_err(D::Error::custom)?;
        config.validate().map_err(D::Error::custom)?;
        Ok(config)
    }
}

impl Serialize for LlamaConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        File::from(self.clone()).serialize(serializer)
    }
}

const KEYS: &[&str] = &[
    "model_type",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
    "rms_norm_eps",
    "rope_theta",
    "rope_scaling",
    "tie_word_embeddings",
    "attention_bias",
    "mlp_bias",
    "bos_token_id",
    "eos_token_id",
    "torch_dtype",
];

/// The keys of `config.json` that concern us.
#[derive(Serialize, Deserialize)]
struct File {
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(default = "llama")]
    model_type: String,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    max_position_embeddings: usize,
    #[serde(default = "rms_norm_eps")]
    rms_norm_eps: f64,
    rope_theta: Option<f64>,
    rope_scaling: Option<RopeParameters>,
    #[serde(skip_serializing)]
    rope_parameters: Option<RopeParameters>,
    #[serde(skip_serializing)]
    partial_rotary_factor: Option<f64>,
    #[serde(skip_serializing)]
    original_max_position_embeddings: Option<usize>,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default = "silu")]
    hidden_act: String,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    #[serde(default, skip_serializing)]
    use_sliding_window: bool,
    #[serde(default, skip_serializing)]
    layer_types: Option<Vec<String>>,
    #[serde(skip_serializing)]
    quantization_config: Option<Value>,
    bos_token_id: Option<u32>,
    eos_token_id: Option<OneOrMany>,
    torch_dtype: Option<String>,
    #[serde(skip_serializing)]
    dtype: Option<String>,
    #[serde(flatten, skip_serializing)]
    foreign: BTreeMap<String, Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(u32),
    Many(Vec<u32>),
}

fn llama() -> String {
    "llama".into()
}

/// transformers' default of both architectures.
fn rms_norm_eps() -> f64 {
    1e-6
}

fn silu() -> String {
    "silu".into()
}

impl TryFrom<File> for LlamaConfig {
    type Error = String;

    fn try_from(file: File) -> Result<Self, String> {
        let architecture = match file.model_type.as_str() {
            "llama" => Architecture::Llama,
            "qwen2" => Architecture::Qwen2,
            other => {
                return Err(format!(
                    "`model_type` is `{other}`, wanted `llama` or `qwen2`"
                ));
            }
        };
        // Two names of one function.
        if !["silu", "swish"].contains(&file.hidden_act.as_str()) {
            return Err(format!(
                "`hidden_act` is `{}`, wanted `silu`",
                file.hidden_act
            ));
        }
        // Keys that transformers' Qwen2 does not have, though files may.
        let biased = |key: &str, on: bool| match architecture {
            Architecture::Qwen2 if on => Err(format!(
                "`{key}` is true, which a Qwen2 does not have; wanted it false or absent"
            )),
            _ => Ok(on),
        };
        let attention_bias = biased("attention_bias", file.attention_bias)?;
        let mlp_bias = biased("mlp_bias", file.mlp_bias)?;
        if file.use_sliding_window {
            return Err(
                "`use_sliding_window` is true, wanted false; windows are not built here".into(),
            );
        }
        let mut layers = file.layer_types.iter().flatten();
        if let Some(other) = layers.find(|layer| *layer != "full_attention") {
            return Err(format!(
                "`layer_types` holds `{other}`, wanted `full_attention` only"
            ));
        }
        if file
            .quantization_config
            .is_some_and(|value| !value.is_null())
        {
            return Err(
                "`quantization_config` is set; wanted a checkpoint in F32, F16 or BF16".into(),
            );
        }
        let (rope_theta, rope_scaling) = Spellings {
            theta: file.rope_theta,
            share: file.partial_rotary_factor,
            original: file.original_max_position_embeddings,
            longest: file.max_position_embeddings,
            older: file.rope_scaling.as_ref(),
            newer: file.rope_parameters.as_ref(),
        }
        .agree()?;
        if file.num_attention_heads == 0 {
            return Err("`num_attention_heads` is 0, wanted at least 1".into());
        }
        Ok(Self {
            architecture,
            vocab_size: file.vocab_size,
            hidden_size: file.hidden_size,
            intermediate_size: file.intermediate_size,
            num_hidden_layers: file.num_hidden_layers,
            num_attention_heads: file.num_attention_heads,
            num_key_value_heads: file.num_key_value_heads.unwrap_or(match architecture {
                Architecture::Llama => file.num_attention_heads,
                // transformers' default, whatever the number of heads.
                Architecture::Qwen2 => 32,
            }),
            head_dim: file
                .head_dim
                .unwrap_or(file.hidden_size / file.num_attention_heads),
            max_position_embeddings: file.max_position_embeddings,
            rms_norm_eps: file.rms_norm_eps,
            rope_theta,
            rope_scaling,
            attention_bias,
            mlp_bias,
            tie_word_embeddings: file.tie_word_embeddings,
            bos_token_id: file.bos_token_id,
            eos_token_ids: match file.eos_token_id {
                None => Vec::new(),
                Some(OneOrMany::One(id)) => vec![id],
                Some(OneOrMany::Many(ids)) => ids,
            },
            dtype: file
                .dtype
                .or(file.torch_dtype)
                .unwrap_or_else(|| "float32".into()),
        })
    }
}

impl From<LlamaConfig> for File {
    fn from(config: LlamaConfig) -> Self {
        let (class, model_type) = match config.architecture {
            Architecture::Llama => ("LlamaForCausalLM", "llama"),
            Architecture::Qwen2 => ("Qwen2ForCausalLM", "qwen2"),
        };
        Self {
            architectures: vec![class.into()],
            model_type: model_type.into(),
            vocab_size: config.vocab_size,
            hidden_size: config.hidden_size,
            intermediate_size: config.intermediate_size,
            num_hidden_layers: config.num_hidden_layers,
            num_attention_heads: config.num_attention_heads,
            num_key_value_heads: Some(config.num_key_value_heads),
            head_dim: Some(config.head_dim),
            max_position_embeddings: config.max_position_embeddings,
            rms_norm_eps: config.rms_norm_eps,
            rope_theta: Some(config.rope_theta),
            rope_scaling: config.rope_scaling.map(RopeParameters::from),
            rope_parameters: None,
            partial_rotary_factor: None,
            original_max_position_embeddings: None,
            tie_word_embeddings: config.tie_word_embeddings,
            hidden_act: silu(),
            attention_bias: config.attention_bias,
            mlp_bias: config.mlp_bias,
            use_sliding_window: false,
            layer_types: None,
            quantization_config: None,
            bos_token_id: config.bos_token_id,
            eos_token_id: match config.eos_token_ids.as_slice() {
                [] => None,
                [id] => Some(OneOrMany::One(*id)),
                ids => Some(OneOrMany::Many(ids.to_vec())),
            },
            torch_dtype: Some(config.dtype),
            dtype: None,
            foreign: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RopeScaling;

    fn read(text: &str) -> Result<LlamaConfig, LlamaError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, text).unwrap();
        LlamaConfig::read(&path)
    }

    /// The keys of a published LLaMA 2 file, with `extra` put before the closing brace.
    fn llama2(extra: &str) -> String {
        format!(
            r#"{{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
                "hidden_size": 4096, "intermediate_size": 11008, "max_position_embeddings": 4096,
                "num_attention_heads": 32, "num_hidden_layers": 32, "rms_norm_eps": 1e-05, "use_cache": true,
                "vocab_size": 32000, "torch_dtype": "float16", "bos_token_id": 1, "eos_token_id": 2{extra}}}"#
        )
    }

    const LLAMA3: &str = r#"{"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192, "rope_type": "llama3""#;

    #[test]
    fn published_files_are_understood() {
        let config = read(&llama2(r#", "rope_scaling": null, "head_dim": null"#)).unwrap();
        assert_eq!((config.num_key_value_heads, config.head_dim), (32, 128));
        assert_eq!(
            (config.rope_theta, config.dtype.as_str()),
            (10_000.0, "float16")
        );
        let older = llama2("").replace(r#""silu""#, r#""swish""#);
        let older = older.replace(r#""rms_norm_eps": 1e-05,"#, "");
        assert_eq!(read(&older).unwrap().rms_norm_eps, 1e-6);
        let nested = r#", "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}, "num_key_value_heads": 8"#;
        let config = read(&llama2(nested)).unwrap();
        assert_eq!((config.rope_theta, config.num_key_value_heads), (5e5, 8));

        let older = read(&llama2(&format!(
            r#", "rope_theta": 5e5, "rope_scaling": {LLAMA3}, "type": "llama3"}}"#
        )));
        let newer = read(&llama2(&format!(
            r#", "rope_parameters": {LLAMA3}, "rope_theta": 500000}}, "dtype": "float16""#
        )));
        let (older, newer) = (older.unwrap(), newer.unwrap());
        assert_eq!(older, newer);
        assert!(matches!(
            older.rope_scaling,
            Some(RopeScaling::Llama3 { factor: 32.0, .. })
        ));
        let linear = read(&llama2(
            r#", "rope_scaling": {"type": "linear", "factor": 2}"#,
        ))
        .unwrap();
        assert_eq!(
            linear.rope_scaling,
            Some(RopeScaling::Linear { factor: 2.0 })
        );
        let qwen2 = llama2(
            r#", "use_sliding_window": false, "sliding_window": 131072, "max_window_layers": 28,
                "layer_types": ["full_attention", "full_attention"]"#,
        );
        let qwen2 = qwen2.replace(r#""model_type": "llama""#, r#""model_type": "qwen2""#);
        assert_eq!(read(&qwen2).unwrap().architecture, Architecture::Qwen2);
    }

    #[test]
    fn what_is_not_built_is_refused_with_its_key() {
        for (extra, key) in [
            (
                r#", "rope_scaling": {"type": "dynamic", "factor": 2.0}"#,
                "`dynamic`",
            ),
            (
                r#", "rope_scaling": {"rope_type": "yarn", "factor": 2.0, "beta_fast": 32}"#,
                "`yarn`",
            ),
            (
                r#", "rope_scaling": {"type": "default", "mrope_section": [16, 24, 24]}"#,
                "mrope_section",
            ),
            (
                r#", "rope_parameters": {"rope_type": "llama3"}"#,
                "`factor`",
            ),
            (
                r#", "rope_parameters": {"rope_type": "linear", "factor": 2}, "rope_scaling": {"type": "linear", "factor": 3}"#,
                "rope_scaling",
            ),
            (
                r#", "rope_scaling": {"type": "linear", "factor": -1}"#,
                "`factor`",
            ),
            (r#", "partial_rotary_factor": 0.5"#, "partial_rotary_factor"),
            (r#", "use_sliding_window": true"#, "use_sliding_window"),
            (r#", "layer_types": ["sliding_attention"]"#, "layer_types"),
            (
                r#", "quantization_config": {"bits": 4}"#,
                "quantization_config",
            ),
            (r#", "num_key_value_heads": 5"#, "num_key_value_heads"),
            (r#", "head_dim": 7"#, "head_dim"),
            (r#", "head_dim": 0"#, "head_dim"),
            (r#", "head_dim": 9223372036854775806"#, "head_dim"),
            (
                r#", "num_key_value_heads": 9223372036854775807"#,
                "num_key_value_heads",
            ),
        ] {
            let message = read(&llama2(extra)).unwrap_err().to_string();
            assert!(
                message.contains(key) && message.contains("config.json"),
                "{message}"
            );
        }
        let message = read(&llama2("").replace("\"vocab_size\": 32000,", ""))
            .unwrap_err()
            .to_string();
        assert!(message.contains("vocab_size"), "{message}");
        let mistral = llama2("").replace(r#""model_type": "llama""#, r#""model_type": "mistral""#);
        let message = read(&mistral).unwrap_err().to_string();
        assert!(message.contains("`mistral`"), "{message}");
    }

    #[test]
    fn a_written_file_reads_back_equal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        let mut config = LlamaConfig::small(100, 48, 2, 4);
        config.eos_token_ids = vec![2, 3];
        let llama3 = LlamaConfig {
            rope_scaling: Some(RopeScaling::Llama3 {
                factor: 8.0,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_max_position_embeddings: 8192,
            }),
            mlp_bias: true,
            ..config.clone()
        };
        let qwen2 = LlamaConfig {
            architecture: Architecture::Qwen2,
            ..config.clone()
        };
        for config in [config, llama3, qwen2] {
            config.write_json(&path).unwrap();
            assert_eq!(LlamaConfig::read(&path).unwrap(), config);
        }
    }

    #[test]
    fn a_difference_is_told_by_its_key() {
        let config = LlamaConfig::small(100, 48, 2, 4);
        let same = LlamaConfig {
            dtype: "float16".into(),
            eos_token_ids: vec![7],
            ..config.clone()
        };
        assert_eq!(config.difference(&same), None);
        let other = LlamaConfig {
            rope_theta: 5e5,
            ..config.clone()
        };
        let told = config.difference(&other).unwrap();
        assert_eq!(told, "`rope_theta` is 10000.0 and 500000.0");
        // A recipe's keys are strict.
        let mut keys = serde_json::to_value(&config).unwrap();
        let read = serde_json::from_value::<LlamaConfig>;
        assert_eq!(read(keys.clone()).unwrap(), config);
        keys["hiden_size"] = 3.into();
        let error = read(keys).unwrap_err().to_string();
        assert!(error.contains("hiden_size"), "{error}");
    }
}
