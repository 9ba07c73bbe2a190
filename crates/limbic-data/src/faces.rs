//! Finding the face to cut out: SeetaFace's funnel cascade (Wu et al., Neurocomputing 2017) through rustface, with its frontal
//! model compiled in, so that face crops need no download.

use std::sync::OnceLock;

use rustface::{Detector, ImageData, Model};

use crate::picture::Picture;

/// SeetaFace's frontal model, from the rustface repository; its licence lies beside it.
const MODEL: &[u8] = include_bytes!("../models/seeta_fd_frontal_v1.0.bin");

/// Pictures are shrunk to this longest side, in pixels, before the search: the cascade's time grows with the area.
const SEARCH_SIDE: u32 = 320;
/// Smallest face that counts, in pixels of the shrunk picture. It is also the cascade's window.
const SMALLEST_FACE: u32 = 40;
/// Detections with a lower score are dropped; the value of rustface's own example.
const SCORE: f64 = 2.0;

/// Where a face is, in pixels of the picture that was searched.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Face {
    /// Horizontal centre.
    pub x: f64,
    /// Vertical centre.
    pub y: f64,
    /// Side of the square around it.
    pub side: f64,
}

/// Finds faces that look roughly at the camera.
pub struct FaceDetector {
    detector: Box<dyn Detector>,
}

impl FaceDetector {
    /// A detector of its own for each thread; the model is parsed once.
    pub fn new() -> Self {
        static PARSED: OnceLock<Model> = OnceLock::new();
        let model = PARSED.get_or_init(|| {
            rustface::read_model(MODEL)
                .unwrap_or_else(|error| panic!("the built-in face model is damaged: {error}"))
        });
        let mut detector = rustface::create_detector_with_model(model.clone());
        detector.set_min_face_size(SMALLEST_FACE);
        detector.set_score_thresh(SCORE);
        detector.set_pyramid_scale_factor(0.8);
        detector.set_slide_window_step(4, 4);
        FaceDetector { detector }
    }

    /// The largest face of an RGB picture, `u8` `[height, width, 3]`, if there is one.
    ///
    /// # Panics
    /// If `rgb` has not `width * height * 3` bytes.
    pub fn largest(&mut self, rgb: &[u8], width: u32, height: u32) -> Option<Face> {
        assert_eq!(
            rgb.len(),
            width as usize * height as usize * 3,
            "bytes of a {width}x{height} RGB picture"
        );
        self.largest_in(&Picture {
            width,
            height,
            data: rgb.to_vec(),
        })
    }

    pub(crate) fn largest_in(&mut self, picture: &Picture) -> Option<Face> {
        let scale =
            (f64::from(SEARCH_SIDE) / f64::from(picture.width.max(picture.height))).min(1.0);
        let shrunk = |side: u32| (f64::from(side) * scale).round() as u32;
        let (width, height) = (shrunk(picture.width), shrunk(picture.height));
        if width.min(height) < SMALLEST_FACE {
            return None;
        }
        let gray = picture.resized(picture.whole(), width, height).gray();
        let faces = self.detector.detect(&ImageData::new(&gray, width, height));
        // A larger face wins; of equally large ones the more certain.
        let best = faces.iter().max_by(|a, b| {
            let sides = a.bbox().width().cmp(&b.bbox().width());
            sides.then(a.score().total_cmp(&b.score()))
        })?;
        let bounds = best.bbox();
        let (box_width, box_height) = (f64::from(bounds.width()), f64::from(bounds.height()));
        Some(Face {
            x: (f64::from(bounds.x()) + box_width / 2.0) / scale,
            y: (f64::from(bounds.y()) + box_height / 2.0) / scale,
            side: box_width.max(box_height) / scale,
        })
    }
}

impl Default for FaceDetector {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_face_in_an_even_or_tiny_picture() {
        let mut detector = FaceDetector::new();
        assert_eq!(detector.largest(&[128; 120 * 90 * 3], 120, 90), None);
        assert_eq!(detector.largest(&[128; 8 * 4 * 3], 8, 4), None);
    }
}
