//! What a `preprocessor_config.json` says, in the spellings that were published.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::image_processor::{ImageProcessor, Normalisation, Size};
use super::model_config::parse;
use super::resize::Filter;
use crate::EncoderError;
use crate::folder::{read, refuse};

/// The keys as they stand in the file; the `do_*` that are absent are true in every processor read here.
#[derive(Debug, Deserialize)]
struct Keys {
    image_processor_type: Option<String>,
    feature_extractor_type: Option<String>,
    video_processor_type: Option<String>,
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

impl Keys {
    /// The class of the processor, under the newest of its keys that is there; empty where none is.
    fn class(&self) -> &str {
        [
            &self.image_processor_type,
            &self.feature_extractor_type,
            &self.video_processor_type,
        ]
        .into_iter()
        .flatten()
        .next()
        .map_or("", String::as_str)
    }

    /// What the class does where the file is silent.
    fn family(&self) -> Option<Family> {
        let begins = |prefixes: &[&str]| prefixes.iter().any(|it| self.class().starts_with(it));
        if begins(&["CLIP", "Bit", "VideoMAE"]) {
            Some(Family::Cropping)
        } else if begins(&["ViT", "Siglip", "Blip"]) {
            Some(Family::Square)
        } else {
            None
        }
    }
}

/// The defaults of transformers' processors, which its files may leave out.
#[derive(Clone, Copy)]
enum Family {
    /// A bare size is the shorter side, and the middle is cut out.
    Cropping,
    /// A bare size is a square, and nothing is cut.
    Square,
}

/// The crop of the cropping processors where the file names none.
const CROP: usize = 224;
/// No published processor comes near; what lies above is a damaged file.
const LARGEST_SIDE: usize = 4096;

fn bounded(key: &str, sides: [usize; 2], path: &Path) -> Result<(), EncoderError> {
    match sides
        .iter()
        .find(|side| !(1..=LARGEST_SIDE).contains(*side))
    {
        Some(side) => Err(refuse(
            path,
            format!("key `{key}`: got {side}, wanted a side of 1 to {LARGEST_SIDE} pixels"),
        )),
        None => Ok(()),
    }
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
            let value = read(&path)?;
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
        let normalise = match keys.do_normalize {
            true => Some(Normalisation {
                mean: keys.image_mean.ok_or_else(|| absent("image_mean"))?,
                std: std_of(&keys, path)?,
            }),
            false => None,
        };
        let crop = match (keys.do_center_crop, keys.family()) {
            (Some(false), _) | (None, Some(Family::Square)) => None,
            (Some(true), family) | (None, family @ Some(Family::Cropping)) => {
                Some(crop_of(&keys, family, path)?)
            }
            (None, None) => {
                return Err(refuse(
                    path,
                    format!(
                        "key `do_center_crop` is missing, and a processor of type `{}` does not say whether it crops; write `true` or `false`",
                        keys.class()
                    ),
                ));
            }
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

fn std_of(keys: &Keys, path: &Path) -> Result<[f32; 3], EncoderError> {
    match keys.image_std {
        Some(std) if std.iter().all(|std| std.is_finite() && *std > 0.0) => Ok(std),
        Some(std) => Err(refuse(
            path,
            format!("key `image_std`: got {std:?}, wanted numbers above 0"),
        )),
        None => Err(refuse(path, "key `image_std` is missing")),
    }
}

fn crop_of(keys: &Keys, family: Option<Family>, path: &Path) -> Result<[usize; 2], EncoderError> {
    let sides = match (&keys.crop_size, family) {
        (Some(size), _) => size
            .as_u64()
            .map(|side| [side as usize; 2])
            .or_else(|| edges(size))
            .ok_or_else(|| {
                let wanted = "wanted a number, or `height` and `width`";
                refuse(path, format!("key `crop_size`: got {size}, {wanted}"))
            })?,
        (None, Some(Family::Cropping)) => [CROP; 2],
        (None, _) => return Err(refuse(path, "key `crop_size` is missing")),
    };
    bounded("crop_size", sides, path)?;
    Ok(sides)
}

fn edges(value: &Value) -> Option<[usize; 2]> {
    let edge = |key: &str| value.get(key)?.as_u64().map(|edge| edge as usize);
    Some([edge("height")?, edge("width")?])
}

/// `size` in its three spellings; a bare number means the shorter side or a square, as the processor has it.
fn size_of(size: &Value, keys: &Keys, path: &Path) -> Result<Size, EncoderError> {
    if let Some(sides) = edges(size) {
        bounded("size", sides, path)?;
        return Ok(Size::Exact(sides));
    }
    if let Some(side) = size.get("shortest_edge").and_then(Value::as_u64) {
        if size.get("longest_edge").is_some_and(|edge| !edge.is_null()) {
            return Err(refuse(
                path,
                "key `size`: got `shortest_edge` and `longest_edge`, wanted one of them",
            ));
        }
        bounded("size", [side as usize; 2], path)?;
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
    bounded("size", [side; 2], path)?;
    match (keys.default_to_square, keys.family()) {
        (Some(true), _) | (None, Some(Family::Square)) => Ok(Size::Exact([side; 2])),
        (Some(false), _) | (None, Some(Family::Cropping)) => Ok(Size::Shortest(side)),
        (None, None) => Err(refuse(
            path,
            format!(
                "key `size`: got {side} for a processor of type `{}`, which does not say whether that is the shorter side or a square; write `{{\"shortest_edge\": {side}}}` or `{{\"height\": {side}, \"width\": {side}}}`",
                keys.class()
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
            (
                r#"{"do_resize": false, "do_normalize": false}"#.into(),
                "`do_center_crop` is missing",
            ),
            (format!(r#"{{"size": {{"shortest_edge": 0}}, {rest}}}"#), "`size`: got 0"),
            (
                format!(r#"{{"size": {{"height": 9, "width": 4097}}, {rest}}}"#),
                "`size`: got 4097",
            ),
            (
                r#"{"do_resize": false, "do_normalize": false, "do_center_crop": true, "crop_size": 0}"#.into(),
                "`crop_size`: got 0",
            ),
            (
                r#"{"do_resize": false, "image_mean": [0, 0, 0], "image_std": [1, 0, 1]}"#.into(),
                "`image_std`",
            ),
        ] {
            let error = read("preprocessor_config.json", &keys).expect_err(&keys);
            assert!(error.to_string().contains(wanted), "{keys}: {error}");
        }
    }

    #[test]
    fn files_of_newer_folders_are_found() {
        let keys = r#"{"do_resize": false, "do_normalize": false, "do_center_crop": true, "crop_size": 4}"#;
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

    /// As transformers 5 does with the same files.
    #[test]
    fn an_absent_crop_is_the_one_of_the_processors_class() {
        let crop = |keys: &str| {
            let keys = format!(r#"{{"do_resize": false, "do_normalize": false, {keys}}}"#);
            let processor = read("preprocessor_config.json", &keys).expect(&keys);
            processor.expect("there").crop
        };
        for class in [
            "CLIPImageProcessor",
            "CLIPImageProcessorFast",
            "BitImageProcessor",
        ] {
            let class = format!(r#""image_processor_type": "{class}""#);
            assert_eq!(crop(&class), Some([224; 2]));
            assert_eq!(crop(&format!(r#"{class}, "crop_size": 7"#)), Some([7; 2]));
            assert_eq!(crop(&format!(r#"{class}, "do_center_crop": false"#)), None);
        }
        let siglip = r#""image_processor_type": "SiglipImageProcessor", "crop_size": 7"#;
        assert_eq!(crop(siglip), None);
    }

    #[test]
    fn of_two_names_of_a_processors_class_the_newer_counts() {
        let keys = r#"{"size": 9, "resample": 3, "do_normalize": false, "do_center_crop": false,
            "feature_extractor_type": "ViTFeatureExtractor", "image_processor_type": "CLIPImageProcessor"}"#;
        let processor = read("preprocessor_config.json", keys).expect("valid");
        let resize = processor.expect("there").resize;
        assert!(matches!(resize, Some((Size::Shortest(9), Filter::Bicubic))));
    }
}
