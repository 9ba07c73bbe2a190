//! How prosody is measured.

use serde::{Deserialize, Serialize};

use crate::EncoderError;
use crate::prosody::Prosody;
use crate::pyin::Pyin;

/// Pitch, energy, voicing and speaking rate in every frame, followed by their slopes over time.
///
/// | column | unit | how |
/// |---|---|---|
/// | pitch | Hz, 0 where unvoiced | `librosa.pyin` |
/// | energy | root mean square | `librosa.feature.rms` |
/// | voicing | probability, 0 to 1 | `librosa.pyin` |
/// | rate | syllable nuclei a second | after de Jong and Wempe (2009), in `rate_window` around the frame |
///
/// A nucleus is a peak of the energy in decibels, at most 25 below the loud frames (their 99th percentile), voiced, and
/// followed by a dip of at least 2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProsodyConfig {
    /// Samples per second of the sound (Hz).
    pub sample_rate: u32,
    /// Length of a frame, in samples: two periods of `fmin` or more.
    pub frame: usize,
    /// Step from one frame to the next, in samples.
    pub hop: usize,
    /// Lowest pitch, in Hz.
    pub fmin: f64,
    /// Highest pitch, in Hz.
    pub fmax: f64,
    /// Nuclei are counted over so many seconds around a frame.
    pub rate_window: f64,
    /// 0: the measures alone; 1: and their slope; 2: and their curvature.
    pub deltas: usize,
}

impl Default for ProsodyConfig {
    fn default() -> Self {
        Self {
            sample_rate: 16_000,
            frame: 1024,
            hop: 160,
            fmin: 60.0,
            fmax: 500.0,
            rate_window: 2.0,
            deltas: 1,
        }
    }
}

impl ProsodyConfig {
    /// Measures before their slopes.
    pub(crate) const MEASURES: usize = 4;

    /// Size of one feature.
    pub fn feature_dim(&self) -> usize {
        Self::MEASURES * (1 + self.deltas)
    }

    pub(crate) fn init(&self) -> Result<Prosody, EncoderError> {
        let refuse = |key, problem| {
            Err(EncoderError::Config {
                kind: "prosody",
                key,
                problem,
            })
        };
        let rate = f64::from(self.sample_rate);
        if self.sample_rate == 0 || self.hop == 0 {
            return refuse(
                "hop",
                "got 0 for it or `sample_rate`, wanted at least 1".into(),
            );
        }
        if !(0.0 < self.fmin && self.fmin < self.fmax && self.fmax <= rate / 2.0) {
            return refuse(
                "fmax",
                format!(
                    "got {} to {} Hz, wanted a range between 0 and {} Hz",
                    self.fmin,
                    self.fmax,
                    rate / 2.0
                ),
            );
        }
        if (self.frame as f64) < 2.0 * rate / self.fmin {
            return refuse(
                "frame",
                format!(
                    "got {}, wanted at least {}, two periods of `fmin` {} Hz",
                    self.frame,
                    (2.0 * rate / self.fmin).ceil(),
                    self.fmin
                ),
            );
        }
        let (bins, reach) = (
            Pyin::bins(self.fmin, self.fmax),
            Pyin::reach(rate, self.hop),
        );
        if bins <= 2 * reach {
            return refuse(
                "hop",
                format!(
                    "got {}: in such a time a pitch may cross all of {} to {} Hz; wanted a shorter one",
                    self.hop, self.fmin, self.fmax
                ),
            );
        }
        if !(self.rate_window > 0.0 && self.rate_window.is_finite()) {
            return refuse(
                "rate_window",
                format!("got {}, wanted seconds above 0", self.rate_window),
            );
        }
        if self.deltas > 2 {
            return refuse("deltas", format!("got {}, wanted 0, 1 or 2", self.deltas));
        }
        let pyin = Pyin::new(self.sample_rate, self.frame, self.hop, self.fmin, self.fmax);
        Ok(Prosody::new(self.clone(), pyin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_configs_name_the_key() {
        let default = ProsodyConfig::default;
        for (config, key) in [
            (
                ProsodyConfig {
                    frame: 512,
                    ..default()
                },
                "frame",
            ),
            (
                ProsodyConfig {
                    fmax: 9000.0,
                    ..default()
                },
                "fmax",
            ),
            (
                ProsodyConfig {
                    hop: 0,
                    ..default()
                },
                "hop",
            ),
            (
                ProsodyConfig {
                    hop: 8_000,
                    ..default()
                },
                "hop",
            ),
            (
                ProsodyConfig {
                    rate_window: 0.0,
                    ..default()
                },
                "rate_window",
            ),
        ] {
            let error = config.init().expect_err("the config cannot work");
            assert!(error.to_string().contains(&format!("`{key}`")), "{error}");
        }
    }
}
