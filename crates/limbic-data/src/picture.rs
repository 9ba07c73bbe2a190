//! One decoded picture: RGB bytes, turned upright, cut and resized.

use fast_image_resize as fir;
use ffmpeg_next as ffmpeg;

use ffmpeg::format::Pixel;
use ffmpeg::software::scaling::context::Definition;
use ffmpeg::software::scaling::{Context as Scaler, Flags};
use ffmpeg::util::frame::video::Video;

/// An RGB picture, `u8` `[height, width, 3]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// Row by row, red, green and blue.
    pub data: Vec<u8>,
}

/// Makes pictures of frames of any pixel format, at their own size. Pixels that are not square stay as they are stored.
pub(crate) struct PictureMaker {
    /// For frames like the last one: to make one takes longer than to use it.
    scaler: Option<Scaler>,
    rgb: Video,
}

impl PictureMaker {
    pub(crate) fn new() -> Self {
        Self {
            scaler: None,
            rgb: Video::empty(),
        }
    }

    pub(crate) fn picture(&mut self, frame: &Video) -> Result<Picture, ffmpeg::Error> {
        let (width, height) = (frame.width(), frame.height());
        let of_frame = Definition {
            format: frame.format(),
            width,
            height,
        };
        let kept = self
            .scaler
            .take()
            .filter(|scaler| *scaler.input() == of_frame);
        let scaler = match kept {
            Some(scaler) => self.scaler.insert(scaler),
            None => {
                self.rgb = Video::empty();
                self.scaler.insert(scaler(of_frame)?)
            }
        };
        scaler.run(frame, &mut self.rgb)?;
        // Rows are padded to FFmpeg's alignment.
        let row = 3 * width as usize;
        let rows = self.rgb.data(0).chunks(self.rgb.stride(0));
        let mut data = Vec::with_capacity(row * height as usize);
        rows.take(height as usize)
            .for_each(|padded| data.extend_from_slice(&padded[..row]));
        Ok(Picture {
            width,
            height,
            data,
        })
    }
}

fn scaler(from: Definition) -> Result<Scaler, ffmpeg::Error> {
    let Definition {
        format,
        width,
        height,
    } = from;
    // Without these, colour at half the resolution is repeated rather than interpolated.
    let flags =
        Flags::BILINEAR | Flags::FULL_CHR_H_INT | Flags::FULL_CHR_H_INP | Flags::ACCURATE_RND;
    Scaler::get(format, width, height, Pixel::RGB24, width, height, flags)
}

/// A rectangle in pixels; it lies inside the picture that it was made for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Region {
    pub(crate) left: f64,
    pub(crate) top: f64,
    pub(crate) width: f64,
    pub(crate) height: f64,
}

impl Picture {
    /// Turns the picture clockwise by `turns` right angles.
    pub(crate) fn turned(self, turns: u32) -> Self {
        match turns % 4 {
            0 => self,
            turns => {
                let once = self.turned_once();
                once.turned(turns - 1)
            }
        }
    }

    fn turned_once(&self) -> Self {
        let (width, height) = (self.width as usize, self.height as usize);
        let mut data = Vec::with_capacity(self.data.len());
        for column in 0..width {
            for row in (0..height).rev() {
                let pixel = 3 * (row * width + column);
                data.extend_from_slice(&self.data[pixel..pixel + 3]);
            }
        }
        Picture {
            width: self.height,
            height: self.width,
            data,
        }
    }

    /// The whole picture.
    pub(crate) fn whole(&self) -> Region {
        Region {
            left: 0.0,
            top: 0.0,
            width: self.width.into(),
            height: self.height.into(),
        }
    }

    /// The largest square in the middle.
    pub(crate) fn center_square(&self) -> Region {
        let center = (f64::from(self.width) / 2.0, f64::from(self.height) / 2.0);
        self.square(center, f64::from(self.width.min(self.height)))
    }

    /// The square of this side around `center`, shrunk and moved as little as needed to lie inside the picture.
    pub(crate) fn square(&self, center: (f64, f64), side: f64) -> Region {
        let (width, height) = (f64::from(self.width), f64::from(self.height));
        let side = side.min(width).min(height);
        Region {
            left: (center.0 - side / 2.0).clamp(0.0, width - side),
            top: (center.1 - side / 2.0).clamp(0.0, height - side),
            width: side,
            height: side,
        }
    }

    /// Cuts `region` out and resizes it, bicubic with antialiasing: what `PIL.Image.resize(..., BICUBIC, box=...)` does.
    pub(crate) fn resized(&self, region: Region, width: u32, height: u32) -> Self {
        let source =
            fir::images::ImageRef::new(self.width, self.height, &self.data, fir::PixelType::U8x3)
                .unwrap_or_else(|error| {
                    panic!("picture {self:?} has the wrong number of bytes: {error}")
                });
        let mut target = fir::images::Image::new(width, height, fir::PixelType::U8x3);
        let options = fir::ResizeOptions::new()
            .resize_alg(fir::ResizeAlg::Convolution(fir::FilterType::CatmullRom))
            .crop(region.left, region.top, region.width, region.height);
        fir::Resizer::new()
            .resize(&source, &mut target, &options)
            .unwrap_or_else(|error| {
                panic!(
                    "region {region:?} of a {}x{} picture: {error}",
                    self.width, self.height
                )
            });
        Picture {
            width,
            height,
            data: target.into_vec(),
        }
    }

    /// Luma by ITU-R BT.601, `u8` `[height, width]`.
    pub(crate) fn gray(&self) -> Vec<u8> {
        let luma = |pixel: &[u8]| {
            (299 * u32::from(pixel[0]) + 587 * u32::from(pixel[1]) + 114 * u32::from(pixel[2]))
                / 1000
        };
        self.data
            .chunks_exact(3)
            .map(|pixel| luma(pixel) as u8)
            .collect()
    }
}

/// The clockwise right angles by which a container's display matrix asks to turn the picture; mirroring is not honoured.
///
/// The matrix is nine 32-bit numbers in native order (`libavutil/display.h`), of which the first two are a cosine and a sine.
pub(crate) fn quarter_turns(matrix: &[u8]) -> u32 {
    let entry = |index: usize| {
        let bytes = matrix.get(4 * index..4 * index + 4)?;
        Some(f64::from(i32::from_ne_bytes(bytes.try_into().ok()?)))
    };
    match (entry(0), entry(1)) {
        (Some(cosine), Some(sine)) => {
            let turns = sine.atan2(cosine) / std::f64::consts::FRAC_PI_2;
            turns.round().rem_euclid(4.0) as u32
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A 3x2 picture whose pixels are numbered row by row.
    fn numbered() -> Picture {
        Picture {
            width: 3,
            height: 2,
            data: (0..6).flat_map(|number| [number; 3]).collect(),
        }
    }

    fn numbers(picture: &Picture) -> Vec<u8> {
        picture.data.chunks(3).map(|pixel| pixel[0]).collect()
    }

    #[test]
    fn turning_is_clockwise() {
        let turned = numbered().turned(1);
        assert_eq!((turned.width, turned.height), (2, 3));
        assert_eq!(numbers(&turned), [3, 0, 4, 1, 5, 2]);
        assert_eq!(numbers(&numbered().turned(2)), [5, 4, 3, 2, 1, 0]);
        assert_eq!(numbered().turned(3).turned(1), numbered());
    }

    #[test]
    fn display_matrices_are_quarter_turns() {
        // The matrices that cameras write for 0, 90, 180 and 270 degrees clockwise, in 16.16 fixed point.
        for (turns, (a, b, c, d)) in [(1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)]
            .into_iter()
            .enumerate()
        {
            let matrix = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30];
            let bytes: Vec<u8> = matrix.into_iter().flat_map(i32::to_ne_bytes).collect();
            assert_eq!(quarter_turns(&bytes), turns as u32);
        }
        assert_eq!(quarter_turns(&[]), 0);
    }

    #[test]
    fn squares_stay_inside() {
        let picture = Picture {
            width: 40,
            height: 20,
            data: vec![0; 2400],
        };
        assert_eq!(
            picture.center_square(),
            Region {
                left: 10.0,
                top: 0.0,
                width: 20.0,
                height: 20.0
            }
        );
        assert_eq!(
            picture.square((38.0, 2.0), 10.0),
            Region {
                left: 30.0,
                top: 0.0,
                width: 10.0,
                height: 10.0
            }
        );
        assert_eq!(
            picture.square((0.0, 0.0), 99.0),
            Region {
                left: 0.0,
                top: 0.0,
                width: 20.0,
                height: 20.0
            }
        );
    }

    #[test]
    fn resizing_is_antialiased() {
        // Stripes one pixel wide average out; a resize that picks pixels would return black or white.
        let data = (0..64 * 64)
            .flat_map(|pixel| [if pixel % 2 == 0 { 0 } else { 255 }; 3])
            .collect();
        let stripes = Picture {
            width: 64,
            height: 64,
            data,
        };
        let small = stripes.resized(stripes.whole(), 8, 8);
        assert!(
            small.data.iter().all(|value| (108..=148).contains(value)),
            "{:?}",
            numbers(&small)
        );
    }
}
