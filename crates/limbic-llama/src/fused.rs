//! Blocks on CPU, run whole by limbic-kernels on the tensors' own memory.
//!
//! Taken on the backend flex where what is trained is in F32 and no adapter is a DoRA; frozen matrices may be in 16 bits.
//! burn's operations, which run everywhere, are what it is tested against.

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::module::{Param, ParamId};
use burn::tensor::{DType, Device, Tensor, TensorData, bf16, f16};
use limbic_kernels::{
    Adapter, Block as Kernel, BlockGradients, BlockShape, Buffer, Kept, Linear, LinearGradients,
    Norm, Rotary, Segment, Sequences, Stored,
};

use crate::lora::with_dtype;
use crate::norm::RmsNorm;
use crate::rope::half_tables;
use crate::tape::{Recompute, Slopes};
use crate::{Block, Dropout, LlamaConfig, LoraLinear, Padding};

mod fill;

pub(crate) use fill::fill;

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

/// A tensor's memory.
#[derive(Debug)]
pub(crate) struct Host(FlexTensor);

/// The memory of a matrix, in any precision.
#[derive(Debug)]
pub(crate) struct HostMatrix(FlexTensor);

/// A matrix `[out, in]` that products are taken with.
#[derive(Debug)]
struct WeightNumbers {
    id: ParamId,
    host: HostMatrix,
    is_trained: bool,
}

/// A parameter.
#[derive(Debug)]
struct Numbers {
    id: ParamId,
    host: Host,
    is_trained: bool,
}

#[derive(Debug)]
struct BlockNumbers {
    /// Before attention, before the SwiGLU layer.
    norms: [NormNumbers; 2],
    linears: [LinearNumbers; 7],
}

#[derive(Debug)]
struct NormNumbers {
    weight: Numbers,
    epsilon: f32,
}

#[derive(Debug)]
struct LinearNumbers {
    weight: WeightNumbers,
    bias: Option<Numbers>,
    input: usize,
    output: usize,
    adapter: Option<AdapterNumbers>,
}

#[derive(Debug)]
struct AdapterNumbers {
    a: Numbers,
    b: Numbers,
    scale: f32,
    dropout: f64,
    site: String,
}

impl Host {
    /// `None` for a tensor of another backend or precision.
    pub(crate) fn of<const D: usize>(tensor: &Tensor<D>) -> Option<Self> {
        if tensor.dtype() != DType::F32 {
            return None;
        }
        let plain = tensor.clone().without_autodiff();
        let tensor = plain.try_into_primitive::<Flex>().ok()?;
        // A stretch of a larger tensor is read where it lies: flex would copy it.
        let is_whole = tensor.is_contiguous();
        Some(Self(if is_whole {
            tensor
        } else {
            tensor.to_contiguous()
        }))
    }

    pub(crate) fn numbers(&self) -> &[f32] {
        let layout = self.0.layout();
        let start = layout.start_offset();
        &self.0.storage::<f32>()[start..start + layout.num_elements()]
    }
}

impl HostMatrix {
    /// `None` for a tensor of another backend.
    pub(crate) fn of(tensor: &Tensor<2>) -> Option<Self> {
        let plain = tensor.clone().without_autodiff();
        let tensor = plain.try_into_primitive::<Flex>().ok()?.to_contiguous();
        let is_stored = matches!(tensor.dtype(), DType::F32 | DType::BF16 | DType::F16);
        is_stored.then_some(Self(tensor))
    }

    pub(crate) fn stored(&self) -> Stored<'_> {
        let whole = "a contiguous tensor is one slice";
        match self.0.dtype() {
            DType::F32 => Stored::F32(self.0.as_slice().expect(whole)),
            DType::BF16 => Stored::Bf16(self.0.as_slice::<bf16>().expect(whole)),
            _ => Stored::F16(self.0.as_slice::<f16>().expect(whole)),
        }
    }
}

impl WeightNumbers {
    /// `None` for a matrix of another backend, and for a trained one in 16 bits.
    fn of(parameter: &Param<Tensor<2>>) -> Option<Self> {
        let value = parameter.val();
        let is_trained = value.is_require_grad();
        let host = HostMatrix::of(&value)?;
        (!is_trained || value.dtype() == DType::F32).then_some(Self {
            id: parameter.id,
            host,
            is_trained,
        })
    }
}

impl Numbers {
    /// What is frozen and small may be in 16 bits: it is widened here.
    fn of<const D: usize>(parameter: &Param<Tensor<D>>) -> Option<Self> {
        let value = parameter.val();
        let is_trained = value.is_require_grad();
        let host = match is_trained {
            true => Host::of(&value),
            false => Host::of(&with_dtype(value, DType::F32)),
        };
        Some(Self {
            id: parameter.id,
            host: host?,
            is_trained,
        })
    }

    fn get(&self) -> &[f32] {
        self.host.numbers()
    }
}

impl NormNumbers {
    fn of(norm: &RmsNorm) -> Option<Self> {
        Some(Self {
            weight: Numbers::of(&norm.weight)?,
            epsilon: norm.epsilon() as f32,
        })
    }

    fn kernel(&self) -> Norm<'_> {
        Norm {
            weight: self.weight.get(),
            epsilon: self.epsilon,
            is_trained: self.weight.is_trained,
        }
    }
}

impl LinearNumbers {
    fn of(linear: &LoraLinear) -> Option<Self> {
        let [output, input] = linear.weight.lazy_shape().dims();
        let adapter = match linear.adapter() {
            None => None,
            Some(adapter) if adapter.magnitude.is_some() => return None,
            Some(adapter) => Some(AdapterNumbers {
                a: Numbers::of(adapter.a)?,
                b: Numbers::of(adapter.b)?,
                scale: adapter.scale as f32,
                dropout: adapter.dropout,
                site: adapter.site.to_string(),
            }),
        };
        let bias = match &linear.bias {
            None => None,
            Some(bias) => Some(Numbers::of(bias)?),
        };
        Some(Self {
            weight: WeightNumbers::of(&linear.weight)?,
            bias,
            input,
            output,
            adapter,
        })
    }

    fn kernel<'a>(&'a self, mask: Option<&'a [f32]>) -> Linear<'a> {
        Linear {
            weight: self.weight.host.stored(),
            bias: self.bias.as_ref().map(Numbers::get),
            input: self.input,
            output: self.output,
            adapter: self.adapter.as_ref().map(|adapter| Adapter {
                a: adapter.a.get(),
                b: adapter.b.get(),
                scale: adapter.scale,
                mask,
                is_trained: adapter.a.is_trained || adapter.b.is_trained,
            }),
            is_trained: self.weight.is_trained
                || self.bias.as_ref().is_some_and(|bias| bias.is_trained),
        }
    }

    /// Dropout's mask for the adapter's input at some rows, or at the first so many.
    fn mask(&self, dropout: Dropout, rows: &Rows) -> Option<Buffer> {
        let adapter = self.adapter.as_ref()?;
        if !dropout.acts(adapter.dropout) {
            return None;
        }
        let (probability, site, width) = (adapter.dropout, &adapter.site, self.input);
        let count = match rows {
            Rows::All(count) => *count,
            Rows::Some(rows) => rows.len(),
        };
        let mut mask = Buffer::stale(count * width);
        match rows {
            Rows::All(count) => dropout.mask(probability, site, 0..*count, width, &mut mask),
            Rows::Some(rows) => {
                dropout.mask(probability, site, rows.iter().copied(), width, &mut mask);
            }
        }
        Some(mask)
    }

    fn add(&self, gradients: LinearGradients, slopes: &mut Slopes, device: &Device) {
        let LinearGradients { weight, bias, a, b } = gradients;
        if self.weight.is_trained {
            add(self.weight.id, weight, slopes, device);
        }
        let adapter = self.adapter.as_ref();
        let of_adapter = adapter.map(|adapter| [(&adapter.a, a), (&adapter.b, b)]);
        let small = self.bias.as_ref().map(|numbers| (numbers, bias));
        for (numbers, slope) in small.into_iter().chain(of_adapter.into_iter().flatten()) {
            if numbers.is_trained {
                add(numbers.id, slope, slopes, device);
            }
        }
    }
}

fn add(id: ParamId, slope: Option<Vec<f32>>, slopes: &mut Slopes, device: &Device) {
    if let Some(slope) = slope {
        let shape = [slope.len()];
        slopes.add(id, Tensor::from_data(TensorData::new(slope, shape), device));
    }
}

enum Rows<'a> {
    All(usize),
    Some(&'a [usize]),
}

impl BlockNumbers {
    fn of(block: &Block) -> Option<Self> {
        let mut linears = block.linears().map(LinearNumbers::of).into_iter();
        let mut next = || linears.next().flatten();
        Some(Self {
            norms: [
                NormNumbers::of(&block.input_layernorm)?,
                NormNumbers::of(&block.post_attention_layernorm)?,
            ],
            linears: [
                next()?,
                next()?,
                next()?,
                next()?,
                next()?,
                next()?,
                next()?,
            ],
        })
    }
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
            self.add(number, gradients, slopes);
            slope = at_input?;
        }
        let data = TensorData::new(slope.into_vec(), [self.sequences.rows(), self.width]);
        // As one row: the caller's shape is that of its embeddings.
        Some(Tensor::<2>::from_data(data, &self.device).unsqueeze())
    }

    fn add(&self, number: usize, gradients: BlockGradients, slopes: &mut Slopes) {
        let block = &self.blocks[number];
        let norms = [gradients.input_norm, gradients.post_norm];
        for (norm, slope) in block.norms.iter().zip(norms) {
            if norm.weight.is_trained {
                add(norm.weight.id, slope, slopes, &self.device);
            }
        }
        for (linear, of_linear) in block.linears.iter().zip(gradients.linears) {
            linear.add(of_linear, slopes, &self.device);
        }
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
