use burn::tensor::{Device, Int, Tensor, TensorData};

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

    /// A cache of the same capacity whose row number `i` goes on from row `rows[i]` of this one. A row may be continued
    /// by several, such as questions about one clip, or by none, such as a text that has ended.
    ///
    /// # Panics
    /// When a row is not among these.
    pub fn branch(self, rows: &[usize]) -> Self {
        let layers = self.layers.into_iter();
        Self {
            layers: layers.map(|layer| layer.branch(rows)).collect(),
        }
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
        let slots = keys.dims()[2];
        let capacity = self.keys.dims()[2];
        let end = self.length + slots;
        assert!(
            end <= capacity,
            "{end} slots in a cache for {capacity} of them"
        );
        for (held, new) in [(&mut self.keys, keys), (&mut self.values, values)] {
            put(held, new, self.length);
        }
        self.length = end;
        let all = |held: &Tensor<4>| held.clone().slice_dim(2, 0..end);
        (all(&self.keys), all(&self.values))
    }

    /// Slots held.
    #[cfg(feature = "flex")]
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Keys and values, `[B, K, capacity, E]`.
    #[cfg(feature = "flex")]
    pub(crate) fn room(&self) -> [&Tensor<4>; 2] {
        [&self.keys, &self.values]
    }

    /// See [`KvCache::branch`]. Slots that are not filled are not copied.
    fn branch(self, rows: &[usize]) -> Self {
        let [held_rows, heads, capacity, width] = self.keys.dims();
        if rows.iter().copied().eq(0..held_rows) {
            return self;
        }
        let length = self.length;
        let device = self.keys.device();
        let indices: Vec<i64> = rows.iter().map(|row| *row as i64).collect();
        let indices = TensorData::new(indices, [rows.len()]);
        let indices: Tensor<1, Int> = Tensor::from_data(indices, &device);
        let [keys, values] = [self.keys, self.values].map(|held| {
            let mut branched = Tensor::zeros([rows.len(), heads, capacity, width], &device);
            let filled = held.slice_dim(2, 0..length).select(0, indices.clone());
            put(&mut branched, filled, 0);
            branched
        });
        Self {
            keys,
            values,
            length,
        }
    }
}

/// Writes `new` over the slots of `held` from `first` on, in place.
fn put(held: &mut Tensor<4>, new: Tensor<4>, first: usize) {
    let [rows, heads, slots, width] = new.dims();
    let place = [0..rows, 0..heads, first..first + slots, 0..width];
    held.inplace(|held| held.slice_assign(place, new));
}
