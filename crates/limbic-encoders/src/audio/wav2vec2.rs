//! wav2vec 2.0, HuBERT and WavLM from transformers' folders: a stem of convolutions over raw sound, and a transformer.
//!
//! Letters in shapes: B batch, S samples, T time steps, D width.

use std::path::Path;

use burn::module::Module;
use burn::nn::{LayerNorm, Linear};
use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};
use limbic_weights::{Checkpoint, WeightsError};
use serde_json::Value;

use super::AudioInput;
use super::conv_stem::ConvStem;
use super::feature_extractor::FeatureExtractor;
use super::positional_conv::fold_weight_norm;
use super::speech_layer::SpeechEncoder;
use super::wav2vec2_config::Wav2Vec2Config;
use crate::transformer::{layer_norm, linear};
use crate::{EncoderError, HiddenStates, Keep};

/// A loaded model of one of the three kinds.
#[derive(Debug, Clone)]
pub struct Wav2Vec2 {
    pub(crate) config: Wav2Vec2Config,
    extractor: Option<FeatureExtractor>,
    module: Wav2Vec2Module,
    device: Device,
}

impl Wav2Vec2 {
    pub(crate) fn read(path: &Path, config: Value, device: &Device) -> Result<Self, EncoderError> {
        let described = path.join("config.json");
        let config: Wav2Vec2Config = crate::folder::parse(&described, config)?;
        if let Some(problem) = config.problem() {
            return Err(crate::folder::refuse(&described, problem));
        }
        let kind = config.model_type.name();
        let module = load(path, &config, device).map_err(|source| EncoderError::Weights {
            kind,
            path: path.to_path_buf(),
            source,
        })?;
        Ok(Self {
            extractor: crate::folder::read_preprocessor(path)?,
            config,
            module,
            device: device.clone(),
        })
    }

    pub(crate) fn sample_rate(&self) -> u32 {
        self.extractor.unwrap_or_default().sampling_rate
    }

    pub(crate) fn preprocess(
        &self,
        samples: &[f32],
        sample_rate: u32,
    ) -> Result<AudioInput, EncoderError> {
        let extractor = self.extractor.unwrap_or_default();
        let values = extractor.apply(samples, sample_rate)?;
        let length = values.len();
        Ok(AudioInput::Values {
            values: Tensor::from_data(TensorData::new(values, [1, length]), &self.device),
            attention_mask: None,
        })
    }

    /// # Shapes
    /// values `[B, S]`, attention_mask `[B, S]`
    pub(crate) fn forward(
        &self,
        values: Tensor<2>,
        attention_mask: Option<Tensor<2, Int>>,
        keep: Keep,
    ) -> Result<HiddenStates, EncoderError> {
        let [batch, samples] = values.dims();
        let length = self.config.time_steps(samples);
        if length == 0 {
            return Err(EncoderError::TooShort {
                got: samples,
                wanted: self.config.fewest_samples(),
                purpose: "one time step",
            });
        }
        let heard = match attention_mask {
            None => None,
            Some(mask) if mask.dims() == [batch, samples] => Some(self.heard(mask, length)?),
            Some(mask) => {
                return Err(EncoderError::Input {
                    kind: self.config.model_type.name(),
                    problem: format!(
                        "got an `attention_mask` of shape {:?}, wanted that of `input_values`, [{batch}, {samples}]",
                        mask.dims()
                    ),
                });
            }
        };
        Ok(self.module.forward(values, heard, keep))
    }

    /// Which time steps are no padding, `[B, T]`. As in transformers, a row's mask counts through its sum alone: where
    /// sounds are padded at the left, the first time steps are taken nevertheless.
    fn heard(&self, mask: Tensor<2, Int>, length: usize) -> Result<Tensor<2>, EncoderError> {
        let [batch, samples] = mask.dims();
        let mask: Vec<i64> = mask.into_data().iter::<i64>().collect();
        let mut heard = Vec::with_capacity(batch * length);
        for row in mask.chunks(samples) {
            let sounding = row.iter().filter(|value| **value != 0).count();
            let steps = self.config.time_steps(sounding);
            if steps == 0 {
                return Err(EncoderError::TooShort {
                    got: sounding,
                    wanted: self.config.fewest_samples(),
                    purpose: "one time step in each row of `attention_mask`",
                });
            }
            heard.extend((0..length).map(|step| if step < steps { 1.0f32 } else { 0.0 }));
        }
        let heard = TensorData::new(heard, [batch, length]);
        Ok(Tensor::from_data(heard, &self.device))
    }
}

fn load(
    path: &Path,
    config: &Wav2Vec2Config,
    device: &Device,
) -> Result<Wav2Vec2Module, WeightsError> {
    let prefix = format!("{}.", config.model_type.name());
    let checkpoint = Checkpoint::open(path)?.strip_prefix(&prefix)?.ignore(
        |name| name == "masked_spec_embed",
        "stands in for masked time steps in training",
    );
    let checkpoint = checkpoint.ignore(
        of_a_head,
        "belongs to a head, a quantizer or a loss beside the encoder",
    );
    fold_weight_norm(checkpoint, "encoder.pos_conv_embed.conv")?
        .load(config.init(device), Some(FloatDType::F32))
}

/// Whether transformers' models with heads (CTC, pretraining, classification, speaker vectors) put a tensor of this
/// name beside the encoder.
fn of_a_head(name: &str) -> bool {
    const PARTS: [&str; 9] = [
        "lm_head.",
        "quantizer.",
        "project_hid.",
        "project_q.",
        "projector.",
        "classifier.",
        "tdnn.",
        "objective.",
        "feature_extractor.",
    ];
    // The x-vector head's last layer bears the name of the stem.
    let stem = name.starts_with("feature_extractor.conv_layers.");
    name == "layer_weights" || !stem && PARTS.iter().any(|part| name.starts_with(part))
}

/// The parameters, by their names in the checkpoint.
#[derive(Module, Debug)]
pub(crate) struct Wav2Vec2Module {
    pub(crate) feature_extractor: ConvStem,
    pub(crate) feature_projection: FeatureProjection,
    pub(crate) encoder: SpeechEncoder,
}

impl Wav2Vec2Module {
    fn forward(&self, values: Tensor<2>, heard: Option<Tensor<2>>, keep: Keep) -> HiddenStates {
        let features = self.feature_extractor.forward(values);
        let x = self.feature_projection.forward(features);
        self.encoder.forward(x, heard, keep)
    }
}

/// From the stem's channels to the transformer's width.
#[derive(Module, Debug)]
pub(crate) struct FeatureProjection {
    layer_norm: Option<LayerNorm>,
    projection: Linear,
}

impl FeatureProjection {
    pub(crate) fn new(features: usize, config: &Wav2Vec2Config, device: &Device) -> Self {
        Self {
            layer_norm: config
                .feat_proj_layer_norm
                .then(|| layer_norm(features, config.layer_norm_eps, device)),
            projection: linear(features, config.hidden_size, device),
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let x = match &self.layer_norm {
            Some(norm) => norm.forward(x),
            None => x,
        };
        self.projection.forward(x)
    }
}
