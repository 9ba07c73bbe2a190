//! How well a frame repeats itself after each period (YIN; de Cheveigné and Kawahara, 2002), as librosa computes it.

use std::sync::Arc;

use realfft::num_complex::Complex;
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};

/// A planned comparison of frames with themselves.
#[derive(Clone)]
pub(crate) struct Yin {
    frame: usize,
    min_period: usize,
    max_period: usize,
    forward: Arc<dyn RealToComplex<f64>>,
    backward: Arc<dyn ComplexToReal<f64>>,
}

/// A period after which the frame repeats itself better than after its neighbours.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Trough {
    /// In samples, refined by a parabola through the neighbours.
    pub(crate) period: f64,
    /// The normalised difference there: 0 where the frame repeats exactly, about 1 in noise.
    pub(crate) height: f64,
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
    /// Frames and periods in samples; the longest period is shorter than a frame.
    pub(crate) fn new(frame: usize, min_period: usize, max_period: usize) -> Self {
        let mut planner = RealFftPlanner::new();
        Self {
            frame,
            min_period,
            max_period: max_period.min(frame - 1),
            forward: planner.plan_fft_forward(2 * frame),
            backward: planner.plan_fft_inverse(2 * frame),
        }
    }

    /// The troughs of a frame, from the shortest period to the longest.
    pub(crate) fn troughs(&self, frame: &[f64]) -> Vec<Trough> {
        let differences = self.normalised_differences(frame);
        let last = differences.len() - 1;
        let is_trough = |&i: &usize| {
            let here = differences[i];
            match i {
                0 => here < differences[1],
                _ if i == last => here < differences[i - 1],
                _ => here < differences[i - 1] && here <= differences[i + 1],
            }
        };
        let trough = |i: usize| {
            let shift = if i == 0 || i == last {
                0.0
            } else {
                parabola_shift([differences[i - 1], differences[i], differences[i + 1]])
            };
            Trough {
                period: (self.min_period + i) as f64 + shift,
                height: differences[i],
            }
        };
        (0..=last).filter(is_trough).map(trough).collect()
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
