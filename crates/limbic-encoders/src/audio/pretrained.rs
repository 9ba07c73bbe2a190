//! A pretrained audio encoder as part of a recipe: which hidden states become features, and over which stretches of
//! the sound.

use std::path::PathBuf;

use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::hidden_choice::{Choice, Layers, TimePool};
use super::{AudioArchitecture, AudioInput, AudioModel, windows};
use crate::{EncoderError, Features};

const KIND: &str = "pretrained_audio";

/// Published weights, and what is taken from them.
///
/// Sound shorter than the model's fewest samples (25 ms of raw sound), or than `min_seconds`, is followed by silence
/// rather than refused, as the published pipelines do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainedAudioConfig {
    /// Which kind of model it is.
    pub model: AudioArchitecture,
    /// The folder, or for ImageBind the checkpoint.
    pub weights: PathBuf,
    /// Samples per second of the sound (Hz).
    #[serde(default = "sample_rate")]
    pub sample_rate: u32,
    /// Size of each feature; checked against the weights.
    pub dim: usize,
    /// One hidden state: 0 is what enters the first layer, -1 is the model's last output. The default is -1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<i64>,
    /// Several hidden states, combined; either this or `layer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<Layers>,
    /// What becomes of time.
    #[serde(default)]
    pub pool: TimePool,
    /// Length of each window, in seconds; together with `windows`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<f64>,
    /// The sound is cut into so many windows, spread evenly, each encoded by itself and pooled to one feature. They
    /// overlap where the sound is short, and silence follows where it is shorter than one. Raw sound is standardised
    /// over all windows of a clip together, which is what AffectGPT's inference comes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub windows: Option<usize>,
    /// Shorter sounds are filled up with silence, in seconds.
    #[serde(default)]
    pub min_seconds: f64,
}

fn sample_rate() -> u32 {
    16_000
}

impl PretrainedAudioConfig {
    pub(crate) fn init(&self, device: &Device) -> Result<PretrainedAudio, EncoderError> {
        self.check()?;
        let model = AudioModel::read_as(self.model, &self.weights, device)?;
        let refuse = |key, problem| {
            Err(EncoderError::Config {
                kind: KIND,
                key,
                problem,
            })
        };
        let dim = model.pooled_dim().unwrap_or(model.dim());
        if self.dim != dim {
            return refuse(
                "dim",
                format!("got {}, wanted {dim} as in the weights", self.dim),
            );
        }
        let rate = model.sample_rate();
        if self.sample_rate != rate {
            return refuse(
                "sample_rate",
                format!("got {}, wanted {rate} as the model reads", self.sample_rate),
            );
        }
        let choice = Choice::new(self.layer, self.layers, model.layers() + 1).map_err(
            |(key, problem)| EncoderError::Config {
                kind: KIND,
                key,
                problem,
            },
        )?;
        Ok(PretrainedAudio {
            config: self.clone(),
            model,
            choice,
        })
    }

    /// What can be known to be wrong without the weights.
    pub(crate) fn check(&self) -> Result<(), EncoderError> {
        let refuse = |key, problem: String| {
            Err(EncoderError::Config {
                kind: KIND,
                key,
                problem,
            })
        };
        if self.layer.is_some() && self.layers.is_some() {
            return refuse("layers", "got both `layer` and `layers`; remove one".into());
        }
        if !(self.min_seconds >= 0.0 && self.min_seconds.is_finite()) {
            return refuse(
                "min_seconds",
                format!("got {}, wanted a time of at least 0", self.min_seconds),
            );
        }
        match (self.window, self.windows) {
            (None, None) => {}
            (Some(window), Some(count)) => {
                if !(window * f64::from(self.sample_rate) >= 1.0 && window.is_finite()) {
                    return refuse(
                        "window",
                        format!("got {window}, wanted seconds that hold a sample"),
                    );
                }
                if count == 0 {
                    return refuse("windows", "got 0, wanted at least 1".into());
                }
                if self.pool != TimePool::Mean {
                    return refuse(
                        "pool",
                        "got `none` with `windows`, of which each makes one feature; wanted `mean`"
                            .into(),
                    );
                }
            }
            (window, count) => {
                return refuse(
                    "windows",
                    format!(
                        "got `window` {window:?} and `windows` {count:?}, wanted both or neither"
                    ),
                );
            }
        }
        if self.model == AudioArchitecture::ImageBind {
            if self.layer.is_some() || self.layers.is_some() {
                return refuse(
                    "layer",
                    "ImageBind's feature is its joint embedding; remove `layer` and `layers`"
                        .into(),
                );
            }
            if self.window != Some(2.0) {
                return refuse(
                    "window",
                    format!(
                        "got {:?} for ImageBind, which reads clips of two seconds; wanted `window: 2.0`, `windows` and `pool: mean`",
                        self.window
                    ),
                );
            }
        }
        Ok(())
    }
}

/// A loaded encoder.
#[derive(Debug, Clone)]
pub struct PretrainedAudio {
    config: PretrainedAudioConfig,
    model: AudioModel,
    choice: Choice,
}

impl PretrainedAudio {
    pub(crate) fn encode(
        &self,
        samples: &[f32],
        sample_rate: u32,
    ) -> Result<Features, EncoderError> {
        let config = &self.config;
        let fewest = (config.min_seconds * f64::from(config.sample_rate)) as usize;
        let fewest = fewest.max(self.model.fewest_samples());
        let mut samples = samples.to_vec();
        if !samples.is_empty() && samples.len() < fewest {
            samples.resize(fewest, 0.0);
        }
        let inputs = match (config.window, config.windows) {
            (Some(window), Some(count)) if !samples.is_empty() => {
                let cut = windows::cut(&samples, sample_rate, window, count);
                self.window_inputs(&cut, sample_rate)?
            }
            _ => vec![self.model.preprocess(&samples, sample_rate)?],
        };
        let (mut length, mut data) = (0, Vec::new());
        for input in inputs {
            let features = self.features(input)?;
            length += features.dims()[0];
            data.extend(features.into_data().iter::<f32>());
        }
        Ok(Features {
            length,
            dim: config.dim,
            data,
        })
    }

    fn window_inputs(
        &self,
        cut: &[Vec<f32>],
        sample_rate: u32,
    ) -> Result<Vec<AudioInput>, EncoderError> {
        // Raw sound is preprocessed as one, so that it is standardised as one.
        if let AudioInput::Values { values, .. } =
            self.model.preprocess(&cut.concat(), sample_rate)?
        {
            let length = cut[0].len();
            let row = |index| AudioInput::Values {
                values: values.clone().narrow(1, index * length, length),
                attention_mask: None,
            };
            return Ok((0..cut.len()).map(row).collect());
        }
        cut.iter()
            .map(|window| self.model.preprocess(window, sample_rate))
            .collect()
    }

    /// # Shapes
    /// `[T, D]`, or `[1, D]` where time is pooled
    fn features(&self, input: AudioInput) -> Result<Tensor<2>, EncoderError> {
        let states = self.model.forward(input, self.choice.keep())?;
        if let Some(pooled) = states.pooled {
            return Ok(pooled);
        }
        let steps = self.choice.of(states).squeeze_dim::<2>(0);
        Ok(match self.config.pool {
            TimePool::None => steps,
            TimePool::Mean => steps.mean_dim(0),
        })
    }
}
