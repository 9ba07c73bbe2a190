//! A pretrained vision encoder as the frozen encoder of a recipe: frames of a clip in, features out.

use std::path::PathBuf;

use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::image_processor::{ImageProcessor, Normalisation};
use super::{CheckpointFile, LnVision, VisionKind, VisionModel, VisionSizes};
use crate::{EncoderError, Features, HiddenStates, Keep};

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
        Ok(PretrainedVision {
            output: self.output,
            layer: self.layer,
            image_size: self.image_size,
            processor: ImageProcessor::of_ready_frames(normalise),
            model,
        })
    }

    fn check(&self) -> Result<(), EncoderError> {
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

/// A built pretrained vision encoder.
#[derive(Debug, Clone)]
pub struct PretrainedVision {
    model: VisionModel,
    processor: ImageProcessor,
    output: VisionOutput,
    layer: i32,
    image_size: usize,
}

impl PretrainedVision {
    /// Frames run together: enough to fill the cores, few enough that attention scores stay small.
    const FRAMES_AT_ONCE: usize = 4;

    /// The features of all frames, in order: `[T * P, D]`, or `[T, D]` where a frame is one vector. A model of video makes
    /// one clip of the frames: `[P, D]` or `[1, D]`.
    pub(crate) fn encode(
        &self,
        data: &[u8],
        count: usize,
        size: usize,
    ) -> Result<Features, EncoderError> {
        let frame_bytes = size * size * 3;
        if size != self.image_size || count == 0 || data.len() != count * frame_bytes {
            return Err(EncoderError::Frames {
                bytes: data.len(),
                count,
                got: size,
                wanted: self.image_size,
            });
        }
        let frames: Vec<&[u8]> = data.chunks(frame_bytes).collect();
        let (mut data, mut length, mut dim) = (Vec::new(), 0, 0);
        let batches: Vec<Vec<&[u8]>> = match self.model.sizes().num_frames {
            Some(wanted) => {
                let tubelet = self.model.sizes().tubelet_size;
                let places = segment_places(count, wanted / tubelet, tubelet);
                vec![places.into_iter().map(|place| frames[place]).collect()]
            }
            None => frames
                .chunks(Self::FRAMES_AT_ONCE)
                .map(<[_]>::to_vec)
                .collect(),
        };
        for batch in batches {
            let encoded = self.encode_batch(&batch)?;
            let [rows, columns] = encoded.dims();
            length += rows;
            dim = columns;
            data.extend(encoded.into_data().iter::<f32>());
        }
        Ok(Features { length, dim, data })
    }

    fn encode_batch(&self, frames: &[&[u8]]) -> Result<Tensor<2>, EncoderError> {
        let values = frames
            .iter()
            .flat_map(|frame| self.processor.values(frame))
            .collect();
        let shape = [frames.len(), 3, self.image_size, self.image_size];
        let keep = match self.layer {
            -1 => Keep::Last(0),
            layer => Keep::Last(layer.unsigned_abs() as usize),
        };
        let states = self
            .model
            .forward(self.model.pixel_values(values, shape), keep)?;
        Ok(self.select(states))
    }

    fn select(&self, states: HiddenStates) -> Tensor<2> {
        if self.output == VisionOutput::Pooled {
            return states
                .pooled
                .expect("a model that pools was asked for when it was built");
        }
        let tokens = match self.layer {
            -1 => states.last_hidden_state,
            _ => states.hidden.into_iter().next().expect(
                "as many hidden states were kept as the layer lies from the end, and there are so many",
            ),
        };
        let length = tokens.dims()[1];
        let extra = self.model.sizes().extra_tokens;
        let patches = |tokens: Tensor<3>| tokens.narrow(1, extra, length - extra);
        match self.output {
            VisionOutput::Pooled | VisionOutput::Tokens => tokens,
            VisionOutput::Cls => tokens.narrow(1, 0, 1),
            VisionOutput::Patches => patches(tokens),
            VisionOutput::Mean => patches(tokens).mean_dim(1),
        }
        .flatten(0, 1)
    }
}

/// Which of `count` frames make a clip of `segments` times `tubelet` frames: consecutive ones from the middle of each of
/// as many equal segments, as VideoMAE samples for evaluation. A clip that is too short repeats its frames.
fn segment_places(count: usize, segments: usize, tubelet: usize) -> Vec<usize> {
    let span = (count + 1).saturating_sub(tubelet) as f64 / segments as f64;
    (0..segments)
        .flat_map(|segment| {
            let start = (span / 2.0 + span * segment as f64) as usize;
            (start..start + tubelet).map(move |place| place.min(count - 1))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_a_clip_come_from_the_middle_of_segments() {
        // 33 frames have 32 places for a pair: 4 in each of 8 segments, whose middle is 2.
        let places = segment_places(33, 8, 2);
        let wanted: Vec<usize> = (0..8).flat_map(|i| [4 * i + 2, 4 * i + 3]).collect();
        assert_eq!(places, wanted);
        assert_eq!(segment_places(1, 2, 2), [0, 0, 0, 0]);
        assert_eq!(segment_places(4, 2, 2), [0, 1, 2, 3]);
        assert!(segment_places(5, 8, 2).iter().all(|place| *place < 5));
    }
}
