//! The audio trunk of ImageBind (Girdhar et al., 2023): a vision transformer over a filter bank of two seconds.
//!
//! After `imagebind_model.py` of facebookresearch/ImageBind. Letters in shapes: B clips, M mel bands, F frames,
//! N = 1 + patches, D width, E size of the joint embedding.

use std::path::Path;

use burn::module::{Module, Param};
use burn::nn::conv::Conv2d;
use burn::nn::{LayerNorm, Linear};
use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use limbic_weights::{Checkpoint, WeightsError};

use super::AudioInput;
use super::fbank::FilterBank;
use super::imagebind_block::Block;
use super::imagebind_config::ImageBindConfig;
use crate::{EncoderError, HiddenStates, Keep};

pub(crate) const KIND: &str = "imagebind";

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
            crate::folder::parse(&described, crate::folder::read(&described)?)?
        } else {
            ImageBindConfig::default()
        };
        if let Some(problem) = config.problem() {
            return Err(crate::folder::refuse(&described, problem));
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
    pub(crate) stem: Stem,
    pub(crate) cls_token: Param<Tensor<3>>,
    pub(crate) pos_embed: Param<Tensor<3>>,
    pub(crate) blocks: Vec<Block>,
    pub(crate) head: Head,
    pub(crate) log_logit_scale: Param<Tensor<1>>,
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
pub(crate) struct Stem {
    pub(crate) proj: Conv2d,
    pub(crate) norm_layer: LayerNorm,
}

impl Stem {
    fn forward(&self, features: Tensor<3>) -> Tensor<3> {
        let x = self.proj.forward(features.unsqueeze_dim::<4>(1));
        self.norm_layer
            .forward(x.flatten::<3>(2, 3).swap_dims(1, 2))
    }
}

#[derive(Module, Debug)]
pub(crate) struct Head {
    pub(crate) norm: LayerNorm,
    pub(crate) proj: Linear,
}

impl Head {
    /// Of the class token.
    fn forward(&self, x: Tensor<3>) -> Tensor<2> {
        let class = x.narrow(1, 0, 1).squeeze_dim::<2>(1);
        self.proj.forward(self.norm.forward(class))
    }
}
