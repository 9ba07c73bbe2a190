//! How something is said: pitch, energy, voicing and speaking rate, frame by frame.

use crate::mfcc::{HALF_WIDTH, slopes};
use crate::pyin::{Pyin, Voice};
use crate::{EncoderError, Features, ProsodyConfig};

/// A planned prosody front end. Sums run in double precision.
#[derive(Debug, Clone)]
pub struct Prosody {
    config: ProsodyConfig,
    pyin: Pyin,
}

/// Peaks this far below the loud frames are no syllables, in decibels (de Jong and Wempe).
const BELOW_LOUD: f64 = 25.0;
/// The dip that separates two syllables, in decibels (de Jong and Wempe).
const DIP: f64 = 2.0;
/// Which part of the frames is not called loud, so that a click does not set the level.
const LOUD: f64 = 0.99;
/// Energies below this count as this; silence would otherwise be minus infinity decibels.
const FLOOR: f64 = 1e-6;

impl Prosody {
    pub(crate) fn new(config: ProsodyConfig, pyin: Pyin) -> Self {
        Self { config, pyin }
    }

    pub(crate) fn encode(
        &self,
        samples: &[f32],
        sample_rate: u32,
    ) -> Result<Features, EncoderError> {
        let config = &self.config;
        if sample_rate != config.sample_rate {
            return Err(EncoderError::SampleRate {
                got: sample_rate,
                wanted: config.sample_rate,
            });
        }
        if let Some(index) = samples.iter().position(|sample| !sample.is_finite()) {
            return Err(EncoderError::NotFinite { index });
        }
        let (wanted, purpose) = match config.deltas {
            0 => (1, "one frame"),
            _ => (2 * HALF_WIDTH * config.hop, "the slopes of `deltas`"),
        };
        if samples.len() < wanted {
            return Err(EncoderError::TooShort {
                got: samples.len(),
                wanted,
                purpose,
            });
        }
        let mut blocks = vec![self.measures(samples)];
        for order in 1..=config.deltas {
            blocks.push(slopes(&blocks[0], order));
        }
        let length = blocks[0].len();
        let row = |frame: usize| blocks.iter().flat_map(move |block| block[frame].iter());
        Ok(Features {
            length,
            dim: config.feature_dim(),
            data: (0..length)
                .flat_map(row)
                .map(|value| *value as f32)
                .collect(),
        })
    }

    /// One row a frame; frames are centred, and silence stands before the first sample and after the last.
    fn measures(&self, samples: &[f32]) -> Vec<Vec<f64>> {
        let ProsodyConfig { frame, hop, .. } = self.config;
        let mut padded = vec![0.0; samples.len() + 2 * (frame / 2)];
        for (padded, sample) in padded[frame / 2..].iter_mut().zip(samples) {
            *padded = f64::from(*sample);
        }
        let count = 1 + (padded.len() - frame) / hop;
        let frames = (0..count).map(|index| &padded[index * hop..index * hop + frame]);
        let energies: Vec<f64> = frames
            .clone()
            .map(|cut| (cut.iter().map(|x| x * x).sum::<f64>() / frame as f64).sqrt())
            .collect();
        let voices = self.pyin.voices(frames);
        let rates = self.rates(&nuclei(&energies, &voices), count);
        (0..count)
            .map(|i| {
                let Voice { hertz, probability } = voices[i];
                vec![hertz.unwrap_or(0.0), energies[i], probability, rates[i]]
            })
            .collect()
    }

    /// Nuclei a second around each frame; the window is cut off where the sound ends.
    fn rates(&self, nuclei: &[usize], count: usize) -> Vec<f64> {
        let seconds = self.config.hop as f64 / f64::from(self.config.sample_rate);
        let half = (self.config.rate_window / 2.0 / seconds).round() as usize;
        let rate = |frame: usize| {
            let window = frame.saturating_sub(half)..count.min(frame + half + 1);
            let inside = nuclei.iter().filter(|nucleus| window.contains(nucleus));
            inside.count() as f64 / (window.len() as f64 * seconds)
        };
        (0..count).map(rate).collect()
    }
}

/// The frames where syllables are loudest.
fn nuclei(energies: &[f64], voices: &[Voice]) -> Vec<usize> {
    let decibels: Vec<f64> = energies
        .iter()
        .map(|energy| 20.0 * energy.max(FLOOR).log10())
        .collect();
    let mut sorted = decibels.clone();
    sorted.sort_by(f64::total_cmp);
    let loud = sorted[(LOUD * (sorted.len() - 1) as f64).round() as usize];
    let is_peak = |&i: &usize| {
        let rises = decibels[i] > decibels[i - 1];
        rises && decibels[i] >= decibels[i + 1] && decibels[i] > loud - BELOW_LOUD
    };
    let peaks: Vec<usize> = (1..decibels.len().saturating_sub(1))
        .filter(is_peak)
        .collect();
    let falls = |index: usize| {
        let next = peaks.get(index + 1).copied().unwrap_or(decibels.len() - 1);
        let between = &decibels[peaks[index]..=next];
        let dip = between.iter().fold(f64::INFINITY, |a, b| a.min(*b));
        decibels[peaks[index]] - dip >= DIP
    };
    (0..peaks.len())
        .filter(|index| falls(*index) && voices[peaks[*index]].hertz.is_some())
        .map(|index| peaks[index])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three syllables of 150 Hz in 1.2 s, 0.4 s apart, with silence between them.
    fn syllables() -> Vec<f32> {
        let sample = |i: usize| {
            let time = i as f64 / 16_000.0;
            let envelope = (std::f64::consts::PI * time / 0.4).sin().powi(4);
            (0.5 * envelope * (std::f64::consts::TAU * 150.0 * time).sin()) as f32
        };
        (0..19_200).map(sample).collect()
    }

    #[test]
    fn syllables_are_counted_and_their_pitch_is_found() {
        let config = ProsodyConfig {
            deltas: 0,
            rate_window: 4.0,
            ..Default::default()
        };
        let features = config.init().expect("valid").encode(&syllables(), 16_000);
        let features = features.expect("1.2 s of sound");
        assert_eq!((features.length, features.dim), (121, 4));
        // Three in 121 frames of 10 ms.
        assert!((features.data[3] - 3.0 / 1.21).abs() < 1e-5);
        let middle = &features.data[20 * 4..21 * 4];
        assert!((middle[0] - 150.0).abs() < 1.0, "{middle:?}");
        assert!(middle[2] > 0.8, "{middle:?}");
    }

    #[test]
    fn silence_is_unvoiced_and_has_no_syllables() {
        let config = ProsodyConfig::default().init().expect("valid");
        let features = config.encode(&[0.0; 16_000], 16_000).expect("a second");
        assert!(features.data.iter().all(|value| *value == 0.0));
    }
}
