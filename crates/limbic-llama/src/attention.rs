//! Grouped-query attention (Ainslie et al. 2023) with rotary positions.
//!
//! Letters: B rows, L new slots, T slots seen, D width, H query heads, K key-value heads, E head width. Query head
//! `h` reads key-value head `h / (H / K)`, as Hugging Face's `repeat_kv` has it.
//!
//! Queries of long inputs are taken in chunks of [`QUERY_CHUNK`], each of which reads the keys up to its own end, so that
//! no L·T scores a head stand in memory at once; packed samples are attended to one by one. On a tape each chunk keeps
//! two numbers for each query and key it looks at, of the softmax: L² a head in all where one product of all would keep
//! 2·L². Who cannot spare them recomputes blocks, and has them for one block at a time.
//!
//! burn's own `attention` is not called even where nothing is tracked. Its flash kernels multiply halves on GPU and want
//! keys repeated for each query head, and under autodiff it stores all scores; and a block that is replayed for its
//! gradient must compute what it did the first time.

use burn::module::Module;
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor};

use crate::cache::LayerCache;
use crate::{Context, LlamaConfig, LoraLinear, Padding};

/// Most queries whose scores stand in memory at once: half a gigabyte for 32 heads over 8192 keys. Samples up to the
/// default of `data.max_tokens` are one product.
pub(crate) const QUERY_CHUNK: usize = 512;

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

        let attended = attend(query, key, value, context);
        let [rows, heads, slots, width] = attended.dims();
        let attended = attended
            .swap_dims(1, 2)
            .reshape([rows, slots, heads * width]);
        self.o_proj.forward(attended, context.dropout)
    }

    /// `[B, L, N·E]` to `[B, N, L, E]`.
    fn heads(&self, x: Tensor<3>) -> Tensor<4> {
        let [rows, slots, width] = x.dims();
        x.reshape([rows, slots, width / self.head_dim, self.head_dim])
            .swap_dims(1, 2)
    }
}

/// Each sample attends to itself.
///
/// # Shapes
/// `[B, H, L, E]`, `[B, K, T, E]`, `[B, K, T, E]` to `[B, H, L, E]`.
fn attend(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>, context: &Context) -> Tensor<4> {
    let Padding::Packed(lengths) = &context.padding else {
        return attend_in_chunks(query, key, value, context);
    };
    let [query, key, value] = [query, key, value].map(|x| split(x, lengths));
    let samples = query.into_iter().zip(key.into_iter().zip(value));
    let attended =
        samples.map(|(query, (key, value))| attend_in_chunks(query, key, value, context));
    Tensor::cat(attended.collect(), 2)
}

/// One sample, or rows of one each.
fn attend_in_chunks(
    query: Tensor<4>,
    key: Tensor<4>,
    value: Tensor<4>,
    context: &Context,
) -> Tensor<4> {
    let (slots, seen) = (query.dims()[2], key.dims()[2]);
    let past = seen - slots;
    if slots <= QUERY_CHUNK {
        return attend_chunk(query, key, value, context.mask(past..seen));
    }
    let lengths: Vec<usize> = (0..slots)
        .step_by(QUERY_CHUNK)
        .map(|first| QUERY_CHUNK.min(slots - first))
        .collect();
    let mut end = past;
    let chunks = split(query, &lengths)
        .into_iter()
        .zip(&lengths)
        .map(|(query, length)| {
            let queries = end..end + length;
            end = queries.end;
            let visible = match context.padding {
                Padding::BothWays(_) => seen,
                _ => end,
            };
            let [key, value] = [&key, &value].map(|x| x.clone().slice_dim(2, 0..visible));
            attend_chunk(query, key, value, context.mask(queries))
        });
    Tensor::cat(chunks.collect(), 2)
}

/// `softmax(q kᵀ / √E + mask) v`
///
/// The query heads of a group are stacked along the slots, `[B, K, (H/K)·L, E]`, so that each group is one
/// product and keys and values are never repeated.
fn attend_chunk(
    query: Tensor<4>,
    key: Tensor<4>,
    value: Tensor<4>,
    mask: Option<Tensor<4>>,
) -> Tensor<4> {
    let [rows, heads, slots, width] = query.dims();
    let [_, groups, seen, _] = key.dims();
    let stacked = heads / groups * slots;

    let query = query.reshape([rows, groups, stacked, width]) * (width as f64).powf(-0.5);
    let mut scores = query
        .matmul(key.swap_dims(2, 3))
        .reshape([rows, heads, slots, seen]);
    if let Some(mask) = mask {
        scores = scores + mask;
    }
    softmax(scores, 3)
        .reshape([rows, groups, stacked, seen])
        .matmul(value)
        .reshape([rows, heads, slots, width])
}

/// Cuts the slots into stretches of `lengths`, by halves: the gradient of each slice is as large as what it was cut from.
fn split(x: Tensor<4>, lengths: &[usize]) -> Vec<Tensor<4>> {
    if lengths.len() <= 1 {
        return vec![x];
    }
    let (first, second) = lengths.split_at(lengths.len() / 2);
    let (middle, end) = (first.iter().sum::<usize>(), lengths.iter().sum::<usize>());
    let mut parts = split(x.clone().slice_dim(2, 0..middle), first);
    parts.extend(split(x.slice_dim(2, middle..end), second));
    parts
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::*;
    use crate::Dropout;

    /// What [`attend`] gives for seeded queries, keys and values, and its gradients by them.
    struct Attended([Vec<f32>; 4]);

    fn run(
        [rows, heads, groups]: [usize; 3],
        [slots, seen]: [usize; 2],
        attend: impl Fn(Tensor<4>, Tensor<4>, Tensor<4>) -> Tensor<4>,
    ) -> Attended {
        let rng = limbic_weights::CounterRng::new(7);
        let draw = |site: &str, shape: [usize; 4]| {
            let rng = rng.site(site);
            let values = (0..shape.iter().product::<usize>() as u64).map(|i| rng.normal(i) as f32);
            let data = TensorData::new(values.collect::<Vec<f32>>(), shape);
            Tensor::<4>::from_data(data, &Device::flex())
        };
        let [query, key, value] = [
            draw("query", [rows, heads, slots, 8]),
            draw("key", [rows, groups, seen, 8]),
            draw("value", [rows, groups, seen, 8]),
        ]
        .map(|x| x.autodiff().require_grad());
        let attended = attend(query.clone(), key.clone(), value.clone());
        let weights = draw("weights", attended.dims());
        let gradients = (attended.clone() * weights).sum().backward();
        let gradient = |x: Tensor<4>| host(x.grad(&gradients).unwrap());
        let [query, key, value] = [query, key, value].map(gradient);
        Attended([host(attended.inner()), query, key, value])
    }

    impl Attended {
        /// Largest difference, as a share of the largest value.
        fn distance(&self, other: &Self) -> f32 {
            let largest = |values: &mut dyn Iterator<Item = f32>| values.fold(0.0, f32::max);
            let pairs = self.0.iter().zip(&other.0);
            largest(&mut pairs.map(|(a, b)| {
                assert_eq!(a.len(), b.len());
                let difference = a.iter().zip(b).map(|(a, b)| (a - b).abs());
                largest(&mut { difference }) / largest(&mut b.iter().map(|b| b.abs()))
            }))
        }
    }

    fn host(x: Tensor<4>) -> Vec<f32> {
        x.into_data().try_into_vec().unwrap()
    }

    /// All scores at once, of which row, query and key decide whether they count.
    fn at_once(
        slots: usize,
        seen: usize,
        rows: usize,
        counts: impl Fn(usize, usize, usize) -> bool,
    ) -> impl Fn(Tensor<4>, Tensor<4>, Tensor<4>) -> Tensor<4> {
        let mut mask = Vec::new();
        for row in 0..rows {
            for query in 0..slots {
                mask.extend((0..seen).map(|key| {
                    if counts(row, query, key) {
                        0.0
                    } else {
                        f32::MIN
                    }
                }));
            }
        }
        let data = TensorData::new(mask, [rows, 1, slots, seen]);
        let mask = Tensor::from_data(data, &Device::flex());
        move |query, key, value| attend_chunk(query, key, value, Some(mask.clone()))
    }

    fn under(
        padding: Padding,
        [slots, seen]: [usize; 2],
    ) -> impl Fn(Tensor<4>, Tensor<4>, Tensor<4>) -> Tensor<4> {
        let config = LlamaConfig::small(8, 8, 1, 1);
        let past = seen - slots;
        let context = Context::new(
            &config,
            past,
            slots,
            &padding,
            Dropout::OFF,
            &Device::flex(),
        );
        move |query, key, value| attend(query, key, value, &context)
    }

    const LONG: usize = 2 * QUERY_CHUNK + 37;

    #[test]
    fn chunks_give_what_all_scores_at_once_give() {
        for (heads, groups) in [(4, 4), (4, 2), (3, 1)] {
            for seen in [LONG, LONG + 3] {
                let past = seen - LONG;
                let size = [LONG, seen];
                let chunked = run([1, heads, groups], size, under(Padding::Right, size));
                let whole = at_once(LONG, seen, 1, |_, query, key| key <= past + query);
                let whole = run([1, heads, groups], size, whole);
                assert!(chunked.distance(&whole) < 1e-6, "{heads} {groups} {past}");
            }
        }
        let (size, lengths) = ([LONG, LONG], [LONG, 600]);
        let chunked = run(
            [2, 2, 1],
            size,
            under(Padding::BothWays(lengths.to_vec()), size),
        );
        let whole = run(
            [2, 2, 1],
            size,
            at_once(LONG, LONG, 2, |row, _, key| key < lengths[row]),
        );
        assert!(chunked.distance(&whole) < 1e-6);
    }

    #[test]
    fn a_packed_sample_sees_itself_alone() {
        let lengths = [1, 13, QUERY_CHUNK + 6, 7, 2];
        let slots = lengths.iter().sum();
        let size = [slots, slots];
        let sample = |slot: usize| {
            let mut end = 0;
            lengths.iter().position(|length| {
                end += length;
                slot < end
            })
        };
        for (heads, groups) in [(4, 4), (4, 2), (3, 1)] {
            let shape = [1, heads, groups];
            let packed = run(shape, size, under(Padding::Packed(lengths.to_vec()), size));
            let own = |_: usize, query, key| key <= query && sample(query) == sample(key);
            let whole = run(shape, size, at_once(slots, slots, 1, own));
            assert!(packed.distance(&whole) < 1e-6, "{heads} {groups}");
            // Were they to see one another, it would show.
            let leaking = run(shape, size, under(Padding::Right, size));
            assert!(packed.distance(&leaking) > 0.1, "{heads} {groups}");
        }
    }
}
