//! A few square pictures of a clip. They are chosen by time, never by index, because frame rates vary within files; pixels stay
//! `u8`, because normalisation belongs to the encoder.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::clip::Span;
use crate::error::DataError;
use crate::faces::FaceDetector;
use crate::media::Window;
use crate::picture::Picture;
use crate::picture_stream::PictureStream;

/// Square RGB pictures of one clip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frames {
    /// Number of pictures.
    pub count: usize,
    /// Width and height in pixels.
    pub size: usize,
    /// In how many pictures [`Crop::Face`] found a face; the others borrow the nearest one's place. 0: every picture is a
    /// centre square, or no face was asked for.
    pub faces_found: usize,
    /// `[count, size, size, 3]`.
    pub data: Vec<u8>,
}

impl Frames {
    /// The picture at `index`, `[size, size, 3]`.
    pub fn picture(&self, index: usize) -> &[u8] {
        let length = self.size * self.size * 3;
        &self.data[index * length..(index + 1) * length]
    }
}

/// Which moments of the span are shown. In YAML `{kind: uniform, count: 4}`, `{kind: first}` or `{kind: middle}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "FrameSamplerKeys", into = "FrameSamplerKeys")]
pub enum FrameSampler {
    /// The centres of `count` equal parts of the span.
    Uniform {
        /// Number of pictures, from 1 to 256.
        count: usize,
    },
    /// The first picture of the span.
    First,
    /// The picture at the middle of the span.
    Middle,
}

impl FrameSampler {
    /// How many pictures it yields.
    pub fn count(&self) -> usize {
        match self {
            FrameSampler::Uniform { count } => *count,
            FrameSampler::First | FrameSampler::Middle => 1,
        }
    }

    /// The moments, in seconds, in ascending order.
    pub(crate) fn times(&self, window: Window) -> Vec<f64> {
        let at = |share: f64| window.start + share * (window.end - window.start);
        match self {
            FrameSampler::Uniform { count } => (0..*count)
                .map(|index| at((index as f64 + 0.5) / *count as f64))
                .collect(),
            FrameSampler::First => vec![window.start],
            FrameSampler::Middle => vec![at(0.5)],
        }
    }
}

/// Which part of a picture is kept. In YAML `{kind: squash}`, `{kind: center_square}` or `{kind: face, margin: 0.3}`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "CropKeys", into = "CropKeys")]
pub enum Crop {
    /// All of it; the aspect ratio is lost.
    Squash,
    /// The largest square in the middle.
    CenterSquare,
    /// A square around the largest face. A picture without a face takes the place found in the nearest one that has a face; if
    /// none has, every picture is cut as by [`Crop::CenterSquare`] and [`Frames::faces_found`] is 0.
    Face {
        /// What is kept around the face on each side, as a share of the face's side, from 0 to 2.
        margin: f32,
    },
}

// Serde ignores stray keys beside the tag of a variant without fields, so the keys are read into a strict struct first.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FrameSamplerKeys {
    kind: FrameSamplerKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    count: Option<usize>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FrameSamplerKind {
    Uniform,
    First,
    Middle,
}

impl TryFrom<FrameSamplerKeys> for FrameSampler {
    type Error = String;

    fn try_from(keys: FrameSamplerKeys) -> Result<Self, String> {
        match (keys.kind, keys.count) {
            (FrameSamplerKind::Uniform, Some(count @ 1..=256)) => {
                Ok(FrameSampler::Uniform { count })
            }
            (FrameSamplerKind::Uniform, Some(count)) => {
                Err(format!("`count` is {count}: wanted 1 to 256 frames"))
            }
            (FrameSamplerKind::Uniform, None) => {
                Err("`kind: uniform` needs `count`, the number of frames".to_owned())
            }
            (FrameSamplerKind::First, None) => Ok(FrameSampler::First),
            (FrameSamplerKind::Middle, None) => Ok(FrameSampler::Middle),
            (_, Some(_)) => Err("`count` belongs to `kind: uniform` only; remove it".to_owned()),
        }
    }
}

impl From<FrameSampler> for FrameSamplerKeys {
    fn from(sampler: FrameSampler) -> Self {
        let (kind, count) = match sampler {
            FrameSampler::Uniform { count } => (FrameSamplerKind::Uniform, Some(count)),
            FrameSampler::First => (FrameSamplerKind::First, None),
            FrameSampler::Middle => (FrameSamplerKind::Middle, None),
        };
        FrameSamplerKeys { kind, count }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CropKeys {
    kind: CropKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    margin: Option<f32>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum CropKind {
    Squash,
    CenterSquare,
    Face,
}

impl TryFrom<CropKeys> for Crop {
    type Error = String;

    fn try_from(keys: CropKeys) -> Result<Self, String> {
        match (keys.kind, keys.margin) {
            (CropKind::Squash, None) => Ok(Crop::Squash),
            (CropKind::CenterSquare, None) => Ok(Crop::CenterSquare),
            (CropKind::Face, Some(margin)) if (0.0..=2.0).contains(&margin) => {
                Ok(Crop::Face { margin })
            }
            (CropKind::Face, Some(margin)) => {
                Err(format!("`margin` is {margin}: wanted a share from 0 to 2"))
            }
            (CropKind::Face, None) => {
                Err("`kind: face` needs `margin`, for example 0.3".to_owned())
            }
            (_, Some(_)) => Err("`margin` belongs to `kind: face` only; remove it".to_owned()),
        }
    }
}

impl From<Crop> for CropKeys {
    fn from(crop: Crop) -> Self {
        let (kind, margin) = match crop {
            Crop::Squash => (CropKind::Squash, None),
            Crop::CenterSquare => (CropKind::CenterSquare, None),
            Crop::Face { margin } => (CropKind::Face, Some(margin)),
        };
        CropKeys { kind, margin }
    }
}

/// Decodes the pictures that `sampler` asks for within `span`, cut by `crop` and resized to `size` x `size` pixels, bicubic with
/// antialiasing. Which pictures these are is said at [`read_pictures`].
///
/// `None` if the file has no video stream.
///
/// # Errors
/// [`DataError::Media`] with the [`Reason`](crate::Reason) if the pictures cannot be had.
pub fn read_frames(
    path: &Path,
    span: Span,
    sampler: &FrameSampler,
    size: usize,
    crop: &Crop,
) -> Result<Option<Frames>, DataError> {
    let pictures = read_pictures(path, span, sampler)?;
    Ok(pictures.map(|pictures| cut(&pictures, size, crop)))
}

/// Decodes the pictures that `sampler` asks for within `span`, whole and at their own size. The picture of a moment is the one on
/// screen then; where the picture stream ends before the sound, its last one stays. Rotation by right angles that the container
/// asks for is applied. An image file is a video of one picture.
///
/// `None` if the file has no video stream.
///
/// # Errors
/// [`DataError::Media`] with the [`Reason`](crate::Reason) if the pictures cannot be had.
pub fn read_pictures(
    path: &Path,
    span: Span,
    sampler: &FrameSampler,
) -> Result<Option<Vec<Picture>>, DataError> {
    let Some(mut stream) = PictureStream::open(path, span)? else {
        return Ok(None);
    };
    let times = sampler.times(stream.window);
    // Elsewhere key pictures are guessed from an index that may be wrong, or time stamps are made up.
    if !stream.is_indexed() {
        return stream.all(&times).map(Some);
    }
    if let Some(pictures) = stream.few(&times)? {
        return Ok(Some(pictures));
    }
    // What was read cannot be read again.
    match PictureStream::open(path, span)? {
        Some(stream) => stream.all(&times).map(Some),
        None => Ok(None),
    }
}

fn cut(pictures: &[Picture], size: usize, crop: &Crop) -> Frames {
    let (faces_found, regions) = match crop {
        Crop::Squash => (0, pictures.iter().map(Picture::whole).collect()),
        Crop::CenterSquare => (0, pictures.iter().map(Picture::center_square).collect()),
        Crop::Face { margin } => {
            let mut detector = FaceDetector::new();
            let faces: Vec<_> = pictures
                .iter()
                .map(|picture| detector.largest_in(picture))
                .collect();
            let found: Vec<usize> = (0..faces.len())
                .filter(|index| faces[*index].is_some())
                .collect();
            let region = |(index, picture): (usize, &Picture)| {
                let nearest = found.iter().min_by_key(|other| other.abs_diff(index));
                match nearest.and_then(|other| faces[*other]) {
                    Some(face) => picture.square(
                        (face.x, face.y),
                        face.side * (1.0 + 2.0 * f64::from(*margin)),
                    ),
                    None => picture.center_square(),
                }
            };
            (
                found.len(),
                pictures.iter().enumerate().map(region).collect::<Vec<_>>(),
            )
        }
    };
    let side =
        u32::try_from(size).unwrap_or_else(|_| panic!("picture size {size} is beyond 32 bits"));
    let mut data = Vec::with_capacity(pictures.len() * size * size * 3);
    for (picture, region) in pictures.iter().zip(regions) {
        data.extend_from_slice(&picture.resized(region, side, side).data);
    }
    Frames {
        count: pictures.len(),
        size,
        faces_found,
        data,
    }
}
