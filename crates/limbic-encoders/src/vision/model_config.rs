//! Reading a Hugging Face `config.json`, and refusing what no vision transformer can be built from.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::EncoderError;
use crate::folder::refuse;

/// The part of a `config.json` that describes the vision tower: `vision_config` where a model has other towers, else all
/// of it. An absent or `null` one leaves every key at its default, and CLIP's older `vision_config_dict` replaces all that
/// `vision_config` says, its own absent keys at their defaults (transformers' `CLIPConfig`).
pub(super) fn vision_part(value: &Value) -> Value {
    let there = |key: &str| value.get(key).filter(|part| !part.is_null()).cloned();
    let part = match value["model_type"].as_str() {
        Some("clip") => there("vision_config_dict").or_else(|| there("vision_config")),
        Some("siglip" | "blip-2") => there("vision_config"),
        _ => return value.clone(),
    };
    part.unwrap_or_else(|| Value::Object(Default::default()))
}

/// `value` as a config; keys that the config does not know are of no concern to it.
pub(super) fn parse<T: DeserializeOwned>(value: &Value, path: &Path) -> Result<T, EncoderError> {
    crate::folder::parse(path, value.clone())
}

/// Sizes that must fit each other in every vision transformer.
pub(super) struct Sizes {
    pub(super) hidden_size: usize,
    pub(super) num_attention_heads: usize,
    pub(super) image_size: usize,
    pub(super) patch_size: usize,
}

impl Sizes {
    pub(super) fn check(&self, path: &Path) -> Result<(), EncoderError> {
        let Self {
            hidden_size,
            num_attention_heads,
            image_size,
            patch_size,
        } = *self;
        if num_attention_heads == 0
            || hidden_size == 0
            || !hidden_size.is_multiple_of(num_attention_heads)
        {
            return Err(refuse(
                path,
                format!(
                    "got {num_attention_heads} attention heads for a hidden size of {hidden_size}, wanted a divisor of it"
                ),
            ));
        }
        if patch_size == 0 || image_size < patch_size {
            return Err(refuse(
                path,
                format!(
                    "got an image size of {image_size} and a patch size of {patch_size}, wanted at least one patch"
                ),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_vision_tower_is_where_transformers_looks_for_it() {
        for (config, wanted) in [
            (
                json!({"model_type": "clip_vision_model", "a": 1}),
                json!({"model_type": "clip_vision_model", "a": 1}),
            ),
            (
                json!({"model_type": "clip", "vision_config": {"a": 1}, "vision_config_dict": null}),
                json!({"a": 1}),
            ),
            (
                json!({"model_type": "clip", "vision_config": {"a": 1, "b": 1}, "vision_config_dict": {"a": 2}}),
                json!({"a": 2}),
            ),
            (
                json!({"model_type": "clip", "vision_config": null, "a": 1}),
                json!({}),
            ),
            (
                json!({"model_type": "siglip", "vision_config": {"a": 1}, "vision_config_dict": {"a": 2}}),
                json!({"a": 1}),
            ),
        ] {
            assert_eq!(vision_part(&config), wanted, "{config}");
        }
    }
}
