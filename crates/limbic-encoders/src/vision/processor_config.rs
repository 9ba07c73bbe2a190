//! What a `preprocessor_config.json` says, in the spellings that were published.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::image_processor::{ImageProcessor, Normalisation, Size};
use super::model_config::{parse, read_json, refuse};
use super::resize::Filter;
use crate::EncoderError;

/// The keys as they stand in the file; the `do_*` that are absent are true in every processor read here.
#[derive(Debug, Deserialize)]
struct Keys {
    #[serde(alias = "feature_extractor_type", alias = "video_processor_type")]
    image_processor_type: Option<String>,
    #[serde(default = "yes")]
    do_resize: bool,
    size: Option<Value>,
    default_to_square: Option<bool>,
    resample: Option<u8>,
    do_center_crop: Option<bool>,
    crop_size: Option<Value>,
    #[serde(default = "yes")]
    do_rescale: bool,
    rescale_factor: Option<f64>,
    #[serde(default = "yes")]
    do_normalize: bool,
    image_mean: Option<[f32; 3]>,
    image_std: Option<[f32; 3]>,
}

fn yes() -> bool {
    true
}

impl ImageProcessor {
    /// Reads `preprocessor_config.json` (or `video_preprocessor_config.json`, or the image processor of
    /// `processor_config.json`) of a model's folder; `None` where there is none.
    ///
    /// # Errors
    /// A file that cannot be read, or whose keys do not say what to do.
    pub fn read(folder: &Path) -> Result<Option<Self>, EncoderError> {
        for name in [
            "preprocessor_config.json",
            "video_preprocessor_config.json",
            "processor_config.json",
        ] {
            let path = folder.join(name);
            if !path.is_file() {
                continue;
            }
            let value = read_json(&path)?;
            let nested = value
                .get("image_processor")
                .or_else(|| value.get("video_processor"));
            return Self::from_keys(parse(nested.unwrap_or(&value), &path)?, &path).map(Some);
        }
        Ok(None)
    }

    fn from_keys(keys: Keys, path: &Path) -> Result<Self, EncoderError> {
        let absent = |key: &str| refuse(path, format!("key `{key}` is missing"));
        let resize = match keys.do_resize {
            true => {
                let size = keys.size.as_ref().ok_or_else(|| absent("size"))?;
                let filter = match keys.resample.ok_or_else(|| absent("resample"))? {
                    1 => Filter::Lanczos,
                    2 => Filter::Bilinear,
                    3 => Filter::Bicubic,
                    other => {
                        return Err(refuse(
                            path,
                            format!(
                                "key `resample`: got {other}, wanted 1 (Lanczos), 2 (bilinear) or 3 (bicubic)"
                            ),
                        ));
                    }
                };
                Some((size_of(size, &keys, path)?, filter))
            }
            false => None,
        };
        // Processors that crop by default write the size they crop to.
        let crop = match (&keys.crop_size, keys.do_center_crop) {
            (Some(size), None | Some(true)) => match (size.as_u64(), edges(size)) {
                (Some(side), _) => Some([side as usize; 2]),
                (None, Some(edges)) => Some(edges),
                (None, None) => {
                    return Err(refuse(
                        path,
                        format!(
                            "key `crop_size`: got {size}, wanted a number, or `height` and `width`"
                        ),
                    ));
                }
            },
            (None, Some(true)) => return Err(absent("crop_size")),
            (_, Some(false)) | (None, None) => None,
        };
        let normalise = match keys.do_normalize {
            true => Some(Normalisation {
                mean: keys.image_mean.ok_or_else(|| absent("image_mean"))?,
                std: keys.image_std.ok_or_else(|| absent("image_std"))?,
            }),
            false => None,
        };
        Ok(Self {
            resize,
            crop,
            rescale: keys
                .do_rescale
                .then(|| keys.rescale_factor.unwrap_or(1.0 / 255.0)),
            normalise,
        })
    }
}

fn edges(value: &Value) -> Option<[usize; 2]> {
    let edge = |key: &str| value.get(key)?.as_u64().map(|edge| edge as usize);
    Some([edge("height")?, edge("width")?])
}

/// `size` in its three spellings; a bare number means the shorter side or a square, as the processor has it.
fn size_of(size: &Value, keys: &Keys, path: &Path) -> Result<Size, EncoderError> {
    if let Some(sides) = edges(size) {
        return Ok(Size::Exact(sides));
    }
    if let Some(side) = size.get("shortest_edge").and_then(Value::as_u64) {
        if size.get("longest_edge").is_some_and(|edge| !edge.is_null()) {
            return Err(refuse(
                path,
                "key `size`: got `shortest_edge` and `longest_edge`, wanted one of them",
            ));
        }
        return Ok(Size::Shortest(side as usize));
    }
    let Some(side) = size.as_u64().map(|side| side as usize) else {
        return Err(refuse(
            path,
            format!(
                "key `size`: got {size}, wanted a number, `shortest_edge`, or `height` and `width`"
            ),
        ));
    };
    let name = keys.image_processor_type.as_deref().unwrap_or_default();
    let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    match keys.default_to_square {
        Some(true) => Ok(Size::Exact([side; 2])),
        Some(false) => Ok(Size::Shortest(side)),
        None if begins(&["CLIP", "Bit", "VideoMAE"]) => Ok(Size::Shortest(side)),
        None if begins(&["ViT", "Siglip", "Blip"]) => Ok(Size::Exact([side; 2])),
        None => Err(refuse(
            path,
            format!(
                "key `size`: got {side} for a processor of type `{name}`, which does not say whether that is the shorter side or a square; write `{{\"shortest_edge\": {side}}}` or `{{\"height\": {side}, \"width\": {side}}}`"
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> Result<Option<ImageProcessor>, EncoderError> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join(name), text).expect("a writable folder");
        ImageProcessor::read(folder.path())
    }

    #[test]
    fn what_a_file_leaves_open_is_refused() {
        let rest = r#""resample": 3, "image_mean": [0, 0, 0], "image_std": [1, 1, 1]"#;
        for (keys, wanted) in [
            (format!(r#"{{"size": 9, {rest}}}"#), "shortest_edge"),
            (format!(r#"{{{rest}}}"#), "`size` is missing"),
            (
                r#"{"size": {"shortest_edge": 9}}"#.into(),
                "`resample` is missing",
            ),
            (rest.replace("3", "0"), "JSON"),
            (
                format!(
                    r#"{{"size": {{"shortest_edge": 9}}, {}}}"#,
                    rest.replace("3", "0")
                ),
                "got 0",
            ),
            (
                format!(r#"{{"size": {{"width": 9}}, {rest}}}"#),
                "key `size`",
            ),
            (
                format!(r#"{{"do_resize": false, "do_center_crop": true, {rest}}}"#),
                "`crop_size` is missing",
            ),
            (r#"{"do_resize": false}"#.into(), "`image_mean` is missing"),
        ] {
            let error = read("preprocessor_config.json", &keys).expect_err(&keys);
            assert!(error.to_string().contains(wanted), "{keys}: {error}");
        }
    }

    #[test]
    fn files_of_newer_folders_are_found() {
        let keys = r#"{"do_resize": false, "do_normalize": false, "crop_size": 4}"#;
        let nested =
            format!(r#"{{"image_processor": {keys}, "processor_class": "CLIPProcessor"}}"#);
        let wanted = read("preprocessor_config.json", keys).expect("valid");
        assert!(wanted.is_some());
        assert_eq!(
            read("processor_config.json", &nested).expect("valid"),
            wanted
        );
        assert_eq!(
            read("video_preprocessor_config.json", keys).expect("valid"),
            wanted
        );
        assert_eq!(read("tokenizer_config.json", keys).expect("none"), None);
    }
}
