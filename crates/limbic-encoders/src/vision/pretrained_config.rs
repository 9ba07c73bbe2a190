//! What a recipe says of a pretrained vision encoder, and whether the weights agree.

use std::path::PathBuf;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::{
    CheckpointFile, ImageProcessor, LnVision, Normalisation, PretrainedVision, VisionKind,
    VisionModel, VisionSizes,
};
use crate::EncoderError;

/// A pretrained vision encoder. What it declares is checked against the weights, so that the sizes of a model are known
/// without them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainedVisionConfig {
    /// The architecture.
    pub model: VisionKind,
    /// A Hugging Face folder, or for `eva_clip_g`, `mae` and `videomae` a checkpoint file in its authors' layout.
    pub weights: PathBuf,
    /// What becomes of the hidden states.
    pub output: VisionOutput,
    /// Which hidden state, from the end: -1 is the encoder's output (after its final norm where it has one), -2 the
    /// penultimate layer's. Anything pooled comes from -1.
    pub layer: i32,
    /// Size of each feature.
    pub dim: usize,
    /// Side of the frames, in pixels.
    pub image_size: usize,
    /// Mean of each colour channel, as a fraction of 255.
    pub mean: [f32; 3],
    /// Deviation of each colour channel, as a fraction of 255.
    pub std: [f32; 3],
    /// Frames of a clip; for `videomae`, and for it alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frames: Option<usize>,
    /// Whether BLIP-2's norm follows a checkpoint file; for `eva_clip_g`, and for it alone. A Hugging Face folder has
    /// it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ln_vision: Option<bool>,
    /// The checkpoint with `ln_vision.weight` and `ln_vision.bias`; without it, the norm neither scales nor shifts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ln_vision_weights: Option<PathBuf>,
}

/// What becomes of the hidden states of a frame, or of a clip of video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VisionOutput {
    /// One vector, as the model pools: CLIP's image embedding, SigLIP's head, DINOv2's class token, VideoMAE's mean.
    Pooled,
    /// The class token.
    Cls,
    /// Each patch.
    Patches,
    /// Each token: class and registers, then the patches.
    Tokens,
    /// The mean over the patches.
    Mean,
}

const KIND: &str = "pretrained_vision";

fn refuse<T>(key: &'static str, problem: String) -> Result<T, EncoderError> {
    Err(EncoderError::Config {
        kind: KIND,
        key,
        problem,
    })
}

impl PretrainedVisionConfig {
    /// Reads the weights and checks them against what is declared.
    pub(crate) fn init(&self, device: &Device) -> Result<PretrainedVision, EncoderError> {
        self.check()?;
        let model = self.read(device)?;
        self.check_against(&model)?;
        let normalise = Normalisation {
            mean: self.mean,
            std: self.std,
        };
        Ok(PretrainedVision::new(model, self, normalise))
    }

    /// What can be known to be wrong without the weights.
    pub(crate) fn check(&self) -> Result<(), EncoderError> {
        let videomae = self.model == VisionKind::Videomae;
        if self.layer >= 0 {
            return refuse(
                "layer",
                format!(
                    "got {}, wanted -1 for the last, -2 for the one before it, and so on",
                    self.layer
                ),
            );
        }
        if self.output == VisionOutput::Pooled && self.layer != -1 {
            return refuse(
                "layer",
                format!("got {}, wanted -1 for `output: pooled`", self.layer),
            );
        }
        let without_class = matches!(self.model, VisionKind::Siglip | VisionKind::Videomae);
        if self.output == VisionOutput::Cls && without_class {
            return refuse(
                "output",
                format!(
                    "got cls, wanted another: `{}` has no class token",
                    self.model
                ),
            );
        }
        if self.frames.is_some() != videomae {
            return refuse(
                "frames",
                format!(
                    "got {}, wanted {} for `{}`",
                    self.frames
                        .map_or("none".into(), |frames| frames.to_string()),
                    if videomae {
                        "the frames of a clip"
                    } else {
                        "none"
                    },
                    self.model
                ),
            );
        }
        let file_of_eva = self.model == VisionKind::EvaClipG && !self.weights.is_dir();
        if self.ln_vision.is_some() != file_of_eva {
            return refuse(
                "ln_vision",
                format!(
                    "wanted {}",
                    if file_of_eva {
                        "true or false, for a checkpoint file of `eva_clip_g`"
                    } else {
                        "none: only a checkpoint file of `eva_clip_g` leaves it open"
                    }
                ),
            );
        }
        if self.ln_vision_weights.is_some() && self.ln_vision != Some(true) {
            return refuse(
                "ln_vision_weights",
                "wanted `ln_vision: true` with it".into(),
            );
        }
        if self.std.iter().any(|std| !std.is_finite() || *std <= 0.0)
            || self.mean.iter().any(|mean| !mean.is_finite())
        {
            return refuse(
                "std",
                format!(
                    "got mean {:?} and std {:?}, wanted numbers, std above 0",
                    self.mean, self.std
                ),
            );
        }
        Ok(())
    }

    fn read(&self, device: &Device) -> Result<VisionModel, EncoderError> {
        if self.weights.is_dir() {
            return VisionModel::read(&self.weights, device);
        }
        let file = match self.model {
            VisionKind::EvaClipG => CheckpointFile::EvaClipG {
                image_size: self.image_size,
                ln_vision: match (self.ln_vision, &self.ln_vision_weights) {
                    (Some(true), Some(path)) => LnVision::File(path.clone()),
                    (Some(true), None) => LnVision::Identity,
                    _ => LnVision::Absent,
                },
            },
            VisionKind::Mae => CheckpointFile::MaeLarge,
            VisionKind::Videomae => CheckpointFile::VideoMaeLarge,
            VisionKind::Clip | VisionKind::Siglip | VisionKind::Dinov2 => {
                return refuse(
                    "weights",
                    format!(
                        "{}: no such folder; `{}` is read from a Hugging Face folder with `config.json`",
                        self.weights.display(),
                        self.model
                    ),
                );
            }
        };
        VisionModel::read_file(file, &self.weights, device)
    }

    fn check_against(&self, model: &VisionModel) -> Result<(), EncoderError> {
        let weights = self.weights.display();
        let VisionSizes {
            hidden_size,
            num_layers,
            image_size,
            pooled_dim,
            num_frames,
            ..
        } = model.sizes();
        if model.kind() != self.model {
            return refuse(
                "model",
                format!("got {}, but {weights} holds {}", self.model, model.kind()),
            );
        }
        let dim = match self.output {
            VisionOutput::Pooled => match pooled_dim {
                Some(dim) => dim,
                None => {
                    return refuse(
                        "output",
                        format!(
                            "got pooled, but {weights} does not pool; wanted cls, patches, tokens or mean"
                        ),
                    );
                }
            },
            _ => hidden_size,
        };
        if dim != self.dim {
            return refuse(
                "dim",
                format!("got {}, but {weights} gives {dim}", self.dim),
            );
        }
        if image_size != self.image_size && !model.interpolates() {
            return refuse(
                "image_size",
                format!("got {}, but {weights} reads {image_size}", self.image_size),
            );
        }
        if num_frames != self.frames {
            return refuse(
                "frames",
                format!(
                    "got {}, but {weights} reads {}",
                    self.frames.unwrap_or(0),
                    num_frames.unwrap_or(0)
                ),
            );
        }
        if self.layer.unsigned_abs() as usize > num_layers + 1 {
            return refuse(
                "layer",
                format!(
                    "got {}, but {weights} has {} hidden states",
                    self.layer,
                    num_layers + 1
                ),
            );
        }
        let wanted = model.processor().and_then(ImageProcessor::normalisation);
        match wanted {
            Some(Normalisation { mean, std }) if (mean, std) != (self.mean, self.std) => refuse(
                "mean",
                format!(
                    "got mean {:?} and std {:?}, but the preprocessor_config.json of {weights} says {mean:?} and {std:?}",
                    self.mean, self.std
                ),
            ),
            _ => Ok(()),
        }
    }
}
