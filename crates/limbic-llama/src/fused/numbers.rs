//! A block's parameters where they lie in memory, and the way of their slopes back to them.

use burn::module::{Param, ParamId};
use burn::tensor::{DType, Device, Tensor, TensorData};
use limbic_kernels::{Adapter, BlockGradients, Buffer, Linear, LinearGradients, Norm};

use super::{Host, HostMatrix};
use crate::lora::with_dtype;
use crate::norm::RmsNorm;
use crate::tape::Slopes;
use crate::{Block, Dropout, LoraLinear};

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

/// Which rows a layer sees.
pub(super) enum Rows<'a> {
    /// The first so many.
    All(usize),
    /// These, ascending.
    Some(&'a [usize]),
}

/// A block's parameters.
#[derive(Debug)]
pub(super) struct BlockNumbers {
    /// Before attention, before the SwiGLU layer.
    pub(super) norms: [NormNumbers; 2],
    pub(super) linears: [LinearNumbers; 7],
}

#[derive(Debug)]
pub(super) struct NormNumbers {
    weight: Numbers,
    epsilon: f32,
}

#[derive(Debug)]
pub(super) struct LinearNumbers {
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

    pub(super) fn kernel(&self) -> Norm<'_> {
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

    pub(super) fn kernel<'a>(&'a self, mask: Option<&'a [f32]>) -> Linear<'a> {
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
    pub(super) fn mask(&self, dropout: Dropout, rows: &Rows) -> Option<Buffer> {
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

impl BlockNumbers {
    pub(super) fn of(block: &Block) -> Option<Self> {
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

    /// Adds the slopes at what is trained.
    pub(super) fn add(&self, gradients: BlockGradients, slopes: &mut Slopes, device: &Device) {
        let norms = [gradients.input_norm, gradients.post_norm];
        for (norm, slope) in self.norms.iter().zip(norms) {
            if norm.weight.is_trained {
                add(norm.weight.id, slope, slopes, device);
            }
        }
        for (linear, of_linear) in self.linears.iter().zip(gradients.linears) {
            linear.add(of_linear, slopes, device);
        }
    }
}

fn add(id: ParamId, slope: Option<Vec<f32>>, slopes: &mut Slopes, device: &Device) {
    if let Some(slope) = slope {
        let shape = [slope.len()];
        slopes.add(id, Tensor::from_data(TensorData::new(slope, shape), device));
    }
}
