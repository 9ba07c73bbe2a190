//! A frozen matrix in the precision that it is stored in, and products with it.

use std::ops::Range;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

use crate::vector::widest;
use crate::{Buffer, Matrix, MatrixMut, multiply};

/// A matrix `[out, in]`, row after row, as it is stored.
#[derive(Clone, Copy, Debug)]
pub enum Stored<'a> {
    /// F32.
    F32(&'a [f32]),
    /// BF16.
    Bf16(&'a [bf16]),
    /// F16.
    F16(&'a [f16]),
}

/// Numbers that a thread widens at a time.
const PIECE: usize = 64 * 1024;

impl Stored<'_> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::F32(weights) => weights.len(),
            Self::Bf16(weights) => weights.len(),
            Self::F16(weights) => weights.len(),
        }
    }

    /// Some of the numbers in F32.
    pub(crate) fn widen(&self, range: Range<usize>, wide: &mut [f32]) {
        match self {
            Self::F32(weights) => wide.copy_from_slice(&weights[range]),
            Self::Bf16(weights) => widest(
                #[inline(always)]
                || {
                    for (wide, weight) in wide.iter_mut().zip(&weights[range]) {
                        *wide = f32::from_bits(u32::from(weight.to_bits()) << 16);
                    }
                },
            ),
            Self::F16(weights) => weights[range].convert_to_f32_slice(wide),
        }
    }

    /// `out = x Wᵀ`, sums in F32. Where the machine multiplies BF16, a matrix in BF16 meets an x rounded to it.
    ///
    /// # Shapes
    /// `x` `[rows, in]`, `out` `[rows, out]`.
    ///
    /// # Panics
    /// When the shapes do not fit.
    pub fn there(&self, out: &mut [f32], x: &[f32], [output, input]: [usize; 2]) {
        let rows = x.len() / input;
        self.check(
            [x.len(), rows * input],
            [out.len(), rows * output],
            output * input,
        );
        #[cfg(target_arch = "x86_64")]
        if let Self::Bf16(weights) = self
            && crate::bf16::is_fast()
        {
            return crate::bf16::there(out, x, weights, input);
        }
        self.with_wide(|weights| {
            let weights = Matrix::new(weights, output, input).transposed();
            let out = MatrixMut::new(out, rows, output);
            multiply(out, false, Matrix::new(x, rows, input), weights, 1.0);
        });
    }

    /// `out = y W`, or `out += y W` where `out` is kept; likewise.
    ///
    /// # Shapes
    /// `y` `[rows, out]`, `out` `[rows, in]`.
    ///
    /// # Panics
    /// When the shapes do not fit.
    pub fn back(&self, out: &mut [f32], keeps: bool, y: &[f32], [output, input]: [usize; 2]) {
        let rows = y.len() / output;
        self.check(
            [y.len(), rows * output],
            [out.len(), rows * input],
            output * input,
        );
        #[cfg(target_arch = "x86_64")]
        if let Self::Bf16(weights) = self
            && crate::bf16::is_fast()
        {
            return crate::bf16::back(out, keeps, y, weights, input);
        }
        self.with_wide(|weights| {
            let weights = Matrix::new(weights, output, input);
            let out = MatrixMut::new(out, rows, input);
            multiply(out, keeps, Matrix::new(y, rows, output), weights, 1.0);
        });
    }

    fn check(&self, factor: [usize; 2], out: [usize; 2], weights: usize) {
        assert!(
            factor[0] == factor[1] && out[0] == out[1] && self.len() == weights,
            "{} numbers of a factor, {} of a product and {} of a matrix, wanted {}, {} and {weights}",
            factor[0],
            out[0],
            self.len(),
            factor[1],
            out[1]
        );
    }

    /// Calls `work` with all numbers in F32, which take memory for that long.
    fn with_wide(&self, work: impl FnOnce(&[f32])) {
        if let Self::F32(weights) = self {
            return work(weights);
        }
        let mut wide = Buffer::stale(self.len());
        let pieces = wide.par_chunks_mut(PIECE).enumerate();
        pieces.for_each(|(piece, wide)| {
            let start = piece * PIECE;
            self.widen(start..start + wide.len(), wide);
        });
        work(&wide);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector::tests::numbers;

    #[test]
    fn a_stored_matrix_computes_as_its_numbers_do() {
        let (rows, output, input) = (21, 17, 45);
        let (x, y) = (numbers(rows * input, 1), numbers(rows * output, 2));
        let matrix = numbers(output * input, 3);
        let run = |stored: Stored| {
            let mut there = vec![5.0; rows * output];
            stored.there(&mut there, &x, [output, input]);
            let mut back = x.clone();
            stored.back(&mut back, true, &y, [output, input]);
            let mut anew = x.clone();
            stored.back(&mut anew, false, &y, [output, input]);
            for ((back, anew), x) in back.iter().zip(anew).zip(&x) {
                assert!((back - anew - x).abs() < 1e-5);
            }
            [there, back].concat()
        };
        let off = |a: &[f32], b: &[f32]| {
            a.iter()
                .zip(b)
                .fold(0.0f32, |most, (a, b)| most.max((a - b).abs()))
        };
        let halves: Vec<f16> = matrix.iter().map(|w| f16::from_f32(*w)).collect();
        let wide: Vec<f32> = halves.iter().map(|w| w.to_f32()).collect();
        assert_eq!(run(Stored::F16(&halves)), run(Stored::F32(&wide)));

        // Where BF16 is multiplied as such, x and y are rounded to 8 bits: sums of 45 and of 17 products below 1.
        let halves: Vec<bf16> = matrix.iter().map(|w| bf16::from_f32(*w)).collect();
        let wide: Vec<f32> = halves.iter().map(|w| w.to_f32()).collect();
        let off = off(&run(Stored::Bf16(&halves)), &run(Stored::F32(&wide)));
        assert!(off < 0.02, "{off}");
        assert_ne!(run(Stored::F32(&matrix)), run(Stored::F32(&wide)));
    }
}
