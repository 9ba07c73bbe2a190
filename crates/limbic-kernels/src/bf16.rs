//! Products with a matrix in BF16 by the instruction that multiplies pairs of them into F32 (`vdpbf16ps`), at twice the
//! speed of F32 and half the memory.
//!
//! The matrix stays as it lies in memory, `[out, in]`: on the way there its rows meet those of x along `in`; on the way
//! back two of its rows are interleaved, so that pairs lie along `out`. Letters: N rows, O output width, I input width.

use std::arch::x86_64::*;

use half::bf16;
use rayon::prelude::*;

/// Whether this machine has the instruction.
pub(crate) fn is_fast() -> bool {
    is_x86_feature_detected!("avx512bf16")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512f")
}

/// Values of BF16 in a register.
const WIDTH: usize = 32;

/// Rows that a thread takes at a time.
const ROWS: usize = 96;

/// A matrix rounded to BF16, its rows padded with zeros to a whole number of registers.
struct Rounded {
    values: Vec<bf16>,
    stride: usize,
}

impl Rounded {
    fn new(x: &[f32], width: usize) -> Self {
        let stride = width.next_multiple_of(WIDTH);
        let mut values = vec![bf16::ZERO; x.len() / width * stride];
        let rows = x
            .par_chunks_exact(width)
            .zip(values.par_chunks_exact_mut(stride));
        // SAFETY: callers have seen that the machine has the instructions.
        rows.with_min_len(16)
            .for_each(|(x, out)| unsafe { round(x, out) });
        Self { values, stride }
    }

    fn row(&self, row: usize) -> &[bf16] {
        &self.values[row * self.stride..][..self.stride]
    }
}

/// To nearest, ties to even.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn round(x: &[f32], out: &mut [bf16]) {
    for (x, out) in x.chunks(16).zip(out.chunks_mut(16)) {
        let mask = ((1u32 << x.len()) - 1) as u16;
        // SAFETY: masked to the numbers that are there.
        unsafe {
            let x = _mm512_maskz_loadu_ps(mask, x.as_ptr());
            let rounded: __m256i = std::mem::transmute(_mm512_cvtneps_pbh(x));
            _mm256_mask_storeu_epi16(out.as_mut_ptr().cast(), mask, rounded);
        }
    }
}

/// `out = x Wᵀ`
pub(crate) fn there(out: &mut [f32], x: &[f32], weight: &[bf16], input: usize) {
    assert!(is_fast(), "a machine without the instruction");
    let output = weight.len() / input;
    let x = Rounded::new(x, input);
    out.par_chunks_mut(ROWS * output)
        .enumerate()
        .for_each(|(piece, out)| {
            let first = piece * ROWS;
            // SAFETY: the machine has the instructions.
            unsafe { there_rows(out, &x, first, weight, output, input) };
        });
}

/// Bytes of W that stay in a first-level cache while rows of x go by.
const BLOCK: usize = 24 * 1024;

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn there_rows(
    out: &mut [f32],
    x: &Rounded,
    first: usize,
    weight: &[bf16],
    output: usize,
    input: usize,
) {
    const M: usize = 4;
    const N: usize = 6;
    let rows = out.len() / output;
    let block = (BLOCK / (2 * input) / N).max(1) * N;
    for begin in (0..output).step_by(block) {
        let end = (begin + block).min(output);
        let mut row = 0;
        while row < rows {
            let m = if rows - row >= M { M } else { 1 };
            let mut column = begin;
            while column < end {
                let n = if end - column >= N { N } else { 1 };
                let at = |i: usize| x.row(first + row + i).as_ptr();
                let of = |j: usize| weight[(column + j) * input..].as_ptr();
                let out = &mut out[row * output + column..];
                // SAFETY: rows of x are padded, those of W are masked at their end; both lie inside their slices.
                unsafe {
                    match (m, n) {
                        (M, N) => there_tile::<M, N>(out, output, at, of, input),
                        (M, _) => there_tile::<M, 1>(out, output, at, of, input),
                        (_, N) => there_tile::<1, N>(out, output, at, of, input),
                        _ => there_tile::<1, 1>(out, output, at, of, input),
                    }
                }
                column += n;
            }
            row += m;
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn there_tile<const M: usize, const N: usize>(
    out: &mut [f32],
    stride: usize,
    x: impl Fn(usize) -> *const bf16,
    weight: impl Fn(usize) -> *const bf16,
    input: usize,
) {
    let mut sums = [[_mm512_setzero_ps(); N]; M];
    let x: [*const bf16; M] = std::array::from_fn(&x);
    let weight: [*const bf16; N] = std::array::from_fn(&weight);
    let whole = input / WIDTH * WIDTH;
    let mut add = |k: usize, mask: u32| unsafe {
        let mut left = [_mm512_setzero_si512(); M];
        for i in 0..M {
            left[i] = _mm512_loadu_si512(x[i].add(k).cast());
        }
        for j in 0..N {
            let right = if mask == u32::MAX {
                _mm512_loadu_si512(weight[j].add(k).cast())
            } else {
                _mm512_maskz_loadu_epi16(mask, weight[j].add(k).cast())
            };
            for i in 0..M {
                sums[i][j] = _mm512_dpbf16_ps(
                    sums[i][j],
                    std::mem::transmute::<__m512i, __m512bh>(left[i]),
                    std::mem::transmute::<__m512i, __m512bh>(right),
                );
            }
        }
    };
    let mut k = 0;
    while k < whole {
        add(k, u32::MAX);
        k += WIDTH;
    }
    if whole < input {
        add(whole, (1u32 << (input - whole)) - 1);
    }
    for i in 0..M {
        for j in 0..N {
            out[i * stride + j] = _mm512_reduce_add_ps(sums[i][j]);
        }
    }
}

/// `out = y W`, or `out += y W` where `out` is kept.
pub(crate) fn back(out: &mut [f32], keeps: bool, y: &[f32], weight: &[bf16], input: usize) {
    assert!(is_fast(), "a machine without the instruction");
    let output = weight.len() / input;
    let y = Rounded::new(y, output);
    out.par_chunks_mut(ROWS * input)
        .enumerate()
        .for_each(|(piece, out)| {
            let first = piece * ROWS;
            // SAFETY: the machine has the instructions.
            unsafe { back_rows(out, keeps, &y, first, weight, [output, input]) };
        });
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn back_rows(
    out: &mut [f32],
    keeps: bool,
    y: &Rounded,
    first: usize,
    weight: &[bf16],
    [output, input]: [usize; 2],
) {
    const M: usize = 12;
    let rows = out.len() / input;
    let pairs = output.div_ceil(2);
    let mut panel: Vec<[__m512i; 2]> = vec![[_mm512_setzero_si512(); 2]; pairs];
    for begin in (0..input).step_by(WIDTH) {
        let width = WIDTH.min(input - begin);
        let mask = u32::MAX >> (WIDTH - width);
        for (pair, place) in panel.iter_mut().enumerate() {
            // SAFETY: masked to the numbers of the row that are there.
            let row = |row: usize| unsafe {
                match row < output {
                    true => _mm512_maskz_loadu_epi16(
                        mask,
                        weight[row * input + begin..].as_ptr().cast(),
                    ),
                    false => _mm512_setzero_si512(),
                }
            };
            let (a, b) = (row(2 * pair), row(2 * pair + 1));
            *place = [_mm512_unpacklo_epi16(a, b), _mm512_unpackhi_epi16(a, b)];
        }
        let mut row = 0;
        while row < rows {
            let m = if rows - row >= M { M } else { 1 };
            let at = |i: usize| y.row(first + row + i).as_ptr();
            let out = &mut out[row * input + begin..];
            // SAFETY: rows of y are padded to whole pairs.
            unsafe {
                match m {
                    M => back_tile::<M>(out, keeps, [input, width], at, &panel),
                    _ => back_tile::<1>(out, keeps, [input, width], at, &panel),
                }
            }
            row += m;
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn back_tile<const M: usize>(
    out: &mut [f32],
    keeps: bool,
    [stride, width]: [usize; 2],
    y: impl Fn(usize) -> *const bf16,
    panel: &[[__m512i; 2]],
) {
    let mut sums = [[_mm512_setzero_ps(); 2]; M];
    let y: [*const bf16; M] = std::array::from_fn(&y);
    for (pair, weight) in panel.iter().enumerate() {
        for i in 0..M {
            unsafe {
                let of_row = _mm512_set1_epi32(y[i].add(2 * pair).cast::<i32>().read_unaligned());
                for half in 0..2 {
                    sums[i][half] = _mm512_dpbf16_ps(
                        sums[i][half],
                        std::mem::transmute::<__m512i, __m512bh>(of_row),
                        std::mem::transmute::<__m512i, __m512bh>(weight[half]),
                    );
                }
            }
        }
    }
    // Interleaving went by quarters of a register: the low half holds 0..4, 8..12, .., the high one 4..8, 12..16, ...
    let low = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    let high = _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
    for i in 0..M {
        for (half, order) in [low, high].into_iter().enumerate() {
            let sum = _mm512_permutex2var_ps(sums[i][0], order, sums[i][1]);
            let count = width.saturating_sub(16 * half).min(16);
            if count == 0 {
                continue;
            }
            let mask = (u32::MAX >> (32 - count)) as u16;
            let out = &mut out[i * stride + 16 * half..];
            // SAFETY: masked to the numbers that are there.
            unsafe {
                let sum = match keeps {
                    true => _mm512_add_ps(_mm512_maskz_loadu_ps(mask, out.as_ptr()), sum),
                    false => sum,
                };
                _mm512_mask_storeu_ps(out.as_mut_ptr(), mask, sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector::tests::numbers;

    fn wide(x: f32) -> f64 {
        f64::from(bf16::from_f32(x).to_f32())
    }

    #[test]
    #[expect(clippy::print_stderr, reason = "a skipped test says so")]
    fn products_are_those_of_rounded_numbers() {
        if !is_fast() {
            eprintln!("skipped: this machine has no vdpbf16ps");
            return;
        }
        for (rows, output, input) in [
            (1, 1, 1),
            (5, 7, 33),
            (13, 6, 64),
            (100, 50, 40),
            (26, 31, 95),
            (5, 20, 3000),
        ] {
            let x = numbers(rows * input, 1);
            let y = numbers(rows * output, 2);
            let weight: Vec<bf16> = numbers(output * input, 3)
                .iter()
                .map(|w| bf16::from_f32(*w))
                .collect();
            let w = |o: usize, i: usize| f64::from(weight[o * input + i].to_f32());
            let mut out = vec![9.0; rows * output];
            there(&mut out, &x, &weight, input);
            for r in 0..rows {
                for o in 0..output {
                    let wanted: f64 = (0..input).map(|i| wide(x[r * input + i]) * w(o, i)).sum();
                    let got = f64::from(out[r * output + o]);
                    assert!(
                        (got - wanted).abs() < 1e-5,
                        "{rows} {output} {input}: {got} {wanted}"
                    );
                }
            }
            let before = numbers(rows * input, 4);
            let mut out = before.clone();
            back(&mut out, true, &y, &weight, input);
            for r in 0..rows {
                for i in 0..input {
                    let sum: f64 = (0..output).map(|o| wide(y[r * output + o]) * w(o, i)).sum();
                    let wanted = f64::from(before[r * input + i]) + sum;
                    let got = f64::from(out[r * input + i]);
                    assert!(
                        (got - wanted).abs() < 1e-5,
                        "{rows} {output} {input} ({r}, {i}): {got} {wanted}"
                    );
                }
            }
        }
    }
}
