//! Pretrained vision encoders: the architectures, their weights and their preprocessing.
//!
//! ```text
//! pictures u8 [h, w, 3] -> preprocess -> pixel values [B, 3, H, W] -> forward -> HiddenStates
//! ```
//!
//! A file holds one architecture, whose fields bear the names of its published checkpoints; [`VisionModel`] is the
//! closed set of them. They are held in F32 on a plain device.

mod clip;
mod dinov2;
mod dinov2_layer;
mod eva;
mod eva_weights;
mod frames;
mod image_processor;
mod interpolation;
mod kind;
mod layer;
mod mae;
mod model_config;
mod names;
mod patch_embedding;
mod pretrained_config;
mod processor_config;
mod qv_block;
mod resize;
mod siglip;
mod videomae;
mod vision_model;

use std::path::{Path, PathBuf};

use limbic_weights::WeightsError;

pub use clip::{Clip, ClipConfig};
pub use dinov2::{Dinov2, Dinov2Config};
pub use eva::{Eva, EvaConfig, LnVision};
pub use frames::PretrainedVision;
pub use image_processor::{ImageProcessor, Normalisation, Picture};
pub use kind::{CheckpointFile, VisionKind, VisionSizes};
pub use layer::Activation;
pub use mae::{Mae, MaeConfig};
pub use pretrained_config::{PretrainedVisionConfig, VisionOutput};
pub use siglip::{Siglip, SiglipConfig};
pub use videomae::{VideoMae, VideoMaeConfig};
pub use vision_model::{PixelValues, VisionModel, VisionNetwork};

use crate::EncoderError;

fn weights_error<'a>(
    kind: &'static str,
    path: &'a Path,
) -> impl Fn(WeightsError) -> EncoderError + 'a {
    move |source| EncoderError::Weights {
        kind,
        path: PathBuf::from(path),
        source,
    }
}
