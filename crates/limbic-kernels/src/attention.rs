//! Grouped-query attention inside segments, without a matrix of all scores: queries come in blocks, each against the keys
//! it may see, and the way back forms a block's probabilities again from the logarithm of their sum (Dao et al. 2022).
//!
//! Letters: N queries, T rows, H heads, K key-value heads, E width of a head. Head `h` reads key-value head `h / (H / K)`.

use std::ops::Range;

use rayon::prelude::*;

use crate::matrix::multiply_alone;
use crate::sequences::{Segment, Sequences};
use crate::vector::{exp, exponentiate, largest, sum, widest};
use crate::{BlockShape, Buffer, Matrix, MatrixMut};

/// Queries of a block: enough for a product to be fast, few enough for its scores against 1000 keys to stay in a
/// second-level cache.
const QUERIES: usize = 64;

/// What attention over some sequences is computed with.
pub(crate) struct Attention<'a> {
    pub(crate) shape: &'a BlockShape,
    pub(crate) sequences: &'a Sequences,
    /// The rows that queries stand in, ascending.
    pub(crate) read: &'a [usize],
}

/// Slopes at queries, keys and values.
pub(crate) struct AttentionSlopes {
    pub(crate) query: Buffer,
    pub(crate) key: Buffer,
    pub(crate) value: Buffer,
}

impl Attention<'_> {
    /// Attended values `[N, H·E]`, and for each head and query the logarithm of the sum of its exponentials, `[H, N]`.
    ///
    /// # Shapes
    /// `query [N, H·E]`, `key` and `value [T, K·E]`.
    pub(crate) fn forward(&self, query: &[f32], key: &[f32], value: &[f32]) -> (Buffer, Buffer) {
        let (count, width) = (self.read.len(), self.shape.head_dim);
        let heads = self.shape.heads;
        let mut attended = Buffer::zeros(count * heads * width);
        let mut log_sums = Buffer::zeros(heads * count);
        let queries = self.sequences.queries(self.read);
        let tasks = self.tasks();
        let results: Vec<(Buffer, Buffer)> = tasks
            .par_iter()
            .map(|&(segment, head)| {
                let (range, sees) = &queries[segment];
                let query = self.queries_of(query, head, range);
                let [key, value] = [key, value].map(|x| self.keys_of(x, head, segment));
                self.one_head(query, key, value, sees)
            })
            .collect();
        for ((segment, head), (out, sums)) in tasks.into_iter().zip(results) {
            let range = queries[segment].0.clone();
            add_head(&mut attended, &out, range.start, head, heads, width);
            log_sums[head * count..][range].copy_from_slice(&sums);
        }
        (attended, log_sums)
    }

    fn one_head(
        &self,
        query: Matrix,
        key: Matrix,
        value: Matrix,
        sees: &[usize],
    ) -> (Buffer, Buffer) {
        let width = self.shape.head_dim;
        let mut out = Buffer::stale(sees.len() * width);
        let mut log_sums = Buffer::stale(sees.len());
        for start in (0..sees.len()).step_by(QUERIES) {
            let block = start..(start + QUERIES).min(sees.len());
            let keys = sees[block.end - 1];
            let mut scores = self.scores(query.rows(block.clone()), key.rows(0..keys));
            let rows = scores.chunks_exact_mut(keys).zip(&sees[block.clone()]);
            let totals: Vec<f32> = rows
                .zip(&mut log_sums[block.clone()])
                .map(|((scores, sees), log_sum)| {
                    widest(
                        #[inline(always)]
                        || {
                            let (seen, hidden) = scores.split_at_mut(*sees);
                            let most = largest(seen);
                            let total = exponentiate(seen, most);
                            hidden.fill(0.0);
                            *log_sum = most + total.ln();
                            total
                        },
                    )
                })
                .collect();
            let out = &mut out[block.start * width..block.end * width];
            multiply_alone(
                MatrixMut::new(out, block.len(), width),
                false,
                Matrix::new(&scores, block.len(), keys),
                value.rows(0..keys),
                1.0,
            );
            for (out, total) in out.chunks_exact_mut(width).zip(totals) {
                let share = 1.0 / total;
                out.iter_mut().for_each(|out| *out *= share);
            }
        }
        (out, log_sums)
    }

    /// Slopes, given those at the attended values.
    pub(crate) fn backward(
        &self,
        [query, key, value]: [&[f32]; 3],
        attended: &[f32],
        log_sums: &[f32],
        slope: &[f32],
    ) -> AttentionSlopes {
        let (count, width) = (self.read.len(), self.shape.head_dim);
        let (heads, groups) = (self.shape.heads, self.shape.groups);
        let queries = self.sequences.queries(self.read);
        let tasks = self.tasks();
        let results: Vec<AttentionSlopes> = tasks
            .par_iter()
            .map(|&(segment, head)| {
                let (range, sees) = &queries[segment];
                let of_head = Head {
                    query: self.queries_of(query, head, range),
                    key: self.keys_of(key, head, segment),
                    value: self.keys_of(value, head, segment),
                    attended: self.queries_of(attended, head, range),
                    slope: self.queries_of(slope, head, range),
                    log_sums: &log_sums[head * count..][range.clone()],
                };
                self.one_head_backward(&of_head, sees)
            })
            .collect();
        let rows = self.sequences.rows;
        let mut slopes = AttentionSlopes {
            query: Buffer::zeros(count * heads * width),
            key: Buffer::zeros(rows * groups * width),
            value: Buffer::zeros(rows * groups * width),
        };
        for ((segment, head), of_head) in tasks.into_iter().zip(results) {
            let first = queries[segment].0.start;
            add_head(&mut slopes.query, &of_head.query, first, head, heads, width);
            // The heads of a group in their order, whatever the threads did.
            let first = self.sequences.segments[segment].first;
            let group = head / (heads / groups);
            add_head(&mut slopes.key, &of_head.key, first, group, groups, width);
            add_head(
                &mut slopes.value,
                &of_head.value,
                first,
                group,
                groups,
                width,
            );
        }
        slopes
    }

    fn one_head_backward(&self, head: &Head, sees: &[usize]) -> AttentionSlopes {
        let width = self.shape.head_dim;
        let mut key_slope = Buffer::zeros(head.key.height() * width);
        let mut value_slope = Buffer::zeros(head.key.height() * width);
        let scale = self.scale();
        let mut query_slope = Buffer::stale(sees.len() * width);
        for start in (0..sees.len()).step_by(QUERIES) {
            let block = start..(start + QUERIES).min(sees.len());
            let keys = sees[block.end - 1];
            let (query, slope) = (
                head.query.rows(block.clone()),
                head.slope.rows(block.clone()),
            );
            let (key, value) = (head.key.rows(0..keys), head.value.rows(0..keys));
            let mut shares = self.scores(query, key);
            let rows = shares.chunks_exact_mut(keys).zip(&sees[block.clone()]);
            for ((shares, sees), log_sum) in rows.zip(&head.log_sums[block.clone()]) {
                widest(
                    #[inline(always)]
                    || {
                        let (seen, hidden) = shares.split_at_mut(*sees);
                        seen.iter_mut()
                            .for_each(|share| *share = exp(*share - log_sum));
                        hidden.fill(0.0);
                    },
                );
            }
            let out = MatrixMut::new(&mut value_slope[..keys * width], keys, width);
            let by_key = Matrix::new(&shares, block.len(), keys).transposed();
            multiply_alone(out, true, by_key, slope, 1.0);

            let mut scores_slope = Buffer::stale(block.len() * keys);
            let out = MatrixMut::new(&mut scores_slope, block.len(), keys);
            multiply_alone(out, false, slope, value.transposed(), 1.0);
            let rows = scores_slope
                .chunks_exact_mut(keys)
                .zip(shares.chunks_exact(keys));
            for (row, (scores_slope, shares)) in rows.enumerate() {
                let row = block.start + row;
                widest(
                    #[inline(always)]
                    || {
                        let (a, b) = (head.slope.row(row), head.attended.row(row));
                        let mean = sum(a, b, |a, b| a * b);
                        for (slope, share) in scores_slope.iter_mut().zip(shares) {
                            *slope = share * (*slope - mean);
                        }
                    },
                );
            }
            let out = &mut query_slope[block.start * width..block.end * width];
            let out = MatrixMut::new(out, block.len(), width);
            let scores_slope = Matrix::new(&scores_slope, block.len(), keys);
            multiply_alone(out, false, scores_slope, key, scale);
            let out = MatrixMut::new(&mut key_slope[..keys * width], keys, width);
            multiply_alone(out, true, scores_slope.transposed(), query, scale);
        }
        AttentionSlopes {
            query: query_slope,
            key: key_slope,
            value: value_slope,
        }
    }

    /// Each head of each segment.
    fn tasks(&self) -> Vec<(usize, usize)> {
        let heads = self.shape.heads;
        (0..self.sequences.segments.len())
            .flat_map(|segment| (0..heads).map(move |head| (segment, head)))
            .collect()
    }

    fn scale(&self) -> f32 {
        (self.shape.head_dim as f32).powf(-0.5)
    }

    fn scores(&self, query: Matrix, key: Matrix) -> Buffer {
        let (queries, keys) = (query.height(), key.height());
        let mut scores = Buffer::stale(queries * keys);
        let out = MatrixMut::new(&mut scores, queries, keys);
        multiply_alone(out, false, query, key.transposed(), self.scale());
        scores
    }

    fn queries_of<'b>(&self, x: &'b [f32], head: usize, range: &Range<usize>) -> Matrix<'b> {
        let (heads, width) = (self.shape.heads, self.shape.head_dim);
        let x = Matrix::new(x, self.read.len(), heads * width);
        x.rows(range.clone())
            .columns(head * width..(head + 1) * width)
    }

    fn keys_of<'b>(&self, x: &'b [f32], head: usize, segment: usize) -> Matrix<'b> {
        let (groups, width) = (self.shape.groups, self.shape.head_dim);
        let group = head / (self.shape.heads / groups);
        let Segment { first, length } = self.sequences.segments[segment];
        let x = Matrix::new(x, self.sequences.rows, groups * width);
        x.rows(first..first + length)
            .columns(group * width..(group + 1) * width)
    }
}

/// One head's numbers in one segment.
struct Head<'a> {
    query: Matrix<'a>,
    key: Matrix<'a>,
    value: Matrix<'a>,
    attended: Matrix<'a>,
    slope: Matrix<'a>,
    log_sums: &'a [f32],
}

/// Adds one head's rows to those of all heads, from row `first` on.
fn add_head(
    all: &mut [f32],
    of_head: &[f32],
    first: usize,
    head: usize,
    heads: usize,
    width: usize,
) {
    let rows = all[first * heads * width..].chunks_exact_mut(heads * width);
    for (all, of_head) in rows.zip(of_head.chunks_exact(width)) {
        let all = all[head * width..(head + 1) * width].iter_mut();
        all.zip(of_head).for_each(|(all, of_head)| *all += of_head);
    }
}
