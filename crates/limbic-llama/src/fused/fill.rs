//! A pass whose keys and values go into a cache, which may hold those of earlier passes.
//!
//! Slots that hold no position take part in nothing: the blocks see the positions of each row behind one another.

use std::ops::Range;

use burn::tensor::{Tensor, TensorData};
use limbic_kernels::{Buffer, Past, Segment, Sequences};

use super::{Fused, Host};
use crate::cache::LayerCache;
use crate::{Block, Dropout, KvCache, LlamaConfig};

/// Where the positions of rows with gaps stand when they are put behind one another. Letters: T positions, M new ones.
struct Layout {
    /// The positions of each row that has any.
    segments: Vec<Segment>,
    /// Row and slot of each of the T.
    slots: Vec<(usize, usize)>,
    /// Which of them are new.
    new: Vec<usize>,
    /// The last new one of each row that has any, counted among the new ones.
    last: Vec<usize>,
}

/// The output of the last block at the last new position of each row that has any, `[B, D]`, if all of the pass can be run
/// whole. `cache` takes up keys and values.
///
/// # Shapes
/// `embeddings [B, L, D]`; the slots of `gaps`, those in the cache included, hold no position.
pub(crate) fn fill(
    blocks: &[Block],
    config: &LlamaConfig,
    embeddings: &Tensor<3>,
    gaps: &[Vec<Range<usize>>],
    cache: &mut KvCache,
) -> Option<Tensor<2>> {
    let host = Host::of(embeddings)?;
    let [_, slots, width] = embeddings.dims();
    let past = cache.length();
    let layout = Layout::new(gaps, past, slots);
    let sequences = Sequences::new(layout.slots.len(), layout.segments.clone(), true);
    let read = Some(layout.last.clone());
    let fused = Fused::new(blocks, config, embeddings, sequences, read, Dropout::OFF)?;
    let mut x = Buffer::stale(layout.new.len() * width);
    for (place, x) in layout.new.iter().zip(x.chunks_exact_mut(width)) {
        let (row, slot) = layout.slots[*place];
        let first = (row * slots + slot - past) * width;
        x.copy_from_slice(&host.numbers()[first..first + width]);
    }
    for (number, layer) in cache.layers.iter_mut().enumerate() {
        let [key, value] = fused.held(layer, &layout);
        let rows = &layout.new;
        let past_keys = Past { rows, key, value };
        let (y, new) = fused.with_block(number, |block| block.forward_after(&x, past_keys));
        let [keys, values] = new.map(|new| fused.with_gaps(&new, &layout, gaps.len(), past, slots));
        layer.append(keys, values);
        x = y;
    }
    Some(fused.output(x))
}

impl Layout {
    fn new(gaps: &[Vec<Range<usize>>], past: usize, new: usize) -> Self {
        let mut layout = Self {
            segments: Vec::new(),
            slots: Vec::new(),
            new: Vec::new(),
            last: Vec::new(),
        };
        for (row, gaps) in gaps.iter().enumerate() {
            let (first, new_before) = (layout.slots.len(), layout.new.len());
            let held = |slot: &usize| !gaps.iter().any(|gap| gap.contains(slot));
            for slot in (0..past + new).filter(held) {
                if slot >= past {
                    layout.new.push(layout.slots.len());
                }
                layout.slots.push((row, slot));
            }
            let length = layout.slots.len() - first;
            if length > 0 {
                layout.segments.push(Segment { first, length });
            }
            if layout.new.len() > new_before {
                layout.last.push(layout.new.len() - 1);
            }
        }
        layout
    }
}

impl Fused {
    /// A layer's keys and values of earlier passes, `[T, K·E]`; the new rows hold anything.
    fn held(&self, layer: &LayerCache, layout: &Layout) -> [Buffer; 2] {
        let (groups, width) = (self.shape.groups, self.shape.head_dim);
        let past = layer.length();
        layer.room().map(|held| {
            let capacity = held.dims()[2];
            let host = Host::of(held).expect("a cache is where the embeddings are");
            let mut copied = Buffer::stale(layout.slots.len() * groups * width);
            let rows = copied.chunks_exact_mut(groups * width);
            for (&(row, slot), copied) in layout.slots.iter().zip(rows) {
                if slot >= past {
                    continue;
                }
                for (group, copied) in copied.chunks_exact_mut(width).enumerate() {
                    let first = ((row * groups + group) * capacity + slot) * width;
                    copied.copy_from_slice(&host.numbers()[first..first + width]);
                }
            }
            copied
        })
    }

    /// New keys or values, `[M, K·E]`, as the cache has them: `[B, K, L, E]`, zero in gaps.
    fn with_gaps(
        &self,
        new: &[f32],
        layout: &Layout,
        rows: usize,
        past: usize,
        slots: usize,
    ) -> Tensor<4> {
        let (groups, width) = (self.shape.groups, self.shape.head_dim);
        let mut placed = vec![0.0; rows * slots * groups * width];
        for (place, new) in layout.new.iter().zip(new.chunks_exact(groups * width)) {
            let (row, slot) = layout.slots[*place];
            let first = (row * slots + slot - past) * groups * width;
            placed[first..first + groups * width].copy_from_slice(new);
        }
        let shape = [rows, slots, groups, width];
        Tensor::<4>::from_data(TensorData::new(placed, shape), &self.device).swap_dims(1, 2)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::Padding;

    /// Two passes, the second from rows of the first that have gaps, against burn's operations.
    #[test]
    fn a_pass_goes_on_from_a_filled_cache_as_burn_does() {
        let mut config = LlamaConfig::small(97, 32, 3, 4);
        config.num_key_value_heads = 2;
        let llama = limbic_weights::seed(config.init(&Device::flex()), 5);
        let input = |first: i64, rows: usize, slots: usize| {
            let tokens = (0..(rows * slots) as i64).map(|i| (first + 7 * i) % 97);
            let data = TensorData::new(tokens.collect::<Vec<i64>>(), [rows, slots]);
            llama.embed(Tensor::from_data(data, &Device::flex()))
        };
        let passes = [
            (input(3, 2, 9), vec![0, 1], vec![vec![0..4], vec![]]),
            (
                input(50, 4, 40),
                vec![1, 0, 1, 1],
                // The last row has nothing new.
                vec![vec![9..12], vec![0..4], vec![9..46], vec![9..49]],
            ),
        ];
        let cache = || KvCache::new(&config, 2, 50, &Device::flex());
        let (mut whole, mut plain) = (cache(), cache());
        for (input, parents, gaps) in passes {
            [whole, plain] = [whole, plain].map(|cache| cache.branch(&parents));
            let got = fill(&llama.model.layers, &config, &input, &gaps, &mut whole);
            let got: Vec<f32> = got.unwrap().into_data().try_into_vec().unwrap();
            let slots = input.dims()[1];
            let padding = Padding::Gaps(gaps.clone());
            let wanted = llama.hidden(input, &padding, Some(&mut plain), Dropout::OFF);
            let wanted = wanted.narrow(1, slots - 1, 1).into_data();
            let wanted: Vec<f32> = wanted.try_into_vec().unwrap();
            // All rows but an empty one.
            assert_eq!(got.len(), gaps.len().min(3) * config.hidden_size);
            for (got, wanted) in got.iter().zip(&wanted) {
                assert!((got - wanted).abs() < 1e-5, "{got} {wanted}");
            }
            assert_eq!(whole.length(), plain.length());
        }
    }
}
