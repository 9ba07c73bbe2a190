//! Pitch over time by probabilistic YIN (Mauch and Dixon, 2014), as `librosa.pyin` computes it with its defaults.
//!
//! Every threshold that YIN might have been given votes for a trough of each frame; a hidden Markov model then finds
//! the likeliest path through pitches a tenth of a semitone apart, voiced and unvoiced.

use crate::viterbi::Transitions;
use crate::yin::{Trough, Yin};

const THRESHOLDS: usize = 100;
/// How fast the prior falls from the first trough below a threshold to the next.
const BOLTZMANN: f64 = 2.0;
const BINS_PER_SEMITONE: usize = 10;
/// Octaves a second.
const MAX_TRANSITION_RATE: f64 = 35.92;
/// The weight of the deepest trough where it lies above the threshold.
const NO_TROUGH: f64 = 0.01;

/// A planned search for pitches between two bounds.
#[derive(Debug, Clone)]
pub(crate) struct Pyin {
    rate: f64,
    fmin: f64,
    yin: Yin,
    /// The prior probability of each threshold, from the lowest.
    prior: Vec<f64>,
    bins: usize,
    transitions: Transitions,
}

/// What is found in a frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Voice {
    /// Hz; `None` where the frame is unvoiced.
    pub(crate) hertz: Option<f64>,
    /// The probability of being voiced that the frame has by itself, 0 to 1.
    pub(crate) probability: f64,
}

impl Pyin {
    /// Frequencies in Hz, frame and hop in samples.
    pub(crate) fn new(rate: u32, frame: usize, hop: usize, fmin: f64, fmax: f64) -> Self {
        let rate = f64::from(rate);
        let bins = Self::bins(fmin, fmax);
        Self {
            yin: Yin::new(
                frame,
                (rate / fmax).floor() as usize,
                (rate / fmin).ceil() as usize,
            ),
            prior: (0..THRESHOLDS)
                .map(|i| beta_2_18(threshold(i + 1)) - beta_2_18(threshold(i)))
                .collect(),
            transitions: Transitions::new(bins, Self::reach(rate, hop)),
            rate,
            fmin,
            bins,
        }
    }

    /// Number of pitches.
    pub(crate) fn bins(fmin: f64, fmax: f64) -> usize {
        (12.0 * BINS_PER_SEMITONE as f64 * (fmax / fmin).log2()).floor() as usize + 1
    }

    /// How many bins the pitch may move between two frames.
    pub(crate) fn reach(rate: f64, hop: usize) -> usize {
        let semitones = (MAX_TRANSITION_RATE * 12.0 * hop as f64 / rate).round_ties_even();
        semitones as usize * BINS_PER_SEMITONE / 2
    }

    /// The voice in each frame.
    pub(crate) fn voices<'a>(&self, frames: impl Iterator<Item = &'a [f64]>) -> Vec<Voice> {
        let observed: Vec<Vec<f64>> = frames
            .map(|frame| self.observe(&self.yin.troughs(frame)))
            .collect();
        let probabilities: Vec<f64> = observed
            .iter()
            .map(|pitches| pitches.iter().sum::<f64>().clamp(0.0, 1.0))
            .collect();
        let path = self.transitions.likeliest(&observed, &probabilities);
        let hertz =
            |bin: usize| self.fmin * 2f64.powf(bin as f64 / (12 * BINS_PER_SEMITONE) as f64);
        path.into_iter()
            .zip(probabilities)
            .map(|(pitch, probability)| Voice {
                hertz: pitch.map(hertz),
                probability,
            })
            .collect()
    }

    /// The probability of each pitch in a frame.
    fn observe(&self, troughs: &[Trough]) -> Vec<f64> {
        let mut observed = vec![0.0; self.bins];
        for (trough, probability) in troughs.iter().zip(self.votes(troughs)) {
            if probability == 0.0 {
                continue;
            }
            let octaves = (self.rate / trough.period / self.fmin).log2();
            let bin = (12.0 * BINS_PER_SEMITONE as f64 * octaves).round_ties_even();
            // Of two troughs in one bin the later counts; what is too high counts for nothing.
            if let Some(observed) = observed.get_mut(bin.max(0.0) as usize) {
                *observed = probability;
            }
        }
        observed
    }

    /// What the thresholds give to each trough: those below a threshold share its prior, the first most.
    fn votes(&self, troughs: &[Trough]) -> Vec<f64> {
        let mut votes = vec![0.0; troughs.len()];
        let Some(deepest) = (0..troughs.len()).reduce(|a, b| {
            if troughs[b].height < troughs[a].height {
                b
            } else {
                a
            }
        }) else {
            return votes;
        };
        for (i, prior) in self.prior.iter().enumerate() {
            let below = |trough: &Trough| trough.height < threshold(i + 1);
            let count = troughs.iter().filter(|trough| below(trough)).count();
            if count == 0 {
                votes[deepest] += NO_TROUGH * prior;
                continue;
            }
            let total = 1.0 - (-BOLTZMANN * count as f64).exp();
            let chosen = (0..troughs.len()).filter(|index| below(&troughs[*index]));
            for (rank, index) in chosen.enumerate() {
                let share = (1.0 - (-BOLTZMANN).exp()) * (-BOLTZMANN * rank as f64).exp() / total;
                votes[index] += share * prior;
            }
        }
        votes
    }
}

fn threshold(index: usize) -> f64 {
    index as f64 / THRESHOLDS as f64
}

/// The cumulative beta distribution of parameters 2 and 18.
fn beta_2_18(x: f64) -> f64 {
    1.0 - (1.0 - x).powi(19) - 19.0 * x * (1.0 - x).powi(18)
}
