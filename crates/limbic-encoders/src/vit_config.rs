//! What a vision transformer's config may say.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{EncoderError, parameters};

/// A vision transformer. With `depth: 0` it is the patch projection and the position alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VitConfig {
    /// Side of a frame, in pixels.
    pub image_size: usize,
    /// Side of a patch, in pixels.
    pub patch_size: usize,
    /// Width of the stream, and of each feature.
    pub dim: usize,
    /// Number of blocks. Without blocks there is no final norm either: it would only take away how
    /// bright a patch is.
    pub depth: usize,
    /// Attention heads in each block.
    #[serde(default = "one")]
    pub heads: usize,
    /// Width inside each block's network, as a multiple of `dim`.
    #[serde(default = "four")]
    pub mlp_ratio: f64,
    /// Mean of each colour channel, as a fraction of 255.
    pub mean: [f32; 3],
    /// Deviation of each colour channel, as a fraction of 255.
    pub std: [f32; 3],
    /// Whether a learned vector attends with the patches; it is not among the features.
    #[serde(default)]
    pub class_token: bool,
    /// What is added to tell where a patch lies.
    #[serde(default)]
    pub position: Position,
    /// Where the patch projection comes from.
    #[serde(default)]
    pub patch_init: PatchInit,
    /// Added to the variance in each norm.
    #[serde(default = "norm_epsilon")]
    pub norm_epsilon: f64,
    /// Safetensors file with every parameter; either this or `seed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,
    /// Random parameters from this seed: an untrained encoder, said aloud.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

/// What is added to a patch to tell where it lies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Position {
    /// A parameter.
    #[default]
    Learned,
    /// Computed sines and cosines, as in masked autoencoders.
    Sincos,
    /// Nothing: a projector that embeds positions itself follows.
    None,
}

/// Where the patch projection comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PatchInit {
    /// From `weights` or `seed`, as every other parameter.
    #[default]
    Parameters,
    /// A seeded rotation of the pixels: nothing is lost, nothing is learned. Wants
    /// `dim = 3 patch_size²`.
    Orthonormal,
    /// The cosine transform of each channel: nothing is lost at `dim = 3 patch_size²`; below it the
    /// finest detail is. Unlike a rotation it sets edges apart from flat colour, so that a projector
    /// which standardises its input sees both at the same size.
    Cosine,
}

fn one() -> usize {
    1
}

fn four() -> f64 {
    4.0
}

pub(crate) fn norm_epsilon() -> f64 {
    1e-6
}

pub(crate) const KIND: &str = "vit";

impl VitConfig {
    /// Patches of one frame: the features each frame gives.
    pub fn num_patches(&self) -> usize {
        let side = self.image_size / self.patch_size;
        side * side
    }

    fn has_parameters(&self) -> bool {
        self.class_token
            || self.position == Position::Learned
            || self.patch_init == PatchInit::Parameters
            || self.depth > 0
    }

    /// Refuses values that cannot work.
    pub(crate) fn check(&self) -> Result<(), EncoderError> {
        let refuse = |key, problem| {
            Err(EncoderError::Config {
                kind: KIND,
                key,
                problem,
            })
        };
        let inputs = 3 * self.patch_size * self.patch_size;
        if self.patch_size == 0
            || self.image_size == 0
            || !self.image_size.is_multiple_of(self.patch_size)
        {
            return refuse(
                "patch_size",
                format!(
                    "got {} for an `image_size` of {}, wanted a divisor of it",
                    self.patch_size, self.image_size
                ),
            );
        }
        if self.dim == 0 || self.heads == 0 || !self.dim.is_multiple_of(self.heads) {
            return refuse(
                "heads",
                format!(
                    "got {} for a `dim` of {}, wanted a divisor of it",
                    self.heads, self.dim
                ),
            );
        }
        if self.position == Position::Sincos && !self.dim.is_multiple_of(4) {
            return refuse(
                "dim",
                format!(
                    "got {}, wanted a multiple of 4 for `position: sincos`",
                    self.dim
                ),
            );
        }
        if self
            .std
            .iter()
            .chain(&self.mean)
            .any(|value| !value.is_finite())
            || self.std.iter().any(|std| *std <= 0.0)
        {
            return refuse(
                "std",
                format!(
                    "got mean {:?} and std {:?}, wanted numbers, std above 0",
                    self.mean, self.std
                ),
            );
        }
        if self.depth > 0 && (self.dim as f64 * self.mlp_ratio) < 1.0 {
            return refuse(
                "mlp_ratio",
                format!(
                    "got {}, wanted a multiple of `dim` that is at least 1 wide",
                    self.mlp_ratio
                ),
            );
        }
        match self.patch_init {
            PatchInit::Orthonormal if self.dim != inputs => refuse(
                "dim",
                format!(
                    "got {}, wanted 3 patch_size² = {inputs} for `patch_init: orthonormal`",
                    self.dim
                ),
            ),
            PatchInit::Cosine if self.dim > inputs => refuse(
                "dim",
                format!(
                    "got {}, wanted at most 3 patch_size² = {inputs} for `patch_init: cosine`",
                    self.dim
                ),
            ),
            _ => parameters::check(
                KIND,
                self.has_parameters(),
                self.weights.as_deref(),
                self.seed,
            ),
        }
    }
}
