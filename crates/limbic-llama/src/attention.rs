//! Grouped-query attention (Ainslie et al. 2023) with rotary positions.
//!
//! Letters: B rows, L new slots, T slots seen, D width, H query heads, K key-value heads, E head width. Query head
//! `h` reads key-value head `h / (H / K)`, as Hugging Face's `repeat_kv` has it.

use burn::module::Module;
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor};

use crate::cache::LayerCache;
use crate::{Context, LlamaConfig, LoraLinear};

/// Causal self-attention of one block.
#[derive(Module, Debug)]
pub struct Attention {
    /// `[H·E, D]`
    pub q_proj: LoraLinear,
    /// `[K·E, D]`
    pub k_proj: LoraLinear,
    /// `[K·E, D]`
    pub v_proj: LoraLinear,
    /// `[D, H·E]`
    pub o_proj: LoraLinear,
    #[module(skip)]
    head_dim: usize,
}

impl Attention {
    pub(crate) fn new(config: &LlamaConfig, device: &Device) -> Self {
        let width = config.hidden_size;
        let queries = config.num_attention_heads * config.head_dim;
        let keys = config.num_key_value_heads * config.head_dim;
        let bias = config.has_input_biases();
        Self {
            q_proj: LoraLinear::new(width, queries, bias, device),
            k_proj: LoraLinear::new(width, keys, bias, device),
            v_proj: LoraLinear::new(width, keys, bias, device),
            o_proj: LoraLinear::new(queries, width, config.attention_bias, device),
            head_dim: config.head_dim,
        }
    }

    /// # Shapes
    /// `[B, L, D]` to the same.
    pub fn forward(
        &self,
        x: Tensor<3>,
        context: &Context,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<3> {
        let query = self.q_proj.forward(x.clone(), context.dropout);
        let key = self.k_proj.forward(x.clone(), context.dropout);
        let value = self.v_proj.forward(x, context.dropout);

        let query = context.rotation.apply(self.heads(query));
        let key = context.rotation.apply(self.heads(key));
        let value = self.heads(value);
        let (key, value) = match cache {
            Some(cache) => cache.append(key, value),
            None => (key, value),
        };

        let attended = self.attend(query, key, value, context.mask.as_ref());
        self.o_proj.forward(attended, context.dropout)
    }

    /// `softmax(q kᵀ / √E + mask) v`
    ///
    /// The query heads of a group are stacked along the slots, `[B, K, (H/K)·L, E]`, so that each group is one
    /// product and keys and values are never repeated.
    ///
    /// # Shapes
    /// `[B, H, L, E]`, `[B, K, T, E]`, `[B, K, T, E]` to `[B, L, H·E]`.
    fn attend(
        &self,
        query: Tensor<4>,
        key: Tensor<4>,
        value: Tensor<4>,
        mask: Option<&Tensor<4>>,
    ) -> Tensor<3> {
        let [rows, heads, slots, width] = query.dims();
        let [_, groups, seen, _] = key.dims();
        let stacked = heads / groups * slots;

        let query = query.reshape([rows, groups, stacked, width]) * (width as f64).powf(-0.5);
        let mut scores = query
            .matmul(key.swap_dims(2, 3))
            .reshape([rows, heads, slots, seen]);
        if let Some(mask) = mask {
            scores = scores + mask.clone();
        }
        softmax(scores, 3)
            .reshape([rows, groups, stacked, seen])
            .matmul(value)
            .reshape([rows, heads, slots, width])
            .swap_dims(1, 2)
            .reshape([rows, slots, heads * width])
    }

    /// `[B, L, N·E]` to `[B, N, L, E]`.
    fn heads(&self, x: Tensor<3>) -> Tensor<4> {
        let [rows, slots, width] = x.dims();
        x.reshape([rows, slots, width / self.head_dim, self.head_dim])
            .swap_dims(1, 2)
    }
}
