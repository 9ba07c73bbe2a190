//! WavLM's attention: relative positions biased by what is heard (section 3.2 of the paper).
//!
//! Letters in shapes: B batch, T time steps, D width, H heads.

use burn::module::{Module, Param};
use burn::nn::{Embedding, EmbeddingConfig, Initializer, Linear};
use burn::tensor::activation::sigmoid;
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::transformer::{attend, linear, merge_heads, split_heads};

/// How distances in time share biases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Buckets {
    /// Number of biases a head has, half of them for the future.
    pub(crate) count: usize,
    /// From this distance on, in time steps, all share the last bucket.
    pub(crate) max_distance: usize,
}

impl Buckets {
    /// The bucket of a key that lies `offset` steps after the query: near ones have one each, far ones share
    /// logarithmically wider ones (T5's scheme).
    fn of(self, offset: i64) -> usize {
        let half = self.count / 2;
        let exact = half / 2;
        let side = if offset > 0 { half } else { 0 };
        let distance = offset.unsigned_abs() as usize;
        if distance < exact {
            return side + distance;
        }
        // In single precision, as published: a rounding here moves a distance to another bucket.
        let scale = (self.max_distance as f64 / exact as f64).ln() as f32;
        let part = (distance as f32 / exact as f32).ln() / scale * (half - exact) as f32;
        side + (exact + part as usize).min(half - 1)
    }
}

/// Self-attention whose scores carry a gated bias.
#[derive(Module, Debug)]
pub(crate) struct GatedAttention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    /// `[1, H, 1, 1]`
    gru_rel_pos_const: Param<Tensor<4>>,
    gru_rel_pos_linear: Linear,
    /// `[buckets, H]`, of the first layer alone; the others use its biases.
    rel_attn_embed: Option<Embedding>,
    heads: usize,
}

impl GatedAttention {
    /// `buckets` are given to the first layer.
    pub(crate) fn new(dim: usize, heads: usize, buckets: Option<Buckets>, device: &Device) -> Self {
        Self {
            q_proj: linear(dim, dim, device),
            k_proj: linear(dim, dim, device),
            v_proj: linear(dim, dim, device),
            out_proj: linear(dim, dim, device),
            gru_rel_pos_const: Initializer::Ones.init([1, heads, 1, 1], device),
            gru_rel_pos_linear: linear(dim / heads, 8, device),
            rel_attn_embed: buckets.map(|buckets| {
                EmbeddingConfig::new(buckets.count, heads)
                    .with_initializer(Initializer::Zeros)
                    .init(device)
            }),
            heads,
        }
    }

    /// The biases of all pairs of time steps, `[1, H, T, T]`; `None` in every layer but the first.
    pub(crate) fn positions(&self, length: usize, buckets: Buckets) -> Option<Tensor<4>> {
        let table = self.rel_attn_embed.as_ref()?.weight.val();
        let bucket = |pair: usize| {
            let (query, key) = ((pair / length) as i64, (pair % length) as i64);
            buckets.of(key - query) as i64
        };
        let indices: Vec<i64> = (0..length * length).map(bucket).collect();
        let indices = Tensor::<1, Int>::from_data(
            TensorData::new(indices, [length * length]),
            &table.device(),
        );
        let biases = table.select(0, indices).swap_dims(0, 1);
        Some(biases.reshape([1, self.heads, length, length]))
    }

    /// # Shapes
    /// `[B, T, D]` to `[B, T, D]`; positions `[1, H, T, T]`; mask broadcast to `[B, H, T, T]`
    pub(crate) fn forward(
        &self,
        x: Tensor<3>,
        mask: Option<Tensor<4>>,
        positions: Tensor<4>,
    ) -> Tensor<3> {
        let bias = self.gate(x.clone()) * positions;
        let bias = match mask {
            Some(mask) => bias + mask,
            None => bias,
        };
        let q = split_heads(self.q_proj.forward(x.clone()), self.heads);
        let k = split_heads(self.k_proj.forward(x.clone()), self.heads);
        let v = split_heads(self.v_proj.forward(x), self.heads);
        self.out_proj
            .forward(merge_heads(attend(q, k, v, Some(bias))))
    }

    /// How much of the bias each query takes: `a (b c - 1) + 2`, where `a` and `b` are sigmoids of sums of four.
    ///
    /// # Shapes
    /// `[B, T, D]` to `[B, H, T, 1]`
    fn gate(&self, x: Tensor<3>) -> Tensor<4> {
        let [batch, length, _] = x.dims();
        let projected = self.gru_rel_pos_linear.forward(split_heads(x, self.heads));
        let sums = projected
            .reshape([batch, self.heads, length, 2, 4])
            .sum_dim(4)
            .reshape([batch, self.heads, length, 2]);
        let gates = sigmoid(sums);
        let (a, b) = (gates.clone().narrow(3, 0, 1), gates.narrow(3, 1, 1));
        a * (b * self.gru_rel_pos_const.val() - 1.0) + 2.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_distances_have_a_bucket_each_and_far_ones_share() {
        let buckets = Buckets {
            count: 320,
            max_distance: 800,
        };
        assert_eq!(buckets.of(0), 0);
        assert_eq!(buckets.of(-79), 79);
        assert_eq!(buckets.of(79), 160 + 79);
        assert_eq!(buckets.of(-80), 80);
        // 80 + floor(80 ln(2) / ln(10)) = 80 + floor(24.08)
        assert_eq!(buckets.of(-160), 104);
        assert_eq!(buckets.of(100_000), 319);
    }
}
