use burn::tensor::{Device, Tensor};

use crate::LlamaConfig;

/// The keys and values of the slots seen so far, so that a new token costs one slot.
///
/// Memory for `capacity` slots is taken at once: a growing cache would be copied at every token.
#[derive(Clone, Debug)]
pub struct KvCache {
    pub(crate) layers: Vec<LayerCache>,
}

/// One layer's part of a [`KvCache`].
///
/// Letters: B rows, K key-value heads, L new slots, T all slots so far, E head width.
#[derive(Clone, Debug)]
pub struct LayerCache {
    keys: Tensor<4>,
    values: Tensor<4>,
    length: usize,
}

impl KvCache {
    /// An empty cache for `rows` rows of at most `capacity` slots.
    pub fn new(config: &LlamaConfig, rows: usize, capacity: usize, device: &Device) -> Self {
        let shape = [rows, config.num_key_value_heads, capacity, config.head_dim];
        let layer = || LayerCache {
            keys: Tensor::zeros(shape, device),
            values: Tensor::zeros(shape, device),
            length: 0,
        };
        Self {
            layers: (0..config.num_hidden_layers).map(|_| layer()).collect(),
        }
    }

    /// Slots held.
    pub fn length(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.length)
    }
}

impl LayerCache {
    /// Takes up the new slots and returns all of them.
    ///
    /// # Shapes
    /// `[B, K, L, E]` to `[B, K, T, E]`, keys and values alike.
    ///
    /// # Panics
    /// When the slots exceed the capacity.
    pub(crate) fn append(&mut self, keys: Tensor<4>, values: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let [rows, heads, slots, width] = keys.dims();
        let capacity = self.keys.dims()[2];
        let end = self.length + slots;
        assert!(
            end <= capacity,
            "{end} slots in a cache for {capacity} of them"
        );
        let new = [0..rows, 0..heads, self.length..end, 0..width];
        let all = [0..rows, 0..heads, 0..end, 0..width];
        self.keys
            .inplace(|held| held.slice_assign(new.clone(), keys));
        self.values.inplace(|held| held.slice_assign(new, values));
        self.length = end;
        (
            self.keys.clone().slice(all.clone()),
            self.values.clone().slice(all),
        )
    }
}
