//! Root mean square normalisation (Zhang and Sennrich 2019), `y = x · s · w` with `s = 1 / sqrt(mean(x²) + ε)`.

use crate::Buffer;
use crate::rows::{for_rows, for_rows_of_two};
use crate::vector::{sum, widest};

/// A norm's scales and constant.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// w, `[D]`
    pub weight: &'a [f32],
    /// ε
    pub epsilon: f32,
    /// Whether the scales have a gradient.
    pub is_trained: bool,
}

impl Norm<'_> {
    /// The normalised rows, and s of each.
    pub(crate) fn forward(&self, x: &[f32]) -> (Buffer, Buffer) {
        let width = self.weight.len();
        let mut scales = Buffer::stale(x.len() / width);
        let mut out = Buffer::stale(x.len());
        for_rows_of_two((&mut scales, 1), (&mut out, width), |first, scales, out| {
            let x = &x[first * width..][..out.len()];
            let rows = x.chunks_exact(width).zip(out.chunks_exact_mut(width));
            for ((x, out), scale) in rows.zip(scales) {
                widest(
                    #[inline(always)]
                    || {
                        let mean = sum(x, x, |a, b| a * b) / width as f32;
                        *scale = 1.0 / (mean + self.epsilon).sqrt();
                        self.scale(x, *scale, out);
                    },
                );
            }
        });
        (out, scales)
    }

    /// The normalised rows again.
    pub(crate) fn again(&self, x: &[f32], scales: &[f32]) -> Buffer {
        let width = self.weight.len();
        let mut out = Buffer::stale(x.len());
        for_rows(&mut out, width, |first, out| {
            let x = &x[first * width..][..out.len()];
            let rows = x.chunks_exact(width).zip(out.chunks_exact_mut(width));
            for ((x, out), scale) in rows.zip(&scales[first..]) {
                widest(
                    #[inline(always)]
                    || self.scale(x, *scale, out),
                );
            }
        });
        out
    }

    #[inline(always)]
    fn scale(&self, x: &[f32], scale: f32, out: &mut [f32]) {
        for ((out, x), weight) in out.iter_mut().zip(x).zip(self.weight) {
            *out = x * scale * weight;
        }
    }

    /// Adds the slope at x to `slope`, given the one at y: `s (w dy - x s² mean(x w dy))`.
    pub(crate) fn backward(&self, slope: &mut [f32], y_slope: &[f32], x: &[f32], scales: &[f32]) {
        let width = self.weight.len();
        for_rows(slope, width, |first, slope| {
            let range = first * width..first * width + slope.len();
            let (y_slope, x) = (&y_slope[range.clone()], &x[range]);
            let rows = slope
                .chunks_exact_mut(width)
                .zip(y_slope.chunks_exact(width));
            for (((slope, y_slope), x), scale) in
                rows.zip(x.chunks_exact(width)).zip(&scales[first..])
            {
                widest(
                    #[inline(always)]
                    || {
                        let mut lanes = [0.0f32; crate::vector::LANES];
                        let whole = width / lanes.len() * lanes.len();
                        for start in (0..whole).step_by(lanes.len()) {
                            for (lane, total) in lanes.iter_mut().enumerate() {
                                let i = start + lane;
                                *total += x[i] * y_slope[i] * self.weight[i];
                            }
                        }
                        let mut total: f32 = lanes.iter().sum();
                        for i in whole..width {
                            total += x[i] * y_slope[i] * self.weight[i];
                        }
                        let pull = total * scale * scale * scale / width as f32;
                        for (((slope, y_slope), x), weight) in
                            slope.iter_mut().zip(y_slope).zip(x).zip(self.weight)
                        {
                            *slope += y_slope * weight * scale - x * pull;
                        }
                    },
                );
            }
        });
    }

    /// The slope at w, `Σ dy x s`, where it is trained.
    pub(crate) fn weight_gradient(
        &self,
        y_slope: &[f32],
        x: &[f32],
        scales: &[f32],
    ) -> Option<Vec<f32>> {
        let width = self.weight.len();
        self.is_trained.then(|| {
            let mut gradient = vec![0.0; width];
            let rows = y_slope.chunks_exact(width).zip(x.chunks_exact(width));
            for ((y_slope, x), scale) in rows.zip(scales) {
                for ((gradient, y_slope), x) in gradient.iter_mut().zip(y_slope).zip(x) {
                    *gradient += y_slope * x * scale;
                }
            }
            gradient
        })
    }
}
