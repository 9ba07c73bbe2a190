//! Mel spectrograms as librosa computes them (`librosa.feature.melspectrogram`, power 2).

use std::sync::Arc;

use realfft::{RealFftPlanner, RealToComplex};
use serde::{Deserialize, Serialize};

use crate::mel_bands::Filter;
use crate::{EncoderError, MelNorm, MelScale};

/// How sound becomes a mel spectrogram. The defaults are 25 ms windows every 10 ms at 16 kHz.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MelConfig {
    /// Samples per second of the sound (Hz).
    pub sample_rate: u32,
    /// Length of the Fourier transform, in samples.
    pub n_fft: usize,
    /// Length of the periodic Hann window, in samples; centred in `n_fft`.
    pub window: usize,
    /// Step from one window to the next, in samples.
    pub hop: usize,
    /// Number of mel bands.
    pub n_mels: usize,
    /// Lower edge of the lowest band, in Hz.
    pub fmin: f64,
    /// Upper edge of the highest band, in Hz; half the sample rate where absent.
    pub fmax: Option<f64>,
    /// The formula between Hz and mel.
    pub scale: MelScale,
    /// Whether each band is divided by its width in Hz, so that white noise is flat.
    pub norm: MelNorm,
    /// What stands before the first and after the last sample.
    pub pad: Pad,
}

/// What stands beyond the ends of the sound, so that the first window is centred on the first sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pad {
    /// Silence (librosa's default).
    Constant,
    /// The sound mirrored at its first and last sample (Whisper's and older librosa's choice).
    Reflect,
}

impl Default for MelConfig {
    fn default() -> Self {
        Self {
            sample_rate: 16_000,
            n_fft: 400,
            window: 400,
            hop: 160,
            n_mels: 80,
            fmin: 0.0,
            fmax: None,
            scale: MelScale::Slaney,
            norm: MelNorm::Slaney,
            pad: Pad::Constant,
        }
    }
}

impl MelConfig {
    pub(crate) fn fmax(&self) -> f64 {
        self.fmax.unwrap_or(f64::from(self.sample_rate) / 2.0)
    }

    /// Plans the transform and builds the window and the filters.
    ///
    /// # Errors
    /// Sizes of zero, a window longer than `n_fft`, an empty or too high frequency range, and bands so
    /// narrow that no Fourier bin falls into them.
    pub(crate) fn init(&self, kind: &'static str) -> Result<MelSpectrogram, EncoderError> {
        let refuse = |key, problem| Err(EncoderError::Config { kind, key, problem });
        let sizes = [
            ("mel.sample_rate", self.sample_rate as usize),
            ("mel.n_fft", self.n_fft),
            ("mel.window", self.window),
            ("mel.hop", self.hop),
            ("mel.n_mels", self.n_mels),
        ];
        if let Some((key, _)) = sizes.into_iter().find(|(_, size)| *size == 0) {
            return refuse(key, "got 0, wanted at least 1".into());
        }
        if self.window > self.n_fft {
            return refuse(
                "mel.window",
                format!(
                    "got {}, wanted at most `n_fft` = {}",
                    self.window, self.n_fft
                ),
            );
        }
        let (fmin, fmax, nyquist) = (self.fmin, self.fmax(), f64::from(self.sample_rate) / 2.0);
        if !(0.0 <= fmin && fmin < fmax && fmax <= nyquist) {
            return refuse(
                "mel.fmax",
                format!("got {fmin} to {fmax} Hz, wanted a range between 0 and {nyquist} Hz"),
            );
        }
        let bank = Filter::bank(self);
        if let Some(band) = bank.iter().position(Option::is_none) {
            return refuse(
                "mel.n_mels",
                format!(
                    "no Fourier bin falls into band {band} of {}; take fewer bands or a larger `n_fft` than {}",
                    self.n_mels, self.n_fft
                ),
            );
        }
        Ok(MelSpectrogram {
            fft: RealFftPlanner::new().plan_fft_forward(self.n_fft),
            window: self.hann(),
            filters: bank.into_iter().flatten().collect(),
            config: self.clone(),
        })
    }

    /// `scipy.signal.get_window("hann", window, fftbins=True)` centred in `n_fft` zeros.
    fn hann(&self) -> Vec<f64> {
        let before = (self.n_fft - self.window) / 2;
        let mut padded = vec![0.0; self.n_fft];
        for i in 0..self.window {
            let phase = std::f64::consts::TAU * i as f64 / self.window as f64;
            padded[before + i] = 0.5 - 0.5 * phase.cos();
        }
        padded
    }
}

/// A planned mel spectrogram. Sums run in double precision, so that the result is the same however
/// the sound was cut into threads.
#[derive(Clone)]
pub(crate) struct MelSpectrogram {
    pub(crate) config: MelConfig,
    fft: Arc<dyn RealToComplex<f64>>,
    window: Vec<f64>,
    filters: Vec<Filter>,
}

impl std::fmt::Debug for MelSpectrogram {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_tuple("MelSpectrogram")
            .field(&self.config)
            .finish()
    }
}

impl MelSpectrogram {
    /// Power in each mel band, one row a frame; `1 + samples / hop` frames.
    ///
    /// # Errors
    /// Sound at another rate, with a sample that is not finite, or too short to be padded.
    pub(crate) fn power(
        &self,
        samples: &[f32],
        sample_rate: u32,
    ) -> Result<Vec<Vec<f64>>, EncoderError> {
        if sample_rate != self.config.sample_rate {
            return Err(EncoderError::SampleRate {
                got: sample_rate,
                wanted: self.config.sample_rate,
            });
        }
        if let Some(index) = samples.iter().position(|sample| !sample.is_finite()) {
            return Err(EncoderError::NotFinite { index });
        }
        let padded = self.pad(samples)?;
        let mut frame = self.fft.make_input_vec();
        let mut spectrum = self.fft.make_output_vec();
        let mut scratch = self.fft.make_scratch_vec();
        let frames = (0..=samples.len() / self.config.hop).map(|index| {
            let start = index * self.config.hop;
            let cut = &padded[start..start + self.config.n_fft];
            for ((value, sample), window) in frame.iter_mut().zip(cut).zip(&self.window) {
                *value = f64::from(*sample) * window;
            }
            self.fft
                .process_with_scratch(&mut frame, &mut spectrum, &mut scratch)
                .expect("buffers made by the plan have its lengths");
            let power: Vec<f64> = spectrum.iter().map(|bin| bin.norm_sqr()).collect();
            self.filters
                .iter()
                .map(|filter| filter.apply(&power))
                .collect()
        });
        Ok(frames.collect())
    }

    fn pad(&self, samples: &[f32]) -> Result<Vec<f32>, EncoderError> {
        let side = self.config.n_fft / 2;
        let (fewest, purpose) = match self.config.pad {
            Pad::Constant => (1, "one frame"),
            Pad::Reflect => (side + 1, "`pad: reflect`"),
        };
        if samples.len() < fewest {
            return Err(EncoderError::TooShort {
                got: samples.len(),
                wanted: fewest,
                purpose,
            });
        }
        let mut padded = vec![0.0; samples.len() + self.config.n_fft];
        padded[side..side + samples.len()].copy_from_slice(samples);
        if self.config.pad == Pad::Reflect {
            let last = side + samples.len() - 1;
            for offset in 1..=side {
                padded[side - offset] = padded[side + offset];
                padded[last + offset] = padded[last - offset];
            }
        }
        Ok(padded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_configs_name_the_key() {
        let empty_band = MelConfig {
            n_mels: 400,
            ..Default::default()
        };
        let too_high = MelConfig {
            fmax: Some(9000.0),
            ..Default::default()
        };
        let no_hop = MelConfig {
            hop: 0,
            ..Default::default()
        };
        for (config, key) in [
            (empty_band, "mel.n_mels"),
            (too_high, "mel.fmax"),
            (no_hop, "mel.hop"),
        ] {
            let message = config
                .init("log_mel")
                .expect_err("the config cannot work")
                .to_string();
            assert!(message.contains(key), "{message}");
        }
    }

    #[test]
    fn sound_that_cannot_be_analysed_is_refused() {
        let mel = MelConfig {
            pad: Pad::Reflect,
            ..Default::default()
        }
        .init("log_mel")
        .expect("valid");
        assert!(matches!(
            mel.power(&[0.0; 400], 8000),
            Err(EncoderError::SampleRate {
                got: 8000,
                wanted: 16_000
            })
        ));
        assert!(matches!(
            mel.power(&[0.0; 200], 16_000),
            Err(EncoderError::TooShort { wanted: 201, .. })
        ));
        assert!(matches!(
            mel.power(&[f32::NAN; 400], 16_000),
            Err(EncoderError::NotFinite { index: 0 })
        ));
    }
}
