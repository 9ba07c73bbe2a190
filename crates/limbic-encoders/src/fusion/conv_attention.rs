//! The Conv-Attention fusion of Emotion-LLaMA v2 (`convpro_model.py`, `ConvProAttention`, in the authors' public
//! snapshot): sources of one length in time, each through a network of its own, are summed with weights that see all of
//! them, and a convolutional branch over the same hidden vectors is added. The weights pass no softmax, as published.
//! Dropout is left out.
//!
//! Letters in shapes: B batch, K tokens, S sources, H hidden width.

use burn::module::Module;
use burn::nn::conv::{Conv1d, Conv1dConfig};
use burn::nn::{Initializer, Linear, PaddingConfig1d};
use burn::tensor::activation::{relu, silu};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::Padded;
use crate::pooling::segment_means;
use crate::transformer::linear;

/// Weighted sum and convolutions. Defaults are those of the published model, which reads 64 features of Whisper, a
/// picture's class token and 64 features of frames, in this order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvAttentionConfig {
    /// Tokens the language model is given; each source is cut into as many equal parts, whose means are fused. A source
    /// of one feature gives that to all of them.
    #[serde(default = "tokens")]
    pub tokens: usize,
    /// Width of the first layer of each network.
    #[serde(default = "inner")]
    pub inner: usize,
    /// H, the width of the second.
    #[serde(default = "hidden")]
    pub hidden: usize,
    /// Width before the language model's.
    #[serde(default = "output")]
    pub output: usize,
    /// Convolutions over three tokens.
    #[serde(default = "blocks")]
    pub blocks: usize,
    /// Whether each source is first standardised by statistics measured on the training clips.
    #[serde(default)]
    pub standardise: bool,
}

fn tokens() -> usize {
    64
}

fn inner() -> usize {
    512
}

fn hidden() -> usize {
    128
}

fn output() -> usize {
    256
}

fn blocks() -> usize {
    4
}

impl ConvAttentionConfig {
    pub(super) fn problem(&self) -> Option<(&'static str, String)> {
        let keys = [
            ("inner", self.inner),
            ("hidden", self.hidden),
            ("output", self.output),
        ];
        let (key, _) = keys.into_iter().find(|(_, value)| *value == 0)?;
        Some((key, "got 0, wanted at least 1".into()))
    }

    pub(super) fn init(&self, dims: &[usize], output_dim: usize, device: &Device) -> ConvAttention {
        let all = dims.len() * self.hidden;
        let network = |input: usize| Network {
            fc1: linear(input, self.inner, device),
            fc2: linear(self.inner, self.hidden, device),
        };
        let conv = |input, kernel: usize| {
            let side = kernel / 2;
            Conv1dConfig::new(input, self.hidden, kernel)
                .with_padding(PaddingConfig1d::Explicit(side, side))
                .with_initializer(Initializer::Zeros)
                .init(device)
        };
        ConvAttention {
            feats_prep: dims.iter().map(|dim| network(*dim)).collect(),
            attention_mlp: network(all),
            fc_att: linear(self.hidden, dims.len(), device),
            conv_entry: conv(all, 1),
            conv_blocks: (0..self.blocks).map(|_| conv(self.hidden, 3)).collect(),
            fc_final: linear(self.hidden, self.output, device),
            proj: linear(self.output, output_dim, device),
            tokens: self.tokens,
        }
    }
}

/// A built Conv-Attention fusion.
#[derive(Module, Debug)]
pub(super) struct ConvAttention {
    feats_prep: Vec<Network>,
    attention_mlp: Network,
    fc_att: Linear,
    conv_entry: Conv1d,
    conv_blocks: Vec<Conv1d>,
    fc_final: Linear,
    /// `llama_proj_fusion` of the published model.
    proj: Linear,
    tokens: usize,
}

#[derive(Module, Debug)]
struct Network {
    fc1: Linear,
    fc2: Linear,
}

impl Network {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        relu(self.fc2.forward(relu(self.fc1.forward(x))))
    }
}

impl ConvAttention {
    /// # Shapes
    /// `[B, N, Din]` a source; result `[B, K, Dout]`
    pub(super) fn forward(&self, sources: &[Padded]) -> Tensor<3> {
        // [B, K, H] a source
        let hidden: Vec<Tensor<3>> = self
            .feats_prep
            .iter()
            .zip(sources)
            .map(|(network, source)| {
                let aligned = segment_means(source.values.clone(), &source.lengths, self.tokens);
                network.forward(aligned)
            })
            .collect();
        let all = Tensor::cat(hidden.clone(), 2);
        // [B, K, S]
        let weights = self.fc_att.forward(self.attention_mlp.forward(all.clone()));
        let weighted = hidden
            .into_iter()
            .enumerate()
            .map(|(source, hidden)| hidden * weights.clone().narrow(2, source, 1))
            .reduce(|a, b| a + b)
            .expect("a fusion of at least two sources");
        let entry = self.conv_entry.forward(all.swap_dims(1, 2));
        let convolved = self
            .conv_blocks
            .iter()
            .fold(entry, |x, conv| silu(conv.forward(x.clone())) + x);
        let fused = weighted + convolved.swap_dims(1, 2);
        self.proj.forward(self.fc_final.forward(fused))
    }
}
