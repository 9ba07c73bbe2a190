//! Blocks on CPU, run whole by limbic-kernels on the tensors' own memory.
//!
//! Taken where everything is in F32 on the backend flex and no adapter is a DoRA; burn's operations, which run
//! everywhere, are what it is tested against.

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::module::{Param, ParamId};
use burn::tensor::{DType, Device, Tensor, TensorData};
use limbic_kernels::{
    Adapter, Block as Kernel, BlockGradients, BlockShape, Buffer, Kept, Linear, LinearGradients,
    Norm, Rotary, Segment, Sequences,
};

use crate::norm::RmsNorm;
use crate::rope::half_tables;
use crate::tape::{Recompute, Slopes};
use crate::{Block, Dropout, KvCache, LlamaConfig, LoraLinear, Padding};

/// A stack of blocks in one pass.
#[derive(Debug)]
pub(crate) struct Fused {
    blocks: Vec<BlockNumbers>,
    shape: BlockShape,
    cos: Vec<f32>,
    sin: Vec<f32>,
    sequences: Sequences,
    /// The rows of the last block that somebody reads; all if absent.
    read: Option<Vec<usize>>,
    dropout: Dropout,
    device: Device,
    recompute: Recompute,
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
    weight: Numbers,
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
        Some(Self(tensor.to_contiguous()))
    }

    pub(crate) fn numbers(&self) -> &[f32] {
        let layout = self.0.layout();
        let start = layout.start_offset();
        &self.0.storage::<f32>()[start..start + layout.num_elements()]
    }
}

impl Numbers {
    fn of<const D: usize>(parameter: &Param<Tensor<D>>) -> Option<Self> {
        let value = parameter.val();
        Some(Self {
            id: parameter.id,
            host: Host::of(&value)?,
            is_trained: value.is_require_grad(),
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
            weight: Numbers::of(&linear.weight)?,
            bias,
            input,
            output,
            adapter,
        })
    }

    fn kernel<'a>(&'a self, mask: Option<&'a [f32]>) -> Linear<'a> {
        Linear {
            weight: self.weight.get(),
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
    fn mask(&self, dropout: Dropout, rows: &Rows) -> Option<Vec<f32>> {
        let adapter = self.adapter.as_ref()?;
        let (probability, site) = (adapter.dropout, &adapter.site);
        match rows {
            Rows::All(count) => dropout.mask(probability, site, self.input, 0..*count),
            Rows::Some(rows) => dropout.mask(probability, site, self.input, rows.iter().copied()),
        }
    }

    fn parameters(&self) -> impl Iterator<Item = &Numbers> {
        let adapter = self
            .adapter
            .iter()
            .flat_map(|adapter| [&adapter.a, &adapter.b]);
        [&self.weight].into_iter().chain(&self.bias).chain(adapter)
    }

    fn add(&self, gradients: LinearGradients, slopes: &mut Slopes, device: &Device) {
        let LinearGradients { weight, bias, a, b } = gradients;
        add(Some(&self.weight), weight, slopes, device);
        add(self.bias.as_ref(), bias, slopes, device);
        let adapter = self.adapter.as_ref();
        add(adapter.map(|adapter| &adapter.a), a, slopes, device);
        add(adapter.map(|adapter| &adapter.b), b, slopes, device);
    }
}

fn add(parameter: Option<&Numbers>, slope: Option<Vec<f32>>, slopes: &mut Slopes, device: &Device) {
    let trained = parameter.filter(|parameter| parameter.is_trained);
    if let (Some(parameter), Some(slope)) = (trained, slope) {
        let shape = [slope.len()];
        let slope = Tensor::from_data(TensorData::new(slope, shape), device);
        slopes.add(parameter.id, slope);
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
        let device = embeddings.device().without_autodiff();
        Host::of(embeddings)?;
        let blocks: Vec<BlockNumbers> =
            blocks.iter().map(BlockNumbers::of).collect::<Option<_>>()?;
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
        let longest = segments.iter().map(|segment| segment.length).max()?;
        assert!(
            longest <= config.max_position_embeddings,
            "a sequence of {longest} slots, but the model has {} positions",
            config.max_position_embeddings
        );
        assert!(rows.is_sorted(), "the rows that are read must ascend");
        let (cos, sin) = half_tables(config, 0..longest);
        let reads_all = rows.len() == size * slots;
        Some(Self {
            blocks,
            shape: BlockShape {
                heads: config.num_attention_heads,
                groups: config.num_key_value_heads,
                head_dim: config.head_dim,
            },
            cos,
            sin,
            sequences: Sequences::new(size * slots, segments, is_causal),
            read: (!reads_all).then(|| rows.to_vec()),
            dropout,
            device,
            recompute: Recompute::Block,
            steps: Vec::new(),
        })
    }

    /// Whether a block has a trained parameter.
    pub(crate) fn is_trained(&self) -> bool {
        let of_block = |block: &BlockNumbers| {
            let mut linears = block.linears.iter().flat_map(LinearNumbers::parameters);
            block.norms.iter().any(|norm| norm.weight.is_trained)
                || linears.any(|numbers| numbers.is_trained)
        };
        self.blocks.iter().any(of_block)
    }

    /// The states of the rows that are read, `[N, D]`, keeping nothing.
    pub(crate) fn run(&self, embeddings: Tensor<3>) -> Tensor<2> {
        let mut x = self.input(embeddings);
        for number in 0..self.blocks.len() {
            x = self.with_block(number, |block| block.forward(&x).0);
        }
        self.output(x)
    }

    /// The same; keys and values of all rows go into `cache`, which holds none yet.
    pub(crate) fn fill(&self, embeddings: Tensor<3>, cache: &mut KvCache) -> Tensor<2> {
        let [rows, slots, _] = embeddings.dims();
        let shape = [rows, slots, self.shape.groups, self.shape.head_dim];
        let mut x = self.input(embeddings);
        for (number, cache) in cache.layers.iter_mut().enumerate() {
            let (y, kept) = self.with_block(number, |block| block.forward(&x));
            let [keys, values] = kept.keys_and_values().map(|numbers| {
                let data = TensorData::new(numbers.into_vec(), shape);
                Tensor::<4>::from_data(data, &self.device).swap_dims(1, 2)
            });
            cache.append(keys, values);
            x = y;
        }
        self.output(x)
    }

    /// The same, keeping what the way back needs.
    pub(crate) fn record(
        mut self,
        embeddings: Tensor<3>,
        recompute: Recompute,
    ) -> (Tensor<2>, Self) {
        self.recompute = recompute;
        let mut x = self.input(embeddings);
        for number in 0..self.blocks.len() {
            let (y, kept) = self.with_block(number, |block| block.forward(&x));
            // The last one's way back begins at once.
            let is_last = number + 1 == self.blocks.len();
            let kept = (is_last || recompute == Recompute::None).then_some(kept);
            self.steps.push(Step { input: x, kept });
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
        for number in (0..self.blocks.len()).rev() {
            let Step { input, kept } = self.steps.pop().expect("one step a block");
            let wants_x = number > 0 || wants_input;
            let (at_input, gradients) = self.with_block(number, |block| {
                let kept = kept.unwrap_or_else(|| block.again(&input));
                block.backward(&input, kept, slope, wants_x)
            });
            self.add(number, gradients, slopes);
            slope = at_input?;
        }
        let width = slope.len() / self.sequences.rows();
        let data = TensorData::new(slope.into_vec(), [self.sequences.rows(), width]);
        // As one row: the caller's shape is that of its embeddings.
        Some(Tensor::<2>::from_data(data, &self.device).unsqueeze())
    }

    fn add(&self, number: usize, gradients: BlockGradients, slopes: &mut Slopes) {
        let block = &self.blocks[number];
        let norms = [gradients.input_norm, gradients.post_norm];
        for (norm, slope) in block.norms.iter().zip(norms) {
            add(Some(&norm.weight), slope, slopes, &self.device);
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
        let masks: Vec<Option<Vec<f32>>> = numbers
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
        let width = x.len() / rows;
        Tensor::from_data(TensorData::new(x.into_vec(), [rows, width]), &self.device)
    }
}
