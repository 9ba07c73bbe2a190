//! From pictures of any size to pixel values, as transformers' image processors on PIL do it.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::model_config::{parse, read_json, refuse};
use super::resize::{Filter, resize};
use crate::EncoderError;

/// An RGB picture.
#[derive(Debug, Clone, Copy)]
pub struct Picture<'a> {
    /// In pixels.
    pub width: usize,
    /// In pixels.
    pub height: usize,
    /// `[height, width, 3]`, row-major, 0 to 255.
    pub data: &'a [u8],
}

/// What a `preprocessor_config.json` says.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageProcessor {
    resize: Option<(Size, Filter)>,
    /// Height and width.
    crop: Option<[usize; 2]>,
    rescale: Option<f64>,
    normalise: Option<Normalisation>,
}

/// Mean and deviation of each colour channel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalisation {
    /// Subtracted.
    pub mean: [f32; 3],
    /// Divided by.
    pub std: [f32; 3],
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Size {
    /// The shorter side; the other keeps the proportions.
    Shortest(usize),
    /// Height and width.
    Exact([usize; 2]),
}

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

    /// Mean and deviation it normalises with, where it does.
    pub fn normalisation(&self) -> Option<Normalisation> {
        self.normalise
    }

    /// Height and width of what comes out, for a picture of this height and width.
    pub fn output_size(&self, height: usize, width: usize) -> [usize; 2] {
        let resized = match self.resize {
            Some((size, _)) => size.of(height, width),
            None => [height, width],
        };
        self.crop.unwrap_or(resized)
    }

    /// The pixel values of one picture: `[3, H, W]`, row-major.
    ///
    /// # Errors
    /// A picture without pixels, or with another number of bytes than its sides say.
    pub fn run(&self, picture: Picture<'_>) -> Result<Vec<f32>, EncoderError> {
        let Picture {
            width,
            height,
            data,
        } = picture;
        if data.len() != 3 * width * height || data.is_empty() {
            return Err(EncoderError::Input {
                kind: "image_processor",
                problem: format!(
                    "got {} bytes for a picture of {width} x {height} pixels, wanted 3 for each, and at least one pixel",
                    data.len()
                ),
            });
        }
        let (mut sides, mut bytes) = ([height, width], data.to_vec());
        if let Some((size, filter)) = self.resize {
            let wanted = size.of(height, width);
            bytes = resize(&bytes, sides, wanted, filter);
            sides = wanted;
        }
        if let Some(wanted) = self.crop {
            bytes = center_cropped(&bytes, sides, wanted);
        }
        Ok(self.values(&bytes))
    }

    /// `[H, W, 3]` bytes to `[3, H, W]` values. NumPy rescales in F64, rounds to F32 and normalises in that.
    pub(super) fn values(&self, bytes: &[u8]) -> Vec<f32> {
        let mut values = Vec::with_capacity(bytes.len());
        for channel in 0..3 {
            values.extend(bytes.iter().skip(channel).step_by(3).map(|byte| {
                let value = match self.rescale {
                    Some(factor) => (f64::from(*byte) * factor) as f32,
                    None => f32::from(*byte),
                };
                match self.normalise {
                    Some(Normalisation { mean, std }) => (value - mean[channel]) / std[channel],
                    None => value,
                }
            }));
        }
        values
    }

    /// What only rescales by 1/255 and normalises: for frames that were decoded at the model's size.
    pub(super) fn of_ready_frames(normalise: Normalisation) -> Self {
        Self {
            resize: None,
            crop: None,
            rescale: Some(1.0 / 255.0),
            normalise: Some(normalise),
        }
    }
}

impl Size {
    fn of(self, height: usize, width: usize) -> [usize; 2] {
        let long = |short: usize, from: usize, to: usize| (short * from / to).max(1);
        match self {
            Self::Exact(sides) => sides,
            Self::Shortest(side) if width <= height => [long(side, height, width), side],
            Self::Shortest(side) => [side, long(side, width, height)],
        }
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

/// The middle of a picture, black where the picture is smaller; odd margins are rounded as in transformers'
/// `center_crop`: down where pixels are cut off, up where they are added.
fn center_cropped(bytes: &[u8], from: [usize; 2], to: [usize; 2]) -> Vec<u8> {
    // Where a wanted pixel lies in the picture, along one side.
    let place = |wanted: usize, from: usize, to: usize| {
        if to <= from {
            Some((from - to) / 2 + wanted)
        } else {
            wanted
                .checked_sub((to - from).div_ceil(2))
                .filter(|place| *place < from)
        }
    };
    let mut cropped = Vec::with_capacity(3 * to[0] * to[1]);
    for row in 0..to[0] {
        for column in 0..to[1] {
            match place(row, from[0], to[0]).zip(place(column, from[1], to[1])) {
                Some((row, column)) => {
                    let pixel = 3 * (row * from[1] + column);
                    cropped.extend_from_slice(&bytes[pixel..pixel + 3]);
                }
                None => cropped.extend([0; 3]),
            }
        }
    }
    cropped
}
