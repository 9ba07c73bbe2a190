//! The front end of the models that read raw sound: transformers' `Wav2Vec2FeatureExtractor`.

use serde::Deserialize;

use crate::EncoderError;

/// What `preprocessor_config.json` says.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct FeatureExtractor {
    /// Samples per second (Hz).
    pub(crate) sampling_rate: u32,
    /// Whether each sound is brought to mean 0 and variance 1.
    pub(crate) do_normalize: bool,
}

impl Default for FeatureExtractor {
    fn default() -> Self {
        Self {
            sampling_rate: 16_000,
            do_normalize: true,
        }
    }
}

/// Added to the variance; silence would otherwise be divided by zero.
const EPSILON: f64 = 1e-7;

impl FeatureExtractor {
    /// What the model reads of one sound.
    ///
    /// # Errors
    /// Sound at another rate, empty, or with a sample that is not finite.
    pub(crate) fn apply(
        &self,
        samples: &[f32],
        sample_rate: u32,
    ) -> Result<Vec<f32>, EncoderError> {
        check(samples, sample_rate, self.sampling_rate)?;
        if !self.do_normalize {
            return Ok(samples.to_vec());
        }
        let count = samples.len() as f64;
        let mean = samples.iter().map(|x| f64::from(*x)).sum::<f64>() / count;
        let squares = samples.iter().map(|x| (f64::from(*x) - mean).powi(2));
        let deviation = (squares.sum::<f64>() / count + EPSILON).sqrt();
        let normal = |x: &f32| ((f64::from(*x) - mean) / deviation) as f32;
        Ok(samples.iter().map(normal).collect())
    }
}

/// Refuses sound that no front end can read.
///
/// # Errors
/// Another rate, no sample, or one that is not finite.
pub(crate) fn check(samples: &[f32], got: u32, wanted: u32) -> Result<(), EncoderError> {
    if got != wanted {
        return Err(EncoderError::SampleRate { got, wanted });
    }
    if samples.is_empty() {
        return Err(EncoderError::TooShort {
            got: 0,
            wanted: 1,
            purpose: "a sound",
        });
    }
    match samples.iter().position(|sample| !sample.is_finite()) {
        Some(index) => Err(EncoderError::NotFinite { index }),
        None => Ok(()),
    }
}
