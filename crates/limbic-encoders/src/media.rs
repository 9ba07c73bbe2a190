//! What goes into an encoder and what comes out, as host values: no tensor crosses this border, so
//! that features can be cached on disk and made on any thread.

use std::fmt;

/// The channel a medium is perceived by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Modality {
    /// Frames of a video, or a single picture.
    Video,
    /// Sound.
    Audio,
}

impl fmt::Display for Modality {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Video => "video",
            Self::Audio => "audio",
        })
    }
}

/// One decoded medium of one clip.
#[derive(Debug, Clone, Copy)]
pub enum Media<'a> {
    /// Square RGB frames.
    Frames {
        /// `[count, size, size, 3]`, row-major, 0 to 255.
        data: &'a [u8],
        /// Number of frames.
        count: usize,
        /// Side of a frame in pixels.
        size: usize,
    },
    /// Mono sound.
    Waveform {
        /// Amplitudes, nominally in ±1.
        samples: &'a [f32],
        /// Samples per second.
        sample_rate: u32,
    },
}

impl Media<'_> {
    /// The channel this medium is perceived by.
    pub fn modality(&self) -> Modality {
        match self {
            Self::Frames { .. } => Modality::Video,
            Self::Waveform { .. } => Modality::Audio,
        }
    }
}

/// What an encoder makes of one medium of one clip: a sequence of vectors.
#[derive(Debug, Clone, PartialEq)]
pub struct Features {
    /// Number of vectors.
    pub length: usize,
    /// Size of each vector.
    pub dim: usize,
    /// `[length, dim]`, row-major.
    pub data: Vec<f32>,
}
