//! What every block of one forward pass shares: who may look at whom, where each slot stands, and which inputs of
//! the adapters are dropped. Built once per pass, not once per block.
//!
//! Letters: B rows, L new slots, T slots seen (those in the cache and the new ones).

use std::ops::Range;

use burn::tensor::{Device, Tensor, TensorData};

use crate::attention::QUERY_CHUNK;
use crate::rope::Rotation;
use crate::{Dropout, LlamaConfig, LlamaError};

/// Where the rows of a batch have slots that hold no position, and how many samples a row holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Padding {
    /// After the row's end, if anywhere: attention is causal, so no position before it sees them. For training.
    Right,
    /// Before the row's start, so many in each row: they are masked and positions count from behind them, so
    /// that rows of different lengths end in the same slot. For generation. Slots after a row's end do no harm here either.
    Left(Vec<usize>),
    /// In these stretches of each row, ascending, those in the cache included: as before the row's start. For rows that
    /// go on from a beginning they share; only with a cache.
    Gaps(Vec<Vec<Range<usize>>>),
    /// After the row's end, and every position sees all of its row's positions, which are so many: no language model
    /// but a reader. For masked-token modelling.
    BothWays(Vec<usize>),
    /// Nowhere: a single row holds samples of these lengths, one after the other. Each sees itself alone, and its
    /// positions count from its first slot. For training; not with a cache.
    Packed(Vec<usize>),
}

impl Padding {
    /// The slots of each of `rows` rows of `slots` slots that one sample holds, sample by sample, in a pass without a
    /// cache. A sample's positions count from its first slot, and no sample sees another. Rows padded on the right are
    /// taken to be full, since nothing is said of their ends.
    ///
    /// # Panics
    /// When rows have gaps, which come with a cache.
    pub fn samples(&self, rows: usize, slots: usize) -> Vec<Vec<Range<usize>>> {
        let alone = |sample: Range<usize>| std::iter::once(sample).collect();
        match self {
            Self::Right => (0..rows).map(|_| alone(0..slots)).collect(),
            Self::Left(pads) => pads.iter().map(|pad| alone(*pad..slots)).collect(),
            Self::Gaps(gaps) => panic!("a pass without a cache over rows with gaps {gaps:?}"),
            Self::BothWays(lengths) => lengths.iter().map(|length| alone(0..*length)).collect(),
            Self::Packed(lengths) => {
                let mut end = 0;
                let sample = |length: &usize| {
                    end += length;
                    end - length..end
                };
                vec![lengths.iter().map(sample).collect()]
            }
        }
    }

    /// The positions of `slots` new slots after `past` of them, one list for all rows or one for each.
    fn positions(&self, past: usize, slots: usize) -> Vec<Vec<usize>> {
        let counted_from =
            |start: usize| (past..past + slots).map(move |slot| slot.saturating_sub(start));
        match self {
            Self::Right | Self::BothWays(_) => vec![counted_from(0).collect()],
            Self::Left(pads) => pads
                .iter()
                .map(|pad| counted_from(*pad).collect())
                .collect(),
            Self::Gaps(rows) => rows
                .iter()
                .map(|gaps| {
                    let before = |slot: usize| {
                        gaps.iter()
                            .map(move |gap| gap.end.min(slot) - gap.start.min(slot))
                    };
                    let counted = |slot: usize| slot - before(slot).sum::<usize>();
                    (past..past + slots).map(counted).collect()
                })
                .collect(),
            Self::Packed(lengths) => vec![lengths.iter().flat_map(|length| 0..*length).collect()],
        }
    }

    /// Slots of the longest sample, with those in the cache.
    pub(crate) fn longest(&self, total: usize) -> usize {
        match self {
            Self::Right | Self::Left(_) | Self::BothWays(_) => total,
            Self::Gaps(rows) => {
                let empty = |gaps: &Vec<Range<usize>>| gaps.iter().map(Range::len).sum::<usize>();
                total - rows.iter().map(empty).min().unwrap_or(0)
            }
            Self::Packed(lengths) => lengths.iter().copied().max().unwrap_or(0),
        }
    }

    /// The padding of rows whose attention mask is given, 1 or true where a slot holds a position.
    ///
    /// # Errors
    /// A row with a hole, or without any position.
    pub fn of_mask(rows: &[Vec<bool>]) -> Result<Self, LlamaError> {
        let mut pads = Vec::with_capacity(rows.len());
        for (index, row) in rows.iter().enumerate() {
            let held = |slot: &bool| *slot;
            let (Some(first), Some(last)) = (row.iter().position(held), row.iter().rposition(held))
            else {
                return Err(LlamaError::Mask(format!(
                    "row {index} masks every position"
                )));
            };
            if row[first..=last].contains(&false) {
                return Err(LlamaError::Mask(format!(
                    "row {index} has a hole between positions {first} and {last}"
                )));
            }
            pads.push(first);
        }
        Ok(if pads.iter().all(|pad| *pad == 0) {
            Self::Right
        } else {
            Self::Left(pads)
        })
    }
}

/// What every block of one forward pass shares.
#[derive(Clone, Debug)]
pub struct Context {
    pub(crate) rotation: Rotation,
    pub(crate) padding: Padding,
    pub(crate) dropout: Dropout,
    /// `[1, 1, C, S + C]` for chunks of up to C queries that begin in slot S at the latest: what query `i` of a chunk
    /// that begins in slot S adds to the scores of each key. Other chunks read other columns, see [`mask`](Self::mask).
    causal: Option<Tensor<4>>,
    /// `[B, 1, 1, T]`, added to the scores of keys that no query of a row sees.
    padded: Option<Tensor<4>>,
}

impl Context {
    /// For `slots` new slots after `past` slots in the cache.
    ///
    /// # Panics
    /// When the sequence is longer than `max_position_embeddings`; when packed samples follow a cache or do not fill
    /// the row.
    pub fn new(
        config: &LlamaConfig,
        past: usize,
        slots: usize,
        padding: &Padding,
        dropout: Dropout,
        device: &Device,
    ) -> Self {
        let total = past + slots;
        let longest = padding.longest(total);
        assert!(
            longest <= config.max_position_embeddings,
            "a sequence of {longest} slots, but the model has {} positions",
            config.max_position_embeddings
        );
        let device = &device.clone().without_autodiff();
        let padded = match padding {
            Padding::Left(pads) if pads.iter().any(|pad| *pad > 0) => Some(hidden_keys(
                pads.iter().map(|pad| move |key: usize| key < *pad),
                total,
                device,
            )),
            Padding::Gaps(rows) if rows.iter().any(|gaps| !gaps.is_empty()) => Some(hidden_keys(
                rows.iter()
                    .map(|gaps| move |key: usize| gaps.iter().any(|gap| gap.contains(&key))),
                total,
                device,
            )),
            Padding::BothWays(lengths) => Some(hidden_keys(
                lengths
                    .iter()
                    .map(|length| move |key: usize| key >= *length),
                total,
                device,
            )),
            Padding::Packed(lengths) => {
                let held: usize = lengths.iter().sum();
                assert!(
                    past == 0 && held == slots,
                    "{held} slots of packed samples in {slots} slots after {past} in a cache"
                );
                None
            }
            Padding::Right | Padding::Left(_) | Padding::Gaps(_) => None,
        };
        let causal = match padding {
            Padding::BothWays(_) => None,
            Padding::Right | Padding::Left(_) | Padding::Gaps(_) => {
                causal_mask(past, slots, device)
            }
            Padding::Packed(_) => causal_mask(0, longest, device),
        };
        Self {
            rotation: Rotation::new(config, &padding.positions(past, slots), device),
            padding: padding.clone(),
            dropout,
            causal,
            padded,
        }
    }

    /// What is added to the scores of a chunk of `queries`, slots of a row or of a packed sample; absent where they see
    /// every slot up to the chunk's end, or, both ways, all of the row's.
    ///
    /// # Shapes
    /// `[B or 1, 1, queries or 1, keys]`
    pub(crate) fn mask(&self, queries: Range<usize>) -> Option<Tensor<4>> {
        let causal = self
            .causal
            .as_ref()
            .filter(|_| queries.len() > 1)
            .map(|mask| {
                let [_, _, rows, columns] = mask.dims();
                // A later chunk would see as much more as it begins later.
                let first = columns - rows - queries.start;
                mask.clone()
                    .slice([0..1, 0..1, 0..queries.len(), first..first + queries.end])
            });
        let padded = self.padded.as_ref().map(|mask| match self.padding {
            Padding::BothWays(_) => mask.clone(),
            _ => mask.clone().slice_dim(3, 0..queries.end),
        });
        match (causal, padded) {
            (Some(causal), Some(padded)) => Some(causal + padded),
            (causal, padded) => causal.or(padded),
        }
    }
}

/// The widest chunk of queries, for those that begin last, as [`Context`] keeps it; absent for a single query.
fn causal_mask(past: usize, slots: usize, device: &Device) -> Option<Tensor<4>> {
    let queries = slots.min(QUERY_CHUNK);
    if queries <= 1 {
        return None;
    }
    let last = past + (slots - 1) / QUERY_CHUNK * QUERY_CHUNK;
    let keys = last + queries;
    let row = |query: usize| (0..keys).map(move |key| hidden(key > last + query));
    let mask: Vec<f32> = (0..queries).flat_map(row).collect();
    Some(Tensor::from_data(
        TensorData::new(mask, [1, 1, queries, keys]),
        device,
    ))
}

/// The same for every query of a row, `[B, 1, 1, T]`: for each row, which keys are hidden.
fn hidden_keys(
    rows: impl ExactSizeIterator<Item = impl Fn(usize) -> bool>,
    slots: usize,
    device: &Device,
) -> Tensor<4> {
    let shape = [rows.len(), 1, 1, slots];
    let mask: Vec<f32> = rows
        .flat_map(|is_hidden| (0..slots).map(move |key| hidden(is_hidden(key))))
        .collect();
    Tensor::from_data(TensorData::new(mask, shape), device)
}

/// Finite, so that the softmax of a padded query, which sees nothing, is no NaN.
fn hidden(is_hidden: bool) -> f32 {
    if is_hidden { f32::MIN } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_tells_where_rows_begin() {
        let (yes, no) = (true, false);
        let padding = Padding::of_mask(&[vec![no, yes, yes], vec![yes, yes, no]]).unwrap();
        assert_eq!(padding, Padding::Left(vec![1, 0]));
        assert_eq!(Padding::of_mask(&[vec![yes, no]]).unwrap(), Padding::Right);
        for (mask, part) in [
            (vec![vec![yes], vec![no]], "row 1"),
            (vec![vec![yes, no, yes]], "hole"),
        ] {
            let error = Padding::of_mask(&mask).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn positions_are_counted_and_seen_around_gaps() {
        let config = LlamaConfig::small(8, 8, 1, 1);
        let padding = Padding::Gaps(vec![vec![0..1, 3..4], vec![]]);
        assert_eq!(padding.positions(2, 3), [[1, 2, 2], [2, 3, 4]]);
        assert_eq!(padding.longest(5), 5);
        let context = Context::new(&config, 2, 3, &padding, Dropout::OFF, &Device::flex());
        let (yes, no) = (true, false);
        let of_last: Vec<bool> = visible(context.mask(4..5));
        assert_eq!(of_last, [no, yes, yes, no, yes, yes, yes, yes, yes, yes]);
        let all = visible(context.mask(2..5));
        assert_eq!(all[..5], [no, yes, yes, no, no]);
        assert_eq!(all[15..20], [yes, yes, yes, no, no]);
    }

    #[test]
    fn a_padded_row_sees_only_its_own_past() {
        let config = LlamaConfig::small(8, 8, 1, 1);
        let padding = Padding::Left(vec![0, 2]);
        let context = Context::new(&config, 1, 2, &padding, Dropout::OFF, &Device::flex());
        let (yes, no) = (true, false);
        assert_eq!(
            visible(context.mask(1..3)),
            [yes, yes, no, yes, yes, yes, no, no, no, no, no, yes]
        );
    }

    #[test]
    fn each_chunk_sees_its_own_past() {
        let config = LlamaConfig::small(8, 8, 1, 1);
        let slots = 2 * QUERY_CHUNK + 3;
        for past in [0, 5] {
            let context = Context::new(
                &config,
                past,
                slots,
                &Padding::Right,
                Dropout::OFF,
                &Device::flex(),
            );
            for first in [0, QUERY_CHUNK, 2 * QUERY_CHUNK] {
                let queries = past + first..past + slots.min(first + QUERY_CHUNK);
                let wanted: Vec<bool> = queries
                    .clone()
                    .flat_map(|query| (0..queries.end).map(move |key| key <= query))
                    .collect();
                assert!(visible(context.mask(queries)) == wanted, "{past} {first}");
            }
        }
    }

    #[test]
    fn packed_samples_count_from_their_own_start() {
        let packed = Padding::Packed(vec![2, 3]);
        assert_eq!(packed.positions(0, 5), [[0, 1, 0, 1, 2]]);
        assert_eq!(packed.samples(1, 5), [[0..2, 2..5]]);
        let left = Padding::Left(vec![1, 0]).samples(2, 4);
        assert_eq!((left.len(), left.concat()), (2, vec![1..4, 0..4]));
        let right = Padding::Right.samples(2, 4);
        assert_eq!((right.len(), right.concat()), (2, vec![0..4, 0..4]));
    }

    fn visible(mask: Option<Tensor<4>>) -> Vec<bool> {
        let mask: Vec<f32> = mask.unwrap().into_data().try_into_vec().unwrap();
        mask.iter().map(|value| *value == 0.0).collect()
    }
}
