//! The convolutions that turn a waveform into a feature every 20 ms (wav2vec 2.0, section 2).
//!
//! Letters in shapes: B batch, S samples, T time steps, C channels.

use burn::module::{Module, Param};
use burn::nn::conv::{Conv1d, Conv1dConfig};
use burn::nn::{Initializer, LayerNorm};
use burn::tensor::{Device, Tensor};
use serde::Deserialize;

use super::attention::Activation;
use crate::transformer::layer_norm;

/// PyTorch's default in `GroupNorm` and `LayerNorm`; the configs' `layer_norm_eps` does not reach the stem.
const EPSILON: f64 = 1e-5;

/// How the stem is normalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StemNormKind {
    /// The first layer alone, each channel over time (base models).
    Group,
    /// Every layer, each time step over channels (large models).
    Layer,
}

/// Sizes of the stem, one entry a layer.
#[derive(Debug, Clone)]
pub(crate) struct ConvStemConfig<'a> {
    pub(crate) channels: &'a [usize],
    pub(crate) kernels: &'a [usize],
    pub(crate) strides: &'a [usize],
    pub(crate) bias: bool,
    pub(crate) norm: StemNormKind,
    pub(crate) activation: Activation,
}

impl ConvStemConfig<'_> {
    pub(crate) fn init(&self, device: &Device) -> ConvStem {
        let conv_layers = (0..self.channels.len()).map(|i| {
            let input = if i == 0 { 1 } else { self.channels[i - 1] };
            let output = self.channels[i];
            ConvLayer {
                conv: Conv1dConfig::new(input, output, self.kernels[i])
                    .with_stride(self.strides[i])
                    .with_bias(self.bias)
                    .with_initializer(Initializer::Zeros)
                    .init(device),
                layer_norm: match self.norm {
                    StemNormKind::Group if i > 0 => None,
                    StemNormKind::Group => Some(StemNorm::Time(TimeNorm::new(output, device))),
                    StemNormKind::Layer => {
                        Some(StemNorm::Channels(layer_norm(output, EPSILON, device)))
                    }
                },
                activation: self.activation,
            }
        });
        ConvStem {
            conv_layers: conv_layers.collect(),
        }
    }
}

/// The stem.
#[derive(Module, Debug)]
pub(crate) struct ConvStem {
    conv_layers: Vec<ConvLayer>,
}

impl ConvStem {
    /// # Shapes
    /// `[B, S]` to `[B, T, C]`
    pub(crate) fn forward(&self, values: Tensor<2>) -> Tensor<3> {
        let x = values.unsqueeze_dim::<3>(1);
        let x = self.conv_layers.iter().fold(x, |x, layer| layer.forward(x));
        x.swap_dims(1, 2)
    }
}

#[derive(Module, Debug)]
struct ConvLayer {
    conv: Conv1d,
    layer_norm: Option<StemNorm>,
    #[module(skip)]
    activation: Activation,
}

impl ConvLayer {
    /// # Shapes
    /// `[B, C, T]` to `[B, C', T']`
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let x = self.conv.forward(x);
        let x = match &self.layer_norm {
            None => x,
            Some(StemNorm::Time(norm)) => norm.forward(x),
            Some(StemNorm::Channels(norm)) => norm.forward(x.swap_dims(1, 2)).swap_dims(1, 2),
        };
        self.activation.apply(x)
    }
}

#[derive(Module, Debug)]
enum StemNorm {
    Time(TimeNorm),
    Channels(LayerNorm),
}

/// A group norm with as many groups as channels: each channel over time.
#[derive(Module, Debug)]
struct TimeNorm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
}

impl TimeNorm {
    fn new(channels: usize, device: &Device) -> Self {
        Self {
            weight: Initializer::Ones.init([channels], device),
            bias: Initializer::Zeros.init([channels], device),
        }
    }

    /// # Shapes
    /// `[B, C, T]` to `[B, C, T]`
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let per_channel = |value: Tensor<1>| value.reshape([1, -1, 1]);
        let centred = x.clone() - mean_over_time(x);
        let variance = mean_over_time(centred.clone().square());
        let scale = variance.add_scalar(EPSILON).sqrt().recip() * per_channel(self.weight.val());
        centred * scale + per_channel(self.bias.val())
    }
}

/// Steps that are summed in a row: a running sum over all the steps of a sound loses digits.
const STRETCH: usize = 64;

/// # Shapes
/// `[B, C, T]` to `[B, C, 1]`
fn mean_over_time(x: Tensor<3>) -> Tensor<3> {
    let [batch, channels, time] = x.dims();
    let whole = time / STRETCH * STRETCH;
    if whole == 0 {
        return x.mean_dim(2);
    }
    let stretches = [batch, channels, time / STRETCH, STRETCH];
    let sums = x.clone().narrow(2, 0, whole).reshape(stretches);
    let mut sum = sums.sum_dim(3).sum_dim(2).reshape([batch, channels, 1]);
    if whole < time {
        sum = sum + x.narrow(2, whole, time - whole).sum_dim(2);
    }
    sum / time as f64
}
