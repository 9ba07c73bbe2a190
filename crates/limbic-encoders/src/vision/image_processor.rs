//! From pictures of any size to pixel values, as transformers' image processors on PIL do it.

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
    pub(super) resize: Option<(Size, Filter)>,
    /// Height and width.
    pub(super) crop: Option<[usize; 2]>,
    pub(super) rescale: Option<f64>,
    pub(super) normalise: Option<Normalisation>,
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
pub(super) enum Size {
    /// The shorter side; the other keeps the proportions.
    Shortest(usize),
    /// Height and width.
    Exact([usize; 2]),
}

impl ImageProcessor {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_of_too_few_bytes_is_refused() {
        let processor = ImageProcessor::of_ready_frames(Normalisation {
            mean: [0.0; 3],
            std: [1.0; 3],
        });
        let picture = Picture {
            width: 2,
            height: 2,
            data: &[0; 11],
        };
        let error = processor
            .run(picture)
            .expect_err("a byte is missing")
            .to_string();
        assert!(
            error.contains("11 bytes") && error.contains("2 x 2"),
            "{error}"
        );
    }
}
