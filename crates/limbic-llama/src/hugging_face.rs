//! `config.json` as Hugging Face writes it.
//!
//! What the file says ([`File`]) and what the model needs ([`LlamaConfig`]) are two types with one conversion.
//! Foreign files carry many keys that do not concern us, so unknown keys pass; a known key that would change the
//! computation to something not built here is an error, never ignored.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{LlamaConfig, LlamaError};

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

    /// Writes a `config.json` that transformers' `LlamaForCausalLM` loads, whole or not at all.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_json(&self, path: &Path) -> Result<(), LlamaError> {
        crate::file::write_json(path, &File::from(self.clone()))
    }
}

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
    rms_norm_eps: f64,
    rope_theta: Option<f64>,
    rope_scaling: Option<RopeParameters>,
    #[serde(skip_serializing)]
    rope_parameters: Option<RopeParameters>,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default = "silu")]
    hidden_act: String,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    bos_token_id: Option<u32>,
    eos_token_id: Option<OneOrMany>,
    #[serde(alias = "dtype")]
    torch_dtype: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct RopeParameters {
    rope_theta: Option<f64>,
    #[serde(alias = "type")]
    rope_type: Option<String>,
    partial_rotary_factor: Option<f64>,
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

fn silu() -> String {
    "silu".into()
}

impl TryFrom<File> for LlamaConfig {
    type Error = String;

    fn try_from(file: File) -> Result<Self, String> {
        if file.model_type != "llama" {
            return Err(format!(
                "`model_type` is `{}`, wanted `llama`",
                file.model_type
            ));
        }
        if file.hidden_act != "silu" {
            return Err(format!(
                "`hidden_act` is `{}`, wanted `silu`",
                file.hidden_act
            ));
        }
        for (key, on) in [
            ("attention_bias", file.attention_bias),
            ("mlp_bias", file.mlp_bias),
        ] {
            if on {
                return Err(format!(
                    "`{key}` is true; linear layers with a bias are not supported"
                ));
            }
        }
        for (key, parameters) in [
            ("rope_scaling", &file.rope_scaling),
            ("rope_parameters", &file.rope_parameters),
        ] {
            let Some(parameters) = parameters else {
                continue;
            };
            let kind = parameters.rope_type.as_deref().unwrap_or("default");
            let share = parameters.partial_rotary_factor.unwrap_or(1.0);
            if kind != "default" || share != 1.0 {
                return Err(format!(
                    "`{key}` asks for `{kind}` RoPE over {share} of each head, which is not supported yet; \
                     use a checkpoint with plain RoPE (`{key}` null or of type `default`), such as a LLaMA 2 or LLaMA 3"
                ));
            }
        }
        let nested_theta = file
            .rope_parameters
            .and_then(|parameters| parameters.rope_theta);
        if file.num_attention_heads == 0 {
            return Err("`num_attention_heads` is 0, wanted at least 1".into());
        }
        Ok(Self {
            vocab_size: file.vocab_size,
            hidden_size: file.hidden_size,
            intermediate_size: file.intermediate_size,
            num_hidden_layers: file.num_hidden_layers,
            num_attention_heads: file.num_attention_heads,
            num_key_value_heads: file.num_key_value_heads.unwrap_or(file.num_attention_heads),
            head_dim: file
                .head_dim
                .unwrap_or(file.hidden_size / file.num_attention_heads),
            max_position_embeddings: file.max_position_embeddings,
            rms_norm_eps: file.rms_norm_eps,
            // LLaMA 1 and 2 files leave it out; 10 000 is the value of Su et al. 2021 and transformers' default.
            rope_theta: nested_theta.or(file.rope_theta).unwrap_or(10_000.0),
            tie_word_embeddings: file.tie_word_embeddings,
            bos_token_id: file.bos_token_id,
            eos_token_ids: match file.eos_token_id {
                None => Vec::new(),
                Some(OneOrMany::One(id)) => vec![id],
                Some(OneOrMany::Many(ids)) => ids,
            },
            dtype: file.torch_dtype.unwrap_or_else(|| "float32".into()),
        })
    }
}

impl From<LlamaConfig> for File {
    fn from(config: LlamaConfig) -> Self {
        Self {
            architectures: vec!["LlamaForCausalLM".into()],
            model_type: llama(),
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
            rope_scaling: None,
            rope_parameters: None,
            tie_word_embeddings: config.tie_word_embeddings,
            hidden_act: silu(),
            attention_bias: false,
            mlp_bias: false,
            bos_token_id: config.bos_token_id,
            eos_token_id: match config.eos_token_ids.as_slice() {
                [] => None,
                [id] => Some(OneOrMany::One(*id)),
                ids => Some(OneOrMany::Many(ids.to_vec())),
            },
            torch_dtype: Some(config.dtype),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_published_file_is_understood() {
        let config = read(&llama2(r#", "rope_scaling": null"#)).unwrap();
        assert_eq!((config.num_key_value_heads, config.head_dim), (32, 128));
        assert_eq!(
            (config.rope_theta, config.dtype.as_str()),
            (10_000.0, "float16")
        );
        let nested = r#", "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}, "num_key_value_heads": 8"#;
        let config = read(&llama2(nested)).unwrap();
        assert_eq!((config.rope_theta, config.num_key_value_heads), (5e5, 8));
    }

    #[test]
    fn what_is_not_built_is_refused_with_its_key() {
        for (extra, key) in [
            (
                r#", "rope_scaling": {"type": "linear", "factor": 2.0}"#,
                "rope_scaling",
            ),
            (
                r#", "rope_parameters": {"rope_type": "llama3"}"#,
                "rope_parameters",
            ),
            (r#", "attention_bias": true"#, "attention_bias"),
            (r#", "num_key_value_heads": 5"#, "num_key_value_heads"),
            (r#", "head_dim": 7"#, "head_dim"),
            (r#", "head_dim": 0"#, "head_dim"),
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
    }

    #[test]
    fn a_written_file_reads_back_equal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        let mut config = LlamaConfig::small(100, 48, 2, 4);
        config.eos_token_ids = vec![2, 3];
        config.write_json(&path).unwrap();
        assert_eq!(LlamaConfig::read(&path).unwrap(), config);
    }
}
