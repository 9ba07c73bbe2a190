//! `config.json` of wav2vec 2.0, HuBERT and WavLM: one shape of model, three kinds of checkpoint.

use burn::tensor::Device;
use serde::Deserialize;

use super::attention::Activation;
use super::conv_stem::{ConvStemConfig, StemNormKind};
use super::speech_layer::SpeechEncoder;
use super::wav2vec2::{FeatureProjection, Wav2Vec2Module};
use super::wavlm::Buckets;

/// Which of the three it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Family {
    Wav2Vec2,
    Hubert,
    WavLM,
}

impl Family {
    /// The prefix that a model with a head puts before the names of its body; also the `model_type`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Wav2Vec2 => "wav2vec2",
            Self::Hubert => "hubert",
            Self::WavLM => "wavlm",
        }
    }
}

/// The keys that shape the model, with transformers' defaults: those of the base models.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Wav2Vec2Config {
    pub(crate) model_type: Family,
    pub(crate) hidden_size: usize,
    pub(crate) num_hidden_layers: usize,
    pub(crate) num_attention_heads: usize,
    pub(crate) intermediate_size: usize,
    pub(crate) hidden_act: Activation,
    pub(crate) layer_norm_eps: f64,
    pub(crate) feat_extract_norm: StemNormKind,
    pub(crate) feat_extract_activation: Activation,
    pub(crate) feat_proj_layer_norm: bool,
    pub(crate) conv_dim: Vec<usize>,
    pub(crate) conv_kernel: Vec<usize>,
    pub(crate) conv_stride: Vec<usize>,
    pub(crate) conv_bias: bool,
    pub(crate) num_conv_pos_embeddings: usize,
    pub(crate) num_conv_pos_embedding_groups: usize,
    pub(crate) conv_pos_batch_norm: bool,
    pub(crate) do_stable_layer_norm: bool,
    pub(crate) add_adapter: bool,
    pub(crate) adapter_attn_dim: Option<usize>,
    pub(crate) num_buckets: usize,
    pub(crate) max_bucket_distance: usize,
}

impl Default for Wav2Vec2Config {
    fn default() -> Self {
        Self {
            model_type: Family::Wav2Vec2,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: Activation::Gelu,
            layer_norm_eps: 1e-5,
            feat_extract_norm: StemNormKind::Group,
            feat_extract_activation: Activation::Gelu,
            feat_proj_layer_norm: true,
            conv_dim: vec![512; 7],
            conv_kernel: vec![10, 3, 3, 3, 3, 2, 2],
            conv_stride: vec![5, 2, 2, 2, 2, 2, 2],
            conv_bias: false,
            num_conv_pos_embeddings: 128,
            num_conv_pos_embedding_groups: 16,
            conv_pos_batch_norm: false,
            do_stable_layer_norm: false,
            add_adapter: false,
            adapter_attn_dim: None,
            num_buckets: 320,
            max_bucket_distance: 800,
        }
    }
}

impl Wav2Vec2Config {
    /// What stands against building it; `None` if nothing does.
    pub(crate) fn problem(&self) -> Option<String> {
        let layers = self.conv_dim.len();
        let divides = |part: usize| part > 0 && self.hidden_size.is_multiple_of(part);
        let sizes = [
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_conv_pos_embeddings", self.num_conv_pos_embeddings),
        ];
        let positive = |sizes: &[usize]| sizes.iter().all(|size| *size > 0);
        if self.conv_pos_batch_norm {
            Some("`conv_pos_batch_norm` is true, which is not supported; wanted a weight-normed positional convolution".into())
        } else if self.add_adapter {
            Some("`add_adapter` is true, which is not supported; wanted a model without an adapter after the encoder".into())
        } else if let Some(dim) = self.adapter_attn_dim {
            Some(format!(
                "`adapter_attn_dim` is {dim}, which is not supported; wanted a model without adapters in its layers"
            ))
        } else if let Some((key, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            Some(format!("`{key}` is 0, wanted at least 1"))
        } else if layers == 0
            || self.conv_kernel.len() != layers
            || self.conv_stride.len() != layers
        {
            Some(format!(
                "`conv_dim`, `conv_kernel` and `conv_stride` have {layers}, {} and {} entries, wanted one of each for every layer",
                self.conv_kernel.len(),
                self.conv_stride.len()
            ))
        } else if !positive(&self.conv_dim)
            || !positive(&self.conv_kernel)
            || !positive(&self.conv_stride)
        {
            Some(
                "an entry of `conv_dim`, `conv_kernel` or `conv_stride` is 0, wanted at least 1"
                    .into(),
            )
        } else if !divides(self.num_attention_heads) {
            Some(format!(
                "`num_attention_heads` is {}, wanted a divisor of `hidden_size` {}",
                self.num_attention_heads, self.hidden_size
            ))
        } else if !divides(self.num_conv_pos_embedding_groups) {
            Some(format!(
                "`num_conv_pos_embedding_groups` is {}, wanted a divisor of `hidden_size` {}",
                self.num_conv_pos_embedding_groups, self.hidden_size
            ))
        } else if self.num_buckets < 4 || self.max_bucket_distance <= self.num_buckets / 4 {
            Some(format!(
                "`num_buckets` is {} and `max_bucket_distance` {}, wanted at least 4, and more than a quarter of the first",
                self.num_buckets, self.max_bucket_distance
            ))
        } else {
            None
        }
    }

    /// Time steps that the stem makes of so many samples; 0 where there are too few for one.
    pub(crate) fn time_steps(&self, samples: usize) -> usize {
        self.conv_kernel
            .iter()
            .zip(&self.conv_stride)
            .fold(samples, |length, (kernel, stride)| {
                length
                    .checked_sub(*kernel)
                    .map_or(0, |rest| rest / stride + 1)
            })
    }

    /// The fewest samples that make a time step.
    pub(crate) fn fewest_samples(&self) -> usize {
        self.conv_kernel
            .iter()
            .zip(&self.conv_stride)
            .rev()
            .fold(1, |length, (kernel, stride)| (length - 1) * stride + kernel)
    }

    pub(crate) fn buckets(&self) -> Buckets {
        Buckets {
            count: self.num_buckets,
            max_distance: self.max_bucket_distance,
        }
    }

    /// The module, its parameters not yet allocated.
    pub(crate) fn init(&self, device: &Device) -> Wav2Vec2Module {
        let stem = ConvStemConfig {
            channels: &self.conv_dim,
            kernels: &self.conv_kernel,
            strides: &self.conv_stride,
            bias: self.conv_bias,
            norm: self.feat_extract_norm,
            activation: self.feat_extract_activation,
        };
        let features = self.conv_dim[self.conv_dim.len() - 1];
        Wav2Vec2Module {
            feature_extractor: stem.init(device),
            feature_projection: FeatureProjection::new(features, self, device),
            encoder: SpeechEncoder::new(self, device),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_stem_hears_25_ms_and_steps_by_20() {
        let config = Wav2Vec2Config::default();
        assert_eq!(config.fewest_samples(), 400);
        assert_eq!(config.time_steps(399), 0);
        assert_eq!(config.time_steps(400), 1);
        assert_eq!(config.time_steps(16_000), 49);
    }

    #[test]
    fn what_is_not_supported_is_refused_by_its_name() {
        for (json, key) in [
            (
                r#"{"model_type": "hubert", "conv_pos_batch_norm": true}"#,
                "conv_pos_batch_norm",
            ),
            (
                r#"{"model_type": "wav2vec2", "add_adapter": true}"#,
                "add_adapter",
            ),
            (
                r#"{"model_type": "wav2vec2", "adapter_attn_dim": 16}"#,
                "adapter_attn_dim",
            ),
            (
                r#"{"model_type": "wavlm", "num_attention_heads": 7}"#,
                "num_attention_heads",
            ),
        ] {
            let config: Wav2Vec2Config = serde_json::from_str(json).expect("known keys");
            let problem = config.problem().expect("it cannot be built");
            assert!(problem.contains(key), "{problem}");
        }
        assert_eq!(Wav2Vec2Config::default().problem(), None);
    }
}
