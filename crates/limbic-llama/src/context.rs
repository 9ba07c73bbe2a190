//! What every block of one forward pass shares: who may look at whom, where each slot stands, and which inputs of
//! the adapters are dropped. Built once per pass, not once per block.
//!
//! Letters: B rows, L new slots, T slots seen (those in the cache and the new ones).

use burn::tensor::{Device, Tensor, TensorData};
use limbic_weights::CounterRng;

use crate::rope::Rotation;
use crate::{LlamaConfig, LlamaError};

/// Where the rows of a batch have slots that hold no position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Padding {
    /// After the row's end, if anywhere: attention is causal, so no position before it sees them. For training.
    Right,
    /// Before the row's start, so many in each row: they are masked and positions count from behind them, so
    /// that rows of different lengths end in the same slot. For generation. Slots after a row's end do no harm here either.
    Left(Vec<usize>),
    /// After the row's end, and every position sees all of its row's positions, which are so many: no language model
    /// but a reader. For masked-token modelling.
    BothWays(Vec<usize>),
}

/// Which inputs of the adapters are dropped, as a function of a key.
///
/// The key stands for all that should change the draw (seed, step, micro-batch); the adapter's own name is mixed in.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    key: Option<CounterRng>,
}

impl Padding {
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

impl Dropout {
    /// No dropout: evaluation and generation.
    pub const OFF: Self = Self { key: None };

    /// The dropout that `key` names. The same key gives the same masks on every device.
    pub fn keyed(key: CounterRng) -> Self {
        Self { key: Some(key) }
    }

    /// Whether [`apply`](Self::apply) would change anything.
    pub(crate) fn acts(self, probability: f64) -> bool {
        self.key.is_some() && probability > 0.0
    }

    /// Zeros x's elements with `probability` and scales the others up to the same expectation.
    pub(crate) fn apply<const D: usize>(
        self,
        x: Tensor<D>,
        probability: f64,
        site: &str,
    ) -> Tensor<D> {
        let Some(key) = self.key.filter(|_| probability > 0.0) else {
            return x;
        };
        let rng = key.site(site);
        let threshold = (probability * f64::from(u32::MAX)) as u32;
        let scale = (1.0 / (1.0 - probability)) as f32;
        let keep = |bits: u32| if bits < threshold { 0.0 } else { scale };
        let count = x.shape().num_elements();
        // Two decisions per draw.
        let draws = (0..count.div_ceil(2) as u64).map(|i| rng.bits(i));
        let mut mask: Vec<f32> = draws
            .flat_map(|bits| [keep(bits as u32), keep((bits >> 32) as u32)])
            .collect();
        mask.truncate(count);
        let data = TensorData::new(mask, x.dims());
        let mask = Tensor::from_data(data, &x.device().without_autodiff());
        x * mask
    }
}

/// What every block of one forward pass shares.
#[derive(Clone, Debug)]
pub struct Context {
    pub(crate) rotation: Rotation,
    /// `[B or 1, 1, L or 1, T]`, added to the scores; absent where everything is visible.
    pub(crate) mask: Option<Tensor<4>>,
    pub(crate) dropout: Dropout,
}

impl Context {
    /// For `slots` new slots after `past` slots in the cache.
    ///
    /// # Panics
    /// When the sequence is longer than `max_position_embeddings`.
    pub fn new(
        config: &LlamaConfig,
        past: usize,
        slots: usize,
        padding: &Padding,
        dropout: Dropout,
        device: &Device,
    ) -> Self {
        let total = past + slots;
        assert!(
            total <= config.max_position_embeddings,
            "a sequence of {total} slots, but the model has {} positions",
            config.max_position_embeddings
        );
        let device = &device.clone().without_autodiff();
        let pads = match padding {
            Padding::Right | Padding::BothWays(_) => &[0][..],
            Padding::Left(pads) => pads,
        };
        let positions: Vec<Vec<usize>> = pads
            .iter()
            .map(|pad| {
                (past..total)
                    .map(|slot| slot.saturating_sub(*pad))
                    .collect()
            })
            .collect();
        let all_visible = slots == 1 && pads.iter().all(|pad| *pad == 0);
        let mask = match padding {
            Padding::BothWays(lengths) => Some(open_mask(lengths, slots, device)),
            Padding::Right | Padding::Left(_) if all_visible => None,
            Padding::Right | Padding::Left(_) => Some(causal_mask(past, slots, pads, device)),
        };
        Self {
            rotation: Rotation::new(config, &positions, device),
            mask,
            dropout,
        }
    }
}

fn causal_mask(past: usize, slots: usize, pads: &[usize], device: &Device) -> Tensor<4> {
    let total = past + slots;
    let mut mask = Vec::with_capacity(pads.len() * slots * total);
    for &pad in pads {
        for query in past..total {
            // Finite, so that the softmax of a padded query, which sees nothing, is no NaN.
            mask.extend((0..total).map(|key| {
                if (pad..=query).contains(&key) {
                    0.0
                } else {
                    f32::MIN
                }
            }));
        }
    }
    let data = TensorData::new(mask, [pads.len(), 1, slots, total]);
    Tensor::from_data(data, device)
}

/// The same for every query of a row, `[B, 1, 1, T]`.
fn open_mask(lengths: &[usize], slots: usize, device: &Device) -> Tensor<4> {
    let row =
        |&length: &usize| (0..slots).map(move |key| if key < length { 0.0 } else { f32::MIN });
    let mask: Vec<f32> = lengths.iter().flat_map(row).collect();
    Tensor::from_data(TensorData::new(mask, [lengths.len(), 1, 1, slots]), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropout_keeps_the_expectation_and_repeats_itself() {
        let ones = Tensor::<2>::ones([200, 301], &Device::flex());
        let dropout = Dropout::keyed(CounterRng::new(3));
        let draw = |site: &str| {
            let dropped = dropout.apply(ones.clone(), 0.25, site);
            dropped.into_data().try_into_vec::<f32>().unwrap()
        };
        let values = draw("a");
        assert!(
            values
                .iter()
                .all(|v| *v == 0.0 || (*v - 4.0 / 3.0).abs() < 1e-6)
        );
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        assert!((mean - 1.0).abs() < 0.01, "{mean}");
        assert_eq!(values, draw("a"));
        assert_ne!(values, draw("b"));
    }

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
    fn a_padded_row_sees_only_its_own_past() {
        let mask = causal_mask(1, 2, &[0, 2], &Device::flex());
        let visible: Vec<bool> = mask
            .into_data()
            .try_into_vec::<f32>()
            .unwrap()
            .iter()
            .map(|v| *v == 0.0)
            .collect();
        let (yes, no) = (true, false);
        assert_eq!(
            visible,
            [yes, yes, no, yes, yes, yes, no, no, no, no, no, yes]
        );
    }
}
