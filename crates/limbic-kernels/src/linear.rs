//! A linear layer with LoRA (Hu et al. 2021): `y = x Wᵀ + b + scale · (x Aᵀ) Bᵀ`.
//!
//! Letters: N rows, r rank. A frozen W takes part in the slope at x alone: no gradient of its size is ever formed.

use crate::rows::for_rows;
use crate::vector::widest;
use crate::{Buffer, Matrix, MatrixMut, Stored, multiply};

/// A layer's numbers.
#[derive(Clone, Copy, Debug)]
pub struct Linear<'a> {
    /// W, `[out, in]`
    pub weight: Stored<'a>,
    /// b, `[out]`
    pub bias: Option<&'a [f32]>,
    /// Width of x.
    pub input: usize,
    /// Width of y.
    pub output: usize,
    /// Low-rank matrices beside W.
    pub adapter: Option<Adapter<'a>>,
    /// Whether W and b have gradients.
    pub is_trained: bool,
}

/// Low-rank matrices.
#[derive(Clone, Copy, Debug)]
pub struct Adapter<'a> {
    /// A, `[r, in]`
    pub a: &'a [f32],
    /// B, `[out, r]`
    pub b: &'a [f32],
    /// What their product is multiplied by.
    pub scale: f32,
    /// What each number of x is multiplied by before A: dropout's mask, `[N, in]`.
    pub mask: Option<&'a [f32]>,
    /// Whether A and B have gradients.
    pub is_trained: bool,
}

/// Slopes at a layer's numbers, of those that are trained.
#[derive(Debug, Default)]
pub struct LinearGradients {
    /// `[out, in]`
    pub weight: Option<Vec<f32>>,
    /// `[out]`
    pub bias: Option<Vec<f32>>,
    /// `[r, in]`
    pub a: Option<Vec<f32>>,
    /// `[out, r]`
    pub b: Option<Vec<f32>>,
}

impl Adapter<'_> {
    fn rank(&self, input: usize) -> usize {
        self.a.len() / input
    }

    /// x as A sees it, where that is not x itself.
    fn thinned(&self, x: &[f32]) -> Option<Buffer> {
        self.mask.map(|mask| {
            let mut out = Buffer::copy(x);
            times(&mut out, mask);
            out
        })
    }
}

fn times(x: &mut [f32], mask: &[f32]) {
    assert_eq!(x.len(), mask.len(), "a mask of another shape");
    for_rows(x, 1, |first, x| {
        let mask = &mask[first..first + x.len()];
        widest(
            #[inline(always)]
            || {
                for (x, mask) in x.iter_mut().zip(mask) {
                    *x *= mask;
                }
            },
        );
    });
}

impl Linear<'_> {
    /// y, and `x Aᵀ` for the way back.
    ///
    /// # Shapes
    /// `[N, in]` to `[N, out]` and `[N, r]`.
    pub fn forward(&self, x: &[f32]) -> (Buffer, Buffer) {
        let rows = x.len() / self.input;
        let mut y = Buffer::stale(rows * self.output);
        self.weight.there(&mut y, x, [self.output, self.input]);
        let low = self.low(x);
        if let Some(adapter) = &self.adapter {
            let rank = adapter.rank(self.input);
            let b = Matrix::new(adapter.b, self.output, rank).transposed();
            let narrow = Matrix::new(&low, rows, rank);
            let out = MatrixMut::new(&mut y, rows, self.output);
            multiply(out, true, narrow, b, adapter.scale);
        }
        if let Some(bias) = self.bias {
            for_rows(&mut y, self.output, |_, y| {
                for y in y.chunks_exact_mut(self.output) {
                    widest(
                        #[inline(always)]
                        || y.iter_mut().zip(bias).for_each(|(y, bias)| *y += bias),
                    );
                }
            });
        }
        (y, low)
    }

    /// `x Aᵀ`; nothing without an adapter.
    ///
    /// # Shapes
    /// `[N, in]` to `[N, r]`.
    pub(crate) fn low(&self, x: &[f32]) -> Buffer {
        let Some(adapter) = &self.adapter else {
            return Buffer::default();
        };
        let (rows, rank) = (x.len() / self.input, adapter.rank(self.input));
        let thinned = adapter.thinned(x);
        let input = Matrix::new(thinned.as_deref().unwrap_or(x), rows, self.input);
        let mut low = Buffer::stale(rows * rank);
        let a = Matrix::new(adapter.a, rank, self.input).transposed();
        multiply(MatrixMut::new(&mut low, rows, rank), false, input, a, 1.0);
        low
    }

    /// Slopes at the layer's numbers, and the one at x in `x_slope`, where that is asked for, or added to it where it is kept.
    ///
    /// # Shapes
    /// `y_slope [N, out]`, `x [N, in]`, `low [N, r]`, `x_slope [N, in]`.
    pub fn backward(
        &self,
        y_slope: &[f32],
        x: &[f32],
        low: &[f32],
        x_slope: Option<&mut [f32]>,
        keeps: bool,
    ) -> LinearGradients {
        let rows = x.len() / self.input;
        let slope = Matrix::new(y_slope, rows, self.output);
        let mut gradients = LinearGradients::default();
        if self.is_trained {
            let mut weight = vec![0.0; self.output * self.input];
            let out = MatrixMut::new(&mut weight, self.output, self.input);
            let x = Matrix::new(x, rows, self.input);
            multiply(out, false, slope.transposed(), x, 1.0);
            gradients.weight = Some(weight);
            gradients.bias = self.bias.map(|_| {
                let mut bias = vec![0.0; self.output];
                for y_slope in y_slope.chunks_exact(self.output) {
                    bias.iter_mut()
                        .zip(y_slope)
                        .for_each(|(bias, y)| *bias += y);
                }
                bias
            });
        }
        // The slope at x Aᵀ.
        let low_slope = self.adapter.as_ref().map(|adapter| {
            let rank = adapter.rank(self.input);
            let mut low_slope = Buffer::stale(rows * rank);
            let out = MatrixMut::new(&mut low_slope, rows, rank);
            let b = Matrix::new(adapter.b, self.output, rank);
            multiply(out, false, slope, b, adapter.scale);
            if adapter.is_trained {
                let mut b = vec![0.0; self.output * rank];
                let out = MatrixMut::new(&mut b, self.output, rank);
                let low = Matrix::new(low, rows, rank);
                multiply(out, false, slope.transposed(), low, adapter.scale);
                gradients.b = Some(b);
                let thinned = adapter.thinned(x);
                let x = Matrix::new(thinned.as_deref().unwrap_or(x), rows, self.input);
                let mut a = vec![0.0; rank * self.input];
                let out = MatrixMut::new(&mut a, rank, self.input);
                let low_slope = Matrix::new(&low_slope, rows, rank);
                multiply(out, false, low_slope.transposed(), x, 1.0);
                gradients.a = Some(a);
            }
            low_slope
        });
        if let Some(x_slope) = x_slope {
            self.weight
                .back(x_slope, keeps, y_slope, [self.output, self.input]);
            if let (Some(adapter), Some(low_slope)) = (&self.adapter, &low_slope) {
                let rank = adapter.rank(self.input);
                let low_slope = Matrix::new(low_slope, rows, rank);
                let a = Matrix::new(adapter.a, rank, self.input);
                match adapter.mask {
                    None => {
                        let out = MatrixMut::new(x_slope, rows, self.input);
                        multiply(out, true, low_slope, a, 1.0);
                    }
                    Some(mask) => {
                        let mut through = Buffer::stale(x_slope.len());
                        let out = MatrixMut::new(&mut through, rows, self.input);
                        multiply(out, false, low_slope, a, 1.0);
                        times(&mut through, mask);
                        add(x_slope, &through);
                    }
                }
            }
        }
        gradients
    }
}

/// `x += y`
pub(crate) fn add(x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len(), "a sum of different shapes");
    for_rows(x, 1, |first, x| {
        let y = &y[first..first + x.len()];
        widest(
            #[inline(always)]
            || x.iter_mut().zip(y).for_each(|(x, y)| *x += y),
        );
    });
}
