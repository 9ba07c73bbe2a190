//! The transformer of wav2vec 2.0, HuBERT and WavLM. Base models normalise after each part, large ones before
//! ("stable layer norm").
//!
//! Letters in shapes: B batch, T time steps, D width, H heads.

use burn::module::Module;
use burn::nn::{LayerNorm, Linear};
use burn::tensor::{Device, Tensor};

use super::attention::{Activation, Attention};
use super::positional_conv::PositionalConv;
use super::wav2vec2_config::{Family, Wav2Vec2Config};
use super::wavlm::{Buckets, GatedAttention};
use crate::transformer::{layer_norm, linear};
use crate::{HiddenStates, Keep};

/// Positional convolution, layers, and a norm before (base) or after them (large).
#[derive(Module, Debug)]
pub(crate) struct SpeechEncoder {
    pos_conv_embed: PositionalConv,
    layer_norm: LayerNorm,
    layers: Vec<SpeechLayer>,
    stable: bool,
    #[module(skip)]
    buckets: Buckets,
}

impl SpeechEncoder {
    pub(crate) fn new(config: &Wav2Vec2Config, device: &Device) -> Self {
        Self {
            pos_conv_embed: PositionalConv::new(
                config.hidden_size,
                config.num_conv_pos_embeddings,
                config.num_conv_pos_embedding_groups,
                config.feat_extract_activation,
                device,
            ),
            layer_norm: layer_norm(config.hidden_size, config.layer_norm_eps, device),
            layers: (0..config.num_hidden_layers)
                .map(|index| SpeechLayer::new(config, index, device))
                .collect(),
            stable: config.do_stable_layer_norm,
            buckets: config.buckets(),
        }
    }

    /// The hidden states are listed as transformers 5 lists them: what enters the first layer, and what leaves each;
    /// the norm after the last layer of a large model shows in `last_hidden_state` alone. (Transformers 4 put it into
    /// the last of the list, too.)
    ///
    /// # Shapes
    /// x `[B, T, D]`; heard `[B, T]`, 1 where a time step is no padding and 0 where it is
    pub(crate) fn forward(
        &self,
        x: Tensor<3>,
        heard: Option<Tensor<2>>,
        keep: Keep,
    ) -> HiddenStates {
        let length = x.dims()[1];
        let (x, mask) = match heard {
            None => (x, None),
            Some(heard) => {
                let silenced = x * heard.clone().unsqueeze_dim::<3>(2);
                (silenced, Some(hide(heard)))
            }
        };
        let x = x.clone() + self.pos_conv_embed.forward(x);
        let mut x = if self.stable {
            x
        } else {
            self.layer_norm.forward(x)
        };
        let positions = self
            .layers
            .first()
            .and_then(|layer| layer.positions(length, self.buckets));
        let mut hidden = Vec::new();
        keep.push(&mut hidden, &x);
        for layer in &self.layers {
            x = layer.forward(x, mask.clone(), positions.clone());
            keep.push(&mut hidden, &x);
        }
        HiddenStates {
            hidden,
            last_hidden_state: if self.stable {
                self.layer_norm.forward(x)
            } else {
                x
            },
            pooled: None,
        }
    }
}

/// Minus infinity on the scores of padding.
///
/// # Shapes
/// `[B, T]` to `[B, 1, 1, T]`
fn hide(heard: Tensor<2>) -> Tensor<4> {
    let [batch, length] = heard.dims();
    let padding = heard.equal_elem(0.0);
    Tensor::<2>::zeros([batch, length], &padding.device())
        .mask_fill(padding, f32::NEG_INFINITY)
        .reshape([batch, 1, 1, length])
}

#[derive(Module, Debug)]
struct SpeechLayer {
    attention: SpeechAttention,
    layer_norm: LayerNorm,
    feed_forward: FeedForward,
    final_layer_norm: LayerNorm,
    stable: bool,
}

#[derive(Module, Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "one a layer: a box would save nothing"
)]
enum SpeechAttention {
    Plain(Attention),
    Gated(GatedAttention),
}

impl SpeechLayer {
    fn new(config: &Wav2Vec2Config, index: usize, device: &Device) -> Self {
        let (dim, heads) = (config.hidden_size, config.num_attention_heads);
        let norm = || layer_norm(dim, config.layer_norm_eps, device);
        Self {
            attention: match config.model_type {
                Family::Wav2Vec2 | Family::Hubert => {
                    SpeechAttention::Plain(Attention::new(dim, heads, true, device))
                }
                Family::WavLM => {
                    let buckets = (index == 0).then(|| config.buckets());
                    SpeechAttention::Gated(GatedAttention::new(dim, heads, buckets, device))
                }
            },
            layer_norm: norm(),
            feed_forward: FeedForward {
                intermediate_dense: linear(dim, config.intermediate_size, device),
                output_dense: linear(config.intermediate_size, dim, device),
                activation: config.hidden_act,
            },
            final_layer_norm: norm(),
            stable: config.do_stable_layer_norm,
        }
    }

    fn positions(&self, length: usize, buckets: Buckets) -> Option<Tensor<4>> {
        match &self.attention {
            SpeechAttention::Plain(_) => None,
            SpeechAttention::Gated(attention) => attention.positions(length, buckets),
        }
    }

    fn forward(
        &self,
        x: Tensor<3>,
        mask: Option<Tensor<4>>,
        positions: Option<Tensor<4>>,
    ) -> Tensor<3> {
        let attend = |x| match &self.attention {
            SpeechAttention::Plain(attention) => attention.forward(x, mask),
            SpeechAttention::Gated(attention) => {
                let positions = positions.expect("the first layer has the biases of all");
                attention.forward(x, mask, positions)
            }
        };
        if self.stable {
            let x = x.clone() + attend(self.layer_norm.forward(x));
            x.clone() + self.feed_forward.forward(self.final_layer_norm.forward(x))
        } else {
            let x = self.layer_norm.forward(x.clone() + attend(x));
            self.final_layer_norm
                .forward(x.clone() + self.feed_forward.forward(x))
        }
    }
}

#[derive(Module, Debug)]
struct FeedForward {
    intermediate_dense: Linear,
    output_dense: Linear,
    #[module(skip)]
    activation: Activation,
}

impl FeedForward {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let x = self.activation.apply(self.intermediate_dense.forward(x));
        self.output_dense.forward(x)
    }
}
