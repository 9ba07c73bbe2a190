//! Products of a few rows with a large matrix: a step of generation. Its time is that of reading the matrix, so this is
//! done once, in order, by all threads, and in the precision that the matrix is stored in.
//!
//! A general product packs the matrix first, which is a second pass over it, and takes a single row on one thread.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::{Buffer, Stored};

/// Up to so many rows, this beats a general product.
pub const MOST_THIN_ROWS: usize = 32;

/// Weights of a piece of work: enough for what a thread takes to begin.
const PIECE: usize = 64 * 1024;

/// Rows of the matrix that are taken together, so that a row of `x` is read once for all of them.
const TOGETHER: usize = 4;

/// Rows of `x` that are taken together: their sums with the rows of the matrix fit into registers.
const AT_ONCE: usize = 4;

/// `out = x Wᵀ`, sums in F32. A row's numbers do not depend on how many others there are.
///
/// # Shapes
/// `out` `[rows, out]`, `x` `[rows, in]`, `weight` `[out, in]`
///
/// # Panics
/// When the shapes do not fit.
pub fn thin_product(out: &mut [f32], x: &[f32], weight: Stored, [output, input]: [usize; 2]) {
    let rows = x.len() / input.max(1);
    assert!(
        x.len() == rows * input && out.len() == rows * output && weight.len() == output * input,
        "{} numbers of {} times a matrix of {}, wanted [rows, {input}] and [{output}, {input}]",
        out.len(),
        x.len(),
        weight.len()
    );
    if out.is_empty() {
        return;
    }
    let height = (PIECE / input).max(1).next_multiple_of(TOGETHER);
    let mut pieces: Vec<Vec<&mut [f32]>> = Vec::new();
    pieces.resize_with(output.div_ceil(height), || Vec::with_capacity(rows));
    for row in out.chunks_exact_mut(output) {
        for (piece, part) in pieces.iter_mut().zip(row.chunks_mut(height)) {
            piece.push(part);
        }
    }
    let x: Vec<&[f32]> = x.chunks_exact(input).collect();
    let arch = Arch::new();
    pieces
        .into_par_iter()
        .enumerate()
        .for_each(|(piece, mut out)| {
            let mut buffer = Buffer::stale(match weight {
                Stored::F32(_) => 0,
                Stored::Bf16(_) | Stored::F16(_) => TOGETHER * input,
            });
            let of_piece = out[0].len();
            for first in (0..of_piece).step_by(TOGETHER) {
                let together = TOGETHER.min(of_piece - first);
                let start = (piece * height + first) * input;
                let range = start..start + together * input;
                let weights: &[f32] = match weight {
                    Stored::F32(weights) => &weights[range],
                    Stored::Bf16(_) | Stored::F16(_) => {
                        let wide = &mut buffer[..range.len()];
                        weight.widen(range, wide);
                        wide
                    }
                };
                for (out, x) in out.chunks_mut(AT_ONCE).zip(x.chunks(AT_ONCE)) {
                    multiply_tile(arch, out, first, x, weights);
                }
            }
        });
}

/// A few rows of `x` with a few rows of the matrix, which lie in `weights` one after the other.
fn multiply_tile(arch: Arch, out: &mut [&mut [f32]], first: usize, x: &[&[f32]], weights: &[f32]) {
    let input = x[0].len();
    let height = weights.len() / input;
    let row = |index: usize| &weights[index * input..(index + 1) * input];
    macro_rules! sums {
        ($height:literal, $($rows:literal)*) => {
            match x.len() {
                $($rows => {
                    let w: [&[f32]; $height] = std::array::from_fn(row);
                    let x: [&[f32]; $rows] = std::array::from_fn(|index| x[index]);
                    let sums = arch.dispatch(Dots { w, x });
                    for (out, sums) in out.iter_mut().zip(sums) {
                        out[first..first + $height].copy_from_slice(&sums);
                    }
                })*
                rows => unreachable!("{rows} rows of {height} weights in a tile"),
            }
        };
    }
    match height {
        4 => sums!(4, 1 2 3 4),
        3 => sums!(3, 1 2 3 4),
        2 => sums!(2, 1 2 3 4),
        _ => sums!(1, 1 2 3 4),
    }
}

/// All products of rows: for each x, those with each w.
struct Dots<'a, const W: usize, const X: usize> {
    w: [&'a [f32]; W],
    x: [&'a [f32]; X],
}

impl<const W: usize, const X: usize> WithSimd for Dots<'_, W, X> {
    type Output = [[f32; W]; X];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
        let w = self.w.map(S::as_simd_f32s);
        let x = self.x.map(S::as_simd_f32s);
        let whole = x[0].0.len();
        // Told once, so that no index is checked in the loop.
        let (wide_w, wide_x) = (w.map(|w| &w.0[..whole]), x.map(|x| &x.0[..whole]));
        let mut sums = [[simd.splat_f32s(0.0); W]; X];
        for place in 0..whole {
            let at_place: [S::f32s; W] = std::array::from_fn(|row| wide_w[row][place]);
            for (sums, x) in sums.iter_mut().zip(wide_x) {
                for (sum, w) in sums.iter_mut().zip(at_place) {
                    *sum = simd.mul_add_f32s(x[place], w, *sum);
                }
            }
        }
        let mut out = [[0.0; W]; X];
        for ((out, sums), (_, x)) in out.iter_mut().zip(sums).zip(x) {
            for ((out, sum), (_, w)) in out.iter_mut().zip(sums).zip(w) {
                let rest: f32 = x.iter().zip(w).map(|(x, w)| x * w).sum();
                *out = simd.reduce_sum_f32s(sum) + rest;
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;
    use crate::vector::tests::numbers;

    fn wanted(x: &[f32], w: &[f32], [output, input]: [usize; 2]) -> Vec<f32> {
        let dot = |x: &[f32], w: &[f32]| -> f64 {
            x.iter()
                .zip(w)
                .map(|(x, w)| f64::from(*x) * f64::from(*w))
                .sum()
        };
        let rows = x.chunks_exact(input);
        rows.flat_map(|x| (0..output).map(move |o| dot(x, &w[o * input..(o + 1) * input]) as f32))
            .collect()
    }

    #[test]
    fn products_are_sums_of_products_whatever_the_other_rows() {
        for [output, input] in [[1, 1], [7, 5], [130, 700], [515, 1030]] {
            let w = numbers(output * input, 1);
            let all = numbers(11 * input, 2);
            let mut alone = Vec::new();
            for x in all.chunks_exact(input) {
                let mut out = vec![f32::NAN; output];
                thin_product(&mut out, x, Stored::F32(&w), [output, input]);
                alone.extend(out);
            }
            let exact = wanted(&all, &w, [output, input]);
            for (got, wanted) in alone.iter().zip(&exact) {
                assert!((got - wanted).abs() < 1e-4, "{got} {wanted}");
            }
            for rows in 1..=11 {
                let mut out = vec![f32::NAN; rows * output];
                thin_product(
                    &mut out,
                    &all[..rows * input],
                    Stored::F32(&w),
                    [output, input],
                );
                assert_eq!(
                    out,
                    alone[..rows * output],
                    "{rows} rows of {output} x {input}"
                );
            }
        }
    }

    #[test]
    fn matrices_are_read_in_their_precision() {
        let [output, input] = [37, 70];
        let weights = numbers(output * input, 3);
        let x = numbers(3 * input, 4);
        let product = |weight: Stored| {
            let mut out = vec![f32::NAN; 3 * output];
            thin_product(&mut out, &x, weight, [output, input]);
            out
        };
        let halves: Vec<bf16> = weights.iter().map(|w| bf16::from_f32(*w)).collect();
        let wide: Vec<f32> = halves.iter().map(|w| w.to_f32()).collect();
        assert_eq!(product(Stored::Bf16(&halves)), product(Stored::F32(&wide)));
        let halves: Vec<f16> = weights.iter().map(|w| f16::from_f32(*w)).collect();
        let wide: Vec<f32> = halves.iter().map(|w| w.to_f32()).collect();
        assert_eq!(product(Stored::F16(&halves)), product(Stored::F32(&wide)));
        assert_ne!(wide, weights);
    }

    #[test]
    #[should_panic(expected = "wanted [rows, 3] and [2, 3]")]
    fn shapes_that_do_not_fit_are_refused() {
        thin_product(&mut [0.0; 2], &[0.0; 3], Stored::F32(&[0.0; 7]), [2, 3]);
    }
}
