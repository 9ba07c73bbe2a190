//! Blocks on CPU, run whole by limbic-kernels on the tensors' own memory.
//!
//! Taken on the backend flex where what is trained is in F32 and no adapter is a DoRA; frozen matrices may be in 16 bits.
//! burn's operations, which run everywhere, are what it is tested against.

use burn::tensor::{Device, Tensor, TensorData};
use limbic_kernels::{Block as Kernel, BlockShape, Buffer, Kept, Rotary, Segment, Sequences};

use crate::rope::half_tables;
use crate::tape::{Recompute, Slopes};
use crate::{Block, Dropout, LlamaConfig, Padding};

mod fill;
mod host;
mod numbers;

pub(crate) use fill::fill;
pub(crate) use host::{Host, HostMatrix};
use numbers::{BlockNumbers, Rows};

/// A stack of blocks in one pass.
#[derive(Debug)]
pub(crate) struct Fused {
    blocks: Vec<BlockNumbers>,
    shape: BlockShape,
    /// Of the residual stream.
    width: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
    sequences: Sequences,
    /// The rows of the last block that somebody reads; all if absent.
    read: Option<Vec<usize>>,
    dropout: Dropout,
    device: Device,
    /// The block that the way back ends with.
    lowest: usize,
    /// From that block on.
    steps: Vec<Step>,
}

/// What is kept of one block's forward pass.
#[derive(Debug)]
struct Step {
    input: Buffer,
    kept: Option<Kept>,
}

/// Whether tensors on `device` are in the host's memory, where whole blocks can run.
pub fn is_cpu(device: &Device) -> bool {
    Host::of(&Tensor::<1>::zeros([1], &device.clone().without_autodiff())).is_some()
}

/// Frees what passes on CPU keep for the next ones.
pub fn free_idle_memory() {
    limbic_kernels::free_idle_buffers();
}

/// Which of a block's linear layers see every row, read or not: keys and values.
const SEE_ALL: std::ops::Range<usize> = 1..3;

impl Fused {
    /// The blocks of a pass over `embeddings`, if all of it can be run whole; `rows`, ascending, are those that are read.
    pub(crate) fn of(
        blocks: &[Block],
        config: &LlamaConfig,
        embeddings: &Tensor<3>,
        padding: &Padding,
        rows: &[usize],
        dropout: Dropout,
    ) -> Option<Self> {
        Host::of(embeddings)?;
        let [size, slots, _] = embeddings.dims();
        let is_causal = !matches!(padding, Padding::BothWays(_));
        let segments = padding.samples(size, slots).into_iter().enumerate();
        let segments: Vec<Segment> = segments
            .flat_map(|(row, samples)| {
                samples.into_iter().map(move |sample| Segment {
                    first: row * slots + sample.start,
                    length: sample.len(),
                })
            })
            .collect();
        if let Padding::Packed(lengths) = padding {
            let held = lengths.iter().sum::<usize>();
            assert_eq!([1, held], [size, slots], "rows and slots of packed samples");
        }
        let sequences = Sequences::new(size * slots, segments, is_causal);
        let reads_all = rows.len() == size * slots;
        let read = (!reads_all).then(|| rows.to_vec());
        Self::new(blocks, config, embeddings, sequences, read, dropout)
    }

    /// For a pass over embeddings on this backend.
    fn new(
        blocks: &[Block],
        config: &LlamaConfig,
        embeddings: &Tensor<3>,
        sequences: Sequences,
        read: Option<Vec<usize>>,
        dropout: Dropout,
    ) -> Option<Self> {
        let blocks: Vec<BlockNumbers> =
            blocks.iter().map(BlockNumbers::of).collect::<Option<_>>()?;
        let longest = sequences.longest()?;
        assert!(
            longest <= config.max_position_embeddings,
            "a sequence of {longest} slots, but the model has {} positions",
            config.max_position_embeddings
        );
        let (cos, sin) = half_tables(config, 0..longest);
        Some(Self {
            blocks,
            shape: BlockShape {
                heads: config.num_attention_heads,
                groups: config.num_key_value_heads,
                head_dim: config.head_dim,
            },
            width: config.hidden_size,
            cos,
            sin,
            sequences,
            read,
            dropout,
            device: embeddings.device().without_autodiff(),
            lowest: 0,
            steps: Vec::new(),
        })
    }

    /// The states of the rows that are read, `[N, D]`, keeping nothing.
    pub(crate) fn run(&self, embeddings: Tensor<3>) -> Tensor<2> {
        let mut x = self.input(embeddings);
        for number in 0..self.blocks.len() {
            x = self.with_block(number, |block| block.forward(&x).0);
        }
        self.output(x)
    }

    /// The same, keeping what the way back needs, which ends with block `lowest`.
    pub(crate) fn record(
        mut self,
        embeddings: Tensor<3>,
        lowest: usize,
        recompute: Recompute,
    ) -> (Tensor<2>, Self) {
        self.lowest = lowest;
        let mut x = self.input(embeddings);
        for number in 0..self.blocks.len() {
            let (y, kept) = self.with_block(number, |block| block.forward(&x));
            if number >= lowest {
                // The last one's way back begins at once.
                let is_last = number + 1 == self.blocks.len();
                let kept = (is_last || recompute == Recompute::None).then_some(kept);
                self.steps.push(Step { input: x, kept });
            }
            x = y;
        }
        (self.output(x), self)
    }

    /// The slope at the embeddings, where it is wanted; those at the parameters go into `slopes`.
    pub(crate) fn backward(
        mut self,
        slope: Tensor<2>,
        wants_input: bool,
        slopes: &mut Slopes,
    ) -> Option<Tensor<3>> {
        let host = Host::of(&slope).expect("the slope at a pass is of its backend and precision");
        let mut slope = Buffer::copy(host.numbers());
        for number in (self.lowest..self.blocks.len()).rev() {
            let Step { input, kept } = self.steps.pop().expect("one step a block");
            let wants_x = number > self.lowest || wants_input;
            let (at_input, gradients) = self.with_block(number, |block| {
                let kept = kept.unwrap_or_else(|| block.again(&input));
                block.backward(&input, kept, slope, wants_x)
            });
            self.blocks[number].add(gradients, slopes, &self.device);
            slope = at_input?;
        }
        let data = TensorData::new(slope.into_vec(), [self.sequences.rows(), self.width]);
        // As one row: the caller's shape is that of its embeddings.
        Some(Tensor::<2>::from_data(data, &self.device).unsqueeze())
    }

    /// Calls `work` with block `number`. Masks are drawn anew each time: they are functions of their key.
    fn with_block<R>(&self, number: usize, work: impl FnOnce(&Kernel) -> R) -> R {
        let numbers = &self.blocks[number];
        let is_last = number + 1 == self.blocks.len();
        let read = self.read.as_deref().filter(|_| is_last);
        let masks: Vec<Option<Buffer>> = numbers
            .linears
            .iter()
            .enumerate()
            .map(|(place, linear)| {
                let rows = match read {
                    Some(read) if !SEE_ALL.contains(&place) => Rows::Some(read),
                    _ => Rows::All(self.sequences.rows()),
                };
                linear.mask(self.dropout, &rows)
            })
            .collect();
        let linear = |place: usize| numbers.linears[place].kernel(masks[place].as_deref());
        let [input_norm, post_norm] = &numbers.norms;
        work(&Kernel {
            shape: self.shape.clone(),
            input_norm: input_norm.kernel(),
            post_norm: post_norm.kernel(),
            linears: [0, 1, 2, 3, 4, 5, 6].map(linear),
            rotary: Rotary {
                cos: &self.cos,
                sin: &self.sin,
            },
            sequences: &self.sequences,
            read,
        })
    }

    fn input(&self, embeddings: Tensor<3>) -> Buffer {
        let host = Host::of(&embeddings).expect("the embeddings were seen to be on this backend");
        Buffer::copy(host.numbers())
    }

    fn output(&self, x: Buffer) -> Tensor<2> {
        let rows = self.read.as_ref().map_or(self.sequences.rows(), Vec::len);
        let width = self.width;
        Tensor::from_data(TensorData::new(x.into_vec(), [rows, width]), &self.device)
    }
}

#[cfg(test)]
mod tests {
    use limbic_weights::Precision;

    use super::*;
    use crate::{Llama, LoraConfig};

    /// Comparisons of both ways would pass if this one were never taken.
    #[test]
    fn whole_blocks_run_for_all_but_doras() {
        let device = Device::flex();
        let config = LlamaConfig::small(32, 16, 2, 2);
        let plain = limbic_weights::seed(config.init(&device), 3);
        let adapted = |use_dora: bool| {
            let lora = LoraConfig {
                use_dora,
                ..LoraConfig::new(2, 2.0, &["q_proj"])
            };
            plain.clone().with_lora(&lora, 3).unwrap()
        };
        let runs_whole = |llama: &Llama| {
            let embeddings = Tensor::zeros([1, 4, 16], &device);
            let blocks = &llama.model.layers;
            let rows = [0, 1, 2, 3];
            let padding = Padding::Right;
            Fused::of(blocks, &config, &embeddings, &padding, &rows, Dropout::OFF).is_some()
        };
        assert!(runs_whole(&plain));
        assert!(runs_whole(&adapted(false)));
        assert!(runs_whole(&adapted(false).hold_in(Precision::Bf16)));
        assert!(!runs_whole(&adapted(true)));
    }
}
