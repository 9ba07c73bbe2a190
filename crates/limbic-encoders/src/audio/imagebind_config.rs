//! Sizes of ImageBind's audio trunk.

use burn::nn::conv::Conv2dConfig;
use burn::nn::{Initializer, LinearConfig};
use burn::tensor::Device;
use serde::Deserialize;

use super::imagebind::{Head, ImageBindModule, KIND, Stem};
use super::imagebind_block::Block;
use crate::transformer::layer_norm;

/// Sizes, named as the arguments of the published `ImageBindModel`. The defaults are those of `imagebind_huge`; a
/// folder may say otherwise in a `config.json`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ImageBindConfig {
    /// Read by whoever asks which model a folder holds.
    #[allow(dead_code, reason = "the kind is known when this is read")]
    model_type: String,
    pub(crate) audio_embed_dim: usize,
    pub(crate) audio_num_blocks: usize,
    audio_num_heads: usize,
    audio_kernel_size: usize,
    audio_stride: usize,
    pub(crate) audio_num_mel_bins: usize,
    pub(crate) audio_target_len: usize,
    pub(crate) out_embed_dim: usize,
}

impl Default for ImageBindConfig {
    fn default() -> Self {
        Self {
            model_type: KIND.into(),
            audio_embed_dim: 768,
            audio_num_blocks: 12,
            audio_num_heads: 12,
            audio_kernel_size: 16,
            audio_stride: 10,
            audio_num_mel_bins: 128,
            audio_target_len: 204,
            out_embed_dim: 1024,
        }
    }
}

impl ImageBindConfig {
    /// What stands against building it; `None` if nothing does.
    pub(crate) fn problem(&self) -> Option<String> {
        let kernel = self.audio_kernel_size;
        let sizes = [
            ("audio_embed_dim", self.audio_embed_dim),
            ("audio_kernel_size", kernel),
            ("audio_stride", self.audio_stride),
            ("out_embed_dim", self.out_embed_dim),
        ];
        let heads = self.audio_num_heads;
        if let Some((key, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            Some(format!("`{key}` is 0, wanted at least 1"))
        } else if heads == 0 || !self.audio_embed_dim.is_multiple_of(heads) {
            Some(format!(
                "`audio_num_heads` is {heads}, wanted a divisor of `audio_embed_dim` {}",
                self.audio_embed_dim
            ))
        } else if self.audio_num_mel_bins < kernel || self.audio_target_len < kernel {
            Some(format!(
                "`audio_num_mel_bins` is {} and `audio_target_len` {}, wanted at least `audio_kernel_size` {kernel}",
                self.audio_num_mel_bins, self.audio_target_len
            ))
        } else {
            None
        }
    }

    fn patches(&self) -> usize {
        let along = |size: usize| (size - self.audio_kernel_size) / self.audio_stride + 1;
        along(self.audio_num_mel_bins) * along(self.audio_target_len)
    }

    /// The module, its parameters not yet allocated.
    pub(crate) fn init(&self, device: &Device) -> ImageBindModule {
        let dim = self.audio_embed_dim;
        let zeros = |positions: usize| Initializer::Zeros.init([1, positions, dim], device);
        let kernel = [self.audio_kernel_size; 2];
        ImageBindModule {
            stem: Stem {
                proj: Conv2dConfig::new([1, dim], kernel)
                    .with_stride([self.audio_stride; 2])
                    .with_bias(false)
                    .with_initializer(Initializer::Zeros)
                    .init(device),
                norm_layer: layer_norm(dim, 1e-5, device),
            },
            cls_token: zeros(1),
            pos_embed: zeros(1 + self.patches()),
            blocks: (0..self.audio_num_blocks)
                .map(|_| Block::new(dim, self.audio_num_heads, device))
                .collect(),
            head: Head {
                norm: layer_norm(dim, 1e-6, device),
                proj: LinearConfig::new(dim, self.out_embed_dim)
                    .with_bias(false)
                    .with_initializer(Initializer::Zeros)
                    .init(device),
            },
            log_logit_scale: Initializer::Zeros.init([1], device),
        }
    }
}
