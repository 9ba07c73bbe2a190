//! Mel-frequency cepstral coefficients and their slopes, as `librosa.feature.mfcc` and
//! `librosa.feature.delta` compute them.

use serde::{Deserialize, Serialize};

use crate::mel::MelSpectrogram;
use crate::{EncoderError, Features, MelConfig};

/// Cepstral coefficients of decibel mel frames, followed by their slopes over time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MfccConfig {
    /// The spectrogram.
    pub mel: MelConfig,
    /// Coefficients kept, from the lowest.
    pub n_mfcc: usize,
    /// 0: coefficients alone; 1: and their slope; 2: and their curvature.
    pub deltas: usize,
}

impl Default for MfccConfig {
    fn default() -> Self {
        Self {
            mel: MelConfig {
                n_mels: 40,
                ..Default::default()
            },
            n_mfcc: 20,
            deltas: 2,
        }
    }
}

impl MfccConfig {
    /// Size of one feature: coefficients, slopes, curvatures.
    pub fn feature_dim(&self) -> usize {
        self.n_mfcc * (1 + self.deltas)
    }

    pub(crate) fn init(&self) -> Result<Mfcc, EncoderError> {
        let refuse = |key, problem| {
            Err(EncoderError::Config {
                kind: "mfcc",
                key,
                problem,
            })
        };
        if self.n_mfcc == 0 || self.n_mfcc > self.mel.n_mels {
            return refuse(
                "n_mfcc",
                format!(
                    "got {}, wanted 1 to `mel.n_mels` = {}",
                    self.n_mfcc, self.mel.n_mels
                ),
            );
        }
        if self.deltas > 2 {
            return refuse("deltas", format!("got {}, wanted 0, 1 or 2", self.deltas));
        }
        Ok(Mfcc {
            mel: self.mel.init("mfcc")?,
            config: self.clone(),
        })
    }
}

/// A planned MFCC front end.
#[derive(Debug, Clone)]
pub struct Mfcc {
    mel: MelSpectrogram,
    config: MfccConfig,
}

/// librosa's widths: slopes are fitted over 9 frames.
pub(crate) const HALF_WIDTH: usize = 4;
/// `librosa.power_to_db`: powers below this count as this.
const FLOOR: f64 = 1e-10;
/// `librosa.power_to_db`: nothing lies further than this below the loudest value of the clip.
const RANGE_DECIBEL: f64 = 80.0;

impl Mfcc {
    pub(crate) fn encode(
        &self,
        samples: &[f32],
        sample_rate: u32,
    ) -> Result<Features, EncoderError> {
        let MfccConfig { n_mfcc, deltas, .. } = self.config;
        let mut frames = self.mel.power(samples, sample_rate)?;
        let fewest = 2 * HALF_WIDTH + 1;
        if deltas > 0 && frames.len() < fewest {
            let wanted = (fewest - 1) * self.config.mel.hop;
            return Err(EncoderError::TooShort {
                got: samples.len(),
                wanted,
                purpose: "the slopes of `deltas`",
            });
        }
        to_decibel(&mut frames);
        let coefficients: Vec<Vec<f64>> = frames
            .iter()
            .map(|frame| cosine_transform(frame, n_mfcc))
            .collect();
        let mut blocks = vec![coefficients];
        for order in 1..=deltas {
            blocks.push(slopes(&blocks[0], order));
        }
        let length = frames.len();
        let data = (0..length)
            .flat_map(|frame| {
                blocks
                    .iter()
                    .flat_map(move |block| block[frame].iter().map(|value| *value as f32))
            })
            .collect();
        Ok(Features {
            length,
            dim: self.config.feature_dim(),
            data,
        })
    }
}

fn to_decibel(frames: &mut [Vec<f64>]) {
    let mut loudest = f64::NEG_INFINITY;
    for power in frames.iter_mut().flatten() {
        *power = 10.0 * power.max(FLOOR).log10();
        loudest = loudest.max(*power);
    }
    for decibel in frames.iter_mut().flatten() {
        *decibel = decibel.max(loudest - RANGE_DECIBEL);
    }
}

/// The orthonormal DCT-II, first `count` coefficients.
fn cosine_transform(values: &[f64], count: usize) -> Vec<f64> {
    let size = values.len() as f64;
    (0..count)
        .map(|k| {
            let scale = if k == 0 { 1.0 / size } else { 2.0 / size }.sqrt();
            let wave = |i: usize| (std::f64::consts::PI * (i as f64 + 0.5) * k as f64 / size).cos();
            scale
                * values
                    .iter()
                    .enumerate()
                    .map(|(i, value)| value * wave(i))
                    .sum::<f64>()
        })
        .collect()
}

/// The derivative of that order of the polynomial of that order fitted to 9 frames (Savitzky and
/// Golay). It is constant over its window, so the first and last 4 frames take the nearest full
/// window's, which is what SciPy's `mode="interp"` gives.
pub(crate) fn slopes(frames: &[Vec<f64>], order: usize) -> Vec<Vec<f64>> {
    let offsets = || (0..=2 * HALF_WIDTH).map(|i| i as f64 - HALF_WIDTH as f64);
    let mean_square = offsets().map(|k| k * k).sum::<f64>() / (2 * HALF_WIDTH + 1) as f64;
    let basis: Vec<f64> = match order {
        1 => offsets().collect(),
        _ => offsets().map(|k| k * k - mean_square).collect(),
    };
    // The second derivative of c x^2 is 2 c.
    let scale = order as f64 / basis.iter().map(|weight| weight * weight).sum::<f64>();
    let last_centre = frames.len() - 1 - HALF_WIDTH;
    (0..frames.len())
        .map(|frame| {
            let start = frame.clamp(HALF_WIDTH, last_centre) - HALF_WIDTH;
            let fitted = |i: usize| {
                basis
                    .iter()
                    .zip(&frames[start..])
                    .map(|(weight, frame)| weight * frame[i])
                    .sum::<f64>()
            };
            (0..frames[0].len()).map(|i| scale * fitted(i)).collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_of_a_parabola_are_exact() {
        // x = 3 t^2 + 2 t: slope 6 t + 2 at the centre of each window, curvature 6 everywhere.
        let frames: Vec<Vec<f64>> = (0..20)
            .map(|t| vec![f64::from(3 * t * t + 2 * t)])
            .collect();
        let (first, second) = (slopes(&frames, 1), slopes(&frames, 2));
        assert!((first[10][0] - 62.0).abs() < 1e-9);
        assert!((first[0][0] - first[4][0]).abs() < 1e-12);
        assert!(second.iter().all(|frame| (frame[0] - 6.0).abs() < 1e-9));
    }

    #[test]
    fn a_clip_too_short_for_slopes_is_refused_and_needs_none_without() {
        let sound = [0.1; 1000];
        let error = MfccConfig::default()
            .init()
            .expect("valid")
            .encode(&sound, 16_000)
            .expect_err("7 frames");
        assert!(
            error.to_string().contains("wanted at least 1280"),
            "{error}"
        );
        let config = MfccConfig {
            deltas: 0,
            ..Default::default()
        };
        assert_eq!(
            config
                .init()
                .expect("valid")
                .encode(&sound, 16_000)
                .expect("7 frames")
                .length,
            7
        );
    }
}
