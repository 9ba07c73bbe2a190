//! The fundamental frequency of one frame, as `librosa.yin` finds it (de Cheveigné and Kawahara, 2002).

use std::sync::Arc;

use realfft::num_complex::Complex;
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};

/// A planned search for periods between two bounds.
#[derive(Clone)]
pub(crate) struct Yin {
    rate: f64,
    frame: usize,
    min_period: usize,
    max_period: usize,
    threshold: f64,
    forward: Arc<dyn RealToComplex<f64>>,
    backward: Arc<dyn ComplexToReal<f64>>,
}

/// What is found in a frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Pitch {
    /// Hz; there is always one, whether or not the frame is voiced.
    pub(crate) hertz: f64,
    /// The normalised difference between the frame and itself a period later: 0 where it repeats exactly, about 1 in
    /// noise.
    pub(crate) aperiodicity: f64,
}

impl std::fmt::Debug for Yin {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Yin")
            .field("frame", &self.frame)
            .field("periods", &(self.min_period..=self.max_period))
            .finish()
    }
}

impl Yin {
    /// Frequencies in Hz, `frame` in samples; at least one period of `fmin` must fit into it.
    pub(crate) fn new(rate: u32, frame: usize, fmin: f64, fmax: f64, threshold: f64) -> Self {
        let rate = f64::from(rate);
        let mut planner = RealFftPlanner::new();
        Self {
            rate,
            frame,
            min_period: (rate / fmax).floor() as usize,
            max_period: ((rate / fmin).ceil() as usize).min(frame - 1),
            threshold,
            forward: planner.plan_fft_forward(2 * frame),
            backward: planner.plan_fft_inverse(2 * frame),
        }
    }

    /// The period is the first dip of the normalised difference below the threshold, or else its lowest point, refined
    /// by a parabola.
    pub(crate) fn pitch(&self, frame: &[f64]) -> Pitch {
        let differences = self.normalised_differences(frame);
        let last = differences.len() - 1;
        let dips = (0..=last).filter(|&i| {
            let d = differences[i];
            let falls = i == 0 || d < differences[i - 1];
            let rises = match i {
                0 => d < differences[1],
                _ => i == last || d <= differences[i + 1],
            };
            falls && rises && d < self.threshold
        });
        let lowest = || {
            (0..=last).fold(0, |best, i| {
                if differences[i] < differences[best] {
                    i
                } else {
                    best
                }
            })
        };
        let index = dips.into_iter().next().unwrap_or_else(lowest);
        let shift = if index == 0 || index == last {
            0.0
        } else {
            parabola_shift([
                differences[index - 1],
                differences[index],
                differences[index + 1],
            ])
        };
        Pitch {
            hertz: self.rate / ((self.min_period + index) as f64 + shift),
            aperiodicity: differences[index],
        }
    }

    /// Equation 8 of the paper from the shortest period to the longest, with librosa's difference function.
    fn normalised_differences(&self, frame: &[f64]) -> Vec<f64> {
        let correlation = self.autocorrelation(frame);
        let mut energy = 0.0;
        let mut total = 0.0;
        let mut normalised = Vec::with_capacity(self.max_period + 1 - self.min_period);
        for period in 1..=self.max_period {
            energy += frame[period - 1] * frame[period - 1];
            let difference = 2.0 * (correlation[0] - correlation[period]) - energy;
            total += difference;
            if period >= self.min_period {
                let mean = total / period as f64;
                normalised.push(difference / (mean + f64::MIN_POSITIVE));
            }
        }
        normalised
    }

    fn autocorrelation(&self, frame: &[f64]) -> Vec<f64> {
        let mut padded = self.forward.make_input_vec();
        padded[..self.frame].copy_from_slice(frame);
        let mut spectrum = self.forward.make_output_vec();
        self.forward
            .process(&mut padded, &mut spectrum)
            .expect("buffers made by the plan have its lengths");
        for bin in &mut spectrum {
            *bin = Complex::new(bin.norm_sqr(), 0.0);
        }
        self.backward
            .process(&mut spectrum, &mut padded)
            .expect("buffers made by the plan have its lengths, and a power is real");
        // The transform is not scaled.
        let scale = 1.0 / (2 * self.frame) as f64;
        padded.iter().map(|value| value * scale).collect()
    }
}

/// How far the lowest point of the parabola through three neighbours lies from the middle one; 0 where it would lie
/// beyond them.
fn parabola_shift([before, here, after]: [f64; 3]) -> f64 {
    let a = after + before - 2.0 * here;
    let b = (after - before) / 2.0;
    if b.abs() >= a.abs() { 0.0 } else { -b / a }
}
