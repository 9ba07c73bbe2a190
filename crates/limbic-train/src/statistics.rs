//! Mean and deviation of features, by which projectors standardise them.

use limbic_encoders::Features;
use std::sync::Arc;

use crate::features::EncodedClip;
use crate::stored::{Stored, hold};

/// Mean and deviation of each feature dimension over all clips, the deviation floored so that it can divide; `None` where
/// no clip has the input. Clips are taken in their order, a few at a time.
///
/// # Errors
/// A clip whose media are not what they were.
pub(crate) fn statistics(
    clips: &[EncodedClip],
    input: usize,
) -> anyhow::Result<Option<(Vec<f32>, Vec<f32>)>> {
    const SMALLEST: f64 = 1e-5;
    const AT_ONCE: usize = 64;
    let all: Vec<&Stored> = clips
        .iter()
        .filter_map(|clip| clip.features[input].as_ref())
        .collect();
    let (mut sum, mut squares) = (Vec::new(), Vec::new());
    let mut count = 0;
    for some in all.chunks(AT_ONCE) {
        let _held = hold(some.iter().copied())?;
        let features: Vec<Arc<Features>> = some.iter().map(|stored| stored.held()).collect();
        for features in features {
            sum.resize(features.dim, 0.0f64);
            squares.resize(features.dim, 0.0f64);
            count += features.length;
            for row in features.data.chunks_exact(features.dim) {
                for (d, value) in row.iter().enumerate() {
                    sum[d] += f64::from(*value);
                    squares[d] += f64::from(*value) * f64::from(*value);
                }
            }
        }
    }
    if all.is_empty() {
        return Ok(None);
    }
    let mean: Vec<f64> = sum.iter().map(|sum| sum / count as f64).collect();
    let std = squares
        .iter()
        .zip(&mean)
        .map(|(squares, mean)| {
            (squares / count as f64 - mean * mean)
                .max(0.0)
                .sqrt()
                .max(SMALLEST) as f32
        })
        .collect();
    Ok(Some((mean.iter().map(|mean| *mean as f32).collect(), std)))
}
