//! Whisper's log-mel frames, as transformers' `WhisperFeatureExtractor` makes them.

use serde::Deserialize;

use super::feature_extractor::check;
use crate::mel::MelSpectrogram;
use crate::{EncoderError, MelConfig, Pad};

/// What `preprocessor_config.json` says.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct WhisperMelConfig {
    /// Number of mel bands.
    feature_size: usize,
    /// Samples per second (Hz).
    sampling_rate: u32,
    /// Step from one frame to the next, in samples.
    hop_length: usize,
    /// Every sound is cut or filled with silence to so many seconds.
    chunk_length: usize,
    /// Length of the window and of the Fourier transform, in samples.
    n_fft: usize,
    /// Random numbers added to the sound: none, or the config is refused.
    dither: f64,
}

impl Default for WhisperMelConfig {
    fn default() -> Self {
        Self {
            feature_size: 80,
            sampling_rate: 16_000,
            hop_length: 160,
            chunk_length: 30,
            n_fft: 400,
            dither: 0.0,
        }
    }
}

impl WhisperMelConfig {
    /// The front end of most published models.
    pub(crate) fn with_bands(feature_size: usize) -> Self {
        Self {
            feature_size,
            ..Default::default()
        }
    }

    fn samples(&self) -> usize {
        self.chunk_length * self.sampling_rate as usize
    }

    /// Frames of a sound: the last, centred on the end, is left out.
    fn frames(&self) -> usize {
        self.samples() / self.hop_length.max(1)
    }

    pub(crate) fn init(&self) -> Result<WhisperMel, EncoderError> {
        if self.dither != 0.0 {
            return Err(EncoderError::Config {
                kind: "whisper",
                key: "dither",
                problem: format!(
                    "got {}, wanted 0: features are the same in every run",
                    self.dither
                ),
            });
        }
        let mel = MelConfig {
            sample_rate: self.sampling_rate,
            n_fft: self.n_fft,
            window: self.n_fft,
            hop: self.hop_length,
            n_mels: self.feature_size,
            // Published as 8 kHz, whatever the rate.
            fmax: Some(8000.0),
            pad: Pad::Reflect,
            ..Default::default()
        };
        Ok(WhisperMel {
            mel: mel.init("whisper")?,
            config: *self,
        })
    }
}

/// A planned front end.
#[derive(Debug, Clone)]
pub(crate) struct WhisperMel {
    mel: MelSpectrogram,
    config: WhisperMelConfig,
}

/// Powers below this count as this.
const FLOOR: f64 = 1e-10;
/// Nothing lies further than this below the loudest value, in powers of ten.
const RANGE: f64 = 8.0;

impl WhisperMel {
    pub(crate) fn bands(&self) -> usize {
        self.config.feature_size
    }

    /// Frames of every sound.
    pub(crate) fn frames(&self) -> usize {
        self.config.frames()
    }

    pub(crate) fn sample_rate(&self) -> u32 {
        self.config.sampling_rate
    }

    /// `[bands, frames]`, row-major, of one sound.
    ///
    /// # Errors
    /// Sound at another rate, empty, or with a sample that is not finite.
    pub(crate) fn apply(
        &self,
        samples: &[f32],
        sample_rate: u32,
    ) -> Result<Vec<f32>, EncoderError> {
        check(samples, sample_rate, self.config.sampling_rate)?;
        let mut chunk = samples.to_vec();
        chunk.resize(self.config.samples(), 0.0);
        let mut frames = self.mel.power(&chunk, sample_rate)?;
        frames.truncate(self.config.frames());
        let logarithm = |power: f64| power.max(FLOOR).log10();
        let loudest = frames
            .iter()
            .flatten()
            .fold(f64::NEG_INFINITY, |loudest, power| {
                loudest.max(logarithm(*power))
            });
        let value = |power: f64| ((logarithm(power).max(loudest - RANGE) + 4.0) / 4.0) as f32;
        Ok((0..self.config.feature_size)
            .flat_map(|band| frames.iter().map(move |frame| value(frame[band])))
            .collect())
    }
}
