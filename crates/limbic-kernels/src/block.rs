//! One layer of a LLaMA: norm, attention, norm, SwiGLU, with a residual connection around each pair.
//!
//! Letters: T rows, N rows that are read, D width, H heads, K key-value heads, E width of a head, F width of the SwiGLU
//! layer. Keys and values are needed of every row; everything else only of those that somebody reads, which after the last
//! layer are the few that are supervised.

use crate::attention::{Attention, AttentionSlopes};
use crate::linear::add;
use crate::rows::{gather, put, scatter_add};
use crate::swiglu::{swiglu, swiglu_backward};
use crate::{Buffer, Linear, LinearGradients, Norm, Rotary, Sequences};

/// The number of the layer after the product.
const DOWN: usize = 6;

/// Sizes of heads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockShape {
    /// H
    pub heads: usize,
    /// K
    pub groups: usize,
    /// E
    pub head_dim: usize,
}

/// A layer's numbers. The linear layers are in the order of [`BlockGradients::linears`].
#[derive(Debug)]
pub struct Block<'a> {
    /// Sizes of heads.
    pub shape: BlockShape,
    /// Before attention.
    pub input_norm: Norm<'a>,
    /// Before the SwiGLU layer.
    pub post_norm: Norm<'a>,
    /// Query, key, value, output of attention; gate, up, down.
    pub linears: [Linear<'a>; 7],
    /// Angles of positions.
    pub rotary: Rotary<'a>,
    /// Who sees whom.
    pub sequences: &'a Sequences,
    /// The rows that are read, ascending; all if absent.
    pub read: Option<&'a [usize]>,
}

/// What the way back needs of the way there.
#[derive(Debug)]
pub struct Kept {
    input_scales: Buffer,
    query: Buffer,
    key: Buffer,
    value: Buffer,
    attended: Buffer,
    log_sums: Buffer,
    /// After attention, `[N, D]`.
    middle: Buffer,
    post_scales: Buffer,
    gate: Buffer,
    up: Buffer,
    /// What the adapters' first factors gave.
    low: [Buffer; 7],
}

/// What earlier passes over the same sequences gave a layer.
#[derive(Debug)]
pub struct Past<'a> {
    /// Which of the T rows are new, ascending: those of x.
    pub rows: &'a [usize],
    /// Keys, turned to their positions, `[T, K·E]`; anything in the new rows.
    pub key: Buffer,
    /// Values, likewise.
    pub value: Buffer,
}

/// Slopes at a layer's numbers, of those that are trained.
#[derive(Debug)]
pub struct BlockGradients {
    /// Of the norm before attention.
    pub input_norm: Option<Vec<f32>>,
    /// Of the norm before the SwiGLU layer.
    pub post_norm: Option<Vec<f32>>,
    /// Query, key, value, output of attention; gate, up, down.
    pub linears: [LinearGradients; 7],
}

impl Block<'_> {
    /// The layer's output for the rows that are read, `[N, D]`, and what the way back needs.
    ///
    /// # Shapes
    /// `x [T, D]`
    pub fn forward(&self, x: &[f32]) -> (Buffer, Kept) {
        self.down_from_product(self.up_to_product(x, None))
    }

    /// The layer's output for the rows that are read, with the keys, turned to their positions, and the values of x.
    ///
    /// Of a layer that goes on after earlier passes x holds the new rows, which `read` counts among themselves.
    ///
    /// # Shapes
    /// `x [M, D]` with M new rows; the output `[N, D]`, keys and values `[M, K·E]`.
    pub fn forward_after(&self, x: &[f32], past: Past) -> (Buffer, [Buffer; 2]) {
        let (y, kept) = self.down_from_product(self.up_to_product(x, Some(past)));
        (y, [kept.key, kept.value])
    }

    /// What the way back needs, once more, without the output.
    ///
    /// # Shapes
    /// `x [T, D]`
    pub fn again(&self, x: &[f32]) -> Kept {
        let mut kept = self.up_to_product(x, None);
        let product = swiglu(&kept.gate, &kept.up);
        kept.low[DOWN] = self.linears[DOWN].low(&product);
        kept
    }

    fn down_from_product(&self, mut kept: Kept) -> (Buffer, Kept) {
        let product = swiglu(&kept.gate, &kept.up);
        let (mut y, down_low) = self.linears[DOWN].forward(&product);
        add(&mut y, &kept.middle);
        kept.low[DOWN] = down_low;
        (y, kept)
    }

    fn up_to_product(&self, x: &[f32], past: Option<Past>) -> Kept {
        let [q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, _] = &self.linears;
        let rows = match &past {
            None => self.all_rows(),
            Some(past) => past.rows.to_vec(),
        };
        let read = self.read_of(&rows);
        let (normed, input_scales) = self.input_norm.forward(x);
        let (mut key, key_low) = k_proj.forward(&normed);
        let (value, value_low) = v_proj.forward(&normed);
        let (mut query, query_low) = match self.read {
            None => q_proj.forward(&normed),
            Some(read) => q_proj.forward(&gather(&normed, read, q_proj.input)),
        };
        drop(normed);
        self.turn(&mut query, self.shape.heads, &read, 1.0);
        self.turn(&mut key, self.shape.groups, &rows, 1.0);

        let attention = self.attention(&read);
        let (attended, log_sums) = match past {
            None => attention.forward(&query, &key, &value),
            Some(mut past) => {
                put(&mut past.key, &key, &rows, k_proj.output);
                put(&mut past.value, &value, &rows, v_proj.output);
                attention.forward(&query, &past.key, &past.value)
            }
        };
        let (mut middle, attended_low) = o_proj.forward(&attended);
        match self.read {
            None => add(&mut middle, x),
            Some(read) => add(&mut middle, &gather(x, read, q_proj.input)),
        }

        let (normed, post_scales) = self.post_norm.forward(&middle);
        let (gate, gate_low) = gate_proj.forward(&normed);
        let (up, up_low) = up_proj.forward(&normed);
        Kept {
            input_scales,
            query,
            key,
            value,
            attended,
            log_sums,
            middle,
            post_scales,
            gate,
            up,
            low: [
                query_low,
                key_low,
                value_low,
                attended_low,
                gate_low,
                up_low,
                Buffer::default(),
            ],
        }
    }

    /// The slope at x, where it is asked for, and those at the layer's numbers, given the one at the output.
    ///
    /// # Shapes
    /// `x [T, D]`, `y_slope [N, D]`.
    pub fn backward(
        &self,
        x: &[f32],
        kept: Kept,
        mut y_slope: Buffer,
        wants_x: bool,
    ) -> (Option<Buffer>, BlockGradients) {
        let [
            q_proj,
            k_proj,
            v_proj,
            o_proj,
            gate_proj,
            up_proj,
            down_proj,
        ] = &self.linears;
        let [
            query_low,
            key_low,
            value_low,
            attended_low,
            gate_low,
            up_low,
            down_low,
        ] = &kept.low;
        let width = q_proj.input;
        let (mut gate, mut up) = (kept.gate, kept.up);

        let product = swiglu(&gate, &up);
        let mut product_slope = Buffer::stale(product.len());
        let at_product = Some(&mut *product_slope);
        let down = down_proj.backward(&y_slope, &product, down_low, at_product, false);
        drop(product);
        swiglu_backward(&mut gate, &mut up, &product_slope);
        drop(product_slope);
        let (gate_slope, up_slope) = (gate, up);
        let normed = self.post_norm.again(&kept.middle, &kept.post_scales);
        let mut normed_slope = Buffer::stale(normed.len());
        let at_normed = Some(&mut *normed_slope);
        let gate = gate_proj.backward(&gate_slope, &normed, gate_low, at_normed, false);
        drop(gate_slope);
        let at_normed = Some(&mut *normed_slope);
        let up = up_proj.backward(&up_slope, &normed, up_low, at_normed, true);
        drop((up_slope, normed));
        let post_norm =
            self.post_norm
                .weight_gradient(&normed_slope, &kept.middle, &kept.post_scales);
        // From here on the slope after attention.
        self.post_norm
            .backward(&mut y_slope, &normed_slope, &kept.middle, &kept.post_scales);
        drop(normed_slope);

        let mut attended_slope = Buffer::stale(kept.attended.len());
        let at_attended = Some(&mut *attended_slope);
        let output = o_proj.backward(&y_slope, &kept.attended, attended_low, at_attended, false);
        let rows = self.all_rows();
        let read = self.read_of(&rows);
        let AttentionSlopes {
            query: mut query_slope,
            key: mut key_slope,
            value: value_slope,
        } = self.attention(&read).backward(
            [&kept.query, &kept.key, &kept.value],
            &kept.attended,
            &kept.log_sums,
            &attended_slope,
        );
        drop(attended_slope);
        self.turn(&mut query_slope, self.shape.heads, &read, -1.0);
        self.turn(&mut key_slope, self.shape.groups, &rows, -1.0);

        let needs_slope = wants_x || self.input_norm.is_trained;
        let normed = self.input_norm.again(x, &kept.input_scales);
        let mut normed_slope = Buffer::stale(if needs_slope { normed.len() } else { 0 });
        let mut wanted = needs_slope.then_some(&mut *normed_slope);
        let at_normed = wanted.as_deref_mut();
        let key = k_proj.backward(&key_slope, &normed, key_low, at_normed, false);
        let at_normed = wanted.as_deref_mut();
        let value = v_proj.backward(&value_slope, &normed, value_low, at_normed, true);
        let query = match self.read {
            None => q_proj.backward(&query_slope, &normed, query_low, wanted, true),
            Some(read) => {
                let normed = gather(&normed, read, width);
                let mut slope = Buffer::stale(if needs_slope { normed.len() } else { 0 });
                let of_read = needs_slope.then_some(&mut *slope);
                let query = q_proj.backward(&query_slope, &normed, query_low, of_read, false);
                if let Some(wanted) = wanted {
                    scatter_add(wanted, &slope, read, width);
                }
                query
            }
        };
        let input_norm = self
            .input_norm
            .weight_gradient(&normed_slope, x, &kept.input_scales);
        let x_slope = wants_x.then(|| {
            let mut slope = match self.read {
                None => y_slope,
                Some(read) => {
                    let mut slope = Buffer::zeros(x.len());
                    scatter_add(&mut slope, &y_slope, read, width);
                    slope
                }
            };
            self.input_norm
                .backward(&mut slope, &normed_slope, x, &kept.input_scales);
            slope
        });
        let gradients = BlockGradients {
            input_norm,
            post_norm,
            linears: [query, key, value, output, gate, up, down],
        };
        (x_slope, gradients)
    }

    fn all_rows(&self) -> Vec<usize> {
        (0..self.sequences.rows()).collect()
    }

    /// Those of x's `rows` that are read.
    fn read_of(&self, rows: &[usize]) -> Vec<usize> {
        match self.read {
            None => rows.to_vec(),
            Some(read) => read.iter().map(|row| rows[*row]).collect(),
        }
    }

    fn attention<'b>(&'b self, read: &'b [usize]) -> Attention<'b> {
        Attention {
            shape: &self.shape,
            sequences: self.sequences,
            read,
        }
    }

    /// Turns the heads of some rows' queries or keys to their positions, or back.
    fn turn(&self, x: &mut [f32], heads: usize, rows: &[usize], direction: f32) {
        let (width, positions) = (self.shape.head_dim, self.sequences.positions());
        let positions: Vec<usize> = rows.iter().map(|row| positions[*row]).collect();
        self.rotary
            .turn(x, heads * width, width, &positions, direction);
    }
}

#[cfg(test)]
mod definition;
#[cfg(test)]
mod tests;
