//! Video and sound from files that the tests write, damage and read back, and from the published corpora where they lie.

mod corpora;
mod damage;
mod files;
mod pictures;
mod sound;

use std::path::Path;

pub(crate) use files::write_media;

use crate::clip::Span;
use crate::error::{DataError, Reason};
use crate::video::{Crop, FrameSampler, Frames, read_frames};

fn numbers(frames: &Frames) -> Vec<usize> {
    (0..frames.count)
        .map(|index| number_of(frames.picture(index)[0]))
        .collect()
}

fn span(start: f64, end: f64) -> Span {
    Span {
        start,
        end: Some(end),
    }
}

fn frames_of(path: &Path, span: Span) -> Result<Option<Frames>, DataError> {
    read_frames(
        path,
        span,
        &FrameSampler::Uniform { count: 4 },
        16,
        &Crop::Squash,
    )
}

/// The number of the picture that a gray value came from; studio range spreads 219 levels over 255.
fn number_of(gray: u8) -> usize {
    let luma = f64::from(gray) * 219.0 / 255.0 + 16.0;
    ((luma - 20.0) / 4.0).round() as usize
}

fn reason<T>(result: Result<T, DataError>) -> Reason {
    match result.map(drop) {
        Err(DataError::Media { reason, detail, .. }) => {
            assert!(!detail.is_empty());
            reason
        }
        other => panic!("wanted a media error, got {other:?}"),
    }
}
