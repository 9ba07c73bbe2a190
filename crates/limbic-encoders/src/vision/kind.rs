//! What is said of a vision encoder from outside: its name, its sizes, the layout of its checkpoint.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::LnVision;

/// The architectures by the names that configs give them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VisionKind {
    /// CLIP's vision tower.
    Clip,
    /// EVA-CLIP's ViT-g/14, as BLIP-2 uses it.
    EvaClipG,
    /// SigLIP's vision tower.
    Siglip,
    /// DINOv2, with or without registers.
    Dinov2,
    /// A masked autoencoder's encoder.
    Mae,
    /// VideoMAE's encoder.
    Videomae,
}

impl VisionKind {
    /// Its name in YAML.
    pub fn name(self) -> &'static str {
        match self {
            Self::Clip => "clip",
            Self::EvaClipG => "eva_clip_g",
            Self::Siglip => "siglip",
            Self::Dinov2 => "dinov2",
            Self::Mae => "mae",
            Self::Videomae => "videomae",
        }
    }
}

impl fmt::Display for VisionKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Sizes of a vision encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VisionSizes {
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Number of layers: there is one hidden state more.
    pub num_layers: usize,
    /// Side of a picture in pixels, as the model was trained.
    pub image_size: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Patches of a picture of `image_size`, or tubelets of a clip.
    pub num_patches: usize,
    /// Tokens before the patches: class and register tokens.
    pub extra_tokens: usize,
    /// Width of the pooled output, where there is one.
    pub pooled_dim: Option<usize>,
    /// Frames that a patch lasts: 1 for pictures.
    pub tubelet_size: usize,
    /// Frames of a clip, for models of video.
    pub num_frames: Option<usize>,
}

/// A checkpoint in the layout of its authors' code, which does not say what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckpointFile {
    /// `eva_vit_g.pth`, for pictures of this side, followed by this norm.
    EvaClipG {
        /// In pixels; 224 as trained, 448 as MiniGPT-v2 uses it.
        image_size: usize,
        /// What follows the last block.
        ln_vision: LnVision,
    },
    /// ViT-L/16 of masked autoencoders.
    MaeLarge,
    /// ViT-L/16 of VideoMAE.
    VideoMaeLarge,
}
