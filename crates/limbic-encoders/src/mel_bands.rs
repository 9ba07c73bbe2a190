//! Triangular mel bands, as `librosa.filters.mel` makes them.

use serde::{Deserialize, Serialize};

use crate::MelConfig;

/// The formula between Hz and mel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MelScale {
    /// Linear below 1 kHz, logarithmic above (Slaney's Auditory Toolbox, librosa's default).
    Slaney,
    /// `2595 log10(1 + f / 700)` (the Hidden Markov Toolkit).
    Htk,
}

/// How the height of a mel band is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MelNorm {
    /// Each triangle has the same area.
    Slaney,
    /// Each triangle has the height 1.
    None,
}

impl MelScale {
    /// Slaney's scale has 3 mel in every 200 Hz up to 1 kHz, then 27 mel in every factor of 6.4.
    const LINEAR: f64 = 3.0 / 200.0;
    const KNEE_HERTZ: f64 = 1000.0;

    fn to_mel(self, hertz: f64) -> f64 {
        let log_step = 6.4_f64.ln() / 27.0;
        match self {
            Self::Htk => 2595.0 * (1.0 + hertz / 700.0).log10(),
            Self::Slaney if hertz < Self::KNEE_HERTZ => hertz * Self::LINEAR,
            Self::Slaney => {
                Self::KNEE_HERTZ * Self::LINEAR + (hertz / Self::KNEE_HERTZ).ln() / log_step
            }
        }
    }

    fn to_hertz(self, mel: f64) -> f64 {
        let log_step = 6.4_f64.ln() / 27.0;
        let knee = Self::KNEE_HERTZ * Self::LINEAR;
        match self {
            Self::Htk => 700.0 * (10f64.powf(mel / 2595.0) - 1.0),
            Self::Slaney if mel < knee => mel / Self::LINEAR,
            Self::Slaney => Self::KNEE_HERTZ * (log_step * (mel - knee)).exp(),
        }
    }
}

/// One mel band: its weights from Fourier bin `first` on.
#[derive(Debug, Clone)]
pub(crate) struct Filter {
    first: usize,
    weights: Vec<f64>,
}

impl Filter {
    /// Triangles between neighbouring mel points, sampled at the Fourier bins.
    ///
    /// `None` stands for a band so narrow that no bin falls into it.
    pub(crate) fn bank(config: &MelConfig) -> Vec<Option<Self>> {
        let (low, high) = (
            config.scale.to_mel(config.fmin),
            config.scale.to_mel(config.fmax()),
        );
        let step = (high - low) / (config.n_mels + 1) as f64;
        let edges: Vec<f64> = (0..config.n_mels + 2)
            .map(|i| config.scale.to_hertz(low + step * i as f64))
            .collect();
        let bin_width = f64::from(config.sample_rate) / config.n_fft as f64;
        let filter = |edge: &[f64]| {
            let height = match config.norm {
                MelNorm::Slaney => 2.0 / (edge[2] - edge[0]),
                MelNorm::None => 1.0,
            };
            let weight = |bin: usize| {
                let frequency = bin as f64 * bin_width;
                let rising = (frequency - edge[0]) / (edge[1] - edge[0]);
                let falling = (edge[2] - frequency) / (edge[2] - edge[1]);
                height * rising.min(falling).max(0.0)
            };
            let inside = (0..=config.n_fft / 2).filter(|bin| weight(*bin) > 0.0);
            Some(Self {
                first: inside.clone().next()?,
                weights: inside.map(weight).collect(),
            })
        };
        edges.windows(3).map(filter).collect()
    }

    /// The band's part of a power spectrum.
    pub(crate) fn apply(&self, power: &[f64]) -> f64 {
        self.weights
            .iter()
            .zip(&power[self.first..])
            .map(|(weight, power)| weight * power)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scales_invert_and_meet_known_points() {
        for scale in [MelScale::Slaney, MelScale::Htk] {
            for hertz in [0.0, 440.0, 1000.0, 4000.0, 8000.0] {
                assert!((scale.to_hertz(scale.to_mel(hertz)) - hertz).abs() < 1e-8);
            }
        }
        assert!((MelScale::Slaney.to_mel(1000.0) - 15.0).abs() < 1e-12);
        assert!((MelScale::Slaney.to_mel(6400.0) - 42.0).abs() < 1e-12);
        assert!((MelScale::Htk.to_mel(700.0) - 2595.0 * 2f64.log10()).abs() < 1e-9);
    }
}
