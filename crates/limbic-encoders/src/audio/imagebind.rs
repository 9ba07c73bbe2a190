//! The audio trunk of ImageBind (Girdhar et al., 2023): a vision transformer over a filter bank of two seconds.
//!
//! After `imagebind_model.py` of facebookresearch/ImageBind. Letters in shapes: B clips, M mel bands, F frames,
//! N = 1 + patches, D width, E size of the joint embedding.

use std::path::Path;

use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Initializer, LayerNorm, Linear, LinearConfig};
use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use limbic_weights::{Checkpoint, WeightsError};
use serde::Deserialize;

use super::fbank::FilterBank;
use super::imagebind_block::Block;
use super::{AudioInput, folder};
use crate::transformer::layer_norm;
use crate::{EncoderError, HiddenStates, Keep};

const KIND: &str = "imagebind";

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
    audio_num_mel_bins: usize,
    audio_target_len: usize,
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
    fn problem(&self) -> Option<String> {
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

/// A loaded trunk with its front end.
#[derive(Debug, Clone)]
pub struct ImageBind {
    pub(crate) config: ImageBindConfig,
    front_end: FilterBank,
    module: ImageBindModule,
    device: Device,
}

impl ImageBind {
    /// Samples of a clip: two seconds.
    pub(crate) const CLIP: usize = 2 * FilterBank::SAMPLE_RATE as usize;

    pub(crate) fn read(path: &Path, device: &Device) -> Result<Self, EncoderError> {
        let described = path.join("config.json");
        let config = if described.is_file() {
            folder::parse(&described, folder::read(&described)?)?
        } else {
            ImageBindConfig::default()
        };
        if let Some(problem) = config.problem() {
            return Err(folder::refuse(&described, problem));
        }
        let module = load(path, &config, device).map_err(|source| EncoderError::Weights {
            kind: KIND,
            path: path.to_path_buf(),
            source,
        })?;
        Ok(Self {
            front_end: FilterBank::new(config.audio_num_mel_bins, config.audio_target_len),
            config,
            module,
            device: device.clone(),
        })
    }

    pub(crate) fn sample_rate(&self) -> u32 {
        FilterBank::SAMPLE_RATE
    }

    /// The filter bank of the first two seconds; a shorter sound is followed by silence.
    pub(crate) fn preprocess(
        &self,
        samples: &[f32],
        sample_rate: u32,
    ) -> Result<AudioInput, EncoderError> {
        let mut clip = samples[..samples.len().min(Self::CLIP)].to_vec();
        if !clip.is_empty() {
            clip.resize(Self::CLIP, 0.0);
        }
        let values = self.front_end.apply(&clip, sample_rate)?;
        let shape = [
            1,
            self.config.audio_num_mel_bins,
            self.config.audio_target_len,
        ];
        let features = Tensor::from_data(TensorData::new(values, shape), &self.device);
        Ok(AudioInput::Features(features))
    }

    /// # Shapes
    /// `[B, M, F]`
    pub(crate) fn forward(
        &self,
        features: Tensor<3>,
        keep: Keep,
    ) -> Result<HiddenStates, EncoderError> {
        let [_, bands, frames] = features.dims();
        let wanted = [self.config.audio_num_mel_bins, self.config.audio_target_len];
        if [bands, frames] != wanted {
            return Err(EncoderError::Input {
                kind: KIND,
                problem: format!(
                    "got `input_features` {:?}, wanted [batch, {}, {}]",
                    features.dims(),
                    wanted[0],
                    wanted[1]
                ),
            });
        }
        Ok(self.module.forward(features, keep))
    }
}

fn load(
    path: &Path,
    config: &ImageBindConfig,
    device: &Device,
) -> Result<ImageBindModule, WeightsError> {
    const PARTS: [&str; 4] = [
        "modality_preprocessors.",
        "modality_trunks.",
        "modality_heads.",
        "modality_postprocessors.",
    ];
    let of_another = |name: &str| {
        PARTS
            .iter()
            .filter_map(|part| name.strip_prefix(part))
            .any(|rest| !rest.starts_with("audio."))
    };
    let renamed = [
        ("modality_preprocessors.audio.rgbt_stem.", "stem."),
        ("modality_preprocessors.audio.pos_embedding_helper.", ""),
        ("modality_preprocessors.audio.", ""),
        ("modality_trunks.audio.", ""),
        ("modality_heads.audio.0.", "head.norm."),
        ("modality_heads.audio.2.", "head.proj."),
        ("modality_postprocessors.audio.1.", ""),
    ];
    let ours = |name: &str| {
        let found = renamed
            .iter()
            .find_map(|(theirs, ours)| Some(format!("{ours}{}", name.strip_prefix(theirs)?)));
        found.unwrap_or_else(|| name.to_string())
    };
    let mut checkpoint = Checkpoint::open(path)?
        .ignore(of_another, "belongs to another modality than audio")
        .rename(ours)?;
    // A single number in the file; parameters have at least one dimension.
    let mut scale = checkpoint.take("log_logit_scale")?;
    scale.shape = vec![scale.values.len()];
    checkpoint.put("log_logit_scale", scale);
    checkpoint.load(config.init(device), Some(FloatDType::F32))
}

/// The parameters, by their names in the checkpoint below `modality_*.audio`.
#[derive(Module, Debug)]
pub(crate) struct ImageBindModule {
    stem: Stem,
    cls_token: Param<Tensor<3>>,
    pos_embed: Param<Tensor<3>>,
    blocks: Vec<Block>,
    head: Head,
    log_logit_scale: Param<Tensor<1>>,
}

/// The published code lets no scale exceed this.
const LARGEST_SCALE: f32 = 100.0;

impl ImageBindModule {
    /// `pooled` is the joint embedding, of length `exp(log_logit_scale)`; the hidden states are the trunk's alone.
    ///
    /// # Shapes
    /// `[B, M, F]` to `[B, N, D]` and `[B, E]`
    fn forward(&self, features: Tensor<3>, keep: Keep) -> HiddenStates {
        let patches = self.stem.forward(features);
        let [batch, _, dim] = patches.dims();
        let class = self.cls_token.val().expand([batch, 1, dim]);
        let mut x = Tensor::cat(vec![class, patches], 1) + self.pos_embed.val();
        let mut hidden = Vec::new();
        keep.push(&mut hidden, &x);
        for block in &self.blocks {
            x = block.forward(x);
            keep.push(&mut hidden, &x);
        }
        let embedding = self.head.forward(x.clone());
        // `torch.nn.functional.normalize` divides by no less than this.
        let length = embedding
            .clone()
            .square()
            .sum_dim(1)
            .sqrt()
            .clamp_min(1e-12);
        let scale = self.log_logit_scale.val().exp().clamp_max(LARGEST_SCALE);
        HiddenStates {
            hidden,
            last_hidden_state: x,
            pooled: Some(embedding / length * scale.unsqueeze::<2>()),
        }
    }
}

#[derive(Module, Debug)]
struct Stem {
    proj: Conv2d,
    norm_layer: LayerNorm,
}

impl Stem {
    fn forward(&self, features: Tensor<3>) -> Tensor<3> {
        let x = self.proj.forward(features.unsqueeze_dim::<4>(1));
        self.norm_layer
            .forward(x.flatten::<3>(2, 3).swap_dims(1, 2))
    }
}

#[derive(Module, Debug)]
struct Head {
    norm: LayerNorm,
    proj: Linear,
}

impl Head {
    /// Of the class token.
    fn forward(&self, x: Tensor<3>) -> Tensor<2> {
        let class = x.narrow(1, 0, 1).squeeze_dim::<2>(1);
        self.proj.forward(self.norm.forward(class))
    }
}
