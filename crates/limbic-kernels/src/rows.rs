//! Work on rows, shared between threads in pieces that do not depend on their number.

use rayon::prelude::*;

/// Rows of a piece of about so many numbers: a share of the second-level cache.
const PIECE: usize = 16 * 1024;

fn rows_of_a_piece(width: usize) -> usize {
    (PIECE / width.max(1)).max(1)
}

/// Calls `work` with the number of the first row and the rows of each piece of `out`.
pub(crate) fn for_rows(out: &mut [f32], width: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
    let rows = rows_of_a_piece(width);
    let pieces = out.par_chunks_mut(rows * width);
    pieces
        .enumerate()
        .for_each(|(piece, out)| work(piece * rows, out));
}

/// The same with two outputs.
pub(crate) fn for_rows_of_two(
    a: (&mut [f32], usize),
    b: (&mut [f32], usize),
    work: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
) {
    let rows = rows_of_a_piece(a.1.max(b.1));
    let pieces =
        a.0.par_chunks_mut(rows * a.1)
            .zip(b.0.par_chunks_mut(rows * b.1));
    pieces
        .enumerate()
        .for_each(|(piece, (a, b))| work(piece * rows, a, b));
}

/// Rows `rows` of `x`, one after the other.
pub(crate) fn gather(x: &[f32], rows: &[usize], width: usize) -> crate::Buffer {
    let mut out = crate::Buffer::stale(rows.len() * width);
    for (row, out) in rows.iter().zip(out.chunks_exact_mut(width)) {
        out.copy_from_slice(&x[row * width..(row + 1) * width]);
    }
    out
}

/// Puts the rows of `x` in the place of rows `rows` of `out`.
pub(crate) fn put(out: &mut [f32], x: &[f32], rows: &[usize], width: usize) {
    for (row, x) in rows.iter().zip(x.chunks_exact(width)) {
        out[row * width..(row + 1) * width].copy_from_slice(x);
    }
}

/// Adds the rows of `x` to rows `rows` of `out`.
pub(crate) fn scatter_add(out: &mut [f32], x: &[f32], rows: &[usize], width: usize) {
    for (row, x) in rows.iter().zip(x.chunks_exact(width)) {
        for (out, x) in out[row * width..(row + 1) * width].iter_mut().zip(x) {
            *out += x;
        }
    }
}
