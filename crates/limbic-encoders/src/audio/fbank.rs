//! Kaldi's log-mel filter banks with the settings of the Audio Spectrogram Transformer, which ImageBind took over.
//!
//! After `torchaudio.compliance.kaldi.fbank(htk_compat=True, use_energy=False, window_type="hanning", dither=0,
//! frame_length=25, frame_shift=10)` and `waveform2melspec` of ImageBind's `data.py`. It differs from librosa's manner
//! in nearly everything: no padding, mean and pre-emphasis taken frame by frame, a symmetric window, triangles that are
//! straight over mel rather than Hz, and bands so narrow at the bottom that some hold no Fourier bin.

use std::sync::Arc;

use realfft::{RealFftPlanner, RealToComplex};

use super::feature_extractor::check;
use crate::EncoderError;

const RATE: u32 = 16_000;
const WINDOW: usize = 400;
const HOP: usize = 160;
const N_FFT: usize = 512;
const LOWEST_HERTZ: f64 = 20.0;
const HIGHEST_HERTZ: f64 = 8000.0;
const PRE_EMPHASIS: f64 = 0.97;
/// Powers below this count as this: the distance from 1 to the next F32.
const FLOOR: f64 = f32::EPSILON as f64;
/// Of the values over the corpus that ImageBind was trained on.
const MEAN: f64 = -4.268;
const STD: f64 = 9.138;

/// A planned front end.
#[derive(Clone)]
pub(crate) struct FilterBank {
    bands: usize,
    frames: usize,
    fft: Arc<dyn RealToComplex<f64>>,
    window: Vec<f64>,
    /// `[bands]` of first bin and weights.
    filters: Vec<(usize, Vec<f64>)>,
}

impl std::fmt::Debug for FilterBank {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("FilterBank")
            .field("bands", &self.bands)
            .field("frames", &self.frames)
            .finish()
    }
}

impl FilterBank {
    pub(crate) const SAMPLE_RATE: u32 = RATE;

    pub(crate) fn new(bands: usize, frames: usize) -> Self {
        let hann = |i: usize| {
            let phase = std::f64::consts::TAU * i as f64 / (WINDOW - 1) as f64;
            0.5 - 0.5 * phase.cos()
        };
        Self {
            bands,
            frames,
            fft: RealFftPlanner::new().plan_fft_forward(N_FFT),
            window: (0..WINDOW).map(hann).collect(),
            filters: filters(bands),
        }
    }

    /// `[bands, frames]`, row-major, of one sound; what is missing at the end is 0 before the values are standardised.
    ///
    /// # Errors
    /// Sound at another rate, shorter than a window, or with a sample that is not finite.
    pub(crate) fn apply(
        &self,
        samples: &[f32],
        sample_rate: u32,
    ) -> Result<Vec<f32>, EncoderError> {
        check(samples, sample_rate, RATE)?;
        if samples.len() < WINDOW {
            return Err(EncoderError::TooShort {
                got: samples.len(),
                wanted: WINDOW,
                purpose: "one window of the filter bank",
            });
        }
        let mean = samples.iter().map(|x| f64::from(*x)).sum::<f64>() / samples.len() as f64;
        let silent = ((0.0 - MEAN) / STD) as f32;
        let mut values = vec![silent; self.bands * self.frames];
        let mut frame = self.fft.make_input_vec();
        let mut spectrum = self.fft.make_output_vec();
        let mut scratch = self.fft.make_scratch_vec();
        let count = 1 + (samples.len() - WINDOW) / HOP;
        for index in 0..count.min(self.frames) {
            let cut = &samples[index * HOP..index * HOP + WINDOW];
            self.window_into(cut, mean, &mut frame);
            self.fft
                .process_with_scratch(&mut frame, &mut spectrum, &mut scratch)
                .expect("buffers made by the plan have its lengths");
            for (band, (first, weights)) in self.filters.iter().enumerate() {
                let bins = &spectrum[*first..];
                let power: f64 = weights
                    .iter()
                    .zip(bins)
                    .map(|(w, bin)| w * bin.norm_sqr())
                    .sum();
                let value = (power.max(FLOOR).ln() - MEAN) / STD;
                values[band * self.frames + index] = value as f32;
            }
        }
        Ok(values)
    }

    /// Takes off the frame's mean, emphasises differences, and weights by the window.
    fn window_into(&self, cut: &[f32], mean: f64, frame: &mut [f64]) {
        let mut centred: Vec<f64> = cut.iter().map(|x| f64::from(*x) - mean).collect();
        let own = centred.iter().sum::<f64>() / WINDOW as f64;
        centred.iter_mut().for_each(|x| *x -= own);
        frame.fill(0.0);
        for i in 0..WINDOW {
            let before = centred[i.saturating_sub(1)];
            frame[i] = (centred[i] - PRE_EMPHASIS * before) * self.window[i];
        }
    }
}

/// Triangles between neighbouring points that are even on Kaldi's mel scale, without the bin at half the rate.
fn filters(bands: usize) -> Vec<(usize, Vec<f64>)> {
    let mel = |hertz: f64| 1127.0 * (1.0 + hertz / 700.0).ln();
    let lowest = mel(LOWEST_HERTZ);
    let step = (mel(HIGHEST_HERTZ) - lowest) / (bands + 1) as f64;
    let bin_mel = |bin: usize| mel(bin as f64 * f64::from(RATE) / N_FFT as f64);
    let filter = |band: usize| {
        let left = lowest + band as f64 * step;
        let weight = |bin: usize| {
            let place = bin_mel(bin);
            ((place - left) / step).min((left + 2.0 * step - place) / step)
        };
        let inside: Vec<usize> = (0..N_FFT / 2).filter(|bin| weight(*bin) > 0.0).collect();
        let first = inside.first().copied().unwrap_or(0);
        (first, inside.into_iter().map(weight).collect())
    };
    (0..bands).map(filter).collect()
}
