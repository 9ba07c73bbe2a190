//! Log-mel frames: the front end that needs no weights.

use serde::{Deserialize, Serialize};

use crate::mel::MelSpectrogram;
use crate::{EncoderError, Features, MelConfig};

/// Log-mel frames, `stack` consecutive ones side by side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogMelConfig {
    /// The spectrogram.
    pub mel: MelConfig,
    /// The logarithm.
    pub log: Logarithm,
    /// Powers below this count as this; silence would otherwise be minus infinity.
    pub floor: f64,
    /// Subtracted from every value, then divided by `std`.
    pub mean: f64,
    /// Divides every value.
    pub std: f64,
    /// Frames laid side by side in one feature; the last feature is filled up with the last frame.
    pub stack: usize,
}

/// Which logarithm of the power is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Logarithm {
    /// Natural.
    Ln,
    /// To the base 10: a tenth of the decibels.
    Log10,
}

impl Default for LogMelConfig {
    fn default() -> Self {
        Self {
            mel: MelConfig::default(),
            log: Logarithm::Log10,
            floor: 1e-10,
            mean: 0.0,
            std: 1.0,
            stack: 1,
        }
    }
}

impl LogMelConfig {
    /// Size of one feature: bands times stacked frames.
    pub fn feature_dim(&self) -> usize {
        self.mel.n_mels * self.stack
    }

    pub(crate) fn init(&self, kind: &'static str) -> Result<LogMel, EncoderError> {
        let refuse = |key, problem| Err(EncoderError::Config { kind, key, problem });
        if self.stack == 0 {
            return refuse("stack", "got 0, wanted at least 1".into());
        }
        if !(self.floor > 0.0 && self.floor.is_finite()) {
            return refuse(
                "floor",
                format!("got {}, wanted a power above 0", self.floor),
            );
        }
        if !(self.std > 0.0 && self.std.is_finite() && self.mean.is_finite()) {
            return refuse(
                "std",
                format!(
                    "got mean {} and std {}, wanted numbers, std above 0",
                    self.mean, self.std
                ),
            );
        }
        Ok(LogMel {
            mel: self.mel.init(kind)?,
            config: self.clone(),
        })
    }
}

/// A planned log-mel front end.
#[derive(Debug, Clone)]
pub struct LogMel {
    mel: MelSpectrogram,
    config: LogMelConfig,
}

impl LogMel {
    pub(crate) fn encode(
        &self,
        samples: &[f32],
        sample_rate: u32,
    ) -> Result<Features, EncoderError> {
        let LogMelConfig {
            log,
            floor,
            mean,
            std,
            stack,
            ..
        } = self.config;
        let mut frames = self.mel.power(samples, sample_rate)?;
        let length = frames.len().div_ceil(stack);
        // A feature made of silence would tell of an ending that the clip does not have.
        let last = frames[frames.len() - 1].clone();
        frames.resize(length * stack, last);
        let value = |power: f64| {
            let power = power.max(floor);
            let logarithm = match log {
                Logarithm::Ln => power.ln(),
                Logarithm::Log10 => power.log10(),
            };
            ((logarithm - mean) / std) as f32
        };
        let data = frames.into_iter().flatten().map(value).collect();
        Ok(Features {
            length,
            dim: self.config.feature_dim(),
            data,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacking_keeps_every_value_and_repeats_the_last_frame() {
        let sound: Vec<f32> = (0..16_00).map(|i| (i as f32 * 0.3).sin()).collect();
        let encode = |stack| {
            LogMelConfig {
                stack,
                ..Default::default()
            }
            .init("log_mel")
            .expect("valid")
            .encode(&sound, 16_000)
            .expect("sound")
        };
        let (single, stacked) = (encode(1), encode(4));
        assert_eq!((single.length, single.dim), (11, 80));
        assert_eq!((stacked.length, stacked.dim), (3, 320));
        assert_eq!(stacked.data[..11 * 80], single.data[..]);
        assert_eq!(stacked.data[11 * 80..], single.data[10 * 80..]);
    }
}
