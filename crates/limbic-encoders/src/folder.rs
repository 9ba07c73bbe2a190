//! The JSON files of a pretrained model's folder.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::EncoderError;

/// A complaint about a file of the folder.
pub(crate) fn refuse(path: &Path, problem: impl Into<String>) -> EncoderError {
    EncoderError::Pretrained {
        path: path.to_path_buf(),
        problem: problem.into(),
    }
}

/// Reads a JSON file.
///
/// # Errors
/// A file that is missing or no JSON.
pub(crate) fn read(path: &Path) -> Result<Value, EncoderError> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let hint = "; wanted the folder of a pretrained model as its hub has it";
        refuse(path, format!("{error}{hint}"))
    })?;
    serde_json::from_str(&text).map_err(|error| refuse(path, format!("no JSON: {error}")))
}

/// Takes from `value`, read from `path`, what a model's config wants; other keys are about training, or heads.
///
/// # Errors
/// A key that is missing or holds another type, with its name; more layers than any model has, which would be built
/// before the weights could contradict.
pub(crate) fn parse<T: DeserializeOwned>(path: &Path, value: Value) -> Result<T, EncoderError> {
    const MOST_LAYERS: u64 = 1024;
    for key in ["num_hidden_layers", "encoder_layers"] {
        let layers = value.get(key).and_then(Value::as_u64);
        if let Some(layers) = layers.filter(|layers| *layers > MOST_LAYERS) {
            return Err(refuse(
                path,
                format!("key `{key}`: got {layers}, wanted at most {MOST_LAYERS}"),
            ));
        }
    }
    serde_json::from_value(value).map_err(|error| refuse(path, error.to_string()))
}

/// The description of the front end: `preprocessor_config.json`, or the `feature_extractor` of `processor_config.json`
/// where newer versions of transformers put it. `None` where neither is there: an input may come preprocessed.
///
/// # Errors
/// A file that is no JSON, or lacks a key.
pub(crate) fn read_preprocessor<T: DeserializeOwned>(
    folder: &Path,
) -> Result<Option<T>, EncoderError> {
    let alone = folder.join("preprocessor_config.json");
    if alone.is_file() {
        return parse(&alone, read(&alone)?).map(Some);
    }
    let joint = folder.join("processor_config.json");
    if joint.is_file() {
        return match read(&joint)?.get_mut("feature_extractor") {
            Some(value) => parse(&joint, value.take()).map(Some),
            None => Ok(None),
        };
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::feature_extractor::FeatureExtractor;

    #[test]
    fn a_front_end_is_found_where_either_version_puts_it() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let read = || {
            read_preprocessor::<FeatureExtractor>(folder.path()).map_err(|error| error.to_string())
        };
        let write = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).expect("a writable folder");
        };
        assert_eq!(read(), Ok(None));
        write(
            "processor_config.json",
            r#"{"feature_extractor": {"do_normalize": false, "padding_value": 0.0}}"#,
        );
        let found = read().expect("readable").expect("there");
        assert_eq!((found.do_normalize, found.sampling_rate), (false, 16_000));
        write("preprocessor_config.json", r#"{"sampling_rate": 8000}"#);
        let found = read().expect("readable").expect("there");
        assert_eq!((found.do_normalize, found.sampling_rate), (true, 8_000));
        write("preprocessor_config.json", r#"{"sampling_rate": "high"}"#);
        let error = read().expect_err("no number");
        assert!(error.contains("preprocessor_config.json"), "{error}");
    }

    #[test]
    fn a_depth_that_no_model_has_is_refused_by_its_key() {
        let path = Path::new("config.json");
        for key in ["num_hidden_layers", "encoder_layers"] {
            let config = serde_json::json!({ key: u64::MAX });
            let error = parse::<Value>(path, config)
                .expect_err("absurd")
                .to_string();
            assert!(
                error.contains(key) && error.contains("config.json"),
                "{error}"
            );
        }
        assert!(parse::<Value>(path, serde_json::json!({"num_hidden_layers": 48})).is_ok());
    }
}
